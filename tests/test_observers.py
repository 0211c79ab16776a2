"""The channelised Hotelling observer against theory, quadrature, scipy and literal definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, ndimage, optimize, stats

from meddenoise_monai import phantoms
from meddenoise_monai.errors import InputError, MeddenoiseError, UsageError
from meddenoise_monai.observers import (
    Scores,
    auc,
    channel_covariance,
    channel_outputs,
    compare_methods,
    delong_interval,
    delong_variance,
    describe_scores,
    difference_of_gaussians,
    dprime,
    evaluate_observer,
    group_folds,
    held_out_scores,
    hotelling_dprime,
    laguerre_gauss,
    lesion_contrast,
    microcalcifications,
    train_observer,
)

Array = NDArray[np.float64]

SHAPE = (24, 24)
SIGMA = 0.2
CHANNELS = laguerre_gauss(SHAPE, 8, 5)
SIGNAL = phantoms.disc(SHAPE, 6, 0.06, 0)[0]
BLURS = pytest.mark.parametrize("blur", [0.0, 1.2], ids=["white", "filtered"])


def noise(rng: np.random.Generator, count: int, blur: float = 0.0) -> Array:
    """(count, *SHAPE) of stationary noise that wraps around."""
    return np.asarray(ndimage.gaussian_filter(rng.normal(0, SIGMA, (count, *SHAPE)), blur, mode="wrap", axes=(1, 2)))


def power(blur: float) -> Array:
    """The power spectrum of `noise`, from the filter's answer to a single pixel."""
    pixel = np.zeros(SHAPE)
    pixel[0, 0] = 1
    return np.asarray(SIGMA**2 * np.abs(np.fft.fft2(ndimage.gaussian_filter(pixel, blur, mode="wrap"))) ** 2)


def detected(blur: float, seed: int, trained: int, tested: int, internal_noise: float = 0.0) -> tuple[Scores, float]:
    """Scores of new images by an observer trained on others, and the d' that theory gives its template."""
    rng = np.random.default_rng(seed)
    absent, present, new_absent, new_present = (
        channel_outputs(noise(rng, count, blur), CHANNELS) for count in (trained, trained, tested, tested)
    )
    answers = channel_outputs(SIGNAL[None], CHANNELS)[0]
    observer = train_observer(present + answers, absent, internal_noise)
    scores = Scores(observer.scores(new_present + answers, rng), observer.scores(new_absent, rng))
    covariance = channel_covariance(CHANNELS, power(blur))
    covariance = covariance + internal_noise * np.diag(np.diag(covariance))
    w = observer.template
    return scores, float(w @ answers / math.sqrt(w @ covariance @ w))


# Channels


def test_laguerre_gauss_channels_are_orthonormal_by_quadrature() -> None:
    profiles = laguerre_gauss((1, 1601), 200, 8, centre=(0, 0))[:, 0]  # to 8 widths away from the centre
    radii = np.arange(1601.0)
    gram = integrate.simpson(2 * np.pi * radii * profiles[:, None] * profiles, x=radii)
    assert gram == pytest.approx(np.eye(8), abs=1e-6)


@pytest.mark.parametrize("centre", [None, (30.3, 33.8)])
def test_laguerre_gauss_channels_are_their_formula_and_orthonormal_on_pixels(
    centre: tuple[float, float] | None,
) -> None:
    channels = laguerre_gauss((64, 65), 12, 6, centre)
    row, column = centre or (31.5, 32.0)
    squared = (np.arange(64)[:, None] - row) ** 2 + (np.arange(65) - column) ** 2
    for order in range(6):
        polynomial = np.polynomial.laguerre.lagval(2 * np.pi * squared / 144, np.eye(6)[order])
        expected = math.sqrt(2) / 12 * np.exp(-np.pi * squared / 144) * polynomial
        assert channels[order] == pytest.approx(expected, abs=1e-12)
    assert channel_outputs(channels, channels) == pytest.approx(np.eye(6), abs=1e-6)


