"""In which plane a volume was acquired, and its slices first, in that plane, and back.

Networks in 2D see slice by slice what the scanner saw at once: across thick slices there is little to learn from the
neighbours, and a plane that cuts through them shows steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["itk_slice_axis", "nifti_slice_axis", "slice_axis", "slices_first", "volume_of"]


def slice_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """Across which axis of a volume its slices lie: that of the widest spacing, else the last one; counted alike.

    Spacings count as wider from 1.2 times the others on. An axis of one voxel is that of a single slice.
    """
    single = [axis for axis, length in enumerate(shape) if length == 1]
    if len(single) == 1:
        return single[0]
    *_, second, widest = sorted(spacing)
    return list(spacing).index(widest) if widest > 1.2 * second else len(spacing) - 1


def nifti_slice_axis(image: Any) -> int:
    """Of (x, y, z): what the header says if it says so (dim_info), else `slice_axis`; 2 where there are no three."""
    if len(image.shape) < 3:
        return 2
    declared = image.header.get_dim_info()[2] if hasattr(image.header, "get_dim_info") else None
    spacing = [float(size) for size in image.header.get_zooms()[:3]]
    return int(declared) if declared is not None else slice_axis(image.shape[:3], spacing)


def slices_first(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """(…, z, y, x) to (slices, rows, columns); `axis` of (x, y, z) is the one across the slices."""
    if array.ndim < 3:
        return array
    return np.moveaxis(array, -1 - axis, -3).reshape(-1, *slice_shape(array.shape, axis)[-2:])


def slice_shape(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """The shape (…, z, y, x) of a volume once the axis across its slices has moved before the two others."""
    rest = list(shape)
    return (*rest[:-3], rest.pop(-1 - axis), *rest[-2:]) if len(rest) >= 3 else tuple(rest)


def volume_of(slices: NDArray[Any], shape: Sequence[int], axis: int) -> NDArray[Any]:
    """The inverse of `slices_first`: a volume of the shape (…, z, y, x)."""
    if len(shape) < 3:
        return slices.reshape(shape)
    return np.moveaxis(slices.reshape(slice_shape(shape, axis)), -3, -1 - axis)


def itk_slice_axis(image: Any) -> int:
    """Of (x, y, z)."""
    size = image.GetLargestPossibleRegion().GetSize()
    return slice_axis(list(size), list(image.GetSpacing())) if len(size) == 3 else 2
