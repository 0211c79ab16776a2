"""Kinds of noise: what is chosen for an image, and that it helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.inference import Denoiser
from meddenoise_monai.inferers import TiledInferer
from meddenoise_monai.noise import PoissonGaussianStabiliser, RicianStabiliser
from meddenoise_monai.treatments import Treatment, choose_treatment, join_phases, split_phases

Image = NDArray[np.float64]


class _Gauss(nn.Module):
    """A denoiser for white noise: a Gaussian of 1.5 pixels."""

    def __init__(self, width: float = 1.5) -> None:
        super().__init__()
        self.radius = round(4 * width)
        line = torch.exp(-(torch.arange(-self.radius, self.radius + 1) ** 2) / (2 * width**2))
        self.weight = nn.Parameter((line[:, None] * line / line.sum() ** 2)[None, None])

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(image, (self.radius,) * 4, mode="reflect"), self.weight)


def denoiser() -> Denoiser:
    return Denoiser(_Gauss(), TiledInferer(precision="fp32"))


def partnered() -> Denoiser:
    """With a network for correlated noise: a Gaussian of 4 pixels."""
    return Denoiser(_Gauss(), TiledInferer(precision="fp32"), correlated=_Gauss(4.0))


def smooth(size: int = 192) -> Image:
    """Waves of 256 pixels, on 20..220: nothing that the denoiser above would harm."""
    rows, columns = np.indices((size, size)) * (2 * np.pi / 256)
    return np.asarray(120 + 50 * np.sin(rows) + 50 * np.sin(columns))


def white(sigma: float, size: int = 192, seed: int = 0) -> Image:
    return np.random.default_rng(seed).normal(0, sigma, (size, size))


def correlated(sigma: float, widths: tuple[float, float] = (1.0, 1.0), size: int = 192) -> Image:
    noise = ndimage.gaussian_filter(white(1, size), widths)
    return np.asarray(noise * (sigma / noise.std()))


def error(result: NDArray[Any], clean: Image) -> float:
    return float(np.sqrt(np.mean((result - clean) ** 2)))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (4, 2), (4, 4)]),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
)
def test_phases_join_to_the_image(steps: tuple[int, int], sizes: tuple[int, int, int]) -> None:
    batch, height, width = sizes
    image = torch.rand(batch, 1, height * steps[0], width * steps[1])
    phases = split_phases(image, steps)
    assert phases.shape == (batch * steps[0] * steps[1], 1, height, width)
    assert torch.equal(phases[0, 0], image[0, 0, :: steps[0], :: steps[1]])
    assert torch.equal(join_phases(phases, steps), image)


def test_white_noise_is_left_to_the_network() -> None:
    assert choose_treatment(smooth() + white(10)) == Treatment()
    assert choose_treatment(smooth() + white(10), sigma=10.0) == Treatment()


def test_images_without_noise_are_left_to_the_network() -> None:
    import skimage.data

    for image in (smooth(), skimage.data.camera(), skimage.data.moon(), np.eye(64)):
        assert choose_treatment(image) == Treatment()


@pytest.mark.parametrize(
    ("widths", "steps"),
    [((0.5, 0.5), (2, 2)), ((0.8, 0.8), (4, 4)), ((1.5, 1.5), (8, 8)), ((1.0, 0.0), (4, 1))],
)
def test_correlated_noise_is_named_and_treated(widths: tuple[float, float], steps: tuple[int, int]) -> None:
    noise = correlated(20, widths)
    treatment = choose_treatment(smooth() + noise)
    assert treatment.steps == steps
    for axis, word in ((0, "vertically"), (1, "horizontally")):
        real = np.mean(noise * np.roll(noise, 1, axis)) / noise.var()
        named = float(treatment.warning.split(f" {word}")[0].split()[-1])
        assert named == pytest.approx(real, abs=0.25 if widths == (0.5, 0.5) else 0.12)


@pytest.mark.parametrize("factor", [1.5, 2])
def test_up_sampled_images_are_recognised(factor: float) -> None:
    clean = smooth(128)
    noisy = ndimage.zoom(clean + white(12, 128), factor, order=1)
    steps = choose_treatment(noisy).steps
    assert min(steps) > 1
    assert choose_treatment(ndimage.zoom(clean, factor, order=1)) == Treatment()


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1e-3, 1e4), offset=st.floats(-1e4, 1e4), axis=st.sampled_from([None, 0, 1]))
def test_units_do_not_matter(factor: float, offset: float, axis: int | None) -> None:
    widths = [1.0, 1.0]
    if axis is not None:
        widths[axis] = 0.0
    noisy = smooth(96) + ndimage.gaussian_filter(white(40, 96), widths)
    assert choose_treatment(noisy * factor + offset) == choose_treatment(noisy)


def test_correlated_noise_is_removed_better_at_steps(caplog: pytest.LogCaptureFixture) -> None:
    clean = smooth()
    noisy = clean + correlated(15)
    left = error(denoiser()(noisy, noise="gaussian"), clean)
    assert error(denoiser()(noisy), clean) < 0.7 * left
    assert "correlated" in caplog.text
    caplog.clear()
    assert error(denoiser()(noisy, noise="correlated"), clean) < 0.7 * left
    assert not caplog.records  # who asks for it need not be warned


def test_partner_removes_correlated_noise(caplog: pytest.LogCaptureFixture) -> None:
    clean = smooth(256)
    noise = correlated(15, size=256)
    noisy = clean + noise
    denoise = partnered()
    assert error(denoise(noisy), clean) < 0.6 * error(denoise(noisy, noise="gaussian"), clean)
    (message,) = caplog.messages
    real = np.mean(noise * np.roll(noise, 1, 0)) / noise.var()
    assert float(message.split(" vertically")[0].split()[-1]) == pytest.approx(real, abs=0.05)
    assert "removed as such" in message
    caplog.clear()
    assert np.array_equal(denoise(noisy, noise="correlated"), denoise(noisy, noise=denoise.treatment(noisy)))
    assert denoise.treatment(noisy, "correlated").warning == ""


def test_partner_leaves_what_may_be_texture(caplog: pytest.LogCaptureFixture) -> None:
    image = smooth(256)
    image[:128] += correlated(10, size=256)[:128]
    denoise = partnered()
    assert np.array_equal(denoise(image), denoise(image, noise="gaussian"))
    assert "it was left in: choose noise correlated" in caplog.text
    assert denoise.treatment(image, "correlated").correlated


def test_partner_is_not_asked_of_other_noise() -> None:
    for kind in ("gaussian", "poisson", "rician"):
        assert not partnered().treatment(smooth() + correlated(5), kind).correlated
    assert partnered().treatment(smooth() + white(10)) == Treatment()


@pytest.mark.parametrize("shape", [(61, 47), (3, 61, 47)])
def test_steps_take_any_shape(shape: tuple[int, ...]) -> None:
    noisy = np.random.default_rng(0).normal(100, 10, shape)
    noisy = ndimage.gaussian_filter(noisy, [0] * (len(shape) - 2) + [1, 1])
    assert denoiser()(noisy, noise="correlated").shape == shape
    assert choose_treatment(noisy, "correlated").steps == (4, 4)


def test_photon_counting_is_undone_without_bias() -> None:
    clean = smooth() / 4
    noisy = np.random.default_rng(0).poisson(clean / 2.0) * 2.0
    for noise in ("poisson", PoissonGaussianStabiliser(2.0)):
        result = denoiser()(noisy, noise=noise)
        assert abs(result.mean() - clean.mean()) < 0.1
        assert error(result, clean) < 0.25 * error(noisy, clean)


def test_rician_noise_is_undone_without_bias() -> None:
    clean = np.where(np.arange(192) < 96, 0.0, smooth())
    random = np.random.default_rng(0).normal(0, 12, (2, 192, 192))
    noisy = np.hypot(clean + random[0], random[1])
    inside = np.s_[:, :80]  # of the background, whose mean the noise lifts to 15
    assert noisy[inside].mean() > 14
    for options in ({"noise": "rician"}, {"noise": "rician", "sigma": 12.0}, {"noise": RicianStabiliser(12.0)}):
        result = denoiser()(noisy, **options)  # type: ignore[arg-type]
        assert result[inside].mean() < 6
        assert abs(result[:, 110:].mean() - clean[:, 110:].mean()) < 1


def test_strength_is_a_share_also_behind_a_stabiliser() -> None:
    noisy = np.random.default_rng(0).poisson(smooth()).astype(np.float32)
    full = denoiser()(noisy, noise="poisson")
    half = denoiser()(noisy, noise="poisson", strength=0.5)
    assert np.allclose(half, (noisy + full) / 2, atol=1e-3)
    assert np.array_equal(denoiser()(noisy, noise="poisson", strength=0), noisy)


def test_images_without_noise_need_no_stabiliser() -> None:
    blocks = np.kron(np.eye(4), np.ones((32, 32)))
    assert choose_treatment(blocks, "poisson") == Treatment()
    assert choose_treatment(blocks, "rician") == Treatment()
    assert choose_treatment(blocks, "correlated").steps == (1, 1)


def test_too_small_to_tell() -> None:
    small = np.arange(20.0).reshape(4, 5)
    assert choose_treatment(small) == Treatment()
    with pytest.raises(InputError, match="cannot estimate"):
        choose_treatment(small, "correlated")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "gauss"}, "unknown noise 'gauss'"),
        ({"noise": 5}, "unknown noise 5"),
        ({"noise": "poisson", "sigma": 2.0}, "no meaning"),
        ({"noise": RicianStabiliser(2.0), "sigma": 2.0}, "beside a stabiliser"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        denoiser()(smooth(), **options)


@pytest.mark.parametrize(
    "noise",
    [
        "poisson",
        PoissonGaussianStabiliser(1.0),
        PoissonGaussianStabiliser(1.0, 25.0),
        PoissonGaussianStabiliser(300.0),
        PoissonGaussianStabiliser(1e-8, 1.0),
        PoissonGaussianStabiliser(1.0, 1e9),
        RicianStabiliser(5.0),
        RicianStabiliser(3000.0),
        RicianStabiliser(1e-12),
    ],
)
def test_noise_that_the_image_cannot_carry_is_refused(noise: Any) -> None:
    image = smooth() + white(5)
    if not isinstance(noise, str) and 1e-6 < getattr(noise, "gain", getattr(noise, "noise", 0)) < 200:
        image = image - 300  # HU, say: neither counts nor magnitudes
    elif noise == "poisson":
        image = smooth() - 300 + white(1) * np.sqrt(np.abs(smooth()))
    with pytest.raises(InputError) as caught:
        choose_treatment(image, noise)
    assert "far below" in caught.value.message or "is not that of an image" in caught.value.message


def test_read_out_noise_far_beyond_the_counts_is_no_reason_to_fail() -> None:
    image = np.asarray(smooth() + 30000 + white(50))  # a pedestal: the line through the levels is nearly flat
    treatment = choose_treatment(image, "poisson")
    assert error(denoiser()(image, noise=treatment), smooth() + 30000) < 25


@pytest.mark.parametrize("read_out", [1e5, 9e5, 1.1e6, 1e9, 1e12])
def test_inverse_has_no_step_where_the_table_ends_to_be_needed(read_out: float) -> None:
    stabiliser = PoissonGaussianStabiliser(1.0, read_out)
    signal = np.linspace(0, 1000, 50) + np.sqrt(read_out)
    mean = stabiliser.forward(signal[:, None] + np.sqrt(read_out) * np.random.default_rng(0).normal(size=(1, 200_000)))
    found = stabiliser.inverse(mean.mean(1))
    assert np.abs(found - signal).max() < 0.02 * np.sqrt(read_out)


@pytest.mark.parametrize("noise", ["poisson", "rician", "auto"])
@pytest.mark.parametrize("size", [0.0, 1e-13])
def test_next_to_no_noise_is_no_reason_to_fail(noise: str, size: float) -> None:
    result = denoiser()(np.asarray(smooth() + white(size)), noise=noise)
    assert error(result, smooth()) < 1
