"""Test objects whose truth is known: discs, grids of discs and straight edges, on the [0, 1] scale and free of noise.

What a denoiser does to an edge or a lesion can be measured only where the edge and the lesion are known. An object
without blur is sampled as a detector samples it: each pixel is the mean of what it covers. A blurred object is the
convolution with a Gaussian in closed form, taken at the centres of the pixels, so that its MTF is the Gaussian's
(`gaussian_mtf`) and nothing else's. Pixel (r, c) is centred on row r and column c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from .errors import UsageError

__all__ = ["Disc", "Edge", "disc", "disc_grid", "gaussian_mtf", "slanted_edge"]

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]

_REACH = 9.0  # standard deviations: beyond, a double cannot tell a blurred edge from 0 or 1


@dataclass(frozen=True)
class Disc:
    """A disc: its centre and diameter in pixels, and how much brighter than its background it is (negative: darker).

    `contrast` is that of the object before any blur; after one of standard deviation s, its centre shows
    ``1 - exp(-radius^2 / (2 s^2))`` of it.
    """

    row: float
    column: float
    diameter: float
    contrast: float

    @property
    def radius(self) -> float:
        """Half the diameter, pixels."""
        return self.diameter / 2

    def distance(self, shape: tuple[int, int]) -> Image:
        """How far each pixel's centre lies outside the rim, pixels (H, W); negative inside."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        distance: Image = np.hypot(rows - self.row, columns - self.column) - self.radius
        return distance

    def inside(self, shape: tuple[int, int], margin: float = 1.0) -> Mask:
        """The pixels (H, W) at least `margin` pixels within the rim: with 1, those the rim does not touch."""
        mask: Mask = self.distance(shape) <= -margin
        return mask

    def around(self, shape: tuple[int, int], margin: float = 1.0, width: float = 5.0) -> Mask:
        """A ring (H, W) of background, `width` pixels wide, that begins `margin` pixels outside the rim."""
        distance = self.distance(shape)
        mask: Mask = (distance >= margin) & (distance <= margin + width)
        return mask


