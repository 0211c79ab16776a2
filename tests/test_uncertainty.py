from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from meddenoise_monai import load_denoiser
from meddenoise_monai.datasets import evenly
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.inference import Denoiser
from meddenoise_monai.inferers import TiledInferer
from meddenoise_monai.noise import RicianStabiliser
from meddenoise_monai.treatments import Treatment
from meddenoise_monai.uncertainty import COVERAGES, METHOD, Calibration, Errors, bootstrap_error, calibrate
from tests.samples import textured
from tests.small_networks import HALO, NETWORK, trained

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("MEDDENOISE_DATA", ROOT.parent / "shared" / "data"))

Image = NDArray[np.float32]
FLAT = Calibration("", (0.01, 1.0), COVERAGES, tuple((c, c) for c in COVERAGES))


def blur(image: NDArray[Any]) -> Image:
    """A denoiser whose errors are known: it takes detail away and leaves some noise in."""
    return ndimage.gaussian_filter(np.asarray(image, np.float32), 1.2)


def blur_noise(image: NDArray[Any]) -> Image:
    return np.asarray(image, np.float32) - blur(image)


def noisy(clean: NDArray[Any], sigma: float, seed: int) -> Image:
    return (clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)).astype(np.float32)


def seen(seed: int, sigma: float, size: int = 128) -> Errors:
    clean = textured(seed, size).astype(np.float32)
    image = noisy(clean, sigma, seed)
    return Errors.of(str(seed), clean, blur(image), bootstrap_error(blur(image), blur_noise(image), blur_noise))


def small(inferer: TiledInferer | None = None, calibration: Calibration = FLAT) -> Denoiser:
    return Denoiser(NETWORK, inferer or TiledInferer(precision="fp32"), calibration=calibration)


def ramp(height: int = 40, width: int = 56) -> Image:
    return noisy(np.broadcast_to(np.linspace(60, 190, width), (height, width)), 20, 1)


# --- Coverage ---------------------------------------------------------------------------------------------------------


def test_nine_of_ten_pixels_of_other_images_lie_within() -> None:
    """Its patients are exchangeable with those of the calibration, so the coverage is known; so is that of one half."""
    rng = np.random.default_rng(0)
    calibration = calibrate([seen(seed, np.exp(rng.uniform(1, 4.5))) for seed in range(64)], "", nodes=4)
    for sigma in (4, 12, 40):
        shares: dict[float, list[float]] = {0.5: [], 0.9: []}
        for seed in range(1000, 1012):
            clean = textured(seed, 128).astype(np.float32)
            image = noisy(clean, sigma, seed)
            spread = bootstrap_error(blur(image), blur_noise(image), blur_noise)
            for coverage, found in shares.items():
                found.append(float((np.abs(clean - blur(image)) <= calibration.half_width(spread, coverage)).mean()))
        assert np.mean(shares[0.9]) == pytest.approx(0.9, abs=0.03)
        assert np.mean(shares[0.5]) == pytest.approx(0.5, abs=0.06)


def test_edges_that_are_blurred_are_less_certain_than_areas() -> None:
    clean = np.zeros((96, 96), np.float32)
    clean[:, 48:] = 200
    image = noisy(clean, 5, 0)
    scale = bootstrap_error(blur(image), blur_noise(image), blur_noise).scale
    assert scale[:, 44:52].min() > 2 * np.median(scale[:, :24])


def test_every_patient_weighs_the_same() -> None:
    grid = (np.arange(2000) + 0.5) / 2000
    groups = [Errors("one", 0.1, grid), *(Errors("other", 0.1, 2 * grid) for _ in range(3))]
    # At 1.6 all of the one and 8 of 10 of the other are inside, whatever the number of their images.
    assert calibrate(groups, "", nodes=1).factor(0.1, 0.9) == pytest.approx(1.6, rel=0.002)


def test_an_error_where_none_was_expected_is_not_hidden() -> None:
    clean = np.ones((8, 8), np.float32)
    spread = bootstrap_error(clean, np.zeros((8, 8)), blur_noise)
    assert not spread.scale.any()
    assert np.isinf(Errors.of("p", clean, clean + 1, spread).scores).all()
    assert not Errors.of("p", clean, clean, spread).scores.any()
    with pytest.raises(InputError, match="cannot calibrate with 1 images"):
        calibrate([Errors.of("p", clean, clean + 1, spread)], "", nodes=1)


# --- The scale --------------------------------------------------------------------------------------------------------


def test_a_share_of_the_noise_that_stays_is_seen() -> None:
    denoised, found = np.zeros((128, 128), np.float32), noisy(np.zeros((128, 128)), 3, 0)
    strengths = []
    for share in (0.5, 0.25):
        spread = bootstrap_error(denoised, found, lambda again, share=share: again * np.float32(1 - share))
        strengths.append(np.median(spread.scale))
        assert strengths[-1] == pytest.approx(3 * share**0.6, rel=0.05)
    assert not bootstrap_error(denoised, found, lambda again: again).scale.any()  # it finds all of it again


