"""The tuning that makes a baseline worth beating, and the cache that keeps its outcome."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, UsageError, nearest
from ..metrics import psnr, ssim
from ..noise.estimation import estimate_sigma
from ..whole_files import replace_whole
from .classical import Baseline, ClassicalBaseline, checked_image, checked_sigma, make_baseline
from .filters import REVISION, Image
from .grids import Family, Parameter, available_baselines, family_of

__all__ = ["Progress", "TunedBaseline", "tune", "tune_all"]

_log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[str, int, int], None]

_METRICS: dict[str, Callable[[ArrayLike, ArrayLike, float], float]] = {"psnr": psnr, "ssim": ssim}
_HOPELESS = {"psnr": 1.0, "ssim": 0.05}  # so far behind the best on some of the pairs, nothing catches up on the others


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

    What is 1 dB (0.05 of SSIM) behind the best on the pairs so far is not tried on the others: a race, after Maron and
    Moore, NIPS 1993. The defaults stay in it to the end.

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
        Is called after each try, which is one point of the grid on one pair, with the baseline's name, the number of
        tries done (those spared count as done) and of tries in all.

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
        As for `tune`, the tries of all the baselines counted together.

    Returns
    -------
    dict
        The tuned baselines by name, in the order asked for.

    Raises
    ------
    UsageError, InputError
        As for `tune`, before any time is spent.
    """
    families = {name: family_of(name) for name in (available_baselines() if names is None else names)}
    if metric not in _METRICS:
        raise UsageError(f"baselines cannot be tuned for {metric!r}", nearest(metric, _METRICS))
    cases = _cases(pairs, sigma)
    folder = None if cache_dir is None else Path(cache_dir)
    digest = _digest(cases)
    tries = {name: len(family.candidates) * len(cases) for name, family in families.items()}
    total = sum(tries.values())
    begun, tuned = 0, {}
    for name, family in families.items():
        key = _cache_key(name, family, metric, digest)
        best = _read_cache(folder, name, key)
        if best is None:
            told = None if progress is None else functools.partial(_tell, progress, name, begun, total)
            best = _best(name, family, metric, _race(name, family, cases, metric, told))
            _write_cache(folder, name, key, best)
        begun += tries[name]
        if progress is not None:
            progress(name, begun, total)
        tuned[name] = best
    return tuned


def _tell(progress: Progress, name: str, begun: int, total: int, done: int) -> None:
    progress(name, begun + done, total)


def _race(
    name: str, family: Family, cases: Sequence[_Case], metric: str, told: Callable[[int], None] | None
) -> list[float]:
    """The mean of `metric` over the cases for each point of the grid; -inf for those that fell out."""
    tried = [ClassicalBaseline(name, parameters) for parameters in family.candidates]
    scores: list[list[float]] = [[] for _ in tried]
    racing, done = list(range(len(tried))), 0
    for count, case in enumerate(cases):
        done = count * len(tried)
        for number in racing:
            scores[number].append(_score(tried[number], case, metric))
            done += 1
            if told is not None and done < len(tried) * len(cases):
                told(done)
        best = max(np.mean(scores[number]) for number in racing)
        racing = [number for number in racing if number == 0 or np.mean(scores[number]) >= best - _HOPELESS[metric]]
    return [float(np.mean(found)) if len(found) == len(cases) else -math.inf for found in scores]


def _best(name: str, family: Family, metric: str, scores: Sequence[float]) -> TunedBaseline:
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


def _score(baseline: Baseline, case: _Case, metric: str) -> float:
    denoised = [baseline(part, sigma) for part, sigma in zip(case.noisy, case.sigmas, strict=True)]
    return _METRICS[metric](case.clean, np.stack(denoised), 1.0)


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
    images = [checked_image(image) for image in (clean, noisy)]
    if images[0].shape != images[1].shape:
        raise InputError(
            f"a clean image has shape {images[0].shape}, its noisy one {images[1].shape}", "pair images of one shape"
        )
    first, second = (image.reshape(-1, *image.shape[-2:]) for image in images)
    sigmas = [estimate_sigma(part) if sigma is None else checked_sigma(sigma) for part in second]
    return _Case(first, second, tuple(sigmas))


def _digest(cases: Sequence[_Case]) -> str:
    digest = hashlib.sha256()
    for case in cases:
        digest.update(repr((case.clean.shape, case.sigmas)).encode())
        digest.update(np.ascontiguousarray(case.clean).tobytes())
        digest.update(np.ascontiguousarray(case.noisy).tobytes())
    return digest.hexdigest()


def _cache_key(name: str, family: Family, metric: str, digest: str) -> str:
    everything = [REVISION, name, metric, family.candidates, family.versions, digest]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _cache_file(folder: Path, name: str, key: str) -> Path:
    return folder / f"{name}-{key[:16]}.json"


def _read_cache(folder: Path | None, name: str, key: str) -> TunedBaseline | None:
    if folder is None:
        return None
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


def _write_cache(folder: Path | None, name: str, key: str, tuned: TunedBaseline) -> None:
    if folder is None:
        return
    try:
        with replace_whole(_cache_file(folder, name, key)) as temporary:
            temporary.write_text(json.dumps({"key": key, **asdict(tuned)}, indent=4) + "\n", encoding="utf-8")
    except InputError as error:
        # The outcome is at hand; only the next run will have to find it again.
        _log.warning("the tuning of %s could not be kept: %s", name, error.message)
