"""The weights that ship: what a user gets who never trains. Numbers for the docs come from the benchmark scripts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from meddenoise_monai import load_denoiser
from meddenoise_monai.baselines import make_baseline
from meddenoise_monai.datasets import sample_datalist
from meddenoise_monai.inference import Denoiser, released_weights
from meddenoise_monai.inferers import TiledInferer, automatic_precision
from meddenoise_monai.metrics import psnr, ssim
from meddenoise_monai.noise import CorrelatedGaussianNoise
from meddenoise_monai.synthetic import synthetic_image
from meddenoise_monai.transforms import MostTissued, ReadImaged, ScaleToUnitd
from meddenoise_monai.treatments import Treatment

Image = NDArray[np.float32]


def held_out() -> dict[str, Image]:
    """The test images among the samples, on [0, 1]; of volumes the middle slice."""
    found = {}
    for item in sample_datalist()["test"]:
        image = ScaleToUnitd("image")(ReadImaged("image")(dict(item)))["image"]
        image = image[:, image.shape[1] // 2] if image.ndim == 4 else image
        found[item["patient"]] = MostTissued("image", (256, 256))({"image": image})["image"][0].numpy()
    return found


CLEAN = held_out()


@pytest.fixture(scope="module")
def denoise() -> Denoiser:
    return load_denoiser(device="cpu")


def noisy(clean: Image, sigma: float) -> Image:
    return clean + np.random.default_rng(0).normal(0, sigma / 255, clean.shape).astype(np.float32)


def test_weights_are_small(denoise: Denoiser) -> None:
    assert released_weights().stat().st_size < 8e6
    assert sum(weight.numel() for weight in denoise.network.parameters()) <= 2e6


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("sigma", [10, 25, 50, 75])
def test_blind_it_beats_baselines_that_know_sigma(denoise: Denoiser, name: str, sigma: float) -> None:
    clean = CLEAN[name]
    image = noisy(clean, sigma)
    ours = denoise(image)
    for baseline in (make_baseline("gaussian"), make_baseline("nlm", patch_size=5, patch_distance=8, h=0.8)):
        theirs = np.asarray(baseline(image, sigma / 255))
        assert psnr(clean, ours, 1.0) > psnr(clean, theirs, 1.0)
    assert ssim(clean, ours, 1.0) > ssim(clean, image, 1.0)


@pytest.mark.parametrize("name", CLEAN)
def test_clean_images_are_left_alone(denoise: Denoiser, name: str) -> None:
    clean = CLEAN[name]
    result = denoise(clean)
    assert psnr(clean, result, 1.0) > 40
    assert abs(result.mean(dtype=np.float64) - clean.mean(dtype=np.float64)) < 0.0005


@pytest.mark.parametrize("name", CLEAN)
def test_intensities_are_no_matter(denoise: Denoiser, name: str) -> None:
    image = noisy(CLEAN[name], 25)
    expected = denoise(image)
    hounsfield = denoise(image * 3000 - 1024)
    assert np.sqrt(np.mean(((hounsfield + 1024) / 3000 - expected) ** 2)) < 1e-3  # what bf16 leaves undecided
    assert psnr(CLEAN[name], (hounsfield + 1024) / 3000, 1.0) == pytest.approx(
        psnr(CLEAN[name], expected, 1.0), abs=0.02
    )


@pytest.mark.parametrize("sigma", [5, 25])
def test_bf16_is_as_good_as_fp32(denoise: Denoiser, sigma: float) -> None:
    if automatic_precision(denoise.device) != "bf16":
        pytest.skip("this processor does not compute in bf16")
    for clean in CLEAN.values():
        image = noisy(clean, sigma)
        scores = [
            psnr(clean, Denoiser(denoise.network, TiledInferer(precision=precision))(image), 1.0)
            for precision in ("fp32", "bf16")
        ]
        assert scores[0] == pytest.approx(scores[1], abs=0.05)


# --- Correlated noise -------------------------------------------------------------------------------------------------


def pictures() -> list[Image]:
    """None of them was trained on."""
    synthetic = [synthetic_image(256, seed) for seed in (10_000, 10_001)]
    return [*(image for image in CLEAN.values() if min(image.shape) >= 128), *synthetic]


@pytest.mark.e2e
@pytest.mark.parametrize("fwhm", [1.2, 2.0, 3.5, 6.0])
@pytest.mark.parametrize("sigma", [15, 40])
def test_correlated_noise_is_recognised_and_removed(denoise: Denoiser, fwhm: float, sigma: float) -> None:
    alone = Denoiser(denoise.network)
    gains, over = [], []
    for clean in pictures():
        noise = CorrelatedGaussianNoise(sigma / 255, fwhm=fwhm)
        image = noise.apply(torch.from_numpy(clean), 0).numpy()
        assert "correlated" in denoise.treatment(image).warning
        result = denoise(image, noise="correlated")
        gains.append(psnr(clean, result, 1.0) - psnr(clean, image, 1.0))
        # The partner does better than the network for white noise on pixels that are far apart.
        over.append(psnr(clean, result, 1.0) - psnr(clean, alone(image, noise="correlated"), 1.0))
        assert abs(result.mean(dtype=np.float64) - image.mean(dtype=np.float64)) < 0.1 * sigma / 255
    assert np.mean(gains) > 1.5  # the last one is dense texture, which such noise hides
    assert np.mean(over) > 0


@pytest.mark.parametrize("sigma", [0, 2, 5, 15, 50])
def test_white_noise_is_not_taken_for_correlated(denoise: Denoiser, sigma: float) -> None:
    for clean in (*pictures(), *CLEAN.values()):
        assert denoise.treatment(noisy(clean, sigma)) == Treatment()


# --- Harmlessness -----------------------------------------------------------------------------------------------------


def shifts(before: NDArray[np.floating], after: NDArray[np.floating], side: int = 64) -> NDArray[np.float64]:
    """By how much the mean of each region of 64 x 64 pixels moved, and that of the whole image."""
    change = after.astype(np.float64) - before
    height, width = change.shape
    regions = [
        change[top : top + side, left : left + side].mean()
        for top in range(0, max(height - side, 0) + 1, 32)
        for left in range(0, max(width - side, 0) + 1, 32)
    ]
    return np.abs([*regions, change.mean()])


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("sigma", [5, 25, 75])
def test_no_region_becomes_brighter_or_darker(denoise: Denoiser, name: str, sigma: float) -> None:
    image = noisy(CLEAN[name], sigma)
    assert shifts(image, denoise(image)).max() < 0.1 * sigma / 255


@pytest.mark.parametrize("sigma", [5, 15, 40])
@pytest.mark.parametrize("hounsfield", [-1000, 0, 60, 1200])
def test_hounsfield_units_stay(denoise: Denoiser, sigma: float, hounsfield: float) -> None:
    """A cylinder of water with a rod in it, in air: what CT scanners are calibrated with."""
    rows, columns = np.indices((512, 512))
    clean = np.where(np.hypot(rows - 256, columns - 256) < 220, 0.0, -1000.0)
    clean[np.hypot(rows - 256, columns - 150) < 60] = hounsfield
    image = np.rint(clean + np.random.default_rng(1).normal(0, sigma, clean.shape))
    result = denoise(image)
    rod, water = np.s_[216:296, 110:190], np.s_[200:312, 260:372]
    for region in (rod, water):
        assert abs(result[region].mean(dtype=np.float64) - image[region].mean()) < 0.5
        assert result[region].std() < 0.5 * image[region].std()  # it has not simply left it alone


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_threads_and_tiles_change_nothing_but_roundings(denoise: Denoiser, precision: str) -> None:
    if precision == "bf16" and automatic_precision(denoise.device) != "bf16":
        pytest.skip("this processor does not compute in bf16")
    image = np.random.default_rng(2).normal(100, 20, (260, 700)).astype(np.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(Denoiser(denoise.network, TiledInferer(precision=precision))(image, noise="gaussian"))
    finally:
        torch.set_num_threads(threads)
    tiles = Denoiser(denoise.network, TiledInferer(512, batch_size=2, precision=precision))(image, noise="gaussian")
    # oneDNN may sum in another order for another number of threads or another size: docs/architecture.md has what that
    # was measured to be.
    limit = {"fp32": 1e-6, "bf16": 4e-3}[precision] * (image.max() - image.min())
    for other in (*results[1:], tiles):
        assert np.abs(other - results[0]).max() <= limit
