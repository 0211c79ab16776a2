"""Mutated and truncated files: an error in two lines or a readable result, never a traceback, a hang or a change."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

from meddenoise_monai.cli import main
from meddenoise_monai.errors import InputError
from meddenoise_monai.images import read_image
from tests.samples import textured, write_model

pytestmark = pytest.mark.e2e

CASES = int(os.environ.get("MEDDENOISE_FUZZ", "150"))  # of each of the four tests
DICOM = ("MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
         "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "JPEG-lossy.dcm", "MR_small_padded.dcm",
         "image_dfl.dcm")  # fmt: skip
PICTURES = ("a.png", "deep.png", "a.pgm", "a.bmp", "a.jpg", "a.tif", "packed.tif", "pages.tif")
VOLUMES = ("a.nii", "a.nii.gz", "scaled.nii", "a.mha", "packed.mha", "a.nrrd", "a.npy", "a.npz")
NUMBERS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
           "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "WindowWidth",
           "SeriesNumber", "InstanceNumber", "ImageType", "SeriesDescription", "SOPClassUID", "SOPInstanceUID",
           "SeriesInstanceUID", "PhotometricInterpretation", "Modality", "SpecificCharacterSet", "Manufacturer",
           "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelData")  # fmt: skip
ODD: list[Any] = [None, "", 0, 1, -1, 7, 65535, 2**31, "1.2.3", "x" * 70, "NaN", "1e400", [1, 2], [], 0.0, -2.5, b"",
                  b"\xff\xfe", "MONOCHROME1", "PALETTE COLOR", "ISO 2022 IR 87"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole files of every kind, and weights."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_model(folder / "model.pt")
    for name in DICOM:
        shutil.copy(str(get_testdata_file(name)), folder / name)
    grey = textured(0, 40)
    deep = grey.astype(np.uint16) * 16
    volume = np.stack([deep, deep[::-1], deep.T]).astype(np.int16)
    for name in ("a.png", "a.pgm", "a.bmp", "a.jpg"):
        Image.fromarray(grey).save(folder / name)
    Image.fromarray(deep).save(folder / "deep.png")
    tifffile.imwrite(folder / "a.tif", deep, description="a film", metadata=None)
    tifffile.imwrite(folder / "packed.tif", deep, compression="zlib", imagej=False)
    tifffile.imwrite(folder / "pages.tif", volume.astype(np.float32), imagej=True)
    for name in ("a.nii", "a.nii.gz", "scaled.nii"):
        image: Any = nibabel.Nifti1Image(volume.T, np.diag([1.0, 2, 3, 1]))  # type: ignore[no-untyped-call]
        if name == "scaled.nii":
            image.header.set_slope_inter(0.5, 10)
        nibabel.save(image, folder / name)  # type: ignore[attr-defined]
    for name in ("a.mha", "packed.mha", "a.nrrd"):
        itk.imwrite(itk.image_from_array(volume), os.fspath(folder / name), compression=name == "packed.mha")
    np.save(folder / "a.npy", volume)
    np.savez_compressed(folder / "a.npz", volume=volume)
    return folder


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """Functions from bytes to bytes: cut off, flipped, dropped, doubled, overwritten, above all in the header."""
    kind = draw(st.sampled_from(["cut", "flip", "flip", "drop", "double", "fill"]))
    # Places as shares of the file; half of them in its first tenth, where headers are.
    place = draw(st.floats(0, 0.1)) if draw(st.booleans()) else draw(st.floats(0, 1))
    length = draw(st.integers(1, 64))
    values = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=8))
    filler = draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"9", b"-"]))

    def mutate(content: bytes) -> bytes:
        at = int(place * (len(content) - 1))
        if kind == "cut":
            return content[:at]
        if kind == "drop":
            return content[:at] + content[at + length :]
        if kind == "double":
            return content[: at + length] + content[at:]
        if kind == "fill":
            return content[:at] + filler * length + content[at + length :]
        changed = bytearray(content)
        for share, mask in values:
            reach = len(changed) if place > 0.1 else max(1, len(changed) // 10)
            changed[int(share * (reach - 1))] ^= mask
        return bytes(changed)

    return mutate


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """A hang ends the test run, with the place where it hung."""
    faulthandler.dump_traceback_later(60, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Constant(Exception):
    """Denoised to a constant, which is no image to read again."""


def reread(path: Path) -> None:
    try:
        read_image(path)
    except InputError as error:
        raise (_Constant if "same value" in error.message else AssertionError)(error.message) from error


def check(path: Path, model: Path) -> int:
    """Denoise one file; the exit code."""
    before = path.read_bytes()
    output = path.parent / "out"
    shutil.rmtree(output, ignore_errors=True)
    told = io.StringIO()
    with watched(), contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = main(["denoise", str(path), str(output), "--model", str(model), "--device", "cpu"])
    assert path.read_bytes() == before
    words = [line for line in told.getvalue().splitlines() if not line.startswith("warning: ")]
    made = [file for file in output.rglob("*") if file.is_file()] if output.exists() else []
    if code == 0:
        assert words == []
        (result,) = made
        if path.suffix == ".dcm":
            with warnings.catch_warnings(action="ignore"):  # as the source, it may have more frames than it says
                dataset = pydicom.dcmread(result)
                assert dataset.pixel_array.size
            assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        with contextlib.suppress(_Constant):
            reread(result)
    else:
        assert code == 1
        assert [line.partition(":")[0] for line in words] == ["error", "hint"], told.getvalue()
        assert made == []
    return code


fuzz = settings(max_examples=CASES, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck))  # fmt: skip


def mutated(folder: Path, name: str, mutate: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.getbasetemp() / f"case-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = place / name
    path.write_bytes(mutate((folder / name).read_bytes()))
    return path


@fuzz
@given(name=st.sampled_from(DICOM), mutate=mutations())
def test_bytes_of_dicom_files(folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str, mutate: Any) -> None:
    check(mutated(folder, name, mutate, tmp_path_factory), folder / "model.pt")


@fuzz
@given(name=st.sampled_from(PICTURES), mutate=mutations())
def test_bytes_of_pictures(folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str, mutate: Any) -> None:
    check(mutated(folder, name, mutate, tmp_path_factory), folder / "model.pt")


@fuzz
@given(name=st.sampled_from(VOLUMES), mutate=mutations())
def test_bytes_of_volumes(folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str, mutate: Any) -> None:
    check(mutated(folder, name, mutate, tmp_path_factory), folder / "model.pt")


@fuzz
@given(
    name=st.sampled_from(DICOM),
    changes=st.lists(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(ODD)), min_size=1, max_size=3),
)
def test_attributes_of_dicom_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[str, Any]]
) -> None:
    path = mutated(folder, name, bytes, tmp_path_factory)
    with warnings.catch_warnings(action="ignore"):
        dataset = pydicom.dcmread(path)
        for keyword, value in changes:
            with contextlib.suppress(Exception):  # what pydicom does not let anyone set
                if value is not None:
                    setattr(dataset, keyword, value)
                elif keyword in dataset:
                    delattr(dataset, keyword)
        try:
            dataset.save_as(path)
        except Exception:  # nor write
            return
    check(path, folder / "model.pt")
