"""The answer of a comparison in plain words: first of all where our method is worse, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .findings import MEASURES, UNIFORM, WIDER, Content, Finding, find
from .limits import undecidable, undecidable_words
from .naming import joined, method_title, number

__all__ = ["Answer", "Point", "answer"]

TOO_FEW = "too few patients"


@dataclass(frozen=True)
class Point:
    """One measure of the answer: its name and what is to be said."""

    measure: str
    words: str


@dataclass(frozen=True)
class Answer:
    """Plain text.

    Attributes
    ----------
    headline
        Whether ours is worse anywhere.
    worse
        Titles (shown, measured without a test, not shown) and what stands below each; empty where ours is nowhere
        behind.
    better, undecided
        Where it is shown to be better, and where no difference is shown.
    caveat
        Where the tests could show nothing, whatever the images.
    """

    headline: str
    worse: tuple[tuple[str, tuple[Point, ...]], ...]
    better: tuple[Point, ...]
    undecided: tuple[Point, ...]
    caveat: str = ""


def answer(results: Content) -> Answer:
    """What a comparison says about ours (``results["conditions"][i]["ours"]``)."""
    ours = results["conditions"][0]["ours"]
    findings = find(results)
    shown = [each for each in findings if each.word == "worse"]
    untested = [each for each in findings if each.word == "untested" and each.behind]
    few = [each for each in findings if each.word == TOO_FEW and each.behind]
    leaning = [each for each in findings if each.word == "no difference shown" and each.behind]
    kind = results["protocol"]["methods"].get(ours, {}).get("kind", "network")
    subject = f"{ours} ({method_title(ours, kind)})"
    of_all = f"of {len({each.measure for each in findings})} measures"
    if shown:
        headline = f"{subject} is worse than at least one other method by {_counted(shown)} {of_all}."
    elif untested or few:
        headline = (
            f"By no tested measure is {subject} shown to be worse than another method; by {_counted(untested + few)} "
            f"{of_all}, without a test, it is behind one."
        )
    else:
        headline = f"By none {of_all} is {subject} shown to be worse than another method."
    titles = (
        ("Worse", shown),
        ("Behind on the phantom, where no test is made", untested),
        ("Behind on average, with too few patients for a test", few),
        ("Behind on average, without that being shown", leaning),
    )
    blocked = [entry for entry in results["conditions"] if undecidable(entry)]
    return Answer(
        headline,
        tuple((title, tuple(_behind(part, findings))) for title, part in titles if part),
        tuple(_better(findings)),
        tuple(_undecided(findings)),
        undecidable_words(blocked) if blocked else "",
    )


def _counted(findings: Sequence[Finding]) -> str:
    return str(len({each.measure for each in findings}))


def _by_measure(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    for key in MEASURES:
        if part := [each for each in findings if each.measure == key]:
            yield key, part


def _behind(behind: Sequence[Finding], findings: Sequence[Finding]) -> Iterator[Point]:
    """Of each measure: than which methods, how often, and the widest gap in images and in uniform fields."""
    for measure, part in _by_measure(behind):
        inside = [[each for each in part if each.where.startswith(UNIFORM) == uniform] for uniform in (False, True)]
        # Faint things are lost most easily where nothing is around them: that alone would hide what happens in images.
        gaps = joined(_gap(min(some, key=lambda each: each.gain)) for some in inside if some)
        others = list(dict.fromkeys(each.other for each in part if each.other))
        if len(part) == 1:
            yield Point(MEASURES[measure].phrase, gaps)
        else:
            than = f"than {joined(others)}" if others else "than asked for"
            yield Point(MEASURES[measure].phrase, f"{than}, {_settings(part, findings)}, at worst {gaps}")


def _gap(each: Finding) -> str:
    theirs = f"{_value(each.measure, each.theirs)} {f'of {each.other}' if each.other else 'asked for'}"
    return f"{_value(each.measure, each.ours)} against {theirs} ({each.where})"


def _better(findings: Sequence[Finding]) -> Iterator[Point]:
    for measure, part in _by_measure([each for each in findings if each.word == "better"]):
        others = list(dict.fromkeys(each.other for each in part if each.other))
        gains = sorted(abs(each.ours - each.theirs) for each in part)
        unit = MEASURES[measure].unit
        low, high = (_value(measure, gain).removesuffix(unit) for gain in (gains[0], gains[-1]))
        by = f"{low if low == high else f'{low} to {high}'}{' percentage points' if unit == ' %' else unit}"
        than = f"than {joined(others)}" if others else "than asked for"
        yield Point(MEASURES[measure].phrase, f"{than}, by {by}, {_settings(part, findings)}")


def _undecided(findings: Sequence[Finding]) -> Iterator[Point]:
    for word, why in (("no difference shown", ""), (TOO_FEW, ", with too few patients to show one")):
        for measure, part in _by_measure([each for each in findings if each.word == word]):
            others = list(dict.fromkeys(each.other for each in part if each.other))
            against = f"against {joined(others) if others else 'what was asked for'}"
            yield Point(MEASURES[measure].phrase, f"{against}, {_settings(part, findings)}{why}")
    if wide := [each for each in findings if each.word == WIDER]:
        most = max(wide, key=lambda each: each.ours)
        words = f"more than was asked for, {_settings(wide, findings)}, at most {_gap(most)}: wider than need be"
        yield Point(MEASURES["coverage"].phrase, words)


def _settings(part: Sequence[Finding], findings: Sequence[Finding]) -> str:
    asked = len({each.where for each in findings if each.measure == part[0].measure})
    return f"in {len({each.where for each in part})} of {asked} setting{'' if asked == 1 else 's'}"


def _value(measure: str, value: float) -> str:
    shown = MEASURES[measure]
    return number(shown.factor * value, shown.digits) + shown.unit