@pytest.mark.parametrize(
    ("spacing", "count", "s0", "alpha", "q"), [("sparse", 3, 0.015, 2, 2), ("dense", 10, 0.005, 1.4, 1.67)]
)
def test_difference_of_gaussians_pass_their_frequencies(
    spacing: str, count: int, s0: float, alpha: float, q: float
) -> None:
    channels = difference_of_gaussians((1, 4096), spacing, centre=(0, 2048))
    assert channels.shape == (count, 1, 4096)
    frequencies = np.fft.rfftfreq(4096)
    for j, channel in enumerate(channels, 1):
        s = s0 * alpha**j

        def passed(f: Any, s: float = s) -> Any:
            return np.exp(-0.5 * (f / (q * s)) ** 2) - np.exp(-0.5 * (f / s) ** 2)

        spectrum = np.abs(np.fft.rfft(channel[0]))
        assert spectrum == pytest.approx(passed(frequencies), abs=1e-9)
        peak = optimize.minimize_scalar(lambda f, passed=passed: -passed(f), bounds=(0, 0.5), method="bounded").x
        assert frequencies[spectrum.argmax()] == pytest.approx(peak, abs=1 / 4096)
        assert peak == pytest.approx(2 * s * math.sqrt(math.log(q) / (1 - 1 / q**2)), abs=1e-5)
        assert channel.argmax() == 2048


def test_difference_of_gaussians_in_space() -> None:
    centre = (62.3, 64.8)
    channels = difference_of_gaussians((128, 128), "sparse", centre)
    squared = (np.arange(128)[:, None] - centre[0]) ** 2 + (np.arange(128) - centre[1]) ** 2
    # The Fourier transform of exp(-(f/s)²/2) is 2 pi s² exp(-2 pi² s² r²); the third channel ends beyond Nyquist.
    for channel, s in zip(channels[:2], (0.03, 0.06), strict=True):
        wide, narrow = (2 * np.pi * w**2 * np.exp(-2 * np.pi**2 * w**2 * squared) for w in (2 * s, s))
        assert channel == pytest.approx(wide - narrow, abs=2e-4 * (wide - narrow).max())
    assert channels.sum(axis=(1, 2)) == pytest.approx(np.zeros(3), abs=1e-12)


def test_channel_outputs_are_sums_of_products() -> None:
    rng = np.random.default_rng(0)
    images, channels = rng.normal(size=(4, 5, 6)), rng.normal(size=(3, 5, 6))
    outputs = channel_outputs(images.astype(np.float32), channels)
    assert outputs.dtype == np.float64
    assert outputs == pytest.approx(np.einsum("nhw,chw->nc", images, channels), abs=1e-5)


# Theory


def test_theory_is_that_of_the_whole_covariance_matrix() -> None:
    rng = np.random.default_rng(1)
    kernel = ndimage.gaussian_filter(np.pad([[1.0]], ((0, 5), (0, 7))), 0.8, mode="wrap")
    mixing = np.array([np.roll(kernel, (y, x), (0, 1)).ravel() for y in range(6) for x in range(8)]).T
    covariance = mixing @ mixing.T
    spectrum = np.abs(np.fft.fft2(kernel)) ** 2
    signal, channels = rng.normal(size=(6, 8)), rng.normal(size=(4, 6, 8))
    u = channels.reshape(4, 48)
    assert channel_covariance(channels, spectrum) == pytest.approx(u @ covariance @ u.T)
    s = u @ signal.ravel()
    expected = math.sqrt(s @ np.linalg.inv(u @ covariance @ u.T) @ s)
    assert hotelling_dprime(signal, channels, spectrum) == pytest.approx(expected)
    # With a channel for each pixel nothing is lost: the ideal observer, sum |S|² / W (Barrett and Myers, 13.2.12).
    ideal = math.sqrt((np.abs(np.fft.fft2(signal)) ** 2 / spectrum).sum() / 48)
    assert hotelling_dprime(signal, np.eye(48).reshape(48, 6, 8), spectrum) == pytest.approx(ideal)
    assert hotelling_dprime(signal, channels, spectrum) < ideal


def test_internal_noise_of_uncorrelated_channels_divides_by_its_root() -> None:
    channels = np.eye(48)[:5].reshape(5, 6, 8)
    signal = np.random.default_rng(2).normal(size=(6, 8))
    quiet = hotelling_dprime(signal, channels, 0.3)
    assert hotelling_dprime(signal, channels, 0.3, internal_noise=0.7) == pytest.approx(quiet / math.sqrt(1.7))


