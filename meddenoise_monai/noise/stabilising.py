"""Transforms that make signal-dependent noise Gaussian-like with a standard deviation of 1, and their exact inverses.

A denoiser for white Gaussian noise then serves for photon-counting and for magnitude MR images: ``forward``, denoise
with sigma 1, ``inverse``. The algebraic inverse of a forward transform is biased, for the mean of a root is not the
root of the mean; these inverses map the mean of the stabilised image, which is what a denoiser returns, to the signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import gammaln, ive

from ..errors import InputError, UsageError

__all__ = ["PoissonGaussianStabiliser", "RicianStabiliser", "Stabiliser"]

Values = NDArray[np.float64]

# Counts' variance of the Gaussian part from which on the root is so flat that its inverse needs no table.
_MUCH_READ_OUT = 1e6


@runtime_checkable
class Stabiliser(Protocol):
    """A pair of maps around a denoiser for Gaussian noise."""

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise after `forward`."""
        ...

    def forward(self, image: ArrayLike) -> Values:
        """The image with noise of the same strength everywhere."""
        ...

    def inverse(self, stabilised: ArrayLike) -> Values:
        """The signal, in the image's units, whose stabilised noisy values have the mean `stabilised`."""
        ...


@dataclass(frozen=True)
class PoissonGaussianStabiliser:
    """The generalised Anscombe transform, for photon counting with Gaussian read-out noise.

    The model is ``image = offset + gain * Poisson((signal - offset) / gain) + N(0, variance)``: a pixel of signal s has
    the variance ``gain * (s - offset) + variance``. `forward` is ``2 sqrt(max(p + 3/8 + v, 0))`` of the counts
    ``p = (image - offset) / gain`` and their read-out variance ``v = variance / gain^2``. `inverse` is the exact
    unbiased inverse of Mäkitalo and Foi, IEEE TIP 22(1), 2013: not its closed-form approximation but the expectation
    itself, tabulated up to 200 counts, and its asymptote ``D^2 / 4 - 1/8 - v`` beyond.

    Attributes
    ----------
    gain
        Of the image's unit per count, >= 0; 0 stands for Gaussian noise alone, where both maps are linear.
    variance
        Of the Gaussian part, in the image's units squared, >= 0, and > 0 where `gain` is 0.
    offset
        The image's value where there is no signal.

    Raises
    ------
    UsageError
        If a parameter is not such a number.

    Notes
    -----
    The deviation after `forward` is within 3 % of 1 from 4 counts on. Below, it falls to 0 where there is no read-out
    noise (0.85 at one count), stays within 5 % of 1 where v is about 1, and rises to 1.1 where v is about 4.
    """

    gain: float
    variance: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        _check_number("gain", self.gain, lambda value: value >= 0, ">= 0")
        _check_number("variance", self.variance, lambda value: value >= 0, ">= 0")
        _check_number("offset", self.offset, lambda value: True, "that is finite")
        if self.gain > 0 and not self.variance < 1e18 * self.gain * self.gain:
            raise UsageError(
                f"a gain of {self.gain:g} is nothing beside a variance of {self.variance:g}",
                "give gain 0 for such noise",
            )
        if self.gain == 0 == self.variance:
            raise UsageError("gain and variance are both 0, so there is no noise", "give what estimate_* found")

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise after `forward`: 1."""
        return 1.0

    @property
    def _read_out(self) -> float:
        return self.variance / self.gain**2

    def forward(self, image: ArrayLike) -> Values:
        """Stabilise an image.

        Parameters
        ----------
        image
            Of any shape and real type, in its own units. Values so far below `offset` that the root's argument is
            negative become 0.

        Returns
        -------
        Values
            A new float64 array of the image's shape.

        Raises
        ------
        InputError
            If the image is not of real, finite numbers.
        """
        values = _checked(image) - self.offset
        if self.gain == 0:
            return np.asarray(values / math.sqrt(self.variance))
        return _root(values / self.gain, self._read_out)

    def inverse(self, stabilised: ArrayLike) -> Values:
        """The signal behind a denoised stabilised image.

        Parameters
        ----------
        stabilised
            Estimates of the mean of what `forward` returned. What is less than the mean of pure background maps to
            `offset`.

        Returns
        -------
        Values
            A new float64 array in the image's units, nowhere below `offset` (unless `gain` is 0).

        Raises
        ------
        InputError
            If the values are not real, finite numbers.
        """
        values = _checked(stabilised)
        if self.gain == 0:
            return np.asarray(values * math.sqrt(self.variance) + self.offset)
        if self._read_out > _MUCH_READ_OUT:
            return np.asarray(np.maximum(values**2 / 4 - 1 / 8 - self._read_out, 0) * self.gain + self.offset)
        table = _anscombe_table(self._read_out)
        # At the table's end the asymptote is a few hundredths of a count away from it; the step is taken out.
        last, counts = table.x[-1], float(table(table.x[-1]))
        asymptote = np.maximum(values, last) ** 2 / 4 - last**2 / 4 + counts
        inside = table(np.clip(values, table.x[0], last))
        return np.asarray(np.where(values > last, asymptote, inside) * self.gain + self.offset)


@dataclass(frozen=True)
class RicianStabiliser:
    """Variance stabilisation of magnitude MR images, ``sqrt((signal + n1)^2 + n2^2)`` with n1, n2 ~ N(0, noise^2).

    After Foi, "Noise estimation and removal in MR imaging: the variance-stabilization approach", ISBI 2011. Foi's
    stabiliser comes from a numerical optimisation that he publishes as a table; this one is computed here: its slope
    starts as one over the standard deviation that a Rician variable of the mean z has, and is divided by the deviation
    that remains after the transform, repeatedly. `inverse` is exact and unbiased: the tabulated mean of the
    stabilised values as a function of the signal, inverted, which also takes away the noise floor of the background.

    Attributes
    ----------
    noise
        Standard deviation of the Gaussian noise in either channel, in the image's units, > 0.

    Raises
    ------
    UsageError
        If `noise` is not such a number.

    Notes
    -----
    The deviation after `forward` is within 3 % of 1 at every signal, background included.
    """

    noise: float

    def __post_init__(self) -> None:
        _check_number("noise", self.noise, lambda value: value > 0, "> 0")

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise after `forward`: 1."""
        return 1.0

    def forward(self, image: ArrayLike) -> Values:
        """Stabilise an image.

        Parameters
        ----------
        image
            Of any shape and real type, in its own units. Negative values, which a magnitude cannot have but a resampled
            one can, are continued linearly.

        Returns
        -------
        Values
            A new float64 array of the image's shape; 0 stays 0.

        Raises
        ------
        InputError
            If the image is not of real, finite numbers.
        """
        return _rician_forward(_checked(image) / self.noise)

    def inverse(self, stabilised: ArrayLike) -> Values:
        """The signal behind a denoised stabilised image.

        Parameters
        ----------
        stabilised
            Estimates of the mean of what `forward` returned. What is less than the mean of pure background maps to 0.

        Returns
        -------
        Values
            A new float64 array in the image's units, nowhere negative.

        Raises
        ------
        InputError
            If the values are not real, finite numbers.
        """
        values = _checked(stabilised)
        table = _rician_tables().inverse
        last, signal = table.x[-1], float(table(table.x[-1]))
        # The stabilised values' mean is c + nu + 1 / (4 nu) to the third order, with such a c that no step is left.
        beyond = np.maximum(values, last) - last + (signal + 1 / (4 * signal))
        asymptote = (beyond + np.sqrt(beyond**2 - 1)) / 2
        inside = table(np.clip(values, table.x[0], last))
        return np.asarray(np.where(values > last, asymptote, inside) * self.noise)


