"""The weights that ship: what a user gets who never trains. Numbers for the docs come from the benchmark scripts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from meddenoise_monai import load_denoiser
from meddenoise_monai.baselines import make_baseline
from meddenoise_monai.datasets import sample_datalist
from meddenoise_monai.inference import Denoiser, TiledInferer, automatic_precision, released_weights
from meddenoise_monai.metrics import psnr, ssim
from meddenoise_monai.transforms import MostTissued, ReadImaged, ScaleToUnitd

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