def test_the_surrogate_is_as_strong_and_as_correlated_as_what_was_found() -> None:
    rng = np.random.default_rng(0)
    strength = np.where(np.arange(256) < 128, 1, 6)
    found = ndimage.gaussian_filter(rng.normal(0, 1, (256, 256)), 1.0) * strength
    given: list[Image] = []

    def note(again: Image) -> Image:
        given.append(again.copy())
        return again

    bootstrap_error(np.zeros((256, 256)), found, note)
    assert len(given) == 2
    assert not np.allclose(given[0], given[1])
    for surrogate in given:
        for side in (slice(0, 96), slice(160, 256)):
            a, b = surrogate[:, side], found[:, side]
            assert a.std() == pytest.approx(b.std(), rel=0.15)
            lags = [np.corrcoef(x[:, 1:].ravel(), x[:, :-1].ravel())[0, 1] for x in (a, b)]
            assert lags[0] == pytest.approx(lags[1], abs=0.1)


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-25, 1e25), st.floats(-3, 3))
def test_units_do_not_matter(factor: float, offset: float) -> None:
    image = noisy(textured(0), 10, 0)
    one = bootstrap_error(blur(image), blur_noise(image), blur_noise)
    scaled = (image.astype(np.float64) + 200 * offset) * factor
    other = bootstrap_error(blur(scaled), blur_noise(scaled), blur_noise)
    np.testing.assert_allclose(other.scale / factor, one.scale, rtol=2e-3)
    assert other.ratio == pytest.approx(one.ratio, rel=1e-3)


# --- The denoiser -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "offset"), [(0.01, 0), (1, -1000), (37.5, 300)])
def test_the_map_has_the_units_of_the_image(factor: float, offset: float) -> None:
    image = ramp()
    one, other = (small().uncertainty(x, noise="gaussian") for x in (image, image * factor + np.float32(offset)))
    assert one.dtype == np.float32
    assert one.shape == image.shape
    np.testing.assert_allclose(other / factor, one, rtol=0.02)
    assert (one > 0).all()


def test_the_result_is_that_of_a_call() -> None:
    for image in (ramp(), np.stack([ramp(), ramp()[::-1]])):
        for options in ({}, {"strength": 0.3}, {"strength": 0.0}, {"sigma": 1.0}, {"sigma": 0.0}):
            result, half_width = small().with_uncertainty(image, **options)
            np.testing.assert_array_equal(result, small()(image, **options))
            assert half_width.shape == image.shape


def test_noise_that_is_left_in_widens_the_interval() -> None:
    image, denoise = ramp(), small()
    whole, inner = denoise.with_uncertainty(image)
    for options in ({"strength": 0.3}, {"strength": 0.0}, {"sigma": 1.0}, {"sigma": 0.0}, {"sigma": 0}):
        part, outer = denoise.with_uncertainty(image, **options)
        assert (part + outer >= whole + inner - 1e-3).all()
        assert (part - outer <= whole - inner + 1e-3).all()
        np.testing.assert_allclose(outer, inner + np.abs(part - whole), rtol=1e-4, atol=1e-4)


def test_noise_that_is_left_in_altogether_is_not_taken_for_certainty() -> None:
    image, denoise = ramp(), small()
    for noise in ("gaussian", "rician", Treatment(RicianStabiliser(10.0))):
        result, half_width = denoise.with_uncertainty(image, sigma=0.0, noise=noise)
        np.testing.assert_array_equal(result, image.astype(np.float32))
        assert (half_width > 0).mean() > 0.9
    almost = denoise.uncertainty(image, sigma=1e-6, noise="gaussian")
    np.testing.assert_allclose(denoise.uncertainty(image, sigma=0.0, noise="gaussian"), almost, rtol=1e-4)


def test_slices_of_a_volume_have_maps_of_their_own() -> None:
    volume = np.stack([ramp(), ramp() + 0])
    volume[1, 10:30, 10:30] += 100
    half_width = small().uncertainty(volume, noise="gaussian")
    assert np.abs(half_width[0] / half_width[1] - 1).max() > 0.1
    swapped = small().uncertainty(np.ascontiguousarray(volume[::-1, ::-1]), noise="gaussian")
    assert swapped.shape == half_width.shape


def test_nothing_is_uncertain_where_there_is_no_noise() -> None:
    assert not small().uncertainty(np.full((40, 40), 7)).any()


def test_tiles_equal_the_whole() -> None:
    network = trained(seed=2)
    image = noisy(np.zeros((150, 170)), 10, 3)
    whole, tiled = (
        Denoiser(network, TiledInferer(tile, HALO, align=2, precision="fp32"), calibration=FLAT).uncertainty(
            image, noise="gaussian"
        )
        for tile in (512, 32)
    )
    np.testing.assert_allclose(tiled, whole, rtol=1e-4)


