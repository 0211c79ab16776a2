"""Is one method better than another on the same images: paired differences, many of them at once, and what errors are
made of.

`paired_difference` compares two methods by one metric, `verdicts` one method with several others by several metrics.
`split_error` parts the error of one method into what it always gets wrong and what changes with the noise.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .errors import InputError, UsageError, nearest
from .intervals import bootstrap_interval

__all__ = [
    "ErrorSplit",
    "PairedDifference",
    "Verdict",
    "VerdictWord",
    "holm",
    "paired_difference",
    "split_error",
    "verdicts",
]

VerdictWord: TypeAlias = Literal["better", "worse", "no difference shown", "too few patients"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class PairedDifference:
    """How much better one method is than another, by one metric. Positive is better, whichever way the metric counts.

    Attributes
    ----------
    difference
        The mean over the images, in the metric's units.
    interval
        The bootstrap interval over patients of `difference`; None with fewer than two patients.
    p_value
        Of Wilcoxon's signed-rank test, two-sided, on the means of the patients.
    rank_biserial
        The matched-pairs rank-biserial correlation of the patients' means, in [-1, 1].
    cohen_dz
        The mean of the patients' means in units of their standard deviation; None where they have no spread.
    images, patients
        How many.
    """

    difference: float
    interval: tuple[float, float] | None
    p_value: float
    rank_biserial: float
    cohen_dz: float | None
    images: int
    patients: int


@dataclass(frozen=True)
class Verdict:
    """One method against `other` by `metric`: the difference, its p-value adjusted for the family, and a word."""

    other: str
    metric: str
    difference: PairedDifference
    adjusted_p: float
    word: VerdictWord


@dataclass(frozen=True)
class ErrorSplit:
    """The mean squared error and its parts, in squared units of the image: ``mse = bias2 + variance``.

    Attributes
    ----------
    mse
        Mean squared error over the realisations and pixels.
    bias2
        Without bias itself, so a hair below 0 where there is no bias.
    variance
        Over the noise, mean over the pixels.
    """

    mse: float
    bias2: float
    variance: float


def paired_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    patients: Sequence[Hashable],
    higher_is_better: bool = True,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two methods on the same images.

    The interval is that of the cluster bootstrap (`intervals.bootstrap_interval`). The test and both effect sizes see
    one number a patient, the mean of her images, because images of one patient are not independent. Patients without
    any difference are left out of the test (Wilcoxon, *Biometrics Bulletin* 1(6), 1945), and so of its effect size, the
    difference of the shares of the rank sum that speak for and against (Kerby, *Comprehensive Psychology* 3, 2014).
    Cohen's d_z is *Statistical power analysis for the behavioral sciences*, 1988, section 2.3.5.

    Parameters
    ----------
    ours, theirs
        One number an image, in the same order.
    patients
        Whom each image shows.
    higher_is_better
        True for SSIM and PSNR, False for RMSE.
    level
        Of the interval.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    PairedDifference
        The p-value is exact for up to 50 patients whose differences are all distinct and for up to 13 with ties, else
        the normal approximation; it is 1 if all differences are 0. Five patients or fewer cannot get it below 0.05
        (``2 / 2**5`` is the least).

    Raises
    ------
    UsageError
        The numbers of values and patients differ or are 0, or `level` does not lie between 0 and 1.
    InputError
        A value is NaN or infinite.
    """
    if len(ours) != len(theirs):
        raise UsageError(f"{len(ours)} values of one method and {len(theirs)} of the other", "compare the same images")
    gained, lost = (ours, theirs) if higher_is_better else (theirs, ours)
    gains = np.asarray(gained, np.float64) - np.asarray(lost, np.float64)
    if not np.isfinite(gains).all():
        raise InputError("a value to compare is NaN or infinite", "leave its image out for both methods")
    interval = bootstrap_interval(list(gains), patients, level, draws, seed)
    index = {patient: place for place, patient in enumerate(dict.fromkeys(patients))}
    of = [index[patient] for patient in patients]
    means = np.bincount(of, gains) / np.bincount(of)
    changed = means[means != 0]
    return PairedDifference(
        difference=float(gains.mean()),
        interval=interval,
        p_value=float(stats.wilcoxon(changed).pvalue) if changed.size else 1.0,
        rank_biserial=_rank_biserial(changed),
        cohen_dz=_cohen_dz(means),
        images=len(gains),
        patients=len(means),
    )


def _rank_biserial(changes: NDArray[np.float64]) -> float:
    if not changes.size:
        return 0.0
    ranks = stats.rankdata(np.abs(changes))
    return float((np.sign(changes) * ranks).sum() / ranks.sum())


def _cohen_dz(means: NDArray[np.float64]) -> float | None:
    if means.size < 2:
        return None
    spread, mean = float(means.std(ddof=1)), float(means.mean())
    # Equal differences differ by their rounding, which is no spread.
    return mean / spread if spread > 1e-12 * abs(mean) else None


@overload
def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """By name."""


@overload
def holm(p_values: Sequence[float]) -> list[float]:
    """In order."""


