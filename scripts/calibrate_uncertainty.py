"""Calibrate the uncertainty of weights, and measure on unseen patients what share of the pixels lies within it.

Calibration: two 256 x 256 windows of at least 95 % tissue from each film of mini-MIAS' validation women (split as
`train_release.py` splits them), with white Gaussian noise of DRAWS strengths each, drawn evenly on a logarithmic scale
from 1 to 120 of 255, which the network is not told. It goes to OUTPUT; beside ``model.pt`` it has to be called
``model_uncertainty.json``.

Judged: one window of each film of the test women; with --xray, of so many X-rays, one a patient; the images that ship
in packages, as `benchmark_kinds.py` takes them (not in the training, but some chose among its checkpoints); and a few
whole films. At the end with noise of other kinds than that of the calibration. "Truth" is the image before the noise
was added, which has noise of its own: at 2/255 the larger part of what is called an error may be that. Intervals are of
95 %, over patients. "Edges" are the tenth of the pixels with the steepest slopes of the clean image, "flat" the half
with the least. The last column says how much larger the mean error is in the tenth of the pixels with the largest
half-widths than in the tenth with the smallest.

    python scripts/calibrate_uncertainty.py --mini_mias DIR [--xray DIR] --output FILE [--weights model.pt]
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmark_quality import WINDOW, noisy_cases, windows_of
from train_release import mini_mias_split

SIGMAS = (2, 5, 15, 25, 50, 75)  # of 255
DRAWS, WEAKEST, STRONGEST, WINDOWS_PER_FILM = 5, 1, 120, 2
ASKED = 0.9
FEW = 16  # images that noise of other kinds is tried on


@dataclass(frozen=True)
class Seen:
    """Of one image: coverage overall, on edges, in flat parts; mean half-width on [0, 1]; rank correlation of the
    half-width with the error; the error where it is widest over that where it is narrowest."""

    patient: str
    coverage: float
    edges: float
    flat: float
    half_width: float
    correlation: float
    ratio: float


def looked_at(patient: str, clean: NDArray[Any], denoised: NDArray[Any], half_width: NDArray[Any]) -> Seen:
    """All of one shape, on [0, 1]."""
    from scipy import ndimage, stats

    error = np.abs(clean.astype(np.float64) - denoised)
    inside = error <= half_width
    slope = ndimage.gaussian_gradient_magnitude(clean, 1.0)
    narrow, wide = np.quantile(half_width, (0.1, 0.9))
    correlation = stats.spearmanr(half_width, error, axis=None).statistic if wide > narrow else 0.0
    return Seen(
        patient,
        float(inside.mean()),
        float(inside[slope >= np.quantile(slope, 0.9)].mean()),
        float(inside[slope <= np.quantile(slope, 0.5)].mean()),
        float(half_width.mean()),
        float(correlation),
        float(error[half_width >= wide].mean() / max(error[half_width <= narrow].mean(), 1e-9)),
    )


def drawn_cases(films: Sequence[Mapping[str, Any]], seed: int = 0) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Patient, clean window, noisy window: of each film some windows, of each window some strengths of the noise."""
    import torch

    from meddenoise_monai.images import TISSUE_THRESHOLD
    from meddenoise_monai.noise import GaussianNoise, image_seed
    from meddenoise_monai.transforms import ReadImaged, ScaleToUnitd

    for film in films:
        image = ScaleToUnitd("image")(ReadImaged("image")(dict(film)))["image"]
        pixels = image[0].numpy()
        rng = np.random.default_rng(image_seed(image, seed))
        room = [size - WINDOW + 1 for size in pixels.shape]
        found = 0
        for _ in range(200 if min(room) > 0 else 0):
            top, left = rng.integers(room)
            clean = pixels[top : top + WINDOW, left : left + WINDOW]
            if (clean > TISSUE_THRESHOLD).mean() < 0.95:
                continue
            for draw in range(DRAWS):
                sigma = WEAKEST * (STRONGEST / WEAKEST) ** ((draw + rng.uniform()) / DRAWS) / 255
                tensor = torch.from_numpy(clean.copy())
                yield film["patient"], clean, GaussianNoise(sigma).apply(tensor, image_seed(tensor, draw)).numpy()
            found += 1
            if found == WINDOWS_PER_FILM:
                break


def judged(denoise: Any, case: Any, noise: str = "auto") -> Seen:
    return looked_at(case.patient, case.clean, *denoise.with_uncertainty(case.noisy, noise=noise, coverage=ASKED))


