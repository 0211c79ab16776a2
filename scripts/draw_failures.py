"""Pictures of where the released weights fail, for the model card.

Four rows: fine detail of the size of the noise (an MR slice of 64 x 64 pixels), faint specks (drawn on a smooth
background, as microcalcifications are, with contrasts from 5 to 60 grey levels of 255), noise that is smoothed while
the network is told that it is not, and Rician noise of which the same is said. In each: the clean image, the noisy one,
what the network makes of it, and the difference to the clean image, four times as strong. Images are those that ship
inside packages and that the weights were not trained on.

    python scripts/draw_failures.py [--output bundle/docs/failures.png] [--weights model.pt]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmark_kinds import pictures

ROOT = Path(__file__).resolve().parent.parent
CONTRASTS = (5, 10, 20, 40, 60)  # of 255
AMPLIFIED = 4


@dataclass(frozen=True)
class Failure:
    """A clean image on [0, 1], the noise put on it, and the kind that the network is told."""

    title: str
    clean: NDArray[Any]
    model: str
    parameters: dict[str, float]


def specks(side: int = 128, seed: int = 0) -> NDArray[np.float32]:
    """A smooth background with columns of specks: Gaussians of a standard deviation of 0.7 and 1 pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    image = 0.45 + 0.1 * np.sin(rows / 40) * np.cos(columns / 55)
    for number, contrast in enumerate(CONTRASTS):
        for place, width in enumerate((0.7, 0.7, 0.7, 1.0, 1.0, 1.0)):
            row, column = (np.array([12 + 20 * place, 14 + 25 * number]) + rng.integers(-3, 4, 2)).tolist()
            distance = (rows - row) ** 2 + (columns - column) ** 2
            image = image + contrast / 255 * np.exp(-distance / (2 * width**2))
    return np.float32(image)


def failures() -> list[Failure]:
    images = {image["file"]: image["clean"] for part in ("test", "validation") for image in pictures(part)}
    magnetic, tomography = images["MR_small.dcm"], images["J2K_pixelrep_mismatch.dcm"]
    return [
        Failure("detail of a pixel's size,\nσ = 25/255", magnetic, "gaussian", {"sigma": 25 / 255}),
        Failure("specks of 5 to 60 grey levels,\nσ = 15/255", specks(), "gaussian", {"sigma": 15 / 255}),
        Failure("noise smoothed by 2 pixels FWHM,\ntold gaussian", tomography, "correlated",
                {"sigma": 15 / 255, "fwhm": 2.0}),
        Failure("Rician noise, 40/255,\ntold gaussian", magnetic, "rician", {"sigma": 40 / 255}),
    ]  # fmt: skip


def draw(rows: list[tuple[Failure, NDArray[Any], NDArray[Any]]], path: Path) -> None:
    """One row for each failure with its noisy and its denoised image."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from meddenoise_monai.whole_files import replace_whole

    figure, axes = plt.subplots(len(rows), 4, figsize=(9.2, 2.3 * len(rows)), layout="constrained")
    names = ("clean", "noisy", "denoised", f"(denoised − clean) × {AMPLIFIED}")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=9)
    for line, (failure, noisy, denoised) in zip(axes, rows, strict=True):
        shown = (failure.clean, noisy, denoised, 0.5 + AMPLIFIED * (denoised - failure.clean))
        # Of a dark image the upper half of the range would stay empty.
        top = max(float(np.quantile(failure.clean, 0.999)), 0.3)
        for axis, name, image in zip(line, names, shown, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1 if name.startswith("(") else top, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(failure.title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    plt.close(figure)


def main(output: str = str(ROOT / "bundle" / "docs" / "failures.png"), weights: str = "") -> None:
    """Draw the figure and print what it shows in numbers.

    Args:
        output: the PNG file.
        weights: of the default network; by default the released ones.
    """
    import torch

    from meddenoise_monai.inference import load_denoiser
    from meddenoise_monai.metrics import psnr
    from meddenoise_monai.noise import make_noise

    denoise = load_denoiser(weights or None)
    rows = []
    print("| failure | noisy | denoised [dB] | shift of the mean (/255) |\n|---|---|---|---|")
    for failure in failures():
        noisy = make_noise(failure.model, **failure.parameters).apply(torch.from_numpy(failure.clean), 0).numpy()
        denoised = denoise(noisy, noise="gaussian")
        scores = (f"{psnr(failure.clean, image, 1.0):.2f}" for image in (noisy, denoised))
        shift = 255 * float(denoised.mean() - failure.clean.mean())
        print(f"| {' '.join(failure.title.split())} | {' | '.join(scores)} | {shift:+.1f} |")
        rows.append((failure, noisy, denoised))
    draw(rows, Path(output))


if __name__ == "__main__":
    from launching import launch

    launch(main)
