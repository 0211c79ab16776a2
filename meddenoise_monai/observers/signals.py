"""Signals to put into images, and the contrast of those that are there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from ..errors import InputError, UsageError
from .inputs import Array, centre_of, checked, steps_from

__all__ = ["lesion_contrast", "microcalcifications"]


def microcalcifications(
    shape: tuple[int, int],
    count: int,
    radius: float,
    dot_sigma: float,
    contrast: float,
    seed: int,
    centre: tuple[float, float] | None = None,
) -> Array:
    """A cluster of small blurred dots to add to an image, as microcalcifications are in a mammogram.

    Each dot is a Gaussian averaged over each pixel. Where dots overlap the stronger one shows, so that the sum does
    not go beyond the contrast.

    Parameters
    ----------
    shape
        (H, W) of the image.
    count
        How many dots.
    radius
        Pixels; the dots' centres are drawn evenly from the disc of this radius.
    dot_sigma
        Standard deviation of a dot, pixels. Under about 1 the brightest pixel stays well below the contrast, which is
        that of the Gaussian's top.
    contrast
        In [-1, 1], a fraction of the image's scale; negative is darker.
    seed
        Of the positions: the same seed is the same cluster.
    centre
        (row, column) of the cluster, pixels; None is the middle of the image.

    Returns
    -------
    NDArray[np.float64]
        (H, W)

    Raises
    ------
    UsageError
        If the cluster does not lie within the image, or a parameter is out of bounds.
    """
    rows, columns = steps_from(shape, centre)
    _check_signal(shape, centre, radius, contrast)
    if not (count >= 1 and dot_sigma > 0 and math.isfinite(dot_sigma)):
        raise UsageError(f"no {count} dots of standard deviation {dot_sigma}", "both must be positive")
    rng = np.random.default_rng(seed)
    # Areas, not radii, are drawn evenly: else the dots would crowd in the middle.
    distance, angle = radius * np.sqrt(rng.random(count)), 2 * np.pi * rng.random(count)

    def averaged(steps: Array, positions: Array) -> Array:
        edges = (steps - positions[:, None]) / dot_sigma
        part: Array = ndtr(edges + 0.5 / dot_sigma) - ndtr(edges - 0.5 / dot_sigma)
        return math.sqrt(2 * math.pi) * dot_sigma * part

    picture = np.zeros(shape)
    for vertical, horizontal in zip(
        averaged(rows, distance * np.sin(angle)), averaged(columns, distance * np.cos(angle)), strict=True
    ):
        np.maximum(picture, np.outer(vertical, horizontal), out=picture)
    return contrast * picture


def lesion_contrast(
    image: ArrayLike, positions: Sequence[tuple[float, float, float]], ring: tuple[float, float] = (1.5, 2.5)
) -> Array:
    """Mean grey level within each annotated lesion minus that of the ring around it.

    Call it on the image before and after denoising: a lesion that a denoiser wipes out loses its contrast. The ring's
    pixels lie from ``ring[0]`` to ``ring[1]`` times the radius away from the centre (1.5 to 2.5: the gap keeps the
    blurred rim out), and within no other lesion; a pixel belongs to where its middle lies. What lies outside the image
    is left out.

    Parameters
    ----------
    image
        (H, W), on any scale.
    positions
        (row, column, radius) of each lesion, pixels.
    ring
        Inner and outer radius of the ring, in radii of the lesion.

    Returns
    -------
    NDArray[np.float64]
        (len(positions),) in the image's units; negative where the lesion is darker.

    Raises
    ------
    InputError
        If the image is not (H, W) of finite numbers, or a lesion or its ring holds no pixel of it.
    UsageError
        If a radius is not positive, or the ring does not lie around the lesion.
    """
    picture = checked(image, "the image", 2)
    if not 1 <= ring[0] < ring[1]:
        raise UsageError(f"a ring from {ring[0]} to {ring[1]} radii", "give two numbers from 1, the greater one last")
    for row, column, radius in positions:
        if not (radius > 0 and np.isfinite([row, column, radius]).all()):
            raise UsageError(
                f"no lesion at {row}, {column} of radius {radius}", "give finite numbers, the radius above 0"
            )

    def window(row: float, column: float, reach: float) -> tuple[tuple[slice, slice], Array]:
        bounds = [
            slice(max(0, math.floor(middle - reach)), max(0, math.ceil(middle + reach) + 1)) for middle in (row, column)
        ]
        y, x = (np.arange(*bound.indices(size)) for bound, size in zip(bounds, picture.shape, strict=True))
        return (bounds[0], bounds[1]), np.hypot(y[:, None] - row, x - column)

    lesions = np.zeros(picture.shape, bool)
    for row, column, radius in positions:
        part, distance = window(row, column, radius)
        lesions[part] |= distance <= radius
    contrasts = np.empty(len(positions))
    for number, (row, column, radius) in enumerate(positions):
        part, distance = window(row, column, ring[1] * radius)
        inside = picture[part][distance <= radius]
        around = picture[part][(distance > ring[0] * radius) & (distance <= ring[1] * radius) & ~lesions[part]]
        if not (inside.size and around.size):
            raise InputError(
                f"the lesion at {row}, {column} of radius {radius} or its ring holds no pixel of the image",
                f"check the position against the image's {picture.shape[0]} rows and {picture.shape[1]} columns",
            )
        contrasts[number] = inside.mean() - around.mean()
    return contrasts


def _check_signal(shape: tuple[int, int], centre: tuple[float, float] | None, radius: float, contrast: float) -> None:
    row, column = centre_of(shape, centre)
    room = min(row, column, shape[0] - 1 - row, shape[1] - 1 - column) + 0.5
    if not 0 < radius <= room:
        raise UsageError(
            f"a signal of radius {radius} at {row}, {column} does not lie in an image of {shape[0]}x{shape[1]}",
            f"the radius is positive and at most {room} here",
        )
    if not -1 <= contrast <= 1:
        raise UsageError(f"no signal of contrast {contrast}", "it is a fraction of the scale, from -1 to 1")
