"""Classical denoisers, which a network has to beat, and the tuning that makes them worth beating.

A baseline is a callable ``(image, sigma) -> image`` on the [0, 1] scale. Its parameters come from a small grid,
declared here beside the library's own defaults, and are chosen by `tune` on validation pairs for the same noise and
metric: an untuned baseline proves nothing. Strengths are factors of sigma, so that they serve other noise levels too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import logging
import math
import numbers
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .errors import InputError, UsageError, nearest
from .metrics import psnr, ssim

__all__ = [
    "Baseline",
    "ClassicalBaseline",
    "Parameter",
    "TunedBaseline",
    "available_baselines",
    "estimate_sigma",
    "make_baseline",
    "tune",
    "tune_all",
]

_log = logging.getLogger(__name__)

Image: TypeAlias = NDArray[np.float32]
Parameter: TypeAlias = int | float | str | None
Parse: TypeAlias = Callable[[Any], Parameter]
Progress: TypeAlias = Callable[[str, int, int], None]

_METRICS: dict[str, Callable[[ArrayLike, ArrayLike, float], float]] = {"psnr": psnr, "ssim": ssim}

# Noise below this is lost in float32 on [0, 1], and the filters would divide by its square.
_NO_NOISE = 1e-6

# Part of the cache's key: raise it with every change to a filter below.
_REVISION = 1


class Baseline(Protocol):
    """What every denoiser that we compare with looks like."""

    @property
    def name(self) -> str:
        """The name in tables: ``"median"``, ``"nlm"``..."""
        ...

    def __call__(self, image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        """Denoise `image` (H, W) on the [0, 1] scale, whose noise has the standard deviation `sigma`."""
        ...


@dataclass(frozen=True)
class ClassicalBaseline:
    """A classical denoiser with its parameters; made by `make_baseline`.

    Attributes
    ----------
    name
        One of `available_baselines`.
    parameters
        All of them, by name; None leaves one to the library.
    """

    name: str
    parameters: Mapping[str, Parameter]

    def __call__(self, image: ArrayLike, sigma: float) -> NDArray[np.float32]:
        """Denoise one image.

        Parameters
        ----------
        image
            ``(H, W)``, or ``(D, H, W)`` which is denoised slice by slice; on the [0, 1] scale, which noise may leave
            on either side.
        sigma
            Standard deviation of the noise on that scale. Median and Gaussian do not use it; the others return the
            image as it is below 1e-6.

        Returns
        -------
        NDArray[np.float32]
            A new array of the same shape, not clipped. A constant image comes back as it is.

        Raises
        ------
        InputError
            The image has a wrong shape or dtype, or values that are not finite.
        UsageError
            `sigma` is negative or not finite.
        """
        values = _checked_image(image)
        sigma = _checked_sigma(sigma)
        if values.ndim == 3:
            return np.stack([self(part, sigma) for part in values])
        if values.min() == values.max():
            return values.copy()
        denoised: NDArray[np.float32] = _FAMILIES[self.name].denoise(values, sigma, **self.parameters)
        return np.array(denoised, dtype=np.float32)


@dataclass(frozen=True)
class TunedBaseline(ClassicalBaseline):
    """A classical denoiser with the parameters that did best on validation pairs; made by `tune`.

    Attributes
    ----------
    metric
        What was tuned for: ``"psnr"`` or ``"ssim"``.
    score
        The mean of `metric` over the pairs, with `parameters`.
    default_parameters
        The library's own.
    default_score
        The mean of `metric` over the pairs with those; never above `score`.
    on_grid_edge
        The parameters whose chosen value is the least or the greatest of its grid: a wider grid might do better.
    """

    metric: str
    score: float
    default_parameters: Mapping[str, Parameter]
    default_score: float
    on_grid_edge: tuple[str, ...]


# ---------------------------------------------------------------------------------------------------------- filters


def _median(image: Image, sigma: float, *, size: int) -> Image:
    filtered: Image = ndimage.median_filter(image, size)
    return filtered


def _gaussian(image: Image, sigma: float, *, std: float) -> Image:
    filtered: Image = ndimage.gaussian_filter(image, std)
    return filtered


def _bilateral(image: Image, sigma: float, *, color: float | None, spatial: float) -> Image:
    """Tomasi and Manduchi, ICCV 1998; window, truncation and defaults as in scikit-image's ``denoise_bilateral``.

    Not that function itself: up to version 0.26 at least it reads its table of spatial weights, which has
    ``(win_size + 1)**2`` entries, as one of ``win_size**2``, so the kernel comes out scrambled and off-centre; it
    widens the range kernel of images with negative values; and it quantises the range.
    """
    if color is not None and sigma < _NO_NOISE:
        return image
    range_std = float(image.std()) if color is None else color * sigma
    radius = max(2, math.ceil(3 * spatial))
    padded = np.pad(image, radius, mode="symmetric")
    height, width = image.shape
    total, weights = np.zeros_like(image), np.zeros_like(image)
    for row, column in itertools.product(range(2 * radius + 1), repeat=2):
        neighbour = padded[row : row + height, column : column + width]
        distance = ((row - radius) ** 2 + (column - radius) ** 2) / spatial**2
        weight = (neighbour - image) / np.float32(range_std)
        weight *= weight
        weight += np.float32(distance)
        weight *= np.float32(-0.5)
        np.exp(weight, out=weight)
        weights += weight
        weight *= neighbour
        total += weight
    filtered: Image = total / weights
    return filtered


def _wavelet(image: Image, sigma: float, *, wavelet: str, levels: int | None, mode: str) -> Image:
    """BayesShrink: Chang, Yu and Vetterli, IEEE Transactions on Image Processing 9(9), 2000.

    Equal to scikit-image's ``denoise_wavelet`` with sigma given, without its warning that more `levels` than the
    size allows make the borders matter (which does not keep them from being the best).
    """
    import pywt

    if sigma < _NO_NOISE:
        return image
    if levels is None:
        levels = max(pywt.dwtn_max_level(image.shape, wavelet) - 3, 1)
    approximation, details = image, []
    for _ in range(levels):
        shape = approximation.shape
        bands = pywt.dwtn(approximation, wavelet)
        approximation = bands.pop("aa")
        details.append((shape, {key: _bayes_shrink(band, sigma, mode) for key, band in bands.items()}))
    for (height, width), bands in reversed(details):
        approximation = pywt.idwtn({"aa": approximation, **bands}, wavelet)[:height, :width]
    return approximation


def _bayes_shrink(band: Image, sigma: float, mode: str) -> Image:
    import pywt

    signal_variance = float(np.mean(np.square(band, dtype=np.float64))) - sigma**2
    if signal_variance <= 0:
        return np.zeros_like(band)
    shrunk: Image = pywt.threshold(band, sigma**2 / math.sqrt(signal_variance), mode)
    return shrunk


def _tv(image: Image, sigma: float, *, weight: float | None, eps: float) -> Image:
    """Rudin, Osher and Fatemi's model by Chambolle's algorithm, J. Math. Imaging Vision 20, 2004."""
    from skimage.restoration import denoise_tv_chambolle

    if weight is not None and sigma < _NO_NOISE:
        return image
    strength = 0.1 if weight is None else weight * sigma
    filtered: Image = denoise_tv_chambolle(image, weight=strength, eps=eps)  # type: ignore[no-untyped-call]
    return filtered


def _nlm(image: Image, sigma: float, *, patch_size: int, patch_distance: int, h: float | None) -> Image:
    """Non-local means: Buades, Coll and Morel, CVPR 2005, with the noise variance taken off the distances."""
    from skimage.restoration import denoise_nl_means

    if h is not None and sigma < _NO_NOISE:
        return image
    strength = {} if h is None else {"h": h * sigma, "sigma": sigma}
    filtered: Image = denoise_nl_means(image, patch_size, patch_distance, fast_mode=True, **strength)
    return filtered.reshape(image.shape)  # it drops axes of length 1


def _bm3d(image: Image, sigma: float, *, factor: float) -> Image:
    """Dabov, Foi, Katkovnik and Egiazarian, IEEE Transactions on Image Processing 16(8), 2007; the authors' code."""
    import bm3d

    if sigma < _NO_NOISE:
        return image
    # bm3d 4.0.3 crashes the interpreter on 8x8 pixels and refuses fewer than 8 in a row.
    missing = [max(0, 16 - size) for size in image.shape]
    padded = np.pad(image, [(0, count) for count in missing], mode="symmetric")
    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # with more of them the last digits differ from run to run
    filtered: Image = bm3d.bm3d(padded, sigma_psd=factor * sigma, profile=profile)
    return filtered[: image.shape[0], : image.shape[1]]


