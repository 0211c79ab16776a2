from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meddenoise_monai.errors import UsageError
from meddenoise_monai.intervals import bootstrap_interval, bootstrap_means


def test_interval_of_independent_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(list(values), list(range(400))) or (0, 0)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_images_of_one_patient_do_not_make_the_mean_surer() -> None:
    values = list(np.random.default_rng(1).normal(size=40))
    once = bootstrap_interval(values, range(40))
    thrice = bootstrap_interval(np.repeat(values, 3).tolist(), np.repeat(np.arange(40), 3).tolist())
    assert thrice == pytest.approx(once)
    narrow = bootstrap_interval(np.repeat(values, 3).tolist(), range(120))
    assert once is not None
    assert narrow is not None
    assert narrow[1] - narrow[0] < 0.7 * (once[1] - once[0])


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        effect = np.repeat(rng.normal(size=30), 2)  # two images a patient, alike
        values = effect + 0.3 * rng.normal(size=60)
        low, high = bootstrap_interval(list(values), np.repeat(np.arange(30), 2).tolist(), draws=500) or (0, 0)
        covered += low <= 0 <= high
    assert 0.89 < covered / 300 < 0.98


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 5)), min_size=1, max_size=30))
def test_every_mean_lies_among_the_values(pairs: list[tuple[float, int]]) -> None:
    values, patients = zip(*pairs, strict=True)
    means = bootstrap_means(values, patients, draws=50)
    assert means.shape == (50,)
    assert (means >= min(values) - 1e-9).all()
    assert (means <= max(values) + 1e-9).all()
    interval = bootstrap_interval(values, patients, draws=50)
    assert (interval is None) == (len(set(patients)) < 2)


def test_samples_of_two_methods_are_paired() -> None:
    values, patients = [1.0, 2.0, 5.0, 3.0], ["a", "a", "b", "c"]
    shifted = [value + 0.5 for value in values]
    assert bootstrap_means(shifted, patients) - bootstrap_means(values, patients) == pytest.approx(0.5)
    assert not np.array_equal(bootstrap_means(values, patients, seed=1), bootstrap_means(values, patients))


@pytest.mark.parametrize(("values", "patients", "level"), [([], [], 0.95), ([1.0], [1, 2], 0.95), ([1.0], [1], 1.0)])
def test_what_has_no_interval_is_refused(values: list[float], patients: list[int], level: float) -> None:
    with pytest.raises(UsageError):
        bootstrap_interval(values, patients, level)
