"""Stabilised noise has a deviation of 1, and the mean of stabilised values goes back to the true signal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.noise.estimation import estimate_poisson_gaussian, estimate_rician_sigma, estimate_sigma
from meddenoise_monai.noise.stabilising import PoissonGaussianStabiliser, RicianStabiliser, Stabiliser

SAMPLES = 200_000

STABILISERS: list[Stabiliser] = [
    PoissonGaussianStabiliser(1.0),
    PoissonGaussianStabiliser(0.02, 0.001, -0.3),
    PoissonGaussianStabiliser(3.0, 40.0, 100.0),
    PoissonGaussianStabiliser(0.0, 4.0),
    RicianStabiliser(1.0),
    RicianStabiliser(12.5),
]


def poisson_gaussian(signal: float, gain: float, variance: float, offset: float, seed: int = 0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    counts = random.poisson((signal - offset) / gain, SAMPLES)
    return np.asarray(offset + gain * counts + math.sqrt(variance) * random.standard_normal(SAMPLES))


def rician(signal: float, noise: float, seed: int = 0) -> NDArray[np.float64]:
    real, imaginary = noise * np.random.default_rng(seed).standard_normal((2, SAMPLES))
    return np.hypot(signal + real, imaginary)


def assert_inverse_is_unbiased(stabiliser: Stabiliser, noisy: NDArray[np.float64], signal: float) -> None:
    """The inverse of the mean is the signal, within 5 standard errors of the mean and 0.01 % for the tables."""
    stabilised = stabiliser.forward(noisy)
    mean, error = stabilised.mean(), 5 * stabilised.std() / math.sqrt(len(stabilised))
    low, high = stabiliser.inverse(np.array([mean - error, mean + error]))
    assert low - 1e-4 * abs(signal) <= signal <= high + 1e-4 * abs(signal)


@pytest.mark.parametrize(("gain", "variance", "offset"), [(1, 0, 0), (1, 1, 0), (0.02, 0.0001, -0.3), (3, 3600, 100)])
@pytest.mark.parametrize("counts", [0, 0.3, 1, 4, 10, 60, 190, 210, 3000])
def test_poisson_gaussian_noise_is_stabilised(counts: float, gain: float, variance: float, offset: float) -> None:
    stabiliser = PoissonGaussianStabiliser(gain, variance, offset)
    signal = offset + gain * counts
    noisy = poisson_gaussian(signal, gain, variance, offset)
    if counts >= 4:
        assert stabiliser.forward(noisy).std() == pytest.approx(stabiliser.sigma, rel=0.03)
    assert_inverse_is_unbiased(stabiliser, noisy, signal)


def test_algebraic_inverse_would_be_biased() -> None:
    stabiliser = PoissonGaussianStabiliser(1.0)
    mean = stabiliser.forward(poisson_gaussian(1.0, 1, 0, 0)).mean()
    algebraic = (mean / 2) ** 2 - 3 / 8
    assert algebraic < 0.9
    assert stabiliser.inverse(mean) == pytest.approx(1.0, abs=0.02)


def test_inverse_agrees_with_the_published_closed_form() -> None:
    # Mäkitalo and Foi, "A closed-form approximation of the exact unbiased inverse of the Anscombe variance-stabilizing
    # transformation", IEEE TIP 20(9), 2011: its greatest error is about 0.05 at the lowest counts.
    values = np.linspace(2 * math.sqrt(3 / 8), 60, 500)
    root = math.sqrt(3 / 2)
    closed = values**2 / 4 + root / 4 / values - 11 / 8 / values**2 + 5 / 8 * root / values**3 - 1 / 8
    exact = PoissonGaussianStabiliser(1.0).inverse(values)
    assert np.abs(exact - closed).max() < 0.06
    assert np.abs(exact - closed)[values > 10].max() < 0.02


@pytest.mark.parametrize("noise", [1.0, 12.5])
@pytest.mark.parametrize("ratio", [0, 0.5, 1, 1.5, 2, 3, 5, 8, 11.9, 12.1, 17, 40])
def test_rician_noise_is_stabilised(ratio: float, noise: float) -> None:
    stabiliser = RicianStabiliser(noise)
    noisy = rician(ratio * noise, noise)
    assert stabiliser.forward(noisy).std() == pytest.approx(stabiliser.sigma, rel=0.035)
    assert_inverse_is_unbiased(stabiliser, noisy, ratio * noise)


def test_rician_floor_is_taken_away() -> None:
    noisy = rician(0.0, 1.0)
    assert noisy.mean() > 1.2
    stabiliser = RicianStabiliser(1.0)
    assert stabiliser.inverse(stabiliser.forward(noisy).mean()) < 0.15


@pytest.mark.parametrize("stabiliser", STABILISERS, ids=repr)
def test_both_maps_are_monotonic_and_continuous(stabiliser: Stabiliser) -> None:
    assert isinstance(stabiliser, Stabiliser)
    assert stabiliser.sigma == 1
    image = np.linspace(-300, 1500, 200_001)
    stabilised = stabiliser.forward(image)
    steps = np.diff(stabilised)
    assert steps.min() >= 0
    values = np.linspace(stabilised.min() - 5, stabilised.max(), 200_001)
    signal = stabiliser.inverse(values)
    assert np.diff(signal).min() >= -1e-9
    # A step at the table's end would be many times its neighbours. Near 0 the Rician mean hardly depends on the signal,
    # so there the inverse is as steep as a root.
    growth = np.diff(signal)[
        signal[1:] > (2 * stabiliser.noise if isinstance(stabiliser, RicianStabiliser) else -math.inf)
    ]
    assert np.abs(np.diff(growth)).max() < 0.2 * growth.max()


@pytest.mark.parametrize("counts", [0.5, 20.0, 199.9, 200.1, 1e4, 1e7])
def test_inverse_of_bright_pixels_is_all_but_the_algebraic_one(counts: float) -> None:
    stabiliser = PoissonGaussianStabiliser(2.0, 8.0, 10.0)
    signal = 10 + 2 * counts
    # The mean of a root is less than the root of the mean by 1 / sqrt(counts), a quarter of a count after squaring.
    assert stabiliser.inverse(stabiliser.forward(np.array(signal))) == pytest.approx(signal + 2 / 4, abs=0.1)


def test_nearly_gaussian_noise_keeps_its_precision() -> None:
    # A read-out noise of 1000 counts: squares of 10^6 are subtracted from one another.
    stabiliser = PoissonGaussianStabiliser(1e-3, 1.0)
    signal = np.linspace(0.01, 50, 100)
    assert stabiliser.inverse(stabiliser.forward(signal)) == pytest.approx(signal, abs=0.002)
    linear = PoissonGaussianStabiliser(0.0, 1.0)
    change = stabiliser.forward(signal) - stabiliser.forward(0.0)
    assert change == pytest.approx(linear.forward(signal), rel=0.02)


finite = st.floats(-1e4, 1e4)


@settings(deadline=None, max_examples=60)
@given(value=finite, variance=st.floats(1e-3, 1e3), offset=finite)
def test_without_gain_both_maps_are_linear_and_inverse_to_each_other(
    value: float, variance: float, offset: float
) -> None:
    stabiliser = PoissonGaussianStabiliser(0.0, variance, offset)
    assert stabiliser.inverse(stabiliser.forward(value)) == pytest.approx(value, abs=1e-8)
    expected = (value - offset) / math.sqrt(variance)
    assert stabiliser.forward(value) == pytest.approx(expected, abs=1e-9 * (1 + abs(expected)))


@settings(deadline=None, max_examples=60)
@given(value=st.floats(0, 500), factor=st.floats(1e-3, 1e3), offset=finite)
def test_stabilised_values_do_not_depend_on_the_images_units(value: float, factor: float, offset: float) -> None:
    plain, scaled = PoissonGaussianStabiliser(1.0, 4.0), PoissonGaussianStabiliser(factor, 4 * factor**2, offset)
    assert scaled.forward(offset + factor * value) == pytest.approx(plain.forward(value), rel=1e-4, abs=1e-4)
    assert scaled.inverse(value / 5) - offset == pytest.approx(factor * plain.inverse(value / 5), rel=1e-6, abs=1e-8)
    assert RicianStabiliser(factor).forward(factor * value) == pytest.approx(RicianStabiliser(1.0).forward(value))
    assert RicianStabiliser(factor).inverse(value) == pytest.approx(factor * RicianStabiliser(1.0).inverse(value))


@settings(deadline=None, max_examples=60)
@given(value=st.floats(3, 1e5))
def test_rician_round_trip_of_clear_signals(value: float) -> None:
    # The mean of a Rician variable is above its signal by 1 / (2 signal), to the second order.
    stabiliser = RicianStabiliser(1.0)
    back = float(stabiliser.inverse(stabiliser.forward(value)))
    assert value - 0.75 / value < back < value + 0.1 / value


@pytest.mark.parametrize("stabiliser", STABILISERS, ids=repr)
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.float16, np.float32, np.float64])
def test_every_real_type_and_shape_comes_back_as_float64(stabiliser: Stabiliser, dtype: type[np.generic]) -> None:
    image = np.arange(24).reshape(2, 3, 4).astype(dtype)
    before = image.copy()
    for convert in (stabiliser.forward, stabiliser.inverse):
        result = convert(image)
        assert (result.dtype, result.shape) == (np.float64, image.shape)
        assert np.isfinite(result).all()
        assert np.array_equal(image, before)
        assert convert(np.zeros((0, 3))).shape == (0, 3)
        assert convert(1).shape == ()
        assert convert([[1, 2]]).shape == (1, 2)


def test_values_that_noise_cannot_have_are_mapped_to_an_end() -> None:
    anscombe = PoissonGaussianStabiliser(2.0, 1.0, 5.0)
    assert anscombe.forward(-1e6) == 0
    assert anscombe.inverse(-3.0) == 5
    stabiliser = RicianStabiliser(2.0)
    assert stabiliser.inverse(-3.0) == 0
    assert stabiliser.forward(0.0) == 0
    assert stabiliser.forward(-1.0) < 0


@pytest.mark.parametrize("stabiliser", STABILISERS, ids=repr)
def test_what_is_no_image_is_refused(stabiliser: Stabiliser) -> None:
    for convert in (stabiliser.forward, stabiliser.inverse):
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(InputError, match="NaN or infinite") as raised:
                convert(np.array([1.0, value]))
            assert raised.value.hint
        with pytest.raises(InputError, match="dtype complex128"):
            convert(np.array([1j]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoissonGaussianStabiliser(-1.0), "gain must be a number >= 0, got -1.0"),
        (lambda: PoissonGaussianStabiliser(1.0, -0.1), "variance must be a number >= 0, got -0.1"),
        (lambda: PoissonGaussianStabiliser(1.0, 0.0, math.inf), "offset must be a number that is finite, got inf"),
        (lambda: PoissonGaussianStabiliser(0.0), "gain and variance are both 0"),
        (lambda: PoissonGaussianStabiliser(True), "gain must be a number >= 0, got True"),
        (lambda: RicianStabiliser(0.0), "noise must be a number > 0, got 0.0"),
        (lambda: RicianStabiliser(math.nan), "noise must be a number > 0, got nan"),
        (lambda: RicianStabiliser("1"), "noise must be a number > 0, got '1'"),  # type: ignore[arg-type]
    ],
)
def test_parameters_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        make()
    assert raised.value.hint


def test_estimated_parameters_lead_to_noise_of_deviation_1() -> None:
    random = np.random.default_rng(0)
    signal = np.indices((192, 192)).sum(axis=0) / 2 + 10.0
    counted = 2.0 * random.poisson(signal / 2) + 3 * random.standard_normal(signal.shape)
    stabilised = PoissonGaussianStabiliser(*estimate_poisson_gaussian(counted)).forward(counted)
    assert estimate_sigma(stabilised) == pytest.approx(1, rel=0.05)
    magnitude = np.hypot(signal + 20 * random.standard_normal(signal.shape), 20 * random.standard_normal(signal.shape))
    stabilised = RicianStabiliser(estimate_rician_sigma(magnitude)).forward(magnitude)
    assert estimate_sigma(stabilised) == pytest.approx(1, rel=0.05)
