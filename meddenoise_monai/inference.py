"""From weights to a callable denoiser; `load_denoiser` is the Python API."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .allocation import keep_freed_memory
from .errors import InputError, UsageError
from .images import IntensityScale
from .inferers import AutocastInferer, TiledInferer
from .networks import ResidualDenoisingAutoencoder, pad_to_multiple
from .noise import Stabiliser
from .treatments import Treatment, check_request, choose_treatment, join_phases, split_phases
from .uncertainty import MAKE, Calibration, Spread, bootstrap_error, check_coverage

__all__ = ["Denoiser", "check_network", "latest_weights", "load_denoiser", "load_weights", "weights_fingerprint"]

_log = logging.getLogger(__name__)

# How many pixels of an array a Denoiser has in work at a time outside the network; some 20 bytes are needed for each.
CHUNK = 2**22


def check_network(network: nn.Module, device: torch.device, spatial_dims: int = 2, patch: int = 64) -> None:
    """Refuse a network that cannot be trained here, before the training starts.

    Raises
    ------
    UsageError
        If the network fails on a (2, 1, patch, …) input, or answers another shape, or not one tensor.
    """
    shape = (2, 1, *([patch] * spatial_dims))
    training = network.training
    try:
        with torch.no_grad():
            output = network.eval()(torch.rand(shape, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise UsageError(
            f"network_def fails on an input of shape {shape}: {reason[0] if reason else type(error).__name__}",
            "it must take and return (batch, 1, …) images",
        ) from error
    finally:
        network.train(training)
    if not isinstance(output, Tensor) or output.shape != shape:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(
            f"network_def changes the shape {shape} to {got}", "a denoiser returns an image of the size it was given"
        )


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a plain state dict; no code in the file is ever run.

    Raises
    ------
    InputError
        If the file is missing or holds anything but tensors by name, or a tensor that is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such weights file: {path}", "train first, or give the path of a model.pt")
    try:
        with warnings.catch_warnings():  # of torch, about odd pickles; they are refused below
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"cannot read the weights {path}: not a plain state dict", "give a model.pt") from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]  # a training's checkpoint
    if isinstance(state, Mapping) and any(
        value.layout != torch.strided or value.is_meta or value.is_complex()
        for value in state.values()
        if isinstance(value, Tensor)
    ):
        raise InputError(f"the weights {path} are sparse, complex, or empty shells", "give a model.pt")
    if isinstance(state, Mapping) and not all(
        bool(value.isfinite().all()) for value in state.values() if isinstance(value, Tensor)
    ):
        raise InputError(f"the weights {path} hold NaN or infinite values", "train them again, or take others")
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise InputError(f"the file {path} is not a plain state dict", "give a model.pt")
    return dict(state)


def released_weights() -> Path:
    """Where the released weights lie: inside the wheel, in an exported bundle, or in the repository.

    Raises
    ------
    InputError
        If there are none.
    """
    package = Path(__file__).resolve().parent
    places = (
        package / "model.pt",
        package.parent / "models" / "model.pt",
        package.parent / "bundle" / "models" / "model.pt",
    )
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        "this installation carries no released weights", "train first, then give bundle/models/model_best.pt (--model)"
    )


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in the memory format that convolutions run fastest in, 2D or 3D."""
    layout = torch.channels_last_3d if _spatial_dims(network) == 3 else torch.channels_last
    network.to(memory_format=layout)  # type: ignore[call-overload]
    return network


def _spatial_dims(network: nn.Module) -> int:
    return 3 if any(parameter.ndim == 5 for parameter in network.parameters()) else 2


