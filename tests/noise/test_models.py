"""Noise models against theory, and what all of them have in common."""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.noise import (
    NOISE_MODELS,
    CorrelatedGaussianNoise,
    GaussianNoise,
    NoiseModel,
    PaperGaussianNoise,
    PaperPoissonNoise,
    PoissonGaussianNoise,
    PoissonNoise,
    RicianNoise,
    SpeckleNoise,
    VarianceGaussianNoise,
    image_seed,
    make_noise,
)

PARAMETERS: dict[str, dict[str, float]] = {
    "gaussian": {"sigma": 0.1},
    "paper_gaussian": {"p": 0.2, "mean": 0.5, "std": 2},
    "variance_gaussian": {"factor": 0.1},
    "paper_poisson": {"p": 0.2, "rate": 5},
    "poisson": {"photons": 100},
    "poisson_gaussian": {"photons": 100, "sigma": 0.05},
    "rician": {"sigma": 0.1},
    "speckle": {"sigma": 0.3},
    "correlated": {"sigma": 0.1, "fwhm": 3},
}
ALL_MODELS = [make_noise(name, **parameters) for name, parameters in PARAMETERS.items()]
LEVEL = 0.4
SIDE = 512


def of_each_model(function: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("noise", ALL_MODELS, ids=list(PARAMETERS))(function)


def assert_moments(noisy: torch.Tensor, mean: float, std: float, kurtosis: float = 3.0) -> None:
    """Mean and standard deviation within 5 standard errors of independent samples: false alarms about 1 in 10^6."""
    n = noisy.numel()
    values = noisy.double()
    assert abs(values.mean().item() - mean) < 5 * std / math.sqrt(n)
    assert abs(values.std().item() - std) < 5 * std * math.sqrt((kurtosis - 1) / (4 * n))


def test_all_models_are_tested_and_follow_the_protocol() -> None:
    assert list(PARAMETERS) == list(NOISE_MODELS)
    assert len(ALL_MODELS) == 9
    assert all(isinstance(noise, NoiseModel) for noise in ALL_MODELS)


@pytest.mark.parametrize(
    ("noise", "mean", "std", "kurtosis"),
    [
        (GaussianNoise(0.1), LEVEL, 0.1, 3),
        (PaperGaussianNoise(p=0.2, mean=0.5, std=2), LEVEL + 0.1, 0.4, 3),
        (PaperGaussianNoise(p=0.5, mean=0, std=1), LEVEL, 0.5, 3),
        (PaperPoissonNoise(p=0.2, rate=5), LEVEL + 1, 0.2 * math.sqrt(5), 3 + 1 / 5),
        (PaperPoissonNoise(p=0.2, rate=1), LEVEL + 0.2, 0.2, 4),
        (PoissonNoise(photons=100), LEVEL, math.sqrt(LEVEL / 100), 3 + 1 / 40),
        (PoissonNoise(photons=1e7), LEVEL, math.sqrt(LEVEL / 1e7), 3),
        (PoissonGaussianNoise(photons=100, sigma=0.05), LEVEL, math.sqrt(LEVEL / 100 + 0.05**2), 3.02),
        (SpeckleNoise(0.3), LEVEL, LEVEL * 0.3, 3),
        (CorrelatedGaussianNoise(sigma=0.1, fwhm=0), LEVEL, 0.1, 3),
    ],
    ids=repr,
)
def test_mean_and_standard_deviation_are_those_of_theory(
    noise: NoiseModel, mean: float, std: float, kurtosis: float
) -> None:
    assert_moments(noise.apply(torch.full((1, SIDE, SIDE), LEVEL, dtype=torch.float64), 0), mean, std, kurtosis)


def test_variance_rule_is_that_of_matlab() -> None:
    image = torch.linspace(0, 1, 7 * 9).reshape(1, 7, 9)
    variance = np.var(image.numpy().astype(np.float64), ddof=1)  # MATLAB: var(I(:))
    expected = GaussianNoise(math.sqrt(0.1 * variance)).apply(image, 3)
    assert torch.equal(VarianceGaussianNoise().apply(image, 3), expected)
    assert torch.equal(VarianceGaussianNoise().apply(torch.full((1, 1), 0.3), 3), torch.full((1, 1), 0.3))


def test_variance_rule_gives_a_tenth_of_the_images_variance() -> None:
    image = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    noise = VarianceGaussianNoise(0.1).apply(image, 0) - image
    assert_moments(noise, 0, math.sqrt(0.1 * image.double().var().item()))


def test_rician_follows_its_distribution() -> None:
    sigma = 0.1
    background = RicianNoise(sigma).apply(torch.zeros(SIDE, SIDE), 0)
    assert background.min() >= 0
    # Rayleigh: mean, standard deviation and kurtosis
    assert_moments(background, sigma * math.sqrt(math.pi / 2), sigma * math.sqrt(2 - math.pi / 2), 3.245)
    # E[y^2] = x^2 + 2 sigma^2 at every signal level, var[y^2] = 4 sigma^2 x^2 + 4 sigma^4
    squared = RicianNoise(sigma).apply(torch.full((SIDE, SIDE), LEVEL), 1).double() ** 2
    deviation = math.sqrt(4 * sigma**2 * LEVEL**2 + 4 * sigma**4)
    assert abs(squared.mean().item() - (LEVEL**2 + 2 * sigma**2)) < 5 * deviation / SIDE


def test_photons_are_counted() -> None:
    image = torch.tensor([-0.5, 0.0, 0.2, 1.0]).repeat(1000, 1)
    counts = PoissonNoise(50).apply(image, 0) * 50
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-4)
    assert counts[:, :2].abs().max() == 0
    assert counts[:, 3].min() > 0