def whole(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whole images on [0, 1], background and all."""
    from meddenoise_monai.transforms import ReadImaged, ScaleToUnitd

    found = []
    for item in items:
        image = ScaleToUnitd("image")(ReadImaged("image")(dict(item)))["image"]
        found.append({"clean": image[0].numpy(), "patient": item["patient"], "file": str(item["image"])})
    return found


def other_noise() -> dict[str, tuple[Any, str]]:
    """Noise that nothing was calibrated on, and what the denoiser is told of it."""
    from meddenoise_monai.noise import CorrelatedGaussianNoise, PoissonNoise, RicianNoise

    return {
        "correlated, 25, FWHM 2, auto": (CorrelatedGaussianNoise(25 / 255, fwhm=2.0), "auto"),
        "Poisson, 100 photons, poisson": (PoissonNoise(100), "poisson"),
        "Rician, 15, rician": (RicianNoise(15 / 255), "rician"),
    }


def other_cases(windows: Sequence[Mapping[str, Any]], model: Any) -> Iterator[Any]:
    import torch

    from meddenoise_monai.evaluation import Case
    from meddenoise_monai.noise import image_seed

    for window in windows:
        clean = torch.from_numpy(window["clean"])
        noisy = model.apply(clean, image_seed(clean, 0)).numpy()
        yield Case(window["file"], window["clean"], noisy, window["file"], window["patient"])


def row(data: str, noise: str, seen: Sequence[Seen]) -> str:
    """The row of the table."""
    from meddenoise_monai.intervals import bootstrap_interval

    patients = [one.patient for one in seen]
    interval = bootstrap_interval([100 * one.coverage for one in seen], patients)
    ends = f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in seen]))

    return (
        f"| {data}, {noise} | {len(seen)} ({len(set(patients))}) | {100 * mean('coverage'):.1f}{ends} "
        f"| {100 * mean('edges'):.0f}, {100 * mean('flat'):.0f} | {255 * mean('half_width'):.2f} "
        f"| {mean('correlation'):.2f} | {mean('ratio'):.1f} |"
    )


HEAD = (
    f"| data, noise | images (patients) | within, of {100 * ASKED:.0f} % [%] | on edges, flat [%] | mean half-width "
    "(/255) | rank correlation | error, widest over narrowest tenth |\n|---|---|---|---|---|---|---|"
)


def main(
    mini_mias: str,
    output: str,
    xray: str = "",
    weights: str = "",
    images: int = 60,
    sigmas: tuple[int, ...] = SIGMAS,
    precision: str = "auto",
) -> None:
    """Write the calibration, and print what was seen on other patients.

    Args:
        mini_mias: folder of mini-MIAS films.
        output: where the calibration goes.
        xray: folder of X-rays, one a patient, to be judged, too.
        weights: of the default network; by default the released ones.
        images: at most so many of each data set are judged.
        sigmas: of the noise, of 255, at which is judged.
        precision: of the network: auto, fp32 or bf16.
    """
    from benchmark_kinds import pictures
    from splits import xray_items

    from meddenoise_monai.datasets import evenly
    from meddenoise_monai.inference import Denoiser, load_denoiser
    from meddenoise_monai.inferers import TiledInferer
    from meddenoise_monai.uncertainty import Errors, calibrate

    split = mini_mias_split(Path(mini_mias))
    loaded = load_denoiser(weights or None)
    bare = Denoiser(loaded.network, TiledInferer(precision=precision), correlated=loaded.correlated)
    errors = []
    for patient, clean, noisy in drawn_cases(split["validation"]):
        denoised, spread = bare.with_spread(noisy, noise="gaussian")
        errors.append(Errors.of(patient, clean, denoised, spread))
    protocol = {
        "images": f"{len(errors) // DRAWS} windows of {WINDOW} x {WINDOW} pixels, mini-MIAS, validation",
        "patients": len({one.patient for one in errors}),
        "noise": f"white Gaussian, {DRAWS} strengths each, {WEAKEST} to {STRONGEST} of 255",
    }
    calibration = calibrate(errors, bare.fingerprint, protocol=protocol)
    calibration.write(output)
    print(f"{output}: {len(errors)} noisy windows of {protocol['patients']} patients", file=sys.stderr, flush=True)

    denoise = Denoiser(bare.network, bare.inferer, correlated=bare.correlated, calibration=calibration)
    data = {"mini-MIAS": windows_of(split["test"], images)}
    if xray:
        data["X-ray"] = windows_of(evenly(xray_items(Path(xray)), images), images)
    data["packages"] = [picture for part in ("validation", "test", "unseen") for picture in pictures(part)]
    data["whole films"] = whole(evenly(split["test"], FEW // 2))
    print(HEAD)
    for name, windows in data.items():
        for sigma in sigmas if name != "whole films" else sigmas[::2]:
            seen = [judged(denoise, case) for case in noisy_cases(windows, sigma / 255)]
            print(row(name, str(sigma), seen), flush=True)
    for kind, (model, told) in other_noise().items():
        for name, windows in data.items():
            few = evenly(windows, FEW) if name != "whole films" else []
            seen = [judged(denoise, case, told) for case in other_cases(few, model)]
            if seen:
                print(row(name, kind, seen), flush=True)


if __name__ == "__main__":
    from launching import launch

    logging.getLogger("meddenoise_monai").setLevel(logging.ERROR)  # it names every image with correlated noise
    launch(main)
