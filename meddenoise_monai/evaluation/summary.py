"""From measurements to what a comparison says: means with intervals, verdicts, physics, observers; the whole content
of ``results.json`` but its protocol.

Nothing here depends on time, place or the order in which tasks were done: the same measurements give the same numbers
to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..observers import Scores, compare_methods, describe_scores, held_out_scores
from .conditions import Condition
from .measures import ASKED, DETAIL_CONTRASTS, DETAIL_DIAMETERS, FATE, FREQUENCIES
from .methods import Method
from .statistics import mean_entry, paired_entries, verdict_entries, word_of
from .study import Outcome

__all__ = ["METRICS", "per_image_rows", "seconds_per_megapixel", "summarise_study"]

# Whether higher is better, where one can say so.
METRICS: dict[str, bool | None] = {
    "psnr": True,
    "ssim": True,
    "ssim_matlab": True,
    "ms_ssim": True,
    "rmse": False,
    "residual_values": None,
    "residual_edges": None,
    "residual_correlation": None,
    "hallucination_rate": False,
    "agreement_cutoff": None,
}
JUDGED = ("psnr", "ssim", "ms_ssim")
FOLDS = 5

Content = dict[str, Any]


def summarise_study(outcomes: Sequence[Outcome], methods: Sequence[Method], ours: str, seed: int = 0) -> Content:
    """All numbers of a comparison.

    Parameters
    ----------
    outcomes
        Of `study.carry_out`.
    methods
        In the order of the tables.
    ours
        The method that is compared with each other one.
    seed
        Of the bootstraps and the observers' folds.

    Returns
    -------
    dict
        ``methods``: the means over all images and conditions; ``conditions``: the same by data set and noise, with
        verdicts, bias and variance, and the noise power spectrum; ``phantoms``, ``observers``,
        ``hallucination_maps``, ``uncertainty``, ``lesions``.
    """
    names = [method.name for method in methods]
    of = _Grouped(outcomes)
    everything = of.fidelity()
    patients = [who for who, _ in everything]
    return {
        "methods": {name: _means([values[name] for _, values in everything], patients, seed) for name in names},
        "conditions": [_condition(of, data, condition, names, ours, seed) for data, condition in of.groups()],
        "phantoms": [_phantoms(of, condition, names) for condition in of.phantom_conditions()],
        "observers": [
            entry for data, condition in of.observed() for entry in _observers(of, data, condition, names, ours, seed)
        ],
        "hallucination_maps": _maps(outcomes, names),
        "uncertainty": [
            entry for data, condition in of.groups("coverage") for entry in _coverage(of, data, condition, seed)
        ],
        "lesions": [_lesions(of, data, condition, names, ours, seed) for data, condition in of.annotated()],
    }


def per_image_rows(outcomes: Sequence[Outcome]) -> list[Content]:
    """One row for each image, condition and method: hashed name, data set, noise, level, method, every metric."""
    return [
        {
            "case": outcome.about["scene"].name,
            "data": outcome.about["scene"].data,
            "noise": outcome.about["condition"].noise,
            "level": outcome.about["condition"].level,
            "method": method,
            "sigma": values["sigma"],
            **{metric: values[metric] for metric in METRICS},
        }
        for outcome in outcomes
        if outcome.measure == "fidelity"
        for method, values in outcome.values.items()
    ]


def seconds_per_megapixel(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The median time of each method over the images, with one thread beside whatever else ran: no benchmark."""
    times: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.measure == "fidelity":
            for method, values in outcome.values.items():
                times.setdefault(method, []).append(values["seconds_per_megapixel"])
    return {method: float(np.median(values)) for method, values in times.items()}


