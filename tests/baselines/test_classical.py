"""The classical denoisers: each against an outside definition, and what they must survive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from meddenoise_monai.baselines import (
    Baseline,
    available_baselines,
    make_baseline,
    tune,
    tune_all,
    tuning,
)
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.metrics import psnr, ssim
from tests.baselines.conftest import ALWAYS, GOOD, INSTALLED, SIGMA, Image

# -------------------------------------------------------------------------------------------------------- what there is


def test_names_come_in_canonical_order() -> None:
    assert [name for name in INSTALLED if name != "bm3d"] == ALWAYS
    assert INSTALLED in (ALWAYS, [*ALWAYS, "bm3d"])


@pytest.mark.usefixtures("without_bm3d")
def test_bm3d_is_optional(pairs: list[tuple[Image, Image]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_baselines() == ALWAYS
    for call in (lambda: make_baseline("bm3d"), lambda: tune("bm3d", pairs, SIGMA)):
        with pytest.raises(UsageError, match="not installed") as caught:
            call()
        assert "non-commercial" in caught.value.hint
    monkeypatch.setattr(tuning, "_best", lambda name, *_: name)
    monkeypatch.setattr(tuning, "_score", lambda *_: 0.0)
    assert list(tune_all(pairs, SIGMA)) == ALWAYS


def test_unknown_names_are_refused_with_the_nearest(pairs: list[tuple[Image, Image]]) -> None:
    with pytest.raises(UsageError, match="medain") as caught:
        make_baseline("medain")
    assert caught.value.hint == "did you mean 'median'?"
    with pytest.raises(UsageError, match="no parameter 'patchsize'") as caught:
        make_baseline("nlm", patchsize=5)
    assert caught.value.hint == "did you mean 'patch_size'?"
    with pytest.raises(UsageError, match="wavlet"):
        tune_all(pairs, SIGMA, names=["median", "wavlet"])
    with pytest.raises(UsageError, match="psnrr") as caught:
        tune("median", pairs, SIGMA, metric="psnrr")
    assert caught.value.hint == "did you mean 'psnr'?"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("median", {"size": 4}),
        ("median", {"size": 0}),
        ("median", {"size": 3.0}),
        ("median", {"size": True}),
        ("gaussian", {"std": 0}),
        ("gaussian", {"std": "wide"}),
        ("gaussian", {"std": None}),
        ("bilateral", {"color": -1}),
        ("bilateral", {"spatial": float("inf")}),
        ("wavelet", {"wavelet": "sym88"}),
        ("wavelet", {"wavelet": "bior4.4"}),
        ("wavelet", {"levels": 0}),
        ("wavelet", {"mode": "firm"}),
        ("tv", {"weight": float("nan")}),
        ("nlm", {"patch_distance": 2.5}),
    ],
)
def test_bad_parameters_are_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(parameters))):
        make_baseline(name, **parameters)


def test_numpy_numbers_are_plain_ones_afterwards() -> None:
    made = make_baseline("nlm", patch_size=np.int64(5), h=np.float32(0.5))
    assert made.parameters == {"patch_size": 5, "patch_distance": 11, "h": 0.5}
    assert [type(value) for value in made.parameters.values()] == [int, int, float]


# ------------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize("name", INSTALLED)
def test_each_improves_a_noisy_image(name: str, clean: Image, noisy: Image) -> None:
    baseline: Baseline = make_baseline(name, **GOOD[name])
    before = noisy.copy()
    denoised = baseline(noisy, SIGMA)
    assert baseline.name == name
    assert denoised.dtype == np.float32
    assert denoised.shape == noisy.shape
    assert np.isfinite(denoised).all()
    assert psnr(clean, denoised, 1) > psnr(clean, noisy, 1) + 3
    assert ssim(clean, denoised, 1) > ssim(clean, noisy, 1) + 0.05
    assert np.array_equal(noisy, before)
    assert np.array_equal(denoised, baseline(noisy, SIGMA))


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("default", [True, False])
def test_constant_images_stay_constant(name: str, default: bool) -> None:
    baseline = make_baseline(name, **({} if default else GOOD[name]))
    for value in (0.0, 0.3, -1.0):
        image = np.full((17, 20), value, np.float32)
        for sigma in (0.0, SIGMA):
            assert np.array_equal(baseline(image, sigma), image)


@pytest.mark.parametrize("name", ["bilateral", "wavelet", "tv", "nlm", *({"bm3d"} & set(INSTALLED))])
@pytest.mark.parametrize("sigma", [0.0, 1e-30])
def test_without_noise_the_image_comes_back(name: str, sigma: float, clean: Image) -> None:
    denoised = make_baseline(name, **GOOD[name])(clean, sigma)
    assert np.array_equal(denoised, clean)
    assert not np.shares_memory(denoised, clean)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (8, 8), (9, 23), (2, 9, 12)])
@pytest.mark.parametrize("default", [True, False])
def test_small_odd_and_three_dimensional_images(name: str, shape: tuple[int, ...], default: bool) -> None:
    image = np.random.default_rng(0).normal(0.5, 0.1, shape).astype(np.float32)
    baseline = make_baseline(name, **({} if default else GOOD[name]))
    denoised = baseline(image, 0.1)
    assert denoised.shape == shape
    assert denoised.dtype == np.float32
    assert np.isfinite(denoised).all()
    if image.ndim == 3:
        assert np.array_equal(denoised[1], baseline(image[1], 0.1))


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("offset", [-0.7, 3.0])
def test_an_offset_passes_through(name: str, offset: float, noisy: Image) -> None:
    baseline = make_baseline(name, **GOOD[name])
    shifted = baseline(noisy + np.float32(offset), SIGMA) - np.float32(offset)
    assert np.abs(shifted - baseline(noisy, SIGMA)).max() < 2e-3


def test_half_integer_and_boolean_images_are_taken() -> None:
    for image in (np.eye(20, dtype=np.uint8), np.eye(20, dtype=bool), np.eye(20, dtype=np.float16)):
        assert np.array_equal(
            make_baseline("median")(image, SIGMA), make_baseline("median")(np.eye(20, dtype=np.float32), SIGMA)
        )


@pytest.mark.parametrize(
    "image",
    [np.full((16, 16), np.nan), np.zeros(16), np.zeros((0, 16)), np.zeros((2, 2, 2, 2)), np.zeros((4, 4), complex)],
)
def test_images_that_cannot_be_denoised_are_refused(image: NDArray[Any]) -> None:
    with pytest.raises(InputError):
        make_baseline("median")(image, SIGMA)


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf"), "much", None])
def test_a_bad_sigma_is_refused(sigma: Any, noisy: Image) -> None:
    with pytest.raises(UsageError, match="sigma"):
        make_baseline("median")(noisy, sigma)


def test_bilateral_is_its_formula(noisy: Image) -> None:
    image, color, spatial = noisy[:12, :10].astype(np.float64), 2 * SIGMA, 1.0
    padded = np.pad(image, 3, mode="symmetric")
    expected = np.empty_like(image)
    row, column = np.mgrid[-3:4, -3:4]
    for i, j in np.ndindex(image.shape):
        window = padded[i : i + 7, j : j + 7]
        weight = np.exp(-(row**2 + column**2) / (2 * spatial**2) - (window - image[i, j]) ** 2 / (2 * color**2))
        expected[i, j] = (weight * window).sum() / weight.sum()
    denoised = make_baseline("bilateral", color=2.0, spatial=spatial)(noisy[:12, :10], SIGMA)
    assert np.abs(denoised - expected).max() < 1e-5


def test_bilateral_by_default_takes_the_images_deviation(noisy: Image) -> None:
    by_default = make_baseline("bilateral")(noisy, 0.0)
    explicit = make_baseline("bilateral", color=float(noisy.std()))(noisy, 1.0)
    assert np.abs(by_default - explicit).max() < 1e-5


@pytest.mark.filterwarnings("ignore:Level value of 2 is too high")  # scikit-image's, not ours
@pytest.mark.parametrize("wavelet", ["db1", "sym8"])
@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize("shape", [(64, 64), (61, 50)])
def test_wavelet_is_scikit_images(
    wavelet: str, mode: str, levels: int | None, shape: tuple[int, int], noisy: Image
) -> None:
    from skimage.restoration import denoise_wavelet

    image = noisy[: shape[0], : shape[1]]
    expected = denoise_wavelet(image, sigma=SIGMA, wavelet=wavelet, mode=mode, wavelet_levels=levels)
    denoised = make_baseline("wavelet", wavelet=wavelet, mode=mode, levels=levels)(image, SIGMA)
    assert np.abs(denoised - expected).max() < 1e-5


def test_tv_nlm_and_gaussian_defaults_are_the_librarys(noisy: Image) -> None:
    from skimage.filters import gaussian
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    assert np.array_equal(make_baseline("tv")(noisy, SIGMA), denoise_tv_chambolle(noisy))
    assert np.array_equal(make_baseline("nlm")(noisy, SIGMA), denoise_nl_means(noisy))
    inside = np.s_[8:-8, 8:-8]  # the borders are continued otherwise
    assert np.abs(make_baseline("gaussian")(noisy, SIGMA) - gaussian(noisy))[inside].max() < 1e-6


def test_tv_and_nlm_strengths_are_factors_of_sigma(noisy: Image) -> None:
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    tv = make_baseline("tv", weight=1.5)(noisy, SIGMA)
    assert np.array_equal(tv, denoise_tv_chambolle(noisy, weight=1.5 * SIGMA))
    nlm = make_baseline("nlm", patch_size=5, patch_distance=6, h=0.8)(noisy, SIGMA)
    assert np.array_equal(nlm, denoise_nl_means(noisy, 5, 6, h=0.8 * SIGMA, sigma=SIGMA))