# ----------------------------------------------------------------------------------------- parameters and their grids


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
class _Family:
    denoise: Callable[..., Image]
    parameters: Mapping[str, _Declared]
    packages: tuple[str, ...]

    @property
    def defaults(self) -> dict[str, Parameter]:
        return {key: declared.default for key, declared in self.parameters.items()}

    @property
    def candidates(self) -> list[dict[str, Parameter]]:
        """The defaults, then the whole grid."""
        axes = [declared.grid for declared in self.parameters.values()]
        grid = [dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*axes)]
        return [self.defaults, *(point for point in grid if point != self.defaults)]


# Canonical order: the simplest first. For Gaussian noise of 5 to 50/255 on photographs, CT, mammograms and cephalograms
# of 64x64 and 128x128 pixels the best point lies inside the grid; but for NL-means at 50/255, where patches and
# distances half as large again gained less than 0.1 dB in several times the time. Tuning all but BM3D on six images of
# 128x128 takes 17 seconds of one core, most of them for NL-means.
_FAMILIES: dict[str, _Family] = {
    "median": _Family(
        _median,
        {"size": _Declared(3, (3, 5, 7, 9, 11, 15, 19), _whole(1, odd=True), least=3)},
        ("scipy",),
    ),
    "gaussian": _Family(
        _gaussian,
        {"std": _Declared(1.0, (0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), _positive)},
        ("scipy",),
    ),
    "bilateral": _Family(
        _bilateral,
        {
            "color": _Declared(None, (1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 16.0), _or_none(_positive)),
            "spatial": _Declared(1.0, (0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), _positive),
        },
        ("numpy",),
    ),
    "wavelet": _Family(
        _wavelet,
        {
            "wavelet": _Declared("db1", ("db1", "sym4", "sym8", "coif2"), _orthogonal_wavelet),
            "levels": _Declared(None, (1, 2, 3, 4, 5, 6), _or_none(_whole(1)), least=1),
            "mode": _Declared("soft", ("soft", "hard"), _threshold_mode),
        },
        ("PyWavelets",),
    ),
    "tv": _Family(
        _tv,
        {
            "weight": _Declared(None, (0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0), _or_none(_positive)),
            "eps": _Declared(2e-4, (2e-4, 1e-5), _positive),
        },
        ("scikit-image",),
    ),
    "nlm": _Family(
        _nlm,
        {
            "patch_size": _Declared(7, (3, 5, 7, 9, 13), _whole(1, odd=True)),
            "patch_distance": _Declared(11, (1, 2, 3, 5, 9), _whole(1), least=1),
            "h": _Declared(None, (0.4, 0.6, 0.8, 1.1, 1.5), _or_none(_positive)),
        },
        ("scikit-image",),
    ),
    "bm3d": _Family(
        _bm3d,
        {"factor": _Declared(1.0, (0.9, 1.0, 1.1, 1.2, 1.3), _positive)},
        ("bm3d", "bm4d"),
    ),
}


