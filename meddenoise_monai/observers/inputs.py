"""What every part of the observers takes, checked."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, UsageError

__all__ = ["Array", "Groups", "Interval", "centre_of", "checked", "steps_from"]

Array: TypeAlias = NDArray[np.float64]
Groups: TypeAlias = tuple[Sequence[Hashable], Sequence[Hashable]]
Interval: TypeAlias = tuple[float, float]


def checked(values: ArrayLike, what: str, dimensions: int) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} have dtype {array.dtype}", "give real numbers")
    if array.ndim != dimensions or array.size == 0:
        raise InputError(f"{what} have shape {array.shape}", f"give {dimensions} dimension(s), none of them empty")
    if not np.isfinite(array).all():
        raise InputError(f"{what} have values that are NaN or infinite", "mask or replace them first")
    return array.astype(np.float64)


def centre_of(shape: tuple[int, int], centre: tuple[float, float] | None) -> tuple[float, float]:
    if len(shape) != 2 or min(shape) < 1:
        raise UsageError(f"no image of shape {shape}", "give (H, W)")
    row, column = ((shape[0] - 1) / 2, (shape[1] - 1) / 2) if centre is None else centre
    if not (0 <= row <= shape[0] - 1 and 0 <= column <= shape[1] - 1):
        raise UsageError(f"{row}, {column} does not lie in an image of {shape[0]}x{shape[1]}", "give (row, column)")
    return row, column


def steps_from(shape: tuple[int, int], centre: tuple[float, float] | None) -> tuple[Array, Array]:
    """How far each row (H,) and each column (W,) lies from the centre."""
    row, column = centre_of(shape, centre)
    return np.arange(shape[0], dtype=np.float64) - row, np.arange(shape[1], dtype=np.float64) - column
