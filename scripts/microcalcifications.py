"""What denoising does to microcalcifications: their contrast and detectability, before and after, against BM3D.

Data: the lesions of class CALC of mini-MIAS with known place and radius (Info.txt), on films of women that the released
weights were not trained on (`--parts test` or also validation). In each lesion's square of at least 128 pixels, spots
are what a difference of Gaussians (1 and 2 pixels) of the clean film finds: the local maxima above 6 robust standard
deviations of its response, at most 40, no nearer than 12 pixels to the film's background or the square's border. The
square is made noisy and denoised as a whole, and at each spot is measured:

- contrast: the mean of 3 x 3 pixels minus the median of the ring from 4 to 6 pixels around, in grey levels of 255;
- detectability: d' = (mean response of the same filter at the spots - at places that are at least 5 pixels from all
  spots) / the response's standard deviation at those places, and the area under the ROC curve of spots against places.

Means over lesions and REPEATS draws of the noise, with 95 % bootstrap intervals over women.

    python scripts/microcalcifications.py --mini_mias DIR [--weights model.pt] [--sigmas "(5,15,25)"] [--figure PNG]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent))

from splits import mini_mias_items
from train_release import mini_mias_split

Image = NDArray[Any]
SIDE, MARGIN, MOST_SPOTS, THRESHOLD = 128, 12, 40, 6.0


@dataclass(frozen=True)
class Lesion:
    """A square of a film around a cluster, on [0, 1], with the places of its spots and of its background."""

    patient: str
    name: str
    clean: Image
    spots: NDArray[np.intp]  # (N, 2) rows and columns
    places: NDArray[np.intp]  # (M, 2)


def response(image: Image) -> Image:
    """Small bright spots of some 200 to 800 micrometres."""
    return np.asarray(ndimage.gaussian_filter(image, 1.0) - ndimage.gaussian_filter(image, 2.0))


def spots_of(clean: Image) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the spots, the brightest first, and of the background."""
    from meddenoise_monai.images import TISSUE_THRESHOLD

    answer = response(clean)
    robust = 1.4826 * np.median(np.abs(answer - np.median(answer)))
    peaks = (answer == ndimage.maximum_filter(answer, 5)) & (answer > THRESHOLD * robust)
    inside = ndimage.minimum_filter(clean, 2 * MARGIN + 1, mode="constant", cval=0) > TISSUE_THRESHOLD
    spots = np.argwhere(peaks & inside)
    spots = spots[np.argsort(-answer[tuple(spots.T)])][:MOST_SPOTS]
    far = inside & ~ndimage.binary_dilation(peaks, np.ones((11, 11)))
    places = np.argwhere(far)
    return spots, places[np.random.default_rng(0).permutation(len(places))[:1000]]


