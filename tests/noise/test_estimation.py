"""Estimates of noise against noise that was added to images which have none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from meddenoise_monai.errors import InputError
from meddenoise_monai.noise.estimation import (
    CORRELATION_THRESHOLD,
    NoiseCorrelation,
    estimate_poisson_gaussian,
    estimate_rician_sigma,
    estimate_sigma,
    noise_correlation,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MEDDENOISE_DATA", ROOT.parent / "shared" / "data"))

Image = NDArray[np.float64]


def averaged(image: NDArray[Any], factor: int) -> Image:
    """The means of squares, which leave next to nothing of an image's own noise."""
    height, width = (size // factor for size in image.shape)
    cut = image[: height * factor, : width * factor].astype(np.float64)
    return np.asarray(cut.reshape(height, factor, width, factor).mean(axis=(1, 3)))


def photograph(name: str) -> Image:
    import skimage.data

    return averaged(getattr(skimage.data, name)(), 4)


def discs(size: int = 192, seed: int = 0) -> Image:
    """Dead leaves: discs over discs, of radii from 3 pixels on, on 0..255."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((2 * size, 2 * size))
    image = np.full(rows.shape, 128.0)
    for radius in 6 / np.sqrt(random.uniform(0.002, 1, 700)):
        row, column = random.uniform(0, 2 * size, 2)
        image[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = random.uniform(0, 255)
    return averaged(image, 2)


def spectral(exponent: float, size: int = 192, seed: int = 0) -> Image:
    """A stationary texture of amplitude 1 / f^exponent, mean 128, deviation 40."""
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(2 * size)] * 2))
    frequency[0, 0] = np.inf
    white = np.random.default_rng(seed).standard_normal(frequency.shape)
    texture = np.fft.ifft2(np.fft.fft2(white) / frequency**exponent).real[:size, :size]
    return np.asarray(128 + 40 * (texture - texture.mean()) / texture.std())


def ramp(size: int = 192) -> Image:
    rows, columns = np.indices((size, size))
    return np.asarray(0.4 * rows + 0.8 * columns)


@pytest.fixture(scope="module")
def textures() -> dict[str, Image]:
    found = {name: photograph(name) for name in ("camera", "brick", "moon", "grass", "gravel")}
    return found | {"discs": discs(), "1/f^2": spectral(2.0), "1/f": spectral(1.0), "ramp": ramp()}


def white(image: Image, sigma: float, seed: int = 0) -> Image:
    return np.asarray(image + sigma * np.random.default_rng(seed).standard_normal(image.shape))


def up_sampled(image: Image, factor: float) -> Image:
    """Bilinearly, pixel centres as an image viewer has them."""
    sizes = [int(size * factor) for size in image.shape]
    places = np.meshgrid(*[(np.arange(size) + 0.5) / factor - 0.5 for size in sizes], indexing="ij")
    return np.asarray(ndimage.map_coordinates(image, places, order=1, mode="nearest"))


# sigma


@pytest.mark.parametrize(
    ("name", "least_sigma"),
    [("camera", 2), ("brick", 2), ("discs", 2), ("1/f^2", 2), ("ramp", 2), ("moon", 5), ("gravel", 50), ("grass", 50)],
)
def test_sigma_is_within_5_percent_on_textures(textures: dict[str, Image], name: str, least_sigma: float) -> None:
    for sigma in (2, 5, 10, 25, 50, 75):
        if sigma >= least_sigma:
            assert estimate_sigma(white(textures[name], sigma)) == pytest.approx(sigma, rel=0.05), (name, sigma)


def test_sigma_is_better_than_the_wavelet_estimate(textures: dict[str, Image]) -> None:
    from skimage.restoration import estimate_sigma as wavelet

    noisy = [white(textures[name], 5) for name in ("camera", "brick", "discs", "moon")]
    ours = [abs(estimate_sigma(image) / 5 - 1) for image in noisy]
    theirs = [abs(wavelet(image) / 5 - 1) for image in noisy]
    assert np.mean(ours) < 0.2 * np.mean(theirs)


@pytest.mark.parametrize("name", ["grass", "gravel", "1/f"])
def test_sigma_is_an_upper_bound_where_texture_is_everywhere(textures: dict[str, Image], name: str) -> None:
    for sigma in (2, 10, 25):
        assert 0.97 * sigma < estimate_sigma(white(textures[name], sigma)) < sigma + 25


def test_sigma_of_small_images() -> None:
    errors = np.array([estimate_sigma(white(spectral(2.0, 64, seed), 25, seed)) / 25 - 1 for seed in range(20)])
    assert abs(errors.mean()) < 0.02
    assert errors.std() < 0.04
    assert estimate_sigma(white(np.zeros((8, 8)), 1)) == pytest.approx(1, rel=0.5)


def test_constant_areas_do_not_count(textures: dict[str, Image]) -> None:
    noisy = white(textures["discs"], 10)
    padded = np.pad(noisy, ((0, 300), (150, 50)))
    assert estimate_sigma(padded) == pytest.approx(10, rel=0.05)
    rows, columns = np.indices(noisy.shape)
    outside = np.hypot(rows - 96, columns - 96) > 80  # a slanted border, as of a masked head
    for value in (0.0, 255.0, -1000.0):
        assert estimate_sigma(np.where(outside, value, noisy)) == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("sigma", [5, 25, 50, 75])
def test_clipping_is_corrected_for(textures: dict[str, Image], sigma: float) -> None:
    # Half of the ramp's dark end is lost, as in the paper's protocol.
    clipped = np.clip(white(textures["ramp"] - 20, sigma), 0, 255)
    assert estimate_sigma(clipped) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("sigma", [2, 10])
def test_rounding_to_8_bit_does_no_harm(textures: dict[str, Image], sigma: float) -> None:
    rounded = np.clip(white(textures["camera"], sigma), 0, 255).round().astype(np.uint8)
    # Rounding adds a variance of 1/12.
    assert estimate_sigma(rounded) == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.05)


def test_volumes_give_one_estimate_over_their_slices() -> None:
    volume = np.stack([white(spectral(2.0, 64, seed), 10, seed) for seed in range(40)])
    assert estimate_sigma(volume) == pytest.approx(10, rel=0.03)
    assert estimate_sigma(volume[:1]) == estimate_sigma(volume[0])


def test_constant_images_have_no_noise() -> None:
    assert estimate_sigma(np.full((50, 60), 7.5)) == 0
    assert estimate_sigma(np.zeros((3, 20, 20), np.uint8)) == 0
    assert estimate_rician_sigma(np.zeros((30, 30))) == 0
    assert estimate_poisson_gaussian(np.ones((30, 30))) == (0, 0)
    assert not noise_correlation(np.ones((30, 30))).is_correlated


def test_images_of_two_values_are_measured_without_a_warning() -> None:
    checks = np.indices((40, 40)).sum(axis=0) % 2
    for estimate in (estimate_sigma, estimate_rician_sigma, estimate_poisson_gaussian, noise_correlation):
        estimate(checks)
        estimate(np.eye(40))
        estimate(np.kron(checks, np.ones((2, 2))))


@settings(deadline=None, max_examples=20)
@given(
    factor=st.floats(1e-4, 1e4),
    offset=st.floats(-1e4, 1e4),
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(40, 50), (64, 33), (2, 30, 30)]),
)
def test_sigma_is_in_the_images_units(factor: float, offset: float, seed: int, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(seed).standard_normal(shape).cumsum(axis=-1)
    expected = factor * estimate_sigma(image)
    assert estimate_sigma(factor * (image + offset)) == pytest.approx(expected, rel=1e-3)
    assert estimate_sigma(-image) == pytest.approx(estimate_sigma(image), rel=1e-6)
    assert estimate_sigma(image) == estimate_sigma(image.copy())


def test_offset_is_no_matter_for_precision() -> None:
    image = white(np.zeros((64, 64)), 0.01)
    assert estimate_sigma(image + 1e6) == pytest.approx(estimate_sigma(image), rel=1e-3)


def test_a_megapixel_takes_about_a_second_at_most() -> None:
    image = white(np.zeros((1024, 1024)), 1)
    estimate_sigma(image[:64, :64])
    start = time.process_time()
    assert estimate_sigma(image) == pytest.approx(1, rel=0.02)
    assert time.process_time() - start < 2  # 0.3 s on an idle machine


@pytest.mark.skipif(not (DATA / "mini_mias").is_dir(), reason=f"no real data in {DATA} (MEDDENOISE_DATA)")
@pytest.mark.parametrize("folder", ["mini_mias", "ceph"])
def test_sigma_on_real_images(folder: str) -> None:
    from meddenoise_monai.images import read_image

    paths = sorted((DATA / folder).glob("*.png"))[::40][:4]
    assert len(paths) >= 3
    for seed, path in enumerate(paths):
        clean = averaged(read_image(path).array, 4)
        for sigma in (2, 10, 50):
            assert estimate_sigma(white(clean, sigma, seed)) == pytest.approx(sigma, rel=0.05), (path.name, sigma)
            assert not noise_correlation(white(clean, sigma, seed)).is_correlated
        assert noise_correlation(up_sampled(white(clean, 10, seed), 1.5)).is_correlated


# correlation


def test_white_noise_is_uncorrelated_on_all_textures(textures: dict[str, Image]) -> None:
    for name, image in textures.items():
        for sigma in (10, 25, 50):
            found = noise_correlation(white(image, sigma))
            assert not found.is_correlated, (name, sigma, found)
    for name in ("camera", "brick", "moon", "discs", "1/f^2", "ramp"):
        assert noise_correlation(white(textures[name], 5)).strength < 0.1, name


@pytest.mark.parametrize("name", ["camera", "brick", "moon", "discs", "1/f^2", "ramp"])
def test_smoothed_and_up_sampled_noise_is_correlated(textures: dict[str, Image], name: str) -> None:
    image = textures[name]
    for sigma in (10, 25):
        for width in (0.7, 1.0):
            smooth = ndimage.gaussian_filter(white(np.zeros_like(image), 1), width, mode="wrap")
            found = noise_correlation(image + sigma * smooth / smooth.std())
            assert found.is_correlated, (sigma, width, found)
        for factor in (1.25, 1.5, 2.0):
            found = noise_correlation(up_sampled(white(image, sigma), factor))
            assert found.is_correlated, (sigma, factor, found)


@pytest.mark.parametrize("name", ["grass", "gravel"])
def test_up_sampling_shows_even_where_texture_is_everywhere(textures: dict[str, Image], name: str) -> None:
    assert noise_correlation(up_sampled(white(textures[name], 5), 1.5)).is_correlated


def test_what_it_cannot_decide(textures: dict[str, Image]) -> None:
    # Texture that reaches the highest frequencies hides smoothed noise, and a smooth image without noise looks smooth.
    smooth = ndimage.gaussian_filter(white(np.zeros_like(textures["grass"]), 1), 1.0, mode="wrap")
    assert not noise_correlation(textures["grass"] + 10 * smooth / smooth.std()).is_correlated
    assert noise_correlation(ndimage.gaussian_filter(textures["camera"], 2)).is_correlated


def test_correlation_is_told_by_axis() -> None:
    along_rows = ndimage.gaussian_filter1d(white(np.zeros((200, 200)), 1), 0.8, axis=1, mode="wrap")
    found = noise_correlation(along_rows)
    assert found.horizontal > 0.5
    assert found.vertical < 0.05
    assert found.strength == found.horizontal
    assert noise_correlation(along_rows.T).vertical > 0.5


def test_fitted_correlation_is_near_that_of_neighbouring_pixels() -> None:
    for widths in ((0.6, 0.8), (0.5, 0.7), (0.0, 0.6)):
        smooth = ndimage.gaussian_filter(white(np.zeros((256, 256)), 1), widths, mode="wrap")
        found = noise_correlation(smooth)
        for axis, correlation in enumerate((found.vertical, found.horizontal)):
            true = np.mean(smooth * np.roll(smooth, 1, axis)) / np.mean(smooth**2)
            assert true - 0.2 < correlation < true + 0.05, (widths, axis)


def test_correlation_names_the_strength_of_the_noise() -> None:
    for width in (0.0, 0.5, 0.8):
        noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(256, 256)), width)
        assert noise_correlation(noise).sigma == pytest.approx(noise.std(), rel=0.25)


def test_large_images_are_looked_at_in_windows() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (3000, 2000)).astype(np.float32)
    noise[:, 1000:] = ndimage.gaussian_filter(noise[:, 1000:], (0, 0.7))
    assert 0.5 < estimate_sigma(noise) < 3.1
    assert estimate_sigma(noise[:, :1000]) == pytest.approx(3, rel=0.02)
    assert noise_correlation(noise[:, 1000:], 2**16).horizontal > 0.4
    assert noise_correlation(np.stack([noise[:, :1000]] * 3), 2**16).strength < 0.1
    assert estimate_sigma(np.tile(noise[:20, :1000], (1, 300))) == pytest.approx(3, rel=0.1)


def test_autocorrelation_is_that_of_a_gaussian() -> None:
    found = NoiseCorrelation((0.5, 1.0), 1.0)
    assert found.at(0, 0) == 1
    assert found.vertical == pytest.approx(np.exp(-1))
    assert found.horizontal == pytest.approx(np.exp(-1 / 4))
    assert found.at(1, 1) == pytest.approx(found.vertical * found.horizontal)
    assert NoiseCorrelation((0.0, 1.0), 1.0).at(1, 0) == 0
    assert NoiseCorrelation((0.0, 1.0), 1.0).at(0, 2) == pytest.approx(np.exp(-1))
    weak, strong = (NoiseCorrelation((0.0, smoothing), 1.0).strength for smoothing in (0.45, 0.46))
    assert weak < CORRELATION_THRESHOLD < strong


# signal-dependent noise


def poisson_gaussian(image: Image, gain: float, deviation: float, seed: int = 0) -> Image:
    random = np.random.default_rng(seed)
    counts = random.poisson(np.maximum(image, 0) / gain)
    return np.asarray(gain * counts + deviation * random.standard_normal(image.shape))


@pytest.mark.parametrize(("gain", "deviation"), [(10.0, 0.0), (2.0, 0.0), (2.0, 10.0), (0.25, 2.0)])
@pytest.mark.parametrize("name", ["ramp", "discs"])
def test_poisson_gaussian_noise_is_found(textures: dict[str, Image], name: str, gain: float, deviation: float) -> None:
    found = estimate_poisson_gaussian(poisson_gaussian(textures[name], gain, deviation))
    for signal in (50, 128, 220):
        expected = np.sqrt(gain * signal + deviation**2)
        assert np.sqrt(found.gain * signal + found.variance) == pytest.approx(expected, rel=0.06)
    if gain > 1:
        assert found.gain == pytest.approx(gain, rel=0.15)


def test_gaussian_noise_has_no_gain(textures: dict[str, Image]) -> None:
    found = estimate_poisson_gaussian(white(textures["ramp"], 10))
    assert found.variance == pytest.approx(100, rel=0.15)
    assert found.gain * 230 < 20


def test_poisson_gaussian_parameters_are_in_the_images_units(textures: dict[str, Image]) -> None:
    noisy = poisson_gaussian(textures["discs"], 2.0, 5.0)
    found, scaled = estimate_poisson_gaussian(noisy), estimate_poisson_gaussian(noisy * 1e-3)
    assert scaled.gain == pytest.approx(1e-3 * found.gain, rel=1e-3)
    assert scaled.variance == pytest.approx(1e-6 * found.variance, rel=1e-2)


def magnitude(image: Image, sigma: float, seed: int = 0) -> Image:
    random = np.random.default_rng(seed)
    real, imaginary = random.standard_normal((2, *image.shape))
    return np.asarray(np.hypot(image + sigma * real, sigma * imaginary))


def head() -> Image:
    """Signal in the middle third, as in an MR slice; the background is 0."""
    rows, columns = np.indices((192, 192))
    return np.where(np.hypot(rows - 96, columns - 96) < 60, spectral(2.0), 0).clip(0)


@pytest.mark.parametrize("make", [head, ramp, discs])
@pytest.mark.parametrize("sigma", [5, 25, 75])
def test_rician_sigma_is_within_6_percent(make: Callable[[], Image], sigma: float) -> None:
    assert estimate_rician_sigma(magnitude(make(), sigma)) == pytest.approx(sigma, rel=0.06)


def test_rician_sigma_of_pure_background_and_of_a_masked_one() -> None:
    assert estimate_rician_sigma(magnitude(np.zeros((128, 128)), 3)) == pytest.approx(3, rel=0.04)
    masked = np.where(head() > 0, magnitude(head(), 25), 0)
    assert estimate_rician_sigma(masked) == pytest.approx(25, rel=0.06)


def test_rician_sigma_refuses_negative_values() -> None:
    with pytest.raises(InputError, match="a magnitude image has negative values"):
        estimate_rician_sigma(white(np.zeros((20, 20)), 1))


# input


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((7, 90)), r"shape \(7, 90\)"),
        (np.zeros(50), r"shape \(50,\)"),
        (np.zeros((1, 1, 20, 20)), r"shape \(1, 1, 20, 20\)"),
        (np.zeros((0, 20, 20)), r"shape \(0, 20, 20\)"),
        (np.full((20, 20), np.nan), "NaN or infinite"),
        (np.zeros((20, 20), complex), "dtype complex128"),
        (np.full((20, 20), "a"), "dtype <U1"),
    ],
)
def test_what_is_no_image_is_refused(image: NDArray[Any], message: str) -> None:
    for estimate in (estimate_sigma, noise_correlation, estimate_poisson_gaussian, estimate_rician_sigma):
        with pytest.raises(InputError, match=message) as raised:
            estimate(image)
        assert raised.value.hint


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float32, np.float64])
def test_every_real_type_is_measured_and_left_as_it_is(dtype: type[np.generic]) -> None:
    image = (100 + white(np.zeros((60, 60)), 10)).clip(0).astype(dtype)
    before = image.copy()
    assert estimate_sigma(image) == pytest.approx(10, rel=0.12)
    assert np.array_equal(image, before)
