"""Fidelity of a denoised image to its clean reference: SSIM by two definitions, PSNR and RMSE.

Every function takes an image ``(H, W)`` or a volume ``(D, H, W)``. A volume is scored slice by slice and the slices
are averaged, because the networks are two-dimensional and so are the published numbers. All arithmetic is in float64.
`data_range` is mandatory: guessed from a dtype it makes scores that cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .errors import InputError, UsageError, nearest

__all__ = ["MAX_PSNR", "MS_SSIM_SIDE", "SSIMDefinition", "ms_ssim", "psnr", "rmse", "score", "ssim"]

SSIMDefinition: TypeAlias = Literal["gaussian", "matlab"]

MAX_PSNR = 100.0
"""The PSNR in dB that identical images get."""

MS_SSIM_SIDE = 176
"""The least side in pixels of an image that has an MS-SSIM: its fifth scale still holds the window."""

_WINDOW_SIGMA = 1.5
_WINDOW_RADIUS = 5
_K1, _K2 = 0.01, 0.03
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM, the finest first


def ssim(
    reference: ArrayLike, test: ArrayLike, data_range: float, definition: SSIMDefinition | str = "gaussian"
) -> float:
    """Mean structural similarity (Wang et al., IEEE Transactions on Image Processing 13(4), 2004).

    Parameters
    ----------
    reference, test
        Images ``(H, W)`` or volumes ``(D, H, W)`` of any real dtype, of one shape.
    data_range
        The distance between the least and the greatest possible value, in the images' units; never guessed.
    definition
        Both have an 11x11 Gaussian window of standard deviation 1.5, K1 = 0.01, K2 = 0.03 and population covariances.
        ``"gaussian"`` averages only where the window lies inside the image: Wang's, scikit-image's with
        ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``, and MONAI's ``SSIMMetric``.
        ``"matlab"`` replicates the borders and averages over the whole image: MATLAB's ``ssim``. On images of
        64x64 the two differ by up to 0.09.

    Returns
    -------
    float
        In [-1, 1]; exactly 1 for identical images.

    Raises
    ------
    InputError
        The shapes differ or are no image's, a value is not finite, or an image is narrower than the window (11
        pixels) under the definition ``"gaussian"``.
    UsageError
        `data_range` is not a positive number, or `definition` is unknown.
    """
    if definition not in ("gaussian", "matlab"):
        raise UsageError(f"SSIM has no definition {definition!r}", nearest(str(definition), ("gaussian", "matlab")))
    references, tests, data_range = _checked(reference, test, data_range)
    if definition == "gaussian":
        _check_window_fits(references, "use larger images, or the definition 'matlab', which replicates the borders")
    maps = (_ssim_map(a, b, data_range) for a, b in zip(references, tests, strict=True))
    return _mean(float((_interior(each) if definition == "gaussian" else each).mean()) for each in maps)


def psnr(reference: ArrayLike, test: ArrayLike, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(data_range**2 / mean squared error)``, at most 100.

    Identical images get 100 dB and not infinity, which would swallow every mean and which MLflow stores as 1.8e308.

    Parameters
    ----------
    reference, test
        Images ``(H, W)`` or volumes ``(D, H, W)`` of any real dtype, of one shape.
    data_range
        The distance between the least and the greatest possible value, in the images' units; never guessed.

    Raises
    ------
    InputError
        The shapes differ or are no image's, or a value is not finite.
    UsageError
        `data_range` is not a positive number.
    """
    references, tests, data_range = _checked(reference, test, data_range)
    return _mean(_psnr(a, b, data_range) for a, b in zip(references, tests, strict=True))


def rmse(reference: ArrayLike, test: ArrayLike) -> float:
    """Root of the mean squared error, in the images' units.

    Parameters
    ----------
    reference, test
        Images ``(H, W)`` or volumes ``(D, H, W)`` of any real dtype, of one shape.

    Raises
    ------
    InputError
        The shapes differ or are no image's, or a value is not finite.
    """
    references, tests, _ = _checked(reference, test, data_range=1.0)
    return _mean(math.sqrt(_mean_squared_error(a, b)) for a, b in zip(references, tests, strict=True))