@BLURS
@pytest.mark.parametrize("internal_noise", [0.0, 0.5])
def test_estimates_are_what_theory_says(blur: float, internal_noise: float) -> None:
    theory = hotelling_dprime(SIGNAL, CHANNELS, power(blur), internal_noise)
    scores, of_template = detected(blur, 2, 1000, 1000, internal_noise)
    assert 0.97 * theory < of_template < theory  # no template is better than Hotelling's, and 2000 images come close
    found = describe_scores(scores, draws=500)
    assert found.dprime_interval[0] < theory < found.dprime_interval[1]
    area = stats.norm.cdf(theory / math.sqrt(2))
    assert found.auc_interval[0] < area < found.auc_interval[1]
    assert found.auc_delong[0] < area < found.auc_delong[1]
    assert found.dprime_interval[1] - found.dprime_interval[0] < 0.25
    assert np.concatenate(scores).mean() == pytest.approx(0, abs=0.1)
    assert scores.absent.std() == pytest.approx(1, abs=0.1)


@BLURS
def test_cross_validation_finds_what_theory_says(blur: float) -> None:
    theory = hotelling_dprime(SIGNAL, CHANNELS, power(blur))
    rng = np.random.default_rng(4)
    background = noise(rng, 600, blur)
    patients = [f"patient {number // 2}" for number in range(600)]
    # Half of the patients are shown with a signal and without one, so they are in both classes.
    present, absent = background[:400] + SIGNAL, background[200:]
    found = evaluate_observer(present, absent, CHANNELS, (patients[:400], patients[200:]))
    assert (found.present, found.absent, found.groups) == (400, 400, 300)
    assert found.dprime_interval[0] < theory < found.dprime_interval[1]
    assert found.auc_interval[0] < stats.norm.cdf(theory / math.sqrt(2)) < found.auc_interval[1]
    assert evaluate_observer(present, absent, CHANNELS, (patients[:400], patients[200:])) == found


def test_intervals_cover_as_often_as_they_say() -> None:
    covered, errors, widths = [], [], []
    for seed in range(60):
        scores, truth = detected(1.2, seed, 100, 80)
        told = describe_scores(scores, draws=300, seed=seed)
        area = float(stats.norm.cdf(truth / math.sqrt(2)))
        intervals = (told.dprime_interval, truth), (told.auc_interval, area), (told.auc_delong, area)
        covered.append([low <= value <= high for (low, high), value in intervals])
        errors.append(told.dprime - truth)
        widths.append(float(np.ptp(told.dprime_interval)))
    assert (np.sum(covered, axis=0) >= stats.binom.ppf(0.001, 60, 0.95)).all()
    assert np.mean(errors) == pytest.approx(0, abs=float(4 * np.std(errors) / math.sqrt(60)))
    # Nor are they too wide; 60 simulations tell their own spread to 9 %.
    assert np.mean(widths) == pytest.approx(float(2 * 1.96 * np.std(errors)), rel=0.35)


def test_intervals_over_groups_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(50), 3).tolist()
    truth = 1.2 / math.sqrt(0.16 + 0.81 + 0.25)
    area = stats.norm.cdf(truth / math.sqrt(2))
    covered = np.zeros(4)
    for seed in range(150):
        # Three images of each patient with and three without a signal: a part is common to all six, one to each three.
        common = np.repeat(rng.normal(0, 0.4, 50), 3)
        own = np.repeat(rng.normal(0, 0.9, (2, 50)), 3, axis=1)
        present, absent = common + own + rng.normal(0, 0.5, (2, 150))
        for place, groups in enumerate([(patients, patients), None]):
            told = describe_scores((present + 1.2, absent), groups, draws=150, seed=seed)
            covered[2 * place] += told.dprime_interval[0] <= truth <= told.dprime_interval[1]
            covered[2 * place + 1] += told.auc_interval[0] <= area <= told.auc_interval[1]
    low, high = stats.binom.interval(0.9999, 150, 0.95)
    assert ((low <= covered[:2]) & (covered[:2] <= high)).all()
    assert (covered[2:] < low).all()


# Figures of merit


