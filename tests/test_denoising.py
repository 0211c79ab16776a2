from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid
from scipy import ndimage

from meddenoise_monai import denoising, images
from meddenoise_monai.denoising import denoise_files
from meddenoise_monai.errors import InputError, UnsuitableError, UsageError
from meddenoise_monai.image_writing import write_image
from meddenoise_monai.images import read_image
from meddenoise_monai.inference import Denoiser, load_denoiser
from meddenoise_monai.noise import PoissonGaussianStabiliser
from meddenoise_monai.results import write_result
from meddenoise_monai.uncertainty import Calibration
from tests.samples import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that changes its input."""
    return write_model(tmp_path_factory.mktemp("weights") / "model.pt")


def pixels(seed: int = 0, high: int = 256, shape: tuple[int, ...] = (21, 30)) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8 if high == 256 else np.uint16)


def dicom(path: Path, stored: NDArray[Any], photometric: str = "MONOCHROME2", intercept: int = -1000) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PhotometricInterpretation = "CT", photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope = intercept, 1
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def nifti(path: Path, values: NDArray[Any]) -> None:
    image = nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]))  # type: ignore[no-untyped-call]
    nibabel.save(image, path)  # type: ignore[attr-defined]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every kind of format, in a tree."""
    source = tmp_path / "in"
    (source / "a" / "001").mkdir(parents=True)
    Image.fromarray(pixels(1)).save(source / "film.png")
    Image.fromarray(pixels(2, 4096)).save(source / "a" / "deep.png")
    Image.fromarray(pixels(3)).save(source / "a" / "film.pgm")
    Image.fromarray(pixels(4)).save(source / "a" / "001" / "film.bmp")
    Image.fromarray(pixels(5)).save(source / "a" / "film.jpg", quality=95)
    tifffile.imwrite(source / "film.tif", pixels(6, 4096))
    tifffile.imwrite(source / "float.tiff", pixels(7).astype(np.float32) / 7)
    nifti(source / "a" / "head.nii.gz", pixels(8, 300, (12, 13, 3)).astype(np.int16))
    np.save(source / "array.npy", pixels(9).astype(np.float64))
    np.savez(source / "a" / "scan.npz", pixels(11, 4096).astype(np.int32) + 2**25)
    itk.imwrite(itk.image_from_array(pixels(12, 999).astype(np.int16)), str(source / "a" / "mr.mha"))
    itk.imwrite(itk.image_from_array(pixels(13, 999).astype(np.float32)), str(source / "a" / "mr.nrrd"))
    dicom(source / "a" / "slice.dcm", pixels(10, 2000) + 9000)
    return source


FORMATS = {
    "film.png": ("film.png", np.uint8),
    "a/deep.png": ("a/deep.png", np.uint16),
    "a/film.pgm": ("a/film.pgm", np.uint8),
    "a/001/film.bmp": ("a/001/film.bmp", np.uint8),
    "a/film.jpg": ("a/film.jpg.png", np.uint8),
    "film.tif": ("film.tif", np.uint16),
    "float.tiff": ("float.tiff", np.float32),
    "a/head.nii.gz": ("a/head.nii.gz", np.int16),
    "array.npy": ("array.npy", np.float64),
    "a/scan.npz": ("a/scan.npz", np.int32),
    "a/mr.mha": ("a/mr.mha", np.int16),
    "a/mr.nrrd": ("a/mr.nrrd", np.float32),
    "a/slice.dcm": ("a/slice.dcm", np.int16),
}


def digests(folder: Path) -> dict[str, str]:
    """Of all files, but for the record of the job."""
    files = (path for path in folder.rglob("*") if path.is_file() and "manifest.json" not in path.name)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_format_comes_back_in_place_with_what_the_denoiser_answers(
    folder: Path, tmp_path: Path, model: Path
) -> None:
    before = digests(folder)
    assert set(before) == set(FORMATS)
    output = tmp_path / "out"
    summary = denoise_files(folder, output, model=model)
    assert (summary.written, summary.skipped) == (len(FORMATS), {})
    assert digests(folder) == before
    assert set(digests(output)) == {name for name, _ in FORMATS.values()}
    denoise = load_denoiser(model)
    for name, (result, dtype) in FORMATS.items():
        original, written = read_image(folder / name).array, read_image(output / result).array
        expected = denoise(original).astype(np.float64)
        assert written.dtype == dtype, name
        assert written.shape == original.shape
        if np.issubdtype(dtype, np.integer):
            expected = np.clip(np.rint(expected), np.iinfo(dtype).min, np.iinfo(dtype).max)
        step = 4 if name == "a/scan.npz" else 0  # of float32, which the API answers in, at 2**25; files lose nothing
        np.testing.assert_allclose(written, expected.astype(dtype), rtol=0, atol=step, err_msg=name)
        assert not np.array_equal(written, original), name


