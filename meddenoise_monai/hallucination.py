"""Structure in a denoised image that its clean reference lacks.

`ring_correlation` says up to which frequency two images agree. `hallucinations` asks patch by patch how much of the
output is not in the reference. `lesions` asks the same of one known lesion.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, signal, sparse

from .errors import InputError, UsageError, nearest

__all__ = ["Hallucinations", "RingCorrelation", "Threshold", "Window", "half_bit", "hallucinations", "ring_correlation"]

Window: TypeAlias = Literal["hann", "tukey", "boxcar"]
Threshold: TypeAlias = Literal["half-bit", "1/7"]

_Array: TypeAlias = NDArray[np.float64]

_TUKEY_TAPER = 0.25
_LEAST_SIDE = 8


@dataclass(frozen=True)
class RingCorrelation:
    """How alike two images are, by frequency.

    Attributes
    ----------
    frequency
        (K,), the middle of each ring in cycles/pixel, up to 0.5.
    correlation
        (K,), in [-1, 1]; 0 where an image has no energy.
    count
        (K,), how many independent Fourier coefficients each ring has: the correlation of two images of independent
        white noise has the standard deviation ``1 / sqrt(count)``, but for the least rings, where it is less.
    """

    frequency: _Array
    correlation: _Array
    count: _Array

    def cutoff(self, threshold: Threshold | str = "half-bit") -> float:
        """The frequency in cycles/pixel of the first ring below the threshold; 0.5 if there is none.

        Parameters
        ----------
        threshold
            ``"half-bit"``: the curve of `half_bit`, which grants few coefficients less. ``"1/7"``: a constant, of
            Rosenthal and Henderson, *Journal of Molecular Biology* 333, 2003, who take it from two noisy halves of the
            data; for few coefficients it is below what chance gives. Both were made for two noisy images, so against a
            clean one they are lenient: beyond the cutoff, nothing is in common.

        Raises
        ------
        UsageError
            `threshold` is unknown.
        """
        bound = _bound(self.count, threshold)
        return float(_first_below(self.correlation[None], bound, self.frequency)[0])


def half_bit(count: ArrayLike) -> _Array:
    """The half-bit curve of van Heel and Schatz, *Journal of Structural Biology* 151(3), 2005.

    The correlation to expect of two images that together carry half a bit of information a coefficient, hence each the
    SNR ``S = (sqrt(2) - 1) / 2``, if the cross-terms of signal and noise have the size that chance gives them:
    ``(S + (2 sqrt(S) + 1) / sqrt(n)) / (1 + S + 2 sqrt(S) / sqrt(n))``.

    Parameters
    ----------
    count
        n, the independent coefficients in a ring, at least 1.

    Returns
    -------
    NDArray[np.float64]
        In (0.17, 1]; 1 for a single coefficient.
    """
    n = np.asarray(count, np.float64)
    snr = (np.sqrt(2) - 1) / 2
    curve: _Array = (snr + (2 * np.sqrt(snr) + 1) / np.sqrt(n)) / (1 + snr + 2 * np.sqrt(snr / n))
    return curve


def ring_correlation(first: ArrayLike, second: ArrayLike, window: Window | str = "hann") -> RingCorrelation:
    """Fourier ring correlation of two images (Saxton and Baumeister, *Journal of Microscopy* 127(2), 1982).

    ``sum(F1 conj(F2)) / sqrt(sum(abs(F1)**2) sum(abs(F2)**2))`` over rings as wide as one step of the shorter side's
    frequencies, without the mean. Two images of one scene with independent noise have the correlation SNR / (SNR + 1),
    SNR being that of one image in that ring.

    Parameters
    ----------
    first, second
        (H, W), of one shape, each side at least 8 pixels.
    window
        Tapers the borders, where an image does not go on as its transform supposes: ``"hann"``, ``"tukey"`` (tapers an
        eighth of the side at either end) or ``"boxcar"`` (nothing; for images that are periodic).

    Raises
    ------
    InputError
        The shapes differ or are no image's or too small, or a value is not finite.
    UsageError
        `window` is unknown.
    """
    a, b = _images(first, second)
    rings = _rings(a.shape, window)
    energy_a, energy_b, shared = (part[0] for part in rings.energies(a[None], b[None]))
    inner = slice(0, len(rings.frequency))
    return RingCorrelation(rings.frequency, _correlation(energy_a, energy_b, shared)[inner], rings.count[inner])


@dataclass(frozen=True)
class Hallucinations:
    """What each patch of an output has that the reference lacks. All maps are (M, N): M rows of N patches.

    Attributes
    ----------
    index
        Share of the energy of the output's structure that the reference does not explain, in [0, 1]; 0 where
        `structured` is False.
    amplitude
        Root mean square of that unexplained part, in the images' units.
    structured
        Whether the output has structure at all: energy above the floor and the noise.
    cutoff
        Up to which frequency output and reference agree, in cycles/pixel (`RingCorrelation.cutoff`).
    rows, columns
        (M,) and (N,): where the patches begin, in pixels.
    patch
        Side of a patch, in pixels.
    """

    index: _Array
    amplitude: _Array
    structured: NDArray[np.bool_]
    cutoff: _Array
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    patch: int

    def rate(self, level: float = 0.5) -> float:
        """Share of all patches whose index is above `level`, in [0, 1]. Patches without structure are not."""
        return float((self.index > level).mean())


def hallucinations(
    output: ArrayLike,
    reference: ArrayLike,
    floor: float,
    noise: float = 0.0,
    patch: int = 32,
    step: int | None = None,
    threshold: Threshold | str = "half-bit",
) -> Hallucinations:
    """Find structure in an output that its clean reference lacks, patch by patch.

    Both images are tapered to a patch by a Hann window, freed of their mean there and summed over rings of one
    frequency step. In a ring the output O and the reference R have the energies <O,O> and <R,R> and share <O,R>. Two
    things are no hallucination, and what neither explains is:

    - What follows the reference with any gain above 0 (contrast, blur, sharpening). It leaves the residual of a
      regression in each ring, ``<O,O> - max(<O,R>, 0)**2 / <R,R>``.
    - What is merely lost. A denoiser that gives the mean of all images that the noisy one can stem from has
      <O,R> = <O,O> in the mean, since its error is orthogonal to its output; blurring by any filter of transfer between
      0 and 1 has <O,R> >= <O,O>. It leaves the excess ``<O,O> - <O,R>``. The residual alone, which knows one gain a
      ring, would count the edge that is kept where a texture beside it is removed.

    The index is the smaller of both, less the ring's share of `noise`, not below 0, summed over the rings, as a share
    of <O,O> less the noise. It is 0 for the reference itself, scaled or blurred, and near 1 for independent or
    inverted structure; a steep spectrum, whose energy lies in rings of few coefficients, lowers that by what agrees by
    chance. The noise of a reference, a shift, and the spurious resolution of filters with negative transfer count as
    hallucinated, and so does what a blur wider than about a tenth of the patch brings in from outside it. What hides in
    a ring that lost more than was invented is not seen: the index is cautious.

    Parameters
    ----------
    output, reference
        (H, W), of one shape and in the same units.
    floor
        The root mean square below which a patch of the output (less its mean, under the window) has no structure, in
        the images' units, at least 0; never guessed, since the rate depends on it.
    noise
        Standard deviation of the white noise left in the output, in the images' units.
    patch
        Side of the patches, pixels, at least 8.
    step
        From patch to patch, pixels; half a patch by default. The last patches end at the border.
    threshold
        Of `Hallucinations.cutoff`, see `RingCorrelation.cutoff`.

    Raises
    ------
    InputError
        The shapes differ or are no image's or smaller than the patch, or a value is not finite.
    UsageError
        A parameter is out of bounds or unknown.
    """
    step = patch // 2 if step is None else step
    if not (floor >= 0 and noise >= 0 and patch >= _LEAST_SIDE and step >= 1):
        raise UsageError(
            f"floor {floor}, noise {noise}, patch {patch}, step {step}",
            f"floor and noise are not negative, a patch has at least {_LEAST_SIDE} pixels, a step at least 1",
        )
    outputs, references = _images(output, reference, patch)
    rings = _rings((patch, patch), "hann")
    bound = _bound(rings.count[: len(rings.frequency)], threshold)
    noise_energy = noise**2 * rings.size / rings.size.sum()
    # What noise alone stays below in all but one of a thousand patches.
    floor_energy = floor**2 + noise**2 * 3 * np.sqrt(2 * (rings.window**4).sum()) / (rings.window**2).sum()

    rows, columns = (_starts(side, patch, step) for side in outputs.shape)
    maps: dict[str, list[_Array]] = {"index": [], "energy": [], "structure": [], "cutoff": []}
    for row in rows:
        strips = (image[row : row + patch] for image in (outputs, references))
        own, known, shared = rings.energies(*(_patches(strip, columns, patch) for strip in strips))
        follows = np.divide(np.maximum(shared, 0) ** 2, known, out=np.zeros_like(known), where=known > 0)
        unexplained = np.maximum(np.minimum(own - follows, own - shared) - noise_energy, 0).sum(axis=1)
        structure = own.sum(axis=1) - noise**2
        correlation = _correlation(own, known, shared)[:, : len(rings.frequency)]
        maps["energy"].append(unexplained)
        maps["structure"].append(structure)
        maps["cutoff"].append(_first_below(correlation, bound, rings.frequency))
    energy, structure = np.stack(maps["energy"]), np.stack(maps["structure"])
    structured = structure > floor_energy
    index = np.divide(energy, structure, out=np.zeros_like(energy), where=structured)
    return Hallucinations(
        np.clip(index, 0, 1), np.sqrt(energy), structured, np.stack(maps["cutoff"]), rows, columns, patch
    )


@dataclass(frozen=True)
class _Rings:
    """The rings of one shape under one window; those beyond 0.5 cycles/pixel (the corners) come last."""

    window: _Array
    member: sparse.csr_array
    frequency: _Array
    size: _Array
    count: _Array

    def energies(self, first: _Array, second: _Array) -> tuple[_Array, _Array, _Array]:
        """Energies of both (M, H, W) and their inner product by ring, (M, K) each, in squared units a pixel."""
        a, b = (self._spectrum(stack) for stack in (first, second))
        parts = (np.abs(a) ** 2, np.abs(b) ** 2, (a * b.conj()).real)
        scale = self.window.size * (self.window**2).sum()
        own, other, shared = ((self.member @ part.reshape(len(part), -1).T).T / scale for part in parts)
        return np.asarray(own), np.asarray(other), np.asarray(shared)

    def _spectrum(self, stack: _Array) -> NDArray[np.complex128]:
        means = (stack * self.window).sum(axis=(1, 2), keepdims=True) / self.window.sum()
        spectrum: NDArray[np.complex128] = fft.rfft2((stack - means) * self.window)
        return spectrum


@functools.lru_cache(maxsize=8)
def _rings(shape: tuple[int, ...], window: Window | str) -> _Rings:
    kinds: dict[str, str | tuple[str, float]] = {"hann": "hann", "tukey": ("tukey", _TUKEY_TAPER), "boxcar": "boxcar"}
    if window not in kinds:
        raise UsageError(f"there is no window {window!r}", nearest(str(window), kinds))
    tapers = [np.asarray(signal.get_window(kinds[window], side), np.float64) for side in shape]
    taper = np.outer(*tapers)
    side = min(shape)
    rows, columns = (fft.fftfreq(length) for length in shape)
    labels = np.rint(np.hypot(rows[:, None], columns[None, :]) * side).astype(np.int64)
    size = np.bincount(labels.ravel()).astype(np.float64)
    # A window makes neighbouring coefficients alike: by the transform of its square, at their distance.
    squares = [fft.fft(each**2) / (each**2).sum() for each in tapers]
    alike = np.abs(np.outer(*squares)) ** 2
    pairs = np.zeros_like(size)
    for shift in np.argwhere(alike > 1e-4):
        same = labels == np.roll(labels, shift, axis=(0, 1))
        pairs += alike[tuple(shift)] * np.bincount(labels[same], minlength=len(size))
    # One half of a real image's spectrum mirrors the other. Its columns count twice, but for the first and, if their
    # number is even, the last.
    half = labels[:, : shape[1] // 2 + 1]
    twice = np.full(half.shape, 2.0)
    twice[:, 0] = 1
    if shape[1] % 2 == 0:
        twice[:, -1] = 1
    member = sparse.csr_array((twice.ravel(), (half.ravel(), np.arange(half.size))), (len(size), half.size))[1:]
    frequency, count = np.arange(1, side // 2 + 1) / side, (size**2 / pairs)[1:]
    for shared in (taper, frequency, size, count):  # with every caller
        shared.flags.writeable = False
    return _Rings(taper, member, frequency, size[1:], count)


def _correlation(energy_a: _Array, energy_b: _Array, shared: _Array) -> _Array:
    both = np.sqrt(energy_a) * np.sqrt(energy_b)
    ratio: _Array = np.clip(np.divide(shared, both, out=np.zeros_like(both), where=both > 0), -1, 1)
    return ratio


def _bound(count: _Array, threshold: Threshold | str) -> _Array:
    if threshold not in ("half-bit", "1/7"):
        raise UsageError(f"there is no threshold {threshold!r}", nearest(str(threshold), ("half-bit", "1/7")))
    return half_bit(count) if threshold == "half-bit" else np.full_like(count, 1 / 7)


def _first_below(correlation: _Array, bound: _Array, frequency: _Array) -> _Array:
    # Identical images correlate to 1 but for rounding, and so does the bound of a single coefficient.
    below = correlation < bound - 1e-9
    first: _Array = np.where(below.any(axis=1), frequency[below.argmax(axis=1)], 0.5)
    return first


def _starts(length: int, patch: int, step: int) -> NDArray[np.int64]:
    return np.unique([*range(0, length - patch + 1, step), length - patch]).astype(np.int64)


def _patches(strip: _Array, columns: NDArray[np.int64], patch: int) -> _Array:
    return np.stack([strip[:, column : column + patch] for column in columns])


def _images(first: ArrayLike, second: ArrayLike, least: int = _LEAST_SIDE) -> tuple[_Array, _Array]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < least:
        raise InputError(
            f"images of shape {a.shape} and {b.shape}", f"give two of one shape (H, W), each side at least {least}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("the images have values that are NaN or infinite", "mask or replace them first")
    return a, b
