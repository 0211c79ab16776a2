"""Of the images module: the intensity scale, and finding files. Reading is in test_images.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from meddenoise_monai.errors import InputError
from meddenoise_monai.images import (
    IntensityScale,
    find_images,
    image_suffix,
)

# --- The scale --------------------------------------------------------------------------------------------------------


def spread(values: np.ndarray[Any, Any]) -> bool:
    return bool(values.min() != values.max())


@given(
    values=st.sampled_from([np.uint8, np.int8, np.uint16, np.int16])
    .flatmap(lambda dtype: st_numpy.arrays(dtype, (3, 4)))
    .filter(spread),
    inverted=st.booleans(),
)
def test_integers_of_16_bits_come_back_exactly(values: np.ndarray[Any, Any], inverted: bool) -> None:
    scale = IntensityScale.of(values, inverted)
    unit = scale.to_unit(values)
    assert unit.dtype == np.float32
    assert unit.min() >= 0
    assert unit.max() <= 1
    np.testing.assert_array_equal(np.rint(scale.from_unit(unit)), values)


@given(low=st.integers(-(2**31), 2**31), width=st.integers(1, 2**24 - 1), part=st.floats(0, 1))
def test_integers_below_24_bits_come_back_exactly(low: int, width: int, part: float) -> None:
    values = np.array([low, low + int(width * part), low + width])
    scale = IntensityScale.of(values)
    np.testing.assert_array_equal(np.rint(scale.from_unit(scale.to_unit(values))), values)


@given(values=st_numpy.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)).filter(spread), inverted=st.booleans())
def test_floats_come_back_within_half_a_step_of_float32(values: np.ndarray[Any, Any], inverted: bool) -> None:
    scale = IntensityScale.of(values, inverted)
    unit = scale.to_unit(values)
    assert {float(unit.min()), float(unit.max())} == {0.0, 1.0}
    arithmetic = 8 * np.finfo(np.float64).eps * np.abs(values).max()  # of the float64 steps in between
    assert np.abs(scale.from_unit(unit) - values).max() <= scale.width * 2**-25 + arithmetic


def test_scale_as_numbers() -> None:
    for scale in (IntensityScale(-1024.0, 3071.0), IntensityScale(0.0, 255.0, True)):
        assert IntensityScale.from_numbers(scale.as_numbers()) == scale
    assert IntensityScale(-1024.0, 3071.0).width == 4095


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_find_images(tmp_path: Path) -> None:
    wanted = ["b.png", "a/x.PNG", "a/deep/y.nii.gz", "c.tif", "series/IM0001", "z.jpeg"]
    other = [".hidden.png", ".cache/a.png", "a/notes.txt", "IM0002", "a/._x.png", "x.rec", "a/DICOMDIR"]
    for name in [*wanted, *other]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        dicom_like = name.endswith(("IM0001", "DICOMDIR"))
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" if dicom_like else b"x")
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == sorted(tmp_path / name for name in wanted)


def test_find_images_in_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=f"no images in {tmp_path}") as caught:
        find_images(tmp_path)
    assert ".nii.gz" in caught.value.hint
    for path in (tmp_path / "none", tmp_path / "notes.txt"):
        with pytest.raises(InputError, match=f"no such folder: {path}"):
            find_images(path)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.nii.gz", ".nii.gz"), ("b/A.NII.GZ", ".nii.gz"), ("a.PNG", ".png"), ("a.b", ".b"), ("a", "")],
)
def test_image_suffix(name: str, suffix: str) -> None:
    assert image_suffix(name) == suffix
