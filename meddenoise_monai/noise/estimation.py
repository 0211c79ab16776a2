"""What noise an image carries, from the image alone: its strength, its dependence on the signal, its correlation.

Everything here looks at blocks of 8 x 8 pixels through the discrete cosine transform. White noise has the same energy
at all frequencies; images have most of theirs at low ones. So the blocks are ordered by the energy of their lowest
frequencies, which says how much texture a block holds and nothing about the noise at the other frequencies, and the
noise is read off those (Ponomarenko et al. 2007; Colom and Buades, "Analysis and Extension of the Ponomarenko et al.
Method", IPOL 3, 2013). What texture remains is extrapolated away, see `_noise_variance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.fft import dct
from scipy.optimize import nnls
from scipy.special import i0e, i1e, ndtri

from ..errors import InputError

__all__ = [
    "CORRELATION_THRESHOLD",
    "NoiseCorrelation",
    "PoissonGaussianParameters",
    "estimate_poisson_gaussian",
    "estimate_rician_sigma",
    "estimate_sigma",
    "noise_correlation",
]

CORRELATION_THRESHOLD = 0.3
"""Correlation of neighbouring pixels above which noise counts as correlated, see `NoiseCorrelation`."""

Values = NDArray[np.float64]

_SIDE = 8
_INDEX = np.add.outer(np.arange(_SIDE), np.arange(_SIDE))
_LOW, _MID, _HIGH = (_INDEX > 0) & (_INDEX < 6), (_INDEX >= 6) & (_INDEX < 9), _INDEX >= 9
_MAX_BLOCKS = 50_000
_MAX_SLICES = 16
# A slice of more pixels is looked at in that many windows, for the time and the memory.
_MAX_PIXELS = 2**22
# Mean squares over all overlapping positions vary as if every 10th were independent (measured on white noise).
_POSITIONS_PER_BLOCK = 10.0


def estimate_sigma(image: ArrayLike, max_pixels: int = _MAX_PIXELS) -> float:
    """Standard deviation of the white Gaussian noise in an image.

    Parameters
    ----------
    image
        ``(H, W)``, or ``(D, H, W)`` for one estimate over (up to 16 of) the slices; at least 8 x 8 pixels.
    max_pixels
        A slice of more is looked at in 16 windows of together so many: 2**16 take some 20 ms.

    Returns
    -------
    float
        In the image's units; 0 for an image without noise, such as a constant one.

    Raises
    ------
    InputError
        If the image is too small, of another shape, or not of real, finite numbers.

    Notes
    -----
    Areas of one constant value (padding, masks) do not count. Values clipped at the ends of the image's range are
    corrected for, as long as parts of it have less than a quarter of their pixels clipped. A pure function of the
    image: the same blocks are looked at every time.

    On whole mammograms and X-rays of 256 x 256 pixels or more the error was within 2.5 % from sigma = 2/255 of the
    range on. Parts of them without background, from 5/255 on: a standard deviation of 2 to 3 % for 128 x 128, 3 to 4 %
    for 64 x 64 and 6 % for 32 x 32 pixels; at 2/255 their texture adds 4 to 11 %, and up to 70 % in single ones. The
    table by kind of image is what ``scripts/benchmark_sigma.py`` prints. Where texture that reaches the highest
    frequencies fills the whole image (grass, gravel), the estimate holds for both and comes within 5 % of the noise
    from 50/255 on only. Smoothed or up-sampled noise is underestimated by far: ask `noise_correlation`. Where the
    noise depends on the signal, this is its deviation in the parts with the least texture.
    """
    blocks = _blocks(_checked(image, max_pixels), floor=True, most=min(_MAX_BLOCKS, max_pixels // 8))
    return math.sqrt(_noise_variance(blocks).value) if len(blocks.mean) else 0.0


@dataclass(frozen=True)
class NoiseCorrelation:
    """Spatial correlation of what fills an image's finest scales.

    The energies of the frequencies above a third of the highest are fitted by those of white noise smoothed with
    a Gaussian, of its own width along each axis. A flat spectrum gives 0; sharpened noise, whose energy grows with
    the frequency, gives 0 too.

    Attributes
    ----------
    smoothing
        Standard deviation of that Gaussian along ``(rows, columns)``, i.e. vertically and horizontally, in pixels.
    sigma
        Standard deviation of the fitted noise, in the image's units. Unlike `estimate_sigma` it counts the energy that
        the smoothing moved to the lower frequencies.
    """

    smoothing: tuple[float, float]
    sigma: float

    def at(self, rows: int, columns: int) -> float:
        """Normalised autocorrelation of the fitted noise at a lag of so many pixels, on [0, 1]."""
        exponent = 0.0
        for lag, width in zip((rows, columns), self.smoothing, strict=True):
            if lag and not width:
                return 0.0
            if lag:
                exponent += (lag / (2 * width)) ** 2
        return math.exp(-exponent)

    @property
    def vertical(self) -> float:
        """Correlation of a pixel with the one below it."""
        return self.at(1, 0)

    @property
    def horizontal(self) -> float:
        """Correlation of a pixel with the one beside it."""
        return self.at(0, 1)

    @property
    def strength(self) -> float:
        """The larger of `vertical` and `horizontal`."""
        return max(self.vertical, self.horizontal)

    @property
    def is_correlated(self) -> bool:
        """Whether `strength` is above `CORRELATION_THRESHOLD`, which is that of a Gaussian of 0.46 pixels."""
        return self.strength > CORRELATION_THRESHOLD


def noise_correlation(image: ArrayLike, max_pixels: int = _MAX_PIXELS) -> NoiseCorrelation:
    """How strongly the noise of neighbouring pixels is correlated, as after smoothing or up-sampling.

    Parameters
    ----------
    image
        ``(H, W)``, or ``(D, H, W)`` for one answer over (up to 16 of) the slices; at least 8 x 8 pixels.
    max_pixels
        A slice of more is looked at in 16 windows of together so many: 2**18 take some 30 ms.

    Returns
    -------
    NoiseCorrelation
        Its `is_correlated` is the decision. An image without noise and texture counts as uncorrelated.

    Raises
    ------
    InputError
        If the image is too small, of another shape, or not of real, finite numbers.

    Notes
    -----
    Bilinear up-sampling by 1.5 and 2 gives 0.58 and 0.76, smoothing with a Gaussian of 0.7 pixels 0.5. White noise
    of 5/255 of the range or more stayed below 0.3 on all textures tried (0.26 on gravel, about 0 on medical images).
    It cannot decide where there is next to no noise: smooth images that are free of noise look correlated. Nor does
    it see smoothed noise below a texture that reaches up to the highest frequencies, such as grass.
    """
    blocks = _blocks(_checked(image, max_pixels), floor=True, most=_MAX_BLOCKS // 5)
    if not len(blocks.mean):
        return NoiseCorrelation((0.0, 0.0), 0.0)
    # The 3 % with the least texture, but as many as 40 independent blocks where there are.
    wanted = max(round(0.03 * len(blocks.mean)), round(40 * blocks.positions_per_block))
    least = np.argsort(blocks.low, kind="stable")[:wanted]
    fitted = _MID | _HIGH
    energy = blocks.energy[least][:, fitted].mean(axis=0, dtype=np.float64)
    if not energy.min() > 0:
        return NoiseCorrelation((0.0, 0.0), 0.0)
    rows, columns = ((math.pi / _SIDE * np.indices((_SIDE, _SIDE))) ** 2)[:, fitted]
    # A Gaussian of the deviation s multiplies the energy at the angular frequency w by exp(-s^2 w^2).
    terms = np.stack([np.ones_like(rows), -rows, -columns], axis=1)
    level, vertical, horizontal = np.linalg.lstsq(terms, np.log(energy), rcond=None)[0]
    smoothing = math.sqrt(max(vertical, 0.0)), math.sqrt(max(horizontal, 0.0))
    # The mean of exp(-s^2 w^2) over all frequencies w, which is what the smoothing leaves of the variance.
    left = math.prod(math.erf(math.pi * s) / (2 * s * math.sqrt(math.pi)) if s > 1e-6 else 1.0 for s in smoothing)
    return NoiseCorrelation(smoothing, math.sqrt(math.exp(level) * left))


class PoissonGaussianParameters(NamedTuple):
    """Noise whose variance is ``gain * signal + variance``; the two in the image's units and units squared."""

    gain: float
    variance: float