@pytest.mark.parametrize("fwhm", [1.0, 2.5, 6.0])
def test_correlated_noise_has_its_deviation_and_autocorrelation(fwhm: float) -> None:
    sigma = 0.1
    images = torch.zeros(4, SIDE, SIDE)
    noise = CorrelatedGaussianNoise(sigma, fwhm).apply(images, 0).double()
    # A Gaussian autocorrelation of standard deviation s has a correlation area of pi s^2 * 2, at least one pixel.
    kernel_std = fwhm / (2 * math.sqrt(2 * math.log(2)))
    independent = noise.numel() / max(1.0, 4 * math.pi * kernel_std**2)
    assert abs(noise.mean().item()) < 5 * sigma / math.sqrt(independent)
    assert abs(noise.std().item() / sigma - 1) < 5 / math.sqrt(2 * independent)
    for distance in range(1, math.ceil(2 * fwhm)):
        taps = torch.arange(-40, 41, dtype=torch.float64)
        kernel = torch.exp(-(taps**2) / (2 * kernel_std**2))
        expected = ((kernel[distance:] * kernel[:-distance]).sum() / kernel.square().sum()).item()
        along_rows = (noise[..., distance:] * noise[..., :-distance]).mean().item() / sigma**2
        along_columns = (noise[..., distance:, :] * noise[..., :-distance, :]).mean().item() / sigma**2
        assert along_rows == pytest.approx(expected, abs=5 * math.sqrt(2 / independent))
        assert along_columns == pytest.approx(expected, abs=5 * math.sqrt(2 / independent))
        if fwhm >= 2.5:  # the closed form of the docstring, once the kernel is well sampled
            assert expected == pytest.approx(math.exp(-2 * math.log(2) * (distance / fwhm) ** 2), abs=1e-3)


def test_correlated_noise_leaves_opposite_borders_and_channels_independent() -> None:
    noise = CorrelatedGaussianNoise(1.0, 6.0).apply(torch.zeros(400, 48, 48), 0)
    neighbours = (noise[..., 0] * noise[..., 1]).mean().item()
    borders = (noise[..., 0] * noise[..., -1]).mean().item()
    channels = (noise[1:] * noise[:-1]).mean().item()
    assert neighbours > 0.9
    assert abs(borders) < 0.06  # 400 * 48 / 6 independent products: standard error about 0.02
    assert abs(channels) < 0.06


