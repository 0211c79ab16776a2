"""Where our method is better or worse than another one, by every measure that says which is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..evaluation.methods import NOISY
from ..evaluation.statistics import word_of
from .naming import CHANNELS, SIGNALS, condition_title

__all__ = ["MEASURES", "UNIFORM", "WIDER", "Finding", "Measure", "find"]

Content = Mapping[str, Any]

WIDER = "wider than asked"
UNIFORM = "uniform field"  # what the summary calls the data of signals that are not in images


@dataclass(frozen=True)
class Measure:
    """A measure by which methods are compared.

    Attributes
    ----------
    phrase
        What it is, in the middle of a sentence.
    higher
        Whether higher is better.
    digits, unit, factor
        How its values are written.
    against_noisy
        Whether the noisy input counts as a rival: it keeps all contrast and sharpness because nothing was done to it.
    """

    phrase: str
    higher: bool = True
    digits: int = 2
    unit: str = ""
    factor: float = 1.0
    against_noisy: bool = True


# What matters most to a reader of images stands first.
MEASURES: dict[str, Measure] = {
    "lesions": Measure("Contrast kept of annotated lesions", True, 1, " %", 100, False),
    "kept_contrast": Measure("Contrast kept of inserted discs", True, 1, " %", 100, False),
    "removed": Measure("Share of inserted discs lost", False, 1, " %", 100, False),
    "true_positive_rate": Measure("Share of inserted discs found", True, 1, " %", 100),
    "auc": Measure("How well a model observer finds inserted lesions (AUC)", True, 3),
    "invented": Measure("Errors that look like the disc, in an image", False, 1),
    "hallucination_rate": Measure("Share of patches with structure that the clean image lacks", False, 2, " %", 100),
    "recovery": Measure("Contrast recovered of the phantom’s disc", True, 0, " %", 100, False),
    "f50": Measure("Sharpness of the phantom’s edge, f50", True, 2, " cycles/pixel", 1, False),
    "cnr": Measure("Contrast-to-noise ratio of the phantom’s disc", True, 1),
    "psnr": Measure("PSNR", True, 2, " dB"),
    "ssim": Measure("SSIM", True, 4),
    "ms_ssim": Measure("MS-SSIM", True, 4),
    "coverage": Measure("Share of true values inside the stated uncertainty", True, 1, " %", 100),
}


@dataclass(frozen=True)
class Finding:
    """One method of ours against one other, by one measure in one place.

    Attributes
    ----------
    measure
        A key of `MEASURES`.
    where
        Data set, noise, and what else tells it from its like.
    other
        The other method; empty where ours is held against what was asked of it.
    ours, theirs
        The two values.
    interval
        Of their difference, ours less theirs; None where there is none.
    word
        ``better``, ``worse``, ``no difference shown`` or ``too few patients``; ``untested`` on the phantom, where
        nothing but the noise varies; ``wider than asked`` where an uncertainty holds more than it was to.
    """

    measure: str
    where: str
    other: str
    ours: float
    theirs: float
    interval: tuple[float, float] | None
    word: str

    @property
    def gain(self) -> float:
        """How much better ours is; negative if it is worse."""
        if self.measure == "recovery":  # too much contrast is as wrong as too little
            return abs(self.theirs - 1) - abs(self.ours - 1)
        return (self.ours - self.theirs) * (1 if MEASURES[self.measure].higher else -1)

    @property
    def behind(self) -> bool:
        """Whether ours is worse by what can be seen in the digits shown."""
        shown = MEASURES[self.measure]
        return self.gain < 0 and abs(self.gain) * shown.factor >= 0.5 * 10**-shown.digits


def find(results: Content) -> list[Finding]:
    """All findings of a comparison, by measure in the order of `MEASURES`."""
    everything = [*_lesions(results), *_observers(results), *_conditions(results), *_phantoms(results),
                  *_coverage(results)]  # fmt: skip
    order = list(MEASURES)
    return sorted(
        (each for each in everything if each.other != NOISY or MEASURES[each.measure].against_noisy),
        key=lambda each: order.index(each.measure),
    )


def _lesions(results: Content) -> Iterator[Finding]:
    for entry in results["lesions"]:
        kept = {name: value["mean"] for name, value in entry["kept"].items() if value is not None}
        yield from _paired("lesions", condition_title(entry), kept, entry["ours"], entry.get("differences", {}))


def _observers(results: Content) -> Iterator[Finding]:
    for entry in results["observers"]:
        ours, place = entry["ours"], condition_title(entry)
        where = f"{place}, {SIGNALS[entry['signal']]}, {CHANNELS[entry['channels']]} channels"
        for other, found in entry["differences"].items():
            mine, theirs = entry["methods"][ours], entry["methods"][other]
            if mine is not None and theirs is not None:
                yield Finding("auc", where, other, mine["auc"], theirs["auc"], _pair(found["auc_ci95"]), found["word"])
        for part in ("kept_contrast", "removed", "true_positive_rate", "invented") if "fate" in entry else ():
            means = {name: fate[part]["mean"] for name, fate in entry["fate"].items() if fate[part] is not None}
            yield from _paired(part, place, means, ours, entry.get("fate_differences", {}).get(part, {}))


def _conditions(results: Content) -> Iterator[Finding]:
    for entry in results["conditions"]:
        where, ours = condition_title(entry), entry["ours"]
        for verdict in entry["verdicts"]:
            mine, theirs = (entry["methods"][name][verdict["metric"]] for name in (ours, verdict["other"]))
            yield Finding(
                verdict["metric"], where, verdict["other"], mine["mean"], theirs["mean"], _pair(verdict["interval"]),
                verdict["word"],
            )  # fmt: skip
        rates = {name: means["hallucination_rate"] for name, means in entry["methods"].items()}
        known = {name: rate["mean"] for name, rate in rates.items() if rate is not None}
        yield from _paired("hallucination_rate", where, known, ours, entry.get("hallucination_differences", {}))


def _phantoms(results: Content) -> Iterator[Finding]:
    ours = results["conditions"][0]["ours"]
    for entry in results["phantoms"]:
        for edge in entry["edges"]:
            where = f"phantom, {condition_title(entry)}, contrast {grey_levels(edge['contrast'])}"
            for measure in ("recovery", "f50", "cnr"):
                values = {name: found[measure] for name, found in edge["methods"].items()}
                known = {name: value for name, value in values.items() if value is not None}
                yield from _paired(measure, where, known, ours, {})


def grey_levels(contrast: float) -> str:
    """A contrast of the [0, 1] scale in grey levels."""
    return f"{255 * contrast:.0f}/255"


def _coverage(results: Content) -> Iterator[Finding]:
    for entry in results.get("uncertainty", ()):
        found, asked = entry["coverage"], entry["asked"]
        ends = _pair(found.get("ci95"))
        interval = None if ends is None else (ends[0] - asked, ends[1] - asked)
        word = word_of(interval, range(entry["patients"]))
        # More than was asked for is a width that says less than it could, and no merit.
        shown = WIDER if word == "better" else word
        yield Finding("coverage", condition_title(entry), "", found["mean"], asked, interval, shown)


def _paired(
    measure: str, where: str, values: Mapping[str, float], ours: str, differences: Mapping[str, Any]
) -> Iterator[Finding]:
    for other, theirs in values.items():
        if other != ours and ours in values:
            found = differences.get(other, {"ci95": None, "word": "untested"})
            yield Finding(measure, where, other, values[ours], theirs, _pair(found["ci95"]), found["word"])


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))
