"""Measures, on methods whose effect is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from meddenoise_monai.evaluation import measures
from meddenoise_monai.evaluation.conditions import Condition
from meddenoise_monai.evaluation.summary import FREQUENCIES
from meddenoise_monai.metrics import ms_ssim, psnr, ssim
from meddenoise_monai.observers import Scores, dprime, held_out_scores
from meddenoise_monai.phantoms import gaussian_mtf
from meddenoise_monai.synthetic import power_law

CONDITION = Condition("gaussian", 20)
SCENE = power_law(192, 3.0, np.random.default_rng(1))


def nothing(noisy: np.ndarray, sigma: float) -> np.ndarray:
    return noisy


def blur(noisy: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(noisy, 1.5, mode="reflect")


def test_fidelity_is_what_the_metrics_say_of_the_result() -> None:
    found = measures.fidelity(blur, SCENE, None, CONDITION, seed=0)
    result = blur(CONDITION.draw(SCENE, 0), 0)
    assert found["psnr"] == psnr(SCENE, result, 1.0)
    assert found["ssim"] == pytest.approx(ssim(SCENE, result, 1.0), abs=1e-12)
    assert found["ms_ssim"] == ms_ssim(SCENE, result, 1.0)
    assert found["sigma"] == pytest.approx(20 / 255, rel=0.02)
    assert abs(found["residual_correlation"]) < 0.3
    given = measures.fidelity(blur, SCENE, CONDITION.draw(SCENE, 5), CONDITION, seed=0)
    assert given["psnr"] != found["psnr"]
    assert measures.fidelity(blur, SCENE[:100, :100], None, CONDITION, seed=0)["ms_ssim"] is None


def test_an_untouched_image_has_no_residual_and_much_that_the_truth_lacks() -> None:
    found = measures.fidelity(nothing, SCENE, None, CONDITION, seed=0)
    assert found["residual_values"] is None
    assert found["hallucination_rate"] > measures.fidelity(blur, SCENE, None, CONDITION, seed=0)["hallucination_rate"]
    clean = measures.fidelity(lambda noisy, sigma: SCENE, SCENE, None, CONDITION, seed=0)
    assert (clean["hallucination_rate"], clean["psnr"], clean["agreement_cutoff"]) == (0.0, 100.0, 0.5)


def test_bias_and_variance_of_what_is_known() -> None:
    untouched = measures.repeats(nothing, SCENE, (), CONDITION, seed=0, count=6)
    assert untouched["variance"] == pytest.approx(CONDITION.sigma**2, rel=0.02)
    assert abs(untouched["bias2"]) < 0.02 * untouched["variance"]
    assert np.mean(untouched["radial"]) == pytest.approx(CONDITION.sigma**2, rel=0.05)  # white
    constant = measures.repeats(lambda noisy, sigma: np.full_like(noisy, 0.5), SCENE, (), CONDITION, seed=0, count=3)
    assert constant["variance"] == 0
    assert constant["bias2"] == pytest.approx(np.mean((SCENE.astype(float) - 0.5) ** 2))
    assert constant["mean_frequency"] is None
    acquired = [CONDITION.draw(SCENE, 7), CONDITION.draw(SCENE, 8)]
    given = measures.repeats(nothing, SCENE, acquired, Condition("acquired"), seed=0, count=99)
    assert given["mse"] == pytest.approx(np.mean([(image - SCENE.astype(float)) ** 2 for image in acquired]))


def test_the_noise_of_a_blurred_field_has_the_filter_s_spectrum() -> None:
    found = measures.uniform(blur, CONDITION, seed=0, count=20)
    expected = CONDITION.sigma**2 * gaussian_mtf(found["frequencies"], 1.5) ** 2
    frequencies = np.asarray(found["frequencies"])
    low = (frequencies > 0.03) & (frequencies < 0.15)
    np.testing.assert_allclose(np.asarray(found["radial"])[low], expected[low], rtol=0.15)


def test_the_edge_of_a_blurred_disc_has_the_filter_s_mtf_and_its_whole_contrast() -> None:
    found = measures.edge(blur, Condition("gaussian", 2), seed=0, count=8, contrast=0.4)
    square = np.abs(np.sinc(FREQUENCIES))
    np.testing.assert_allclose(found["mtf"][:11], (gaussian_mtf(FREQUENCIES, 1.5) * square)[:11], atol=0.03)
    assert found["recovery"] == pytest.approx(1, abs=0.01)
    assert found["cnr"] > 0.4 / CONDITION.sigma
    lost = measures.edge(lambda noisy, sigma: np.full_like(noisy, 0.5) + 1e-3 * noisy[::-1], CONDITION, 0, 2, 0.1)
    assert lost["recovery"] < 0.1


def test_discs_keep_what_a_filter_leaves_of_them() -> None:
    untouched = measures.details(nothing, CONDITION, seed=0, count=2)["kept"]
    np.testing.assert_allclose(untouched, 1, atol=1e-3)
    blurred = measures.details(blur, CONDITION, seed=0, count=2)["kept"]
    assert (np.diff(blurred, axis=1) > 0).all()  # the smaller, the more is lost
    np.testing.assert_allclose(blurred, np.tile(blurred[0], (4, 1)), atol=1e-3)  # whatever the contrast: it is linear
    removed = measures.details(lambda noisy, sigma: np.full_like(noisy, 0.4), CONDITION, seed=0, count=1)["kept"]
    np.testing.assert_allclose(removed, 0, atol=1e-9)
    strong = measures.details(nothing, Condition("gaussian", 120), seed=0, count=1)["kept"]  # contrasts end at white
    np.testing.assert_allclose(strong, 1, atol=1e-3)


def test_signals_are_as_visible_as_an_ideal_observer_has_it() -> None:
    """White noise on a flat field: the Hotelling observer of the channels cannot exceed d' = 3, and comes near it."""
    flat = np.full((256, 256), 0.4, np.float32)
    found = [measures.signals(nothing, flat, CONDITION, seed) for seed in range(12)]
    outputs = {
        state: np.concatenate([each[f"disc/laguerre_gauss/{state}"] for each in found])
        for state in ("present", "absent")
    }
    assert outputs["present"].shape == (96, 5)
    channels = np.eye(5)[:, None, :]
    scores = held_out_scores(outputs["present"][:, None], outputs["absent"][:, None], channels)
    assert isinstance(scores, Scores)
    assert dprime(*scores) == pytest.approx(measures.DPRIME, abs=0.6)
    assert stats.ttest_rel(scores.present, scores.absent).pvalue < 1e-6
    fate = found[0]["fate"]
    assert fate["kept_contrast"] == pytest.approx(1)  # the noise is the same with and without
    assert fate["removed"] == 0


def test_a_method_that_removes_signals_is_seen_to() -> None:
    flat = np.full((128, 128), 0.4, np.float32)
    fate = measures.signals(lambda noisy, sigma: np.full_like(noisy, 0.4), flat, CONDITION, 0)["fate"]
    assert (fate["kept_contrast"], fate["removed"], fate["invented"]) == (pytest.approx(0, abs=1e-9), 1.0, 0.0)


def test_the_contrast_of_annotated_lesions() -> None:
    image = np.full((64, 64), 0.3, np.float32)
    image[28:37, 28:37] += 0.2
    found = measures.annotated(lambda noisy, sigma: 0.5 * image, image, [(32, 32, 4)], CONDITION, 0)
    assert found["clean"][0] == pytest.approx(0.2, abs=1e-6)
    assert found["result"][0] == pytest.approx(0.1, abs=1e-6)


def test_tuning_finds_the_better_parameters() -> None:
    noisy = CONDITION.draw(SCENE, 0)
    found = measures.tuning(nothing, "gaussian", [(SCENE[:64, :64], noisy[:64, :64])], "grid")
    assert found["psnr"] >= found["default_psnr"]
    assert set(found["parameters"]) == {"std"}
