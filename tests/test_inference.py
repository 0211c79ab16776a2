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
from torch import Tensor, nn
from torch.nn import functional as F

from meddenoise_monai import inference
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.inference import (
    Denoiser,
    check_network,
    latest_weights,
    load_denoiser,
    load_weights,
    weights_fingerprint,
)
from meddenoise_monai.inferers import TiledInferer
from meddenoise_monai.networks import ConvDenoisingAutoencoder
from meddenoise_monai.treatments import Treatment
from tests.samples import write_model
from tests.small_networks import HALO, NETWORK, trained

CPU = torch.device("cpu")


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
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sigma": 4.0},
        {"noise": Treatment(steps=(2, 1))},
        {"noise": Treatment(correlated=True)},
        {"noise": "poisson"},
    ],
)
def test_pieces_equal_the_whole(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    image = picture(np.uint16, shape)
    seen = _Seen(NETWORK)
    whole, pieces = (
        Denoiser(seen, TiledInferer(tile, HALO, align=8, batch_size=2, precision="fp32"), correlated=seen)
        for tile in (1024, 32)
    )
    expected = whole(image, **options)
    seen.shapes.clear()
    monkeypatch.setattr(inference, "CHUNK", 47 * 40)
    assert np.allclose(pieces(image, **options), expected, rtol=0, atol=1e-3)
    side = 32 + 2 * HALO
    assert all(max(height, width) <= side for _, _, height, width in seen.shapes)
    assert all(count * height * width <= 2 * side**2 for count, _, height, width in seen.shapes)
    assert len(seen.shapes) > 1


def test_small_slices_go_together() -> None:
    denoise = Denoiser(_Seen(NETWORK), TiledInferer(tile=64, precision="fp32"))  # four have the pixels of a tile
    denoise(picture(np.uint16, (10, 16, 32)))
    assert denoise.network.shapes == [(4, 1, 32, 32), (4, 1, 32, 32), (2, 1, 32, 32)]


@pytest.mark.e2e
def test_memory_does_not_grow_with_the_work_on_an_image() -> None:
    """A large image needs itself, the result, and a constant."""
    code = """
import resource, numpy as np, torch
from meddenoise_monai import inference, inferers
from meddenoise_monai.networks import ResidualDenoisingAutoencoder
torch.set_num_threads(1)
network = ResidualDenoisingAutoencoder(widths=(2, 2), blocks=1)
inference.CHUNK = 2**20
denoise = inference.Denoiser(network, inferers.TiledInferer(tile=512, precision="fp32"))
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


def test_partner_for_correlated_noise_lies_beside(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pt", NETWORK.state_dict())
    alone = load_denoiser(path, "cpu")
    assert alone.correlated is None
    assert alone.fingerprint == weights_fingerprint(NETWORK)
    partner = trained(seed=1)
    saved(tmp_path / "mine_correlated.pt", partner.state_dict())
    both = load_denoiser(path, "cpu")
    assert both.correlated is not None
    assert weights_fingerprint(both.correlated) == weights_fingerprint(partner)
    assert both.fingerprint == weights_fingerprint(NETWORK, partner)
    image = picture(shape=(40, 48))
    assert np.array_equal(both(image, noise="gaussian"), alone(image, noise="gaussian"))
    # The mean of its answers to the image and to every second pixel of it.
    steps = [Denoiser(partner)(image, noise=Treatment(steps=(step, step))) for step in (1, 2)]
    assert np.allclose(both(image, noise=Treatment(correlated=True)), np.mean(steps, axis=0), atol=1e-3)
    with pytest.raises(UsageError, match="no network for correlated noise"):
        alone(image, noise=Treatment(correlated=True))


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


@pytest.mark.parametrize("form", ["sparse", "meta", "complex"])
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path: Path, form: str) -> None:
    state = torch.load(write_model(tmp_path / "model.pt"), weights_only=True)
    name = next(iter(state))
    state[name] = {"sparse": state[name].to_sparse, "meta": lambda: state[name].to("meta"),
                   "complex": lambda: state[name].to(torch.complex64)}[form]()  # fmt: skip
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(InputError, match="sparse, complex, or empty shells"):
        load_weights(tmp_path / "odd.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = NETWORK.state_dict()
    name = next(iter(state))
    state[name] = state[name].clone()
    state[name].view(-1)[0] = float("nan")
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match="NaN"):
        load_weights(tmp_path / "model.pt")