def lesions_of(folder: Path, patients: set[str]) -> list[Lesion]:
    """The lesions that have at least three spots."""
    from meddenoise_monai.public_data import COLLECTIONS, parse_mias_info
    from meddenoise_monai.transforms import ReadImaged, ScaleToUnitd

    known, _ = parse_mias_info((folder / "Info.txt").read_text(encoding="utf-8", errors="replace"))
    found = []
    for item in mini_mias_items(folder):
        number = COLLECTIONS["mini_mias"].number(Path(item["image"])) or 0
        marked = [lesion for lesion in known.get(number, []) if lesion["class"] == "CALC" and lesion["x"] is not None]
        if item["patient"] not in patients or not marked:
            continue
        film = ScaleToUnitd("image")(ReadImaged("image")(dict(item)))["image"][0].numpy()
        for count, lesion in enumerate(marked, 1):
            half = max(SIDE // 2, int(lesion["radius"]))
            top, left = (int(np.clip(lesion[axis] - half, 0, 1024 - 2 * half)) for axis in "yx")
            square = film[top : top + 2 * half, left : left + 2 * half].copy()
            spots, places = spots_of(square)
            if len(spots) >= 3:
                found.append(Lesion(item["patient"], f"mdb{number:03d}-{count}", square, spots, places))
    return found


def contrasts(image: Image, spots: NDArray[np.intp]) -> NDArray[np.float64]:
    rows, columns = np.indices((13, 13)) - 6
    radius = np.hypot(rows, columns)
    ring, core = (radius >= 4) & (radius <= 6), (np.abs(rows) <= 1) & (np.abs(columns) <= 1)
    windows = [image[r - 6 : r + 7, c - 6 : c + 7] for r, c in spots]
    return np.array([window[core].mean() - np.median(window[ring]) for window in windows])


def measures(image: Image, lesion: Lesion) -> dict[str, float]:
    """Contrast, d' and area under the ROC curve."""
    from scipy.stats import mannwhitneyu

    answer = response(image)
    at, away = answer[tuple(lesion.spots.T)], answer[tuple(lesion.places.T)]
    area = mannwhitneyu(at, away).statistic / (len(at) * len(away))
    contrast = 255 * contrasts(image, lesion.spots).mean()
    return {"contrast": float(contrast), "d'": float((at.mean() - away.mean()) / away.std()), "AUC": float(area)}


def noisy_of(lesion: Lesion, sigma: float, seed: int = 0) -> Image:
    import torch

    from meddenoise_monai.noise import GaussianNoise, image_seed

    clean = torch.from_numpy(lesion.clean)
    return GaussianNoise(sigma).apply(clean, image_seed(clean, seed)).numpy()


def denoisers(weights: str) -> dict[str, Callable[[Image, float], Image]]:
    from meddenoise_monai.baselines import available_baselines, make_baseline
    from meddenoise_monai.inference import load_denoiser

    ours = load_denoiser(weights or None)
    found: dict[str, Callable[[Image, float], Image]] = {"noisy": lambda image, sigma: image}
    if "bm3d" in available_baselines():
        bm3d = make_baseline("bm3d")
        found["bm3d (true sigma)"] = lambda image, sigma: np.asarray(bm3d(image, sigma))
    return {**found, "ours": lambda image, sigma: ours(image)}


def table(results: dict[tuple[int, str], list[dict[str, float]]], patients: Sequence[str]) -> str:
    from meddenoise_monai.intervals import bootstrap_interval

    lines = ["| σ (/255) | method | contrast | d' | AUC |", "|---|---|---|---|---|"]
    for (sigma, method), values in results.items():
        cells = []
        for name in ("contrast", "d'", "AUC"):
            numbers = [value[name] for value in values]
            interval = bootstrap_interval(numbers, patients)
            digits = 2 if name == "AUC" else 1
            ends = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
            cells.append(f"{np.mean(numbers):.{digits}f}{ends}")
        lines.append(f"| {sigma} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(lesion: Lesion, sigma: float, methods: dict[str, Callable[[Image, float], Image]], path: Path) -> None:
    from matplotlib.figure import Figure

    from meddenoise_monai.whole_files import replace_whole

    noisy = noisy_of(lesion, sigma)
    pictures = {"clean": lesion.clean, **{name: method(noisy, sigma) for name, method in methods.items()}}
    low, high = np.quantile(lesion.clean, [0.01, 0.999])
    figure = Figure(figsize=(3 * len(pictures), 6.8), layout="constrained")
    marked, plain = figure.subplots(2, len(pictures))
    for number, (name, picture) in enumerate(pictures.items()):
        for axes in (marked[number], plain[number]):
            axes.imshow(picture, cmap="gray", vmin=low, vmax=high)
            axes.set_axis_off()
        rows, columns = lesion.spots.T
        marked[number].scatter(columns, rows, s=160, facecolors="none", edgecolors="tab:orange", lw=0.7)
        marked[number].set_title(name)
    caption = f"{lesion.name}, {len(lesion.spots)} spots (circled above), sigma = {sigma * 255:.0f}/255"
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    figure.text(0.5, 0.01, caption, ha="center")
    with replace_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def main(
    mini_mias: str,
    weights: str = "",
    sigmas: tuple[int, ...] = (5, 15, 25),
    parts: tuple[str, ...] = ("validation", "test"),
    repeats: int = 8,
    figure: str = "",
) -> None:
    """Print the table.

    Args:
        mini_mias: folder of mini-MIAS films, with Info.txt.
        weights: of the default network; by default the released ones.
        sigmas: noise levels, of 255.
        parts: of the split of `train_release.py` whose films are taken.
        repeats: draws of the noise for each lesion.
        figure: a PNG file to write: the lesion with the most spots, at the middle sigma.
    """
    from meddenoise_monai.errors import InputError

    folder = Path(mini_mias)
    split = mini_mias_split(folder)
    lesions = lesions_of(folder, {item["patient"] for part in parts for item in split[part]})
    if not lesions:
        raise InputError(f"no calcifications on the films in {folder}", "give mini-MIAS with its Info.txt")
    methods = denoisers(weights)
    results: dict[tuple[int, str], list[dict[str, float]]] = {}
    for sigma in (0, *sigmas):
        for lesion in lesions:
            for name, method in methods.items():
                if not sigma and name not in ("noisy", "ours"):
                    continue
                noisy = [noisy_of(lesion, sigma / 255, seed) for seed in range(repeats)] if sigma else [lesion.clean]
                draws = [measures(method(image, sigma / 255), lesion) for image in noisy]
                means = {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}
                results.setdefault((sigma, "clean" if not sigma and name == "noisy" else name), []).append(means)
    women = len({lesion.patient for lesion in lesions})
    print(f"{len(lesions)} lesions of {women} women, {sum(len(lesion.spots) for lesion in lesions)} spots\n")
    print(table(results, [lesion.patient for lesion in lesions]))
    if figure:
        most = max(lesions, key=lambda lesion: len(lesion.spots))
        draw(most, sigmas[len(sigmas) // 2] / 255, methods, Path(figure))


if __name__ == "__main__":
    from launching import launch

    launch(main)
