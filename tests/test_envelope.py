"""What lies outside of what was validated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from meddenoise_monai.datasets import sample_datalist
from meddenoise_monai.envelope import examine, label_map
from meddenoise_monai.images import IntensityScale, read_image

RNG = np.random.default_rng(0)


def texture(height: int = 200, width: int = 220) -> NDArray[np.float64]:
    rows, columns = np.indices((height, width))
    return np.asarray(1000 + 400 * np.sin(rows / 30) * np.cos(columns / 40))


def atlas(labels: int, side: int = 128) -> NDArray[np.int16]:
    """Voronoi cells."""
    rng = np.random.default_rng(labels)
    centres = rng.uniform(0, side, (labels, 2))
    places = np.moveaxis(np.indices((side, side)), 0, -1)
    nearest = np.argmin(((places[:, :, None] - centres) ** 2).sum(-1), axis=-1)
    return np.asarray(nearest, np.int16)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.28])
def test_noise_of_any_usual_strength_is_estimated_without_a_warning(share: float) -> None:
    scale = IntensityScale(0, 2000)
    image = texture() + RNG.normal(0, share * 2000, (200, 220))
    seen = examine(image, scale)
    assert seen.warnings == {}
    assert seen.sigma == pytest.approx(share * 2000, rel=0.05)


def test_stronger_noise_than_was_trained_on_is_named_with_its_strength() -> None:
    seen = examine(texture() + np.random.default_rng(3).normal(0, 700, (200, 220)), IntensityScale(0, 2000))
    assert set(seen.warnings) == {"strong"}
    assert seen.sigma == pytest.approx(700, rel=0.05)
    assert f"{seen.sigma / 2000:.0%} of the range" in seen.warnings["strong"]
    assert "29%" in seen.warnings["strong"]


def test_small_images_are_named() -> None:
    for shape, small in (
        ((31, 200), True),
        ((200, 31), True),
        ((5, 40, 31), True),
        ((32, 32), False),
        ((2, 32, 40), False),
    ):
        seen = examine(RNG.normal(0, 1, shape), IntensityScale(-100, 100))
        assert ("small" in seen.warnings) == small, shape
        assert seen.sigma is not None
    assert examine(RNG.normal(0, 1, (7, 90)), IntensityScale(-9, 9)).sigma is None


@pytest.mark.parametrize("labels", [2, 8, 9, 40, 300])
def test_masks_and_label_maps_are_recognised(labels: int) -> None:
    found = label_map(atlas(labels, 256))
    assert f"{len(np.unique(atlas(labels, 256)))} different values" in found
    background = np.zeros((3, 400, 400), np.int16)  # most of an atlas is empty
    background[1, :256, :256] = atlas(labels, 256) + 1
    assert label_map(background)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.6, 50), st.integers(0, 2**32 - 1))
def test_noisy_images_are_no_label_maps(sigma: float, seed: int) -> None:
    noisy = 100 + np.linspace(0, 20, 64) + np.random.default_rng(seed).normal(0, sigma, (64, 64))
    assert not label_map(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    padded = np.zeros((300, 300), np.uint8)
    padded[:64, :64] = np.clip(np.rint(noisy), 0, 255)
    assert not label_map(padded)


def cut_out(background: int, noise: float, around: int = 0) -> NDArray[np.int16]:
    """A noisy disc of 60 pixels in a large frame of one value."""
    rows, columns = np.indices((512, 512))
    disc = np.hypot(rows - 256, columns - 256) < 60
    image = np.where(disc, around + RNG.normal(0, noise, disc.shape), background)
    return np.asarray(np.rint(image), np.int16)


FRAME = np.hypot(*(np.indices((512, 512)) - 256)) < 250


@pytest.mark.parametrize(
    "image",
    [
        cut_out(0, 20),  # an organ, all else 0 HU
        cut_out(0, 100),  # z-scores of a brain without its skull, times 100
        cut_out(128, 9, around=128),  # a difference image
        np.where(FRAME, cut_out(-1000, 20), -1024),  # air, and corners outside of the view
        RNG.poisson(0.7, (64, 64)),  # few counts
        np.rint(100 + RNG.normal(0, 0.5, (64, 64))),
    ],
)
def test_images_in_frames_and_of_few_counts_are_no_label_maps(image: NDArray[Any]) -> None:
    assert not label_map(image)


@pytest.mark.parametrize("shape", [(200, 1), (1, 200), (1, 1)])
def test_a_line_is_no_label_map(shape: tuple[int, int]) -> None:
    assert not label_map(np.arange(shape[0] * shape[1]).reshape(shape))


@pytest.mark.parametrize("name", ["camera", "moon", "coins", "text", "clock", "page", "gravel", "brick", "grass"])
def test_photographs_are_no_label_maps(name: str) -> None:
    image: Any = getattr(skimage.data, name)()
    assert not label_map(image)


def test_sample_images_are_no_label_maps_and_need_no_warning() -> None:
    for part in ("training", "validation", "test"):
        for item in sample_datalist()[part]:
            image = read_image(item["image"])
            assert not label_map(image.array), item
            assert examine(image.array, image.scale).warnings == {}, item
