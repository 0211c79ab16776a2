"""The Hotelling observer of channel outputs, trained on images or known from theory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from ..errors import InputError, UsageError
from .channels import channel_outputs
from .inputs import Array, checked

__all__ = ["HotellingObserver", "channel_covariance", "hotelling_dprime", "train_observer"]

_LIKENESS = 1e12  # condition of the channels' correlation matrix from which a template has fewer than four sure digits


@dataclass(frozen=True, eq=False)
class HotellingObserver:
    """A trained observer: `template` and `midpoint` (C,), and the standard deviation of its internal noise.

    Scores have a standard deviation of about 1 and lie about 0, so those of observers trained on different images can
    be pooled.
    """

    template: Array
    midpoint: Array
    noise: float

    def scores(self, outputs: ArrayLike, rng: np.random.Generator | None = None) -> Array:
        """(N,) scores of channel outputs (N, C).

        Raises
        ------
        InputError
            If the outputs are not finite numbers of that shape.
        UsageError
            If the observer has internal noise and `rng` is not given.
        """
        values = checked(outputs, "the channel outputs", 2)
        if values.shape[1] != len(self.template):
            raise InputError(
                f"{values.shape[1]} channel outputs an image, but the observer has {len(self.template)} channels",
                "train and test with the same channels",
            )
        scores: Array = (values - self.midpoint) @ self.template
        if self.noise == 0:
            return scores
        if rng is None:
            raise UsageError("an observer with internal noise needs random numbers", "give rng")
        return scores + self.noise * rng.standard_normal(len(scores))


def train_observer(present: ArrayLike, absent: ArrayLike, internal_noise: float = 0.0) -> HotellingObserver:
    """The Hotelling template ``K⁻¹ (mean of present - mean of absent)`` of channel outputs (Barrett and Myers 2004).

    K is the pooled covariance of both classes. Internal noise adds `internal_noise` times the variance of each channel
    to it, and to the scores (Abbey and Barrett 2001; Zhang et al., Medical Physics 34(8), 2007).

    Parameters
    ----------
    present, absent
        Channel outputs (N1, C) and (N0, C) of images with and without the signal. With less than some ten images a
        channel the template is poor, and so are its scores.
    internal_noise
        Fraction of each channel's variance, not negative.

    Raises
    ------
    InputError
        If the arrays do not fit together, there are fewer than C + 2 images or than two of a class, channels have no
        variance or are nearly the same, or the classes have the same mean.
    UsageError
        If `internal_noise` is negative.
    """
    first, second = checked(present, "the outputs with a signal", 2), checked(absent, "the outputs without a signal", 2)
    _check_fraction(internal_noise)
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{first.shape[1]} channels with a signal, {second.shape[1]} without", "use the same channels for both"
        )
    count, channels = len(first) + len(second), first.shape[1]
    if count - 2 < channels or min(len(first), len(second)) < 2:
        raise InputError(
            f"{len(first)} images with a signal and {len(second)} without are too few for {channels} channels",
            f"train with at least {channels + 2} in all and two of each, better with {10 * channels}, or use fewer "
            "channels",
        )
    means = first.mean(axis=0), second.mean(axis=0)
    deviations = np.concatenate([first - means[0], second - means[1]])
    covariance = deviations.T @ deviations / (count - 2)
    noise = internal_noise * np.diag(covariance)
    difference = means[0] - means[1]
    template = _solve(covariance + np.diag(noise), difference)
    squared = float(difference @ template)
    if not squared > 0:
        raise InputError("the images with and without a signal have the same mean", "insert a signal into the former")
    template = template / math.sqrt(squared)
    return HotellingObserver(template, (means[0] + means[1]) / 2, math.sqrt(float(noise @ template**2)))


def channel_covariance(channels: ArrayLike, power_spectrum: ArrayLike) -> Array:
    """Covariance (C, C) of channel outputs in stationary noise that wraps around the image.

    ``K_ab = sum over f of conj(F_a) F_b S / (H W)``, F the channels' discrete Fourier transforms: a circulant
    covariance is diagonal there (Barrett and Myers 2004, section 8.2).

    Parameters
    ----------
    channels
        (C, H, W)
    power_spectrum
        S: the noise's expected ``|DFT|² / (H W)``, (H, W) in the order of ``scipy.fft.fft2``, or one number for white
        noise. Its mean is the variance of a pixel.

    Raises
    ------
    InputError
        If a value is not finite, the spectrum is negative somewhere, or the shapes differ.
    """
    filters = checked(channels, "the channels", 3)
    spectrum = np.asarray(power_spectrum, np.float64)
    if spectrum.shape not in ((), filters.shape[1:]):
        raise InputError(
            f"the power spectrum is {spectrum.shape}, the channels {filters.shape[1:]}", "give one number a frequency"
        )
    if not (np.isfinite(spectrum).all() and (spectrum >= 0).all()):
        raise InputError("the power spectrum is negative or not finite somewhere", "give variances")
    transformed = fft.fft2(filters)
    weighted = (transformed * spectrum).reshape(len(filters), -1)
    covariance: Array = (transformed.reshape(len(filters), -1).conj() @ weighted.T).real / filters[0].size
    return covariance


def hotelling_dprime(
    signal: ArrayLike, channels: ArrayLike, power_spectrum: ArrayLike, internal_noise: float = 0.0
) -> float:
    """What d' theory gives: ``d'² = sᵀ K⁻¹ s``, s the channels' answers to the signal (Barrett and Myers 2004, 14.3).

    No observer that sees the image through these channels alone is better, if the noise is normal.

    Parameters
    ----------
    signal
        (H, W), without background.
    channels, power_spectrum
        As in `channel_covariance`, which gives K.
    internal_noise
        As in `train_observer`.

    Raises
    ------
    InputError
        As `channel_covariance`, `channel_outputs`, or if channels have no variance or are nearly the same.
    UsageError
        If `internal_noise` is negative.
    """
    _check_fraction(internal_noise)
    answers = channel_outputs(checked(signal, "the signal", 2)[None], channels)[0]
    covariance = channel_covariance(channels, power_spectrum)
    covariance += internal_noise * np.diag(np.diag(covariance))
    return math.sqrt(max(0.0, float(answers @ _solve(covariance, answers))))


def _solve(covariance: Array, right: Array) -> Array:
    """``covariance⁻¹ right``, by way of the correlation, whose condition does not depend on the channels' scales."""
    scale = np.sqrt(np.diag(covariance))
    if not (scale > 0).all():
        raise InputError(
            f"channel {int(np.argmin(scale > 0))} answers the same to every image", "give images with noise in them"
        )
    correlation = covariance / np.outer(scale, scale)
    if not np.linalg.cond(correlation) < _LIKENESS:
        raise InputError(
            f"the {len(scale)} channels answer too much alike to tell them apart",
            "use fewer channels, larger images, or more of them",
        )
    solution: Array = np.linalg.solve(correlation, right / scale) / scale
    return solution


def _check_fraction(internal_noise: float) -> None:
    if not (internal_noise >= 0 and math.isfinite(internal_noise)):
        raise UsageError(f"internal noise of {internal_noise}", "give a fraction of the channels' variance, from 0")
