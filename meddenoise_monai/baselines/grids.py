"""Which baselines there are, which parameters they take, and the grid of values that tuning tries."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import UsageError, nearest
from . import filters

__all__ = ["FAMILIES", "Family", "Parameter", "available_baselines", "family_of"]

Parameter: TypeAlias = int | float | str | None
Parse: TypeAlias = Callable[[Any], Parameter]


def _whole(least: int, odd: bool = False) -> Parse:
    def parse(value: Any) -> int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least or (odd and value % 2 == 0):
            raise ValueError(f"must be {'an odd' if odd else 'a'} whole number from {least} up")
        return int(value)

    return parse


def _positive(value: Any) -> Parameter:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise ValueError("must be a positive number")
    return float(value)


def _or_none(parse: Parse) -> Parse:
    def parse_or_none(value: Any) -> Parameter:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise ValueError(f"{error}, or None for the library's own") from None

    return parse_or_none


def _threshold_mode(value: Any) -> Parameter:
    if value not in ("soft", "hard"):
        raise ValueError("must be 'soft' or 'hard'")
    return str(value)


def _orthogonal_wavelet(value: Any) -> Parameter:
    import pywt

    if not isinstance(value, str) or value not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(value).orthogonal:
        raise ValueError("must be an orthogonal wavelet of PyWavelets, such as 'db1', 'sym4' or 'coif2'")
    return value


@dataclass(frozen=True)
class _Declared:
    """A parameter: the library's default, the values that are tried, and what else is allowed.

    `least` is a value below which there is nothing to try; choosing it says nothing about the grid.
    """

    default: Parameter
    grid: tuple[Parameter, ...]
    parse: Parse
    least: float | None = None

    def at_edge(self, value: Parameter) -> bool:
        tried = [each for each in self.grid if isinstance(each, int | float)]
        return len(tried) > 2 and value != self.least and value in (min(tried), max(tried))


@dataclass(frozen=True)
class Family:
    """A baseline: its filter, its parameters by name, and the packages whose versions decide its results."""

    denoise: Callable[..., filters.Image]
    parameters: Mapping[str, _Declared]
    packages: tuple[str, ...]

    @property
    def defaults(self) -> dict[str, Parameter]:
        """The library's own parameters."""
        return {key: declared.default for key, declared in self.parameters.items()}

    @property
    def candidates(self) -> list[dict[str, Parameter]]:
        """The defaults, then the whole grid."""
        axes = [declared.grid for declared in self.parameters.values()]
        grid = [dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*axes)]
        return [self.defaults, *(point for point in grid if point != self.defaults)]

    @property
    def versions(self) -> dict[str, str]:
        """The installed versions of `packages`."""
        return {package: _version(package) for package in self.packages}


@functools.cache  # a comparison asks thousands of times, and each answer is parsed anew
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# Canonical order: the simplest first. For Gaussian noise of 5 to 50/255 on photographs, CT, mammograms and cephalograms
# of 64x64 and 128x128 pixels the best point lies inside the grid; but for NL-means at 50/255, where patches and
# distances half as large again gained less than 0.1 dB in several times the time. Tuning all but BM3D on six images of
# 128x128 takes 17 seconds of one core, most of them for NL-means.
FAMILIES: dict[str, Family] = {
    "median": Family(
        filters.median, {"size": _Declared(3, (3, 5, 7, 9, 11, 15, 19), _whole(1, odd=True), least=3)}, ("scipy",)
    ),
    "gaussian": Family(
        filters.gaussian,
        {"std": _Declared(1.0, (0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), _positive)},
        ("scipy",),
    ),
    "bilateral": Family(
        filters.bilateral,
        {
            "color": _Declared(None, (1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 16.0), _or_none(_positive)),
            "spatial": _Declared(1.0, (0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), _positive),
        },
        ("numpy",),
    ),
    "wavelet": Family(
        filters.wavelet,
        {
            "wavelet": _Declared("db1", ("db1", "sym4", "sym8", "coif2"), _orthogonal_wavelet),
            "levels": _Declared(None, (1, 2, 3, 4, 5, 6), _or_none(_whole(1)), least=1),
            "mode": _Declared("soft", ("soft", "hard"), _threshold_mode),
        },
        ("PyWavelets",),
    ),
    "tv": Family(
        filters.tv,
        {
            "weight": _Declared(None, (0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0), _or_none(_positive)),
            "eps": _Declared(2e-4, (2e-4, 1e-5), _positive),
        },
        ("scikit-image",),
    ),
    "nlm": Family(
        filters.nlm,
        {
            "patch_size": _Declared(7, (3, 5, 7, 9, 13), _whole(1, odd=True)),
            "patch_distance": _Declared(11, (1, 2, 3, 5, 9), _whole(1), least=1),
            "h": _Declared(None, (0.4, 0.6, 0.8, 1.1, 1.5), _or_none(_positive)),
        },
        ("scikit-image",),
    ),
    "bm3d": Family(filters.bm3d, {"factor": _Declared(1.0, (0.9, 1.0, 1.1, 1.2, 1.3), _positive)}, ("bm3d", "bm4d")),
}


def available_baselines() -> list[str]:
    """Names of the baselines that can be used here, the simplest first.

    ``"bm3d"`` is among them only where the package of that name can be imported. Its licence allows non-commercial
    use only, so it is never required.
    """
    return [name for name in FAMILIES if name != "bm3d" or _has_bm3d()]


def family_of(name: str) -> Family:
    """The baseline called `name`.

    Raises
    ------
    UsageError
        There is none of that name, or the package behind it is not installed.
    """
    if name not in FAMILIES:
        raise UsageError(f"there is no baseline {name!r}", nearest(str(name), FAMILIES))
    if name == "bm3d" and not _has_bm3d():
        raise UsageError(
            "the baseline 'bm3d' is not installed", "pip install bm3d (its licence allows non-commercial use only)"
        )
    return FAMILIES[name]


def _has_bm3d() -> bool:
    try:
        import bm3d  # noqa: F401
    except (ImportError, OSError):
        return False
    return True
