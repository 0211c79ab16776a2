"""Lesion detection against theory, on images of known content."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.lesions import insert_lesions, lesion_detection, matched_filter
from meddenoise_monai.synthetic import dead_leaves

Image = NDArray[np.float64]


def white(shape: tuple[int, ...], seed: int, sigma: float = 1.0) -> Image:
    return np.random.default_rng(seed).normal(0, sigma, shape)


def gaussian(sigma: float, size: int) -> Image:
    steps = np.arange(size) - size // 2
    profile = np.exp(-(steps**2) / (2 * sigma**2))
    return np.outer(profile, profile)


PLACES = [(16 * row + 12, 16 * column + 12) for row in range(5) for column in range(5)]


def test_matched_filter_measures_contrast_and_its_noise() -> None:
    lesion = 0.2 * gaussian(2, 13)
    background = 5 + np.zeros((88, 88))
    response = matched_filter(insert_lesions(background, 0.7 * lesion, [(30, 40)]), lesion)
    assert response.shape == (76, 76)
    assert np.unravel_index(response.argmax(), response.shape) == (30 - 6, 40 - 6)
    assert response.max() == pytest.approx(0.7)
    energy = ((lesion - lesion.mean()) ** 2).sum()
    spread = matched_filter(white((20, 88, 88), 22, 0.1), lesion).std()
    assert spread == pytest.approx(0.1 / np.sqrt(energy), rel=0.03)


@pytest.mark.parametrize(("detectability", "rate"), [(1.0, 0.05), (2.0, 0.05), (2.5, 0.2)])
def test_detection_is_that_of_normal_theory(detectability: float, rate: float) -> None:
    lesion = gaussian(2, 13)
    sigma = np.sqrt(((lesion - lesion.mean()) ** 2).sum()) / detectability
    reference = dead_leaves(88, np.random.default_rng(23)).astype(np.float64)
    first, second = (reference + white((120, 88, 88), seed, sigma) for seed in (24, 25))
    found = lesion_detection(reference, lesion, PLACES, insert_lesions(first, lesion, PLACES), second, rate)
    z = stats.norm.isf(rate)
    # 3000 lesions: standard errors are below 1 %.
    assert found.threshold == pytest.approx(z / detectability, rel=0.03)
    assert found.true_positive_rate == pytest.approx(stats.norm.cdf(detectability - z), abs=0.03)
    assert found.false_positive_rate == pytest.approx(rate, abs=0.02)
    assert found.kept_contrast == pytest.approx(1, abs=4 * np.sqrt(2 / 3000) / detectability)
    # Independent noise in the two outputs: what is kept spreads by sqrt(2) / d around 1.
    assert found.removed == pytest.approx(stats.norm.cdf(-0.5 * detectability / np.sqrt(2)), abs=0.03)


def test_invented_lesions_of_noise_are_as_many_as_normal_theory_says() -> None:
    # Maxima above a high level u of a smooth normal field are as many as its expected Euler characteristic (Adler, *The
    # geometry of random fields*, 1981): exp(-u^2 / 2) (area L (2 pi)^-3/2 u + half the border sqrt(L) / (2 pi)), where
    # L is the variance of the slope, of a field smoothed by a Gaussian 1 / (2 width^2).
    width, level, side = 3.0, 3.0, 192
    lesion = gaussian(width, 49)
    sigma = np.sqrt(((lesion - lesion.mean()) ** 2).sum()) * 0.5 / level
    noise = white((96, side + 48, side + 48), 26, sigma)
    found = lesion_detection(np.zeros_like(noise[0]), lesion, [(80, 80)], noise, noise)
    slope = 1 / (2 * width**2)
    inside = side**2 * slope * (2 * np.pi) ** -1.5 * level
    border = 2 * side * np.sqrt(slope) / (2 * np.pi)
    expected = (inside + border) * np.exp(-(level**2) / 2)
    # 430 of them: the standard error is 5 %.
    assert found.invented == pytest.approx(expected, rel=0.15)


def test_removed_and_invented_lesions_are_counted() -> None:
    lesion = 0.3 * gaussian(2, 13)
    references = np.stack([dead_leaves(88, np.random.default_rng(seed)).astype(np.float64) for seed in (27, 28)])
    # A denoiser that keeps 80 % of ten lesions and 20 % of fifteen, and shows three of its own, one of them faint.
    kept = insert_lesions(insert_lesions(references, 0.8 * lesion, PLACES[:10]), 0.2 * lesion, PLACES[10:])
    absent = references.copy()
    absent[0] = insert_lesions(insert_lesions(absent[0], lesion, PLACES[3:5]), 0.3 * lesion, PLACES[7:8])
    found = lesion_detection(references, lesion, PLACES, kept, references)
    assert found.kept_contrast == pytest.approx((10 * 0.8 + 15 * 0.2) / 25)
    assert found.removed == 15 / 25
    assert (found.invented, found.false_positive_rate) == (0, 0)
    found = lesion_detection(references, lesion, PLACES, kept, absent)
    assert found.invented == 2 / 2
    assert lesion_detection(references, lesion, PLACES, kept, absent, limit=0.2).invented == 3 / 2
    # A bright structure of the reference itself is not invented.
    real = insert_lesions(references, 2 * lesion, PLACES[:1])
    assert lesion_detection(real, lesion, PLACES[1:], real, real).invented == 0
    single = lesion_detection(references[0], lesion, PLACES, kept[0], absent[0])
    assert single.invented == 2
    assert single == lesion_detection(references[:1], lesion, PLACES, kept[:1], absent[:1])


def test_what_cannot_be_measured_is_refused() -> None:
    image, lesion = white((32, 32), 29), gaussian(2, 9)
    for place in ((3, 16), (16, 28), (-1, 16)):
        with pytest.raises(InputError, match="inside"):
            insert_lesions(image, lesion, [place])
    assert insert_lesions(image, lesion, [(4, 27)]).shape == image.shape
    with pytest.raises(InputError, match="flat"):
        matched_filter(image, np.ones((5, 5)))
    with pytest.raises(InputError, match="NaN"):
        matched_filter(image * np.nan, lesion)
    with pytest.raises(InputError, match="shape"):
        matched_filter(image[0], lesion)
    with pytest.raises(InputError, match="position"):
        lesion_detection(image, lesion, [], image, image)
    with pytest.raises(InputError, match="outputs of shape"):
        lesion_detection(image, lesion, [(9, 9)], image[None], image)
    for rate, limit in ((0, 0.5), (1, 0.5), (0.1, 0)):
        with pytest.raises(UsageError):
            lesion_detection(image, lesion, [(9, 9)], image, image, rate, limit)