def _check_number(name: str, value: Any, valid: Callable[[float], bool], must_be: str) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not valid(float(value)):
        raise UsageError(f"{name} must be a number {must_be}, got {value!r}", "it is in the image's own units")


def _checked(image: ArrayLike) -> Values:
    """The values as float64; raises InputError if they are not real and finite."""
    values = np.asarray(image)
    if values.dtype.kind not in "biuf":
        raise InputError(f"an image has dtype {values.dtype}", "give real numbers")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("an image has values that are NaN or infinite", "mask or replace them first")
    return values


def _root(counts: Values, read_out: float) -> Values:
    """The generalised Anscombe transform of counts whose Gaussian part has the variance `read_out`."""
    return np.asarray(2 * np.sqrt(np.maximum(counts + 3 / 8 + read_out, 0)))


@lru_cache(maxsize=16)
def _anscombe_table(read_out: float) -> PchipInterpolator:
    """Expected count as a function of the mean of its stabilised noisy values, from 0 to 200 counts."""
    # Dense at 0, where the curve bends most. 200 is where the asymptote is right to 2e-5.
    expected = np.linspace(0, math.sqrt(200), 400) ** 2
    counts = np.arange(400)  # beyond the 14th deviation above 200
    # A plain sum, as the integrand has a kink where the root's argument changes its sign; it also vanishes at the ends.
    normal = np.linspace(-8, 8, 4001)
    weights = np.exp(-(normal**2) / 2)
    weights /= weights.sum()
    given_count = np.array([_root(count + math.sqrt(read_out) * normal, read_out) @ weights for count in counts])
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = counts * np.log(expected[:, None]) - expected[:, None] - gammaln(counts + 1)
    exponent[0] = np.where(counts == 0, 0, -np.inf)
    return PchipInterpolator(np.exp(exponent) @ given_count, expected)


