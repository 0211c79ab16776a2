from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.images import IntensityScale, read_image
from meddenoise_monai.transforms import (
    MostTissued,
    PadToSized,
    RandPatchesd,
    ReadImaged,
    ScaleToUnitd,
    WriteImaged,
)

GREY = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)
BOTH = ("image", "label")


def numbers(low: float, high: float, inverted: bool = False) -> torch.Tensor:
    return torch.tensor(IntensityScale(low, high, inverted).as_numbers(), dtype=torch.float64)


# --- Reading and scaling ----------------------------------------------------------------------------------------------


def test_read_and_scale_one_image(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    item = ReadImaged(BOTH, allow_missing_keys=True)({"image": str(tmp_path / "a.png"), "patient": "p"})
    np.testing.assert_array_equal(item["image"], GREY[None])
    assert item["scale"].tolist() == [0, 255, 0]
    assert (item["source"], item["patient"]) == (str(tmp_path / "a.png"), "p")
    item = ScaleToUnitd(BOTH, allow_missing_keys=True)(item)
    assert item["image"].dtype == torch.float32
    np.testing.assert_array_equal(item["image"].numpy(), (GREY[None] / 255).astype(np.float32))


def test_a_pair_shares_the_scale_of_its_clean_image(tmp_path: Path) -> None:
    clean = np.linspace(100, 300, 64).reshape(8, 8)
    noisy = clean + np.where(np.arange(8) % 2, 50, -50)
    np.save(tmp_path / "clean.npy", clean)
    np.save(tmp_path / "noisy.npy", noisy)
    item = {"image": str(tmp_path / "noisy.npy"), "label": str(tmp_path / "clean.npy")}
    before = dict(item)
    scaled = ScaleToUnitd(BOTH)(ReadImaged(BOTH)(item))
    assert scaled["scale"].tolist() == [100, 300, 0]
    np.testing.assert_allclose(scaled["label"][0], (clean - 100) / 200, atol=1e-7)
    np.testing.assert_allclose(scaled["image"][0], (noisy - 100) / 200, atol=1e-7)
    assert scaled["source"].endswith("noisy.npy")
    assert item == before


def test_a_pair_of_two_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "noisy.npy", GREY)
    np.save(tmp_path / "clean.npy", GREY[:, :-1])
    with pytest.raises(InputError, match=r"noisy\.npy: noisy \(20, 30\) and clean \(20, 29\) differ in shape"):
        ReadImaged(BOTH)({"image": str(tmp_path / "noisy.npy"), "label": str(tmp_path / "clean.npy")})


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png"):
        ReadImaged("image")({"image": str(tmp_path / "a.png")})


# --- Padding ----------------------------------------------------------------------------------------------------------


