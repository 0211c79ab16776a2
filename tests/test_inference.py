from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional as F

from meddenoise_monai import inference
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.inference import (
    AutocastInferer,
    Denoiser,
    TiledInferer,
    check_network,
    latest_weights,
    load_denoiser,
    load_weights,
    weights_fingerprint,
)
from meddenoise_monai.networks import ConvDenoisingAutoencoder, ResidualDenoisingAutoencoder
from meddenoise_monai.treatments import Treatment

CPU = torch.device("cpu")


def trained(**options: Any) -> ResidualDenoisingAutoencoder:
    """A network that changes its input visibly, as after a training."""
    torch.manual_seed(0)
    network = ResidualDenoisingAutoencoder(**{"widths": (4, 8), "blocks": 1, "stride": 1, **options})
    nn.init.normal_(network.tail.weight, std=0.1)
    return network.eval()


def exact(**options: Any) -> ResidualDenoisingAutoencoder:
    """A network of few whole numbers: on whole numbers no sum is rounded, in whatever order it is taken."""
    network = trained(**options)
    for weight in network.parameters():
        nn.init.uniform_(weight, -1.15, 1.15)
        weight.data.trunc_()
    kernels = network.head.weight.data
    kernels *= kernels[0, 0].numel()  # the mean, which it subtracts, is whole, too
    return network


def whole_numbers(*shape: int) -> Tensor:
    return torch.randint(1, 10, shape).float()


NETWORK = trained()
EXACT = exact()
HALO = 16  # these networks see 11 pixels to each side


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
    assert inference.automatic_precision(CPU) == expected
    assert inference.automatic_precision(torch.device("meta")) == "fp32"
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


# --------------------------------------------------------------------------------------------------------- denoiser


