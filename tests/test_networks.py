from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from meddenoise_monai.networks import ConvDenoisingAutoencoder, ResidualDenoisingAutoencoder

sizes = st.integers(1, 70)


def small(**options: Any) -> ResidualDenoisingAutoencoder:
    """A small network of four levels with a tail that is not zero, as after a training."""
    torch.manual_seed(0)
    network = ResidualDenoisingAutoencoder(**{"widths": (4, 4, 8, 8), "blocks": 1, "stride": 1, **options})
    nn.init.normal_(network.tail.weight, std=0.1)
    return network.eval()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


SMALL = small()
COARSE = small(stride=2)
PAPER = ConvDenoisingAutoencoder(channels=4).eval()


@pytest.mark.parametrize("network", [SMALL, COARSE, PAPER], ids=["residual", "stride 2", "paper"])
@settings(max_examples=40, deadline=None)
@given(height=sizes, width=sizes)
def test_any_image_size_comes_back(network: nn.Module, height: int, width: int) -> None:
    image = torch.rand(1, 1, height, width)
    with torch.no_grad():
        output = network(image)
    assert output.shape == image.shape
    assert output.isfinite().all()
    if height * width > 1 or network is PAPER:  # a constant image comes back as it is
        assert not torch.equal(output, image)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 17), (8, 8, 8), (5, 1, 12)])
@pytest.mark.parametrize("kind", [small, lambda **options: ConvDenoisingAutoencoder(channels=4, **options)])
def test_any_volume_size_comes_back(kind: Any, shape: tuple[int, ...]) -> None:
    volume = torch.rand(2, 1, *shape)
    assert kind(spatial_dims=3)(volume).shape == volume.shape