def test_small_images_are_mirrored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    image = torch.arange(12.0).reshape(1, 3, 4)
    padded = PadToSized(BOTH, (7, 4))({"image": image, "label": image + 100, "source": "a.png"})
    rows = [1, 0, 0, 1, 2, 2, 1]  # half-sample symmetric: the border row appears twice
    torch.testing.assert_close(padded["image"], image[:, rows])
    torch.testing.assert_close(padded["label"], image[:, rows] + 100)
    assert "a.png: (3, 4) is smaller than a patch (7, 4): mirrored" in caplog.text


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple),
    size=st.lists(st.integers(1, 30), min_size=2, max_size=3).map(tuple),
)
def test_padding_reaches_the_size_and_keeps_the_values(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    image = torch.arange(1.0, 1 + np.prod(shape)).reshape(1, *shape)
    if len(shape) < len(size):
        with pytest.raises(InputError, match="a 2D image cannot be cut into patches of 3 dimensions"):
            PadToSized("image", size)({"image": image})
        return
    padded = PadToSized("image", size)({"image": image})["image"]
    whole = (1,) * (len(shape) - len(size)) + size
    assert padded.shape[1:] == tuple(max(want, got) for want, got in zip(whole, shape, strict=True))
    assert set(padded.flatten().tolist()) == set(image.flatten().tolist())


def test_large_images_pass_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    image = torch.rand(1, 8, 9)
    assert PadToSized("image", (8, 8))({"image": image})["image"] is image
    assert not caplog.records


# --- The window with the most tissue ----------------------------------------------------------------------------------


def brute_force(image: np.ndarray[Any, Any], size: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The first window with the most pixels above 0.1, on the grid that the docstring states."""
    whole = (1,) * (image.ndim - len(size)) + size
    starts = []
    for length, wanted in zip(image.shape, whole, strict=True):
        last = length - min(length, wanted)
        starts.append(sorted({*range(0, last, max(1, min(length, wanted) // 8)), last}))
    best, most = image, -1
    for corner in itertools.product(*starts):
        window = image[tuple(slice(at, at + n) for at, n in zip(corner, whole, strict=True))]
        tissue = int((window > 0.1).sum())
        if tissue > most:
            best, most = window, tissue
    return best.reshape(best.shape[-len(size) :])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.lists(st.integers(4, 40), min_size=2, max_size=2),
    depth=st.one_of(st.none(), st.integers(1, 6)),
    size=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    size_3d=st.booleans(),
)
def test_most_tissue_against_brute_force(
    seed: int, shape: list[int], depth: int | None, size: tuple[int, ...], size_3d: bool
) -> None:
    shape = shape if depth is None else [depth, *shape]
    size = (2, *size) if size_3d and depth is not None else size
    image = np.random.default_rng(seed).random(shape).astype(np.float32) * 0.2
    cut = MostTissued("image", size)({"image": torch.from_numpy(image)[None]})["image"]
    np.testing.assert_array_equal(cut[0], brute_force(image, size))


def test_most_tissue_finds_the_blob_in_its_slice_and_cuts_all_keys_there() -> None:
    image = torch.zeros(1, 6, 64, 64)
    image[0, 4, 40:56, 8:24] = 0.5
    label = torch.rand(1, 6, 64, 64)
    cut = MostTissued(BOTH, (16, 16))({"image": image, "label": label, "source": "s"})
    assert (cut["image"] == 0.5).all()
    torch.testing.assert_close(cut["label"], label[:, 4, 40:56, 8:24])
    cut["label"].zero_()
    assert (label != 0).any()  # a copy: a cached image must not keep the whole one alive


def test_first_of_equals_wins_always() -> None:
    image = torch.zeros(1, 32, 32)
    image[0, 4:8, 20:24] = image[0, 20:24, 4:8] = 1
    image[0, 4:8, 20:24] += torch.arange(16).reshape(4, 4)
    cuts = [MostTissued("image", (4, 4))({"image": image})["image"] for _ in range(3)]
    for cut in cuts:
        torch.testing.assert_close(cut, image[:, 4:8, 20:24])


def test_most_tissue_of_a_flat_image_is_its_corner() -> None:
    image = torch.arange(64.0).reshape(1, 8, 8) / 1000
    torch.testing.assert_close(MostTissued("image", (4, 4))({"image": image})["image"], image[:, :4, :4])


def test_most_tissue_refuses_what_a_metric_cannot_measure() -> None:
    window = MostTissued("image", (16, 16), least=11)
    for shape, whole in (((11, 40), (11, 16)), ((3, 11, 11), (11, 11))):
        assert window({"image": torch.rand(1, *shape)})["image"].shape == (1, *whole)
    with pytest.raises(InputError, match=r"a\.png: the image \(10, 40\) is too small"):
        window({"image": torch.rand(1, 10, 40), "source": "a.png"})
    with pytest.raises(UsageError, match=r"the window \(16, 10\)"):
        MostTissued("image", (16, 10), least=11)


def test_most_tissue_wants_as_many_axes() -> None:
    with pytest.raises(InputError, match=r"a\.png: a 2D image cannot be cut"):
        MostTissued("image", (4, 4, 4))({"image": torch.zeros(1, 8, 8), "source": "a.png"})


# --- Random patches ---------------------------------------------------------------------------------------------------


def patches_of(image: torch.Tensor, size: tuple[int, ...], seed: int = 0, **options: Any) -> list[dict[Any, Any]]:
    transform = RandPatchesd(BOTH, size, allow_missing_keys=True, **options)
    transform.set_random_state(seed)
    return transform({"image": image, "label": image + 1000})


@pytest.mark.parametrize(("shape", "size"), [((20, 30), (8, 5)), ((6, 20, 30), (8, 5)), ((6, 20, 30), (3, 8, 5))])
def test_patches_lie_in_the_image_at_the_same_place(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    image = torch.arange(float(np.prod(shape))).reshape(1, *shape)
    patches = patches_of(image, size, num_samples=40)
    assert len(patches) == 40
    whole = (1,) * (len(shape) - len(size)) + size
    corners = set()
    for patch in patches:
        assert patch["image"].shape == (1, *size)
        torch.testing.assert_close(patch["label"], patch["image"] + 1000)
        corner = np.unravel_index(int(patch["image"].flatten()[0]), shape)
        window = tuple(slice(at, at + n) for at, n in zip(corner, whole, strict=True))
        torch.testing.assert_close(patch["image"][0], image[0][window].reshape(size))
        corners.add(corner)
    for axis, (length, wanted) in enumerate(zip(shape, whole, strict=True)):
        assert len({corner[axis] for corner in corners}) > min(2, length - wanted)


def test_patches_reach_every_border() -> None:
    image = torch.arange(9.0).reshape(1, 3, 3)
    seen = {float(patch["image"].sum()) for patch in patches_of(image, (2, 2), num_samples=100)}
    assert seen == {0 + 1 + 3 + 4, 1 + 2 + 4 + 5, 3 + 4 + 6 + 7, 4 + 5 + 7 + 8}


def test_random_state() -> None:
    image = torch.rand(1, 40, 40)
    first, again, other = (patches_of(image, (8, 8), seed, num_samples=5) for seed in (1, 1, 2))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))


def test_flat_background_is_avoided() -> None:
    image = torch.zeros(1, 64, 64)
    image[:, :, 32:] = torch.rand(1, 64, 32, generator=torch.Generator().manual_seed(0))
    share = 24 / 56  # of the 57 columns where an 8 pixels wide patch can begin, 0 to 24 show background alone
    flat = [float(patch["image"].std()) < 0.01 for patch in patches_of(image, (8, 8), num_samples=1000)]
    assert np.mean(flat) == pytest.approx(share**5, abs=0.015)  # five draws
    taken = [float(patch["image"].std()) < 0.01 for patch in patches_of(image, (8, 8), num_samples=1000, min_std=0)]
    assert np.mean(taken) == pytest.approx(share, abs=0.05)


def test_a_flat_image_still_gives_patches_and_keeps_the_pair_flag() -> None:
    transform = RandPatchesd("image", (4, 4), num_samples=3)
    image = torch.zeros(1, 8, 8)
    assert [patch["paired"] for patch in transform({"image": image, "paired": True})] == [True] * 3
    assert [patch["paired"] for patch in transform({"image": image})] == [False] * 3


def test_patches_are_copies() -> None:
    image = torch.rand(1, 8, 8)
    before = image.clone()
    for patch in patches_of(image, (4, 4), num_samples=4):
        patch["image"].zero_()
    torch.testing.assert_close(image, before)


# --- Writing ----------------------------------------------------------------------------------------------------------


def item_of(path: Path, change: Any = None) -> dict[Any, Any]:
    item = ScaleToUnitd("image")(ReadImaged("image")({"image": str(path)}))
    item["pred"] = item["image"] if change is None else change(item["image"])
    return item


@pytest.mark.parametrize("name", ["a.png", "a16.png", "a.pgm", "a.bmp", "a.tif", "signed.tif", "volume.tif", "a.npy"])
def test_what_was_read_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    path = tmp_path / "in" / "sub" / name
    array = {
        "a16.png": GREY.astype(np.uint16) * 257,
        "signed.tif": GREY.astype(np.int16) * 128 - 16000,
        "volume.tif": np.stack([GREY, GREY[::-1]]),
    }.get(name, GREY)
    if name.endswith(".npy"):
        np.save(path, array)
    elif name.endswith(".tif"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    before = path.read_bytes()
    written = Path(WriteImaged("pred", str(tmp_path / "out"), str(tmp_path / "in"))(item_of(path))["written"])
    assert written == tmp_path / "out" / "sub" / name
    result = read_image(written).array
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype
    assert path.read_bytes() == before


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_dicom_becomes_a_derived_object(tmp_path: Path, photometric: str) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.PhotometricInterpretation = photometric
    dataset.save_as(tmp_path / "a.dcm")
    item = WriteImaged("pred", str(tmp_path / "out"), weights="0123")(item_of(tmp_path / "a.dcm"))
    written = pydicom.dcmread(item["written"])
    np.testing.assert_array_equal(written.pixel_array, dataset.pixel_array)
    assert list(written.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert "weights 0123" in written.DerivationDescription


def test_a_quarter_grey_level_is_rounded_away(tmp_path: Path) -> None:
    path = Path(get_testdata_file("examples_overlay.dcm"))
    item = WriteImaged("pred", str(tmp_path / "out"))(item_of(path, lambda image: image + 0.25 / 1123))
    np.testing.assert_array_equal(read_image(item["written"]).array, read_image(path).array)


def test_nifti_keeps_its_header_and_shape(tmp_path: Path) -> None:
    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    item = WriteImaged("pred", str(tmp_path), str(path.parent))(item_of(path))
    written: Any = nibabel.load(item["written"])  # type: ignore[attr-defined]
    original: Any = nibabel.load(path)  # type: ignore[attr-defined]
    assert written.shape == original.shape
    assert written.get_data_dtype() == original.get_data_dtype()
    np.testing.assert_array_equal(written.affine, original.affine)
    np.testing.assert_array_equal(written.get_fdata(), original.get_fdata())


def test_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in ("in", "in/out", "in/../in/out", "link/out"):
        with pytest.raises(UsageError, match="lies inside the input"):
            WriteImaged("pred", str(tmp_path / output), str(tmp_path / "in"))
    WriteImaged("pred", str(tmp_path / "in-denoised"), str(tmp_path / "in"))


def test_a_source_is_never_replaced(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UsageError, match=r"a\.png would replace it"):
        WriteImaged("pred", str(tmp_path))(item_of(tmp_path / "a.png", lambda image: 1 - image))
    assert (tmp_path / "a.png").read_bytes() == before


def test_log_of_padding_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    PadToSized("image", (4, 4))({"image": torch.zeros(1, 2, 2)})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