class _Grouped:
    """The outcomes by what they measure, data set and condition, each in the order in which they were planned."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes

    def of(self, measure: str, **about: Any) -> list[Outcome]:
        found = []
        for outcome in self.outcomes:
            data = outcome.about["scene"].data if "scene" in outcome.about else None
            known = {**outcome.about, "data": data}
            if outcome.measure == measure and all(known.get(name) == value for name, value in about.items()):
                found.append(outcome)
        return found

    def groups(self, measure: str = "fidelity") -> list[tuple[str, Condition]]:
        found = [(o.about["scene"].data, o.about["condition"]) for o in self.of(measure) if "scene" in o.about]
        data = list(dict.fromkeys(name for name, _ in found))
        return sorted(set(found), key=lambda group: (data.index(group[0]), group[1].noise, group[1].level))

    def fidelity(self, **about: Any) -> list[tuple[Hashable, dict[str, Content]]]:
        return [(outcome.about["scene"].patient, outcome.values) for outcome in self.of("fidelity", **about)]

    def phantom_conditions(self) -> list[Condition]:
        return sorted({o.about["condition"] for o in self.of("uniform")}, key=lambda c: (c.noise, c.level))

    def observed(self) -> list[tuple[str | None, Condition]]:
        fields = {o.about["condition"] for o in self.of("signals") if "field" in o.about}
        return [*self.groups("signals"), *((None, each) for each in sorted(fields, key=lambda c: (c.noise, c.level)))]

    def annotated(self) -> list[tuple[str, Condition]]:
        return self.groups("annotated")


def _condition(of: _Grouped, data: str, condition: Condition, names: Sequence[str], ours: str, seed: int) -> Content:
    chosen = of.fidelity(data=data, condition=condition)
    patients = [who for who, _ in chosen]
    by_method = {name: [values[name] for _, values in chosen] for name in names}
    judged = {metric: True for metric in JUDGED if all(v[metric] is not None for v in by_method[names[0]])}
    repeated = of.of("repeats", data=data, condition=condition)
    return {
        "data": data,
        "noise": condition.noise,
        "level": condition.level,
        "sigma": float(np.mean([values["sigma"] for values in by_method[names[0]]])),
        "images": len(chosen),
        "patients": len(set(patients)),
        "methods": {name: _means(by_method[name], patients, seed) for name in names},
        "ours": ours,
        "verdicts": verdict_entries(
            {name: {metric: [v[metric] for v in by_method[name]] for metric in judged} for name in names},
            patients,
            ours,
            judged,
            seed,
        ),
        "hallucination_differences": paired_entries(
            {name: [v["hallucination_rate"] for v in by_method[name]] for name in names}, patients, ours, False, seed
        ),
        "repeats": {
            "scenes": len(repeated),
            "methods": {name: _repeated([o.values[name] for o in repeated]) for name in names} if repeated else {},
        },
    }


def _means(values: Sequence[Mapping[str, Any]], patients: Sequence[Hashable], seed: int) -> Content:
    return {metric: mean_entry([each[metric] for each in values], patients, seed) for metric in METRICS}


def _repeated(values: Sequence[Mapping[str, Any]]) -> Content:
    """Means over the scenes: bias and variance, and the noise power spectrum in anatomical background."""
    return {
        **{part: float(np.mean([each[part] for each in values])) for part in ("mse", "bias2", "variance")},
        "noise_power": _power(values),
    }


def _power(values: Sequence[Mapping[str, Any]]) -> Content:
    radial: NDArray[np.float64] = np.mean([each["radial"] for each in values], axis=0)
    frequencies = np.asarray(values[0]["frequencies"])
    power = float(np.trapezoid(radial, frequencies))
    return {
        "frequencies": frequencies.tolist(),
        "radial": radial.tolist(),
        "variance": float(np.mean([each["noise_variance"] for each in values])),
        "peak_frequency": float(frequencies[radial.argmax()]),
        "mean_frequency": float(np.trapezoid(frequencies * radial, frequencies)) / power if power > 0 else None,
    }


def _phantoms(of: _Grouped, condition: Condition, names: Sequence[str]) -> Content:
    (field,), (grid,) = (of.of(measure, condition=condition) for measure in ("uniform", "details"))
    edges = sorted(of.of("edge", condition=condition), key=lambda outcome: float(outcome.about["contrast"]))
    return {
        "noise": condition.noise,
        "level": condition.level,
        "noise_power": {name: _power([field.values[name]]) for name in names},
        "details": {
            "contrasts": list(DETAIL_CONTRASTS),
            "diameters": list(DETAIL_DIAMETERS),
            "kept": {name: grid.values[name]["kept"] for name in names},
        },
        "mtf_frequencies": FREQUENCIES.tolist(),
        "edges": [
            {"contrast": outcome.about["contrast"], "methods": {name: _edge(outcome.values[name]) for name in names}}
            for outcome in edges
        ],
    }


def _edge(values: Mapping[str, Any]) -> Content:
    found = {key: values[key] for key in ("recovery", "cnr", "f50", "mtf")}
    if found["f50"] is not None and math.isnan(found["f50"]):  # the MTF nowhere falls to a half; JSON knows no NaN
        found["f50"] = None
    return found


def _observers(
    of: _Grouped, data: str | None, condition: Condition, names: Sequence[str], ours: str, seed: int
) -> list[Content]:
    chosen = [o for o in of.of("signals", condition=condition, data=data) if ("field" in o.about) == (data is None)]
    whose = [o.about["scene"].patient if data is not None else o.about["field"] for o in chosen]
    found = []
    for signal in ("disc", "cluster"):
        for channels in ("laguerre_gauss", "difference_of_gaussians"):
            scores = {name: _scores(chosen, whose, name, f"{signal}/{channels}", seed) for name in names}
            found.append(
                {
                    "data": data or "uniform field",
                    "noise": condition.noise,
                    "level": condition.level,
                    "signal": signal,
                    "channels": channels,
                    "patients": len(set(whose)),
                    "methods": {name: _detected(each) for name, each in scores.items()},
                    "ours": ours,
                    "differences": _differences(scores, ours),
                }
            )
    fates = {name: [o.values[name]["fate"] for o in chosen] for name in names}
    found[0]["fate"] = {
        name: {part: mean_entry([each[part] for each in values], whose, seed) for part in FATE}
        for name, values in fates.items()
    }
    found[0]["fate_differences"] = {
        part: paired_entries({name: [v[part] for v in fates[name]] for name in names}, whose, ours, better, seed)
        for part, better in FATE_BETTER.items()
    }
    return found


FATE_BETTER = {"kept_contrast": True, "removed": False, "invented": False, "true_positive_rate": True}


def _scores(
    chosen: Sequence[Outcome], whose: Sequence[Hashable], method: str, kind: str, seed: int
) -> tuple[Scores, tuple[list[Hashable], list[Hashable]]] | None:
    """What observers that never saw the same patient say, and whose images they are."""
    outputs: dict[str, Any] = {}
    groups: list[Hashable] = []
    for state in ("present", "absent"):
        parts = [np.asarray(o.values[method][f"{kind}/{state}"]) for o in chosen]
        outputs[state] = np.concatenate(parts)
        groups = [who for who, part in zip(whose, parts, strict=True) for _ in part]
    # Channel outputs are images of one row, and the channels pick one pixel each.
    images = {state: rows[:, None, :] for state, rows in outputs.items()}
    channels = np.eye(outputs["present"].shape[1])[:, None, :]
    both = (groups, groups)
    folds = min(FOLDS, len(set(groups)))
    if folds < 2:  # one patient: nobody to learn from
        return None
    try:
        return held_out_scores(images["present"], images["absent"], channels, both, folds, seed=seed), both
    except InputError:  # too few images for an observer to learn from
        return None


def _detected(scored: tuple[Scores, tuple[list[Hashable], list[Hashable]]] | None) -> Content | None:
    if scored is None:
        return None
    scores, groups = scored
    try:
        found = describe_scores(scores, groups)
    except InputError:
        return None
    return {
        "dprime": found.dprime,
        "dprime_ci95": found.dprime_interval,
        "auc": found.auc,
        "auc_ci95": found.auc_interval,
        "images": found.present,
    }


def _differences(scores: Mapping[str, Any], ours: str) -> Content:
    found: Content = {}
    for name, scored in scores.items():
        if name != ours and scored is not None and scores[ours] is not None:
            difference = compare_methods(scored[0], scores[ours][0], scored[1])
            found[name] = {
                "auc": difference.auc,
                "auc_ci95": difference.auc_interval,
                "dprime": difference.dprime,
                "dprime_ci95": difference.dprime_interval,
                "word": word_of(difference.auc_interval, scored[1][0]),
            }
    return found


def _lesions(of: _Grouped, data: str, condition: Condition, names: Sequence[str], ours: str, seed: int) -> Content:
    """The share of the clean image's contrast that annotated lesions keep, over those that have contrast."""
    chosen = of.of("annotated", data=data, condition=condition)
    rows = []
    for outcome in chosen:
        truth = outcome.values[names[0]]["clean"][0]
        if abs(truth) >= FAINT:
            kept = {name: outcome.values[name]["result"][0] / truth for name in names}
            rows.append((outcome.about["scene"], kept))
    whose = [scene.patient for scene, _ in rows]
    return {
        "data": data,
        "noise": condition.noise,
        "level": condition.level,
        "lesions": len(rows),
        "faint": len(chosen) - len(rows),
        "kinds": _counts(scene.annotations[0].kind for scene, _ in rows),
        "kept": {name: mean_entry([kept[name] for _, kept in rows], whose, seed) for name in names},
        "ours": ours,
        "differences": paired_entries(
            {name: [kept[name] for _, kept in rows] for name in names}, whose, ours, True, seed
        ),
    }


