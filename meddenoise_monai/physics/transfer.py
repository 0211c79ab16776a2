"""Sharpness: the modulation transfer function from the edge of a disc or from a slanted edge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import signal

from ..errors import InputError, UsageError
from .stacks import Array, stacked

__all__ = ["TransferFunction", "circular_edge_mtf", "slanted_edge_mtf"]


@dataclass(frozen=True, eq=False)
class TransferFunction:
    """A modulation (task) transfer function across an edge.

    Attributes
    ----------
    frequencies
        (F,), from 0 to 1 cycle a pixel in steps of 0.005. Beyond 0.5 an image itself holds nothing, but an edge that
        is seen at all sub-pixel positions shows what the blur would have passed (the presampled MTF).
    mtf
        (F,), 1 at frequency 0.
    contrast
        The measured height of the edge, in the images' units, with its sign.
    """

    frequencies: Array
    mtf: Array
    contrast: float

    @property
    def f50(self) -> float:
        """Where the MTF first falls to 0.5, cycles a pixel; NaN if it does not up to 1."""
        return self.falls_to(0.5)

    @property
    def f10(self) -> float:
        """Where the MTF first falls to 0.1, cycles a pixel; NaN if it does not up to 1."""
        return self.falls_to(0.1)

    def falls_to(self, level: float) -> float:
        """Where the MTF first falls to `level`, by linear interpolation; NaN if it does not up to 1."""
        below = np.flatnonzero(self.mtf <= level)
        if not len(below) or below[0] == 0:
            return math.nan
        after = below[0]
        high, low = self.mtf[after - 1], self.mtf[after]
        step = self.frequencies[after] - self.frequencies[after - 1]
        return float(self.frequencies[after - 1] + step * (high - level) / (high - low))


_BIN = 0.1  # pixels
_FREQUENCIES = np.linspace(0, 1, 201)
_WIDEST_GAP = 0.5  # pixels


def circular_edge_mtf(
    images: ArrayLike, centre: tuple[float, float], radius: float, contrast_sign: int, reach: float = 12.0
) -> TransferFunction:
    """Modulation transfer function from the rim of a disc: the task transfer function, at this contrast and noise.

    Richard, Husarik, Yadava, Murphy and Samei, *Towards task-based assessment of CT performance: system and object MTF
    across different reconstruction algorithms*, Medical Physics 39(7), 2012: the edge-spread function is the mean value
    by distance from the rim, in bins of a tenth of a pixel; its derivative is the line-spread function, and the
    modulus of that one's Fourier transform the MTF. What bins and differences take from it is given back (Cunningham
    and Fenster, Medical Physics 14(4), 1987). The rim's curvature adds an error of about ``0.2 (blur / radius)²``.

    A denoiser is not linear: the result holds for this contrast and this noise, and means as to blur what it would for
    a linear system.

    Parameters
    ----------
    images
        (R, H, W), realisations that are averaged first, or one image (H, W).
    centre, radius
        Of the disc: (row, column) and pixels.
    contrast_sign
        1 if the disc is brighter than its background, -1 if it is darker.
    reach
        How far from the rim pixels are used, on both sides; pixels, at most `radius`. All of the edge's spread must lie
        within half of it: from there on a window (Tukey) fades the line-spread function out, so that less noise comes
        in. What spreads further is lost and makes the MTF too high (Friedman and Cunningham, Medical Physics 35(10),
        2008).

    Returns
    -------
    TransferFunction

    Raises
    ------
    InputError
        `images` is no image or stack, has a value that is not finite, shows no edge of this sign, ends nearer to the
        rim than `reach`, or has too few pixels to sample the edge.
    UsageError
        `radius`, `reach` or `contrast_sign` is out of bounds.
    """
    if not radius > 0:
        raise UsageError(f"a disc has no radius of {radius} pixels", "give a positive number")
    if reach > radius:
        raise UsageError(
            f"nothing lies {reach} pixels within the rim of a disc of radius {radius}",
            "give a smaller reach, at least six times the blur's standard deviation, or a larger disc",
        )
    image = stacked(images, "images").mean(axis=0)
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    room = min(centre[0], centre[1], image.shape[0] - 1 - centre[0], image.shape[1] - 1 - centre[1])
    if room < radius + reach:
        raise InputError(
            f"an image of {image.shape[0]}x{image.shape[1]} does not hold {reach} pixels around the disc",
            "give a smaller reach, or a larger image",
        )
    # Towards the inside, so that a disc brighter than its background is a rise.
    return _edge_mtf(image, radius - np.hypot(rows - centre[0], columns - centre[1]), contrast_sign, reach)


def slanted_edge_mtf(
    images: ArrayLike, point: tuple[float, float], angle: float, contrast_sign: int, reach: float = 12.0
) -> TransferFunction:
    """Modulation transfer function across a straight edge (ISO 12233), computed as in `circular_edge_mtf`.

    Parameters
    ----------
    images
        (R, H, W), realisations that are averaged first, or one image (H, W).
    point
        (row, column) on the edge.
    angle
        Of the normal, degrees from the direction of growing columns towards that of growing rows. Some 5 degrees off
        the axes, the edge is seen at all sub-pixel positions.
    contrast_sign
        1 if the image is brighter where the normal points to, -1 if it is darker.
    reach
        As in `circular_edge_mtf`.

    Returns
    -------
    TransferFunction

    Raises
    ------
    InputError
        `images` is no image or stack, has a value that is not finite, shows no edge of this sign, or has too few pixels
        to sample the edge.
    UsageError
        `reach` or `contrast_sign` is out of bounds.
    """
    image = stacked(images, "images").mean(axis=0)
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return _edge_mtf(image, (columns - point[1]) * across + (rows - point[0]) * down, contrast_sign, reach)


def _edge_mtf(image: Array, distance: Array, contrast_sign: int, reach: float) -> TransferFunction:
    """The MTF of an edge at distance 0 that rises, for a `contrast_sign` of 1, towards positive distances."""
    if contrast_sign not in (1, -1):
        raise UsageError(f"contrast_sign is {contrast_sign}", "give 1 or -1")
    if not (math.isfinite(reach) and reach >= 2):
        raise UsageError(f"an edge cannot be measured within {reach} pixels", "give a reach of 2 pixels or more")
    edge_spread = _edge_spread(image, distance, reach)
    line_spread = np.diff(edge_spread)
    line_spread *= signal.windows.tukey(len(line_spread), 0.5)
    contrast = float(line_spread.sum())
    if not contrast * contrast_sign > 0:
        raise InputError(
            f"the edge rises by {contrast:.3g}, against contrast_sign {contrast_sign}",
            "is the edge where you say it is?",
        )
    # As a sum, not an FFT, whose frequencies would depend on the reach.
    phases = np.exp(-2j * np.pi * _BIN * np.outer(_FREQUENCIES, np.arange(len(line_spread))))
    modulus = np.abs(phases @ line_spread)
    # Averaging over a bin and differencing across one each multiply the spectrum by this.
    mtf = modulus / modulus[0] / np.sinc(_BIN * _FREQUENCIES) ** 2
    return TransferFunction(_FREQUENCIES.copy(), mtf, contrast)


def _edge_spread(image: Array, distance: Array, reach: float) -> Array:
    """Mean value by distance, at the middles of bins from -reach to reach."""
    bins = 2 * round(reach / _BIN)
    near = np.abs(distance) < bins * _BIN / 2
    index = np.floor(distance[near] / _BIN).astype(np.intp) + bins // 2
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    at = np.bincount(index, distance[near], bins)[filled] / counts[filled]
    values = np.bincount(index, image[near], bins)[filled] / counts[filled]
    # Further out the edge is flat, and a gap does no harm.
    within = at[np.abs(at) <= reach / 2]
    widest = float(np.diff(within, prepend=-reach / 2, append=reach / 2).max())
    if widest > _WIDEST_GAP:
        raise InputError(
            f"across the edge, {widest:.2g} pixels in a row hold no pixel's centre",
            "give a larger object, or an edge that is aslant to the pixels",
        )
    middles = (np.arange(bins) + 0.5 - bins / 2) * _BIN
    # Few pixels in a bin do not lie about its middle: taken as if they did, their jitter would be noise.
    edge_spread: Array = np.interp(middles, at, values)
    return edge_spread
