"""Small images and weights made on the fly, for tests that need files."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage


def textured(seed: int, size: int = 64) -> NDArray[np.uint8]:
    """An 8-bit image (size, size) with smooth structure, edges and a dark background."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 12)
    edges = ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 20) > 0
    image = 110 + 60 * smooth / np.abs(smooth).max() + 50 * edges
    image[:, : size // 8] = 5
    return np.clip(image, 0, 255).astype(np.uint8)


def write_patients(folder: Path, count: int, size: int = 64) -> Path:
    """Write `count` PNG files, one a patient, and answer the folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(textured(number, size)).save(folder / f"patient{number:02d}.png")
    return folder


def write_model(path: Path) -> Path:
    """Write weights of a small network that changes its input, and answer the path."""
    import torch

    from meddenoise_monai.networks import ResidualDenoisingAutoencoder

    torch.manual_seed(0)
    network = ResidualDenoisingAutoencoder(widths=(4, 8), blocks=1)
    with torch.no_grad():
        for weight in network.tail.parameters():
            weight.normal_(0, 0.1)
    torch.save(network.state_dict(), path)
    return path


def listen_to_interrupts() -> None:
    """For `preexec_fn`: a program started from a background job ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