def available_baselines() -> list[str]:
    """Names of the baselines that can be used here, the simplest first.

    ``"bm3d"`` is among them only where the package of that name can be imported. Its licence allows non-commercial
    use only, so it is never required.
    """
    return [name for name in _FAMILIES if name != "bm3d" or _has_bm3d()]


def make_baseline(name: str, **parameters: object) -> ClassicalBaseline:
    """A classical denoiser with the library's default parameters, or yours.

    Parameters
    ----------
    name
        ``"median"``, ``"gaussian"``, ``"bilateral"``, ``"wavelet"``, ``"tv"``, ``"nlm"`` or, where installed,
        ``"bm3d"``.
    **parameters
        ``median``: `size` in pixels.
        ``gaussian``: `std` in pixels.
        ``bilateral``: `color`, standard deviation of the range kernel as a factor of sigma (None: the image's own
        standard deviation), and `spatial` in pixels.
        ``wavelet``: `wavelet` (orthogonal), `levels` (None: three fewer than possible), `mode` (``"soft"`` or
        ``"hard"``).
        ``tv``: `weight` as a factor of sigma (None: 0.1), and `eps`, the relative decrease at which it stops.
        ``nlm``: `patch_size` and `patch_distance` in pixels, `h` as a factor of sigma (None: 0.1, and sigma unused).
        ``bm3d``: `factor` on sigma.

    Raises
    ------
    UsageError
        The name, a parameter or its value is wrong, or the package behind it is not installed.
    """
    family = _family(name)
    for key in parameters:
        if key not in family.parameters:
            raise UsageError(f"the baseline {name!r} has no parameter {key!r}", nearest(key, family.parameters))
    chosen = family.defaults
    for key, value in parameters.items():
        try:
            chosen[key] = family.parameters[key].parse(value)
        except ValueError as error:
            tried = ", ".join(map(repr, family.parameters[key].grid))
            raise UsageError(f"{key} of the baseline {name!r} {error}, got {value!r}", f"usual: {tried}") from None
    return ClassicalBaseline(name, chosen)


