"""Of the images module: the intensity scale, finding files, and writing. Reading is in test_images.py."""

from __future__ import annotations

import gzip
import hashlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from meddenoise_monai.errors import InputError
from meddenoise_monai.images import (
    IntensityScale,
    find_images,
    image_suffix,
    read_image,
    write_image,
)

NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
GREY = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)
DEEP = (np.arange(600).reshape(20, 30) * 109).astype(np.uint16)
VOLUME = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]])


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


# --- Writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The system refuses to let a file grow, as a full disk does: with an OSError in the midst of writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".tif", ".nii", ".nii.gz", ".png", ".pgm", ".bmp"])
def test_no_half_image_on_a_full_disk(tmp_path: Path, suffix: str) -> None:
    texture = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    with pytest.raises(InputError) as caught, files_limited_to(8192):
        write_image(tmp_path / f"a{suffix}", texture)
    assert caught.value.message == f"cannot write {tmp_path / 'a'}{suffix}: File too large"
    assert str(caught.value).count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30)
@given(data=st.data())
def test_write_and_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    suffix, kinds, axes = data.draw(
        st.sampled_from(
            [
                (".tif", "u1 u2 i2 i4 f4 f8", (2, 3)),
                (".nii", "u1 u2 i2 i4 i8 f4 f8", (2, 3)),
                (".nii.gz", "u1 i2 f4", (2, 3)),
                (".png", "u1 u2", (2,)),
                (".pgm", "u1 u2", (2,)),
                (".bmp", "u1", (2,)),
            ]
        )
    )
    dtype = np.dtype(data.draw(st.sampled_from(kinds.split())))
    shape = st.lists(st.integers(2, 5), min_size=min(axes), max_size=max(axes)).map(tuple)
    elements: Any = {"elements": st.floats(-1e3, 1e3, width=32)} if dtype.kind == "f" else {}
    array = data.draw(st_numpy.arrays(dtype, shape, **elements).filter(spread))
    path = tmp_path_factory.mktemp("written") / f"a{suffix}"
    assert write_image(path, array) == path
    read = read_image(path).array
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "anatomical.nii"])
def test_nifti_keeps_its_place_in_space(tmp_path: Path, name: str) -> None:
    source = NIBABEL / name
    before = hashlib.sha256(source.read_bytes()).digest()
    values = read_image(source).array.astype(np.float32) + 0.25
    written: Any = nibabel.load(write_image(tmp_path / name, values, like=source))  # type: ignore[attr-defined]
    original: Any = nibabel.load(source)  # type: ignore[attr-defined]
    assert written.shape == original.shape
    assert written.get_data_dtype().newbyteorder("=") == np.float32
    np.testing.assert_array_equal(written.affine, original.affine)
    np.testing.assert_allclose(written.get_fdata(), original.get_fdata() + 0.25, rtol=1e-6)
    for key in ("pixdim", "qform_code", "sform_code", "xyzt_units", "descrip"):
        np.testing.assert_array_equal(written.header[key], original.header[key], err_msg=key)
    assert hashlib.sha256(source.read_bytes()).digest() == before


def test_compressed_nifti_is_compressed(tmp_path: Path) -> None:
    with gzip.open(write_image(tmp_path / "a.nii.gz", VOLUME)) as stream:
        assert len(stream.read()) == 352 + VOLUME.nbytes


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.bmp", DEEP),
        ("a.png", GREY / 2),
        ("a.png", VOLUME.astype(np.uint8)),
        ("a.jpg", GREY),
        ("a.dcm", GREY),
        ("a.nii", GREY.astype(np.float16)),
    ],
)
def test_formats_that_cannot_hold_it(tmp_path: Path, name: str, array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InputError, match=r"cannot|BMP"):
        write_image(tmp_path / name, array)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.bmp", "a.pgm", "a.png"])
@pytest.mark.parametrize("side", [20, 60, 300])
def test_the_last_bytes_that_a_full_disk_refuses_are_missed(tmp_path: Path, name: str, side: int) -> None:
    # Pillow's raw encoders take a short write for a whole one.
    noise = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    size = write_image(tmp_path / name, noise).stat().st_size
    (tmp_path / name).unlink()
    with files_limited_to(size - 5), pytest.raises(InputError, match="cannot write"):
        write_image(tmp_path / name, noise)
    assert not list(tmp_path.iterdir())
    write_image(tmp_path / name, noise)
    np.testing.assert_array_equal(read_image(tmp_path / name).array, noise)
