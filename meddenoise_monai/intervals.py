"""How sure a mean is: bootstrap intervals over patients."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError

__all__ = ["FEWEST_PATIENTS", "bootstrap_interval", "bootstrap_means"]

FEWEST_PATIENTS = 10  # of whom an interval says something: with less it is too narrow


def bootstrap_means(
    values: Sequence[float], patients: Sequence[Hashable], draws: int = 10_000, seed: int = 0
) -> NDArray[np.float64]:
    """Means of `draws` samples of patients, drawn with replacement, each with all of her images.

    Images of one patient are alike, so drawing images would make every interval too narrow (the cluster bootstrap:
    Davison and Hinkley, *Bootstrap methods and their application*, 1997, section 3.8). The same seed and patients give
    the same samples, so the difference of two calls is that of paired samples.

    Parameters
    ----------
    values
        One number an image.
    patients
        Whom each image shows.
    draws
        How many samples.
    seed
        Of the random numbers.

    Returns
    -------
    NDArray[np.float64]
        (draws,)

    Raises
    ------
    UsageError
        If there are no values, or not one patient for each.
    """
    if len(values) != len(patients) or len(values) == 0:
        raise UsageError(f"{len(values)} values of {len(patients)} patients", "give one patient for each value")
    index = {patient: place for place, patient in enumerate(dict.fromkeys(patients))}
    of = [index[patient] for patient in patients]
    counts = np.bincount(of).astype(np.float64)
    sums = np.bincount(of, np.asarray(values, np.float64))
    drawn = _drawn(len(counts), draws, seed)
    means: NDArray[np.float64] = drawn @ sums / (drawn @ counts)
    return means


@functools.lru_cache(maxsize=4)
def _drawn(patients: int, draws: int, seed: int) -> NDArray[np.float64]:
    """How often each patient is drawn (draws, patients). Kept: a table asks for the same samples for each number."""
    counts = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), draws)
    drawn: NDArray[np.float64] = counts.astype(np.float64)
    drawn.flags.writeable = False
    return drawn


def bootstrap_interval(
    values: Sequence[float], patients: Sequence[Hashable], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile interval of `bootstrap_means` (Efron 1981); None with fewer than two patients.

    With less than about `FEWEST_PATIENTS` it is too narrow, and only says that little is known.

    Raises
    ------
    UsageError
        As `bootstrap_means`, or if `level` does not lie between 0 and 1.
    """
    if not 0 < level < 1:
        raise UsageError(f"level must lie between 0 and 1, got {level}", "0.95 is usual")
    means = bootstrap_means(values, patients, draws, seed)
    if len(set(patients)) < 2:
        return None
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