def estimate_poisson_gaussian(image: ArrayLike) -> PoissonGaussianParameters:
    """Noise whose variance grows linearly with the signal: photon counting with Gaussian read-out noise.

    As Foi et al., IEEE TIP 17(10), 2008: the noise's variance is estimated separately on blocks of about the same
    mean, and a line is fitted to the pairs of mean and variance, robustly.

    Parameters
    ----------
    image
        ``(H, W)`` or ``(D, H, W)``, at least 8 x 8 pixels, whose zero is no signal: subtract a known pedestal first.

    Returns
    -------
    PoissonGaussianParameters
        Neither is negative. All 0 for an image without noise.

    Raises
    ------
    InputError
        If the image is too small, of another shape, or not of real, finite numbers.

    Notes
    -----
    The noise's deviation over the image's range of signals is what comes out well; how it is parted into `gain` and
    `variance` is only known where the image has smooth parts of different brightness.
    """
    levels = _levels(_blocks(_checked(image), floor=False))
    if not len(levels.mean) or not levels.variance.max() > 0:
        return PoissonGaussianParameters(0.0, 0.0)
    # Scaled to 1, so that the two unknowns are of one size.
    mean_unit, variance_unit = max(float(np.abs(levels.mean).max()), 1e-300), float(levels.variance.max())
    mean, variance = levels.mean / mean_unit, levels.variance / variance_unit
    terms = np.stack([mean, np.ones_like(mean)], axis=1)
    model, trust = variance.copy(), np.ones_like(variance)
    for _ in range(20):
        # The deviation of each variance is its relative error times what the line says, not times what was measured:
        # else values that came out too small would count more.
        weight = trust / (levels.error * np.maximum(model, 1e-3 * model.max()))
        solution, _ = nnls(terms * weight[:, None], variance * weight)
        model = np.maximum(terms @ solution, 1e-6)
        trust = 1 / np.sqrt(1 + ((variance / model - 1) / (2 * levels.error)) ** 2)
    gain, constant = solution
    return PoissonGaussianParameters(float(gain * variance_unit / mean_unit), float(constant * variance_unit))