def test_sizes_that_fit_are_not_padded() -> None:
    # A padded border would be cropped away again, so it shows only in what the hidden layers see.
    seen = []
    for network in (SMALL, PAPER):
        layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape[2:])))
        network(torch.rand(1, 1, 24, 40))
        network(torch.rand(1, 1, 23, 33))
        handle.remove()
    assert seen == [(24, 40), (24, 40), (24, 40), (24, 36)]


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000), stride=st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_residual_network_is_positively_homogeneous(scale: float, seed: int, stride: int) -> None:
    image = torch.randn(1, 1, 19, 22, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    network = small(stride=stride).double()
    with torch.no_grad():
        expected = scale * network(image)
        assert torch.allclose(network(scale * image), expected, rtol=1e-9, atol=1e-12 * scale)
        assert not torch.allclose(network(-image), -network(image))  # it is not linear


@given(offset=st.floats(-1e3, 1e3), seed=st.integers(0, 1000), stride=st.integers(1, 3), dims=st.integers(2, 3))
@settings(max_examples=10, deadline=None)
def test_offsets_pass_through_the_residual_network(offset: float, seed: int, stride: int, dims: int) -> None:
    shape = (1, 1, 11, 19, 22)[: 2 + dims]
    image = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    network = small(stride=stride, spatial_dims=dims).double()
    with torch.no_grad():
        assert torch.allclose(network(image + offset), network(image) + offset, rtol=0, atol=1e-9)


def test_a_small_contrast_on_a_large_offset_survives_bfloat16() -> None:
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = SMALL(image) - image
        found = SMALL(image / 100 + 7) - (image / 100 + 7)
    # Steps of bfloat16 are 0.03 at 7: without the offset's own way all of the contrast would be lost. A hundred is no
    # power of two, so each layer rounds otherwise; how, depends on the processor.
    assert torch.allclose(100 * found, expected, atol=0.03 * float(expected.abs().max()))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_residual_network_has_no_additive_constant(spatial_dims: int) -> None:
    network = ResidualDenoisingAutoencoder(spatial_dims)
    assert not [name for name, _ in network.named_parameters() if "bias" in name]
    assert not list(network.buffers())
    shape = (1, 1, *([16] * spatial_dims))
    assert torch.equal(small(spatial_dims=spatial_dims)(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (2, 1, 37, 50)),
        ({"spatial_dims": 3, "widths": (4, 8)}, (1, 1, 5, 6, 7)),
        ({"in_channels": 3}, (1, 3, 9, 9)),
        ({"stride": 2}, (1, 1, 37, 50)),
        ({"stride": 4, "spatial_dims": 3, "widths": (4, 8)}, (1, 1, 5, 6, 17)),
    ],
)
def test_untrained_network_returns_its_input(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    assert torch.equal(ResidualDenoisingAutoencoder(**options)(image), image[:, :1])


def test_untrained_network_can_learn() -> None:
    network = ResidualDenoisingAutoencoder(widths=(4, 8), blocks=1)
    network(torch.rand(1, 1, 16, 16)).square().mean().backward()
    assert network.tail.weight.grad is not None
    assert network.tail.weight.grad.abs().max() > 0


def test_default_network_has_about_a_million_parameters() -> None:
    count = parameters(ResidualDenoisingAutoencoder())
    widths, kernel, ends = (48, 64, 128), 9, 36
    stages = [2 * 2 * kernel * width**2 for width in widths]  # two blocks of two convolutions
    steps = sum(2 * 4 * fine * coarse for fine, coarse in itertools.pairwise(widths))
    assert count == 2 * sum(stages[:-1]) + stages[-1] + steps + 2 * ends * widths[0]
    assert 1.1e6 <= count <= 1.2e6


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_stride_is_a_network_over_interleaved_parts(stride: int) -> None:
    network = small(stride=stride).double()
    parts = ResidualDenoisingAutoencoder(2, stride**2, stride**2, (4, 4, 8, 8), 1, stride=1).double()
    state = dict(network.state_dict())
    # A convolution of the parts is one of the image whose kernel interleaves theirs.
    head = nn.functional.pixel_unshuffle(state["head.weight"], stride)
    state["head.weight"] = head - head.mean((2, 3), keepdim=True)
    network.head.weight.data = nn.functional.pixel_shuffle(state["head.weight"], stride)
    state["tail.weight"] = nn.functional.pixel_unshuffle(state["tail.weight"], stride)
    parts.load_state_dict(state)
    image = torch.rand(1, 1, 24 * stride, 40 * stride, dtype=torch.float64)
    image = nn.functional.pad(image[..., 4 * stride : -4 * stride, 4 * stride : -4 * stride], [4 * stride] * 4)
    with torch.no_grad():
        interleaved = parts(nn.functional.pixel_unshuffle(image, stride))
        assert torch.allclose(network(image), nn.functional.pixel_shuffle(interleaved, stride), atol=1e-12)


def test_network_of_one_level() -> None:
    network = small(widths=(4,))
    assert network.multiple == 1
    assert network(torch.rand(1, 1, 5, 3)).shape == (1, 1, 5, 3)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ResidualDenoisingAutoencoder, {"spatial_dims": 1}, "spatial_dims"),
        (ResidualDenoisingAutoencoder, {"widths": ()}, "widths"),
        (ResidualDenoisingAutoencoder, {"widths": (4, 0)}, "widths"),
        (ResidualDenoisingAutoencoder, {"out_channels": 2}, "out_channels"),
        (ResidualDenoisingAutoencoder, {"blocks": 0}, "blocks"),
        (ResidualDenoisingAutoencoder, {"stride": 0}, "stride"),
        (ConvDenoisingAutoencoder, {"spatial_dims": 4}, "spatial_dims"),
        (ConvDenoisingAutoencoder, {"activation": "gelu"}, "activation"),
        (ConvDenoisingAutoencoder, {"kernel_size": 4}, "kernel_size"),
    ],
)
def test_wrong_parameters_are_refused_by_name(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "network", [SMALL, COARSE, small(spatial_dims=3), PAPER], ids=["2D", "stride 2", "3D", "paper"]
)
def test_scripted_network_equals_eager(network: nn.Module) -> None:
    scripted = torch.jit.script(network)
    three = any(parameter.ndim == 5 for parameter in network.parameters())
    for size in ((3, 9, 10), (8, 16, 7)):
        image = torch.rand(2, 1, *(size if three else size[1:]))
        with torch.no_grad():
            assert torch.equal(scripted(image), network(image))


