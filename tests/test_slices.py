"""The plane that a volume was acquired in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meddenoise_monai.image_writing import write_image
from meddenoise_monai.images import read_image
from meddenoise_monai.slices import slice_axis, slices_first, volume_of


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5).map(tuple),
    axis=st.integers(0, 2),
)
def test_slices_first_and_back(shape: tuple[int, ...], axis: int) -> None:
    volume = np.arange(np.prod(shape)).reshape(shape)
    slices = slices_first(volume, axis)
    assert slices.ndim == min(len(shape), 3)
    np.testing.assert_array_equal(volume_of(slices, shape, axis), volume)
    if len(shape) >= 3:
        across = -1 - axis
        assert slices.shape[0] == np.prod(shape[:-3], dtype=int) * shape[across]
        np.testing.assert_array_equal(slices[0], np.take(volume[(0,) * (len(shape) - 3)], 0, axis=3 + across))


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((64, 64, 20), (1, 1, 5), 2),
        ((20, 64, 64), (5, 1, 1), 0),
        ((64, 20, 64), (0.9, 4, 1), 1),
        ((64, 64, 64), (1, 1, 1), 2),  # isotropic: as it is stored
        ((64, 64, 64), (1, 1.1, 1), 2),
        ((64, 64, 64), (0.5, 1, 1), 2),  # the finest axis says nothing about the slices
        ((1, 64, 64), (1, 1, 1), 0),  # one sagittal slice; cut across it would fall into lines
        ((64, 1, 64), (1, 1, 3), 1),
    ],
)
def test_slices_lie_across_the_widest_spacing(shape: Any, spacing: Any, axis: int) -> None:
    assert slice_axis(shape, spacing) == axis


@pytest.mark.parametrize(
    ("zooms", "declared", "axis"), [((1, 1, 5), None, 2), ((5, 1, 1), None, 0), ((5, 1, 1), 1, 1), ((1, 1, 1), 0, 0)]
)
def test_nifti_is_read_and_written_by_its_acquisition_plane(
    tmp_path: Path, zooms: tuple[float, ...], declared: int | None, axis: int
) -> None:
    stored = np.random.default_rng(0).integers(0, 999, (7, 8, 9, 2)).astype(np.int16)
    image: Any = nibabel.Nifti1Image(stored, np.diag([*zooms, 1.0]))  # type: ignore[no-untyped-call]
    if declared is not None:
        image.header.set_dim_info(slice=declared)
    nibabel.save(image, tmp_path / "a.nii")  # type: ignore[attr-defined]
    array = read_image(tmp_path / "a.nii").array
    in_plane = [length for number, length in enumerate((7, 8, 9)) if number != axis]
    assert array.shape == (2 * (7, 8, 9)[axis], *in_plane[::-1])
    np.testing.assert_array_equal(array[1], np.take(stored[..., 0], 1, axis=axis).T)
    written: Any = nibabel.load(write_image(tmp_path / "b.nii", array + 1, like=tmp_path / "a.nii"))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(written.get_fdata(), stored + 1)


@pytest.mark.parametrize(("spacing", "axis"), [((1.0, 1.0, 4.0), 2), ((4.0, 1.0, 1.0), 0), ((1.0, 3.0, 1.0), 1)])
def test_metaimage_is_read_and_written_by_its_acquisition_plane(
    tmp_path: Path, spacing: tuple[float, ...], axis: int
) -> None:
    stored = np.random.default_rng(0).integers(0, 999, (9, 8, 7)).astype(np.int16)  # (z, y, x)
    image = itk.image_from_array(stored)
    image.SetSpacing(spacing)
    itk.imwrite(image, str(tmp_path / "a.mha"))
    array = read_image(tmp_path / "a.mha").array
    np.testing.assert_array_equal(array[2], np.take(stored, 2, axis=2 - axis))
    write_image(tmp_path / "b.mha", array + 1, like=tmp_path / "a.mha")
    after = itk.imread(str(tmp_path / "b.mha"))
    np.testing.assert_array_equal(itk.array_from_image(after), stored + 1)
    assert tuple(after.GetSpacing()) == spacing
