from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional as F

from meddenoise_monai.errors import UsageError
from meddenoise_monai.inferers import AutocastInferer, TiledInferer, automatic_precision
from meddenoise_monai.networks import ResidualDenoisingAutoencoder
from tests.small_networks import HALO, NETWORK, exact, trained, whole_numbers

CPU = torch.device("cpu")

EXACT = exact()


def whole(network: nn.Module, image: Tensor, align: int) -> Tensor:
    """The network's answer to the whole image, padded to a multiple of `align` as the inferer pads it."""
    pads = [p for size in reversed(image.shape[2:]) for p in (0, -size % align)]
    with torch.inference_mode():
        mirrors = all(-size % align < size for size in image.shape[2:])
        padded = F.pad(image, pads, mode="reflect" if mirrors else "replicate")
        output = AutocastInferer("fp32")(padded, network)
    if torch.equal(image, image.round()):
        assert torch.equal(output, output.round())
        assert 0 < output.abs().max() < 2**24
        assert not torch.equal(output, padded) or image.amin() == image.amax()
    return output[(..., *(slice(size) for size in image.shape[2:]))]


def tiled(network: nn.Module, image: Tensor, **options: Any) -> Tensor:
    with torch.inference_mode():
        return TiledInferer(**{"halo": HALO, "align": 8, "tile": 32, "precision": "fp32", **options})(image, network)


def receptive_radius(network: ResidualDenoisingAutoencoder, size: int) -> int:
    """How far the farthest input pixel lies that has an influence on some output pixel, over a period of pixels."""
    for weight in network.parameters():
        nn.init.constant_(weight, 0.2)  # all paths stay open, none cancels another
    side = network.head.weight.shape[-1]
    middle = slice((side - 1) // 2, side // 2 + 1)
    kernel = network.head.weight.data
    kernel[..., middle, middle] = 0
    kernel[..., middle, middle] = -kernel[0].sum() / kernel[0, 0, middle, middle].numel()  # a bowl becomes constant
    bowl = 1e-4 * (torch.arange(8)[:, None] ** 2 + torch.arange(-size // 2, size // 2) ** 2).float()
    radius = 0
    for pixel in range(size // 2, size // 2 + 8):
        image = bowl[None, None].clone().requires_grad_()
        network(image)[0, 0, 4, pixel].backward()
        assert image.grad is not None
        reached = image.grad[0, 0].abs().sum(0).nonzero()
        radius = max(radius, pixel - int(reached.min()), int(reached.max()) - pixel)
        assert reached.min() > 0
        assert reached.max() < size - 1
    return radius


# ------------------------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("shape", [(1, 1, 96, 80), (2, 1, 65, 131), (1, 1, 7, 200), (3, 1, 49, 50), (1, 1, 1, 1)])
@pytest.mark.parametrize(("tile", "batch_size"), [(16, 3), (32, 1), (64, 4)])
def test_tiles_equal_the_whole_image(shape: tuple[int, ...], tile: int, batch_size: int) -> None:
    image = whole_numbers(*shape)
    result = tiled(EXACT, image, tile=tile, batch_size=batch_size)
    assert result.shape == image.shape
    assert float((result - whole(EXACT, image, 8)).abs().max()) == 0.0


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60))
def test_tiles_of_any_size_equal_the_whole_image(height: int, width: int) -> None:
    image = whole_numbers(1, 1, height, width)
    assert torch.equal(tiled(EXACT, image, tile=24), whole(EXACT, image, 8))


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 60), tile=st.integers(1, 9), halo=st.integers(0, 9))
def test_cores_cover_an_axis_once(length: int, tile: int, halo: int) -> None:
    spans = TiledInferer(tile * 8, halo * 8, align=8).spans(length * 8)
    assert [pixel for _, _, first, last in spans for pixel in range(first, last)] == list(range(length * 8))
    for start, end, first, last in spans:
        assert start % 8 == end % 8 == 0
        assert start == max(0, first - halo * 8) or start == 0
        assert end == min(length * 8, last + halo * 8) or end == length * 8


def test_tiles_equal_the_whole_image_with_the_default_network_and_settings() -> None:
    image = torch.rand(1, 1, 40, 700)
    network = trained(widths=(48, 64, 128), blocks=2, stride=2)
    assert len(TiledInferer().spans(1216)) == 2
    with torch.inference_mode():
        result = TiledInferer(precision="fp32")(image, network)
    # Up to the order of sums, which a convolution may choose by the size; with oneDNN on AVX-512 it is 0.0.
    assert float((result - whole(network, image, 32)).abs().max()) <= 1e-6