class _Smooth(nn.Module):
    """A denoiser known in closed form: the mean over 3 x 3 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1, 3, 3), 1 / 9))

    def forward(self, image: Tensor) -> Tensor:
        return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), self.weight)


def denoiser(network: nn.Module | None = None) -> Denoiser:
    return Denoiser(network or _Smooth(), TiledInferer(precision="fp32"))


def picture(dtype: Any = np.float32, shape: tuple[int, ...] = (33, 41)) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).normal(100, 30, shape)
    return np.clip(np.rint(values), 0, 255).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64, np.float16, bool])
@pytest.mark.parametrize("shape", [(33, 41), (3, 20, 25)])
def test_any_type_comes_back_as_float32(dtype: Any, shape: tuple[int, ...]) -> None:
    image = picture(dtype, shape)
    if dtype is bool:
        image = picture(np.uint8, shape) > 100
    before = image.copy()
    result = denoiser()(image)
    assert result.dtype == np.float32
    assert result.shape == shape
    assert np.array_equal(image, before)
    expected = image.astype(np.float64)
    padded = np.pad(expected, [(0, 0)] * (len(shape) - 2) + [(1, 1), (1, 1)], mode="reflect")
    shifts = [padded[..., r : r + shape[-2], c : c + shape[-1]] for r in range(3) for c in range(3)]
    assert np.allclose(result, np.mean(shifts, axis=0), atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("options", [{"strength": 0}, {"sigma": 0.0}, {"strength": 0.0, "sigma": 3.0}])
def test_nothing_to_remove_returns_the_input_bit_for_bit(dtype: Any, options: dict[str, float]) -> None:
    image = picture(np.float32).astype(dtype) * dtype(3)
    result = denoiser()(image, **options)
    assert result.dtype == np.float32
    assert np.array_equal(result, image)
    assert not np.shares_memory(result, image)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_image_comes_back(value: int) -> None:
    assert np.array_equal(denoiser(trained())(np.full((9, 8), value, np.uint8)), np.full((9, 8), value))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_image_that_is_not_finite_is_refused(value: float, strength: float) -> None:
    image = picture()
    image[3, 4] = value
    for bad in (image, np.full((9, 9), value)):
        with pytest.raises(InputError, match="NaN"):
            denoiser()(bad, strength=strength)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2), complex), np.zeros(4), np.zeros((1, 2, 3, 4)), np.zeros((0, 3)), "x"]
)
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(InputError, match="cannot denoise"):
        denoiser()(image)


@pytest.mark.parametrize("options", [{"sigma": -1}, {"sigma": np.nan}, {"strength": 1.1}, {"strength": np.nan}])
def test_impossible_amounts_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        denoiser()(picture(), **options)


@settings(max_examples=30, deadline=None)
@given(sigma=st.floats(0.01, 100))
def test_sigma_limits_what_is_removed(sigma: float) -> None:
    image = picture()
    full = image - denoiser()(image).astype(np.float64)
    part = image - denoiser()(image, sigma=sigma).astype(np.float64)
    most = np.sqrt(np.mean(full**2))
    assert np.sqrt(np.mean(part**2)) == pytest.approx(min(sigma, most), rel=1e-3)
    assert np.allclose(part, full * min(1.0, sigma / most), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(strength=st.floats(0.01, 1))
def test_strength_is_a_share_of_what_is_removed(strength: float) -> None:
    image = picture(np.int16)
    full = denoiser()(image).astype(np.float64) - image
    assert np.allclose(denoiser()(image, strength=strength) - image.astype(np.float64), strength * full, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(factor=st.integers(1, 200), offset=st.integers(-3000, 3000), sigma=st.sampled_from([None, 5.0]))
def test_units_do_not_matter(factor: int, offset: int, sigma: float | None) -> None:
    image = picture(np.int16, (20, 24)) % 100
    moved = image.astype(np.int32) * factor + offset
    scaled_sigma = None if sigma is None else sigma * factor
    network = denoiser(trained())
    expected = network(image, sigma=sigma).astype(np.float64) * factor + offset
    for values in (moved, moved.astype(np.float32), moved.astype(np.float64)):
        result = network(values, sigma=scaled_sigma)
        assert np.allclose(result, expected, atol=1e-4 * factor + 1e-6 * abs(offset))


def test_volume_is_scaled_as_one() -> None:
    volume = picture(np.int16, (3, 20, 24)) * np.arange(1, 4, dtype=np.int16)[:, None, None]
    result = denoiser()(volume)
    assert np.allclose(result[1], denoiser()(volume[1]), atol=1e-3)  # the mean filter knows no scale


class _Seen(nn.Module):
    """A network that notes the shapes of what it is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.shapes = network, []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        return self.network(image)