def ms_ssim(reference: ArrayLike, test: ArrayLike, data_range: float) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik, Asilomar Conference 2003).

    Five scales with the weights of the paper, each of means of 2 x 2 pixels of the one before; window and constants as
    in `ssim`, `"gaussian"`. Equal to MONAI's ``compute_ms_ssim`` to its float32, in half of the time
    (docs/benchmarks.md): its windows are not separated.

    Parameters
    ----------
    reference, test
        Images ``(H, W)`` or volumes ``(D, H, W)`` of any real dtype, of one shape, H and W of `MS_SSIM_SIDE` or more.
    data_range
        The distance between the least and the greatest possible value, in the images' units; never guessed.

    Returns
    -------
    float
        In [0, 1]; 1 for identical images.

    Raises
    ------
    InputError
        The shapes differ or are no image's or too small, or a value is not finite.
    UsageError
        `data_range` is not a positive number.
    """
    references, tests, data_range = _checked(reference, test, data_range)
    _check_five_scales(references)
    return _mean(_ms_ssim(a, b, data_range) for a, b in zip(references, tests, strict=True))


def _check_five_scales(images: NDArray[np.float64]) -> None:
    if min(images.shape[-2:]) < MS_SSIM_SIDE:
        raise InputError(
            f"images of {images.shape[-2]}x{images.shape[-1]} have no five scales",
            f"give images of at least {MS_SSIM_SIDE}x{MS_SSIM_SIDE} pixels",
        )


def _ms_ssim(
    reference: NDArray[np.float64],
    test: NDArray[np.float64],
    data_range: float,
    finest: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> float:
    """`finest`, if it is known already, is what `_ssim_parts` says of both."""
    product = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS, 1):
        known = finest if scale == 1 else None
        luminance, structure = known or _ssim_parts(reference, test, data_range)
        seen = structure * luminance if scale == len(_SCALE_WEIGHTS) else structure
        product *= max(float(_interior(seen).mean()), 0.0) ** weight  # a negative number has no such power
        reference, test = _halved(reference), _halved(test)
    return product


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of squares of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = (size // 2 for size in image.shape)
    halved: NDArray[np.float64] = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))
    return halved


def score(reference: ArrayLike, test: ArrayLike, data_range: float, multi_scale: bool = False) -> dict[str, float]:
    """All metrics at once: the keys are ``ssim``, ``ssim_matlab``, ``psnr``, ``rmse`` and, if asked for, ``ms_ssim``.

    Equal to calling `ssim` (by both definitions), `psnr`, `rmse` and `ms_ssim`, at less than half the cost; parameters
    and errors are those of `ssim`, with `multi_scale` also those of `ms_ssim`.
    """
    references, tests, data_range = _checked(reference, test, data_range)
    _check_window_fits(references, "leave smaller images out")
    if multi_scale:
        _check_five_scales(references)
    rows = []
    for a, b in zip(references, tests, strict=True):
        parts = _ssim_parts(a, b, data_range)
        similarity = parts[0] * parts[1]
        root = math.sqrt(_mean_squared_error(a, b))
        row = (_interior(similarity).mean(), similarity.mean(), _psnr(a, b, data_range), root)
        rows.append((*row, _ms_ssim(a, b, data_range, parts)) if multi_scale else row)
    names = ("ssim", "ssim_matlab", "psnr", "rmse", "ms_ssim")
    return dict(zip(names, map(float, np.mean(rows, axis=0)), strict=False))


def _ssim_map(reference: NDArray[np.float64], test: NDArray[np.float64], data_range: float) -> NDArray[np.float64]:
    luminance, structure = _ssim_parts(reference, test, data_range)
    return luminance * structure


def _ssim_parts(
    reference: NDArray[np.float64], test: NDArray[np.float64], data_range: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Likeness of means, and of contrast and structure together, at each pixel."""

    # Replicated borders reach no pixel further in than the window's radius, so one map serves both definitions.
    def smooth(image: NDArray[np.float64]) -> NDArray[np.float64]:
        smoothed: NDArray[np.float64] = ndimage.gaussian_filter(
            image, _WINDOW_SIGMA, mode="nearest", radius=_WINDOW_RADIUS
        )
        return smoothed

    # Variances do not depend on an offset, but mean(x**2) - mean(x)**2 loses its digits to one.
    offset = (float(reference.mean()) + float(test.mean())) / 2
    x, y = reference - offset, test - offset
    mean_x, mean_y = smooth(x), smooth(y)
    variance_x = np.maximum(smooth(x * x) - mean_x**2, 0.0)
    variance_y = np.maximum(smooth(y * y) - mean_y**2, 0.0)
    # Rounding alone can make a covariance that no such variances allow, and with it an SSIM above 1.
    bound = np.sqrt(variance_x * variance_y)
    covariance = np.clip(smooth(x * y) - mean_x * mean_y, -bound, bound)
    mean_x, mean_y = mean_x + offset, mean_y + offset
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def _interior(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    return similarity[_WINDOW_RADIUS:-_WINDOW_RADIUS, _WINDOW_RADIUS:-_WINDOW_RADIUS]


def _psnr(reference: NDArray[np.float64], test: NDArray[np.float64], data_range: float) -> float:
    error = _mean_squared_error(reference, test)
    if error == 0:
        return MAX_PSNR
    return min(MAX_PSNR, 20 * math.log10(data_range) - 10 * math.log10(error))


def _mean_squared_error(reference: NDArray[np.float64], test: NDArray[np.float64]) -> float:
    return float(np.mean((reference - test) ** 2))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _checked(
    reference: ArrayLike, test: ArrayLike, data_range: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Both as ``(D, H, W)`` in float64, and the data range as a float."""
    try:
        data_range = float(data_range)
    except (TypeError, ValueError):
        data_range = math.nan
    if not (math.isfinite(data_range) and data_range > 0):
        raise UsageError(
            "data_range must be a positive number", "give the distance between the least and the greatest value"
        )
    stacks = []
    for role, values in (("reference", reference), ("test", test)):
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise InputError(f"the {role} image has dtype {array.dtype}", "give real numbers")
        if array.ndim not in (2, 3) or array.size == 0:
            raise InputError(f"the {role} image has shape {array.shape}", "give (H, W) or (D, H, W), not empty")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise InputError(f"the {role} image has values that are NaN or infinite", "mask or replace them first")
        stacks.append(array)
    if stacks[0].shape != stacks[1].shape:
        raise InputError(
            f"the reference has shape {stacks[0].shape}, the test image {stacks[1].shape}",
            "compare images of one shape",
        )
    first, second = (stack.reshape(-1, *stack.shape[-2:]) for stack in stacks)
    return first, second, data_range


def _check_window_fits(images: NDArray[np.float64], hint: str) -> None:
    width = 2 * _WINDOW_RADIUS + 1
    if min(images.shape[-2:]) < width:
        raise InputError(
            f"images of {images.shape[-2]}x{images.shape[-1]} are smaller than the {width}x{width} window of SSIM", hint
        )