def test_a_higher_coverage_is_wider() -> None:
    widths = [small().uncertainty(ramp(), coverage=coverage).mean() for coverage in (0.5, 0.62, 0.9, 0.97)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


@pytest.mark.parametrize("coverage", [0.2, 1.0, float("nan"), "much"])
def test_a_coverage_that_was_not_calibrated_is_refused(coverage: Any) -> None:
    with pytest.raises(UsageError, match="coverage must be a number in"):
        small().uncertainty(ramp(), coverage=coverage)


def test_what_cannot_be_denoised_is_refused() -> None:
    image = ramp()
    image[3, 4] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        small().uncertainty(image)
    with pytest.raises(UsageError, match="strength"):
        small().uncertainty(ramp(), strength=2)


# --- The file ---------------------------------------------------------------------------------------------------------


def test_a_calibration_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = calibrate([seen(seed, 5 + 10 * seed) for seed in range(4)], "abc", nodes=2, protocol={"patients": 4})
    made.write(tmp_path / "c.json")
    assert Calibration.read(tmp_path / "c.json", "abc") == made
    with pytest.raises(InputError, match="made for the weights abc, not xyz") as caught:
        Calibration.read(tmp_path / "c.json", "xyz")
    assert "scripts/calibrate_uncertainty.py" in caught.value.hint


def test_weights_without_calibration_say_how_to_make_one(tmp_path: Path) -> None:
    for path, denoise in ((None, Denoiser(NETWORK)), (tmp_path, Denoiser(NETWORK, calibration=tmp_path / "c.json"))):
        with pytest.raises(InputError, match=r"no calibration of (its|their) uncertainty") as caught:
            denoise.uncertainty(ramp())
        assert "scripts/calibrate_uncertainty.py" in caught.value.hint
        assert path is None or str(path) in caught.value.message


def spoilt(change: Callable[[dict[str, Any]], Any]) -> str:
    content: dict[str, Any] = {"weights": "w", "protocol": {}, "method": dict(METHOD)}
    content |= {"ratios": [0.1, 0.2], "coverages": [0.5, 0.9], "factors": [[1, 1], [2, 2]]}
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "holds no calibration"),
        ("[]", "holds no calibration"),
        ("[" * 200_000, "holds no calibration"),
        (spoilt(lambda c: c.update(ratios=[10**400])), "holds no calibration"),
        (spoilt(lambda c: c.pop("ratios")), "holds no calibration"),
        (spoilt(lambda c: c.update(factors=[["a", 1], [2, 2]])), "holds no calibration"),
        (spoilt(lambda c: c["method"].update(replicates=9)), "made by another method"),
        (spoilt(lambda c: c.update(factors=[[1, 1]])), "none of a calibration"),
        (spoilt(lambda c: c.update(factors=[[1, 1], [2, float("nan")]])), "none of a calibration"),
        (spoilt(lambda c: c.update(ratios=[0.2, 0.1])), "none of a calibration"),
        (spoilt(lambda c: c.update(coverages=[0.9, 1.0])), "none of a calibration"),
    ],
)
def test_a_broken_calibration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Calibration.read(path, "w")
    path.write_text(spoilt(lambda c: None))
    assert Calibration.read(path, "w").factor(0.1, 0.9) == pytest.approx(2)


@given(st.floats(1e-6, 1e3), st.floats(0.5, 0.9), st.floats(0.5, 0.9))
def test_factors_lie_between_those_of_the_nodes(ratio: float, one: float, other: float) -> None:
    calibration = Calibration("", (0.01, 0.1), (0.5, 0.9), ((1.0, 2.0), (3.0, 4.0)))
    low, high = (calibration.factor(ratio, coverage) for coverage in sorted((one, other)))
    assert 1 - 1e-9 <= low <= high <= 4 + 1e-9
    assert calibration.factor(0.01, 0.9) == pytest.approx(3)
    assert calibration.factor(0.1, 0.5) == pytest.approx(2)


# --- What ships -------------------------------------------------------------------------------------------------------


def test_the_released_calibration_is_of_the_released_weights() -> None:
    denoise = load_denoiser(device="cpu")
    assert denoise.calibration.weights == denoise.fingerprint
    assert denoise.calibration.protocol["patients"] > 10


@pytest.mark.e2e
@pytest.mark.skipif(not (DATA / "mini_mias").is_dir(), reason=f"no real data in {DATA} (MEDDENOISE_DATA)")
def test_nine_of_ten_pixels_of_unseen_women_lie_within(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from benchmark_quality import noisy_cases, windows_of  # type: ignore[import-not-found]
    from train_release import mini_mias_split  # type: ignore[import-not-found]

    denoise = load_denoiser(device="cpu")
    windows = windows_of(evenly(mini_mias_split(DATA / "mini_mias")["test"], 10), 10)
    shares = []
    for sigma in (5, 25, 75):
        for case in noisy_cases(windows, sigma / 255):
            denoised, half_width = denoise.with_uncertainty(case.noisy)
            shares.append(float((np.abs(case.clean - denoised) <= half_width).mean()))
    assert len(shares) == 30
    assert 0.88 <= np.mean(shares) <= 0.92
