"""Paired statistics against worked examples, scipy and simulations; bias and variance against theory."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from meddenoise_monai.comparisons import holm, paired_difference, split_error, verdicts
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.intervals import bootstrap_interval, bootstrap_means


def enumerated_p(differences: list[float]) -> float:
    """Wilcoxon's two-sided p-value from its definition: all signs are equally likely."""
    ranks = stats.rankdata(np.abs(differences))
    sums = [sum(rank for rank, up in zip(ranks, ups, strict=True) if up) for ups in product((0, 1), repeat=len(ranks))]
    seen = ranks[np.array(differences) > 0].sum()
    low, high = np.mean([s <= seen + 1e-9 for s in sums]), np.mean([s >= seen - 1e-9 for s in sums])
    return float(min(1, 2 * min(low, high)))


def test_every_number_of_a_worked_example() -> None:
    # Differences 1, 2, -3, 4, 5 in five patients: ranks in favour 1 + 2 + 4 + 5 = 12 of 15, against 3.
    found = paired_difference([11, 12, 7, 14, 15], [10] * 5, list("abcde"))
    assert (found.images, found.patients) == (5, 5)
    assert found.difference == pytest.approx(1.8)
    assert found.rank_biserial == pytest.approx((12 - 3) / 15)
    # 5 of the 32 sets of signs have a rank sum of at most 3 against: {}, {1}, {2}, {3}, {1, 2}.
    assert found.p_value == pytest.approx(2 * 5 / 32)
    assert found.cohen_dz == pytest.approx(1.8 / np.sqrt(9.7))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=7))
def test_p_value_is_exact_with_ties_and_without_zeros(differences: list[int]) -> None:
    found = paired_difference(differences, [0] * len(differences), range(len(differences)), draws=2)
    changed = [float(each) for each in differences if each]
    assert found.p_value == pytest.approx(enumerated_p(changed) if changed else 1)
    # Kerby's other formula, from the statistic T: 1 - 2 T / total.
    ranks, signs = stats.rankdata(np.abs(changed)), np.sign(changed)
    expected = 1 - 2 * min(ranks[signs > 0].sum(), ranks[signs < 0].sum()) / ranks.sum() if changed else 0
    assert abs(found.rank_biserial) == pytest.approx(expected)


def test_p_value_of_many_patients_is_scipys() -> None:
    gains = np.random.default_rng(0).normal(0.2, 1, 60)
    found = paired_difference(gains.tolist(), [0.0] * 60, range(60), draws=2)
    assert found.p_value == stats.wilcoxon(gains).pvalue
    assert found.cohen_dz == pytest.approx(stats.ttest_1samp(gains, 0).statistic / np.sqrt(60))


def test_extremes() -> None:
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert paired_difference(rising, [0.0] * 6, range(6)).rank_biserial == 1
    assert paired_difference([0.0] * 6, rising, range(6)).rank_biserial == -1
    assert paired_difference(rising, [0.0] * 6, range(6)).p_value == pytest.approx(2 / 2**6)
    same = paired_difference(rising, rising, range(6))
    assert (same.difference, same.interval, same.p_value, same.rank_biserial) == (0, (0, 0), 1, 0)
    assert same.cohen_dz is None
    # 0.3 - 0.1 and 0.4 - 0.2 are no spread.
    assert paired_difference([0.3, 0.4], [0.1, 0.2], range(2)).cohen_dz is None
    alone = paired_difference([1.0, 2.0], [0.0, 0.0], ["a", "a"])
    assert (alone.interval, alone.p_value, alone.cohen_dz, alone.patients) == (None, 1, None, 1)


def test_images_of_one_patient_count_once() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.5, 1, 10).tolist(), rng.normal(0, 1, 10).tolist()
    once = paired_difference(ours, theirs, range(10))
    thrice = paired_difference(ours * 3, theirs * 3, [*range(10)] * 3)
    assert thrice.p_value == once.p_value
    assert thrice.rank_biserial == pytest.approx(once.rank_biserial)
    assert thrice.cohen_dz == pytest.approx(once.cohen_dz)
    assert thrice.interval == pytest.approx(once.interval)