@pytest.mark.parametrize("shape", [(131, 47), (131, 100), (3, 131, 47), (7, 33, 20)])
@pytest.mark.parametrize("options", [{}, {"sigma": 4.0}, {"noise": Treatment(steps=(2, 1))}, {"noise": "poisson"}])
def test_pieces_equal_the_whole(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    image = picture(np.uint16, shape)
    whole, pieces = (
        Denoiser(_Seen(NETWORK), TiledInferer(tile=tile, halo=HALO, align=8, batch_size=2, precision="fp32"))
        for tile in (1024, 32)
    )
    expected = whole(image, **options)
    monkeypatch.setattr(inference, "CHUNK", 47 * 40)
    assert np.allclose(pieces(image, **options), expected, rtol=0, atol=1e-3)
    count, _, *sizes = map(max, zip(*pieces.network.shapes, strict=True))
    assert count <= 2
    assert max(sizes) <= 32 + 2 * HALO
    assert len(pieces.network.shapes) > 1


def test_small_slices_go_together() -> None:
    denoise = Denoiser(_Seen(NETWORK), TiledInferer(tile=64, precision="fp32"))  # four have the pixels of a tile
    denoise(picture(np.uint16, (10, 16, 32)))
    assert denoise.network.shapes == [(4, 1, 32, 32), (4, 1, 32, 32), (2, 1, 32, 32)]


def test_memory_does_not_grow_with_the_work_on_an_image() -> None:
    """A large image needs itself, the result, and a constant."""
    code = """
import resource, numpy as np, torch
from meddenoise_monai import inference
from meddenoise_monai.networks import ResidualDenoisingAutoencoder
torch.set_num_threads(1)
network = ResidualDenoisingAutoencoder(widths=(2, 2), blocks=1)
inference.CHUNK = 2**20
denoise = inference.Denoiser(network, inference.TiledInferer(tile=512, precision="fp32"))
denoise(np.random.default_rng(0).integers(0, 255, (512, 512)).astype(np.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = np.random.default_rng(0).integers(0, 255, (6000, 6000), dtype=np.uint8)
denoise(image, sigma=3.0)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / image.size)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(shown.stdout) < 1 + 4 + 5  # bytes a pixel: the input, the result, and the pieces of 36 megapixels


def test_three_dimensional_network_takes_volumes_only() -> None:
    denoise = Denoiser(trained(spatial_dims=3))
    assert denoise(picture(shape=(6, 10, 12))).shape == (6, 10, 12)
    with pytest.raises(InputError, match="3D network"):
        denoise(picture())


# ---------------------------------------------------------------------------------------------------------- weights


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


class _Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("options", [{}, {"widths": (3, 4, 5), "blocks": 2}, {"spatial_dims": 3}])
def test_weights_become_a_denoiser(tmp_path: Path, options: dict[str, Any]) -> None:
    network = trained(**options)
    denoise = load_denoiser(saved(tmp_path / "model.pt", network.state_dict()), device="cpu")
    image = picture(shape=(8, 20, 24))
    assert np.array_equal(denoise(image), Denoiser(network)(image))
    assert not np.array_equal(denoise(image), image)


def test_weights_of_a_training_in_progress_are_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", {"model": NETWORK.state_dict(), "epoch": 3})
    assert weights_fingerprint(load_denoiser(path, "cpu").network) == weights_fingerprint(NETWORK)


@pytest.mark.parametrize(
    "state",
    [
        ConvDenoisingAutoencoder(channels=2).state_dict(),
        trained(in_channels=2, out_channels=1).state_dict(),
        {"head.weight": torch.zeros(3), "tail.weight": torch.zeros(3)},
        {"weight": torch.zeros(3)},
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match="another network"):
        load_denoiser(saved(tmp_path / "model.pt", state), "cpu")


@pytest.mark.parametrize("state", [torch.zeros(3), {}, {"a": 1}, {1: torch.zeros(1)}, [torch.zeros(1)]])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, state: object) -> None:
    with pytest.raises(InputError, match="plain state dict"):
        load_weights(saved(tmp_path / "model.pt", state))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02."])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the weights"):
        load_weights(path)


@pytest.mark.parametrize("place", ["nowhere.pt", "."])
def test_missing_weights_are_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match="no such weights file"):
        load_denoiser(tmp_path / place)


@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_code_in_a_weights_file_is_never_run(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "was-here"
    save({"head.weight": _Evil(trace)}, path)
    with pytest.raises(InputError, match="plain state dict"):
        load_denoiser(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # the trap works


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_missing_device_is_named(tmp_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match=device):
        load_denoiser(saved(tmp_path / "model.pt", NETWORK.state_dict()), device)


def test_released_weights_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "root" / "meddenoise_monai"
    package.mkdir(parents=True)
    monkeypatch.setattr(inference, "__file__", str(package / "inference.py"))
    with pytest.raises(InputError, match="no released weights"):
        load_denoiser()
    with pytest.raises(InputError, match="no released weights"):
        latest_weights(tmp_path)
    for place in ("bundle/models/model.pt", "models/model.pt", "meddenoise_monai/model.pt"):
        path = tmp_path / "root" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        saved(path, NETWORK.state_dict())
        assert inference.released_weights() == path
        assert latest_weights(tmp_path) == path
    assert weights_fingerprint(load_denoiser().network) == weights_fingerprint(NETWORK)
    best = saved(tmp_path / "model_best.pt", {})
    assert latest_weights(tmp_path) == best


def test_fingerprint_changes_with_one_weight_and_nothing_else() -> None:
    network = trained()
    first = weights_fingerprint(network)
    assert len(first) == 16
    assert weights_fingerprint(trained()) == first
    assert weights_fingerprint(inference.channels_last(trained())) == first
    with torch.no_grad():
        network.head.weight[0, 0, 0, 0] += 1e-6
    assert weights_fingerprint(network) != first


# --------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(("dims", "patch"), [(2, 64), (2, 9), (3, 8)])
def test_good_networks_pass_and_stay_as_they_are(dims: int, patch: int) -> None:
    network = trained(spatial_dims=dims).train()
    check_network(network, CPU, dims, patch)
    assert network.training
    check_network(network.eval(), CPU, dims, patch)
    assert not network.training


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(1, 1, 3), r"changes the shape \(2, 1, 64, 64\) to \(2, 1, 62, 62\)"),
        (nn.Conv2d(1, 2, 3, padding=1), "changes the shape"),
        (nn.Conv2d(3, 1, 3), "fails on an input"),
        (nn.Conv3d(1, 1, 3), "fails on an input"),
        (nn.LSTM(64, 64), "fails on an input"),
        (nn.MaxPool2d(1, return_indices=True), "to tuple"),
    ],
)
def test_unfit_networks_are_refused_in_one_line(network: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_network(network, CPU)
    assert "\n" not in error.value.message
    assert network.training


def test_channels_last_fits_the_dimensions() -> None:
    assert inference.channels_last(trained()).head.weight.is_contiguous(memory_format=torch.channels_last)
    three = inference.channels_last(trained(spatial_dims=3))
    assert three.head.weight.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": np.ones(3)}, {"sigma": "5"}, {"sigma": True}, {"sigma": [1.0]}, {"sigma": float("nan")},
        {"strength": None}, {"strength": "1"}, {"strength": np.ones(2)}, {"noise": "pink"},
        {"noise": "pink", "strength": 0.0},
    ],
)  # fmt: skip
def test_options_of_another_type_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        denoiser()(picture(), **options)


@pytest.mark.parametrize("shape", [(33, 41, 3), (33, 41, 4), (33, 41, 1)])
def test_channels_are_not_taken_for_slices(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="channels"):
        denoiser()(picture(np.uint8, shape))
    assert denoiser()(picture(np.uint8, (3, 33, 41))).shape == (3, 33, 41)


def test_what_numpy_cannot_read_is_refused() -> None:
    for image in (torch.ones(9, 9, requires_grad=True), torch.ones(9, 9, dtype=torch.bfloat16)):
        with pytest.raises(InputError, match="cannot make an array"):
            denoiser()(image)  # type: ignore[arg-type]
    masked = np.ma.masked_less(picture(), 0.1)
    with pytest.raises(InputError, match="masked"):
        denoiser()(masked)
    whole = np.ma.array(picture())  # masks nothing
    np.testing.assert_array_equal(denoiser()(whole), denoiser()(picture()))


def test_values_out_of_all_proportion_are_named(caplog: pytest.LogCaptureFixture) -> None:
    image = picture(np.float32, (80, 80))
    denoiser()(image)
    assert not caplog.messages
    image[3, 4] = 1e8
    denoiser()(image)
    assert "nearly all lie between" in caplog.text
    caplog.clear()
    denoiser()(picture(np.float32, (80, 80)).astype(np.float64) + 1e9)
    assert "24 bits" in caplog.text
    caplog.clear()
    denoiser()((picture(np.float32, (80, 80)) * 255).astype(np.int32) + 2**26)
    assert "24 bits" in caplog.text


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = NETWORK.state_dict()
    name = next(iter(state))
    state[name] = state[name].clone()
    state[name].view(-1)[0] = float("nan")
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match="NaN"):
        load_weights(tmp_path / "model.pt")
