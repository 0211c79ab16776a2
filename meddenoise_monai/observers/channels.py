"""Channels: the few numbers of an image that an observer sees."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft
from scipy.special import eval_laguerre

from ..errors import InputError, UsageError, nearest
from .inputs import Array, centre_of, checked, steps_from

__all__ = ["channel_outputs", "difference_of_gaussians", "laguerre_gauss"]


class _DifferenceOfGaussians(NamedTuple):
    channels: int
    sigma: float
    alpha: float
    q: float


_DOG = {"sparse": _DifferenceOfGaussians(3, 0.015, 2.0, 2.0), "dense": _DifferenceOfGaussians(10, 0.005, 1.4, 1.67)}


def laguerre_gauss(
    shape: tuple[int, int], width: float, count: int, centre: tuple[float, float] | None = None
) -> Array:
    """Laguerre-Gauss channels ``sqrt(2)/a exp(-pi r²/a²) L_j(2 pi r²/a²)`` for j = 0 ... count-1.

    Orthonormal over the plane; they suit round signals in noise without direction (Gallas and Barrett, JOSA A 20(9),
    2003, from Barrett et al., Proc. SPIE 3340, 1998).

    Parameters
    ----------
    shape
        (H, W) of the images.
    width
        a, pixels; about the signal's diameter, and so small that the last channel ends within the image.
    count
        How many; 5 to 10 are usual.
    centre
        (row, column) of the signal, pixels; None is the middle of the image.

    Returns
    -------
    NDArray[np.float64]
        (count, H, W)

    Raises
    ------
    UsageError
        If a parameter is not positive, or the centre lies outside the image.
    """
    if not (width > 0 and math.isfinite(width) and count >= 1):
        raise UsageError(f"no {count} Laguerre-Gauss channels of width {width}", "both must be positive")
    rows, columns = steps_from(shape, centre)
    area = 2 * np.pi * (rows[:, None] ** 2 + columns**2) / width**2
    order = np.arange(count)[:, None, None]
    channels: Array = math.sqrt(2) / width * np.exp(-area / 2) * eval_laguerre(order, area)
    return channels


def difference_of_gaussians(
    shape: tuple[int, int],
    spacing: Literal["sparse", "dense"] | str = "sparse",
    centre: tuple[float, float] | None = None,
) -> Array:
    """Difference-of-Gaussians channels, which resemble those of the human eye (Abbey and Barrett, JOSA A 18(3), 2001).

    Channel j = 1, 2, ... passes the frequency f (cycles/pixel) by ``exp(-(f / (Q s))² / 2) - exp(-(f / s)² / 2)``,
    ``s = s_0 alpha^j``, which is greatest at ``2 s sqrt(ln Q / (1 - 1/Q²))``. They are laid out in the discrete Fourier
    domain of the image, so that the mean grey level passes none of them. For the same reason they wrap around: crop
    the images around the signal.

    Parameters
    ----------
    shape
        (H, W) of the images. In images of 16 pixels the dense channels cannot be told apart, in 24 hardly.
    spacing
        ``"sparse"``: 3 channels, s_0 = 0.015, alpha = 2, Q = 2. ``"dense"``: 10, s_0 = 0.005, alpha = 1.4, Q = 1.67.
    centre
        (row, column) of the signal, pixels; None is the middle of the image.

    Returns
    -------
    NDArray[np.float64]
        (3 or 10, H, W)

    Raises
    ------
    UsageError
        If the spacing is unknown, or the centre lies outside the image.
    """
    if spacing not in _DOG:
        raise UsageError(f"no difference-of-Gaussians channels are {spacing!r}", nearest(str(spacing), _DOG))
    row, column = centre_of(shape, centre)
    parameters = _DOG[spacing]
    vertical, horizontal = fft.fftfreq(shape[0])[:, None], fft.fftfreq(shape[1])
    squared = vertical**2 + horizontal**2
    shift = np.exp(-2j * np.pi * (vertical * row + horizontal * column))
    sigma = (parameters.sigma * parameters.alpha ** np.arange(1, parameters.channels + 1))[:, None, None]
    passed = np.exp(-squared / (2 * (parameters.q * sigma) ** 2)) - np.exp(-squared / (2 * sigma**2))
    channels: Array = fft.ifft2(passed * shift).real
    return channels


def channel_outputs(images: ArrayLike, channels: ArrayLike) -> Array:
    """What each channel answers to each image, ``sum(channel * image)``: (N, C) of (N, H, W) and (C, H, W).

    Raises
    ------
    InputError
        If either is not an array of finite numbers of that shape, or they differ in H or W.
    """
    pictures, filters = checked(images, "the images", 3), checked(channels, "the channels", 3)
    if pictures.shape[1:] != filters.shape[1:]:
        raise InputError(
            f"the images are {pictures.shape[1:]}, the channels {filters.shape[1:]}",
            "make the channels in the images' shape",
        )
    outputs: Array = pictures.reshape(len(pictures), -1) @ filters.reshape(len(filters), -1).T
    return outputs
