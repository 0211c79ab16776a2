"""Verdicts by an interval alone: only where there are patients enough for one."""

from __future__ import annotations

import pytest

from meddenoise_monai.evaluation.statistics import paired_entries, word_of


@pytest.mark.parametrize(
    ("interval", "patients", "word"),
    [
        ((0.1, 0.2), 10, "better"),
        ((-0.2, -0.1), 10, "worse"),
        ((-0.1, 0.2), 10, "no difference shown"),
        ((0.1, 0.2), 9, "too few patients"),
        (None, 1, "too few patients"),
    ],
)
def test_the_word_of_an_interval(interval: tuple[float, float] | None, patients: int, word: str) -> None:
    assert word_of(interval, range(patients)) == word
    assert word_of(interval, [*range(patients)] * 3) == word  # images of the same patients are no more patients


def test_pairs_that_lack_a_value_do_not_count() -> None:
    ours = [1.0] * 10
    known = paired_entries({"ours": ours, "other": [0.5] * 10}, range(10), "ours", True, 0)["other"]
    assert (known["word"], known["difference"]) == ("better", 0.5)
    partly = paired_entries({"ours": ours, "other": [None, *[0.5] * 9]}, range(10), "ours", True, 0)["other"]
    assert partly["word"] == "too few patients"
    lower = paired_entries({"ours": ours, "other": [0.5] * 10}, range(10), "ours", False, 0)["other"]
    assert lower["word"] == "worse"