def estimate_rician_sigma(image: ArrayLike) -> float:
    """Standard deviation of the Gaussian noise in either channel behind a magnitude MR image.

    The variance and the mean of blocks of about the same brightness give the sigma of Rician noise by the correction
    of Koay and Basser, Journal of Magnetic Resonance 179(2), 2006, in the background as in the object; the result
    is the median over all brightnesses, weighted by their precision.

    Parameters
    ----------
    image
        ``(H, W)`` or ``(D, H, W)``, at least 8 x 8 pixels, on a scale where 0 is no signal. A background that
        was masked to a constant does not count.

    Returns
    -------
    float
        In the image's units; 0 for an image without noise.

    Raises
    ------
    InputError
        If the image is too small, of another shape, not of real, finite numbers, or has negative values.
    """
    values = _checked(image)
    if values.min() < 0:
        raise InputError("a magnitude image has negative values", "Rician noise is that of magnitude MR images only")
    levels = _levels(_blocks(values, floor=False))
    positive = levels.variance > 0
    if not positive.any():
        return 0.0
    mean, variance, error = (part[positive] for part in (levels.mean, levels.variance, levels.error))
    snr = np.linspace(0, 20, 2001)
    rician_mean, rician_variance = _rician_moments(snr)
    theta = np.interp(mean / np.sqrt(variance), rician_mean / np.sqrt(rician_variance), snr)
    sigma = np.sqrt(variance / np.interp(theta, snr, rician_variance))
    order = np.argsort(sigma)
    weight = np.cumsum(1 / error[order] ** 2)
    return float(sigma[order][np.searchsorted(weight, weight[-1] / 2)])


def _rician_moments(snr: Values) -> tuple[Values, Values]:
    """Mean and variance of Rician variables of sigma 1 (Koay and Basser 2006)."""
    quarter = snr**2 / 4
    # i0e(x) is exp(-x) I0(x), so the exponential of the formula cancels exactly.
    mean = math.sqrt(math.pi / 8) * ((2 + snr**2) * i0e(quarter) + snr**2 * i1e(quarter))
    return mean, 2 + snr**2 - mean**2


@dataclass(frozen=True)
class _Blocks:
    """Blocks without flat and mostly clipped ones."""

    mean: Values  # (N,)
    low: Values  # (N,), mean square of the lowest frequencies' coefficients, without the mean
    energy: NDArray[np.float32]  # (N, 8, 8), the squared cosine coefficients
    clipped: Values  # (N, 2), shares of the pixels at the lower and at the upper end of the range
    positions_per_block: float  # how many of them are worth one independent block

    def part(self, members: NDArray[np.intp]) -> _Blocks:
        """Some of the blocks."""
        mean, low, energy, clipped = self.mean[members], self.low[members], self.energy[members], self.clipped[members]
        return _Blocks(mean, low, energy, clipped, self.positions_per_block)


