"""Synthetic images to train on, free of noise by construction: dead leaves, power-law textures, specks, holes.

Real images carry noise of their own and show what their data set shows. The first two models share the statistics of
natural images (edges that occlude each other at all sizes; a spectrum that falls with a power of the frequency) and
nothing else. Specks are what a network that has seldom seen them takes for noise, and what mammograms are taken for.
Holes are what masks leave of maps and of brains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .errors import UsageError

__all__ = ["dead_leaves", "holes", "power_law", "specks", "synthetic_image"]

Image = NDArray[np.float32]


def power_law(size: int, exponent: float, rng: np.random.Generator, anisotropy: float = 1.0) -> Image:
    """A texture whose power spectrum falls as ``frequency ** -exponent``, with random phases.

    Photographs and radiographs have exponents around 2, mammograms around 3 (Burgess, Medical Physics 28(4), 2001).

    Parameters
    ----------
    size
        Of the square image, pixels.
    exponent
        At least 0, which is white.
    rng
        Source of the random numbers.
    anisotropy
        Factor on the vertical frequencies before the law is applied; 1 is isotropic, others are streaky.

    Returns
    -------
    NDArray[np.float32]
        (size, size), scaled to [0, 1] by its own extremes.

    Raises
    ------
    UsageError
        If a parameter is out of bounds.
    """
    if size < 2 or exponent < 0 or anisotropy <= 0:
        raise UsageError(
            f"no power-law texture of size {size}, exponent {exponent}, anisotropy {anisotropy}",
            "size is at least 2, exponent not negative, anisotropy positive",
        )
    rows, columns = fft.fftfreq(size)[:, None] * anisotropy, fft.rfftfreq(size)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no offset
    spectrum = fft.rfft2(rng.standard_normal((size, size))) * frequency ** (-exponent / 2)
    return _to_unit(fft.irfft2(spectrum, (size, size)))


def dead_leaves(size: int, rng: np.random.Generator, smallest: float = 2.0, largest: float = 0.0) -> Image:
    """Discs and rectangles that fall on each other until they cover the image: the dead-leaves model.

    Radii r have the density ``r ** -3``, which makes the image look alike at every scale (Lee, Mumford and Huang, IJCV
    41, 2001). Half of the leaves are flat, the others carry a gradient, so that not all edges part two constants. Edges
    are as wide as a pixel, as those of a camera are.

    Parameters
    ----------
    size
        Of the square image, pixels.
    rng
        Source of the random numbers.
    smallest, largest
        Radii of the leaves, pixels; 0 is half the size.

    Returns
    -------
    NDArray[np.float32]
        (size, size), on [0, 1].

    Raises
    ------
    UsageError
        If the radii are not positive and increasing.
    """
    largest = largest or size / 2
    if size < 1 or not 0 < smallest < largest:
        raise UsageError(
            f"no leaves of {smallest} to {largest} pixels in {size}", "give a small and a larger positive radius"
        )
    image = np.full((size, size), rng.random(), np.float32)
    # As many leaves as cover the image four times: drawn from below, the last ones are seen.
    low, high = smallest**-2, largest**-2
    mean_area = np.pi * 2 * np.log(largest / smallest) / (low - high)
    for _ in range(int(4 * size**2 / mean_area) + 1):
        radius = (low - rng.random() * (low - high)) ** -0.5
        _lay(image, radius, rng)
    return np.clip(image, 0, 1)


def _lay(image: Image, radius: float, rng: np.random.Generator) -> None:
    size = len(image)
    row, column = rng.uniform(-radius, size + radius, 2)
    aspect = rng.uniform(0.5, 1)
    angle = rng.uniform(0, np.pi)
    level, slope = rng.random(), rng.uniform(-0.5, 0.5) * (rng.random() < 0.5)
    round_leaf = rng.random() < 0.7
    reach = 1.5 * radius + 1
    top, bottom = max(0, int(row - reach)), min(size, int(row + reach) + 2)
    left, right = max(0, int(column - reach)), min(size, int(column + reach) + 2)
    if top >= bottom or left >= right:
        return
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(row)
    x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(column)
    along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    across = (np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x) / np.float32(aspect)
    distance = np.hypot(along, across) if round_leaf else np.maximum(np.abs(along), np.abs(across))
    cover = np.clip(np.float32(radius + 0.5) - distance, 0, 1)
    leaf = np.float32(level) + np.float32(slope / radius) * along
    part = image[top:bottom, left:right]
    part += cover * (leaf - part)


def specks(image: Image, rng: np.random.Generator, density: float = 1 / 800) -> Image:
    """Small bright spots on an image, as microcalcifications are: of one to four pixels, of all contrasts.

    Parameters
    ----------
    image
        (H, W), on [0, 1].
    rng
        Source of the random numbers.
    density
        Expected spots a pixel.

    Returns
    -------
    NDArray[np.float32]
        A new image of the same shape, on [0, 1], nowhere darker.

    Raises
    ------
    UsageError
        If `density` is negative.
    """
    if not density >= 0:
        raise UsageError(f"no specks of density {density}", "0 is none")
    result = image.copy()
    reach = 4
    for _ in range(rng.poisson(density * image.size)):
        row, column = rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1])
        radius, aspect, angle = rng.uniform(0.5, 1.5), rng.uniform(0.6, 1), rng.uniform(0, np.pi)
        contrast = min(0.02 + rng.exponential(0.15), 0.9)
        top, left = max(0, int(row) - reach), max(0, int(column) - reach)
        part = result[top : int(row) + reach + 1, left : int(column) + reach + 1]
        y, x = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
        along = np.cos(angle) * (x - column) + np.sin(angle) * (y - row)
        across = (np.cos(angle) * (y - row) - np.sin(angle) * (x - column)) / aspect
        spot = np.float32(contrast) * np.exp(-(along**2 + across**2) / (2 * radius**2)).astype(np.float32)
        part += spot * (1 - part)
    return result


def holes(image: Image, rng: np.random.Generator) -> Image:
    """An image with 5 to 40 % of it set to 0, within borders as ragged as those of a thresholded map.

    Parameters
    ----------
    image
        (N, N), on [0, 1].
    rng
        Source of the random numbers.

    Returns
    -------
    NDArray[np.float32]
        A new image of the same shape.
    """
    relief = power_law(len(image), rng.uniform(2, 4), rng)
    return np.where(relief < np.quantile(relief, rng.uniform(0.05, 0.4)), np.float32(0), image)


def synthetic_image(size: int, seed: int) -> Image:
    """One of the images above, or a mixture of them, of random parameters: a function of `size` and `seed` alone.

    A third each: dead leaves; a power-law texture of exponent 1.5 to 4; leaves that are textured by such a texture.
    The contrast and the offset are drawn too, since no file fills [0, 1] evenly. Half of the images carry specks,
    one in six has holes.

    Returns
    -------
    NDArray[np.float32]
        (size, size), on [0, 1].

    Raises
    ------
    UsageError
        If `size` is below 8.
    """
    if size < 8:
        raise UsageError(f"no synthetic image of {size} pixels", "8 is the least size")
    rng = np.random.default_rng([0x5EED, size, seed])
    kind = rng.integers(3)
    leaves: Image | None = None
    texture: Image | None = None
    if kind != 1:
        leaves = dead_leaves(size, rng, float(np.exp(rng.uniform(np.log(1.5), np.log(min(12, size / 4))))))
    if kind != 0:
        texture = power_law(size, rng.uniform(1.5, 4), rng, float(np.exp(rng.normal(0, 0.3))))
    if leaves is not None and texture is not None:
        weight = np.float32(rng.uniform(0.1, 0.6))
        image = (1 - weight) * leaves + weight * texture
    else:
        image = leaves if leaves is not None else texture  # type: ignore[assignment]
    contrast = np.float32(rng.uniform(0.3, 1))
    image = contrast * image + np.float32(rng.uniform(0, 1)) * (1 - contrast)
    if rng.random() < 0.5:
        image = specks(image, rng)
    return holes(image, rng) if rng.random() < 1 / 6 else image


def _to_unit(values: NDArray[np.float64]) -> Image:
    low, high = values.min(), values.max()
    unit: Image = ((values - low) / max(high - low, 1e-300)).astype(np.float32)
    return unit