def test_positive_is_better_whichever_way_the_metric_counts() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.random(12).tolist(), (rng.random(12) + 0.5).tolist()
    up, down = (paired_difference(ours, theirs, range(12), higher_is_better=way) for way in (True, False))
    assert up.difference == -down.difference < 0
    assert up.rank_biserial == -down.rank_biserial
    assert up.cohen_dz == pytest.approx(-(down.cohen_dz or 0))
    assert up.p_value == down.p_value
    assert up.interval is not None
    assert up.interval == pytest.approx([-end for end in (down.interval or (0, 0))[::-1]])
    # The bootstrap of the differences is that of both methods on the same patients.
    means = bootstrap_means(ours, range(12)) - bootstrap_means(theirs, range(12))
    assert up.interval == pytest.approx(np.quantile(means, [0.025, 0.975]))
    assert up.interval == bootstrap_interval((np.array(ours) - theirs).tolist(), range(12))


def test_interval_covers_the_truth_and_the_test_errs_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    repeats, covered, rejected = 400, 0, 0
    for _ in range(repeats):
        patients = np.repeat(np.arange(24), rng.integers(1, 5, 24))
        hard, gain = rng.normal(size=24)[patients], rng.normal(0.3, 0.5, 24)[patients]
        ours, theirs = (hard + part + 0.2 * rng.normal(size=len(patients)) for part in (gain, 0))
        found = paired_difference(ours.tolist(), (theirs + 0.3).tolist(), patients.tolist(), draws=400)
        low, high = found.interval or (1, -1)
        covered += low <= 0 <= high
        rejected += found.p_value < 0.05
    # Two standard deviations of the counts are 2.2 %; percentile intervals of 24 patients are a little narrow, too.
    assert 0.91 <= covered / repeats <= 0.972
    assert 0.028 <= rejected / repeats <= 0.072


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Four hypotheses at 0.05: 0.005 and 0.01 are rejected, 0.03 and 0.04 are not (Wikipedia, "Holm-Bonferroni").
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        # From the manuals of pingouin's and of R's functions.
        ([0.5, 0.003, 0.32, 0.054, 0.0003], [0.64, 0.012, 0.64, 0.162, 0.0015]),
        ([0.319, 0.201, 0.4, 0.374, 0.113], [0.957, 0.804, 0.957, 0.957, 0.565]),
        ([], []),
    ],
)
def test_holm_is_that_of_published_examples(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected)
    assert holm(dict(enumerate(given))) == pytest.approx(dict(enumerate(expected)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if not p_values[place] * (len(p_values) - step) <= level:
            break
        rejected.add(place)
    assert {place for place, value in enumerate(holm(p_values)) if value <= level} == rejected


def family(gains: dict[str, float], seed: int = 4) -> dict[str, dict[str, list[float]]]:
    """SSIM (higher is better) and RMSE (lower) of 20 patients; `gains` is how much worse each method is than none."""
    rng = np.random.default_rng(seed)
    hard = rng.random(20)
    return {
        name: {
            "ssim": (hard - gain + 0.02 * rng.normal(size=20)).tolist(),
            "rmse": (hard + gain + 0.02 * rng.normal(size=20)).tolist(),
        }
        for name, gain in gains.items()
    }


def test_verdicts_name_better_worse_and_neither() -> None:
    values = family({"weak": 0.1, "ours": 0.0, "equal": 0.0, "strong": -0.1})
    rows = verdicts(values, range(20), "ours", {"ssim": True, "rmse": False})
    assert [(row.other, row.metric, row.word) for row in rows] == [
        (other, metric, word)
        for other, word in (("weak", "better"), ("equal", "no difference shown"), ("strong", "worse"))
        for metric in ("ssim", "rmse")
    ]
    assert [row.adjusted_p for row in rows] == holm([row.difference.p_value for row in rows])
    expected = paired_difference(values["ours"]["rmse"], values["weak"]["rmse"], range(20), higher_is_better=False)
    assert rows[1].difference == expected
    assert rows == verdicts(values, range(20), "ours", {"ssim": True, "rmse": False})


def test_a_verdict_needs_the_test_the_interval_and_one_direction() -> None:
    def word(gains: list[float], others: int = 1, patients: list[int] | None = None) -> str:
        values = {"ours": {"m": gains}, **{str(n): {"m": [0.0] * len(gains)} for n in range(others)}}
        return verdicts(values, patients or list(range(len(gains))), "ours", {"m": True})[0].word

    assert word([1, 2, 3, 4, 5, 6]) == "better"
    # p = 2 / 2**6 is not below 0.05 / 2: the interval alone does not do, and nothing that six patients show would.
    assert word([1, 2, 3, 4, 5, 6], others=2) == "too few patients"
    assert word([1, 2, 3, 4, 5, 6, 7], others=2) == "better"
    # Twenty patients gain, two lose a lot: the ranks are sure, the mean is not.
    mixed = [0.01 * n for n in range(1, 21)] + [-3.0, -4.0]
    assert paired_difference(mixed, [0.0] * 22, range(22)).p_value < 0.05
    assert word(mixed) == "no difference shown"
    # 90 images of one patient turn the mean over images against the ranks of the patients.
    against = [0.01 * n for n in range(1, 21)] + [-1.0] * 90
    found = paired_difference(against, [0.0] * 110, [*range(20)] + [20] * 45 + [21] * 45)
    assert found.rank_biserial > 0 > found.difference
    assert word([1.0] * 3, patients=[0, 0, 0]) == "too few patients"


def test_error_of_an_affine_denoiser_parts_as_theory_says() -> None:
    rng = np.random.default_rng(5)
    clean = rng.random((96, 96))
    a, b, sigma, realisations = 0.8, 0.05, 0.1, 8
    results = a * (clean + rng.normal(0, sigma, (realisations, 96, 96))) + b
    found = split_error(results, clean)
    assert found.variance == pytest.approx(a**2 * sigma**2, rel=0.03)
    assert found.bias2 == pytest.approx(np.mean(((a - 1) * clean + b) ** 2), rel=0.03)
    assert found.mse == pytest.approx(found.bias2 + found.variance, rel=1e-12)
    assert found.mse == pytest.approx(np.mean((results - clean) ** 2), rel=1e-12)
    # Without the corrections the identity holds as well, and the bias is too large by variance / R.
    raw_bias, raw_variance = np.mean((results.mean(0) - clean) ** 2), results.var(axis=0).mean()
    assert found.mse == pytest.approx(raw_bias + raw_variance, rel=1e-12)
    assert raw_bias - found.bias2 == pytest.approx(a**2 * sigma**2 / realisations, rel=0.03)


def test_both_parts_are_right_in_the_mean_already_for_two_realisations() -> None:
    rng = np.random.default_rng(6)
    clean = np.zeros((8, 8))
    found = [split_error(rng.normal(0.0, 1.0, (2, 8, 8)), clean) for _ in range(2000)]
    # Standard errors: variance sqrt(2 / 64 / 2000) = 0.004, bias less.
    assert np.mean([each.variance for each in found]) == pytest.approx(1, abs=0.016)
    assert np.mean([each.bias2 for each in found]) == pytest.approx(0, abs=0.016)
    assert min(each.bias2 for each in found) < 0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="2 values of one method and 1"):
        paired_difference([1, 2], [1], [1, 2])
    with pytest.raises(UsageError, match="0 values"):
        paired_difference([], [], [])
    with pytest.raises(UsageError, match="level"):
        paired_difference([1], [1], [1], level=1)
    with pytest.raises(InputError, match="NaN"):
        paired_difference([1, float("nan")], [1, 2], [1, 2])
    for wrong in ([1.1], [-0.1], [float("nan")]):
        with pytest.raises(UsageError, match="p-value"):
            holm(wrong)
    values = family({"ours": 0, "other": 0})
    with pytest.raises(UsageError, match="'our'"):
        verdicts(values, range(20), "our", {"ssim": True})
    with pytest.raises(UsageError, match="'psnr'"):
        verdicts(values, range(20), "ours", {"psnr": True})
    clean = np.zeros((4, 4))
    for results in (np.zeros((1, 4, 4)), np.zeros((3, 4, 5)), clean, np.full((2, 4, 4), np.nan)):
        with pytest.raises(InputError):
            split_error(results, clean)