def test_elongated_noise_is_wider_along_the_columns() -> None:
    noise = CorrelatedGaussianNoise(1.0, 3.0, elongation=2.25).apply(torch.zeros(400, 64, 64), 0)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    for axis, fwhm in ((-2, 4.5), (-1, 2.0)):  # 3 * 1.5 and 3 / 1.5
        first, second = noise.narrow(axis, 0, 62), noise.narrow(axis, 2, 62)
        expected = math.exp(-2 * math.log(2) * (2 / fwhm) ** 2)
        assert (first * second).mean().item() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("fwhm", "ramp", "elongation"), [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (2.0, 0.5, 1.5)])
def test_ramp_noise_has_its_deviation_and_spectrum(fwhm: float, ramp: float, elongation: float) -> None:
    noise = CorrelatedGaussianNoise(0.2, fwhm, elongation=elongation, ramp=ramp).apply(torch.zeros(800, 64, 64), 0)
    assert noise.std().item() == pytest.approx(0.2, rel=0.01)
    assert noise.std(0).std().item() < 0.02  # the same at every pixel
    white = CorrelatedGaussianNoise(0.2, fwhm, elongation=elongation).apply(torch.zeros(800, 64, 64), 1)
    power, plain = (
        torch.fft.fft2(n * torch.outer(*[torch.hann_window(64)] * 2)).abs().square().mean(0) for n in (noise, white)
    )
    ratio = power / plain
    frequencies = [2, 4, 8, 12]
    slope = np.polyfit(np.log(frequencies), np.log([ratio[0, f].item() for f in frequencies]), 1)[0]
    assert slope == pytest.approx(ramp, abs=0.12)
    assert ratio[5, 5] == pytest.approx(ratio[0, 7].item(), rel=0.15)  # the frequency's length, whatever its direction


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 8, 50)])
def test_correlated_noise_wider_than_the_image_keeps_its_deviation(shape: tuple[int, ...]) -> None:
    noise = torch.stack([CorrelatedGaussianNoise(0.1, 20.0).apply(torch.zeros(shape), seed) for seed in range(2000)])
    values = noise[:, *(0,) * len(shape)]  # one pixel: pixels of one draw are nearly copies of each other
    assert_moments(values, 0, 0.1)


def test_correlated_noise_needs_two_axes() -> None:
    with pytest.raises(InputError, match=r"at least two axes, got shape \(5,\)"):
        CorrelatedGaussianNoise(0.1, 2.0).apply(torch.zeros(5), 0)


