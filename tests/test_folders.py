from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.folders import CorruptSummary, corrupt, score_folders
from meddenoise_monai.images import read_image

RAMP = np.tile(np.linspace(40, 210, 160).astype(np.uint8), (160, 1))


def contents(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A picture of 8 bits, one of 16, a CT and a volume, in a tree."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(RAMP).save(folder / "a.png")
    Image.fromarray(RAMP.astype(np.uint16) * 257 + 3).save(folder / "sub" / "b.png")
    (folder / "sub" / "ct.dcm").write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes())
    volume = np.random.default_rng(0).integers(-500, 1500, (20, 30, 9)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 0.5, 3, 1])), folder / "v.nii.gz")
    return folder


def pair(output: Path, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    original, noisy = (read_image(output / kind / name).array for kind in ("original", "noisy"))
    assert original.dtype == noisy.dtype == np.float32
    assert original.shape == noisy.shape
    return original, noisy


def test_corrupt_writes_pairs_in_the_images_own_units(source: Path, tmp_path: Path) -> None:
    before = contents(source)
    assert corrupt(source, tmp_path / "out", sigma=25) == CorruptSummary(4, {})
    names = {"a.png": "a.png.tif", "sub/b.png": "sub/b.png.tif", "sub/ct.dcm": "sub/ct.dcm.tif", "v.nii.gz": "v.nii.gz"}
    assert contents(tmp_path / "out").keys() == {f"{k}/{n}" for k in ("original", "noisy") for n in names.values()}
    for name, written in names.items():
        original, noisy = pair(tmp_path / "out", written)
        np.testing.assert_array_equal(original, read_image(source / name).array)
        noise = noisy.astype(np.float64) - original
        # Four standard errors of the standard deviation and of the mean.
        assert noise.std() == pytest.approx(25, abs=4 * 25 / np.sqrt(2 * noise.size))
        assert noise.mean() == pytest.approx(0, abs=4 * 25 / np.sqrt(noise.size))
    assert contents(source) == before


def test_nifti_pairs_keep_their_place_in_space(source: Path, tmp_path: Path) -> None:
    corrupt(source / "v.nii.gz", tmp_path / "out", sigma=10)
    for kind in ("original", "noisy"):
        written: Any = nibabel.load(tmp_path / "out" / kind / "v.nii.gz")  # type: ignore[attr-defined]
        np.testing.assert_array_equal(written.affine, np.diag([0.5, 0.5, 3, 1]))
        assert written.shape == (20, 30, 9)


def test_noise_is_a_function_of_seed_and_image(source: Path, tmp_path: Path) -> None:
    corrupt(source, tmp_path / "1", sigma=5, seed=1)
    corrupt(source, tmp_path / "again", sigma=5, seed=1)
    corrupt(source / "a.png", tmp_path / "alone", sigma=5, seed=1)
    corrupt(source, tmp_path / "2", sigma=5, seed=2)
    assert contents(tmp_path / "1") == contents(tmp_path / "again")
    np.testing.assert_array_equal(pair(tmp_path / "1", "a.png.tif"), pair(tmp_path / "alone", "a.png.tif"))
    first, second = pair(tmp_path / "1", "a.png.tif"), pair(tmp_path / "2", "a.png.tif")
    np.testing.assert_array_equal(first[0], second[0])
    correlation = np.corrcoef((first[1] - first[0]).ravel(), (second[1] - second[0]).ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(RAMP.size)


def test_normalise_and_clip(source: Path, tmp_path: Path) -> None:
    corrupt(source, tmp_path / "out", sigma=0.2, normalise=True, clip=True)
    for name in ("a.png", "sub/ct.dcm"):
        values = read_image(source / name).array.astype(np.float64)
        original, noisy = pair(tmp_path / "out", name + ".tif")
        expected = (values - values.min()) / (values.max() - values.min())  # min-max, of 8-bit images too
        np.testing.assert_allclose(original, expected, atol=1e-7)
        assert (noisy.min(), noisy.max()) == (0, 1)
        inside = (original > 0.45) & (original < 0.55)  # clipped beyond two sigma: std of N(0, 0.2) cut at 0.5
        assert (noisy - original)[inside].std() == pytest.approx(0.197, abs=0.012)


def test_clip_is_to_the_range_of_the_image(source: Path, tmp_path: Path) -> None:
    corrupt(source, tmp_path / "out", sigma=1000, clip=True)
    assert pair(tmp_path / "out", "a.png.tif")[1].max() == pytest.approx(255)
    values = read_image(source / "sub" / "ct.dcm").array
    noisy = pair(tmp_path / "out", "sub/ct.dcm.tif")[1]
    assert (noisy.min(), noisy.max()) == (values.min(), values.max())


@pytest.mark.parametrize(
    ("noise", "parameters", "std"),
    [
        ("variance_gaussian", {"factor": 0.1}, lambda x: np.sqrt(0.1 * x.var())),
        ("speckle", {"sigma": 0.1}, lambda x: 0.1 * np.sqrt((x**2).mean())),
        ("poisson", {"photons": 200}, lambda x: np.sqrt(255 * x.mean() / 200)),
    ],
)
def test_other_noises(source: Path, tmp_path: Path, noise: str, parameters: dict[str, float], std: Any) -> None:
    corrupt(source / "a.png", tmp_path / "out", noise, **parameters)
    original, noisy = pair(tmp_path / "out", "a.png.tif")
    assert (noisy - original).std() == pytest.approx(std(original.astype(np.float64)), rel=0.03)


def test_monochrome1_gets_noise_in_its_own_units(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(tmp_path / "a.dcm")
    corrupt(tmp_path / "a.dcm", tmp_path / "out", sigma=20)
    original, noisy = pair(tmp_path / "out", "a.dcm.tif")
    np.testing.assert_array_equal(original, read_image(tmp_path / "a.dcm").array)
    assert (noisy - original).std() == pytest.approx(20, rel=0.03)


def test_unreadable_files_are_skipped_or_fatal(source: Path, tmp_path: Path) -> None:
    (source / "sub" / "broken.png").write_bytes(b"x")
    summary = corrupt(source, tmp_path / "out", sigma=5)
    assert summary.written == 4
    assert list(summary.skipped) == ["sub/broken.png"]
    assert "cannot read" in summary.skipped["sub/broken.png"]
    with pytest.raises(InputError, match=r"broken\.png"):
        corrupt(source, tmp_path / "strict", sigma=5, strict=True)
    for name, hint in (("sub/broken.png", "is the file whole"), ("gone.png", "check the path")):
        with pytest.raises(InputError, match=name) as caught:  # one file's own error, and its own hint
            corrupt(source / name, tmp_path / "none", sigma=5)
        assert hint in caught.value.hint
    (source / "bad").mkdir()
    for name in ("a.png", "b.png"):
        (source / "bad" / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of 2 file\(s\) could be used") as caught:
        corrupt(source / "bad", tmp_path / "none", sigma=5)
    assert "a.png" in caught.value.hint


def test_an_input_is_not_replaced_through_a_link(source: Path, tmp_path: Path) -> None:
    corrupt(source, tmp_path / "out", sigma=5)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "v.nii.gz").symlink_to(tmp_path / "out" / "original" / "v.nii.gz")
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match="one of the inputs, by a link"):
        corrupt(tmp_path / "links", tmp_path / "out", sigma=5, overwrite=True)
    assert contents(tmp_path / "out") == before


def test_noise_beyond_float32_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="infinite or too large"):
        corrupt(source / "v.nii.gz", tmp_path / "out", sigma=1e39)
    assert not any((tmp_path / "out").rglob("*noisy*/*.nii.gz"))


def test_outputs_that_are_refused(source: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    for output in (source, source / "out"):
        with pytest.raises(UsageError, match="lies inside the source"):
            corrupt(source, output, sigma=5)
    with pytest.raises(InputError, match="is not empty"):
        corrupt(source / "sub", source, sigma=5)
    assert contents(tmp_path) == before
    corrupt(source, tmp_path / "out", sigma=5)
    before = contents(tmp_path / "out")
    for again in (tmp_path / "out" / "original", tmp_path / "out" / "original" / "v.nii.gz"):
        with pytest.raises(UsageError, match="lies where the output"):
            corrupt(again, tmp_path / "out", sigma=7, overwrite=True)
    assert contents(tmp_path / "out") == before
    corrupt(source, tmp_path / "out", sigma=7, overwrite=True)
    assert contents(tmp_path / "out").keys() == before.keys()
    assert contents(tmp_path / "out") != before


@pytest.mark.parametrize(
    ("noise", "parameters", "message"),
    [
        ("gausian", {"sigma": 5}, "gausian"),
        ("gaussian", {}, r"needs sigma\n.*in image units"),
        ("gaussian", {"sigma": -1}, "sigma must be"),
        ("gaussian", {"sigma": 5, "sgima": 1}, "no parameter 'sgima'"),
    ],
)
def test_wrong_parameters_before_anything_is_written(
    source: Path, tmp_path: Path, noise: str, parameters: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        corrupt(source, tmp_path / "out", noise, **parameters)
    assert not (tmp_path / "out").exists()


# --- Scores -----------------------------------------------------------------------------------------------------------


def noisy_pair(tmp_path: Path, shape: tuple[int, ...] = (60, 70)) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    random = np.random.default_rng(3)
    clean = np.clip(np.cumsum(random.normal(0, 4, shape), axis=-1) + 128, 0, 255).astype(np.uint8)
    noisy = np.clip(clean + random.normal(0, 20, shape), 0, 255).astype(np.uint8)
    for kind, array in (("reference", clean), ("test", noisy)):
        (tmp_path / kind).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / kind / "a.tif", array, photometric="minisblack")
    return clean.astype(np.float64), noisy.astype(np.float64)


def gaussian_ssim(clean: np.ndarray[Any, Any], noisy: np.ndarray[Any, Any], data_range: float) -> float:
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(clean, noisy, data_range=data_range, **options))


def test_score_equals_scikit_image(tmp_path: Path) -> None:
    clean, noisy = noisy_pair(tmp_path)
    rows, means = score_folders(tmp_path / "reference", tmp_path / "test")
    assert [row["name"] for row in rows] == ["a"]
    assert rows[0].keys() == {"name", "ssim", "ssim_matlab", "psnr", "rmse"}
    assert rows[0]["ssim"] == pytest.approx(gaussian_ssim(clean, noisy, 255), abs=1e-6)
    assert rows[0]["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-9)
    assert rows[0]["rmse"] == pytest.approx(np.sqrt(np.mean((clean - noisy) ** 2)))
    assert means == {key: value for key, value in rows[0].items() if key != "name"}
    by_file, _ = score_folders(tmp_path / "reference" / "a.tif", tmp_path / "test" / "a.tif")
    assert by_file == [{**rows[0], "name": "a.tif"}]


def test_score_of_volumes_is_the_mean_over_slices(tmp_path: Path) -> None:
    clean, noisy = noisy_pair(tmp_path, (5, 40, 50))
    rows, _ = score_folders(tmp_path / "reference", tmp_path / "test", data_range=300)
    expected = np.mean([gaussian_ssim(a, b, 300) for a, b in zip(clean, noisy, strict=True)])
    assert rows[0]["ssim"] == pytest.approx(expected, abs=1e-6)


def test_range_of_other_references_is_their_own(tmp_path: Path) -> None:
    clean, noisy = (array * 7 - 900 for array in noisy_pair(tmp_path))
    for kind, array in (("reference", clean), ("test", noisy)):
        tifffile.imwrite(tmp_path / kind / "a.tif", array.astype(np.float32))
    rows, _ = score_folders(tmp_path / "reference", tmp_path / "test")
    assert rows[0]["ssim"] == pytest.approx(gaussian_ssim(clean, noisy, np.ptp(clean)), abs=1e-6)
    assert rows[0]["rmse"] == pytest.approx(np.sqrt(np.mean((clean - noisy) ** 2)))


def test_identical_folders(source: Path) -> None:
    rows, means = score_folders(source, source)
    assert [row["name"] for row in rows] == ["a", "sub/b", "sub/ct", "v"]
    assert means == {"ssim": 1, "ssim_matlab": 1, "psnr": 100, "rmse": 0}


def test_means_are_over_images(source: Path, tmp_path: Path) -> None:
    corrupt(source, tmp_path / "out", sigma=30)
    rows, means = score_folders(tmp_path / "out" / "original", tmp_path / "out" / "noisy")
    assert len(rows) == 4
    for key, value in means.items():
        assert value == pytest.approx(np.mean([row[key] for row in rows]))
    assert means["rmse"] == pytest.approx(30, rel=0.02)


def test_names_match_whatever_the_suffix(source: Path, tmp_path: Path) -> None:
    corrupt(source, tmp_path / "out", sigma=5)
    rows, means = score_folders(source, tmp_path / "out" / "original")
    assert len(rows) == 4
    assert means["rmse"] == 0


def test_folders_that_do_not_match(tmp_path: Path) -> None:
    noisy_pair(tmp_path)
    reference, test = tmp_path / "reference", tmp_path / "test"
    Image.fromarray(RAMP).save(test / "extra.png")
    with pytest.raises(InputError, match=r"1 file\(s\) are in one folder only, first extra"):
        score_folders(reference, test)
    (test / "extra.png").rename(test / "a.png")
    with pytest.raises(InputError, match=r"a\.png and .*a\.tif have the same name"):
        score_folders(reference, test)
    (test / "a.tif").unlink()
    with pytest.raises(InputError, match=r"reference/a\.tif and .*test/a\.png: .*\(60, 70\)"):
        score_folders(reference, test)
    with pytest.raises(UsageError, match="one of the two is a file"):
        score_folders(reference, test / "a.png")
    for missing in (tmp_path / "none", tmp_path / "none.png"):
        with pytest.raises(InputError, match="no such file or folder"):
            score_folders(reference, missing)
        with pytest.raises(InputError, match="no such file or folder"):
            score_folders(test / "a.png", missing)


def test_an_image_smaller_than_the_window_is_named(tmp_path: Path) -> None:
    noisy_pair(tmp_path)
    for kind in ("reference", "test"):
        tifffile.imwrite(tmp_path / kind / "small.tif", RAMP[:10, :40], photometric="minisblack")
    with pytest.raises(InputError, match=r"reference/small\.tif and .*test/small\.tif: images of 10x40") as caught:
        score_folders(tmp_path / "reference", tmp_path / "test")
    assert caught.value.hint == "leave smaller images out"


def test_no_half_a_pair_where_the_noise_is_too_strong_for_one(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    good = np.random.default_rng(0).uniform(0, 100, (32, 32))
    np.save(source / "good.npy", good)
    np.save(source / "a.npy", good * 1e35)
    with np.errstate(over="ignore"):
        done = corrupt(source, output, noise="variance_gaussian", factor=1e4)
    assert (done.written, list(done.skipped)) == (1, ["a.npy"])
    found = {path.relative_to(output).as_posix() for path in output.rglob("*.*")}
    assert found == {"original/good.npy.tif", "noisy/good.npy.tif"}
    with pytest.raises(InputError, match="too large"):
        corrupt(source / "a.npy", tmp_path / "one", noise="variance_gaussian", factor=1e4)
    assert not [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