def estimate_sigma(image: ArrayLike) -> float:
    """Standard deviation of the Gaussian noise in an image, from the image alone.

    The median of the absolute diagonal detail coefficients of its ``db2`` wavelet transform over 0.6745 (Donoho and
    Johnstone, Biometrika 81(3), 1994), as scikit-image's ``estimate_sigma``; coefficients that are 0 but for rounding,
    such as those of a flat background, do not count. For noise that was clipped or smoothed it is too low.

    Parameters
    ----------
    image
        ``(H, W)``, or ``(D, H, W)`` for one estimate over all slices.

    Returns
    -------
    float
        In the image's units; 0 where there are no details at all, as in a constant image.

    Raises
    ------
    InputError
        The image has a wrong shape or dtype, or values that are not finite.
    """
    import pywt

    values = _checked_image(image).astype(np.float64)
    details = np.abs(pywt.dwtn(values, "db2", axes=(-2, -1))["dd"])
    details = details[details > 1e-12 * np.abs(values).max()]
    third_quartile_of_normal = 0.6744897501960817
    return float(np.median(details)) / third_quartile_of_normal if details.size else 0.0


# ----------------------------------------------------------------------------------------------------------- tuning


@dataclass(frozen=True)
class _Case:
    """A validation pair ``(D, H, W)`` and the sigma of each slice."""

    clean: Image
    noisy: Image
    sigmas: tuple[float, ...]


