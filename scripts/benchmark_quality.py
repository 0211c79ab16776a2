"""How well weights denoise images they have never seen, against the classical baselines: PSNR and SSIM by data and σ.

Protocol: one 256 x 256 window at full resolution from each image, the first of 200 random ones (a function of the
image's content) of which at least 95 % is tissue (above 0.1 of the range); images without one are left out. Additive
Gaussian noise, not clipped, a function of (seed, image). The network
is blind. The baselines are told σ and were tuned for PSNR at that σ on 8 windows of other patients of the same source
(mini-MIAS' validation women; X-rays that are not among the test images); BM3D stands twice: `bm3d` tuned like the
others, `bm3d (true sigma)` as it comes, given the true σ.

mini-MIAS contributes its test women (split as `train_release.py` splits them), the X-rays IMAGES of theirs, which no
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
WINDOW, LEAST_TISSUE, TUNED_ON = 256, 0.95, 8
TRUE_SIGMA = "bm3d (true sigma)"


def windows_of(items: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """The windows (256, 256), float32 on [0, 1], of at most `count` items, evenly spread, with their patients."""
    from meddenoise_monai.datasets import evenly
    from meddenoise_monai.images import TISSUE_THRESHOLD
    from meddenoise_monai.noise import image_seed
    from meddenoise_monai.transforms import ReadImaged, ScaleToUnitd

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
    """These baselines for this σ, tuned on `cases`, but for BM3D as it comes."""
    from meddenoise_monai.baselines import make_baseline, tune_all

    pairs = [(case.clean, case.noisy) for case in cases]
    tunable = [name for name in names if name != TRUE_SIGMA]
    found: dict[str, Callable[..., Any]] = dict(tune_all(pairs, sigma, "psnr", names=tunable, cache_dir=cache))
    if TRUE_SIGMA in names:
        found[TRUE_SIGMA] = make_baseline("bm3d")
    return {name: (lambda noisy, _, method=found[name]: method(noisy, sigma)) for name in names}


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
    from meddenoise_monai.whole_files import replace_whole

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


def best_of(scores: Sequence[Any], metric: str) -> str:
    """The tuned baseline with the best mean."""
    tuned = dict.fromkeys(s.method for s in scores if s.method not in ("noisy", "ours", TRUE_SIGMA))
    return max(tuned, key=lambda name: float(np.mean([getattr(s, metric) for s in scores if s.method == name])))


def gains(results: Mapping[tuple[str, int], Sequence[Any]], other: str = "") -> str:
    """What ours gains over `other`, or the best tuned baseline, in each column: the mean of the paired differences and
    its 95 % interval over patients."""
    from meddenoise_monai.intervals import bootstrap_interval

    versus = other or "the best tuned baseline"
    lines = [f"| data, σ (/255) | images | PSNR over {versus} [dB] | SSIM over {versus} |", "|---|---|---|---|"]
    for (data, sigma), scores in results.items():
        cells = []
        ours = [score for score in scores if score.method == "ours"]
        for metric, digits in (("psnr", 2), ("ssim", 4)):
            name = other or best_of(scores, metric)
            others = [score for score in scores if score.method == name]
            differences = [getattr(a, metric) - getattr(b, metric) for a, b in zip(ours, others, strict=True)]
            interval = bootstrap_interval(differences, [score.patient for score in ours])
            ends = f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]" if interval else ""
            cells.append(f"{np.mean(differences):+.{digits}f}{ends}{'' if other else f' ({name})'}")
        lines.append(f"| {data}, {sigma} | {len(ours)} | {' | '.join(cells)} |")
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
    from splits import xray_items
    from train_release import mini_mias_split

    from meddenoise_monai.baselines import available_baselines
    from meddenoise_monai.datasets import evenly
    from meddenoise_monai.evaluation import evaluate
    from meddenoise_monai.inference import Denoiser, load_denoiser
    from meddenoise_monai.inferers import TiledInferer

    folder = Path(output)
    wanted = [name for name in baselines if name in available_baselines()]
    wanted += [TRUE_SIGMA] if "bm3d" in wanted else []
    split = mini_mias_split(Path(mini_mias))
    radiographs = windows_of(xray_items(Path(xray)), sys.maxsize)
    chosen = evenly(radiographs, images)
    data = {"mini-MIAS": windows_of(split["test"], images), "X-ray": chosen}
    # Where all radiographs are judged, none are left to tune on.
    judged = {window["file"] for window in chosen}
    others = [window for window in radiographs if window["file"] not in judged] or radiographs
    tuning = {"mini-MIAS": windows_of(split["validation"], TUNED_ON), "X-ray": evenly(others, TUNED_ON)}
    loaded = load_denoiser(weights or None)
    ours = Denoiser(loaded.network, TiledInferer(precision=precision), correlated=loaded.correlated)
    results: dict[tuple[str, int], list[Any]] = {}
    for name, windows in data.items():
        for sigma in sigmas:
            cases = noisy_cases(windows, sigma / 255)
            path = folder / f"{name}-{sigma}-{len(windows)}.csv"
            known = read_scores(path)
            have = {score.method for score in known}
            missing = [method for method in wanted if method not in have]
            if missing:
                methods = classical(noisy_cases(tuning[name], sigma / 255), sigma / 255, missing, folder / "tuning")
                known += [score for score in evaluate(cases, methods) if score.method not in have]
                write_rows(path, known)
            scores = [score for method in ("noisy", *wanted) for score in known if score.method == method]
            blind = evaluate(cases, {"ours": lambda noisy, _: ours(noisy)})
            results[name, sigma] = [*scores, *(score for score in blind if score.method == "ours")]
            print(f"{name}, sigma {sigma}: done", file=sys.stderr, flush=True)
    print(f"\nPSNR [dB]\n\n{table(results, 'psnr', 2)}\n\nSSIM\n\n{table(results, 'ssim', 4)}\n")
    if TRUE_SIGMA in wanted:
        print(gains(results, TRUE_SIGMA), end="\n\n")
    print(gains(results))


if __name__ == "__main__":
    from launching import launch

    launch(main)