def _checked(image: ArrayLike, max_pixels: int = _MAX_PIXELS) -> NDArray[np.float64]:
    """The image as float64 (D, H, W); raises InputError if it cannot be measured."""
    values = np.asarray(image)
    if values.dtype.kind not in "biuf":
        raise InputError(f"an image has dtype {values.dtype}", "give real numbers")
    if values.ndim not in (2, 3) or values.size == 0 or min(values.shape[-2:]) < _SIDE:
        raise InputError(
            f"cannot estimate the noise of an image of shape {values.shape}",
            f"give (H, W) or (D, H, W) of at least {_SIDE} x {_SIDE} pixels",
        )
    values = _looked_at(values.reshape(-1, *values.shape[-2:]), max_pixels).astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("an image has values that are NaN or infinite", "mask or replace them first")
    return values


def _looked_at(volume: NDArray[Any], max_pixels: int) -> NDArray[Any]:
    """Up to 16 of the slices of (D, H, W), or windows of together `max_pixels` from all over those that are larger."""
    if volume[0].size <= max_pixels:
        return volume[_evenly(len(volume), _MAX_SLICES)]
    height, width = (min(length, math.isqrt(max_pixels // _MAX_SLICES)) for length in volume.shape[1:])
    side = math.isqrt(_MAX_SLICES)
    tops, lefts = (
        _evenly(length - size + 1, side) for length, size in zip(volume.shape[1:], (height, width), strict=True)
    )
    numbers = _evenly(len(volume), _MAX_SLICES)
    places = [(top, left) for top in tops for left in lefts]
    return np.stack(
        [
            volume[numbers[k % len(numbers)], top : top + height, left : left + width]
            for k, (top, left) in enumerate(places)
        ]
    )


def _evenly(length: int, count: int) -> NDArray[np.intp]:
    """At most `count` indices from all over `length`."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(np.intp)


def _box_sum(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of true pixels in every 8 x 8 block of a (D, H, W) mask."""
    total: NDArray[np.int64] = np.pad(mask.astype(np.int64), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    inner, left = total[:, _SIDE:], total[:, :-_SIDE]
    return inner[..., _SIDE:] - inner[..., :-_SIDE] - left[..., _SIDE:] + left[..., :-_SIDE]


def _blocks(volume: Values, floor: bool, most: int = _MAX_BLOCKS) -> _Blocks:
    """Up to `most` blocks, evenly from all positions.

    `floor` says whether many values at the minimum mean clipping; in counts and magnitudes they do not.
    """
    lowest, highest = volume.min(), volume.max()
    # Rounded data have some equal pixels by chance, but hardly nine in a square, unless sigma is below the rounding.
    level = ndimage.maximum_filter(volume, (1, 3, 3)) == ndimage.minimum_filter(volume, (1, 3, 3))
    flat = _box_sum(ndimage.binary_dilation(level, np.ones((1, 3, 3)))) > 0
    # An extreme value that one pixel in a thousand has is an end of the range, not chance.
    ends = [volume == end for end in (lowest, highest)]
    clipped = np.stack(
        [_box_sum(end) * (counts and end.mean() > 1e-3) for end, counts in zip(ends, (floor, True), strict=True)], -1
    )
    usable = ~flat & (clipped.sum(axis=-1) <= _SIDE**2 // 4)
    if not usable.any():
        usable = ~flat
    position = np.flatnonzero(usable)
    count = len(position)
    if count > most:
        # The step is fractional on purpose: a whole one could fall in with the pattern of an image.
        position = position[(np.arange(most) * (count / most)).astype(np.int64)]
    index = np.unravel_index(position, usable.shape)
    # Float32 is enough once the offset, which could be large against the noise, is gone.
    centred = (volume - volume.mean()).astype(np.float32)
    cut = np.lib.stride_tricks.sliding_window_view(centred, (_SIDE, _SIDE), axis=(1, 2))[index]
    basis = dct(np.eye(_SIDE), axis=0, norm="ortho").astype(np.float32)
    cosines = basis @ cut @ basis.T
    energy = np.square(cosines)
    return _Blocks(
        cosines[:, 0, 0].astype(np.float64) / _SIDE + volume.mean(),
        energy[:, _LOW].mean(axis=1, dtype=np.float64),
        energy,
        clipped[index] / _SIDE**2,
        max(1.0, _POSITIONS_PER_BLOCK * len(position) / max(count, 1)),
    )


class _Variance(NamedTuple):
    value: float
    error: float  # relative standard deviation


def _noise_variance(blocks: _Blocks) -> _Variance:
    """Variance of white noise in some blocks (at least one).

    The blocks are parted into groups of growing low-frequency energy. A group's mean square at the high frequencies
    is ``h = v + k t``, at the middle ones ``m = v + t``, where v is the noise's variance and t the texture's. Over
    ever rougher groups (m, h) runs along a line of slope k, and v is where this line meets the diagonal. So v is found
    even if no block is free of texture; where some are, they decide.

    The result is the posterior mean of v, with a flat prior, k ~ N(0.35, 0.2^2) on [0, 0.8] as it is in images, and
    residuals by Student's distribution with the scale of sampling errors and of 0.15 t, by which k varies between
    groups.
    """
    order = np.argsort(blocks.low, kind="stable")
    smallest = 6 * blocks.positions_per_block
    edges = [0]
    for share in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7):
        edge = round(share * len(order))
        if min(edge - edges[-1], len(order) - edge) >= smallest:
            edges.append(edge)
    sizes = np.diff([*edges, len(order)])
    independent = np.maximum(sizes / blocks.positions_per_block, 1)

    def group_means(values: Values) -> Values:
        return np.asarray(np.add.reduceat(values[order], edges, axis=0).T / sizes).T

    mid, high = (group_means(blocks.energy[:, band].mean(axis=1, dtype=np.float64)) for band in (_MID, _HIGH))
    shrunken = _clipped_variance(group_means(blocks.clipped))
    mid, high = mid / shrunken, high / shrunken
    if not high.min() > 0:
        return _Variance(0.0, 1.0)
    v = high.min() * np.linspace(0.005, 1.5, 300)[:, None, None]
    k = np.linspace(0, 0.8, 33)[:, None]
    texture = np.maximum(mid - v, 0)
    spread = (
        2 * (v + k * texture) ** 2 / (independent * np.count_nonzero(_HIGH))
        + 2 * (k * (v + texture)) ** 2 / (independent * np.count_nonzero(_MID))
        + (0.15 * texture) ** 2
    )
    residual = high - v - k * (mid - v)
    likelihood = -2 * np.log1p(residual**2 / (3 * spread)) - 0.5 * np.log(spread)
    log_posterior = likelihood.sum(axis=2) - 0.5 * ((k[:, 0] - 0.35) / 0.2) ** 2
    posterior = np.exp(log_posterior - log_posterior.max()).sum(axis=1)
    posterior /= posterior.sum()
    mean = float(posterior @ v[:, 0, 0])
    deviation = math.sqrt(float(posterior @ (v[:, 0, 0] - mean) ** 2))
    return _Variance(mean, max(deviation / mean, 0.005))


def _clipped_variance(shares: Values) -> Values:
    """Variance of standard normal variables, of which these shares (..., 2) are clipped below and above."""
    below, above = np.moveaxis(np.clip(shares, 1e-12, 0.45), -1, 0)
    low, high = ndtri(below), -ndtri(above)
    at_low, at_high = (np.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi) for bound in (low, high))
    mean = low * below + high * above + at_low - at_high
    square = low**2 * below + high**2 * above + (1 - below - above) + low * at_low - high * at_high
    return np.asarray(square - mean**2)


class _Levels(NamedTuple):
    """The noise by brightness: each of shape (levels,)."""

    mean: Values
    variance: Values
    error: Values  # of the variance, relative


def _levels(blocks: _Blocks) -> _Levels:
    """Mean and noise variance of blocks of about the same mean, for up to 24 steps of brightness."""
    if not len(blocks.mean):
        return _Levels(*(np.zeros(0) for _ in range(3)))
    first, last = np.quantile(blocks.mean, [0.002, 0.998])
    # Wide against the deviation of a block's mean, an eighth of the noise's: blocks of one signal that were told apart
    # by the noise in their means would also differ in their variances, where the noise is skewed.
    width = 0.7 * math.sqrt(_noise_variance(blocks).value)
    steps = int(min(max((last - first) / width, 1), 24)) if width else 24
    order = np.argsort(blocks.mean, kind="stable")
    # Even steps of brightness, because a fit needs its ends; those with too few blocks are joined to the next.
    bounds = np.searchsorted(blocks.mean[order], np.linspace(first, last, steps + 1)[1:-1])
    smallest = 20 * blocks.positions_per_block
    edges = [0]
    for bound in bounds:
        if min(bound - edges[-1], len(order) - bound) >= smallest:
            edges.append(int(bound))
    found = []
    for start, end in zip(edges, [*edges[1:], len(order)], strict=True):
        part = blocks.part(order[start:end])
        smooth = part.low <= np.median(part.low)
        found.append((float(part.mean[smooth].mean()), *_noise_variance(part)))
    mean, variance, error = np.array(found).T
    return _Levels(mean, variance, error)