@given(
    st.lists(st.integers(-3, 3), min_size=3, max_size=12).filter(lambda values: len(set(values)) > 1),
    st.lists(st.integers(-3, 3), min_size=3, max_size=12).filter(lambda values: len(set(values)) > 1),
)
@settings(max_examples=40, deadline=None)
def test_auc_and_delong_are_their_definitions(first: list[int], second: list[int]) -> None:
    wins = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in second] for x in first])
    area = wins.mean()
    assert auc(first, second) == pytest.approx(area)
    assert auc(first, second) == pytest.approx(stats.mannwhitneyu(first, second).statistic / wins.size)
    # DeLong, DeLong and Clarke-Pearson 1988: the structural components, one an image.
    of_first = sum((row.mean() - area) ** 2 for row in wins) / (len(first) - 1)
    of_second = sum((column.mean() - area) ** 2 for column in wins.T) / (len(second) - 1)
    variance = of_first / len(first) + of_second / len(second)
    assert delong_variance(first, second) == pytest.approx(variance)
    low, high = delong_interval(first, second, 0.9)
    half = 1.6448536269514722 * math.sqrt(variance)
    assert (low, high) == pytest.approx((max(0, area - half), min(1, area + half)))


@pytest.mark.parametrize("separation", [0.3, 1.0, 2.5])
def test_auc_of_normal_scores_is_phi_of_dprime(separation: float) -> None:
    rng = np.random.default_rng(6)
    present, absent = rng.normal(separation, 1.2, 20000), rng.normal(0, 0.8, 20000)
    truth = separation / math.sqrt((1.44 + 0.64) / 2)
    error = 4 * math.sqrt(delong_variance(present, absent))
    assert error < 0.012
    assert auc(present, absent) == pytest.approx(stats.norm.cdf(truth / math.sqrt(2)), abs=error)
    assert dprime(present, absent) == pytest.approx(truth, abs=0.05)
    assert auc(present, absent) == pytest.approx(stats.norm.cdf(dprime(present, absent) / math.sqrt(2)), abs=error)


def test_dprime_is_its_formula() -> None:
    assert dprime([3, 5], [1.0, 2.0, 3.0]) == pytest.approx((4 - 2) / math.sqrt((2 + 1) / 2))
    assert dprime([1.0, 2.0, 3.0], [3, 5]) == -dprime([3, 5], [1.0, 2.0, 3.0])


def pairs_won(present: Array, absent: Array, axis: int) -> Array:
    x, y = np.moveaxis(present, axis, -1)[..., :, None], np.moveaxis(absent, axis, -1)[..., None, :]
    return np.asarray((np.sign(x - y) / 2 + 0.5).mean(axis=(-2, -1)))


def separation(present: Array, absent: Array, axis: int) -> Array:
    variance = (present.var(axis=axis, ddof=1) + absent.var(axis=axis, ddof=1)) / 2
    return np.asarray((present.mean(axis=axis) - absent.mean(axis=axis)) / np.sqrt(variance))


@pytest.mark.parametrize(("statistic", "name"), [(pairs_won, "auc"), (separation, "dprime")])
def test_intervals_of_independent_images_are_scipys(statistic: Callable[..., Array], name: str) -> None:
    rng = np.random.default_rng(7)
    present, absent = np.round(rng.normal(1, 1, 60), 1), np.round(rng.normal(0, 1, 40), 1)
    assert len(set(present) & set(absent)) > 5  # ties between the classes
    expected = stats.bootstrap(
        (present, absent), statistic, vectorized=True, method="percentile", n_resamples=4000, batch=500, rng=rng
    ).confidence_interval
    found = describe_scores((present, absent), draws=8000)
    assert getattr(found, name) == pytest.approx(float(statistic(present, absent, axis=-1)))
    interval = getattr(found, f"{name}_interval")
    assert interval == pytest.approx(tuple(expected), abs=float(0.06 * (expected.high - expected.low)))
    assert interval != getattr(describe_scores((present, absent), seed=1), f"{name}_interval")


def test_samples_that_do_not_vary_have_no_part_in_the_interval() -> None:
    told = describe_scores(([1.0, 2.0], [0.0, -1.0]))  # in every fourth sample both images of both classes are the same
    assert told.dprime == pytest.approx(2 / math.sqrt(0.5))
    # What is left: both classes as they are, or one of them with one image twice, which halves the variance.
    assert told.dprime_interval == pytest.approx((2 / math.sqrt(0.5), 2.5 / math.sqrt(0.25)))
    assert told.auc_interval == (1, 1)


