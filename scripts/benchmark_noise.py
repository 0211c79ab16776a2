"""Kinds of noise that are not white: what naming them gains, and what `auto` does when nobody names them.

Photon counting, Rician and smoothed noise are put on windows as in `benchmark_quality.py` (mini-MIAS' test women and
X-rays; for Rician noise the MR and EPI slices that ship in packages). PSNR in dB: the noisy image, NL-means told the
noise's standard deviation and tuned for each kind on windows of mini-MIAS' validation women, and our network with
`--noise gaussian`, `--noise auto`, and the kind's own name, all blind; and with the kind's own name, but without the
partner for correlated noise.

    python scripts/benchmark_noise.py --mini_mias DIR --xray DIR [--weights model.pt] [--images 10]
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmark_kinds import pictures
from benchmark_quality import windows_of
from splits import xray_items
from train_release import mini_mias_split

# Name, model and its parameters, what our network is told.
NOISES: tuple[tuple[str, str, dict[str, float], str], ...] = (
    ("30 photons", "poisson", {"photons": 30.0}, "poisson"),
    ("200 photons", "poisson", {"photons": 200.0}, "poisson"),
    ("60 photons and 5/255", "poisson_gaussian", {"photons": 60.0, "sigma": 5 / 255}, "poisson"),
    ("Rician, 15/255", "rician", {"sigma": 15 / 255}, "rician"),
    ("Rician, 40/255", "rician", {"sigma": 40 / 255}, "rician"),
    ("15/255, smoothed by 1.2 pixels FWHM", "correlated", {"sigma": 15 / 255, "fwhm": 1.2}, "correlated"),
    ("15/255, smoothed by 2 pixels FWHM", "correlated", {"sigma": 15 / 255, "fwhm": 2.0}, "correlated"),
    ("15/255, smoothed by 3.5 pixels FWHM", "correlated", {"sigma": 15 / 255, "fwhm": 3.5}, "correlated"),
    ("15/255, smoothed by 6 pixels FWHM", "correlated", {"sigma": 15 / 255, "fwhm": 6.0}, "correlated"),
    ("5/255, smoothed by 2 pixels FWHM", "correlated", {"sigma": 5 / 255, "fwhm": 2.0}, "correlated"),
    ("40/255, smoothed by 2 pixels FWHM", "correlated", {"sigma": 40 / 255, "fwhm": 2.0}, "correlated"),
    ("15/255, as CT", "correlated", {"sigma": 15 / 255, "fwhm": 1.5, "ramp": 1.0}, "correlated"),
)
METHODS = ("noisy", "nlm", "ours, gaussian", "ours, auto", "ours, named", "ours, named, alone")


def cases_of(windows: Sequence[Mapping[str, Any]], model: str, parameters: Mapping[str, float]) -> list[Any]:
    import torch

    from meddenoise_monai.evaluation import Case
    from meddenoise_monai.noise import image_seed, make_noise
    from meddenoise_monai.tracking import case_id

    noise = make_noise(model, **parameters)
    cases = []
    for window in windows:
        clean = torch.from_numpy(window["clean"])
        noisy = noise.apply(clean, image_seed(clean, 0)).numpy()
        cases.append(Case(case_id(window["file"]), window["clean"], noisy, window["file"], window["patient"]))
    return cases


def row(cases: Sequence[Any], tuning: Sequence[Any], denoise: Any, kind: str) -> dict[str, float]:
    """PSNR of each method."""
    from meddenoise_monai.baselines import tune
    from meddenoise_monai.inference import Denoiser
    from meddenoise_monai.metrics import psnr

    alone = Denoiser(denoise.network)

    nlm = tune("nlm", [(case.clean, case.noisy) for case in tuning], [case.sigma for case in tuning])
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    for case in cases:
        results = {
            "noisy": case.noisy,
            "nlm": nlm(case.noisy, case.sigma),
            "ours, gaussian": denoise(case.noisy, noise="gaussian"),
            "ours, auto": denoise(case.noisy),
            "ours, named": denoise(case.noisy, noise=kind),
            "ours, named, alone": alone(case.noisy, noise=kind),
        }
        for name, result in results.items():
            scores[name].append(psnr(case.clean, np.asarray(result), 1.0))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def main(mini_mias: str, xray: str, weights: str = "", images: int = 10) -> None:
    """Print the table.

    Args:
        mini_mias: folder of mini-MIAS films.
        xray: folder of X-rays, one a patient.
        weights: of the default network; by default the released ones.
        images: at most so many windows of each data set.
    """
    from meddenoise_monai.inference import load_denoiser

    logging.disable(logging.WARNING)  # which name the correlation, image by image
    denoise = load_denoiser(weights or None)
    split = mini_mias_split(Path(mini_mias))
    magnetic = [picture for part in ("test", "validation") for picture in pictures(part)]
    data = {
        "mini-MIAS": windows_of(split["test"], images),
        "X-ray": windows_of(xray_items(Path(xray)), images),
        "MR, EPI": [picture for picture in magnetic if picture["file"].startswith(("MR", "anatomical", "phantom"))],
    }
    tuning = windows_of(split["validation"], 4)
    print(f"| noise | data | images | {' | '.join(METHODS)} |\n|---|---|---|{'---|' * len(METHODS)}")
    for name, model, parameters, kind in NOISES:
        for source, windows in data.items():
            if (source == "MR, EPI") == (kind == "rician"):
                cases = cases_of(windows, model, parameters)
                scores = row(cases, cases_of(tuning, model, parameters), denoise, kind)
                cells = " | ".join(f"{score:.2f}" for score in scores.values())
                print(f"| {name} | {source} | {len(cases)} | {cells} |", flush=True)


if __name__ == "__main__":
    from launching import launch

    launch(main)
