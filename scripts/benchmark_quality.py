"""How well weights denoise images they have never seen, against the classical baselines: PSNR and SSIM by data and σ.

Protocol: one 256 x 256 window at full resolution from each image, the first of 200 random ones (a function of the
image's content) of which at least 95 % is tissue (above 0.1 of the range); images without one are left out. Additive
Gaussian noise, not clipped, a function of (seed, image). The network
is blind. The baselines are told σ and were tuned for PSNR at that σ on windows of other patients (mini-MIAS'
validation women); BM3D stands twice: `bm3d` tuned like the others, `bm3d (true sigma)` as it comes, given the true σ.

mini-MIAS contributes its test women (split as `train_release.py` splits them), the X-rays all their images, which no
released weights were trained on. Results of the baselines are kept in OUTPUT and not computed again.

    python scripts/benchmark_quality.py --mini_mias DIR --xray DIR --output OUT [--weights model.pt] [--images 30]
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

SIGMAS = (5, 15, 25, 50, 75)  # of 255
WINDOW, LEAST_TISSUE = 256, 0.95


def windows_of(items: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """The windows (256, 256), float32 on [0, 1], of at most `count` items, evenly spread, with their patients."""
    from meddenoise_monai.datasets import evenly
    from meddenoise_monai.noise import image_seed
    from meddenoise_monai.transforms import TISSUE_THRESHOLD, ReadImaged, ScaleToUnitd

    found = []
    for item in items:
        image = ScaleToUnitd("image")(ReadImaged("image")(dict(item)))["image"]
        rng = np.random.default_rng(image_seed(image, 0))
        pixels = image[0].numpy()
        room = [size - WINDOW + 1 for size in pixels.shape]
        for _ in range(200 if min(room) > 0 else 0):
            top, left = rng.integers(room)
            window = pixels[top : top + WINDOW, left : left + WINDOW]
            if (window > TISSUE_THRESHOLD).mean() >= LEAST_TISSUE:
                found.append({"clean": window.copy(), "patient": item["patient"], "file": str(item["image"])})
                break
    return evenly(found, count)


def noisy_cases(windows: Sequence[Mapping[str, Any]], sigma: float, seed: int = 0) -> list[Any]:
    import torch

    from meddenoise_monai.evaluation import Case
    from meddenoise_monai.noise import GaussianNoise, image_seed
    from meddenoise_monai.tracking import case_id

    cases = []
    for window in windows:
        clean = torch.from_numpy(window["clean"])
        noisy = GaussianNoise(sigma).apply(clean, image_seed(clean, seed)).numpy()
        cases.append(Case(case_id(window["file"]), window["clean"], noisy, window["file"], window["patient"]))
    return cases


def classical(cases: Sequence[Any], sigma: float, names: Sequence[str], cache: Path) -> dict[str, Callable[..., Any]]:
    """The baselines tuned on `cases` for this σ."""
    from meddenoise_monai.baselines import available_baselines, make_baseline, tune_all

    pairs = [(case.clean, case.noisy) for case in cases]
    tuned: dict[str, Callable[..., Any]] = dict(tune_all(pairs, sigma, "psnr", names=names, cache_dir=cache))
    if "bm3d" in names and "bm3d" in available_baselines():
        tuned["bm3d (true sigma)"] = make_baseline("bm3d")
    return {name: (lambda noisy, _, method=method: method(noisy, sigma)) for name, method in tuned.items()}


def read_scores(path: Path) -> list[Any]:
    from meddenoise_monai.evaluation import Score

    kinds = {field.name: float if field.type == "float" else str for field in fields(Score)}
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            Score(**{name: kinds[name](value) for name, value in row.items() if name != "seconds_per_megapixel"})
            for row in csv.DictReader(stream)
        ]


def write_rows(path: Path, scores: Sequence[Any]) -> None:
    from meddenoise_monai.images import replace_whole

    with replace_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(asdict(scores[0])))
        writer.writeheader()
        writer.writerows(asdict(score) for score in scores)


def table(results: Mapping[tuple[str, int], Sequence[Any]], metric: str, digits: int) -> str:
    """Rows are methods, columns (data, σ), each cell a mean."""
    methods = list(dict.fromkeys(score.method for scores in results.values() for score in scores))
    lines = [
        "| method | " + " | ".join(f"{data}, {sigma}" for data, sigma in results) + " |",
        "|---|" + "---|" * len(results),
    ]
    for method in methods:
        means = []
        for scores in results.values():
            values = [getattr(score, metric) for score in scores if score.method == method]
            means.append(f"{np.mean(values):.{digits}f}" if values else "–")
        lines.append(f"| {method} | {' | '.join(means)} |")
    return "\n".join(lines)


def gains(results: Mapping[tuple[str, int], Sequence[Any]], ours: str, other: str) -> str:
    """What `ours` gains over `other` in each column: mean of the paired differences and its 95 % interval."""
    from meddenoise_monai.intervals import bootstrap_interval

    lines = [f"| data, σ (/255) | images | PSNR over {other} [dB] | SSIM over {other} |", "|---|---|---|---|"]
    for (data, sigma), scores in results.items():
        by = {name: [s for s in scores if s.method == name] for name in (ours, other)}
        if not by[ours] or not by[other]:
            continue
        cells = []
        for metric, digits in (("psnr", 2), ("ssim", 4)):
            differences = [getattr(a, metric) - getattr(b, metric) for a, b in zip(by[ours], by[other], strict=True)]
            interval = bootstrap_interval(differences, [score.patient for score in by[ours]])
            ends = f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]" if interval else ""
            cells.append(f"{np.mean(differences):+.{digits}f}{ends}")
        lines.append(f"| {data}, {sigma} | {len(by[ours])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    mini_mias: str,
    xray: str,
    output: str,
    weights: str = "",
    images: int = 30,
    sigmas: tuple[int, ...] = SIGMAS,
    baselines: tuple[str, ...] = ("gaussian", "median", "wavelet", "tv", "nlm", "bm3d"),
    precision: str = "auto",
) -> None:
    """Print the tables.

    Args:
        mini_mias: folder of mini-MIAS films.
        xray: folder of X-rays, one a patient.
        output: where the baselines' results are kept, and the scores of each image.
        weights: of the default network; by default the released ones.
        images: at most so many windows of each data set.
        sigmas: noise levels, of 255.
        baselines: names; those that are not installed are left out.
        precision: of the network: auto, fp32 or bf16.
    """
    from train_release import mini_mias_split

    from meddenoise_monai.baselines import available_baselines
    from meddenoise_monai.evaluation import evaluate
    from meddenoise_monai.images import find_images
    from meddenoise_monai.inference import Denoiser, TiledInferer, load_denoiser

    folder = Path(output)
    names = [name for name in baselines if name in available_baselines()]
    split = mini_mias_split(Path(mini_mias))
    films = [{"image": str(path), "patient": path.stem} for path in find_images(xray)]
    data = {"mini-MIAS": windows_of(split["test"], images), "X-ray": windows_of(films, images)}
    tuning = windows_of(split["validation"], 8)
    loaded = load_denoiser(weights or None)
    ours = Denoiser(loaded.network, TiledInferer(precision=precision))
    results: dict[tuple[str, int], list[Any]] = {}
    for name, windows in data.items():
        for sigma in sigmas:
            cases = noisy_cases(windows, sigma / 255)
            path = folder / f"{name}-{sigma}-{len(windows)}-{'-'.join(names)}.csv"
            scores = read_scores(path)
            if not scores:
                methods = classical(noisy_cases(tuning, sigma / 255), sigma / 255, names, folder / "tuning")
                scores = evaluate(cases, methods)
                write_rows(path, scores)
            blind = evaluate(cases, {"ours": lambda noisy, _: ours(noisy)})
            results[name, sigma] = [*scores, *(score for score in blind if score.method == "ours")]
            print(f"{name}, sigma {sigma}: done", file=sys.stderr, flush=True)
    best = "bm3d (true sigma)" if "bm3d" in names else names[-1]
    print(f"\nPSNR [dB]\n\n{table(results, 'psnr', 2)}\n\nSSIM\n\n{table(results, 'ssim', 4)}\n")
    print(gains(results, "ours", best))


if __name__ == "__main__":
    import fire

    fire.Fire(main)
