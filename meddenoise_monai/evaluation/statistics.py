"""Means and verdicts as they stand in ``results.json``."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..comparisons import VerdictWord, verdicts
from ..intervals import FEWEST_PATIENTS, bootstrap_interval

__all__ = ["mean_entry", "paired_entries", "verdict_entries", "word_of"]


def mean_entry(values: Sequence[float | None], patients: Sequence[Hashable], seed: int = 0) -> dict[str, Any] | None:
    """``{"mean", "ci95"}`` of those values that are there (see `bootstrap_interval`), or None if none is."""
    known = [(value, who) for value, who in zip(values, patients, strict=True) if value is not None]
    if not known:
        return None
    numbers, whose = [value for value, _ in known], [who for _, who in known]
    return {"mean": float(np.mean(numbers)), "ci95": bootstrap_interval(numbers, whose, seed=seed)}


def verdict_entries(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    patients: Sequence[Hashable],
    ours: str,
    metrics: Mapping[str, bool],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """`comparisons.verdicts`, each as a flat object: the difference is ours against the other, positive if better."""
    return [
        {"other": v.other, "metric": v.metric, **asdict(v.difference), "adjusted_p": v.adjusted_p, "word": v.word}
        for v in verdicts(values, patients, ours, metrics, seed=seed)
    ]


def paired_entries(
    values: Mapping[str, Sequence[float | None]], whose: Sequence[Hashable], ours: str, higher: bool, seed: int
) -> dict[str, Any]:
    """Ours less each other method, on the same images; its word goes by the interval alone."""
    found: dict[str, Any] = {}
    for name, theirs in values.items():
        pairs = zip(values[ours], theirs, whose, strict=True)
        known = [(mine - other, who) for mine, other, who in pairs if mine is not None and other is not None]
        if name == ours or not known:
            continue
        differences, patients = [difference for difference, _ in known], [who for _, who in known]
        interval = bootstrap_interval(differences, patients, seed=seed)
        gained = interval if higher or interval is None else (-interval[1], -interval[0])
        found[name] = {"difference": float(np.mean(differences)), "ci95": interval, "word": word_of(gained, patients)}
    return found


def word_of(interval: tuple[float, float] | None, patients: Iterable[Hashable]) -> VerdictWord:
    """By the interval of a gain, if there are patients enough for one."""
    if interval is None or len(set(patients)) < FEWEST_PATIENTS:
        return "too few patients"
    if interval[0] <= 0 <= interval[1]:
        return "no difference shown"
    return "better" if interval[0] > 0 else "worse"
