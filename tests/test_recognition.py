"""Correlated noise, recognised by what a denoiser takes out; here the denoiser is a wide Gaussian."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from meddenoise_monai.recognition import Recognition, recognise

Array = NDArray[Any]


def smooth(size: int = 320) -> Array:
    rows, columns = np.indices((size, size)) * (2 * np.pi / 256)
    return np.asarray(120 + 50 * np.sin(rows) + 50 * np.sin(columns))


def noise(sigma: float, widths: tuple[float, float] = (1.0, 1.0), size: int = 320, seed: int = 0) -> Array:
    found = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), widths)
    return np.asarray(found * (sigma / found.std()))


def remove(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Takes out all that is finer than some ten pixels."""
    return np.stack([ndimage.gaussian_filter(picture, 4) for picture in pictures])


def remove_fine(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Takes out what is finer than two pixels."""
    return np.stack([ndimage.gaussian_filter(picture, 1) for picture in pictures])


def never(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    raise AssertionError("the network was asked")


@pytest.mark.parametrize("widths", [(0.7, 0.7), (1.0, 1.0), (1.0, 0.5), (0.0, 1.0)])
@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_even_noise_is_evident_and_its_correlation_measured(widths: tuple[float, float], sigma: float) -> None:
    added = noise(sigma, widths)
    found = recognise(smooth() + added, remove)
    assert found.evident
    assert not found.suspected
    real = [float(np.mean(added * np.roll(added, 1, axis)) / added.var()) for axis in (0, 1)]
    if found.step == 1:
        assert [found.vertical, found.horizontal] == pytest.approx(real, abs=0.1)


def test_white_noise_needs_no_network() -> None:
    white = smooth() + np.random.default_rng(0).normal(0, 10, (320, 320))
    assert recognise(white, never) == Recognition()
    with pytest.raises(AssertionError, match="was asked"):
        recognise(white, never, forced=True)


@pytest.mark.parametrize("image", [np.ones((64, 64)), noise(5, size=31)])
def test_nothing_is_said_of_what_is_too_small_or_constant(image: Array) -> None:
    assert recognise(image, never, forced=True) == Recognition()


def test_texture_is_no_noise() -> None:
    image = smooth()
    image[:160] += noise(10)[:160]  # half of the image has it
    found = recognise(image, remove)
    assert not found.evident
    assert found.suspected
    # A network that leaves it alone says that it is a texture.
    kept = recognise(image, lambda pictures: pictures)
    assert not kept.evident
    assert not kept.suspected


def test_clean_images_are_left_alone() -> None:
    found = recognise(smooth(), remove_fine)
    assert not found.evident
    assert not found.suspected


def test_wide_noise_is_found_at_a_wider_step() -> None:
    image = smooth() + noise(10, (3, 3))
    found = recognise(image, remove_fine)
    assert found.evident
    assert found.step > 1
    assert recognise(image, remove_fine, forced=True).step == found.step
    assert recognise(smooth() + noise(10, (0.6, 0.6)), remove_fine).step == 1


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(1e-3, 1e4), offset=st.floats(-1e4, 1e4))
def test_units_do_not_matter(factor: float, offset: float) -> None:
    image = smooth(128) + noise(10, size=128)
    here, there = recognise(image, remove), recognise(image * factor + offset, remove)
    assert (here.evident, here.step) == (there.evident, there.step)
    assert here.vertical == pytest.approx(there.vertical, abs=0.01)


def test_volumes_are_looked_at_all_over() -> None:
    clean = smooth(160)
    assert recognise(np.stack([clean + noise(8, size=160, seed=seed) for seed in range(6)]), remove).evident
    half = np.stack([clean + (noise(8, size=160, seed=seed) if seed < 3 else 0) for seed in range(6)])
    assert not recognise(half, remove).evident