def test_images_of_one_patient_do_not_make_the_observer_surer() -> None:
    rng = np.random.default_rng(8)
    scores = Scores(rng.normal(1, 1, 30), rng.normal(0, 1, 30))
    once = describe_scores(scores, (range(30), range(30)))
    thrice = Scores(*(np.repeat(each, 3) for each in scores))
    patients = np.repeat(np.arange(30), 3).tolist()
    told = describe_scores(thrice, (patients, patients))
    assert told.auc == pytest.approx(once.auc)
    assert told.auc_interval == pytest.approx(once.auc_interval)
    assert told.groups == once.groups == 30
    narrow = describe_scores(thrice)
    assert narrow.groups == 180
    assert np.ptp(narrow.auc_interval) < 0.7 * np.ptp(told.auc_interval)
    assert np.ptp(told.auc_delong) < 0.7 * np.ptp(told.auc_interval)  # as its docstring warns


def test_without_a_signal_the_observer_guesses() -> None:
    rng = np.random.default_rng(9)
    found = evaluate_observer(noise(rng, 400), noise(rng, 400), CHANNELS)
    assert found.auc == pytest.approx(0.5, abs=0.05)
    assert found.auc_interval[0] < 0.5 < found.auc_interval[1]
    assert found.auc_delong[0] < 0.5 < found.auc_delong[1]
    assert found.dprime_interval[0] < 0 < found.dprime_interval[1]


@pytest.mark.parametrize(("separated", "documented"), [(0.0, 0.83), (1.5, 0.93)])
def test_cross_validated_intervals_are_as_narrow_as_documented(separated: float, documented: float) -> None:
    rng = np.random.default_rng(18)
    channels = np.eye(5).reshape(5, 1, 5)  # each channel a pixel
    covered = 0
    for seed in range(120):
        present, absent = rng.normal(size=(2, 200, 1, 5))
        told = evaluate_observer(present + separated / math.sqrt(5), absent, channels, draws=100, seed=seed)
        covered += told.dprime_interval[0] <= separated <= told.dprime_interval[1]
    low, high = stats.binom.interval(0.999, 120, documented)
    assert low <= covered <= high


# Groups