def holm(p_values: Mapping[Key, float] | Sequence[float]) -> dict[Key, float] | list[float]:
    """P-values adjusted for a family of tests (Holm, *Scandinavian Journal of Statistics* 6, 1979).

    The k-th least of m p-values is multiplied by m - k + 1; none becomes less than one before it, nor more than 1.
    To reject where the adjusted value is below a level keeps the chance of any false rejection in the family below that
    level, however the tests depend on each other.

    Parameters
    ----------
    p_values
        By name or in order, each in [0, 1].

    Returns
    -------
    dict or list
        As given.

    Raises
    ------
    UsageError
        A value does not lie in [0, 1].
    """
    if isinstance(p_values, Mapping):
        return dict(zip(p_values, holm(list(p_values.values())), strict=True))
    values = np.asarray(p_values, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise UsageError("a p-value does not lie between 0 and 1", "give p-values that are not adjusted yet")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return [float(value) for value in np.minimum(adjusted, 1)]


def verdicts(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    patients: Sequence[Hashable],
    ours: str,
    metrics: Mapping[str, bool],
    level: float = 0.05,
    draws: int = 10_000,
    seed: int = 0,
) -> list[Verdict]:
    """Compare one method with all others by all metrics: one family of tests.

    A method is called better (or worse) only where all three agree: the p-value, adjusted by `holm` over all rows, is
    below `level`; the interval excludes 0; the ranks and the mean point the same way. Otherwise no difference is shown,
    which does not say that there is none. The intervals are those of single comparisons, not adjusted. Where even the
    least p-value that so many patients can give would not come out below `level`, there are too few of them.

    Parameters
    ----------
    values
        By method and metric: one number an image, all in the same order.
    patients
        Whom each image shows.
    ours
        The method that is compared with all others.
    metrics
        Whether higher is better, by metric.
    level
        Of significance; the intervals have the level ``1 - level``.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    list[Verdict]
        By method in the order of `values`, then by metric in the order of `metrics`.

    Raises
    ------
    UsageError
        As `paired_difference`, or `ours` or a metric is not among `values`.
    InputError
        As `paired_difference`.
    """
    if ours not in values:
        raise UsageError(f"no values of the method {ours!r}", nearest(ours, values))
    for method, of_method in values.items():
        for metric in metrics:
            if metric not in of_method:
                raise UsageError(f"no values of {metric!r} of the method {method!r}", nearest(metric, of_method))
    differences = {
        (other, metric): paired_difference(
            values[ours][metric], values[other][metric], patients, higher_is_better, 1 - level, draws, seed
        )
        for other in values
        if other != ours
        for metric, higher_is_better in metrics.items()
    }
    adjusted = holm({pair: difference.p_value for pair, difference in differences.items()})
    # The least p-value of the signed-rank test, all differences of one sign, is 2 / 2^n; `holm` makes the least of
    # many that many times as large.
    few = len(differences) * 2 / 2.0 ** len(set(patients)) >= level
    return [
        Verdict(
            *pair, difference, adjusted[pair], "too few patients" if few else _word(difference, adjusted[pair], level)
        )
        for pair, difference in differences.items()
    ]


def _word(difference: PairedDifference, adjusted_p: float, level: float) -> VerdictWord:
    if adjusted_p < level and difference.interval is not None:
        low, high = difference.interval
        if low > 0 and difference.rank_biserial > 0:
            return "better"
        if high < 0 and difference.rank_biserial < 0:
            return "worse"
    return "no difference shown"


def split_error(results: ArrayLike, reference: ArrayLike) -> ErrorSplit:
    """Part the mean squared error into squared bias and variance over the noise.

    After Geman, Bienenstock and Doursat, *Neural Computation* 4(1), 1992, with the noise for their training sets. Both
    parts are unbiased estimates: the variance has the denominator R - 1, and the squared bias of the mean result
    is lessened by variance / R, the noise left in that mean. What the one gains the other loses, so
    ``mse = bias2 + variance`` holds to rounding with the corrections as it does without them, and bias2 can come out
    below 0. It is not cut off there: a mean over scenes would else be too large.

    Parameters
    ----------
    results
        (R, H, W): one scene with R independent draws of the noise, denoised; R is at least 2.
    reference
        (H, W): the scene without noise.

    Raises
    ------
    InputError
        The shapes do not fit, there are fewer than two realisations, or a value is not finite.
    """
    stack, clean = np.asarray(results, np.float64), np.asarray(reference, np.float64)
    if stack.ndim != 3 or clean.ndim != 2 or stack.shape[1:] != clean.shape or clean.size == 0 or len(stack) < 2:
        raise InputError(
            f"results of shape {stack.shape} and a reference of shape {clean.shape}",
            "give (R, H, W) with R at least 2, and (H, W)",
        )
    if not (np.isfinite(stack).all() and np.isfinite(clean).all()):
        raise InputError("the images have values that are NaN or infinite", "mask or replace them first")
    variance = float(stack.var(axis=0, ddof=1).mean())
    bias2 = float(np.mean((stack.mean(axis=0) - clean) ** 2)) - variance / len(stack)
    mse = float(np.mean((stack - clean) ** 2))
    return ErrorSplit(mse, bias2, variance)
