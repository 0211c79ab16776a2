"""Figures of merit of two classes of scores, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from ..errors import InputError, UsageError
from .inputs import Array, Groups, Interval, checked

__all__ = [
    "Comparison",
    "Detectability",
    "Scores",
    "auc",
    "check_level",
    "compare_methods",
    "delong_interval",
    "delong_variance",
    "describe_scores",
    "dprime",
]


class Scores(NamedTuple):
    """What an observer says of each image, the higher the surer of a signal: (N1,) with and (N0,) without one."""

    present: Array
    absent: Array


@dataclass(frozen=True)
class Detectability:
    """How well a signal is detected: d' and AUC, each with the bootstrap interval over groups; AUC also by DeLong.

    `present` and `absent` count the images, `groups` the patients (or the images, where no groups were given). DeLong's
    interval takes all images as independent: with groups it is too narrow.
    """

    dprime: float
    dprime_interval: Interval
    auc: float
    auc_interval: Interval
    auc_delong: Interval
    present: int
    absent: int
    groups: int


@dataclass(frozen=True)
class Comparison:
    """What the second method has more than the first, in AUC and in d', with paired bootstrap intervals."""

    auc: float
    auc_interval: Interval
    dprime: float
    dprime_interval: Interval


def dprime(present: ArrayLike, absent: ArrayLike) -> float:
    """Detectability ``d' = (mean1 - mean0) / sqrt((variance1 + variance0) / 2)`` of scores (N1,) and (N0,).

    The variances are unbiased. For normal scores AUC is Phi(d' / sqrt(2)) (Barrett and Myers 2004, section 13.2).

    Raises
    ------
    InputError
        If there are fewer than two finite scores of a class, or they do not vary.
    """
    first, second = _scores(present, absent)
    return float((first.mean() - second.mean()) / math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2))


def auc(present: ArrayLike, absent: ArrayLike) -> float:
    """Area under the ROC curve of scores (N1,) and (N0,), in [0, 1]: Mann and Whitney's U / (N1 N0), with midranks.

    The chance that an image with a signal scores higher than one without; ties count half (Bamber, Journal of
    Mathematical Psychology 12, 1975).

    Raises
    ------
    InputError
        If there are fewer than two finite scores of a class, or they do not vary.
    """
    first, second = _scores(present, absent)
    ranks = rankdata(np.concatenate([first, second]))[: len(first)]
    return float((ranks.sum() - len(first) * (len(first) + 1) / 2) / (len(first) * len(second)))


def delong_variance(present: ArrayLike, absent: ArrayLike) -> float:
    """Variance of `auc` (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988), for independent images.

    From midranks, as Sun and Xu (IEEE Signal Processing Letters 21(11), 2014) do, which gives the same number.

    Raises
    ------
    InputError
        If there are fewer than two finite scores of a class, or they do not vary.
    """
    first, second = _scores(present, absent)
    ranks = rankdata(np.concatenate([first, second]))
    of_present = (ranks[: len(first)] - rankdata(first)) / len(second)
    of_absent = 1 - (ranks[len(first) :] - rankdata(second)) / len(first)
    return float(of_present.var(ddof=1) / len(first) + of_absent.var(ddof=1) / len(second))


def delong_interval(present: ArrayLike, absent: ArrayLike, level: float = 0.95) -> Interval:
    """AUC plus and minus z times DeLong's standard error, cut to [0, 1]; of no width where the classes part wholly.

    Raises
    ------
    InputError
        As `delong_variance`.
    UsageError
        If `level` does not lie between 0 and 1.
    """
    check_level(level)
    area = auc(present, absent)
    half = float(ndtri((1 + level) / 2)) * math.sqrt(delong_variance(present, absent))
    return max(0.0, area - half), min(1.0, area + half)


