"""What a denoiser took out: noise, or structure of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, ndimage

from ..errors import InputError, UsageError
from .stacks import Array, stacked

__all__ = ["StructureInResidual", "autocorrelation", "structure_in_residual"]


def autocorrelation(residual: ArrayLike, lags: int) -> Array:
    """Autocorrelation of a residual (noisy less denoised): 0 at all lags but zero if it is white noise.

    The sample autocovariance about the mean, each lag divided by the number of its pairs, relative to lag zero (Box,
    Jenkins and Reinsel, *Time series analysis*, 1994, section 2.1; by FFT, as Wiener and Khinchin have it). Of N pixels
    of white noise, each value has the standard deviation ``1 / sqrt(N)``.

    Parameters
    ----------
    residual
        (H, W), or (R, H, W), whose autocovariances are averaged.
    lags
        The largest lag, pixels; below H and W.

    Returns
    -------
    NDArray[np.float64]
        (2 lags + 1, 2 lags + 1), lag zero in the middle, where it is 1. Symmetric about the middle.

    Raises
    ------
    InputError
        `residual` is no image or stack, has a value that is not finite, or is constant.
    UsageError
        `lags` is negative or too large.
    """
    stack = stacked(residual, "residual")
    height, width = stack.shape[1:]
    if not 0 <= lags < min(height, width):
        raise UsageError(f"an image of {height}x{width} has no lags up to {lags}", "give a smaller number of lags")
    centred = stack - stack.mean(axis=(1, 2), keepdims=True)
    if not centred.any():
        raise InputError("a constant residual has no autocorrelation", "was anything removed at all?")
    # Zeros behind the image keep its two ends apart.
    shape = (fft.next_fast_len(height + lags, real=True), fft.next_fast_len(width + lags, real=True))
    transform = fft.rfft2(centred, shape)
    power = (transform.real**2 + transform.imag**2).sum(axis=0)
    steps = np.arange(-lags, lags + 1)
    sums = fft.irfft2(power, shape)[np.ix_(steps, steps)]
    pairs = np.outer(height - np.abs(steps), width - np.abs(steps))
    covariance = sums / pairs
    correlation: Array = covariance / covariance[lags, lags]
    return correlation


@dataclass(frozen=True)
class StructureInResidual:
    """How much of the image's structure a residual shows: two Pearson correlations, each 0 for noise alone.

    Attributes
    ----------
    values
        Of the residual with the reference: structure removed as it is.
    edges
        Of the residual's local standard deviation with the reference's gradient magnitude: more removed at edges.
        Noise whose level follows the image, as Poisson noise does, can raise it, too.
    """

    values: float
    edges: float


def structure_in_residual(residual: ArrayLike, reference: ArrayLike, scale: float = 2.0) -> StructureInResidual:
    """Whether a denoiser removed structure: the correlation of what it removed with the clean image.

    The method noise of Buades, Coll and Morel (*A review of image denoising algorithms, with a new one*, SIAM
    Multiscale Modeling and Simulation 4(2), 2005), which should look like noise, judged by numbers: Pearson's
    correlation over all pixels.

    Parameters
    ----------
    residual
        Noisy less denoised: (H, W), or (R, H, W), whose realisations count together.
    reference
        The clean image (H, W).
    scale
        Standard deviation of the Gaussian within which the local standard deviation is taken, and at which the
        gradient is; pixels.

    Returns
    -------
    StructureInResidual
        Both in [-1, 1].

    Raises
    ------
    InputError
        The shapes do not fit, a value is not finite, or one of the images is constant.
    UsageError
        `scale` is not positive.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"no Gaussian has a standard deviation of {scale}", "give a positive scale")
    stack = stacked(residual, "residual")
    clean = stacked(reference, "reference")
    if len(clean) != 1 or clean.shape[1:] != stack.shape[1:]:
        raise InputError(
            f"a reference of {clean.shape[1:]} does not belong to residuals of {stack.shape[1:]}",
            "give one reference (H, W) of the residuals' shape",
        )

    def smooth(values: Array) -> Array:
        smoothed: Array = ndimage.gaussian_filter(values, (0, scale, scale), mode="reflect")
        return smoothed

    # A variance does not depend on an offset, but the difference of two means loses its digits to one.
    centred = stack - stack.mean()
    spread = np.sqrt(np.maximum(smooth(centred**2) - smooth(centred) ** 2, 0))
    gradient = ndimage.gaussian_gradient_magnitude(clean[0], scale, mode="reflect")
    return StructureInResidual(
        values=_pearson(stack, np.broadcast_to(clean, stack.shape)),
        edges=_pearson(spread, np.broadcast_to(gradient, stack.shape)),
    )


def _pearson(a: Array, b: Array) -> float:
    x, y = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(np.sum(x * x))) * math.sqrt(float(np.sum(y * y)))
    if norm == 0:
        raise InputError(
            "a constant image correlates with nothing", "was anything removed, and is there any structure?"
        )
    return float(np.clip(np.sum(x * y) / norm, -1, 1))