@pytest.mark.parametrize("network", [SMALL, PAPER], ids=["residual", "paper"])
def test_traced_network_equals_eager(network: nn.Module) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing fixes the size, and says so
        traced = torch.jit.trace(network, torch.rand(1, 1, 30, 41))
        image = torch.rand(1, 1, 30, 41)
        assert torch.equal(traced(image), network(image))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"widths": (3, 5), "blocks": 3},
        {"widths": (6,)},
        {"spatial_dims": 3, "widths": (2, 4, 6)},
        {"in_channels": 3, "out_channels": 2},
        {"stride": 2, "widths": (4, 6)},
        {"stride": 3, "spatial_dims": 3, "widths": (2, 4)},
    ],
)
def test_size_is_read_off_the_weights(options: dict[str, Any]) -> None:
    network = small(**options)
    again = ResidualDenoisingAutoencoder.from_state_dict(network.state_dict())
    assert again.state_dict().keys() == network.state_dict().keys()
    image = torch.rand(1, options.get("in_channels", 1), *([11] * options.get("spatial_dims", 2)))
    with torch.no_grad():
        assert torch.equal(again(image), network(image))


@pytest.mark.parametrize(
    "state",
    [
        ConvDenoisingAutoencoder(channels=2).state_dict(),
        {},
        {"head.weight": torch.zeros(3), "tail.weight": torch.zeros(3)},
        {name: value for name, value in SMALL.state_dict().items() if name != "up.0.weight"},
        {**SMALL.state_dict(), "extra": torch.zeros(1)},
    ],
    ids=["paper's", "empty", "linear", "one missing", "one more"],
)
def test_weights_of_another_network_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises((KeyError, IndexError, RuntimeError, ValueError)):
        ResidualDenoisingAutoencoder.from_state_dict(state)


def test_paper_network_has_the_layers_of_the_paper() -> None:
    network = ConvDenoisingAutoencoder()
    layers = [module for module in network.modules() if not list(module.children())]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == [
        *("Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d"),
        *("Conv2d", "ReLU", "Upsample", "Conv2d", "ReLU", "Upsample", "Conv2d"),
    ]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [
        *((1, 64), (64, 64), (64, 64), (64, 64), (64, 1)),
    ]
    assert all(layer.kernel_size == (5, 5) and layer.stride == (1, 1) for layer in convolutions)
    assert all(layer.kernel_size == 2 for layer in layers if isinstance(layer, nn.MaxPool2d))
    assert all(
        (layer.scale_factor, layer.mode) == (2.0, "nearest") for layer in layers if isinstance(layer, nn.Upsample)
    )


@pytest.mark.parametrize(("dims", "channels", "kernel"), [(2, 64, 5), (2, 8, 3), (3, 4, 5)])
def test_paper_network_parameter_count(dims: int, channels: int, kernel: int) -> None:
    taps = kernel**dims
    expected = (taps * channels + channels) + 3 * (taps * channels**2 + channels) + (taps * channels + 1)
    assert parameters(ConvDenoisingAutoencoder(dims, channels=channels, kernel_size=kernel)) == expected


@pytest.mark.parametrize(("activation", "linear"), [("none", True), ("relu", False), ("leakyrelu", False)])
def test_without_activation_only_the_pooling_is_not_linear(activation: str, linear: bool) -> None:
    torch.manual_seed(1)
    network = ConvDenoisingAutoencoder(channels=4, activation=activation).double()
    x, y, zero = torch.randn(1, 1, 13, 18).double(), torch.randn(1, 1, 13, 18).double(), torch.zeros(1, 1, 13, 18)

    def defect() -> float:
        """How far f(x + y) + f(0) is from f(x) + f(y): nothing for an affine function."""
        with torch.no_grad():
            return float((network(x + y) + network(zero.double()) - network(x) - network(y)).abs().max())

    assert defect() > 1e-3  # with the paper's max-pooling
    network.encoder[2] = network.encoder[5] = nn.AvgPool2d(2)
    assert (defect() < 1e-12) == linear


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("relu", nn.ReLU), ("leakyrelu", nn.LeakyReLU), ("sigmoid", nn.Sigmoid), ("none", nn.Identity)],
)
def test_paper_network_takes_each_activation(activation: str, kind: type[nn.Module]) -> None:
    network = ConvDenoisingAutoencoder(channels=2, activation=activation)
    assert sum(isinstance(module, kind) for module in network.modules()) == 4