def test_strength_zero_gives_every_pixel_back(folder: Path, tmp_path: Path, model: Path) -> None:
    dicom(folder / "film.dcm", pixels(11, 2000), "MONOCHROME1")
    denoise_files(folder, tmp_path / "out", model=model, strength=0.0)
    for name, (result, _) in {**FORMATS, "film.dcm": ("film.dcm", None)}.items():
        original, written = read_image(folder / name), read_image(tmp_path / "out" / result)
        assert written.array.dtype == original.array.dtype
        np.testing.assert_array_equal(written.array, original.array, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_strength_zero_is_the_identity_for_every_format_and_type(
    tmp_path_factory: pytest.TempPathFactory, model: Path, data: st.DataObject
) -> None:
    suffix, kinds, axes = data.draw(
        st.sampled_from(
            [
                (".tif", "u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8", (2, 3)),
                (".nii", "u1 i1 u2 i2 u4 i4 i8 u8 f4 f8", (2, 3)),
                (".nii.gz", "u2 i2 f8", (3, 3)),
                (".png", "u1 u2", (2, 2)),
                (".pgm", "u1 u2", (2, 2)),
                (".bmp", "u1", (2, 2)),
                (".mha", "u1 i2 i4 f4 f8", (2, 3)),
                (".nrrd", "u1 u2 i2 f8", (2, 3)),
                (".npy", "u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8", (2, 3)),
                (".npz", "i2 f8", (2, 3)),
            ]
        )
    )
    dtype = np.dtype(data.draw(st.sampled_from(kinds.split())))
    shape = tuple(data.draw(st.lists(st.integers(5, 9), min_size=axes[0], max_size=axes[1])))
    finite: Any = {"elements": st.floats(-1e4, 1e4, width=8 * dtype.itemsize)} if dtype.kind == "f" else {}
    array = data.draw(arrays(dtype, shape, **finite).filter(lambda values: values.min() != values.max()))
    folder = tmp_path_factory.mktemp("identity")
    write_image(folder / f"a{suffix}", array)
    denoise_files(folder / f"a{suffix}", folder / "out", model=model, strength=0.0, force=True)
    result = read_image(folder / "out" / f"a{suffix}").array
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, array)


def test_sigma_bounds_what_is_removed_in_the_images_units(folder: Path, tmp_path: Path, model: Path) -> None:
    denoise_files(folder / "array.npy", tmp_path / "out", model=model, sigma=0.25)
    removed = np.load(folder / "array.npy") - np.load(tmp_path / "out" / "array.npy")
    assert np.sqrt(np.mean(removed**2)) == pytest.approx(0.25, rel=1e-4)


def test_nifti_keeps_its_geometry(folder: Path, tmp_path: Path, model: Path) -> None:
    denoise_files(folder, tmp_path / "out", model=model)
    written: Any = nibabel.load(tmp_path / "out" / "a" / "head.nii.gz")  # type: ignore[attr-defined]
    assert written.shape == (12, 13, 3)
    np.testing.assert_array_equal(written.affine, np.diag([2.0, 3.0, 4.0, 1.0]))


def test_monochrome1_is_denoised_like_its_mirror_image(tmp_path: Path, model: Path) -> None:
    stored = pixels(3, 2000) + 9000
    first = dicom(tmp_path / "one.dcm", stored, "MONOCHROME1", intercept=0)
    second = dicom(tmp_path / "two.dcm", stored.min() + stored.max() - stored, "MONOCHROME2", intercept=0)
    for path in (first, second):
        denoise_files(path, tmp_path / "out", model=model)
    one, two = (read_image(tmp_path / "out" / f"{name}.dcm").array.astype(float) for name in ("one", "two"))
    np.testing.assert_allclose(one, float(stored.min()) + float(stored.max()) - two, atol=1)
    assert np.abs(one - stored).max() > 1


def test_one_file_into_a_folder_or_under_a_name(folder: Path, tmp_path: Path, model: Path) -> None:
    denoise_files(folder / "film.png", tmp_path / "new", model=model)
    denoise_files(folder / "film.png", tmp_path / "deeper" / "clean.png", model=model)
    assert (tmp_path / "new" / "film.png").read_bytes() == (tmp_path / "deeper" / "clean.png").read_bytes()
    denoise_files(folder / "film.tif", tmp_path / "clean.tiff", model=model)
    denoise_files(folder / "a" / "head.nii.gz", tmp_path / "clean.nii.gz", model=model)
    assert read_image(tmp_path / "clean.nii.gz").array.shape == (3, 13, 12)
    (tmp_path / "folder.png").mkdir()
    denoise_files(folder / "film.png", tmp_path / "folder.png", model=model)
    assert (tmp_path / "folder.png" / "film.png").is_file()


@pytest.mark.parametrize(("name", "output"), [("film.png", "clean.tif"), ("a/slice.dcm", "clean.tif")])
def test_another_format_is_refused_with_the_right_suffix(
    folder: Path, tmp_path: Path, model: Path, name: str, output: str
) -> None:
    with pytest.raises(UsageError) as caught:
        denoise_files(folder / name, tmp_path / output, model=model)
    assert caught.value.hint == f"let OUTPUT end in {'.png' if name == 'film.png' else '.dcm'}"