def tune(
    name: str,
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    sigma: float | Sequence[float] | None,
    metric: str = "psnr",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> TunedBaseline:
    """Choose a baseline's parameters: the best mean of `metric` over `pairs`, of its defaults and its whole grid.

    Parameters
    ----------
    name
        One of `available_baselines`.
    pairs
        ``(clean, noisy)`` images ``(H, W)`` or volumes ``(D, H, W)`` on the [0, 1] scale. Never the test images.
    sigma
        Standard deviation of their noise on that scale; one for each pair; or None, which estimates it from each
        noisy image, slice by slice.
    metric
        ``"psnr"`` or ``"ssim"`` (by the definition ``"gaussian"``), with a data range of 1.
    cache_dir
        Where to keep the outcome as JSON; made if absent. It is taken from there if pairs, sigma, metric, grid and
        the versions of the packages at work are all the same.
    progress
        Is called after each try with the baseline's name, the number of tries done and of tries in all.

    Raises
    ------
    UsageError
        The name or the metric is unknown, or sigma is negative or not one for each pair.
    InputError
        There are no pairs, or one has wrong or unlike shapes, or values that are not finite.
    """
    return tune_all(pairs, sigma, metric, names=[name], cache_dir=cache_dir, progress=progress)[name]


def tune_all(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    sigma: float | Sequence[float] | None,
    metric: str = "psnr",
    names: Sequence[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, TunedBaseline]:
    """Tune several baselines on the same pairs.

    Parameters
    ----------
    pairs, sigma, metric, cache_dir
        As for `tune`.
    names
        Which ones; None is all of `available_baselines`.
    progress
        Is called after each try with the baseline's name, the number of tries done and of tries in all, which count
        those of all the baselines.

    Returns
    -------
    dict
        The tuned baselines by name, in the order asked for.

    Raises
    ------
    UsageError, InputError
        As for `tune`, before any time is spent.
    """
    families = {name: _family(name) for name in (available_baselines() if names is None else names)}
    if metric not in _METRICS:
        raise UsageError(f"baselines cannot be tuned for {metric!r}", nearest(metric, _METRICS))
    cases = _cases(pairs, sigma)
    folder = None if cache_dir is None else Path(cache_dir)
    digest = "" if folder is None else _digest(cases)
    total = sum(len(family.candidates) for family in families.values())
    done, tuned = 0, {}
    for name, family in families.items():
        key = "" if folder is None else _cache_key(name, family, metric, digest)
        best = None if folder is None else _read_cache(folder, name, key)
        if best is None:
            scores = []
            for parameters in family.candidates:
                scores.append(_mean_score(ClassicalBaseline(name, parameters), cases, metric))
                if progress is not None:
                    progress(name, done + len(scores), total)
            best = _best(name, family, metric, scores)
            if folder is not None:
                _write_cache(folder, name, key, best)
        elif progress is not None:
            progress(name, done + len(family.candidates), total)
        done += len(family.candidates)
        tuned[name] = best
    return tuned


def _best(name: str, family: _Family, metric: str, scores: Sequence[float]) -> TunedBaseline:
    chosen = int(np.argmax(scores))
    parameters = family.candidates[chosen]
    return TunedBaseline(
        name=name,
        parameters=parameters,
        metric=metric,
        score=scores[chosen],
        default_parameters=family.defaults,
        default_score=scores[0],
        on_grid_edge=tuple(key for key, value in parameters.items() if family.parameters[key].at_edge(value)),
    )


def _mean_score(baseline: Baseline, cases: Sequence[_Case], metric: str) -> float:
    def denoise(case: _Case) -> Image:
        return np.stack([baseline(part, sigma) for part, sigma in zip(case.noisy, case.sigmas, strict=True)])

    return float(np.mean([_METRICS[metric](case.clean, denoise(case), 1.0) for case in cases]))


def _cases(pairs: Sequence[tuple[ArrayLike, ArrayLike]], sigma: float | Sequence[float] | None) -> list[_Case]:
    if len(pairs) == 0:
        raise InputError("there are no pairs to tune baselines on", "give at least one clean and noisy image")
    sigmas = list(sigma) if isinstance(sigma, Sequence | np.ndarray) else [sigma] * len(pairs)
    if len(sigmas) != len(pairs):
        raise UsageError(
            f"{len(sigmas)} values of sigma for {len(pairs)} pairs", "give one number, or one for each pair"
        )
    return [_case(clean, noisy, level) for (clean, noisy), level in zip(pairs, sigmas, strict=True)]


def _case(clean: ArrayLike, noisy: ArrayLike, sigma: float | None) -> _Case:
    images = [_checked_image(image) for image in (clean, noisy)]
    if images[0].shape != images[1].shape:
        raise InputError(
            f"a clean image has shape {images[0].shape}, its noisy one {images[1].shape}", "pair images of one shape"
        )
    first, second = (image.reshape(-1, *image.shape[-2:]) for image in images)
    sigmas = [estimate_sigma(part) if sigma is None else _checked_sigma(sigma) for part in second]
    return _Case(first, second, tuple(sigmas))


def _digest(cases: Sequence[_Case]) -> str:
    digest = hashlib.sha256()
    for case in cases:
        digest.update(repr((case.clean.shape, case.sigmas)).encode())
        digest.update(np.ascontiguousarray(case.clean).tobytes())
        digest.update(np.ascontiguousarray(case.noisy).tobytes())
    return digest.hexdigest()


def _cache_key(name: str, family: _Family, metric: str, digest: str) -> str:
    versions = {package: _version(package) for package in family.packages}
    everything = [_REVISION, name, metric, family.candidates, versions, digest]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _cache_file(folder: Path, name: str, key: str) -> Path:
    return folder / f"{name}-{key[:16]}.json"


def _read_cache(folder: Path, name: str, key: str) -> TunedBaseline | None:
    path = _cache_file(folder, name, key)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != key:
            raise ValueError("it belongs to another tuning")
        return TunedBaseline(
            name=name,
            parameters=make_baseline(name, **content["parameters"]).parameters,
            metric=str(content["metric"]),
            score=float(content["score"]),
            default_parameters=make_baseline(name, **content["default_parameters"]).parameters,
            default_score=float(content["default_score"]),
            on_grid_edge=tuple(map(str, content["on_grid_edge"])),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, UsageError) as error:
        _log.warning("the cached tuning in %s cannot be used (%s); tuning again", path, error)
        return None


def _write_cache(folder: Path, name: str, key: str, tuned: TunedBaseline) -> None:
    path = _cache_file(folder, name, key)
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"key": key, **asdict(tuned)}, indent=4) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        # The outcome is at hand; only the next run will have to find it again.
        _log.warning("the tuning of %s could not be kept in %s (%s)", name, folder, error)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