class Denoiser:
    """A callable that denoises arrays in their own units.

    Parameters
    ----------
    network
        Takes and returns (B, 1, H, W), or (B, 1, D, H, W), tensors on the [0, 1] scale.
    inferer
        How to run it; by default tiled, in the device's fastest fitting precision.
    device
        Where.
    correlated
        A second network of the same shapes, trained on correlated noise, by which such noise is recognised and removed.
        Without one it is picked apart (`choose_treatment`), which finds and removes less of it. Only beside a 2D
        network and a `TiledInferer`.
    calibration
        What `uncertainty` needs: one, or the file that holds it, which is read when it is needed.
    """

    def __init__(
        self,
        network: nn.Module,
        inferer: AutocastInferer | None = None,
        device: str | torch.device | None = None,
        correlated: nn.Module | None = None,
        calibration: Calibration | str | os.PathLike[str] | None = None,
    ) -> None:
        self.device = torch.device(device) if device is not None else next(network.parameters()).device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.network = channels_last(network.to(self.device)).eval()
        self.spatial_dims = _spatial_dims(network)
        self.inferer = inferer if inferer is not None else TiledInferer(spatial_dims=self.spatial_dims)
        self._calibration = calibration
        self.correlated = None
        if correlated is not None and self._tiles:
            self.correlated = channels_last(correlated.to(self.device)).eval()

    @property
    def fingerprint(self) -> str:
        """`weights_fingerprint` of the network, or of both."""
        return weights_fingerprint(self.network, *([] if self.correlated is None else [self.correlated]))

    def treatment(self, image: NDArray[Any], noise: str | Stabiliser = "auto", sigma: float | None = None) -> Treatment:
        """What this denoiser does to an image, as `choose_treatment` chooses it, to be given to a call as `noise`."""
        return choose_treatment(image, noise, sigma, None if self.correlated is None else self._without_correlated)

    def _without_correlated(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        assert isinstance(self.inferer, TiledInferer)
        assert self.correlated is not None
        with torch.inference_mode():
            batch = torch.from_numpy(pictures)[:, None].to(self.device)
            return np.asarray(self.inferer.run_untiled(batch, self.correlated)[:, 0].cpu().numpy())

    def __call__(
        self,
        image: NDArray[Any],
        sigma: float | None = None,
        strength: float = 1.0,
        noise: str | Stabiliser | Treatment = "auto",
    ) -> NDArray[np.float32]:
        """Denoise an image.

        Parameters
        ----------
        image
            (H, W), or (D, H, W) denoised slice by slice (whole by a 3D network); any real dtype and range, finite.
        sigma
            Standard deviation of the noise in the image's own units, where it is known: no more than that is taken
            away (the removed part is scaled down to this root mean square). By default the network decides. With
            ``noise="rician"`` that of the Gaussian noise in either channel.
        strength
            Share of the found noise to remove: 0 returns the input (as float32), 1 is everything.
        noise
            ``"auto"``, ``"gaussian"``, ``"poisson"``, ``"rician"``, ``"correlated"``, or a `Stabiliser` of known
            parameters, see `choose_treatment`. What `treatment` answers can be given, too. Its warnings are logged.

        Returns
        -------
        NDArray[np.float32]
            Same shape and units.

        Raises
        ------
        InputError
            If the image is not finite, or no 2D or 3D array of real numbers, or 2D where the network is 3D.
        UsageError
            If sigma is negative or has no meaning beside `noise`, strength outside [0, 1], or `noise` unknown.
        """
        values = self._checked(image, noise, sigma, strength)
        if strength == 0.0 or sigma == 0.0 or values.min() == values.max():
            return values.astype(np.float32)
        treatment = self._chosen(values, noise, sigma)
        found = self._noise_in(values, treatment)
        return _less(values, found, _amount(found, sigma, strength, treatment))

    def uncertainty(
        self,
        image: NDArray[Any],
        sigma: float | None = None,
        strength: float = 1.0,
        noise: str | Stabiliser | Treatment = "auto",
        coverage: float = 0.9,
    ) -> NDArray[np.float32]:
        """How far the result may lie from the clean image: the second of what `with_uncertainty` returns."""
        return self.with_uncertainty(image, sigma, strength, noise, coverage)[1]

    def with_uncertainty(
        self,
        image: NDArray[Any],
        sigma: float | None = None,
        strength: float = 1.0,
        noise: str | Stabiliser | Treatment = "auto",
        coverage: float = 0.9,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Denoise an image, and say for each pixel how far the result may lie from the clean image.

        It takes as long as denoising three images. What is and what is not promised stands with
        `uncertainty.Calibration`, what was seen in ``docs/uncertainty.md``.

        Parameters
        ----------
        image, sigma, strength, noise
            As in a call. Where not all of the noise that was found is removed, the half-width grows by what was left
            in: so the interval holds the calibrated one, and its coverage is no less. At 0 of either
            that is all of it.
        coverage
            The share of the pixels that shall lie within the half-width, in [0.5, 0.99].

        Returns
        -------
        tuple
            What a call returns, and the half-widths: float32, of the image's shape, in its units, not negative. They
            are 0 where the image is constant, or no noise was found at all.

        Raises
        ------
        InputError
            As a call, or if the weights have no calibration.
        UsageError
            As a call, or if `coverage` is out of its range.
        """
        check_coverage(coverage)
        calibration = self.calibration  # before the work, not after it
        result, spread, left_in = self._with_spread(image, sigma, strength, noise)
        half_width = calibration.half_width(spread, coverage)
        if left_in is not None:
            half_width += left_in
        return result, half_width

    def with_spread(
        self, image: NDArray[Any], noise: str | Stabiliser | Treatment = "auto"
    ) -> tuple[NDArray[np.float32], Spread]:
        """Denoise an image, and tell what a calibration is made from.

        Raises
        ------
        InputError, UsageError
            As a call.
        """
        return self._with_spread(image, None, 1.0, noise)[:2]

    def _with_spread(
        self, image: NDArray[Any], sigma: float | None, strength: float, noise: str | Stabiliser | Treatment
    ) -> tuple[NDArray[np.float32], Spread, NDArray[np.float32] | None]:
        """The result, what is known of the errors of all noise removed, and the magnitude of what was left in."""
        values = self._checked(image, noise, sigma, strength)
        if values.min() == values.max():
            return values.astype(np.float32), Spread(np.zeros(values.shape, np.float32), 0.0), None
        treatment = self._chosen(values, noise, sigma)
        found = self._noise_in(values, treatment)
        amount = _amount(found, sigma, strength, treatment)
        denoised = _less(values, found.copy(), 1.0)
        spread = bootstrap_error(denoised, found, lambda again: self._noise_in(again, treatment))
        if amount == 1.0:
            return denoised, spread, None
        left_in = np.float32(1 - amount) * np.abs(found)
        return (values.astype(np.float32) if amount == 0.0 else _less(values, found, amount)), spread, left_in

    @property
    def calibration(self) -> Calibration:
        """Of the uncertainty; read from its file when it is first asked for.

        Raises
        ------
        InputError
            If there is none, or it was made for other weights.
        """
        if self._calibration is None:
            raise InputError("this denoiser has no calibration of its uncertainty", MAKE)
        if not isinstance(self._calibration, Calibration):
            self._calibration = Calibration.read(self._calibration, self.fingerprint)
        return self._calibration

    def _checked(
        self, image: NDArray[Any], noise: str | Stabiliser | Treatment, sigma: float | None, strength: float
    ) -> NDArray[Any]:
        """The image as an array that can be denoised; raises what a call raises."""
        values = _as_array(image)
        if values.ndim not in (2, 3) or values.dtype.kind not in "buif" or values.size == 0:
            raise InputError(
                f"cannot denoise an array of shape {values.shape} and type {values.dtype}",
                "give (H, W) or (D, H, W) real numbers",
            )
        if values.ndim < self.spatial_dims:
            raise InputError(f"a 3D network cannot denoise an image of shape {values.shape}", "give it (D, H, W)")
        check_request(noise, sigma, strength)
        if values.dtype.kind == "f" and not all(np.isfinite(values[line]).all() for line in _pieces(values.shape)):
            raise InputError("the image contains NaN or infinite values", "mend or mask these pixels first")
        return values

    def _chosen(self, values: NDArray[Any], noise: str | Stabiliser | Treatment, sigma: float | None) -> Treatment:
        """The treatment of an image that is denoised, with its warnings logged."""
        _warn_of_range(values, float(values.min()), float(values.max()))
        treatment = noise if isinstance(noise, Treatment) else self.treatment(values, noise, sigma)
        if treatment.correlated and self.correlated is None:
            raise UsageError("this denoiser has no network for correlated noise", "take what its own treatment() says")
        if treatment.warning:
            _log.warning("%s", treatment.warning)
        if self.spatial_dims == 3 and treatment.steps != (1, 1):
            _log.warning("a 3D network takes the correlated noise as it is")
            treatment = replace(treatment, steps=(1, 1))
        return treatment

    def _noise_in(self, values: NDArray[Any], treatment: Treatment) -> NDArray[np.float32]:
        """What the network takes for noise, in the image's units, found piece by piece."""
        stabiliser = treatment.stabiliser
        if stabiliser is None:
            scale = IntensityScale.of(values)
        else:  # it grows with the values
            scale = IntensityScale.of(stabiliser.forward(np.array([values.min(), values.max()])))
        noise = np.zeros(values.shape, np.float32)
        passes = [(self.network, treatment.steps)]
        if treatment.correlated:
            assert self.correlated is not None
            rows, columns = treatment.steps
            passes = [(self.correlated, steps) for steps in (treatment.steps, (2 * rows, 2 * columns))]
        for network, steps in passes:
            for write, read, core in self._blocks(values.shape, steps):
                piece = values[read]
                unit = torch.from_numpy(scale.to_unit(piece if stabiliser is None else stabiliser.forward(piece)))
                with torch.inference_mode():
                    denoised = self._denoised(unit.to(self.device), network, steps).cpu()
                    if stabiliser is None:
                        found = ((unit - denoised) * scale.width).numpy()
                    else:
                        found = piece - stabiliser.inverse(scale.from_unit(denoised.numpy()))
                noise[write] += found[core] / len(passes)
        return noise

    def _denoised(self, unit: Tensor, network: nn.Module, steps: tuple[int, int]) -> Tensor:
        """The network's answer to (H, W) or (D, H, W) on the [0, 1] scale."""
        if not self._tiles:
            answer: Tensor = self.inferer(unit[None, None], network)[0, 0]
            return answer
        assert isinstance(self.inferer, TiledInferer)
        height, width = unit.shape[-2:]
        padded = pad_to_multiple(unit.reshape(-1, 1, height, width), max(steps))  # powers of 2
        joined = join_phases(self.inferer.run_untiled(split_phases(padded, steps), network), steps)
        return joined[..., :height, :width].reshape(unit.shape)

    @property
    def _tiles(self) -> bool:
        return self.spatial_dims == 2 and isinstance(self.inferer, TiledInferer)

    def _blocks(self, shape: tuple[int, ...], steps: tuple[int, int]) -> Iterator[tuple[Any, Any, Any]]:
        """Pieces of an image or volume for the network: where to write, what to read, which part of that to keep.

        An image is cut as the tiled inferer would cut it; so no more than a tile is in work, however large it is. Small
        slices go together.
        """
        if not self._tiles:
            yield (...,) * 3
            return
        assert isinstance(self.inferer, TiledInferer)
        *stack, height, width = shape
        align = self.inferer.align
        axes = []
        for length, step in zip((height, width), steps, strict=True):
            # Along an axis of every `step`-th pixel.
            spans = self.inferer.spans(-(-length // (step * align)) * align, step)
            axes.append([tuple(step * edge for edge in span) for span in spans])
        together = 1 if len(axes[0]) * len(axes[1]) > 1 else max(1, CHUNK // (height * width))
        numbers = [(slice(first, first + together),) for first in range(0, stack[0], together)] if stack else [()]
        for number, (top, bottom, *rows), (left, right, *columns) in itertools.product(numbers, *axes):
            core = (..., *(slice(a - start, b - start) for start, (a, b) in ((top, rows), (left, columns))))
            yield (*number, slice(*rows), slice(*columns)), (*number, slice(top, bottom), slice(left, right)), core


def _amount(found: NDArray[np.float32], sigma: float | None, strength: float, treatment: Treatment) -> float:
    """The share of what was found that is removed: no more than `sigma` of it."""
    if sigma == 0.0:  # beside a stabiliser, too
        return 0.0
    if sigma is None or treatment.stabiliser is not None:
        return strength
    power = sum(float(np.sum(found[line].astype(np.float64) ** 2)) for line in _pieces(found.shape)) / found.size
    return strength * min(1.0, sigma / max(math.sqrt(power), 1e-300))


def _less(values: NDArray[Any], found: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    """The image less a share of what was found, in the place of that.

    Subtracting what was found, rather than scaling the output back, keeps an untouched pixel untouched.
    """
    for line in _pieces(values.shape):
        found[line] = values[line].astype(np.float64) - amount * found[line].astype(np.float64)
    return found


def _as_array(image: Any) -> NDArray[Any]:
    """A plain array of slices, or the error that a user can act on."""
    if np.ma.is_masked(image):
        raise InputError("the image has masked pixels", "fill them first, for example with the lowest value")
    try:
        values = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, with a gradient, of bfloat16
        reason = " ".join(str(error).split())
        raise InputError(f"cannot make an array of the image: {reason}", "give a NumPy array of numbers") from error
    if values.ndim == 3 and values.shape[-1] <= 4 < min(values.shape[:2]):
        raise InputError(
            f"an array of shape {values.shape} looks like channels, not slices",
            "give (H, W), or (D, H, W) slices first",
        )
    return values


def _warn_of_range(values: NDArray[Any], low: float, high: float) -> None:
    """Say so where single pixels are out of all proportion, or float32 cannot tell the values apart."""
    sample = values.reshape(-1)[:: max(1, values.size // 2**14)].astype(np.float64)
    most = np.quantile(sample, [0.001, 0.999])
    if 0 < 1e4 * (most[1] - most[0]) < high - low:
        _log.warning(
            "values go from %g to %g, but nearly all lie between %g and %g: mask or clip the others first, they swamp "
            "the rest", low, high, *most,
        )  # fmt: skip
    most_kept = 2**24 if values.dtype.kind in "iu" else 2**16 * (high - low)
    if max(abs(low), abs(high)) > most_kept:
        _log.warning("values from %g to %g are kept to 24 bits: subtract their offset first", low, high)


def _pieces(shape: tuple[int, ...]) -> list[Any]:
    """Indices that cut an array along its first axis into pieces of at most `CHUNK` elements, or single rows."""
    step = max(1, CHUNK // max(1, math.prod(shape[1:])))
    return [slice(start, start + step) for start in range(0, shape[0], step)]


def load_denoiser(path: str | os.PathLike[str] | None = None, device: str | None = None) -> Denoiser:
    """A denoiser from weights of the default network.

    Parameters
    ----------
    path
        A ``model.pt``; by default the released weights. The network's width and depth are read from it. If a
        ``model_correlated.pt`` lies beside it, that is its partner for correlated noise; ``model_uncertainty.json`` is
        the calibration of its uncertainty.
    device
        ``"cpu"``, ``"cuda"``, …; by default CUDA where there is one.

    Raises
    ------
    InputError
        If the file is missing or holds weights of another network.
    UsageError
        If the device cannot be had.
    """
    path = Path(path) if path is not None else released_weights()
    partner = path.with_name(f"{path.stem}_correlated{path.suffix}")
    network = load_network(path)
    calibration = path.with_name(f"{path.stem}_uncertainty.json")
    correlated = load_network(partner) if partner.is_file() else None
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return Denoiser(network, device=where, correlated=correlated, calibration=calibration)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UsageError(f"cannot use the device {device!r}", "take cpu, or cuda where there is one") from error


def load_network(path: str | os.PathLike[str]) -> ResidualDenoisingAutoencoder:
    """The default network of the width and depth that its weights have.

    Raises
    ------
    InputError
        If the file is missing or holds weights of another network.
    """
    state = load_weights(path)
    try:
        network = ResidualDenoisingAutoencoder.from_state_dict(state)
        if state["head.weight"].shape[1] != 1:
            raise ValueError("more than one channel")
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} holds weights of another network", "build it, load_state_dict, and wrap it in Denoiser(network)"
        ) from error
    return network


def latest_weights(folder: str | os.PathLike[str]) -> Path:
    """The best weights of the training in `folder`, else the released ones.

    Raises
    ------
    InputError
        If there are neither.
    """
    trained = Path(folder, "model_best.pt")
    return trained if trained.is_file() else released_weights()


def weights_fingerprint(*networks: nn.Module) -> str:
    """The first 16 hex digits of the SHA-256 over names and values of all weights, of one network or several."""
    digest = hashlib.sha256()
    for network in networks:
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