@of_each_model
def test_same_seed_same_noise_whatever_happened_before(noise: NoiseModel) -> None:
    image = torch.rand(1, 17, 23, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = noise.apply(image, 5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    noise.apply(image[..., :4], 9)
    assert torch.equal(first, noise.apply(image, 5))
    assert not torch.equal(first, noise.apply(image, 6))
    assert torch.equal(before, torch.get_rng_state())


@of_each_model
def test_noise_depends_on_values_and_not_on_memory_layout(noise: NoiseModel) -> None:
    image = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    last = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(noise.apply(image, 1), noise.apply(last, 1))
    assert torch.equal(
        noise.apply(image[:, :1].expand(2, 3, 12, 10), 1), noise.apply(image[:, :1].repeat(1, 3, 1, 1), 1)
    )


@of_each_model
def test_clip(noise: NoiseModel) -> None:
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    parameters = {name: getattr(noise, name) for name in noise.__dataclass_fields__}  # type: ignore[attr-defined]
    loud = {name: 10.0 if name in ("sigma", "factor", "std", "rate") else value for name, value in parameters.items()}
    if "photons" in loud:
        loud["photons"] = 1.0
    free = type(noise)(**loud).apply(image, 0)
    clipped = type(noise)(**{**loud, "clip": True}).apply(image, 0)
    assert free.max() > 1
    assert torch.equal(clipped, free.clamp(0, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@of_each_model
def test_same_noise_on_every_device(noise: NoiseModel) -> None:
    image = torch.rand(1, 33, 47)
    on_gpu = noise.apply(image.cuda(), 5)
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.cpu(), noise.apply(image, 5))
    assert image_seed(image.cuda(), 1) == image_seed(image, 1)


@of_each_model
def test_float64_image_gets_the_same_noise(noise: NoiseModel) -> None:
    image = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise.apply(image.double(), 5).float(), noise.apply(image, 5), rtol=0, atol=2e-6)


@of_each_model
def test_result_does_not_depend_on_the_number_of_threads(noise: NoiseModel) -> None:
    image = torch.rand(1, 300, 300, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = noise.apply(image, 5)
        torch.set_num_threads(2)
        assert torch.equal(one, noise.apply(image, 5))
    finally:
        torch.set_num_threads(threads)


shapes = st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])
seeds = st.integers(0, 2**63 - 1)


@settings(deadline=None, max_examples=60)
@given(noise=st.sampled_from(ALL_MODELS), shape=shapes, dtype=dtypes, seed=seeds)
def test_shape_and_type_are_kept_and_the_input_is_unmodified(
    noise: NoiseModel, shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = image.clone()
    noisy = noise.apply(image, seed)
    assert (noisy.shape, noisy.dtype, noisy.device) == (image.shape, image.dtype, image.device)
    assert torch.equal(image, before)
    assert noisy.data_ptr() != image.data_ptr()
    assert torch.equal(noisy, noise.apply(image, seed))
    assert torch.isfinite(noisy).all()


@settings(deadline=None, max_examples=40)
@given(
    noise=st.sampled_from(
        [
            GaussianNoise(0),
            SpeckleNoise(0),
            CorrelatedGaussianNoise(0, 2),
            PaperGaussianNoise(0, 1, 1),
            PaperPoissonNoise(0, 3),
            VarianceGaussianNoise(0),
        ]
    ),
    shape=shapes,
    dtype=dtypes,
    seed=seeds,
)
def test_no_noise_is_the_identity(noise: NoiseModel, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert torch.equal(noise.apply(image, seed), image)


@settings(deadline=None, max_examples=40)
@given(shape=shapes, seed=st.integers(0, 2**32 - 2), sigma=st.floats(0, 2), factor=st.floats(0.1, 3))
def test_gaussian_noise_is_linear_in_sigma(shape: tuple[int, ...], seed: int, sigma: float, factor: float) -> None:
    zeros = torch.zeros(shape, dtype=torch.float64)
    expected = factor * GaussianNoise(sigma).apply(zeros, seed)
    torch.testing.assert_close(GaussianNoise(sigma * factor).apply(zeros, seed), expected, rtol=1e-6, atol=1e-9)


@of_each_model
def test_metadata_of_a_metatensor_is_kept(noise: NoiseModel) -> None:
    image = MetaTensor(torch.rand(1, 8, 8), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])), meta={"modality": "MR"})
    noisy = noise.apply(image, 0)
    assert isinstance(noisy, MetaTensor)
    assert noisy.meta["modality"] == "MR"
    assert torch.equal(noisy.affine, image.affine)
    assert torch.equal(noisy.as_tensor(), noise.apply(image.as_tensor(), 0))


def test_gradients_do_not_reach_into_the_noise() -> None:
    image = torch.rand(1, 4, 4, requires_grad=True)
    assert not GaussianNoise(0.1).apply(image, 0).requires_grad


def test_empty_image_stays_empty() -> None:
    assert PoissonNoise(5).apply(torch.zeros(1, 0, 4), 0).shape == (1, 0, 4)


