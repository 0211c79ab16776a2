"""Images of one scene, checked, as one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

__all__ = ["Array", "stacked"]

Array = NDArray[np.float64]


def stacked(images: ArrayLike, role: str) -> Array:
    """As (R, H, W) in float64."""
    array = np.asarray(images)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{role} has dtype {array.dtype}", "give real numbers")
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"{role} has shape {array.shape}", "give (H, W) or (R, H, W), not empty")
    stack: Array = array.astype(np.float64).reshape(-1, *array.shape[-2:])
    if not np.isfinite(stack).all():
        raise InputError(f"{role} has values that are NaN or infinite", "mask or replace them first")
    return stack
