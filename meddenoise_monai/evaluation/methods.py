"""The methods that are compared, as values that go into other processes and into the record of a comparison."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..baselines import available_baselines, make_baseline
from ..baselines.grids import family_of
from ..errors import InputError, UsageError, nearest
from ..inference import Denoiser, load_denoiser, released_weights

__all__ = ["NOISY", "OURS", "Blind", "Denoise", "Method", "load", "read_methods"]

NOISY, OURS = "noisy", "dae"
Image: TypeAlias = NDArray[np.float32]
Denoise: TypeAlias = Callable[[Image, float], Image]


@dataclass(frozen=True)
class Method:
    """One method: the untouched input, a classical baseline with its parameters, or a network's weights.

    Attributes
    ----------
    name
        In tables.
    kind
        ``input``, ``baseline`` or ``network``.
    parameters
        Of a baseline; its defaults until it is tuned.
    weights
        File of a network.
    fingerprint
        Of the weights.
    size
        Number of a network's weights; None otherwise.
    calibration
        Of a network's uncertainty: hex digits; empty where there is none.
    """

    name: str
    kind: Literal["input", "baseline", "network"]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    fingerprint: str = ""
    size: int | None = None
    calibration: str = ""

    @property
    def identity(self) -> str:
        """Hex digits that change with whatever changes the method's results; not with its name or its file's place."""
        versions = family_of(self.name).versions if self.kind == "baseline" else {}
        what = [self.kind, self.fingerprint or self.name, dict(self.parameters), versions, self.calibration]
        return hashlib.sha256(json.dumps(what if self.kind != "input" else [self.kind]).encode()).hexdigest()[:16]

    @property
    def told(self) -> bool:
        """Whether the true noise level is told to it: to all but networks, which are blind."""
        return self.kind == "baseline"


def read_methods(names: str | Sequence[str] | None = None, model: str | None = None) -> list[Method]:
    """The methods of these names, the noisy input first, ours last.

    Parameters
    ----------
    names
        ``noisy``, a baseline, ``dae`` (ours), or ``NAME=FILE`` for the weights of another network of our kind. None is
        all that can be had.
    model
        Weights of ``dae``; the released ones by default.

    Raises
    ------
    UsageError
        A name is unknown or stands twice.
    InputError
        Weights are missing or of another kind of network.
    """
    asked = [*available_baselines(), OURS] if names is None else [names] if isinstance(names, str) else list(names)
    files: dict[str, str | None] = {OURS: model}
    plain = []
    for name in asked:
        label, equals, path = str(name).partition("=")
        if equals:
            files[label] = path
        plain.append(label)
    known = (NOISY, OURS, *available_baselines())
    if unknown := [name for name in plain if name not in files and name not in known]:
        for name in unknown:
            family_of(name)  # says what to install, or which name is near
        raise UsageError(f"there is no method {unknown[0]!r}", nearest(unknown[0], known))
    if len(set(plain)) < len(plain) or any(name in known and name != OURS for name in files):
        raise UsageError("two methods have the same name", "give each network a name of its own: --methods dae,b=FILE")
    if not set(plain) - {NOISY}:
        raise UsageError("no method to compare", f"give --methods {','.join(known)}, or some of them")
    chosen = [Method(NOISY, "input")]
    for name in plain:
        if name in files:
            weights = Path(files[name] or released_weights()).resolve()
            denoiser = _network(str(weights))
            size = sum(weight.numel() for weight in denoiser.network.parameters())
            calibration = _calibration(denoiser)
            chosen.append(Method(name, "network", {}, str(weights), denoiser.fingerprint, size, calibration))
        elif name != NOISY:
            chosen.append(Method(name, "baseline", dict(make_baseline(name).parameters)))
    return sorted(chosen, key=lambda method: method.name == OURS)


def load(method: Method) -> Denoise:
    """What the method does: ``(noisy, sigma) -> denoised``, (H, W) on the [0, 1] scale, sigma the true level there."""
    if method.kind == "input":
        return lambda noisy, sigma: noisy
    if method.kind == "baseline":
        return make_baseline(method.name, **method.parameters)
    return Blind(_network(method.weights))


@dataclass(frozen=True)
class Blind:
    """A network as a method: whatever is known of the noise, it is not told."""

    denoiser: Denoiser

    def __call__(self, noisy: Image, sigma: float) -> Image:
        return self.denoiser(noisy)


def _calibration(denoiser: Denoiser) -> str:
    try:
        return hashlib.sha256(repr(denoiser.calibration).encode()).hexdigest()[:16]
    except InputError:  # it has none, or one that was made for other weights
        return ""


@functools.lru_cache(maxsize=8)
def _network(weights: str) -> Denoiser:
    return load_denoiser(weights, device="cpu")