def test_integer_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"GaussianNoise needs a floating point image, got torch\.uint8"):
        GaussianNoise(0.1).apply(torch.zeros(3, 3, dtype=torch.uint8), 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_photon_noise_refuses_what_torch_cannot_count(value: float) -> None:
    for noise in (PoissonNoise(100), PoissonGaussianNoise(100, 0.1)):
        with pytest.raises(InputError, match="finite image values"):
            noise.apply(torch.tensor([[0.5, value]]), 0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("gaussian", {"sigma": -0.1}, r"GaussianNoise: sigma must be a finite number >= 0, got -0\.1"),
        ("gaussian", {"sigma": math.nan}, "sigma must be a finite number >= 0, got nan"),
        ("gaussian", {"sigma": "0.1"}, "sigma must be a finite number >= 0, got '0.1'"),
        ("gaussian", {"sigma": True}, "sigma must be a finite number >= 0, got True"),
        ("gaussian", {"sigma": None}, "sigma must be a finite number >= 0, got None"),
        ("gaussian", {"sigma": 0.1, "clip": 1}, "GaussianNoise: clip must be true or false, got 1"),
        (
            "paper_gaussian",
            {"p": -1, "mean": 0, "std": 1},
            "PaperGaussianNoise: p must be a finite number >= 0, got -1",
        ),
        ("paper_gaussian", {"p": 1, "mean": math.inf, "std": 1}, "mean must be a finite number, got inf"),
        ("paper_gaussian", {"p": 1, "mean": 0, "std": -2}, "std must be a finite number >= 0, got -2"),
        ("variance_gaussian", {"factor": -1}, "factor must be a finite number >= 0, got -1"),
        ("paper_poisson", {"p": 0.1, "rate": 0}, "rate must be a number > 0 and at most 1e12, got 0"),
        ("poisson", {"photons": 0}, "photons must be a number > 0 and at most 1e12, got 0"),
        ("poisson", {"photons": 1e13}, "photons must be a number > 0 and at most 1e12"),
        ("correlated", {"sigma": 0.1, "fwhm": -1}, "fwhm must be a finite number >= 0, got -1"),
        ("correlated", {"sigma": 0.1, "fwhm": 1, "elongation": 0}, "elongation must be a number > 0"),
        ("correlated", {"sigma": 0.1, "fwhm": 1, "ramp": -1}, "ramp must be a finite number >= 0, got -1"),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        make_noise(name, **parameters)
    assert raised.value.hint


def test_unknown_names_and_missing_parameters_are_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="unknown noise model 'gausian'") as raised:
        make_noise("gausian", sigma=0.1)
    assert raised.value.hint == "did you mean 'gaussian'?"
    with pytest.raises(UsageError, match="'gaussian' has no parameter 'sgima'") as raised:
        make_noise("gaussian", sgima=0.1)
    assert raised.value.hint == "did you mean 'sigma'?"
    with pytest.raises(UsageError, match="'poisson_gaussian' needs photons and sigma") as raised:
        make_noise("poisson_gaussian")
    assert "expected count" in raised.value.hint


def test_the_hint_on_sigma_fits_configurations_and_the_command_line() -> None:
    for parameters in ({}, {"sigma": -1}):
        with pytest.raises(UsageError) as raised:
            make_noise("gaussian", **parameters)
        assert re.search(r"\[0, 1\] scale.*`corrupt` in image units", raised.value.hint)


def test_parameters_become_plain_numbers() -> None:
    noise = GaussianNoise(np.float64(0.1))
    assert type(noise.sigma) is float
    assert noise == GaussianNoise(0.1)
    assert hash(noise) == hash(GaussianNoise(0.1))
    assert noise.apply(torch.zeros(2, 2), 0).dtype == torch.float32
    with pytest.raises(AttributeError):
        noise.sigma = 0.2  # type: ignore[misc]


def test_models_survive_pickling() -> None:
    assert pickle.loads(pickle.dumps(ALL_MODELS)) == ALL_MODELS


def test_image_seed_is_a_function_of_content_and_seed() -> None:
    image = torch.arange(12, dtype=torch.float32).reshape(1, 3, 4)
    # Spelt out and pinned, so that benchmarks stay repeatable.
    digest = hashlib.blake2b(b"7 (1, 3, 4)" + struct.pack("<12f", *range(12)), digest_size=8).digest()
    assert image_seed(image, 7) == struct.unpack("<Q", digest)[0] // 2 == 2813480384244860463
    assert image_seed(MetaTensor(image.clone()), 7) == image_seed(image, 7) == image_seed(image.double(), 7)
    assert image_seed(image.mT.contiguous().mT, 7) == image_seed(image, 7)
    others = {image_seed(image, 7), image_seed(image, 8), image_seed(image, -7), image_seed(image + 1e-6, 7)}
    others |= {image_seed(image.reshape(1, 4, 3), 7), image_seed(image.flip(-1), 7)}
    assert len(others) == 6


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20), seed=st.integers())
def test_image_seed_fits_63_bits(values: list[float], seed: int) -> None:
    assert 0 <= image_seed(torch.tensor(values), seed) < 2**63