@pytest.mark.parametrize("name", ["clean.dcm", "clean.ima"])
def test_dicom_without_a_suffix_may_get_one(folder: Path, tmp_path: Path, model: Path, name: str) -> None:
    (folder / "a" / "slice.dcm").rename(folder / "IM0001")
    denoise_files(folder / "IM0001", tmp_path / name, model=model)
    denoise_files(folder / "IM0001", tmp_path / "out", model=model)
    assert (tmp_path / name).read_bytes() == (tmp_path / "out" / "IM0001").read_bytes()


def test_dicom_results_say_how_they_were_made(folder: Path, tmp_path: Path, model: Path) -> None:
    for output, syntax in (("out", "keep"), ("again", "keep"), ("packed", "rle")):
        denoise_files(folder, tmp_path / output, model=model, sigma=20, strength=0.5, transfer_syntax=syntax)
    first, packed = (pydicom.dcmread(tmp_path / name / "a" / "slice.dcm") for name in ("out", "packed"))
    assert first.DerivationDescription.endswith("noise auto, sigma 20, strength 0.5")
    assert packed.file_meta.TransferSyntaxUID == RLELossless
    np.testing.assert_array_equal(packed.pixel_array, first.pixel_array)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")
    with pytest.raises(UsageError, match="unknown transfer syntax"):
        denoise_files(folder, tmp_path / "new", model=model, transfer_syntax="jpeg")


@pytest.mark.parametrize("inside", [".", "out", "a/001", "../in"])
def test_output_in_the_input_is_refused(folder: Path, model: Path, inside: str) -> None:
    before = digests(folder)
    with pytest.raises(UsageError, match="is or lies inside the input"):
        denoise_files(folder, folder / inside, model=model, overwrite=True)
    assert digests(folder) == before


def test_output_in_the_input_through_a_link_is_refused(folder: Path, tmp_path: Path, model: Path) -> None:
    (tmp_path / "link").symlink_to(folder / "a", target_is_directory=True)
    with pytest.raises(UsageError, match="is or lies inside the input"):
        denoise_files(folder, tmp_path / "link", model=model, overwrite=True)


def test_a_result_never_replaces_an_input(tmp_path: Path, model: Path) -> None:
    inner = tmp_path / "in" / "in"
    inner.mkdir(parents=True)
    for path in (tmp_path / "in" / "film.png", inner / "film.png"):  # the result of the inner one would be the outer
        Image.fromarray(pixels(1)).save(path)
    before = digests(tmp_path)
    with pytest.raises(UsageError, match="would replace"):
        denoise_files(tmp_path / "in", tmp_path, model=model, overwrite=True)
    with pytest.raises(UsageError, match="would replace"):
        denoise_files(inner / "film.png", inner, model=model, overwrite=True)
    assert digests(tmp_path) == before


def test_two_files_with_one_result_are_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels(1)).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(pixels(2)).save(tmp_path / "in" / "a.jpg.png")
    with pytest.raises(InputError, match="both be written"):
        denoise_files(tmp_path / "in", tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_existing_results_are_kept_unless_asked(folder: Path, tmp_path: Path, model: Path) -> None:
    output = tmp_path / "out"
    (output / "a").mkdir(parents=True)
    (output / "a" / "film.pgm").write_text("precious")
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"film\.pgm exists already") as caught:
        denoise_files(folder, output, model=model)
    assert caught.value.hint == "add --overwrite, or choose another output"
    assert set(digests(output)) == {"a/film.pgm", "notes.txt"}
    assert denoise_files(folder, output, model=model, overwrite=True).written == len(FORMATS)
    assert read_image(output / "a" / "film.pgm").array.dtype == np.uint8
    assert (output / "notes.txt").read_text() == "mine"


def entries(output: Path) -> dict[str, dict[str, Any]]:
    assert not (output / ".manifest.jsonl").exists()
    files: dict[str, dict[str, Any]] = json.loads((output / "manifest.json").read_text())["files"]
    return files


