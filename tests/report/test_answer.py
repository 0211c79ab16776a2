"""The first paragraph: where ours is worse, with numbers; what is not shown is said as such."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from meddenoise_monai.report.answer import answer
from meddenoise_monai.report.findings import find

PAIR = {"ci95": [-0.01, 0.01], "word": "no difference shown"}


def mean(value: float) -> dict[str, Any]:
    return {"mean": value, "ci95": [value - 0.1, value + 0.1]}


def verdict(metric: str, difference: float, word: str) -> dict[str, Any]:
    return {"other": "bm3d", "metric": metric, "difference": difference, "interval": [difference, difference],
            "adjusted_p": 0.01, "word": word}  # fmt: skip


def made_up(word: str = "better", kept: float = 0.9, kept_word: str = "better", **more: Any) -> dict[str, Any]:
    """Results of two methods; of annotated lesions bm3d keeps 80 %."""
    ours = 31.0 if word == "better" else 29.0
    values = {"psnr": mean(30.0), "hallucination_rate": mean(0.01)}
    interval = {"better": [0.05, 0.15], "worse": [-0.35, -0.25], "no difference shown": [-0.4, 0.1]}[kept_word]
    return {
        "protocol": {"methods": {"bm3d": {"kind": "baseline"}, "dae": {"kind": "network"}}},
        "methods": {"bm3d": {}, "dae": {}},
        "conditions": [{
            "data": "films", "noise": "gaussian", "level": 25.0, "ours": "dae", "patients": 12,
            "methods": {"bm3d": values, "dae": {**values, "psnr": mean(ours)}},
            "verdicts": [verdict("psnr", ours - 30, word)],
            "hallucination_differences": {"bm3d": {"difference": 0.0, **PAIR}},
        }],
        "phantoms": [], "observers": [],
        "lesions": [{
            "data": "films", "noise": "gaussian", "level": 25.0, "lesions": 5, "ours": "dae",
            "kept": {"bm3d": mean(0.8), "dae": mean(kept)},
            "differences": {"bm3d": {"difference": kept - 0.8, "ci95": interval, "word": kept_word}},
        }],
        **more,
    }  # fmt: skip


def worse(results: dict[str, Any]) -> dict[str, str]:
    """By title, all that is said below it."""
    return {
        title: "; ".join(f"{point.measure}: {point.words}" for point in points)
        for title, points in answer(results).worse
    }


def test_nowhere_worse_is_said() -> None:
    found = answer(made_up())
    assert found.headline.startswith("By none of 3 measures is dae ")
    assert found.worse == ()
    assert found.caveat == ""
    assert [point.measure for point in found.better] == ["Contrast kept of annotated lesions", "PSNR"]


def test_worse_lesion_contrast_comes_first_with_its_numbers() -> None:
    results = made_up("worse", kept=0.5, kept_word="worse")
    assert "is worse than at least one other method by 2 of 3 measures" in answer(results).headline
    words = worse(results)["Worse"]
    assert words.startswith(
        "Contrast kept of annotated lesions: 50.0 % against 80.0 % of bm3d (films, Gaussian noise 25/255)"
    )
    assert "PSNR: 29.00 dB against 30.00 dB of bm3d" in words


def test_all_that_are_better_are_named_and_the_widest_gap() -> None:
    results = made_up("worse")
    first, second = results["conditions"][0], copy.deepcopy(results["conditions"][0])
    first["methods"]["nlm"] = {**first["methods"]["bm3d"], "psnr": mean(31.0)}
    first["verdicts"].append({**verdict("psnr", -2.0, "worse"), "other": "nlm"})
    results["conditions"].append({**second, "level": 50.0})
    assert worse(results)["Worse"] == (
        "PSNR: than bm3d and nlm, in 2 of 2 settings, at worst 29.00 dB against 31.00 dB of nlm "
        "(films, Gaussian noise 25/255)"
    )


def test_behind_without_being_shown_is_said_apart() -> None:
    results = made_up(kept=0.65, kept_word="no difference shown")
    assert answer(results).headline.startswith("By none of")
    assert set(worse(results)) == {"Behind on average, without that being shown"}
    assert "65.0 % against 80.0 % of bm3d" in worse(results)["Behind on average, without that being shown"]
    assert "Contrast kept of annotated lesions" in [point.measure for point in answer(results).undecided]


def test_too_few_patients_for_a_test_are_no_verdict() -> None:
    results = made_up("too few patients")  # of 29 dB against 30
    assert "without a test, it is behind one" in answer(results).headline
    assert set(worse(results)) == {"Behind on average, with too few patients for a test"}
    assert "29.00 dB against 30.00 dB of bm3d" in worse(results)["Behind on average, with too few patients for a test"]
    said = {point.measure: point.words for point in answer(results).undecided}
    assert said["PSNR"] == "against bm3d, in 1 of 1 setting, with too few patients to show one"
    assert "cannot come out below p = 0.05" in answer(results).caveat


def phantom(recovery: float, f50: float | None) -> list[dict[str, Any]]:
    known = {"recovery": 0.98, "f50": 0.4, "cnr": 5.0, "mtf": None}
    ours = {**known, "recovery": recovery, "f50": f50}
    return [{"noise": "gaussian", "level": 25.0, "edges": [{"contrast": 0.1, "methods": {"bm3d": known, "dae": ours}}]}]


def test_untested_measures_of_the_phantom_are_named() -> None:
    results = made_up(phantoms=phantom(0.9, 0.3))
    assert "without a test, it is behind one" in answer(results).headline
    words = worse(results)["Behind on the phantom, where no test is made"]
    assert "90 % against 98 % of bm3d (phantom, Gaussian noise 25/255, contrast 26/255)" in words
    assert "0.30 cycles/pixel against 0.40 cycles/pixel" in words


@pytest.mark.parametrize(("recovery", "behind"), [(1.01, False), (1.1, True), (0.978, False)])
def test_too_much_contrast_is_as_wrong_as_too_little(recovery: float, behind: bool) -> None:
    found = [each for each in find(made_up(phantoms=phantom(recovery, None))) if each.measure == "recovery"]
    assert [each.behind for each in found] == [behind]


def test_coverage_below_what_was_asked_is_worse() -> None:
    entry = {"data": "films", "noise": "gaussian", "level": 25.0, "asked": 0.9, "patients": 12,
             "coverage": {"mean": 0.8, "ci95": [0.75, 0.85]}, "width": {"mean": 0.1, "ci95": None}}  # fmt: skip
    words = worse(made_up(uncertainty=[entry]))["Worse"]
    assert "80.0 % against 90.0 % asked for" in words
    assert "Worse" not in worse(made_up(uncertainty=[{**entry, "coverage": {"mean": 0.91, "ci95": [0.88, 0.94]}}]))
    wide = made_up(uncertainty=[{**entry, "coverage": {"mean": 0.97, "ci95": [0.96, 0.98]}}])
    assert "Worse" not in worse(wide)
    said = [point.words for point in answer(wide).undecided if point.measure.startswith("Share of true values")]
    assert said == [
        "more than was asked for, in 1 of 1 setting, at most 97.0 % against 90.0 % asked for "
        "(films, Gaussian noise 25/255): wider than need be"
    ]
    few = made_up(uncertainty=[{**entry, "patients": 9}])
    assert "Worse" not in worse(few), "an interval of nine patients decides nothing"


def test_noisy_input_is_no_rival_in_what_it_keeps_for_nothing(results: dict[str, Any]) -> None:
    found = find(results)
    assert {each.other for each in found if each.measure == "kept_contrast"} == {"gaussian"}
    assert {each.other for each in found if each.measure == "auc"} == {"noisy", "gaussian"}