def describe_scores(
    scores: Scores | tuple[ArrayLike, ArrayLike],
    groups: Groups | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Detectability:
    """d' and AUC of scores, with percentile bootstrap intervals over groups (Efron 1981).

    Groups are drawn with replacement, each with all of its images (see `intervals.bootstrap_means`, which knows only
    means), and apart for groups with images of one class, the other, and both, so that no draw lacks a class. The
    scores are taken as they are: how much another training set would change the observer is not in the intervals.

    Parameters
    ----------
    scores
        (N1,) with and (N0,) without a signal, neither of them used in training.
    groups
        Whom (or what) each of the N1 and N0 images shows. Images that share a patient or a background belong together,
        in both classes: a signal inserted into an image and the image itself are of one group. None: all independent.
    level
        Of the intervals.
    draws
        How many samples; memory is proportional to draws times images.
    seed
        Of the random numbers.

    Raises
    ------
    InputError
        If the scores are not finite, do not vary, or a class has fewer than two images or groups.
    UsageError
        If `level` does not lie between 0 and 1, `draws` is not positive, or there is not one group for each score.
    """
    first, second = _scores(*scores)
    (draw,) = _bootstrap([Scores(first, second)], groups, level, draws, seed)
    return Detectability(
        dprime(first, second),
        _percentiles(draw[0], level),
        auc(first, second),
        _percentiles(draw[1], level),
        delong_interval(first, second, level),
        len(first),
        len(second),
        int(_codes(groups, len(first), len(second)).max()) + 1,
    )


def compare_methods(
    first: Scores | tuple[ArrayLike, ArrayLike],
    second: Scores | tuple[ArrayLike, ArrayLike],
    groups: Groups | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """What the second method has more than the first on the same images: differences with paired bootstrap intervals.

    Both methods are scored on the same samples of groups, so what makes an image hard for both cancels out (Davison
    and Hinkley, *Bootstrap methods and their application*, 1997). The same scores differ by exactly 0.

    Parameters
    ----------
    first, second
        (N1,) with and (N0,) without a signal; image i of one is image i of the other, denoised otherwise. From
        `held_out_scores` with the same groups, folds and seed.
    groups, level, draws, seed
        As in `describe_scores`.

    Raises
    ------
    InputError
        As `describe_scores`, or if the methods have not the same number of images.
    UsageError
        As `describe_scores`.
    """
    pair = [Scores(*_scores(*first)), Scores(*_scores(*second))]
    if len(pair[0].present) != len(pair[1].present) or len(pair[0].absent) != len(pair[1].absent):
        counts = " and ".join(f"{len(each.present)} + {len(each.absent)}" for each in pair)
        raise InputError(f"the methods have {counts} images", "compare them on the same images")
    draw_first, draw_second = _bootstrap(pair, groups, level, draws, seed)
    difference = draw_second - draw_first
    return Comparison(
        auc(*pair[1]) - auc(*pair[0]),
        _percentiles(difference[1], level),
        dprime(*pair[1]) - dprime(*pair[0]),
        _percentiles(difference[0], level),
    )


def _bootstrap(methods: Sequence[Scores], groups: Groups | None, level: float, draws: int, seed: int) -> list[Array]:
    """(2, draws) of d' and AUC for each method, all of them on the same samples of groups."""
    check_level(level)
    if draws < 1:
        raise UsageError(f"no interval from {draws} draws", "1000 or more are usual")
    count = len(methods[0].present)
    codes = _codes(groups, count, len(methods[0].absent))
    fewest = min(len(set(codes[:count].tolist())), len(set(codes[count:].tolist())))
    if fewest < 2:
        raise InputError(f"a class has images of {fewest} group(s), too few for an interval", "add patients")
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, codes.max() + 1))
    for members in _strata(codes, count):
        if size := members.size:
            picked = rng.integers(size, size=(draws, size)) + size * np.arange(draws)[:, None]
            drawn[:, members] = np.bincount(picked.ravel(), minlength=draws * size).reshape(draws, size)
    weights = drawn[:, codes[:count]], drawn[:, codes[count:]]
    return [np.stack([_weighted_dprime(*scores, *weights), _weighted_auc(*scores, *weights)]) for scores in methods]


def _weighted_dprime(present: Array, absent: Array, of_present: Array, of_absent: Array) -> Array:
    """d' of each sample (draws,), an image counted as often as its weight (draws, N) says; NaN where none varies."""
    # Variances do not depend on an offset, but the mean of squares minus the squared mean loses its digits to one.
    offset = (present.mean() + absent.mean()) / 2
    means, variances = [], []
    for values, weights in ((present - offset, of_present), (absent - offset, of_absent)):
        total = weights.sum(axis=1)
        mean = weights @ values / total
        means.append(mean)
        variances.append((weights @ values**2 - total * mean**2) / (total - 1))
    variance = (variances[0] + variances[1]) / 2
    least = 1e-12 * (present.var() + absent.var())
    spread = np.sqrt(variance, out=np.full_like(variance, np.nan), where=variance > least)
    sampled: Array = (means[0] - means[1]) / spread
    return sampled


def _weighted_auc(present: Array, absent: Array, of_present: Array, of_absent: Array) -> Array:
    """AUC of each sample (draws,), an image counted as often as its weight (draws, N) says."""
    order = np.argsort(absent)
    below = np.pad(np.cumsum(of_absent[:, order], axis=1), ((0, 0), (1, 0)))
    first, last = (np.searchsorted(absent[order], present, side) for side in ("left", "right"))
    wins = (of_present * (below[:, first] + below[:, last])).sum(axis=1) / 2
    area: Array = wins / (of_present.sum(axis=1) * of_absent.sum(axis=1))
    return area


def _percentiles(sampled: Array, level: float) -> Interval:
    low, high = np.nanquantile(sampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _codes(groups: Groups | None, present: int, absent: int) -> NDArray[np.intp]:
    """(present + absent,) number of each image's group, in the order in which they come."""
    if groups is None:
        return np.arange(present + absent)
    if len(groups) != 2 or (len(groups[0]), len(groups[1])) != (present, absent):
        given = " and ".join(str(len(part)) for part in groups)
        raise UsageError(
            f"{given} groups for {present} images with a signal and {absent} without",
            "give one sequence for each class, with one group for each image",
        )
    labels = [*groups[0], *groups[1]]
    index = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return np.array([index[label] for label in labels], np.intp)


def _strata(codes: NDArray[np.intp], present: int) -> list[NDArray[np.intp]]:
    """The groups with images of both classes, of the first alone, and of the second alone."""
    size = int(codes.max(initial=-1)) + 1
    first, second = (np.bincount(part, minlength=size) > 0 for part in (codes[:present], codes[present:]))
    return [np.flatnonzero(chosen) for chosen in (first & second, first & ~second, second & ~first)]


def _scores(present: ArrayLike, absent: ArrayLike) -> tuple[Array, Array]:
    first, second = checked(present, "the scores with a signal", 1), checked(absent, "the scores without a signal", 1)
    if min(len(first), len(second)) < 2:
        raise InputError(f"{len(first)} scores with a signal, {len(second)} without", "give at least two of each")
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        raise InputError("the scores do not vary within either class", "give images with noise in them")
    return first, second


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UsageError(f"level must lie between 0 and 1, got {level}", "0.95 is usual")
