"""What things are called in a report, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..evaluation.conditions import ACQUIRED, FWHM

__all__ = [
    "CHANNELS",
    "SIGNALS",
    "condition_title",
    "counted",
    "joined",
    "method_title",
    "number",
    "percent",
    "with_interval",
]

_METHODS = {
    "noisy": "the noisy input, untouched",
    "median": "median filter",
    "gaussian": "Gaussian filter",
    "bilateral": "bilateral filter",
    "wavelet": "wavelet shrinkage (BayesShrink)",
    "tv": "total variation (Chambolle's algorithm)",
    "nlm": "non-local means",
    "bm3d": "block matching and collaborative filtering (BM3D)",
    "dae": "the denoising autoencoder of this program, a neural network",
}
_NOISES = {
    "gaussian": "Gaussian noise",
    "poisson": "Poisson noise",
    "poisson_gaussian": "Poisson and Gaussian noise",
    "rician": "Rician noise",
    "speckle": "speckle",
    "correlated": f"correlated Gaussian noise (FWHM {FWHM:g} pixels)",
    ACQUIRED: "noise as acquired",
}
SIGNALS = {"disc": "disc", "cluster": "cluster of specks"}
CHANNELS = {"laguerre_gauss": "Laguerre-Gauss", "difference_of_gaussians": "differences of Gaussians"}


def method_title(method: str, kind: str = "network") -> str:
    """What a method is, for somebody who does not know its short name."""
    return _METHODS.get(method, "a neural network" if kind == "network" else method)


def condition_title(entry: Mapping[str, Any], data: bool = True) -> str:
    """Noise and level of an entry of ``results.json``, after the data set's name where it has one."""
    noise = _NOISES.get(entry["noise"], entry["noise"])
    words = f"{noise} {entry['level']:g}/255" if entry["level"] else noise
    return f"{entry['data']}, {words}" if data and entry.get("data") else words


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """With thousands separated and a real minus; a dash for what is not known."""
    if value is None or value != value:
        return "–"
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")  # a zero after rounding has no sign
    return text.replace("-", "−")


def percent(value: float | None, digits: int = 0, sign: bool = False) -> str:
    """A share in percent."""
    return "–" if value is None else f"{number(100 * value, digits, sign)} %"


def with_interval(
    value: float | None, interval: Sequence[float] | None, digits: int = 2, sign: bool = False, factor: float = 1.0
) -> str:
    """A value and its 95 % interval in brackets."""
    if value is None:
        return "–"
    text = number(factor * value, digits, sign)
    if interval is None:
        return text
    low, high = (number(factor * end, digits, sign) for end in interval)
    return f"{text} [{low}, {high}]"


def counted(count: int, thing: str) -> str:
    """``1 image``, ``1,000 images``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def joined(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = list(words)
    return f"{', '.join(most)} and {last}" if most else last
