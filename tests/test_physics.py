"""NPS, MTF, CNR and the residual's statistics against theory: noise of known spectrum, edges of known blur."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, signal, special

from meddenoise_monai import phantoms
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.phantoms import gaussian_mtf
from meddenoise_monai.physics import (
    autocorrelation,
    circular_edge_mtf,
    contrast_recovery,
    contrast_to_noise,
    noise_power,
    slanted_edge_mtf,
    structure_in_residual,
)
from meddenoise_monai.synthetic import dead_leaves

Array = NDArray[np.float64]

SIGMA = 0.1


def filtered_noise(shape: tuple[int, ...], response: Any, seed: int) -> Array:
    """Noise of spectrum SIGMA² response(f)², periodic, so exactly stationary."""
    white = SIGMA * np.random.default_rng(seed).standard_normal(shape)
    rows, columns = np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])[None, :]
    noise: Array = np.fft.irfft2(np.fft.rfft2(white) * response(np.hypot(rows, columns)), shape[-2:])
    return noise


def f_at(level: float, blur: float) -> float:
    """Where the MTF of a Gaussian blur is `level`."""
    return math.sqrt(-math.log(level) / 2) / (math.pi * blur)


@pytest.fixture(scope="module")
def leaves() -> Array:
    return dead_leaves(128, np.random.default_rng(5), smallest=6).astype(np.float64)


# --- noise power spectrum


@pytest.mark.parametrize("window", ["hann", "boxcar"])
def test_white_noise_has_a_flat_spectrum(window: str) -> None:
    scene = np.random.default_rng(1).random((64, 64))
    images = scene + SIGMA * np.random.default_rng(2).standard_normal((600, 64, 64))
    power = noise_power(images, 32, window)
    assert power.spectrum.shape == (32, 32)
    assert power.frequencies.shape == power.radial.shape == (17,)
    assert power.frequencies[[0, -1]] == pytest.approx([0, 0.5], abs=0.005)
    # Frequency zero is one value of 1024, known to about 3 %.
    assert power.radial[1:] == pytest.approx(SIGMA**2, rel=0.03)
    assert power.radial[0] == pytest.approx(SIGMA**2, rel=0.12)
    assert power.variance == pytest.approx(SIGMA**2, rel=0.01)
    assert power.mean_frequency == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize(("blur", "roi"), [(0.7, 48), (1.0, 64), (1.3, 96)])
def test_filtered_noise_has_the_spectrum_of_its_filter(blur: float, roi: int) -> None:
    images = filtered_noise((600, 96, 96), lambda f: gaussian_mtf(f, blur), seed=3)
    power = noise_power(images, roi)
    expected = SIGMA**2 * gaussian_mtf(power.frequencies, blur) ** 2
    # Rings are taken together, by their numbers of values, until chance is below 1 %.
    last = int((expected > 0.05 * expected[0]).sum())
    starts, weights = [1, *range(6, last - 2, 3)], np.arange(last)
    measured = np.add.reduceat(weights * power.radial[:last], starts)
    assert len(measured) >= 4
    assert measured == pytest.approx(np.add.reduceat(weights * expected[:last], starts), rel=0.03)
    assert power.radial[0] == pytest.approx(expected[0], rel=0.2)
    # The integral of a Gaussian's square, SIGMA² / (4 pi blur²), but for what lies beyond the Nyquist frequency.
    axis = np.fft.fftfreq(96)
    variance = SIGMA**2 * float(np.mean(gaussian_mtf(axis, blur) ** 2)) ** 2
    assert power.variance == pytest.approx(variance, rel=0.01)
    assert images.var() == pytest.approx(variance, rel=0.01)
    # The centroid of exp(-4 pi² blur² f²).
    assert power.mean_frequency == pytest.approx(1 / (2 * math.pi**1.5 * blur), rel=0.03)


def test_the_window_keeps_strong_frequencies_from_weak_ones() -> None:
    images = filtered_noise((200, 96, 96), lambda f: gaussian_mtf(f, 1.0), seed=4)
    hann, boxcar = noise_power(images, 64), noise_power(images, 64, "boxcar")
    weak = hann.frequencies.searchsorted(f_at(math.sqrt(1e-3), 1.0))
    expected = SIGMA**2 * gaussian_mtf(hann.frequencies[weak], 1.0) ** 2
    assert hann.radial[weak] == pytest.approx(expected, rel=0.1)
    assert boxcar.radial[weak] > 1.7 * expected


@pytest.mark.parametrize("centre", [0.12, 0.2, 0.33])
def test_band_passed_noise_peaks_in_its_band(centre: float) -> None:
    images = filtered_noise((60, 96, 96), lambda f: np.exp(-((f - centre) ** 2) / (2 * 0.03**2)), seed=5)
    power = noise_power(images, 48)
    assert power.peak_frequency == pytest.approx(centre, abs=1 / 48)
    assert power.mean_frequency == pytest.approx(centre, abs=0.01)


@pytest.mark.parametrize("size", [24, 25])
def test_two_realisations_give_the_spectrum_of_their_difference(size: int) -> None:
    first, second = np.random.default_rng(6).random((2, size, size))
    power = noise_power([first, second], size, "boxcar")
    expected = np.abs(np.fft.fftshift(np.fft.fft2((first - second) / math.sqrt(2)))) ** 2 / size**2
    assert power.spectrum == pytest.approx(expected, rel=1e-9)
    assert power.variance == pytest.approx(np.mean((first - second) ** 2) / 2, rel=1e-12)


def test_regions_reach_every_border() -> None:
    for row, column in [(0, 0), (0, 29), (36, 0), (36, 29), (18, 15)]:
        images = np.zeros((2, 37, 30))
        images[0, row, column] = 1
        assert noise_power(images, 16, "boxcar").variance > 0


def test_integral_is_the_mean_square_of_the_regions() -> None:
    noise = np.random.default_rng(7).standard_normal((5, 24, 32))
    power = noise_power(noise, 16, "boxcar")
    centred = noise - noise.mean(axis=0)
    squares = [np.mean(centred[:, r : r + 16, c : c + 16] ** 2) for r in (0, 8) for c in (0, 8, 16)]
    assert power.variance == pytest.approx(np.mean(squares) * 5 / 4, rel=1e-12)
    # The integral over the square of frequencies, each standing for 1/16 by 1/16.
    assert power.variance == pytest.approx(power.spectrum.sum() / 16**2, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-100, 100), st.sampled_from(["hann", "boxcar"]))
def test_spectrum_scales_with_the_square_and_ignores_the_scene(
    seed: int, factor: float, offset: float, window: str
) -> None:
    rng = np.random.default_rng(seed)
    images, scene = rng.standard_normal((3, 17, 20)), rng.standard_normal((17, 20))
    first = noise_power(images, 8, window)
    second = noise_power(factor * (images + scene) + offset, 8, window)
    assert second.spectrum == pytest.approx(factor**2 * first.spectrum, rel=1e-6, abs=1e-9 * factor**2)
    assert second.variance == pytest.approx(factor**2 * first.variance, rel=1e-9)
    assert second.mean_frequency == pytest.approx(first.mean_frequency, rel=1e-9)


def test_spectrum_of_a_shifted_field_is_the_same() -> None:
    noise = np.random.default_rng(8).standard_normal((4, 16, 16))
    moved = np.roll(noise, (3, -5), (1, 2))
    first, second = (noise_power(each, 16, "boxcar").spectrum for each in (noise, moved))
    assert second == pytest.approx(first, rel=1e-9)


def test_no_noise_has_no_power() -> None:
    power = noise_power(np.ones((3, 16, 16)), 8)
    assert power.variance == 0
    assert math.isnan(power.mean_frequency)


@pytest.mark.parametrize(
    ("images", "roi", "window", "error"),
    [
        (np.zeros((1, 16, 16)), 8, "hann", InputError),
        (np.zeros((16, 16)), 8, "hann", InputError),
        (np.zeros((2, 16, 12)), 13, "hann", InputError),
        (np.full((2, 16, 16), np.nan), 8, "hann", InputError),
        (np.zeros((2, 16, 16), complex), 8, "hann", InputError),
        (np.zeros((2, 2, 16, 16)), 8, "hann", InputError),
        (np.zeros((2, 0, 16)), 8, "hann", InputError),
        (np.zeros((2, 16, 16)), 7, "hann", UsageError),
        (np.zeros((2, 16, 16)), 8, "hamming", UsageError),
    ],
)
def test_what_has_no_spectrum_is_refused(images: Any, roi: int, window: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        noise_power(images, roi, window)


# --- modulation transfer function


@pytest.mark.parametrize("blur", [0.4, 0.7, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("contrast", [0.4, -0.02])
def test_rim_of_a_blurred_disc_has_the_gaussians_mtf(blur: float, contrast: float) -> None:
    image, truth = phantoms.disc((129, 129), 80, contrast, centre=(64.3, 63.8), blur=blur)
    transfer = circular_edge_mtf(image, (64.3, 63.8), truth.radius, 1 if contrast > 0 else -1, reach=16)
    assert transfer.mtf[0] == 1
    assert transfer.mtf == pytest.approx(gaussian_mtf(transfer.frequencies, blur), abs=0.002)
    assert transfer.contrast == pytest.approx(contrast, rel=1e-4)
    assert transfer.f50 == pytest.approx(f_at(0.5, blur), rel=0.003)
    if f_at(0.1, blur) < 1:
        assert transfer.f10 == pytest.approx(f_at(0.1, blur), rel=0.003)
    assert transfer.frequencies[[0, 1, -1]] == pytest.approx([0, 0.005, 1])


@pytest.mark.parametrize(("diameter", "centre"), [(20, (31.7, 32.2)), (20, (32.0, 32.0)), (40, (32.0, 32.0))])
def test_small_and_centred_discs_still_hold_two_percent(diameter: float, centre: tuple[float, float]) -> None:
    image, truth = phantoms.disc((65, 65), diameter, 0.2, centre=centre, blur=1.2)
    transfer = circular_edge_mtf(image, centre, truth.radius, 1, reach=10)
    assert transfer.mtf == pytest.approx(gaussian_mtf(transfer.frequencies, 1.2), abs=0.02)


@pytest.mark.parametrize("blur", [0.7, 1.5])
def test_realisations_are_averaged_before_the_edge_is_measured(blur: float) -> None:
    image, truth = phantoms.disc((113, 113), 80, 0.4, centre=(56.3, 55.8), blur=blur)
    noisy = image + 0.05 * np.random.default_rng(9).standard_normal((300, *image.shape))
    averaged = circular_edge_mtf(noisy, (56.3, 55.8), truth.radius, 1, reach=14)
    below_nyquist = averaged.frequencies <= 0.5
    error = np.abs(averaged.mtf - gaussian_mtf(averaged.frequencies, blur))[below_nyquist]
    assert error.max() < 0.02
    assert averaged.f50 == pytest.approx(f_at(0.5, blur), rel=0.02)
    single = circular_edge_mtf(noisy[0], (56.3, 55.8), truth.radius, 1, reach=14)
    single_error = np.abs(single.mtf - gaussian_mtf(single.frequencies, blur))[below_nyquist]
    assert single_error.max() > 4 * error.max()


def test_height_of_an_edge_comes_from_more_than_its_two_ends() -> None:
    image, truth = phantoms.disc((81, 81), 48, 0.2, centre=(40.3, 39.8), blur=1.0)
    noise = 0.05 * np.random.default_rng(19).standard_normal((60, 81, 81))
    heights = [circular_edge_mtf(one, (40.3, 39.8), truth.radius, 1).contrast for one in image + noise]
    # Of two rings a tenth of a pixel wide, 12 pixels within the rim and 12 outside.
    ends = 0.05 * math.sqrt(1 / (2 * math.pi * 12 * 0.1) + 1 / (2 * math.pi * 36 * 0.1))
    assert np.std(heights) < 0.3 * ends
    assert np.mean(heights) == pytest.approx(0.2, abs=4 * np.std(heights) / math.sqrt(60))


@pytest.mark.parametrize("angle", [5.0, 95.0, -8.0, 170.0])
def test_slanted_edge_has_the_mtf_of_its_blur_or_of_the_pixel(angle: float) -> None:
    blurred, truth = phantoms.slanted_edge((96, 96), -0.3, angle, blur=1.0)
    transfer = slanted_edge_mtf(blurred, (truth.row, truth.column), angle, -1)
    assert transfer.mtf == pytest.approx(gaussian_mtf(transfer.frequencies, 1.0), abs=0.002)
    assert transfer.contrast == pytest.approx(-0.3, rel=1e-4)
    sharp, _ = phantoms.slanted_edge((96, 96), 0.3, angle)
    transfer = slanted_edge_mtf(sharp, (truth.row, truth.column), angle, 1)
    f = transfer.frequencies
    across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    assert transfer.mtf == pytest.approx(np.abs(np.sinc(f * across) * np.sinc(f * down)), abs=0.005)
    assert math.isnan(transfer.falls_to(1e-6))


def test_a_linear_denoiser_adds_the_mtf_of_its_kernel() -> None:
    sharp, truth = phantoms.slanted_edge((96, 96), 0.3, 5.0)
    smoothed = ndimage.gaussian_filter(sharp, 0.8, mode="nearest")
    # The rows next to the border see it replicated, and the edge bent there.
    measured = slanted_edge_mtf(smoothed[4:-4], (truth.row - 4, truth.column), 5.0, 1)
    before = slanted_edge_mtf(sharp[4:-4], (truth.row - 4, truth.column), 5.0, 1)
    impulse = np.zeros(21)
    impulse[10] = 1
    taps, steps = ndimage.gaussian_filter1d(impulse, 0.8), np.arange(-10, 11)
    f = measured.frequencies
    kernel = np.abs(
        (np.exp(-2j * np.pi * np.outer(f * math.cos(math.radians(5)), steps)) @ taps)
        * (np.exp(-2j * np.pi * np.outer(f * math.sin(math.radians(5)), steps)) @ taps)
    )
    assert measured.mtf == pytest.approx(before.mtf * kernel, abs=0.002)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-10, 10), st.sampled_from([1, -1]), st.integers(-3, 3), st.integers(-3, 3))
def test_mtf_does_not_depend_on_units_sign_or_place(
    factor: float, offset: float, sign: int, down: int, on: int
) -> None:
    image, _ = phantoms.disc((49, 49), 24, 0.3, centre=(24.3, 23.9), blur=1.0)
    first = circular_edge_mtf(image, (24.3, 23.9), 12, 1, reach=8)
    moved = np.roll(sign * factor * image + offset, (down, on), (0, 1))
    second = circular_edge_mtf(moved, (24.3 + down, 23.9 + on), 12, sign, reach=8)
    assert second.mtf == pytest.approx(first.mtf, abs=1e-9)
    assert second.contrast == pytest.approx(sign * factor * first.contrast, rel=1e-6)


def test_edges_that_cannot_be_measured_are_refused() -> None:
    image, _ = phantoms.disc((65, 65), 30, 0.3, blur=1.0)
    middle = (32.0, 32.0)
    for arguments in [
        (image, middle, 15, -1),  # darker than it is
        (image[:40], middle, 15, 1),  # the border is too near
        (image, middle, 4, 1, 4),  # flat where the rim should be
        (np.full_like(image, np.inf), middle, 15, 1),
        (image, (math.nan, 32.0), 15, 1),
        (phantoms.disc((65, 65), 4, 0.3)[0], middle, 2, 1, 2),  # too small to sample its rim
    ]:
        with pytest.raises(InputError):
            circular_edge_mtf(*arguments)
    for arguments in [(image, middle, 0, 1), (image, middle, 10, 1), (image, middle, 15, 2), (image, middle, 15, 1, 1)]:
        with pytest.raises(UsageError):
            circular_edge_mtf(*arguments)
    for angle in (0.0, 45.0, 90.0):
        edge, _ = phantoms.slanted_edge((64, 64), 0.3, angle, blur=1.0)
        with pytest.raises(InputError, match="aslant"):
            slanted_edge_mtf(edge, (31.5, 31.5), angle, 1)
    edge, _ = phantoms.slanted_edge((64, 16), 0.3, 5.0, blur=1.0)
    with pytest.raises(InputError, match="no pixel"):
        slanted_edge_mtf(edge, (31.5, -40.0), 5.0, 1)


# --- contrast


def test_contrast_to_noise_is_the_analytic_value() -> None:
    image, truth = phantoms.disc((64, 64), 16, 0.15, 0.4)
    lesion, background = truth.inside(image.shape), truth.around(image.shape, width=8)
    noise = 0.05 * np.random.default_rng(10).standard_normal((400, 64, 64))
    expected = 0.15 / 0.05
    # The variance of a mean's difference, and of a sample's standard deviation.
    n, m = lesion.sum(), background.sum()
    deviation = math.sqrt(1 / n + 1 / m + expected**2 / (2 * m))
    # The mean of 1/s is not quite 1/sigma: that of a non-central t distribution.
    expected *= math.exp(special.gammaln((m - 2) / 2) - special.gammaln((m - 1) / 2)) * math.sqrt((m - 1) / 2)
    assert expected == pytest.approx(3, rel=0.002)
    each = [contrast_to_noise(one, lesion, background) for one in image + noise]
    assert np.mean(each) == pytest.approx(expected, abs=3 * deviation / math.sqrt(400))
    assert np.std(each) == pytest.approx(deviation, rel=0.15)
    assert contrast_to_noise(image + noise, lesion, background) == pytest.approx(np.mean(each), rel=1e-12)
    darker = contrast_to_noise(0.8 - image + noise, lesion, background)
    assert darker == pytest.approx(-expected, abs=3 * deviation / math.sqrt(400))


def test_contrast_to_noise_is_its_definition() -> None:
    image = np.random.default_rng(20).random((4, 5))
    left, right = np.zeros((2, 4, 5), bool)
    left[:, :2], right[:, 3:] = True, True
    inside, outside = image[:, :2].ravel().tolist(), image[:, 3:].ravel().tolist()
    expected = (statistics.mean(inside) - statistics.mean(outside)) / statistics.stdev(outside)
    assert contrast_to_noise(image, left, right) == pytest.approx(expected, rel=1e-12)


def test_contrast_recovery_of_a_blurred_lesion_is_the_closed_form() -> None:
    centre = np.zeros((81, 81), bool)
    centre[40, 40] = True
    for blur in (1.0, 2.0, 4.0):
        image, truth = phantoms.disc((81, 81), 6, -0.2, blur=blur)
        background = truth.distance(image.shape) > 25
        expected = 1 - math.exp(-(3**2) / (2 * blur**2))
        assert contrast_recovery(image, centre, background, -0.2) == pytest.approx(expected, abs=1e-6)
    noisy = image + 0.05 * np.random.default_rng(11).standard_normal((400, 81, 81))
    recovered = contrast_recovery(noisy, centre, background, -0.2)
    assert recovered == pytest.approx(expected, abs=4 * 0.05 / 0.2 / math.sqrt(400))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_contrast_does_not_depend_on_the_units(seed: int, factor: float, offset: float) -> None:
    image = np.random.default_rng(seed).random((8, 8))
    lesion, background = np.zeros((2, 8, 8), bool)
    lesion[:3, :3], background[4:] = True, True
    other = factor * image + offset
    assert contrast_to_noise(other, lesion, background) == pytest.approx(
        contrast_to_noise(image, lesion, background), abs=1e-6
    )
    assert contrast_recovery(other, lesion, background, 0.2 * factor) == pytest.approx(
        contrast_recovery(image, lesion, background, 0.2), abs=1e-6
    )


def test_masks_that_do_not_fit_are_refused() -> None:
    image = np.random.default_rng(12).random((8, 8))
    left, right = np.zeros((2, 8, 8), bool)
    left[:, :3], right[:, 4:] = True, True
    for lesion, background in [
        (left.astype(int), right),
        (left, right[:4]),
        (np.zeros_like(left), right),
        (left, np.zeros_like(left)),
    ]:
        for function in (contrast_to_noise, lambda *masked: contrast_recovery(*masked, 1.0)):
            with pytest.raises(InputError, match="mask"):
                function(image, lesion, background)
    with pytest.raises(InputError, match="constant"):
        contrast_to_noise(np.ones((8, 8)), left, right)
    alone = np.zeros_like(left)
    alone[0, 0] = True
    with pytest.raises(InputError, match="one pixel"):
        contrast_to_noise(image, left, alone)
    for contrast in (0, math.nan):
        with pytest.raises(UsageError):
            contrast_recovery(image, left, right, contrast)


# --- residual


def test_autocorrelation_is_its_definition() -> None:
    residual = np.random.default_rng(13).random((9, 12))
    centred = residual - residual.mean()
    sums = signal.correlate2d(centred, centred)[8 - 4 : 8 + 5, 11 - 4 : 11 + 5]
    pairs = signal.correlate2d(np.ones((9, 12)), np.ones((9, 12)))[8 - 4 : 8 + 5, 11 - 4 : 11 + 5]
    assert autocorrelation(residual, 4) == pytest.approx(sums / pairs / residual.var(), abs=1e-12)
    assert autocorrelation(residual, 8).shape == (17, 17)
    assert autocorrelation(residual, 0) == pytest.approx(np.ones((1, 1)))


def test_white_noise_is_not_correlated_with_itself() -> None:
    correlation = autocorrelation(np.random.default_rng(14).standard_normal((256, 256)), 5)
    assert correlation[5, 5] == 1
    others = np.delete(correlation.ravel(), 60)
    assert np.abs(others).max() < 4 / 256
    # 60 independent values: each other one is its mirror image.
    assert others.std() == pytest.approx(1 / 256, rel=0.3)


@pytest.mark.parametrize("blur", [0.8, 1.5])
def test_autocorrelation_of_filtered_noise_is_a_wider_gaussian(blur: float) -> None:
    noise = filtered_noise((40, 96, 96), lambda f: gaussian_mtf(f, blur), seed=15)
    steps = np.arange(-6, 7)
    expected = np.exp(-(steps[:, None] ** 2 + steps[None, :] ** 2) / (4 * blur**2))
    assert autocorrelation(noise, 6) == pytest.approx(expected, abs=0.02)


def test_autocorrelation_of_an_autoregression_is_a_power_of_the_lag() -> None:
    down, across = 0.7, 0.4
    noise = np.random.default_rng(16).standard_normal((20, 160, 160))
    noise = signal.lfilter([1], [1, -down], signal.lfilter([1], [1, -across], noise, axis=2), axis=1)
    steps = np.abs(np.arange(-5, 6))
    expected = down ** steps[:, None] * across ** steps[None, :]
    assert autocorrelation(noise[:, 40:, 40:], 5) == pytest.approx(expected, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_autocorrelation_is_symmetric_bounded_and_free_of_units(seed: int, factor: float, offset: float) -> None:
    residual = np.random.default_rng(seed).standard_normal((2, 10, 13))
    correlation = autocorrelation(residual, 3)
    assert correlation == pytest.approx(correlation[::-1, ::-1], abs=1e-12)
    assert autocorrelation(factor * residual + offset, 3) == pytest.approx(correlation, abs=1e-6)


def test_a_residual_of_structure_is_told_from_noise(leaves: Array) -> None:
    shifted = structure_in_residual(np.roll(leaves, (1, 1), (0, 1)), leaves)
    assert shifted.values > 0.8
    assert shifted.edges > 0.8
    draws = [
        structure_in_residual(np.random.default_rng(seed).standard_normal(leaves.shape), leaves) for seed in range(30)
    ]
    values, edges = [draw.values for draw in draws], [draw.edges for draw in draws]
    assert np.std(values) == pytest.approx(1 / 128, rel=0.5)
    for found in (values, edges):
        assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(30)
        assert np.abs(found).max() < 0.15


@pytest.mark.parametrize("share", [0.05, 0.2, -0.5])
def test_correlation_with_the_image_is_what_its_share_makes_it(leaves: Array, share: float) -> None:
    noise = SIGMA * np.random.default_rng(17).standard_normal((5, 128, 128))
    expected = share * leaves.std() / math.hypot(share * leaves.std(), SIGMA)
    assert structure_in_residual(noise + share * leaves, leaves).values == pytest.approx(expected, abs=0.02)


def test_edges_that_a_filter_took_are_found(leaves: Array) -> None:
    noise = 0.05 * np.random.default_rng(18).standard_normal(leaves.shape)
    noisy = leaves + noise
    blurring = structure_in_residual(noisy - ndimage.gaussian_filter(noisy, 1.5), leaves)
    ideal = structure_in_residual(noise, leaves)
    assert blurring.edges > 0.5 > 5 * abs(ideal.edges)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-2, 1e2), st.floats(-10, 10))
def test_structure_does_not_depend_on_the_units(seed: int, factor: float, offset: float) -> None:
    residual, reference = np.random.default_rng(seed).random((2, 16, 16))
    first = structure_in_residual(residual, reference)
    second = structure_in_residual(factor * residual + offset, reference / factor - offset)
    assert (second.values, second.edges) == pytest.approx((first.values, first.edges), abs=1e-6)
    far = structure_in_residual(residual + 1e6, reference)
    assert (far.values, far.edges) == pytest.approx((first.values, first.edges), abs=1e-6)


def test_residuals_that_say_nothing_are_refused(leaves: Array) -> None:
    constant = np.ones_like(leaves)
    for residual, reference in [
        (constant, leaves),
        (leaves, constant),
        (leaves, leaves[1:]),
        (leaves, [leaves, leaves]),
    ]:
        with pytest.raises(InputError):
            structure_in_residual(residual, reference)
    with pytest.raises(UsageError):
        structure_in_residual(leaves, leaves, scale=0)
    with pytest.raises(InputError, match="constant"):
        autocorrelation(constant, 2)
    for lags in (-1, 128):
        with pytest.raises(UsageError):
            autocorrelation(leaves, lags)