def test_default_halo_covers_the_default_network() -> None:
    radius = receptive_radius(ResidualDenoisingAutoencoder(widths=(1, 1, 1)), 256)
    assert radius == 91  # as the docstring says
    assert TiledInferer().halo >= radius


def test_too_small_a_halo_shows() -> None:
    image = whole_numbers(1, 1, 96, 96)
    assert receptive_radius(trained(widths=(1, 1), blocks=1), 64) <= HALO
    assert not torch.equal(tiled(EXACT, image, halo=0), whole(EXACT, image, 8))
    assert not torch.equal(tiled(EXACT, image, halo=8), whole(EXACT, image, 8))


def test_volumes_are_denoised_slice_by_slice() -> None:
    volume = whole_numbers(2, 1, 5, 40, 50)
    result = tiled(EXACT, volume, batch_size=3)
    assert result.shape == volume.shape
    for case in range(2):
        for index in range(5):
            expected = whole(EXACT, volume[case : case + 1, :, index], 8)
            assert torch.equal(result[case : case + 1, :, index], expected)


def test_three_dimensional_network_sees_the_whole_volume() -> None:
    network = exact(spatial_dims=3)
    volume = whole_numbers(1, 1, 9, 34, 57)
    for tile in (16, 64):
        assert torch.equal(tiled(network, volume, spatial_dims=3, tile=tile), whole(network, volume, 8))


def test_neighbours_in_the_batch_do_not_matter() -> None:
    images = whole_numbers(4, 1, 50, 70)
    for batch_size in (1, 4):
        together = tiled(EXACT, images, batch_size=batch_size)
        alone = torch.cat([tiled(EXACT, image[None], batch_size=batch_size) for image in images])
        assert torch.equal(together, alone)


def test_networks_that_need_a_multiple_get_it() -> None:
    torch.manual_seed(0)
    unet = UNet(spatial_dims=2, in_channels=1, out_channels=1, channels=(4, 8, 16), strides=(2, 2), norm=None).eval()
    image = torch.rand(1, 1, 61, 90)
    with pytest.raises(RuntimeError):
        unet(image)
    assert torch.allclose(tiled(unet, image, tile=64, halo=64), whole(unet, image, 8), atol=1e-6)


def test_other_numbers_of_channels_pass() -> None:
    network = trained(in_channels=3, out_channels=2)
    assert tiled(network, torch.rand(2, 3, 50, 60)).shape == (2, 2, 50, 60)


@pytest.mark.parametrize("options", [{"tile": 0}, {"tile": 100}, {"halo": 20}, {"tile": -32}, {"halo": -32}])
def test_tiles_off_the_grid_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} must be a multiple of 32"):
        TiledInferer(**options)


def test_no_tiles_per_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        TiledInferer(batch_size=0)


def test_inputs_of_wrong_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        TiledInferer()(torch.rand(1, 8, 8), NETWORK)


# -------------------------------------------------------------------------------------------------------- precision


class _Spy(nn.Module):
    """Answers its input through a convolution, and keeps the type it was computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.convolution(image)
        self.seen.append(output.dtype)
        return output


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_network_runs_in_the_precision_asked_for(precision: str, expected: torch.dtype) -> None:
    network, image = _Spy(), torch.rand(1, 1, 8, 8)
    output = AutocastInferer(precision)(image, network)
    assert network.seen == [expected]
    assert output.dtype == torch.float32
    assert torch.allclose(output, network.convolution(image), atol=1e-2)


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")]
)
def test_automatic_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert automatic_precision(CPU) == expected
    assert automatic_precision(torch.device("meta")) == "fp32"
    network = _Spy()
    AutocastInferer()(torch.rand(1, 1, 8, 8), network)
    assert network.seen == [{"bf16": torch.bfloat16, "fp32": torch.float32}[expected]]


def test_autocast_of_the_caller_is_left_alone() -> None:
    network = _Spy()
    with torch.autocast("cpu", torch.bfloat16):
        AutocastInferer("fp16")(torch.rand(1, 1, 8, 8), network)
    assert network.seen == [torch.bfloat16]


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="fp8"):
        AutocastInferer("fp8")


def test_gradients_flow_through_the_inferer() -> None:
    network = trained()
    AutocastInferer("bf16")(torch.rand(1, 1, 16, 16), network).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
