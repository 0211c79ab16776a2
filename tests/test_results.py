from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file

from meddenoise_monai.errors import InputError
from meddenoise_monai.image_writing import WRITABLE_SUFFIXES
from meddenoise_monai.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, image_suffix, read_image
from meddenoise_monai.results import output_path, write_result

GREY = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)


# --- Where a result goes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("in/a/x.png", "out/a/x.png"),
        ("in/x.nii.gz", "out/x.nii.gz"),
        ("in/x.tiff", "out/x.tiff"),
        ("in/x.jpeg", "out/x.jpeg.png"),
        ("in/X.JPG", "out/X.JPG.png"),
        ("in/x.pnm", "out/x.pnm.tif"),
        ("in/a/x.dcm", "out/a/x.dcm"),
        ("in/x.mha", "out/x.mha"),
        ("in/x.par", "out/x.par.nii.gz"),
        ("in/x.npz", "out/x.npz"),
        ("in/a/IM0001", "out/a/IM0001.tif"),
        ("in/1.2.840.1", "out/1.2.840.1.tif"),
        ("elsewhere/x.png", "out/x.png"),
    ],
)
def test_output_path(source: str, expected: str) -> None:
    assert output_path(source, "in", Path("out")) == Path(expected)


def test_output_path_without_a_root_is_flat() -> None:
    assert output_path("a/b/x.dcm", None, Path("out")) == Path("out/x.dcm")


def test_different_files_have_different_results_in_a_format_that_can_be_written() -> None:
    assert len(IMAGE_SUFFIXES) > 10
    results = {f"a{suffix}": output_path(f"a{suffix}", None, Path()).name for suffix in ("", *IMAGE_SUFFIXES)}
    # "a" becomes the a.tif that is there already: `denoise` refuses this. No two converted files meet.
    assert {first for first in results for second in results if results[first] == second != first} == {"a"}
    assert len(set(results.values())) == len(results) - 1
    written = {image_suffix(name) for name in results.values()}
    assert written == {*WRITABLE_SUFFIXES, *DICOM_SUFFIXES}


# --- How it is written ------------------------------------------------------------------------------------------------


def write(path: Path, array: NDArray[Any]) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    elif path.suffix in (".mha", ".nrrd"):
        itk.imwrite(itk.image_from_array(array), os.fspath(path))
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "dtype", "written"),
    [
        ("a.png", np.uint8, np.uint8),
        ("a.png", np.uint16, np.uint16),
        ("a.pgm", np.uint8, np.uint8),
        ("a.bmp", np.uint8, np.uint8),
        ("a.jpg", np.uint8, np.uint8),
        ("a.tif", np.uint16, np.uint16),
        ("a.tif", np.int16, np.int16),
        ("a.tif", np.float32, np.float32),
        ("a.npy", np.uint8, np.uint8),
        ("a.npy", np.float64, np.float64),
        ("a.npy", np.float16, np.float16),
        ("a.mha", np.int16, np.int16),
        ("a.nrrd", np.float32, np.float32),
    ],
)
def test_files_keep_their_type(tmp_path: Path, name: str, dtype: Any, written: Any) -> None:
    image = read_image(write(tmp_path / name, GREY.astype(dtype)))
    values = np.zeros(GREY.shape)
    large = 6e4 if dtype == np.float16 else 1e9
    values[0, :7] = [-large, -0.4, 0.4, 0.6, 127.49, 127.51, large]
    target = tmp_path / "out" / "sub" / output_path(name, None, Path()).name
    assert write_result(target, values, image) == target
    result = read_image(target).array
    assert result.dtype == written
    if np.dtype(written).kind == "f":
        np.testing.assert_array_equal(result, values.astype(written))
    else:
        limits = np.iinfo(written)
        assert result[0, :7].tolist() == [limits.min, 0, 0, 1, 127, 128, limits.max]
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("name", ["CT_small.dcm", "examples_overlay.dcm"])  # signed and unsigned
def test_dicom_becomes_dicom(tmp_path: Path, name: str) -> None:
    image = read_image(Path(get_testdata_file(name)))
    written = write_result(tmp_path / "a.dcm", image.array + 1.25, image)
    result = read_image(written).array
    assert result.dtype == image.array.dtype
    highest = 2**15 - 1 if name == "CT_small.dcm" else 2**12 - 1
    np.testing.assert_array_equal(result, np.minimum(image.array.astype(int) + 1, highest))
    with pytest.raises(InputError, match="NaN"):
        write_result(tmp_path / "b.dcm", image.array * np.nan, image)


