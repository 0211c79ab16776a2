from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import SSIMMetric
from torch import Tensor

from meddenoise_monai.losses import L1SSIMLoss, LogL1Loss, LogL2Loss, batch_ssim
from meddenoise_monai.metrics import ssim


def pair(*shape: int, seed: int = 0, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(shape, generator=generator)
    return clean, clean + noise * torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 1, 11, 11), (2, 1, 64, 37), (2, 3, 24, 20), (2, 1, 12, 11, 15)])
@pytest.mark.parametrize("data_range", [1.0, 2.5])
def test_ssim_equals_monais(shape: tuple[int, ...], data_range: float) -> None:
    first, second = pair(*shape)
    theirs = SSIMMetric(spatial_dims=len(shape) - 2, data_range=data_range)(first, second).mean(1)
    ours = batch_ssim(first, second, data_range)
    assert ours.shape == (shape[0],)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert ours.max() < 0.999


@settings(max_examples=20, deadline=None)
@given(height=st.integers(11, 40), width=st.integers(11, 40), seed=st.integers(0, 99), noise=st.floats(0.01, 1))
def test_ssim_equals_the_metric_of_the_tables(height: int, width: int, seed: int, noise: float) -> None:
    first, second = pair(1, 1, height, width, seed=seed, noise=noise)
    assert float(batch_ssim(first, second)) == pytest.approx(
        ssim(first[0, 0].numpy(), second[0, 0].numpy(), data_range=1.0), abs=2e-5
    )


def test_ssim_of_each_image_is_its_own() -> None:
    first, second = pair(4, 1, 20, 20)
    together = batch_ssim(first, second)
    alone = torch.cat([batch_ssim(first[i : i + 1], second[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert len(set(together.tolist())) == 4


def test_identical_images_have_ssim_one() -> None:
    first, _ = pair(2, 1, 16, 16)
    assert torch.allclose(batch_ssim(first, first), torch.ones(2), atol=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    first, second = (image.bfloat16() for image in pair(2, 1, 16, 16))
    assert batch_ssim(first, second).dtype == torch.float32
    assert torch.equal(batch_ssim(first, second), batch_ssim(first.float(), second.float()))


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_gradient_equals_the_finite_difference(weight: float) -> None:
    target, noisy = pair(2, 1, 14, 13, seed=3)
    prediction = noisy + 0.05 * (noisy - target).sign()  # away from the kink of the absolute value
    prediction.requires_grad_()
    loss = L1SSIMLoss(weight)
    loss(prediction, target).backward()
    direction = torch.randn(prediction.shape, generator=torch.Generator().manual_seed(4))
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (loss(prediction + sign * step * direction, target) for sign in (1, -1))
    assert prediction.grad is not None
    assert float((prediction.grad * direction).sum()) == pytest.approx(float((ahead - behind) / (2 * step)), rel=0.02)


def test_weight_zero_is_l1() -> None:
    target, prediction = pair(2, 1, 16, 16)
    assert float(L1SSIMLoss(0.0)(prediction, target)) == float(torch.nn.functional.l1_loss(prediction, target))


def test_loss_is_the_weighted_sum() -> None:
    target, prediction = pair(2, 1, 16, 16)
    expected = (prediction - target).abs().mean() + 0.3 * (1 - batch_ssim(prediction, target, 2.0).mean())
    assert float(L1SSIMLoss(0.3, data_range=2.0)(prediction, target)) == pytest.approx(float(expected))
    assert float(L1SSIMLoss()(target, target)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shapes", [((1, 1, 10, 20), (1, 1, 10, 20)), ((1, 1, 20, 20), (2, 1, 20, 20))])
def test_images_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="11 pixels"):
        batch_ssim(torch.rand(shapes[0]), torch.rand(shapes[1]))


LOGARITHMS = [LogL1Loss, LogL2Loss]


@pytest.mark.parametrize("kind", LOGARITHMS)
@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.1, 0.9), factor=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_a_per_cent_less_error_counts_the_same_in_every_image(
    kind: type[LogL1Loss | LogL2Loss], share: float, factor: float, seed: int
) -> None:
    clean, noisy = pair(2, 1, 16, 16, seed=seed)
    noise = (noisy - clean) * torch.tensor([1.0, factor])[:, None, None, None]
    loss = kind(floor=1e-9)
    whole = loss(clean + noise, clean)
    for image in range(2):
        less = noise.clone()
        less[image] *= share
        assert float(whole - loss(clean + less, clean)) == pytest.approx(-math.log(share) / 2, rel=1e-3)


@pytest.mark.parametrize("kind", LOGARITHMS)
def test_logarithms_are_finite_without_error_and_give_gradients(kind: type[LogL1Loss | LogL2Loss]) -> None:
    clean, noisy = pair(2, 1, 16, 16)
    noisy.requires_grad_()
    loss = kind()
    assert float(loss(clean, clean)) == pytest.approx(math.log(0.002))
    loss(noisy, clean).backward()
    assert noisy.grad is not None
    assert float(noisy.grad.abs().min()) > 0
    assert kind()(noisy.bfloat16(), clean).dtype == torch.float32


def test_log_l2_is_psnr_in_another_unit() -> None:
    """Without its floor it is PSNR, but for a factor: 10 dB more are ln(10) / 2 less."""
    clean, noisy = pair(1, 1, 16, 16)
    psnr = -10 * math.log10(float((noisy - clean).square().mean()))
    assert float(LogL2Loss(floor=1e-9)(noisy, clean)) == pytest.approx(-psnr * math.log(10) / 20, rel=1e-5)


@pytest.mark.parametrize("kind", LOGARITHMS)
@pytest.mark.parametrize("floor", [0.0, -1.0, float("nan")])
def test_logarithms_need_a_positive_floor(kind: type[LogL1Loss | LogL2Loss], floor: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        kind(floor)
