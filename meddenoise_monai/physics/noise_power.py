"""Noise power spectra, from repeated realisations of one scene."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, signal

from ..errors import InputError, UsageError
from .stacks import Array, stacked

__all__ = ["NoisePower", "noise_power"]


@dataclass(frozen=True, eq=False)
class NoisePower:
    """A noise power spectrum.

    Attributes
    ----------
    spectrum
        (N, N), value² pixel²; frequency zero stands at ``[N // 2, N // 2]``, and neighbours are 1/N apart.
    frequencies, radial
        (N // 2 + 1,): the means of frequency and spectrum over rings 1/N wide, from 0 to 0.5 cycles a pixel.
    variance
        The integral of `spectrum` over all frequencies, the corners beyond 0.5 included.
    peak_frequency
        Where `radial` is greatest, to 1/N. Of noise that is nearly white it means little.
    mean_frequency
        The centroid of `radial`, the integral of ``f radial(f)`` over that of ``radial(f)``, as in AAPM Report 233
        (2019): 0.25 for white noise. NaN without noise.
    """

    spectrum: Array
    frequencies: Array
    radial: Array
    variance: float
    peak_frequency: float
    mean_frequency: float


def noise_power(images: ArrayLike, roi: int, window: Literal["hann", "boxcar"] | str = "hann") -> NoisePower:
    """Noise power spectrum from repeated images of one scene.

    IEC 62220-1 (2003) and ICRU Report 54 (1996): the mean of ``|DFT|² / N²`` over regions of interest that overlap by
    half or somewhat more, and cover the images. What the realisations share is subtracted as their mean, which takes
    1/R of the noise with it and is made good by R / (R - 1) (Solomon and Samei, *Quantum noise properties of CT images
    with anatomical textured backgrounds across reconstruction algorithms*, Medical Physics 41(9), 2014; Dolly et al.,
    *Practical considerations for noise power spectra estimation for clinical CT scanners*, JACMP 17(3), 2016).

    Parameters
    ----------
    images
        (R, H, W), at least two realisations of one scene, noisy or denoised.
    roi
        N, the side of the square regions, pixels; at least 8. The noise should not change within one.
    window
        ``"hann"`` weights each region (Welch 1967). ``"boxcar"`` does not, as in the standards, but then the regions'
        ends leak power from strong frequencies into weak ones. Denoised noise has both: where its spectrum has fallen
        by 1000, half of what is measured can have leaked.

    Returns
    -------
    NoisePower
        With ``"boxcar"``, `variance` is exactly the mean square of the regions' noise, times R / (R - 1); with
        ``"hann"`` the weighted mean square, equal to it but for chance.

    Raises
    ------
    InputError
        `images` is no stack of two or more, has a value that is not finite, or is smaller than `roi`.
    UsageError
        `roi` is below 8, or `window` is unknown.
    """
    if window not in ("hann", "boxcar"):
        raise UsageError(f"the noise power spectrum has no window {window!r}", "give 'hann' or 'boxcar'")
    if roi < 8:
        raise UsageError(f"a region of {roi} pixels holds no spectrum", "give 8 pixels or more")
    stack = stacked(images, "images")
    if len(stack) < 2:
        raise InputError("one image has no noise that could be told from its scene", "give two realisations or more")
    if min(stack.shape[1:]) < roi:
        raise InputError(
            f"images of {stack.shape[1]}x{stack.shape[2]} hold no region of {roi} pixels", "give a smaller roi"
        )
    noise = stack - stack.mean(axis=0)
    weights = signal.get_window(window, roi)
    taper = np.outer(weights, weights)
    half, regions = np.zeros((roi, roi // 2 + 1)), 0
    for region in _regions(noise, roi):
        transform = fft.rfft2(region * taper)
        half += (transform.real**2 + transform.imag**2).sum(axis=0)
        regions += len(region)
    # The spectrum of a real image is the same at f and -f.
    mirrored = np.roll(half[::-1], 1, axis=0)[:, (roi - 1) // 2 : 0 : -1]
    total = fft.fftshift(np.concatenate([half, mirrored], axis=1))
    spectrum = total / (regions * np.sum(taper**2)) * len(stack) / (len(stack) - 1)
    frequencies, radial = _radial_mean(spectrum)
    power = float(np.trapezoid(radial, frequencies))
    return NoisePower(
        spectrum,
        frequencies,
        radial,
        variance=float(spectrum.mean()),
        peak_frequency=float(frequencies[radial.argmax()]),
        mean_frequency=float(np.trapezoid(frequencies * radial, frequencies)) / power if power > 0 else math.nan,
    )


def _regions(noise: Array, roi: int) -> Iterator[Array]:
    """All regions (R, roi, roi), spread evenly from border to border, with steps of at most half their side."""

    def starts(length: int) -> list[int]:
        count = math.ceil((length - roi) / (roi // 2)) + 1
        return [round(start) for start in np.linspace(0, length - roi, count)]

    for row in starts(noise.shape[1]):
        for column in starts(noise.shape[2]):
            yield noise[:, row : row + roi, column : column + roi]


def _radial_mean(spectrum: Array) -> tuple[Array, Array]:
    size = len(spectrum)
    axis = fft.fftshift(fft.fftfreq(size))
    frequency = np.hypot(axis[:, None], axis[None, :])
    ring = np.rint(frequency * size).astype(np.intp).ravel()
    counts = np.bincount(ring)
    frequencies: Array = np.bincount(ring, frequency.ravel()) / counts
    radial: Array = np.bincount(ring, spectrum.ravel()) / counts
    return frequencies[: size // 2 + 1], radial[: size // 2 + 1]