def _maps(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Content]:
    """Of the scenes that are shown: where each method's result has structure that the clean image lacks."""
    return [
        {
            "case": outcome.about["scene"].name,
            "data": outcome.about["scene"].data,
            "noise": outcome.about["condition"].noise,
            "level": outcome.about["condition"].level,
            "methods": {name: outcome.values[name]["hallucination_map"] for name in names},
        }
        for outcome in outcomes
        if outcome.measure == "fidelity" and "hallucination_map" in outcome.values[names[0]]
    ]


def _coverage(of: _Grouped, data: str, condition: Condition, seed: int) -> list[Content]:
    chosen = of.of("coverage", data=data, condition=condition)
    whose = [outcome.about["scene"].patient for outcome in chosen]
    return [
        {
            "data": data,
            "noise": condition.noise,
            "level": condition.level,
            "method": method,
            "patients": len(set(whose)),
            "asked": ASKED,
            "coverage": mean_entry([outcome.values[method]["coverage"] for outcome in chosen], whose, seed),
            "width": mean_entry([outcome.values[method]["half_width"] for outcome in chosen], whose, seed),
        }
        for method in chosen[0].values
    ]


FAINT = 4 / 255  # below, the contrast of an annotated region is that of its texture


def _counts(kinds: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind in sorted(kinds):
        found[kind] = found.get(kind, 0) + 1
    return found
