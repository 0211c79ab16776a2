"""Contrast of a lesion, against its surroundings and against the truth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, UsageError
from .stacks import Array, stacked

__all__ = ["contrast_recovery", "contrast_to_noise"]


def contrast_to_noise(images: ArrayLike, lesion: ArrayLike, background: ArrayLike) -> float:
    """Contrast-to-noise ratio, ``(mean(lesion) - mean(background)) / std(background)``; negative if darker.

    As in the quality control of CT by the American College of Radiology (2012). The noise is that within one image: a
    background that is not uniform counts as noise, too.

    Parameters
    ----------
    images
        (H, W), or (R, H, W): then the mean of the realisations' ratios.
    lesion, background
        Masks (H, W) of bool, the background of two pixels or more.

    Returns
    -------
    float

    Raises
    ------
    InputError
        The shapes do not fit, a value is not finite, a mask is no mask or empty, or a background has no noise at all.
    """
    inside, outside = _two_regions(images, lesion, background)
    if outside.shape[1] < 2:
        raise InputError("a background of one pixel shows no noise", "give a larger background")
    noise = outside.std(axis=1, ddof=1)
    if not noise.all():
        raise InputError("the background is constant and its contrast-to-noise ratio infinite", "use contrast_recovery")
    return float(np.mean((inside.mean(axis=1) - outside.mean(axis=1)) / noise))


def contrast_recovery(images: ArrayLike, lesion: ArrayLike, background: ArrayLike, true_contrast: float) -> float:
    """What is left of a lesion's contrast: ``(mean(lesion) - mean(background)) / true_contrast``, 1 if all of it.

    The contrast recovery coefficient of NEMA NU 2 (2018), but for its division of both contrasts by the background,
    which would be blind to a change of scale and has no meaning where values may be zero.

    Parameters
    ----------
    images
        (H, W), or (R, H, W), whose mean counts.
    lesion, background
        Masks (H, W) of bool.
    true_contrast
        Of the noise-free object under the same masks, in the images' units.

    Returns
    -------
    float

    Raises
    ------
    InputError
        The shapes do not fit, a value is not finite, or a mask is no mask or empty.
    UsageError
        `true_contrast` is 0 or not finite.
    """
    if not (math.isfinite(true_contrast) and true_contrast != 0):
        raise UsageError(f"nothing of a contrast of {true_contrast} can be recovered", "give the true contrast")
    inside, outside = _two_regions(images, lesion, background)
    return float((inside.mean() - outside.mean()) / true_contrast)


def _two_regions(images: ArrayLike, lesion: ArrayLike, background: ArrayLike) -> tuple[Array, Array]:
    """The values (R, n) under each mask."""
    stack = stacked(images, "images")
    chosen = []
    for role, mask in (("lesion", np.asarray(lesion)), ("background", np.asarray(background))):
        if mask.dtype != np.bool_ or mask.shape != stack.shape[1:]:
            raise InputError(
                f"the mask of the {role} has dtype {mask.dtype} and shape {mask.shape}",
                f"give a mask of bool, {stack.shape[1:]} as the images",
            )
        if not mask.any():
            raise InputError(f"the mask of the {role} is empty", "mark a pixel or more")
        chosen.append(stack[:, mask])
    return chosen[0], chosen[1]
