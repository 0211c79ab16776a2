"""Estimates of a Gaussian noise level against the truth, ours and scikit-image's, by kind of image and sigma.

python scripts/benchmark_sigma.py [FOLDER ...] [--images 5] [--shrink 4]

An image that was photographed or scanned has noise of its own, so what counts as free of noise here is made so: images
averaged over squares of `shrink` pixels a side, whose noise is thus divided by `shrink` (where it is white), and
synthetic ones. Each FOLDER of images (searched recursively, 8-bit scale) is one kind, beside scikit-image's shipped
photographs and the synthetic textures. The noise is neither clipped nor rounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGMAS = (2, 5, 10, 15, 25, 50, 75)
"""On the scale of 0 to 255."""

Image = NDArray[np.float64]


def averaged(image: NDArray[Any], factor: int) -> Image:
    """The means of squares of `factor` pixels a side."""
    height, width = (size // factor for size in image.shape)
    squares = image[: height * factor, : width * factor].astype(np.float64).reshape(height, factor, width, factor)
    return np.asarray(squares.mean(axis=(1, 3)))


def sources(folders: tuple[str, ...], images: int, shrink: int) -> dict[str, list[Image]]:
    """Images without noise on [0, 255], by their kind."""
    import skimage.data

    from meddenoise_monai.images import find_images, read_image
    from meddenoise_monai.synthetic import dead_leaves, power_law

    def made(make: Callable[[np.random.Generator], NDArray[np.float32]]) -> list[Image]:
        return [255.0 * make(np.random.default_rng(seed)).astype(np.float64) for seed in range(2)]

    found = {}
    for folder in folders:
        paths = find_images(folder)
        chosen = paths[:: max(1, len(paths) // images)][:images]
        found[Path(folder).name] = [averaged(read_image(path).array, shrink) for path in chosen]
    photographs = ("camera", "coins", "moon", "brick", "grass", "gravel")
    found |= {name: [averaged(getattr(skimage.data, name)(), shrink)] for name in photographs}
    found["dead leaves"] = made(lambda rng: dead_leaves(256, rng, 2))
    found["dead leaves, large"] = made(lambda rng: dead_leaves(256, rng, 8))
    for power in (2, 3, 4):
        found[f"power spectrum f^-{power}"] = made(lambda rng, power=power: power_law(256, power, rng))
    rows, columns = np.indices((256, 256))
    found["ramp"] = [0.3 * rows + 0.5 * columns]
    return found


def errors(estimate: Callable[[Image], float], images: list[Image], sigma: float) -> Image:
    """The relative errors in percent, one an image."""
    noisy = [
        image + sigma * np.random.default_rng(seed).standard_normal(image.shape) for seed, image in enumerate(images)
    ]
    return np.array([100 * (estimate(image) / sigma - 1) for image in noisy])


def main(*folders: str, images: int = 5, shrink: int = 4, size: int | None = None) -> None:
    """Print the mean and the greatest relative error in percent of either estimator.

    Args:
        folders: folders of 8-bit images, each a row of the table.
        images: of each folder at most so many, evenly from its list.
        shrink: side in pixels of the squares that are averaged.
        size: cut this many pixels a side from the middle of each image; by default the whole image.
    """
    from skimage.restoration import estimate_sigma as wavelet

    from meddenoise_monai.noise.estimation import estimate_sigma

    print("Relative error in percent: mean (greatest); sigma on 0..255")
    print("| images | size | estimate |" + "".join(f" {sigma} |" for sigma in SIGMAS))
    print("|---|---|---|" + "---|" * len(SIGMAS))
    for kind, found in sources(folders, images, shrink).items():
        if size is not None:
            found = [
                image[tuple(slice(max(0, n // 2 - size // 2), n // 2 + size // 2) for n in image.shape)]
                for image in found
            ]
        for name, estimate in (("ours", estimate_sigma), ("scikit-image", wavelet)):
            cells = [errors(estimate, found, sigma) for sigma in SIGMAS]
            shown = "".join(f" {cell.mean():+.1f} ({np.abs(cell).max():.1f}) |" for cell in cells)
            print(f"| {kind} | {found[0].shape[0]} x {found[0].shape[1]} | {name} |{shown}", flush=True)
    image = np.random.default_rng(0).standard_normal((1024, 1024))
    estimate_sigma(image)
    start = time.process_time()
    estimate_sigma(image)
    print(f"\n{time.process_time() - start:.2f} s of one core for 1024 x 1024 pixels")


if __name__ == "__main__":
    from launching import launch

    launch(main)
