"""SSIM by both definitions, PSNR and RMSE against scikit-image, MONAI and a literal transcription of the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.metrics import MAX_PSNR, MS_SSIM_SIDE, ms_ssim, psnr, rmse, score, ssim

Pair = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="module")
def pair() -> Pair:
    from skimage import data

    clean = (data.camera()[96:160, 190:270] / 255).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 25 / 255, clean.shape)
    return clean, (clean + noise).astype(np.float32)


def skimage_ssim(reference: NDArray[Any], test: NDArray[Any], data_range: float) -> float:
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            reference.astype(np.float64),
            test.astype(np.float64),
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def matlab_ssim(reference: NDArray[Any], test: NDArray[Any], data_range: float) -> float:
    """MATLAB's ssim, from its documentation: 11x11 window, replicated borders, the mean of the whole map."""
    steps = np.arange(-5, 6)
    window = np.exp(-(steps[:, None] ** 2 + steps[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(image: NDArray[Any]) -> NDArray[Any]:
        return ndimage.correlate(image, window, mode="nearest")

    x, y = reference.astype(np.float64), test.astype(np.float64)
    mx, my = smooth(x), smooth(y)
    vx, vy, vxy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(similarity.mean())


def monai_ssim(reference: NDArray[Any], test: NDArray[Any]) -> float:
    torch = pytest.importorskip("torch")
    from monai.metrics import SSIMMetric

    metric = SSIMMetric(spatial_dims=2, data_range=1.0)
    return float(metric(torch.from_numpy(test)[None, None], torch.from_numpy(reference)[None, None]).mean())


def test_gaussian_ssim_is_scikit_images(pair: Pair) -> None:
    assert ssim(*pair, data_range=1) == pytest.approx(skimage_ssim(*pair, 1), abs=1e-10)
    assert ssim(*pair, data_range=4) == pytest.approx(skimage_ssim(*pair, 4), abs=1e-10)
    assert ssim(*pair, data_range=1) < ssim(*pair, data_range=4)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # MONAI's import, not ours
def test_gaussian_ssim_is_monais(pair: Pair) -> None:
    assert ssim(*pair, data_range=1) == pytest.approx(monai_ssim(*pair), abs=1e-5)


def test_matlab_ssim_is_its_formula(pair: Pair) -> None:
    value = ssim(*pair, data_range=1, definition="matlab")
    assert value == pytest.approx(matlab_ssim(*pair, 1), abs=1e-10)
    assert abs(value - ssim(*pair, data_range=1)) > 1e-3


def test_matlab_ssim_of_images_smaller_than_the_window() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((5, 7)), rng.random((5, 7))
    assert ssim(a, b, 1, "matlab") == pytest.approx(matlab_ssim(a, b, 1), abs=1e-10)


def test_psnr_and_rmse_are_scikit_images(pair: Pair) -> None:
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

    clean, noisy = pair
    assert psnr(clean, noisy, 1) == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=1), abs=1e-4)
    assert psnr(clean, noisy, 1) == pytest.approx(20 * np.log10(255 / 25), abs=0.3)
    assert rmse(clean, noisy) == pytest.approx(np.sqrt(mean_squared_error(clean, noisy)), rel=1e-6)


def test_psnr_of_identical_images_is_capped(pair: Pair) -> None:
    clean, _ = pair
    assert psnr(clean, clean, 1) == MAX_PSNR == 100
    assert psnr(clean, clean + 1e-9, 1) == MAX_PSNR
    assert rmse(clean, clean) == 0


def test_an_offset_of_1000_changes_nothing_but_the_luminance(pair: Pair) -> None:
    clean, noisy = (image.astype(np.float64) for image in pair)
    assert ssim(clean + 1000, noisy + 1000, 1) == pytest.approx(skimage_ssim(clean + 1000, noisy + 1000, 1), abs=1e-6)
    assert ssim(clean + 1000, noisy + 1000, 1, "matlab") == pytest.approx(
        matlab_ssim(clean + 1000, noisy + 1000, 1), abs=1e-6
    )
    # Far from zero all means are equal but for a hair: what is left is contrast and structure, at any offset.
    assert ssim(clean + 1e7, noisy + 1e7, 1) == pytest.approx(ssim(clean + 1000, noisy + 1000, 1), abs=1e-4)
    assert psnr(clean + 1000, noisy + 1000, 1) == pytest.approx(psnr(clean, noisy, 1), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_whole_numbers_do_not_wrap_around(dtype: type[np.generic], pair: Pair) -> None:
    bright, dark = (np.clip(image * 200, 0, 255).astype(dtype) for image in pair)
    expected = score(bright.astype(np.float64), dark.astype(np.float64), 255)
    assert score(bright, dark, 255) == expected


def test_volumes_are_scored_slice_by_slice_and_averaged(pair: Pair) -> None:
    clean, noisy = pair
    rng = np.random.default_rng(2)
    worse = (noisy + rng.normal(0, 0.2, noisy.shape)).astype(np.float32)
    reference, test = np.stack([clean, clean, clean]), np.stack([noisy, worse, clean])
    for function in (
        lambda a, b: ssim(a, b, 1),
        lambda a, b: ssim(a, b, 1, "matlab"),
        lambda a, b: psnr(a, b, 1),
        rmse,
    ):
        slices = [function(clean, each) for each in (noisy, worse, clean)]
        assert function(reference, test) == pytest.approx(np.mean(slices), abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # MONAI's import, not ours
@pytest.mark.parametrize("shape", [(256, 256), (177, 203)])
@pytest.mark.parametrize("noise", [0.02, 0.3, 2.0])
def test_multi_scale_ssim_is_monais(shape: tuple[int, int], noise: float) -> None:
    torch = pytest.importorskip("torch")
    from monai.metrics.regression import compute_ms_ssim

    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random(shape), 3)
    reference = (smooth - smooth.min()) / np.ptp(smooth)
    test = reference + rng.normal(0, noise, shape)
    first, second = (torch.from_numpy(image.astype(np.float32))[None, None] for image in (test, reference))
    expected = float(compute_ms_ssim(first, second, spatial_dims=2, data_range=1.0))
    assert ms_ssim(reference, test, 1.0) == pytest.approx(expected, abs=5e-6)
    assert ms_ssim(255 * reference, 255 * test, 255) == pytest.approx(ms_ssim(reference, test, 1.0), abs=1e-12)
    assert ms_ssim(np.stack([reference, test]), np.stack([test, test]), 1.0) == pytest.approx(
        (ms_ssim(reference, test, 1.0) + 1) / 2, abs=1e-12
    )
    values = score(reference, test, 1.0, multi_scale=True)
    assert values.pop("ms_ssim") == ms_ssim(reference, test, 1.0)
    assert values == score(reference, test, 1.0)


def test_multi_scale_ssim_needs_five_scales_and_is_never_negative() -> None:
    image = np.random.default_rng(0).random((MS_SSIM_SIDE, MS_SSIM_SIDE))
    assert ms_ssim(image, image, 1.0) == 1.0
    assert ms_ssim(image, 1 - image, 1.0) == 0.0
    for call in (ms_ssim, lambda *args: score(*args, multi_scale=True)):
        with pytest.raises(InputError, match="have no five scales"):
            call(image[1:], image[1:], 1.0)


def test_score_is_all_of_them(pair: Pair) -> None:
    stacks = tuple(np.stack([image, image[::-1]]) for image in pair)
    for reference, test in (pair, stacks):
        values = score(reference, test, 1)
        assert values == pytest.approx(
            {
                "ssim": ssim(reference, test, 1),
                "ssim_matlab": ssim(reference, test, 1, "matlab"),
                "psnr": psnr(reference, test, 1),
                "rmse": rmse(reference, test),
            },
            abs=1e-12,
        )
        assert list(values) == ["ssim", "ssim_matlab", "psnr", "rmse"]
        assert all(type(value) is float for value in values.values())


def test_inputs_are_not_changed(pair: Pair) -> None:
    clean, noisy = (image.astype(np.float64) for image in pair)
    before = clean.copy(), noisy.copy()
    score(clean, noisy, 1)
    assert np.array_equal(clean, before[0])
    assert np.array_equal(noisy, before[1])


images = hnp.arrays(
    np.float64,
    st.just((12, 13)),
    elements=st.floats(-2, 2, allow_nan=False, width=32) | st.sampled_from([0.0, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(images, images, st.sampled_from([1e-6, 0.5, 1.0, 255.0]))
def test_bounds_symmetry_and_identity(a: NDArray[Any], b: NDArray[Any], data_range: float) -> None:
    for definition in ("gaussian", "matlab"):
        value = ssim(a, b, data_range, definition)
        assert -1 <= value <= 1
        assert value == pytest.approx(ssim(b, a, data_range, definition), abs=1e-9)
        assert ssim(a, a, data_range, definition) == 1
    assert psnr(a, b, data_range) == psnr(b, a, data_range) <= MAX_PSNR
    assert 0 <= rmse(a, b) == rmse(b, a)
    if rmse(a, b) > 1e-4 * data_range:
        assert psnr(a, b, data_range) == pytest.approx(20 * np.log10(data_range / rmse(a, b)), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(images, images, st.floats(0.1, 1000))
def test_ssim_and_psnr_do_not_depend_on_the_units(a: NDArray[Any], b: NDArray[Any], factor: float) -> None:
    assert ssim(a * factor, b * factor, factor) == pytest.approx(ssim(a, b, 1), abs=1e-9)
    assert psnr(a * factor, b * factor, factor) == pytest.approx(psnr(a, b, 1), abs=1e-6)


@pytest.mark.parametrize("data_range", [0, -1, np.nan, np.inf, None, "wide"])
def test_a_bad_data_range_is_refused(data_range: Any) -> None:
    image = np.zeros((16, 16))
    for function in (ssim, psnr, score):
        with pytest.raises(UsageError, match="data_range"):
            function(image, image, data_range)


def test_data_range_cannot_be_left_out() -> None:
    image = np.zeros((16, 16))
    for function in (ssim, psnr, score):
        with pytest.raises(TypeError):
            function(image, image)  # type: ignore[call-arg]


def test_an_unknown_definition_is_refused_with_the_nearest() -> None:
    image = np.zeros((16, 16))
    with pytest.raises(UsageError, match="matlab") as caught:
        ssim(image, image, 1, "matlap")
    assert caught.value.hint == "did you mean 'matlab'?"


@pytest.mark.parametrize(
    ("reference", "test", "message"),
    [
        (np.zeros((16, 16)), np.zeros((16, 17)), "shape"),
        (np.zeros((16, 16)), np.zeros((1, 16, 16)), "shape"),
        (np.zeros(16), np.zeros(16), "shape"),
        (np.zeros((1, 1, 16, 16)), np.zeros((1, 1, 16, 16)), "shape"),
        (np.zeros((0, 16)), np.zeros((0, 16)), "shape"),
        (np.full((16, 16), np.nan), np.zeros((16, 16)), "reference .*NaN"),
        (np.zeros((16, 16)), np.full((16, 16), -np.inf), "test .*NaN or infinite"),
        (np.zeros((16, 16), complex), np.zeros((16, 16)), "complex"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(reference: Any, test: Any, message: str) -> None:
    for function in (lambda a, b: ssim(a, b, 1), lambda a, b: psnr(a, b, 1), rmse, lambda a, b: score(a, b, 1)):
        with pytest.raises(InputError, match=message):
            function(reference, test)


def test_images_smaller_than_the_window_have_no_gaussian_ssim() -> None:
    image = np.zeros((10, 64))
    for function, hint in ((ssim, "matlab"), (score, "leave smaller images out")):
        with pytest.raises(InputError, match="10x64") as caught:
            function(image, image, 1)
        assert hint in caught.value.hint
    assert ssim(np.zeros((11, 11)), np.zeros((11, 11)), 1) == 1