def test_the_manifest_says_what_became_of_each_file(folder: Path, tmp_path: Path, model: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    denoise_files(folder, tmp_path / "out", model=model)
    files = entries(tmp_path / "out")
    assert set(files) == {*FORMATS, "broken.png"}
    assert files["broken.png"]["status"] == "failed"
    assert "broken.png" in files["broken.png"]["error"]
    before, after = digests(folder), digests(tmp_path / "out")
    for name, (result, _) in FORMATS.items():
        entry = files[name]
        assert (entry["status"], entry["output"]) == ("done", result)
        assert (entry["input_sha256"], entry["output_sha256"]) == (before[name], after[result])
        assert entry["seconds"] >= 0
        removed = read_image(folder / name).array - load_denoiser(model)(read_image(folder / name).array)
        assert entry["removed_sigma"] == pytest.approx(np.sqrt(np.mean(removed**2.0)), rel=1e-3)


def test_results_of_another_source_are_not_replaced(tmp_path: Path, model: Path) -> None:
    first, second, moved = (tmp_path / name for name in ("first", "second", "moved"))
    for number, place in enumerate((first, second)):
        place.mkdir()
        Image.fromarray(pixels(number)).save(place / "IM0001.png")
    output = tmp_path / "out"
    denoise_files(first, output, model=model)
    before = digests(output)
    with pytest.raises(InputError, match="exists already, of the folder "):
        denoise_files(second, output, model=model)
    assert digests(output) == before
    first.rename(moved)  # the very same file may lie elsewhere
    assert denoise_files(moved, output, model=model).unchanged == 1
    assert denoise_files(second, output, model=model, overwrite=True).written == 1


def test_a_source_that_was_broken_for_a_while_does_not_end_the_job(folder: Path, tmp_path: Path, model: Path) -> None:
    output, film = tmp_path / "out", folder / "film.png"
    denoise_files(folder, output, model=model)
    whole = film.read_bytes()
    film.write_bytes(whole[:100])
    assert len(denoise_files(folder, output, model=model).skipped) == 1
    film.write_bytes(whole)
    assert denoise_files(folder, output, model=model).skipped == {}
    assert entries(output)["film.png"]["status"] == "done"


def test_a_manifest_of_something_else_is_left_alone(folder: Path, tmp_path: Path, model: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"my": "precious"}')
    with pytest.raises(InputError, match="none that was written here"):
        denoise_files(folder, tmp_path / "out", model=model)
    assert (tmp_path / "out" / "manifest.json").read_text() == '{"my": "precious"}'


def test_what_goes_wrong_with_one_file_does_not_end_the_job(
    folder: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meddenoise_monai import denoising

    def fails(path: Path, *rest: Any) -> Path:
        if path.name == "film.png":
            raise KeyError("itkImageUL3")
        return write_result(path, *rest)

    write_result = denoising.write_result
    monkeypatch.setattr(denoising, "write_result", fails)
    summary = denoise_files(folder, tmp_path / "out", model=model)
    assert summary.written == len(FORMATS) - 1
    (reason,) = summary.skipped.values()
    assert "KeyError: 'itkImageUL3'" in reason


def test_pictures_replace_nothing_and_are_made_for_results_that_are_there(
    folder: Path, tmp_path: Path, model: Path
) -> None:
    output, shown = tmp_path / "out", tmp_path / "shown"
    denoise_files(folder, output, model=model)
    first = digests(output)
    assert denoise_files(folder, output, model=model, preview=shown).unchanged == 0
    assert digests(output) == first
    assert {path.relative_to(shown).as_posix() for path in shown.rglob("*.png")} == {f"{name}.png" for name in FORMATS}
    assert denoise_files(folder, output, model=model, preview=shown).written == 0
    Image.fromarray(pixels(5)).save(folder / "film.png.png")
    with pytest.raises(InputError, match=r"film\.png\.png exists already"):
        denoise_files(folder / "film.png", tmp_path / "one", model=model, preview=folder)
    with pytest.raises(UsageError, match="would replace an image"):
        denoise_files(folder / "a" / "film.jpg", tmp_path / "one", model=model, preview=tmp_path / "one")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights with a calibration beside them: its factor is 2 whatever the image."""
    path = write_model(tmp_path_factory.mktemp("calibrated") / "model.pt")
    fingerprint = load_denoiser(path, "cpu").fingerprint
    Calibration(fingerprint, (0.01, 1.0), (0.5, 0.9), ((1.0, 1.0), (2.0, 2.0))).write(
        path.with_name("model_uncertainty.json")
    )
    return path


def maps_of(names: dict[str, Any]) -> set[str]:
    return {name if name.endswith(".nii.gz") else f"{name}.tif" for name in names}


def test_a_map_of_the_uncertainty_goes_with_each_result(folder: Path, tmp_path: Path, calibrated: Path) -> None:
    output, maps = tmp_path / "out", tmp_path / "maps"
    denoise_files(folder, tmp_path / "plain", model=calibrated)
    denoise_files(folder, output, model=calibrated, uncertainty=maps)
    assert digests(output) == digests(tmp_path / "plain")
    assert set(digests(maps)) == maps_of(FORMATS)
    denoise = load_denoiser(calibrated, "cpu")
    for name in FORMATS:
        source, half_width = read_image(folder / name), read_image(maps / next(iter(maps_of({name: None}))))
        assert half_width.array.dtype == np.float32
        np.testing.assert_array_equal(half_width.array, denoise.uncertainty(source.array), err_msg=name)
        assert entries(output)[name]["half_width_coverage"] == 0.9
        assert entries(output)[name]["mean_half_width"] == pytest.approx(half_width.array.mean(), rel=1e-5)
    affines = [nibabel.load(place / "a" / "head.nii.gz").affine for place in (folder, maps)]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(*affines)


def test_missing_maps_are_made_and_nothing_is_replaced(folder: Path, tmp_path: Path, calibrated: Path) -> None:
    output, maps = tmp_path / "out", tmp_path / "maps"
    denoise_files(folder, output, model=calibrated)
    first = digests(output)
    assert denoise_files(folder, output, model=calibrated, uncertainty=maps).unchanged == 0
    whole = digests(maps)
    (maps / "film.png.tif").unlink()
    assert denoise_files(folder, output, model=calibrated, uncertainty=maps).written == 1
    assert (digests(output), digests(maps)) == (first, whole)
    with pytest.raises(UsageError, match=r"the uncertainty folder .* lies inside the input"):
        denoise_files(folder, tmp_path / "new", model=calibrated, uncertainty=folder / "maps")
    with pytest.raises(UsageError, match=r"the map .* would replace an image"):
        denoise_files(folder / "a" / "head.nii.gz", tmp_path / "one", model=calibrated, uncertainty=tmp_path / "one")
    with pytest.raises(InputError, match=r"film\.png\.tif exists already"):
        denoise_files(folder / "film.png", tmp_path / "one", model=calibrated, uncertainty=maps)
    assert digests(maps) == whole


@pytest.mark.parametrize("option", ["uncertainty", "preview"])
def test_a_folder_of_maps_that_cannot_be_one_is_refused_before_the_work(
    folder: Path, tmp_path: Path, calibrated: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meddenoise_monai.denoising.load_denoiser", lambda *_: pytest.fail("it begins"))
    film, result = folder / "film.png", tmp_path / "clean.png"
    (tmp_path / "notes.txt").write_text("a file")
    made = tmp_path / "maps" / ("film.png.tif" if option == "uncertainty" else "film.png.png")
    for source, output, place, said in (
        (film, result, result, "is the name of an image"),
        (film, result, film, "is the name of an image"),
        (folder, tmp_path / "out", tmp_path / "out" / "film.png", "is the name of an image"),
        (film, result, result / "maps", "would replace an image"),
        (film, made / "film.png", tmp_path / "maps", "would replace an image"),
        (film, result, tmp_path / "notes.txt", "is a file, not a folder"),
        (film, result, tmp_path / "notes.txt" / "maps", "notes.txt is no folder"),
    ):
        with pytest.raises(UsageError, match=said):
            denoise_files(source, output, model=calibrated, **{option: place})
    assert sorted(path.name for path in tmp_path.iterdir() if path != folder) == ["notes.txt"]


def test_a_disk_that_refuses_a_map_leaves_no_half_of_it(
    folder: Path, tmp_path: Path, calibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(InputError, match="No space left"):
        denoise_files(folder / "film.png", tmp_path / "out", model=calibrated, uncertainty=tmp_path / "maps")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.is_relative_to(tmp_path / "maps")]
    assert not (tmp_path / "out" / "film.png").exists()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_map_of_a_weaker_result_reaches_as_far(tmp_path: Path, calibrated: Path, photometric: str) -> None:
    dicom(tmp_path / "in.dcm", pixels(0) + np.uint16(2000), photometric)
    found: dict[float, tuple[NDArray[Any], NDArray[Any]]] = {}
    for strength in (0.0, 0.5, 1.0):
        output, maps = tmp_path / f"{strength}.dcm", tmp_path / f"maps {strength}"
        denoise_files(
            tmp_path / "in.dcm", output, model=calibrated, strength=strength, uncertainty=maps, noise="gaussian"
        )
        found[strength] = read_image(output).array, read_image(maps / "in.dcm.tif").array
    np.testing.assert_array_equal(found[0.0][0], read_image(tmp_path / "in.dcm").array)
    whole, narrow = found[1.0]
    for strength in (0.0, 0.5):
        result, half_width = found[strength]
        # DICOM rounds to whole numbers; values near its ends would be cut off, too.
        np.testing.assert_allclose(half_width, narrow + np.abs(result - whole), atol=1.01)


@pytest.mark.parametrize(("noise", "warned"), [("correlated", True), ("gaussian", False)])
def test_noise_that_nothing_was_calibrated_on_is_named(
    tmp_path: Path, calibrated: Path, noise: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(2):
        grain = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 90, (96, 96)), 2.0)
        Image.fromarray((128 + grain).astype(np.uint8)).save(tmp_path / "in" / f"{seed}.png")
    denoise_files(tmp_path / "in", tmp_path / "out", model=calibrated, noise=noise, uncertainty=tmp_path / "maps")
    for entry in entries(tmp_path / "out").values():
        assert ("calibrated on white noise" in " ".join(entry.get("warnings", []))) == warned
    assert ("uncertainty of correlated noise: the same of 1 other" in caplog.text) == warned


def test_weights_without_calibration_are_refused_before_the_work(folder: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no calibration of their uncertainty") as caught:
        denoise_files(folder, tmp_path / "out", model=model, uncertainty=tmp_path / "maps")
    assert "calibrate_uncertainty" in caught.value.hint
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "maps").exists()


def test_masks_are_refused_unless_forced(
    folder: Path, tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 3
    for name in ("mask.png", "a/mask2.png"):
        Image.fromarray(mask).save(folder / name)
    summary = denoise_files(folder, tmp_path / "out", model=model)
    assert (summary.written, len(summary.skipped)) == (len(FORMATS), 2)
    assert all(
        "2 different values, each constant over areas, as masks do" in reason for reason in summary.skipped.values()
    )
    assert not (tmp_path / "out" / "mask.png").exists()
    with pytest.raises(InputError, match="as masks do") as caught:
        denoise_files(folder / "mask.png", tmp_path / "one", model=model)
    assert "--force" in caught.value.hint
    caplog.clear()
    assert denoise_files(folder, tmp_path / "out", model=model, force=True).written == 2
    files = entries(tmp_path / "out")
    assert "as masks do" in files["mask.png"]["warnings"][-1]
    said = [record.getMessage() for record in caplog.records if "as masks do" in record.getMessage()]
    assert len(said) == 1  # not a line for each of a thousand slices
    assert any("few values: the same of 1 other file" in record.getMessage() for record in caplog.records)


def test_warnings_and_the_noise_of_each_file_are_in_the_manifest(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    rng = np.random.default_rng(0)
    np.save(source / "strong.npy", 100 + rng.normal(0, 500, (64, 64)).clip(-600, 600))
    np.save(source / "weak.npy", np.linspace(0, 1000, 64) + rng.normal(0, 5, (64, 64)))
    np.save(source / "small.npy", np.linspace(0, 1000, 20) + rng.normal(0, 5, (64, 20)))
    denoise_files(source, tmp_path / "out", model=model)
    files = entries(tmp_path / "out")
    assert files["weak.npy"]["estimated_sigma"] == pytest.approx(5, rel=0.15)
    assert "warnings" not in files["weak.npy"]
    assert "of the range of values" in files["strong.npy"]["warnings"][0]
    assert "20 pixels" in files["small.npy"]["warnings"][0]


def test_noise_that_is_left_in_is_said(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Denoiser, "__call__", lambda self, image, *_: image.astype(np.float32))
    noise = np.random.default_rng(0).normal(0, 20, (64, 64))
    np.save(tmp_path / "noisy.npy", np.linspace(0, 1000, 64) + noise)
    np.save(tmp_path / "clean.npy", np.linspace(0, 1000, 64) + noise / 100)
    np.save(tmp_path / "whole.npy", np.rint(np.linspace(0, 1000, 64) + noise / 100).astype(np.int16))
    for name, flags in (
        ("noisy", {}),
        ("clean", {}),
        ("whole", {}),
        ("noisy", {"strength": 0.0}),
        ("noisy", {"sigma": 0.0}),
    ):
        caplog.clear()
        denoise_files(tmp_path / f"{name}.npy", tmp_path / "out.npy", model=model, overwrite=True, **flags)
        assert ("next to nothing was removed, 0 of noise of about 2" in caplog.text) == (name == "noisy" and not flags)
        assert ("no pixel has changed" in caplog.text) == (name == "whole")


def test_what_is_no_grey_image_is_told_apart_from_what_is_broken(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(pixels(0)).save(source / "film.png")
    for number in range(5):
        Image.fromarray(pixels(number, shape=(9, 9, 3))).save(source / f"colour{number}.png")
    (source / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), 10)).save(source / "mask.png")
    summary = denoise_files(source, tmp_path / "out", model=model)
    assert (summary.written, summary.unsuitable, len(summary.skipped)) == (1, 6, 7)
    files = entries(tmp_path / "out")
    assert {name for name, entry in files.items() if entry["status"] == "failed"} == {"broken.png"}
    assert all(files[f"colour{number}.png"]["status"] == "unsuitable" for number in range(5))
    # Of many for the same reason the first are named, and the rest counted.
    assert sum("colour" in message for message in caplog.messages) == 4
    assert any(message.startswith("skipped: 2 more file(s)") for message in caplog.messages)


def test_values_of_irregular_attributes_are_not_logged(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        path = dicom(source / f"{number}.dcm", pixels(number, 4096))
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"1.2.3\0", b"secret"))
    caplog.clear()
    capfd.readouterr()
    denoise_files(source, tmp_path / "out", model=model, preview=tmp_path / "shown")
    assert "secret" not in caplog.text + "".join(capfd.readouterr())
    with pytest.warns(UserWarning, match="secret"):  # it speaks again
        assert pydicom.dcmread(path).FrameOfReferenceUID == "secret"


def test_results_are_not_denoised_again(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    dicom(source / "first.dcm", pixels(0, 4096))
    denoise_files(source, tmp_path / "out", model=model, strength=0.5, noise="gaussian")
    result = pydicom.dcmread(tmp_path / "out" / "first.dcm")
    assert result.SeriesDescription == "denoised (gaussian, strength 0.5)"
    with pytest.raises(UnsuitableError, match="denoised by this program"):
        denoise_files(tmp_path / "out" / "first.dcm", tmp_path / "twice.dcm", model=model)
    denoise_files(tmp_path / "out" / "first.dcm", tmp_path / "twice.dcm", model=model, force=True)
    assert (tmp_path / "twice.dcm").is_file()


def test_private_attributes_are_another_series(tmp_path: Path, model: Path) -> None:
    dicom(tmp_path / "in.dcm", pixels(0, 4096))
    for name, keep in (("kept.dcm", True), ("dropped.dcm", False)):
        denoise_files(tmp_path / "in.dcm", tmp_path / name, model=model, keep_private=keep)
    kept, dropped = (pydicom.dcmread(tmp_path / name) for name in ("kept.dcm", "dropped.dcm"))
    assert kept.SeriesInstanceUID != dropped.SeriesInstanceUID
    assert kept.SOPInstanceUID != dropped.SOPInstanceUID


def test_a_result_in_the_way_is_named_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoising, "load_denoiser", lambda *_: pytest.fail("the weights were loaded"))
    (tmp_path / "film.png").touch()
    with pytest.raises(InputError, match=r"film\.png exists already"):
        denoise_files(folder / "film.png", tmp_path / "film.png")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        denoise_files(folder, tmp_path / "film.png")


def test_a_second_run_does_what_is_missing_changed_or_torn(folder: Path, tmp_path: Path, model: Path) -> None:
    output = tmp_path / "out"
    denoise_files(folder, output, model=model)
    first = digests(output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.*")}
    again = denoise_files(folder, output, model=model)
    assert (again.written, again.unchanged) == (0, len(FORMATS))
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.*")} == times
    (output / "film.png").unlink()
    (output / "film.tif").write_bytes((output / "film.tif").read_bytes()[:-9])
    Image.fromarray(pixels(99)).save(folder / "a" / "film.pgm")
    third = denoise_files(folder, output, model=model)
    assert (third.written, third.unchanged) == (3, len(FORMATS) - 3)
    assert {name for name, digest in digests(output).items() if digest != first[name]} == {"a/film.pgm"}
    with pytest.raises(InputError, match=r"files exist already, of another job: strength 1\.0, now 0\.5"):
        denoise_files(folder, output, model=model, strength=0.5)
    assert denoise_files(folder, output, model=model, strength=0.5, overwrite=True).written == len(FORMATS)


def test_previews_lie_in_a_tree_of_their_own(folder: Path, tmp_path: Path, model: Path) -> None:
    denoise_files(folder, tmp_path / "out", model=model, preview=tmp_path / "seen")
    assert set(digests(tmp_path / "seen")) == {f"{name}.png" for name in FORMATS}
    assert len(digests(tmp_path / "out")) == len(FORMATS)
    denoise_files(folder / "film.png", tmp_path / "one.png", model=model, preview=tmp_path / "one")
    assert digests(tmp_path / "one") == {"film.png.png": digests(tmp_path / "seen")["film.png.png"]}
    with pytest.raises(UsageError, match="lies inside the input"):
        denoise_files(folder, tmp_path / "new", model=model, preview=folder / "seen")


def test_folders_that_cannot_be_listed_are_told_of(
    folder: Path, tmp_path: Path, model: Path, locked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "lost+found").mkdir()
    locked.append(str(folder / "lost+found"))
    summary = denoise_files(folder, tmp_path / "out", model=model)
    reason = f"cannot list {folder / 'lost+found'}: Permission denied"
    assert (summary.written, summary.skipped) == (len(FORMATS), {str(folder / "lost+found"): reason})
    assert f"skipped: {reason}" in caplog.messages
    for strict, places in ((True, "lost+found"), (False, "")):
        locked.append(str(folder / places).rstrip("/"))
        with pytest.raises(InputError, match="cannot list"):
            denoise_files(folder, tmp_path / "other", model=model, strict=strict)


def test_an_interrupted_job_goes_on(folder: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, written = tmp_path / "out", []

    def dies(path: Path, *rest: Any) -> Path:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        return write_result(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(denoising, "write_result", dies)
        with pytest.raises(KeyboardInterrupt):
            denoise_files(folder, output, model=model)
    # As if it had been killed, with the record of the last result torn.
    content = json.loads((output / "manifest.json").read_text())
    lines = [json.dumps({"job": content["job"], "files": {name: entry}}) for name, entry in content["files"].items()]
    (output / ".manifest.jsonl").write_text("\n".join(lines)[:-20])
    (output / "manifest.json").unlink()
    summary = denoise_files(folder, output, model=model)
    assert summary.written + summary.unchanged == len(FORMATS)
    assert summary.unchanged in (3, 4)
    denoise_files(folder, tmp_path / "whole", model=model)
    assert digests(output) == digests(tmp_path / "whole")
    assert set(entries(output)) == set(FORMATS)
    (output / "manifest.json").rename(output / ".manifest.jsonl")  # killed after the last file, before the manifest
    lines = json.loads((output / ".manifest.jsonl").read_text())
    (output / ".manifest.jsonl").write_text(json.dumps(lines))
    assert denoise_files(folder, output, model=model).unchanged == len(FORMATS)
    assert set(entries(output)) == set(FORMATS)


def test_what_lies_where_a_result_failed_is_not_replaced(folder: Path, tmp_path: Path, model: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    denoise_files(folder, tmp_path / "out", model=model)
    (tmp_path / "out" / "broken.png").write_text("mine")
    with pytest.raises(InputError, match=r"broken\.png exists already"):
        denoise_files(folder, tmp_path / "out", model=model)
    assert (tmp_path / "out" / "broken.png").read_text() == "mine"


def test_a_header_broken_in_its_own_way_stops_only_its_file(folder: Path, tmp_path: Path, model: Path) -> None:
    dataset = pydicom.dcmread(folder / "a" / "slice.dcm")
    dataset.add_new("SeriesNumber", "IS", "3")
    dataset.ContributingEquipmentSequence = []
    del dataset.SOPClassUID
    dataset.save_as(folder / "a" / "odd.dcm")
    summary = denoise_files(folder, tmp_path / "out", model=model)
    assert [Path(name).name for name in summary.skipped] == ["odd.dcm"]
    assert summary.written == len(FORMATS)


def test_broken_files_are_named_and_skipped(
    folder: Path, tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    Image.fromarray(pixels(1, shape=(20, 20, 3))).save(folder / "colour.png")
    tifffile.imwrite(folder / "disguised.tif", pixels(2).astype(np.float32))
    (folder / "disguised.tif").rename(folder / "disguised.png")  # readable, but PNG cannot hold the result
    with caplog.at_level(logging.WARNING, "meddenoise_monai.denoising"):
        summary = denoise_files(folder, tmp_path / "out", model=model)
    bad = {str(folder / name) for name in ("broken.png", "colour.png", "disguised.png")}
    assert set(summary.skipped) == bad
    assert summary.written == len(FORMATS)
    assert len([message for message in caplog.messages if "skipped" in message]) == 3
    assert all(any(name in message for message in caplog.messages) for name in bad)
    with pytest.raises(InputError, match=r"broken\.png"):
        denoise_files(folder, tmp_path / "strict", model=model, strict=True)


def test_nothing_usable_fails(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no images"):
        denoise_files(tmp_path / "in", tmp_path / "out", model=model)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png") as caught:  # the file's own error, and its own hint
        denoise_files(tmp_path / "in", tmp_path / "out", model=model)
    assert "whole" in caught.value.hint
    record = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert record["files"]["broken.png"]["status"] == "failed"
    (tmp_path / "in" / "second.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of 2 file\(s\)") as caught:
        denoise_files(tmp_path / "in", tmp_path / "out", model=model)
    assert "broken.png" in caught.value.hint
    with pytest.raises(InputError, match="no such file or folder"):
        denoise_files(tmp_path / "missing", tmp_path / "out", model=model)


def test_a_full_disk_stops_the_job(folder: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, done = os.replace, []

    def full(source: str | Path, target: str | Path) -> None:
        if len(done) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(images.os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        denoise_files(folder, tmp_path / "out", model=model)
    assert len(digests(tmp_path / "out")) == 2  # whole files, and no temporary one


def test_correlated_noise_is_named_with_its_file(tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).normal(0, 40, (96, 96))
    Image.fromarray(np.uint8(128 + ndimage.gaussian_filter(noise, 1))).save(tmp_path / "in" / "smoothed.png")
    Image.fromarray(np.uint8(np.clip(128 + noise, 0, 255))).save(tmp_path / "in" / "white.png")
    for noise_kind, warnings in (("auto", 1), ("gaussian", 0), ("correlated", 0)):
        caplog.clear()
        assert denoise_files(tmp_path / "in", tmp_path / noise_kind, model, noise=noise_kind).written == 2
        assert len(caplog.messages) == warnings
        assert all("smoothed.png: the noise" in message and "correlated" in message for message in caplog.messages)


def test_known_photon_counting(tmp_path: Path, model: Path) -> None:
    counts = np.random.default_rng(0).poisson(20, (32, 32))
    tifffile.imwrite(tmp_path / "a.tif", np.uint16(3 * counts))
    denoise_files(tmp_path / "a.tif", tmp_path / "out", model, noise="poisson", gain=3.0, sigma=2.0)
    expected = load_denoiser(model)(np.uint16(3 * counts), noise=PoissonGaussianStabiliser(3.0, 4.0))
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), np.uint16(np.rint(expected)))


@pytest.mark.parametrize(
    "parameters",
    [
        {"strength": 1.5},
        {"sigma": -1.0},
        {"device": "no_such_device"},
        {"noise": "white"},
        {"gain": 2.0},
        {"noise": "poisson", "gain": -2.0},
        {"noise": "poisson", "gain": 2.0, "sigma": -2.0},
        {"noise": "poisson", "sigma": 2.0},
    ],
)
def test_wrong_parameters_are_the_users(folder: Path, tmp_path: Path, model: Path, parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        denoise_files(folder, tmp_path / "out", model=model, **parameters)
    assert not (tmp_path / "out").exists()


def test_loop_of_links_is_skipped(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels()).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").symlink_to("c.png")
    (tmp_path / "in" / "c.png").symlink_to("b.png")
    summary = denoise_files(tmp_path / "in", tmp_path / "out", model)
    assert summary.written == 1
    assert sorted(Path(name).name for name in summary.skipped) == ["b.png", "c.png"]