@dataclass(frozen=True)
class Edge:
    """A straight edge: a point on it, the direction of its normal, and how much brighter the far side is.

    `angle` in degrees, from the direction of growing columns towards that of growing rows; the normal leads from the
    background to the side that differs by `contrast`.
    """

    row: float
    column: float
    angle: float
    contrast: float

    def distance(self, shape: tuple[int, int]) -> Image:
        """How far along the normal each pixel's centre lies behind the edge, pixels (H, W); negative before it."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        across, down = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        distance: Image = (columns - self.column) * across + (rows - self.row) * down
        return distance


def disc(
    shape: tuple[int, int],
    diameter: float,
    contrast: float,
    background: float = 0.5,
    centre: tuple[float, float] | None = None,
    blur: float = 0.0,
) -> tuple[Image, Disc]:
    """A uniform disc in a uniform field; also the circular edge for `physics.circular_edge_mtf`.

    Without blur each pixel is the exact area of its square that the disc covers. With blur the disc is convolved with
    a two-dimensional Gaussian: at the distance d from the centre it is the probability that d plus Gaussian noise lies
    within the radius, a non-central chi-squared distribution (Johnson, Kotz and Balakrishnan, *Continuous univariate
    distributions* 2, 1995, chapter 29).

    Parameters
    ----------
    shape
        (H, W), pixels.
    diameter
        Positive, pixels. The disc may reach beyond the image.
    contrast
        Value of the disc less that of the background.
    background
        Value of the field; it and the disc lie on [0, 1].
    centre
        (row, column); the middle of the image by default. For a measurement of the MTF choose no multiple of a half:
        the distances of the pixels then fill the edge evenly.
    blur
        Standard deviation of the Gaussian, pixels; 0 is none.

    Returns
    -------
    tuple[NDArray[np.float64], Disc]
        The image (H, W), and what it shows.

    Raises
    ------
    UsageError
        If a parameter is out of bounds.
    """
    _check(shape, background, contrast, blur)
    if not (math.isfinite(diameter) and diameter > 0):
        raise UsageError(f"a disc has no diameter of {diameter} pixels", "give a positive number")
    row, column = centre if centre is not None else ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    truth = Disc(float(row), float(column), float(diameter), float(contrast))
    return background + contrast * _disc_cover(shape, truth, blur), truth


def disc_grid(
    contrasts: Sequence[float],
    diameters: Sequence[float],
    background: float = 0.5,
    spacing: int | None = None,
    blur: float = 0.0,
) -> tuple[Image, tuple[Disc, ...]]:
    """A contrast-detail phantom: discs in a uniform field, one row for each contrast, one column for each diameter.

    Parameters
    ----------
    contrasts
        Value of each row's discs less that of the background.
    diameters
        Of each column's discs, positive, pixels.
    background
        Value of the field; it and all discs lie on [0, 1].
    spacing
        From centre to centre, pixels; twice the largest diameter, rounded up, by default, and at least 8.
    blur
        Standard deviation of the Gaussian, pixels; 0 is none (see `disc`).

    Returns
    -------
    tuple[NDArray[np.float64], tuple[Disc, ...]]
        The image (len(contrasts) * spacing, len(diameters) * spacing), and its discs, row after row.

    Raises
    ------
    UsageError
        If a parameter is out of bounds, or discs would touch.
    """
    if not len(contrasts) or not len(diameters):
        raise UsageError("a grid of discs needs a contrast and a diameter", "give at least one of each")
    if spacing is None:
        spacing = max(8, math.ceil(2 * max(diameters)))
    if not spacing > max(diameters):
        raise UsageError(
            f"discs of {max(diameters)} pixels touch each other at a spacing of {spacing}", "give a larger spacing"
        )
    shape = (len(contrasts) * spacing, len(diameters) * spacing)
    image = np.full(shape, background, np.float64)
    discs = []
    for row, contrast in enumerate(contrasts):
        for column, diameter in enumerate(diameters):
            centre = (row + 0.5) * spacing - 0.5, (column + 0.5) * spacing - 0.5
            alone, truth = disc(shape, diameter, contrast, background, centre, blur)
            image += alone - background  # convolution is linear: the tails of blurred discs add up
            discs.append(truth)
    return image, tuple(discs)


def slanted_edge(
    shape: tuple[int, int], contrast: float, angle: float = 5.0, background: float = 0.5, blur: float = 0.0
) -> tuple[Image, Edge]:
    """A straight edge through the middle of the image, for `physics.slanted_edge_mtf`.

    Without blur each pixel is the exact area of its square that lies behind the edge, and the MTF along the normal is
    ``|sinc(f cos(angle)) sinc(f sin(angle))|``, that of a square pixel. With blur it is the error function.

    Parameters
    ----------
    shape
        (H, W), pixels.
    contrast
        Value behind the edge less that before it.
    angle
        Of the normal, degrees from the direction of growing columns towards that of growing rows.
    background
        Value before the edge; both lie on [0, 1].
    blur
        Standard deviation of the Gaussian, pixels; 0 is none.

    Returns
    -------
    tuple[NDArray[np.float64], Edge]
        The image (H, W), and what it shows.

    Raises
    ------
    UsageError
        If a parameter is out of bounds.
    """
    _check(shape, background, contrast, blur)
    if not math.isfinite(angle):
        raise UsageError(f"an edge has no angle of {angle} degrees", "give a number")
    truth = Edge((shape[0] - 1) / 2, (shape[1] - 1) / 2, float(angle), float(contrast))
    distance = truth.distance(shape)
    if blur > 0:
        cover: Image = special.ndtr(distance / blur)
    else:
        cover = _half_plane_cover(distance, math.radians(angle))
    return background + contrast * cover, truth


def gaussian_mtf(frequency: ArrayLike, sigma: float) -> NDArray[np.float64]:
    """The MTF of a Gaussian blur, ``exp(-2 pi^2 sigma^2 f^2)``: the Fourier transform of its line-spread function.

    Parameters
    ----------
    frequency
        Cycles a pixel.
    sigma
        Standard deviation of the blur, pixels.

    Returns
    -------
    NDArray[np.float64]
        In (0, 1], of the frequencies' shape.
    """
    values: NDArray[np.float64] = np.exp(-2 * (np.pi * sigma * np.asarray(frequency, np.float64)) ** 2)
    return values


def _check(shape: tuple[int, int], background: float, contrast: float, blur: float) -> None:
    if len(shape) != 2 or min(shape) < 1:
        raise UsageError(f"no image has the shape {shape}", "give (H, W)")
    # Sums such as 0.7 + 0.3 may miss 1 by a rounding.
    if not (0 <= background <= 1 and -1e-12 <= background + contrast <= 1 + 1e-12):
        raise UsageError(
            f"a background of {background} with a contrast of {contrast} leaves the [0, 1] scale",
            "lower the contrast, or move the background",
        )
    if not (math.isfinite(blur) and blur >= 0):
        raise UsageError(f"no Gaussian has a standard deviation of {blur}", "0 is no blur")


def _disc_cover(shape: tuple[int, int], truth: Disc, blur: float) -> Image:
    if blur == 0:
        return _disc_area(shape, truth)
    distance = truth.distance(shape)
    cover = (distance < 0).astype(np.float64)
    near = np.abs(distance) < _REACH * blur
    squares = ((distance[near] + truth.radius) / blur) ** 2
    cover[near] = stats.ncx2.cdf((truth.radius / blur) ** 2, 2, squares)
    return cover


def _disc_area(shape: tuple[int, int], truth: Disc) -> Image:
    """The area of each pixel's unit square within the disc, exactly (to rounding)."""
    radius = truth.radius
    y = np.clip(np.arange(shape[0] + 1) - 0.5 - truth.row, -radius, radius)[:, None]
    x = np.clip(np.arange(shape[1] + 1) - 0.5 - truth.column, -radius, radius)[None, :]
    height, width = np.abs(y), np.abs(x)
    # Of the rectangle from the centre to (x, y) the disc covers all up to `split`, then what lies under the rim.
    split = np.minimum(np.sqrt(radius**2 - height**2), width)
    corner = height * split + _under_rim(width, radius) - _under_rim(split, radius)
    signed = np.sign(y) * np.sign(x) * corner
    area: Image = np.diff(np.diff(signed, axis=0), axis=1)
    return np.clip(area, 0, 1)


def _under_rim(x: Image, radius: float) -> Image:
    """The integral of ``sqrt(radius^2 - t^2)`` over t from 0 to x."""
    area: Image = (x * np.sqrt(radius**2 - x**2) + radius**2 * np.arcsin(x / radius)) / 2
    return area


def _half_plane_cover(distance: Image, angle: float) -> Image:
    """The area of a unit square behind a line, by the line's signed distance: the double integral of a step."""
    long, short = sorted((abs(math.cos(angle)), abs(math.sin(angle))), reverse=True)
    if short < 1e-6:
        return np.clip(distance + 0.5, 0, 1)

    def ramp(shift: float) -> Image:
        # Far behind the edge the differences of large squares would lose their digits.
        return np.clip(distance + shift, 0, long + short) ** 2 / 2

    outer, inner = (long + short) / 2, (long - short) / 2
    cover: Image = (ramp(outer) - ramp(inner) - ramp(-inner) + ramp(-outer)) / (long * short)
    return np.where(distance >= outer, 1.0, np.clip(cover, 0, 1))
