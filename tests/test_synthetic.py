from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage

from meddenoise_monai.errors import UsageError
from meddenoise_monai.synthetic import dead_leaves, holes, power_law, specks, synthetic_image


@given(seed=st.integers(0, 2**31), size=st.integers(8, 80))
@settings(max_examples=30, deadline=None)
def test_images_are_finite_on_the_unit_interval_and_repeatable(seed: int, size: int) -> None:
    image = synthetic_image(size, seed)
    assert image.shape == (size, size)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0
    assert np.array_equal(image, synthetic_image(size, seed))
    assert not np.array_equal(image, synthetic_image(size, seed + 1))


def slope(image: np.ndarray) -> float:
    """The exponent of the power law that the image's spectrum follows between 4 and a quarter of its size."""
    size = len(image)
    power = np.abs(fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(fft.fftfreq(size), fft.fftfreq(size))) * size
    rings = np.geomspace(4, size / 4, 12)
    means = [power[(frequency >= a) & (frequency < b)].mean() for a, b in itertools.pairwise(rings)]
    return -float(np.polyfit(np.log(np.sqrt(rings[1:] * rings[:-1])), np.log(means), 1)[0])


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_texture_has_the_spectrum_asked_for(exponent: float) -> None:
    slopes = [slope(power_law(256, exponent, np.random.default_rng(seed))) for seed in range(4)]
    assert np.mean(slopes) == pytest.approx(exponent, abs=0.1)


def test_anisotropic_texture_is_smoother_along_one_axis() -> None:
    texture = power_law(128, 2.0, np.random.default_rng(0), anisotropy=4.0)
    down, across = (float(np.abs(np.diff(texture, axis=axis)).mean()) for axis in (0, 1))
    assert down < 0.7 * across


def test_leaves_look_alike_at_every_scale() -> None:
    # Natural images have exponents near 2 (Field 1987), and so do leaves of radii with density r**-3.
    slopes = [slope(dead_leaves(256, np.random.default_rng(seed), 1.5)) for seed in range(6)]
    assert 1.5 < np.mean(slopes) < 2.7


def test_leaves_have_flat_parts_and_edges() -> None:
    image = dead_leaves(128, np.random.default_rng(1), smallest=10)
    steps = np.abs(np.diff(image, axis=1))
    assert (steps < 0.02).mean() > 0.8
    assert steps.max() > 0.2


def test_holes_are_empty_and_the_rest_is_as_it_was() -> None:
    image = np.float32(0.5) + power_law(96, 2.0, np.random.default_rng(0)) / 2
    shares = []
    for seed in range(20):
        result = holes(image, np.random.default_rng(seed))
        assert np.array_equal(result[result > 0], image[result > 0])
        shares.append(float((result == 0).mean()))
        edges = (np.diff((result == 0).astype(int), axis=0) != 0).mean()
        assert edges < 0.3  # patches, not single pixels
    assert 0.05 <= min(shares) < max(shares) < 0.41


def test_no_image_is_noisy() -> None:
    # White noise has as much power at the highest frequencies as at the middle ones; these images have far less.
    for seed in range(30):
        power = np.abs(fft.fft2(synthetic_image(128, seed))) ** 2
        frequency = np.hypot(*np.meshgrid(fft.fftfreq(128), fft.fftfreq(128)))
        high, middle = power[frequency > 0.5].mean(), power[(frequency > 0.05) & (frequency < 0.1)].mean()
        assert high < 0.1 * middle


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: synthetic_image(7, 0),
        lambda rng: power_law(1, 2, rng),
        lambda rng: power_law(8, -1, rng),
        lambda rng: power_law(8, 1, rng, 0),
        lambda rng: dead_leaves(8, rng, 5),
        lambda rng: dead_leaves(8, rng, 0),
        lambda rng: dead_leaves(0, rng, 1, 2),
    ],
)
def test_impossible_parameters_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make(np.random.default_rng(0))  # type: ignore[operator]


@given(seed=st.integers(0, 2**31), height=st.integers(1, 60), width=st.integers(1, 60), level=st.floats(0, 1, width=32))
@settings(max_examples=40, deadline=None)
def test_specks_brighten_some_pixels_and_darken_none(seed: int, height: int, width: int, level: float) -> None:
    image = np.full((height, width), level, np.float32)
    result = specks(image, np.random.default_rng(seed), density=1 / 50)
    assert result.dtype == np.float32
    assert result.shape == image.shape
    assert (result >= image - 1e-6).all()
    assert result.max() <= 1
    assert np.array_equal(image, np.full_like(image, level))


def test_specks_are_as_many_and_as_small_as_asked_for() -> None:
    result = specks(np.zeros((400, 400), np.float32), np.random.default_rng(0), density=1 / 400)
    found, count = ndimage.label(result > 0.02)
    assert count == pytest.approx(400, rel=0.2)  # a few are fainter or run together
    assert np.median(np.bincount(found.ravel())[1:]) < 30
    assert 0.05 < np.median(ndimage.maximum(result, found, range(1, count + 1))) < 0.3
    assert not specks(np.zeros((50, 50), np.float32), np.random.default_rng(0), density=0).any()


@pytest.mark.parametrize("density", [-1.0, float("nan")])
def test_specks_refuse_a_density_below_none(density: float) -> None:
    with pytest.raises(UsageError, match="density"):
        specks(np.zeros((8, 8), np.float32), np.random.default_rng(0), density)