@given(st.lists(st.integers(0, 30), min_size=20, max_size=60), st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_no_group_is_in_two_folds(labels: list[int], folds: int, seed: int) -> None:
    half = len(labels) // 2
    if len(set(labels)) < folds:
        labels = list(range(len(labels)))
    present, absent = group_folds(half, len(labels) - half, (labels[:half], labels[half:]), folds, seed)
    of_group: dict[int, set[int]] = {}
    for label, fold in zip(labels, [*present.tolist(), *absent.tolist()], strict=True):
        of_group.setdefault(label, set()).add(fold)
    assert all(len(found) == 1 for found in of_group.values())
    sizes = np.bincount([found.pop() for found in of_group.values()], minlength=folds)
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= 1


def test_held_out_scores_are_by_an_observer_of_the_other_folds() -> None:
    rng = np.random.default_rng(10)
    present, absent = noise(rng, 60) + SIGNAL, noise(rng, 45)
    groups = ([number // 3 for number in range(60)], [number // 3 + 10 for number in range(45)])
    scores = held_out_scores(present, absent, CHANNELS, groups, folds=4, seed=3)
    of_present, of_absent = group_folds(60, 45, groups, 4, 3)
    assert not np.array_equal(of_present, group_folds(60, 45, groups, 4, 4)[0])
    for number in range(45):
        fold = of_absent[number]
        trained = [index for index in range(60) if of_present[index] != fold]
        others = [index for index in range(45) if of_absent[index] != fold]
        patients = {groups[0][index] for index in trained} | {groups[1][index] for index in others}
        assert groups[1][number] not in patients
        first, second = (channel_outputs(i, CHANNELS) for i in (present[trained], absent[others]))
        pooled = ((len(first) - 1) * np.cov(first.T) + (len(second) - 1) * np.cov(second.T)) / (
            len(first) + len(second) - 2
        )
        difference = first.mean(axis=0) - second.mean(axis=0)
        template = np.linalg.inv(pooled) @ difference
        template /= math.sqrt(difference @ template)
        middle = (first.mean(axis=0) + second.mean(axis=0)) / 2
        expected = template @ (channel_outputs(absent[number : number + 1], CHANNELS)[0] - middle)
        assert scores.absent[number] == pytest.approx(expected)


def test_a_patient_in_training_and_test_would_betray_her_class() -> None:
    rng = np.random.default_rng(11)
    channels = laguerre_gauss(SHAPE, 8, 8)
    own = np.repeat(noise(rng, 24), 6, axis=0)  # six nearly equal images of each of 24 patients; there is no signal
    images = own + 0.1 * noise(rng, 144)
    patients = [number // 6 for number in range(144)]
    apart = evaluate_observer(images[:72], images[72:], channels, (patients[:72], patients[72:]))
    mixed = evaluate_observer(images[:72], images[72:], channels)
    assert mixed.auc_interval[0] > 0.6
    assert apart.auc_interval[0] < 0.5 < apart.auc_interval[1]


def test_internal_noise_is_repeatable_and_the_same_for_methods() -> None:
    rng = np.random.default_rng(12)
    present, absent = noise(rng, 50) + SIGNAL, noise(rng, 50)
    quiet, loud, again, other = (
        held_out_scores(present, absent, CHANNELS, internal_noise=fraction, seed=seed)
        for fraction, seed in ((0, 0), (1, 0), (1, 0), (1, 1))
    )
    assert np.array_equal(loud.present, again.present)
    assert not np.array_equal(loud.present, other.present)
    assert not np.array_equal(loud.present, quiet.present)
    same = compare_methods(loud, again)
    assert (same.auc, same.auc_interval) == (0, (0, 0))


# Methods


def test_the_same_images_differ_by_exactly_nothing() -> None:
    rng = np.random.default_rng(13)
    present, absent = noise(rng, 80) + SIGNAL, noise(rng, 80)
    groups = ([i // 2 for i in range(80)], [i // 2 for i in range(80)])
    first = held_out_scores(present, absent, CHANNELS, groups)
    same = compare_methods(first, held_out_scores(present.copy(), absent.copy(), CHANNELS, groups), groups)
    assert (same.auc, same.auc_interval, same.dprime, same.dprime_interval) == (0, (0, 0), 0, (0, 0))


@pytest.mark.parametrize("harm", ["noisier", "blurred"])
def test_a_worse_method_is_significantly_worse(harm: str) -> None:
    rng = np.random.default_rng(14)
    channels = laguerre_gauss(SHAPE, 4, 4)
    signal = microcalcifications(SHAPE, 1, 0.5, 0.7, 0.9, seed=0)
    background = noise(rng, 600)
    background[:300] += signal
    if harm == "noisier":
        good, worse = background, background + noise(rng, 600)
    else:
        # What a blur hides is lost only to an eye with noise of its own: else the observer would undo it.
        blurred = ndimage.gaussian_filter(background, 2, mode="wrap", axes=(1, 2))
        good, worse = (images + 0.5 * noise(rng, 600) for images in (background, blurred))
    first, second = (held_out_scores(images[:300], images[300:], channels) for images in (good, worse))
    found = compare_methods(first, second)
    assert found.auc == pytest.approx(auc(*second) - auc(*first))
    assert found.dprime == pytest.approx(dprime(*second) - dprime(*first))
    assert found.auc_interval[1] < 0
    assert found.dprime_interval[1] < 0
    assert found.auc_interval[0] < found.auc < found.auc_interval[1]
    back = compare_methods(second, first)
    assert back.auc_interval == pytest.approx((-found.auc_interval[1], -found.auc_interval[0]))


def test_pairing_makes_a_difference_surer() -> None:
    rng = np.random.default_rng(15)
    first = Scores(rng.normal(1, 1, 100), rng.normal(0, 1, 100))
    second = Scores(*(scores + rng.normal(0, 0.3, 100) for scores in first))
    paired = float(np.ptp(compare_methods(first, second).auc_interval))
    apart = [float(np.ptp(describe_scores(scores).auc_interval)) for scores in (first, second)]
    assert paired < 0.6 * math.hypot(*apart)


def test_paired_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(16)
    truth = float(np.diff(stats.norm.cdf(np.array([1.2 / math.sqrt(1.5), 1.2]) / math.sqrt(2)))[0])
    covered = 0
    for seed in range(200):
        better = Scores(rng.normal(1.2, 1, 80), rng.normal(0, 1, 80))
        worse = Scores(*(scores + rng.normal(0, math.sqrt(0.5), 80) for scores in better))
        low, high = compare_methods(worse, better, draws=200, seed=seed).auc_interval
        covered += low <= truth <= high
    low, high = stats.binom.interval(0.9999, 200, 0.95)
    assert low <= covered <= high


# Signals


def test_a_dot_is_a_gaussian_averaged_over_pixels() -> None:
    picture = microcalcifications((41, 43), 1, 6, 1.1, 0.5, seed=3)
    assert picture.sum() == pytest.approx(0.5 * 2 * np.pi * 1.21)
    row, column = ndimage.center_of_mass(picture)
    assert 0.1 < math.hypot(row - 20, column - 21) <= 6
    # The variance of a sum of a normal and an even variable, along either axis.
    for axis, middle in ((1, row), (0, column)):
        profile = picture.sum(axis=axis)
        variance = (profile * (np.arange(len(profile)) - middle) ** 2).sum() / profile.sum()
        assert variance == pytest.approx(1.21 + 1 / 12, abs=1e-6)
    assert 0.4 < picture.max() < 0.5


def test_a_cluster_lies_evenly_within_its_radius() -> None:
    middles = [
        ndimage.center_of_mass(microcalcifications((31, 31), 1, 10, 0.8, 1, seed, centre=(15, 15)))
        for seed in range(400)
    ]
    offsets = np.array(middles) - 15
    squared = (offsets**2).sum(axis=1)
    assert squared.max() <= 100
    # Even in area: the squared distance is even in [0, R²].
    assert stats.kstest(squared / 100, "uniform").pvalue > 0.001
    assert stats.kstest(np.arctan2(*offsets.T) / (2 * np.pi) + 0.5, "uniform").pvalue > 0.001


def test_a_cluster_has_its_dots_and_its_contrast() -> None:
    picture = microcalcifications((201, 201), 7, 95, 1.0, 0.3, seed=1)
    assert ndimage.label(picture > 0.05)[1] == 7
    assert np.array_equal(picture, microcalcifications((201, 201), 7, 95, 1.0, 0.3, seed=1))
    assert not np.array_equal(picture, microcalcifications((201, 201), 7, 95, 1.0, 0.3, seed=2))
    crowded = microcalcifications((21, 21), 50, 3, 1.5, -0.3, seed=1)
    assert -0.3 <= crowded.min() < -0.27
    assert crowded.max() <= 0


# Lesions


def test_contrast_of_a_disc_is_its_own_and_blur_takes_it_away() -> None:
    bright, dark = (phantoms.disc((60, 50), d, 1, 0, centre)[0] for d, centre in ((12, (20, 18)), (8, (45, 33))))
    image = 0.3 + 0.2 * bright - 0.1 * dark
    positions = [(20.0, 18.0, 5.0), (45.0, 33.0, 3.0)]
    before = lesion_contrast(image, positions)
    assert before == pytest.approx([0.2, -0.1])
    after = lesion_contrast(ndimage.gaussian_filter(image, 4), positions)
    assert 0.03 < after[0] < 0.15
    assert -0.05 < after[1] < 0
    assert len(lesion_contrast(image, [])) == 0


def test_the_ring_is_the_documented_one() -> None:
    image = np.random.default_rng(17).random((40, 30))
    positions = [(12.4, 9.0, 3.0), (17.0, 12.0, 2.5), (1.0, 28.0, 4.0)]
    distances = [np.hypot(np.arange(40)[:, None] - row, np.arange(30) - column) for row, column, _ in positions]
    for ring in ((1.5, 2.5), (1.0, 2.0)):
        expected = []
        for number, (_, _, radius) in enumerate(positions):
            others = np.any([d <= p[2] for d, p in zip(distances, positions, strict=True)], axis=0)
            d = distances[number]
            around = (d > ring[0] * radius) & (d <= ring[1] * radius) & ~others
            expected.append(image[d <= radius].mean() - image[around].mean())
        assert lesion_contrast(image, positions, ring) == pytest.approx(expected)


def test_a_slope_has_no_contrast() -> None:
    ramp = np.arange(40)[:, None] * 0.02 + np.arange(40) * 0.01
    assert lesion_contrast(ramp, [(20, 19, 4)]) == pytest.approx([0], abs=1e-12)


# Errors


def outputs(count: int, channels: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, channels))


GOOD = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: laguerre_gauss(SHAPE, 0, 5), UsageError, "width 0"),
        (lambda: laguerre_gauss(SHAPE, 8, 0), UsageError, "no 0"),
        (lambda: laguerre_gauss(SHAPE, 8, 5, (24, 3)), UsageError, "does not lie"),
        (lambda: laguerre_gauss((24,), 8, 5), UsageError, "shape"),  # type: ignore[arg-type]
        (lambda: difference_of_gaussians(SHAPE, "danse"), UsageError, "dense"),
        (lambda: channel_outputs(np.ones(SHAPE), CHANNELS), InputError, "shape"),
        (lambda: channel_outputs(np.ones((2, 8, 8)), CHANNELS), InputError, "the channels"),
        (lambda: channel_outputs(np.full((2, *SHAPE), np.nan), CHANNELS), InputError, "NaN"),
        (lambda: channel_outputs(np.ones((2, *SHAPE), complex), CHANNELS), InputError, "complex"),
        (lambda: train_observer(outputs(3), outputs(3)), InputError, "at least 7"),
        (lambda: train_observer(outputs(1), outputs(30)), InputError, "two of each"),
        (lambda: train_observer(outputs(20), outputs(20, 4)), InputError, "channels"),
        (lambda: train_observer(outputs(20), outputs(20)), InputError, "same mean"),
        (lambda: train_observer(outputs(20) * [1, 1, 1, 0, 1], outputs(20, 5, 1) * 0), InputError, "channel 3"),
        (lambda: train_observer(outputs(20, 1) * [1, 2], outputs(20, 1, 1) * [1, 2]), InputError, "alike"),
        (lambda: train_observer(outputs(20), outputs(20, 5, 1), -0.1), UsageError, "internal noise"),
        (lambda: train_observer(outputs(20), outputs(20, 5, 1)).scores(outputs(2, 4)), InputError, "5 channels"),
        (lambda: train_observer(outputs(20), outputs(20, 5, 1), 1).scores(outputs(2)), UsageError, "random"),
        (lambda: dprime([1.0], GOOD), InputError, "at least two"),
        (lambda: auc([1.0, np.inf], GOOD), InputError, "infinite"),
        (lambda: dprime([1.0, 1.0], [0.0, 0.0]), InputError, "vary"),
        (lambda: delong_variance(GOOD, [[1.0, 2.0]]), InputError, "shape"),
        (lambda: delong_interval(GOOD, GOOD, 1.0), UsageError, "level"),
        (lambda: describe_scores((GOOD, GOOD), level=0), UsageError, "level"),
        (lambda: describe_scores((GOOD, GOOD), draws=0), UsageError, "draws"),
        (lambda: describe_scores((GOOD, GOOD), ([1, 2, 3], [1, 2])), UsageError, "3 and 2 groups"),
        (lambda: describe_scores((GOOD, GOOD), ([1, 1, 1], [1, 2, 3])), InputError, "1 group"),
        (lambda: compare_methods((GOOD, GOOD), (GOOD, GOOD[:2])), InputError, "same images"),
        (lambda: group_folds(5, 5, folds=1), UsageError, "folds"),
        (lambda: group_folds(5, 5, ([1, 1, 1, 2, 2], [1, 1, 2, 2, 2])), InputError, "2 groups"),
        (lambda: channel_covariance(CHANNELS, np.ones((8, 8))), InputError, "power spectrum"),
        (lambda: channel_covariance(CHANNELS, -1), InputError, "negative"),
        (lambda: hotelling_dprime(SIGNAL, CHANNELS, 0), InputError, "channel 0"),
        (lambda: hotelling_dprime(np.ones((16, 16)), difference_of_gaussians((16, 16), "dense"), 1), InputError, "10"),
        (lambda: hotelling_dprime(SIGNAL, CHANNELS, 1, math.nan), UsageError, "internal noise"),
        (lambda: microcalcifications(SHAPE, 3, 13, 1, 0.1, 0), UsageError, "at most 12"),
        (lambda: microcalcifications(SHAPE, 3, 3, 1, 1.5, 0), UsageError, "contrast"),
        (lambda: microcalcifications(SHAPE, 3, 0, 1, 0.5, 0), UsageError, "radius 0"),
        (lambda: microcalcifications(SHAPE, 0, 5, 1, 0.5, 0), UsageError, "dots"),
        (lambda: microcalcifications(SHAPE, 3, 5, 0, 0.5, 0), UsageError, "dots"),
        (lambda: lesion_contrast(np.ones(5), [(1, 1, 1)]), InputError, "shape"),
        (lambda: lesion_contrast(np.ones(SHAPE), [(1, 1, 0)]), UsageError, "radius"),
        (lambda: lesion_contrast(np.ones(SHAPE), [(90, 1, 2)]), InputError, "no pixel"),
        (lambda: lesion_contrast(np.ones(SHAPE), [(3, 1, 2)], (0.5, 2)), UsageError, "ring"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], Any], error: type[MeddenoiseError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        call()
    assert caught.value.hint
