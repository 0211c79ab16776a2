"""Lesions that are put into images, and whether denoising keeps, removes or invents them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, signal

from .errors import InputError, UsageError

__all__ = ["LesionDetection", "insert_lesions", "lesion_detection", "matched_filter"]

_Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class LesionDetection:
    """How a known lesion fares in denoised images.

    Attributes
    ----------
    threshold
        Of the filter's response, as a share of the lesion's contrast.
    true_positive_rate
        Share of the inserted lesions whose response is above `threshold`.
    false_positive_rate
        The same share at the same places without lesions.
    kept_contrast
        Mean over the lesions of the share of contrast that denoising left: 1 all of it, 0 nothing.
    removed
        Share of the lesions that kept less contrast than the given limit.
    invented
        Lesions seen where there are none, an image: maxima among their 3x3 neighbours that lie above that limit.
    """

    threshold: float
    true_positive_rate: float
    false_positive_rate: float
    kept_contrast: float
    removed: float
    invented: float


def insert_lesions(image: ArrayLike, lesion: ArrayLike, positions: Sequence[tuple[int, int]]) -> _Array:
    """Add a lesion at several places.

    Parameters
    ----------
    image
        (H, W) or (N, H, W): every image gets all lesions.
    lesion
        (h, w), what it adds, in the image's units.
    positions
        Rows and columns, pixels: where the lesion's pixel ``(h // 2, w // 2)`` comes to lie.

    Returns
    -------
    NDArray[np.float64]
        A new array, shaped like `image`.

    Raises
    ------
    InputError
        A shape is wrong, or a lesion would not lie inside the image.
    """
    result = np.array(image, np.float64)
    picture = np.asarray(lesion, np.float64)
    for row, column in _corners(result.shape, picture, positions):
        result[..., row : row + picture.shape[0], column : column + picture.shape[1]] += picture
    return result


def matched_filter(image: ArrayLike, lesion: ArrayLike) -> _Array:
    """How much of a lesion is at each place, as a share of its contrast: a matched filter for white noise.

    ``sum(s x) / sum(s**2)`` with the lesion s less its mean, so that the level of the background does not matter: 1
    for the lesion itself (Turin, *IRE Transactions on Information Theory* 6(3), 1960). In white noise sigma, its
    standard deviation is ``sigma / sqrt(sum(s**2))``.

    Parameters
    ----------
    image
        (H, W) or (N, H, W).
    lesion
        (h, w), with enough of its surroundings that it is not flat.

    Returns
    -------
    NDArray[np.float64]
        (..., H - h + 1, W - w + 1); the value at (i, j) is for a lesion whose first pixel is there.

    Raises
    ------
    InputError
        A shape is wrong, a value is not finite, or the lesion is flat.
    """
    stack, picture = np.asarray(image, np.float64), np.asarray(lesion, np.float64)
    _corners(stack.shape, picture, ())
    if not (np.isfinite(stack).all() and np.isfinite(picture).all()):
        raise InputError("the images have values that are NaN or infinite", "mask or replace them first")
    template = picture - picture.mean()
    if np.ptp(picture) == 0:
        raise InputError("the lesion's picture is flat", "leave a border around the lesion")
    template = (template / (template**2).sum()).reshape((1,) * (stack.ndim - 2) + picture.shape)
    response: _Array = signal.correlate(stack, template, mode="valid", method="fft")
    return response


def lesion_detection(
    reference: ArrayLike,
    lesion: ArrayLike,
    positions: Sequence[tuple[int, int]],
    with_lesions: ArrayLike,
    without_lesions: ArrayLike,
    false_positive_rate: float = 0.05,
    limit: float = 0.5,
) -> LesionDetection:
    """Find out whether denoising keeps, removes or invents a known lesion.

    The observer knows the lesion, the places and the background exactly: it thresholds `matched_filter` of the output
    less that of the reference. The threshold is the quantile ``1 - false_positive_rate`` of the response all over the
    outputs without lesions. In white noise sigma the true-positive rate is ``Phi(d - z)`` with
    ``d = sqrt(sum(s**2)) / sigma`` and z the normal quantile (Barrett and Myers, *Foundations of image science*, 2004,
    section 13.2).

    That threshold follows the output: a method that leaves more has a higher one. Removed and invented lesions are
    therefore counted against a share of the lesion's contrast, the same for all methods. What a lesion kept is the
    response with it less that without it, in which the noise common to both cancels.

    Parameters
    ----------
    reference
        (H, W), the clean image without lesions, or (N, H, W).
    lesion
        (h, w), what was added to it, in the images' units.
    positions
        As for `insert_lesions`; the lesions should not touch each other.
    with_lesions, without_lesions
        (H, W) or (N, H, W): denoised images of the same noise, with the lesion at all positions and without any.
    false_positive_rate
        For which the threshold is set, between 0 and 1.
    limit
        Share of the lesion's contrast below which it is removed, and above which one is invented; above 0.

    Raises
    ------
    InputError
        As `matched_filter` and `insert_lesions`, or the shapes do not fit or there is no position.
    UsageError
        `false_positive_rate` or `limit` is out of bounds.
    """
    if not (0 < false_positive_rate < 1 and limit > 0):
        raise UsageError(
            f"false_positive_rate {false_positive_rate}, limit {limit}",
            "the rate lies between 0 and 1, the limit above 0",
        )
    picture, background = np.asarray(lesion, np.float64), np.asarray(reference, np.float64)
    present, absent = (np.asarray(each, np.float64) for each in (with_lesions, without_lesions))
    if present.shape != absent.shape or background.shape not in (absent.shape, absent.shape[-2:]):
        raise InputError(
            f"a reference of shape {background.shape}, outputs of shape {present.shape} and {absent.shape}",
            "give outputs of one shape (H, W) or (N, H, W), and a reference of that shape or (H, W)",
        )
    corners = _corners(absent.shape, picture, positions)
    if not len(corners):
        raise InputError("there is no position of a lesion", "give at least one")
    # The filter is linear: the difference of two responses is the response to the difference.
    seen_present, seen_absent = (
        matched_filter((each - background).reshape(-1, *each.shape[-2:]), picture) for each in (present, absent)
    )
    threshold = float(np.quantile(seen_absent, 1 - false_positive_rate))
    at = (..., corners[:, 0], corners[:, 1])
    kept = seen_present[at] - seen_absent[at]
    peaks = seen_absent == ndimage.maximum_filter(seen_absent, (1, 3, 3))
    return LesionDetection(
        threshold=threshold,
        true_positive_rate=float((seen_present[at] > threshold).mean()),
        false_positive_rate=float((seen_absent[at] > threshold).mean()),
        kept_contrast=float(kept.mean()),
        removed=float((kept < limit).mean()),
        invented=float((peaks & (seen_absent > limit)).sum() / len(seen_absent)),
    )


def _corners(shape: tuple[int, ...], lesion: _Array, positions: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The first pixel of each lesion, (K, 2); refuses shapes that do not fit."""
    if len(shape) not in (2, 3) or lesion.ndim != 2 or lesion.size == 0 or min(shape) == 0:
        raise InputError(
            f"an image of shape {shape} and a lesion of shape {lesion.shape}", "give (H, W) or (N, H, W), and (h, w)"
        )
    corners: NDArray[np.int64] = np.asarray(positions, np.int64).reshape(-1, 2) - np.array(lesion.shape) // 2
    last = np.array(shape[-2:]) - lesion.shape
    if (last < 0).any() or (corners < 0).any() or (corners > last).any():
        raise InputError(
            f"a lesion of {lesion.shape[0]}x{lesion.shape[1]} pixels does not lie inside {shape[-2]}x{shape[-1]}",
            "move it away from the border",
        )
    return corners