# ----------------------------------------------------------------------------------------------------------- checks


def _family(name: str) -> _Family:
    if name not in _FAMILIES:
        raise UsageError(f"there is no baseline {name!r}", nearest(str(name), _FAMILIES))
    if name == "bm3d" and not _has_bm3d():
        raise UsageError(
            "the baseline 'bm3d' is not installed", "pip install bm3d (its licence allows non-commercial use only)"
        )
    return _FAMILIES[name]


def _has_bm3d() -> bool:
    try:
        import bm3d  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def _checked_image(image: ArrayLike) -> Image:
    values = np.asarray(image)
    if values.dtype.kind not in "biuf":
        raise InputError(f"an image has dtype {values.dtype}", "give real numbers")
    if values.ndim not in (2, 3) or values.size == 0:
        raise InputError(f"an image has shape {values.shape}", "give (H, W) or (D, H, W), not empty")
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InputError("an image has values that are NaN or infinite", "mask or replace them first")
    return values


def _checked_sigma(sigma: float) -> float:
    if isinstance(sigma, bool) or not isinstance(sigma, numbers.Real) or not 0 <= float(sigma) < math.inf:
        raise UsageError(f"sigma must be a number that is not negative, got {sigma!r}", "give it on the [0, 1] scale")
    return float(sigma)