@dataclass(frozen=True)
class _RicianTables:
    """For noise 1: the stabiliser on ``[0, _RICIAN_END]``, and the signal behind a mean of stabilised values."""

    forward: PchipInterpolator
    inverse: PchipInterpolator


_RICIAN_END = 18.0
_RICIAN_REFINEMENTS = 30
_RICIAN_SIGNAL = 12.0  # table of signals; six deviations below the end of the stabiliser's


@lru_cache(maxsize=1)
def _rician_tables() -> _RicianTables:
    magnitude = np.linspace(0, _RICIAN_END, 1801)
    signal = np.linspace(0, math.sqrt(_RICIAN_SIGNAL), 241) ** 2
    # Rician density with I0 scaled by its exponential, which would overflow.
    density = (
        magnitude
        * np.exp(-((magnitude - signal[:, None]) ** 2) / 2)
        * ive(0, magnitude * signal[:, None])
        * (magnitude[1] - magnitude[0])
    )
    density /= density.sum(axis=1, keepdims=True)

    def moments(values: Values) -> tuple[Values, Values]:
        mean = density @ values
        return mean, np.sqrt(np.maximum(density @ values**2 - mean**2, 0))

    mean, deviation = moments(magnitude)
    slope = np.interp(magnitude, mean, 1 / deviation)
    # Beyond the table of signals: the deviation's asymptote, 1 - 1 / (4 z^2).
    slope = np.where(magnitude > mean[-1], 1 + 1 / (4 * np.maximum(magnitude, 1) ** 2), slope)
    for _ in range(_RICIAN_REFINEMENTS):
        _, remaining = moments(_integral(magnitude, slope))
        slope = slope / np.interp(magnitude, mean, remaining, right=1.0)
    stabilised = _integral(magnitude, slope)
    return _RicianTables(PchipInterpolator(magnitude, stabilised), PchipInterpolator(density @ stabilised, signal))


def _integral(points: Values, slope: Values) -> Values:
    steps = (slope[1:] + slope[:-1]) / 2 * np.diff(points)
    return np.concatenate(([0.0], np.cumsum(steps)))


def _rician_forward(magnitude: Values) -> Values:
    table = _rician_tables().forward
    end = float(table(_RICIAN_END))
    inside = table(np.clip(magnitude, 0, _RICIAN_END))
    # The integral of the deviation's asymptote, z - 1 / (4 z).
    above = np.maximum(magnitude, _RICIAN_END)
    beyond = end + (above - _RICIAN_END) - (1 / (4 * above) - 1 / (4 * _RICIAN_END))
    below = magnitude * float(table(0.0, 1))
    return np.asarray(np.where(magnitude > _RICIAN_END, beyond, np.where(magnitude < 0, below, inside)))