def test_a_header_that_cannot_be_derived_from_is_named(tmp_path: Path) -> None:
    image = read_image(Path(get_testdata_file("CT_small.dcm")))
    assert image.dicom is not None
    del image.dicom.dataset.BitsStored
    with pytest.raises(InputError, match=r"cannot make a result of .*CT_small\.dcm.*BitsStored"):
        write_result(tmp_path / "a.dcm", image.array + 1, image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scaling", [(1.0, 0.0), (0.25, -100.0)])
def test_nifti_takes_over_its_affine_type_and_scaling(tmp_path: Path, scaling: tuple[float, float]) -> None:
    affine = np.diag([2.0, 3, 4, 1])
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    stored: Any = nibabel.Nifti1Image(volume, affine)  # type: ignore[no-untyped-call]
    stored.header.set_slope_inter(*scaling)
    nibabel.save(stored, tmp_path / "a.nii.gz")  # type: ignore[attr-defined]
    image = read_image(tmp_path / "a.nii.gz")
    path = write_result(tmp_path / "b.nii.gz", image.array + 2.6 * scaling[0], image)
    written: Any = nibabel.load(path)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(written.affine, affine)
    np.testing.assert_array_equal(written.get_fdata(), (volume + 3) * scaling[0] + scaling[1])
    assert written.get_data_dtype() == np.int16
    assert (written.dataobj.slope, written.dataobj.inter) == scaling


def test_par_rec_becomes_nifti_in_its_place(tmp_path: Path) -> None:
    source = Path(nibabel.__file__).parent / "tests" / "data" / "phantom_EPI_asc_CLEAR_2_1.PAR"
    image = read_image(source)
    written: Any = nibabel.load(write_result(tmp_path / "b.nii.gz", image.array, image))  # type: ignore[attr-defined]
    before: Any = nibabel.load(source)  # type: ignore[attr-defined]
    np.testing.assert_allclose(written.affine, before.affine, rtol=1e-6)
    np.testing.assert_allclose(written.get_fdata(), before.get_fdata(), rtol=1e-6)
    before.dataobj.file_like.close()


def test_a_disk_that_refuses_is_an_input_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    image = read_image(write(tmp_path / "a.png", GREY))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write .*b\.png"):
        write_result(tmp_path / "out" / "b.png", GREY.astype(float), image)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_the_ends_of_an_integer_range_do_not_wrap(tmp_path: Path, dtype: Any) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    stored = np.full((8, 9), high // 2, dtype)
    stored[0], stored[1] = low, high
    tifffile.imwrite(tmp_path / "a.tif", stored)
    source = read_image(tmp_path / "a.tif")
    values = stored.astype(np.float64) * 1.5 - np.float64(high) * 0.25
    written = read_image(write_result(tmp_path / "b.tif", values.astype(np.float32), source)).array
    assert written.dtype == dtype
    assert (written[0] <= stored[2, 0]).all()
    assert (written[1] > high // 4 * 3).all()  # 2**32 cast to 32 bits is 0


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_written(tmp_path: Path, name: str, value: float) -> None:
    if name == "a.png":
        Image.fromarray(GREY).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, GREY.astype(np.float32))
    values = GREY.astype(np.float64)
    values[3, 4] = value
    with pytest.raises(InputError, match="NaN"):
        write_result(tmp_path / f"out-{name}", values, read_image(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]
