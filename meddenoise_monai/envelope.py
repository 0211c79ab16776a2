"""Whether an image lies within what the denoiser was validated on: noise up to some strength, sizes, real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .images import IntensityScale
from .noise import estimate_sigma

__all__ = ["Envelope", "examine", "label_map"]

STRONGEST = 75 / 255  # as a share of the image's range: the strongest noise that the released weights were trained on
SMALLEST = 32  # pixels along the shorter side of the smallest image in `benchmark_kinds.py`
# Images have more values than that, and label maps (atlases, masks) are constant over areas.
_FEW_VALUES, _MANY_LABELS, _CONSTANT = 8, 1024, 0.85
# Enough for an error of some 4 % of sigma; a slice of 512 x 512 would take ten times as long.
_LOOKED_AT = 2**16


@dataclass(frozen=True)
class Envelope:
    """What was seen of an image.

    Parameters
    ----------
    sigma
        Estimated standard deviation of its noise, in the image's units; None where it is too small to tell.
    warnings
        In what it lies outside, by kind: ``strong`` or ``small``.
    """

    sigma: float | None
    warnings: dict[str, str]


def examine(image: NDArray[Any], scale: IntensityScale) -> Envelope:
    """Estimate the noise of an image, and compare both with what was validated.

    Parameters
    ----------
    image
        (H, W) or (D, H, W), real and finite, in its own units.
    scale
        Takes these units to [0, 1].
    """
    shorter = min(image.shape[-2:])
    sigma = estimate_sigma(image, _LOOKED_AT) if shorter >= 8 else None
    warnings = {}
    if sigma is not None and sigma > STRONGEST * scale.width:
        warnings["strong"] = (
            f"the noise has a standard deviation of about {sigma:.4g}, {sigma / scale.width:.0%} of the range of "
            f"values: the released weights were trained up to {STRONGEST:.0%}"
        )
    if shorter < SMALLEST:
        warnings["small"] = f"the image is {shorter} pixels wide or high: no results are known below {SMALLEST}"
    return Envelope(sigma, warnings)


def label_map(image: NDArray[Any]) -> str:
    """Why an image is taken for a mask or a map of labels, in which there is no noise to remove; empty if it is not.

    It is one if it has at most 1024 different values and 85 % or more of the neighbours along a row are equal: of all
    where it has at most 8 values, else of those that are not both of the least, the largest or the most frequent value,
    since the background of an image and what is cut out of it are constant, too.
    """
    slices = image.reshape(-1, *image.shape[-2:])
    slices = slices[np.linspace(0, len(slices) - 1, min(len(slices), 16)).round().astype(int)]
    values = np.unique(slices[:, ::7, ::5])  # a quick look at first: most images have many values
    if len(values) > _MANY_LABELS or len(values := np.unique(slices)) > _MANY_LABELS:
        return ""
    left, right = slices[..., :-1], slices[..., 1:]
    equal = left == right
    few = len(values) <= _FEW_VALUES
    if not few:
        frequent = values[np.bincount(np.searchsorted(values, slices.reshape(-1))).argmax()]
        equal = equal[~(equal & np.isin(left, (values[0], values[-1], frequent)))]
    if not equal.size or equal.mean() < _CONSTANT:
        return ""
    kind = "masks do" if few else "maps of labels and test patterns do"
    return f"it holds {len(values)} different values, each constant over areas, as {kind}"
