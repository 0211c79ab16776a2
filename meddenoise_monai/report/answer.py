"""The answer of a comparison in plain words: first of all where our method is worse, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .findings import MEASURES, Content, Finding, find
from .naming import joined, number

__all__ = ["Answer", "answer"]


@dataclass(frozen=True)
class Answer:
    """Sentences, plain text.

    Attributes
    ----------
    headline
        Whether ours is worse anywhere.
    worse
        Where, with numbers; empty where it is not.
    better, undecided
        Where it is shown to be better, and where no difference is shown.
    """

    headline: str
    worse: tuple[str, ...]
    better: tuple[str, ...]
    undecided: tuple[str, ...]


def answer(results: Content) -> Answer:
    """What a comparison says about ours (``results["conditions"][i]["ours"]``)."""
    ours = results["conditions"][0]["ours"]
    findings = find(results)
    shown = [each for each in findings if each.word == "worse"]
    untested = [each for each in findings if each.word == "untested" and each.behind]
    leaning = [each for each in findings if each.word == "no difference shown" and each.behind]
    if shown:
        headline = f"{ours} is worse than at least one other method by {_counted(shown)}."
    elif untested:
        headline = (
            f"{ours} is behind at least one other method by {_counted(untested)}, of which no test was made; by no "
            "tested measure is it shown to be worse."
        )
    else:
        headline = f"By no measure is {ours} shown to be worse than another method."
    worse = [
        *(f"Shown: {_sentence(part)}." for part in _by_measure(shown)),
        *(f"Measured once, without a test: {_sentence(part)}." for part in _by_measure(untested)),
        *(f"On average behind, but not shown to be: {_sentence(part)}." for part in _by_measure(leaning)),
    ]
    return Answer(headline, tuple(worse), tuple(_better(findings, ours)), tuple(_undecided(findings)))


def _counted(findings: Sequence[Finding]) -> str:
    count = len({each.measure for each in findings})
    return "one measure" if count == 1 else f"{count} measures"


def _by_measure(findings: Sequence[Finding]) -> list[list[Finding]]:
    return [part for key in MEASURES if (part := [each for each in findings if each.measure == key])]


def _sentence(findings: Sequence[Finding]) -> str:
    """The widest gap to each other method, and where it is."""
    measure = findings[0].measure
    widest: dict[str, Finding] = {}
    for each in sorted(findings, key=lambda each: each.gain):
        widest.setdefault(each.other, each)
    places = {each.where for each in widest.values()}
    gaps = [
        f"{_value(measure, each.ours)} against {_value(measure, each.theirs)} "
        f"{f'of {each.other}' if each.other else 'asked for'}{'' if len(places) == 1 else f' ({each.where})'}"
        for each in widest.values()
    ]
    words = f"{MEASURES[measure].phrase}, {joined(gaps)}"
    if len(places) == 1:
        words += f" ({next(iter(places))})"
    everywhere = len({each.where for each in findings})
    return words if everywhere == 1 else f"{words}; the widest gaps of {everywhere} settings"


def _better(findings: Sequence[Finding], ours: str) -> list[str]:
    sentences = []
    for part in _by_measure([each for each in findings if each.word == "better"]):
        measure = part[0].measure
        others = list(dict.fromkeys(each.other for each in part if each.other))
        places = len({each.where for each in part})
        asked = len({each.where for each in findings if each.measure == measure})
        gains = sorted(abs(each.ours - each.theirs) for each in part)
        low, high = (_value(measure, gain) for gain in (gains[0], gains[-1]))
        by = low if low == high else f"{low.removesuffix(MEASURES[measure].unit)} to {high}"
        than = f"than {joined(others)}" if others else "than asked for"
        sentences.append(
            f"{MEASURES[measure].phrase}: better {than}, by {by}, in {places} of {asked} "
            f"{'setting' if asked == 1 else 'settings'}."
        )
    return sentences


def _undecided(findings: Sequence[Finding]) -> list[str]:
    sentences = []
    for part in _by_measure([each for each in findings if each.word == "no difference shown"]):
        others = list(dict.fromkeys(each.other for each in part if each.other))
        sentences.append(f"{MEASURES[part[0].measure].phrase}: {joined(others) if others else 'what was asked for'}.")
    return sentences


def _value(measure: str, value: Any) -> str:
    shown = MEASURES[measure]
    return number(shown.factor * value, shown.digits) + shown.unit
