"""How far a denoised image may lie from the clean one: the half-width of an interval for each pixel.

What a denoiser does wrong, it does wrong again. So the denoised image is given noise like that which was found, and is
denoised again: the error of that, which can be seen, is of the size of the first one, which cannot (`bootstrap_error`,
a parametric bootstrap: Efron and Tibshirani, *An introduction to the bootstrap*, 1993, section 6.5). How large it is in
comparison was measured on images with known truth (`Calibration`, split conformal: Vovk, Gammerman and Shafer,
*Algorithmic learning in a random world*, 2005; for the pixels of images: Angelopoulos et al., "Image-to-image
regression with distribution-free uncertainty quantification", ICML 2022).
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from .errors import InputError, UsageError
from .whole_files import read_json, replace_whole

__all__ = ["Calibration", "Errors", "Spread", "bootstrap_error", "calibrate", "check_coverage"]

Image = NDArray[np.float32]

# Of the surrogate noise and of the averages, in pixels. The strength of the noise changes slowly, errors do not.
REPLICATES, NOISE_BLUR, ERROR_BLUR = 2, 8.0, 4.0
# The half-width is factor * error ** EXPONENT * noise ** (1 - EXPONENT): docs/adr/008-uncertainty-by-bootstrap.md.
EXPONENT = 0.6
METHOD = {"replicates": REPLICATES, "noise_blur": NOISE_BLUR, "error_blur": ERROR_BLUR, "exponent": EXPONENT}
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
MAKE = "make one: scripts/calibrate_uncertainty.py --weights model.pt --output model_uncertainty.json"


@dataclass(frozen=True)
class Spread:
    """What is known of the errors of one image before calibration.

    Attributes
    ----------
    scale
        float32, of the image's shape and units: errors are proportional to it. 0 where nothing was found.
    ratio
        Of the error to the noise, as root mean squares over the image: small where the noise is strong and the image
        smooth, for then most of the noise goes; near 1 where next to all that was found comes back as an error. It is
        the same for a part of an image as for the whole, if they are alike, and single pixels do not matter, unlike a
        strength of the noise in shares of the image's range.
    """

    scale: Image
    ratio: float


def bootstrap_error(
    denoised: NDArray[Any], found: NDArray[Any], noise_in: Callable[[Image], NDArray[Any]], seed: int = 0
) -> Spread:
    """Give a denoised image noise like that which was found in it, denoise it again, and look at what that does wrong.

    The noise is a surrogate of what was found: the same spectrum with random phases (Theiler et al., *Physica D* 58,
    1992), so that it is correlated where that was, and as strong as that around every pixel. Slices are treated apart.

    Parameters
    ----------
    denoised, found
        (H, W) or (D, H, W), in the image's units: the result, and what was taken away.
    noise_in
        What the denoiser takes for noise in an image of that shape. It is called `REPLICATES` times.
    seed
        Of the random phases. The same seed and image give the same answer.

    Returns
    -------
    Spread
        Its scale is the geometric mean of that error, with the weight `EXPONENT`, and the strength of the noise.
    """
    denoised = np.asarray(denoised, np.float32)
    strength = _rms(found)
    if strength == 0.0:
        return Spread(np.zeros(denoised.shape, np.float32), 0.0)
    # Squares of values in units of their own strength neither overflow nor vanish in float32.
    unit = (np.asarray(found) / strength).astype(np.float32)
    noise = np.sqrt(_blurred(unit * unit, NOISE_BLUR))
    power = np.zeros(denoised.shape, np.float32)
    rng = np.random.default_rng(seed)
    for _ in range(REPLICATES):
        again = _surrogate(unit, rng)
        again *= noise * np.float32(strength)
        again += denoised
        change = ((again - noise_in(again) - denoised) / strength).astype(np.float32)
        power += change * change / np.float32(REPLICATES)
    ratio = math.sqrt(float(power.mean(dtype=np.float64)))  # the noise is of strength 1 here
    error = np.sqrt(_blurred(power, ERROR_BLUR))
    scale = strength * error**EXPONENT * noise ** (1 - EXPONENT)
    return Spread(scale.astype(np.float32), ratio)


def _surrogate(unit: Image, rng: np.random.Generator) -> Image:
    """The same spectrum with random phases, slice by slice, each of unit strength (or 0)."""
    result = np.empty_like(unit)
    for before, after in zip(_slices(unit), _slices(result), strict=True):
        white = fft.rfft2(rng.standard_normal(before.shape, np.float32))
        phases = white / np.maximum(np.abs(white), np.float32(1e-30))
        values = fft.irfft2(fft.rfft2(before) * phases, s=before.shape)
        after[:] = values / max(_rms(values), 1e-30)
    return result


def _slices(values: Image) -> Image:
    return values.reshape(-1, *values.shape[-2:])


def _blurred(values: Image, sigma: float) -> Image:
    """Averages within each slice; rounding shall not make them negative."""
    axes = [0.0] * (values.ndim - 2) + [sigma, sigma]
    means: Image = ndimage.gaussian_filter(values, axes)
    return np.maximum(means, 0)


def _rms(values: NDArray[Any]) -> float:
    largest = float(max(values.max(), -values.min()))
    if largest == 0.0:
        return 0.0
    total = sum(float(np.sum((line / largest) ** 2, dtype=np.float64)) for line in values)
    return largest * math.sqrt(total / values.size)


@dataclass(frozen=True)
class Calibration:
    """By what factor the scale of a `Spread` becomes the half-width of an interval of a given coverage.

    Promised is a mean over patients and pixels, not a pixel: a patient whose images are exchangeable with those of the
    n patients of the calibration has on average at least ``n / (n + 1)`` of the coverage that was asked within the
    half-width (conformal risk control, with the share of pixels outside as its loss: Angelopoulos et al., ICLR 2024,
    theorem 1; the pixels and images of one patient are not independent, so she counts once). The factor depends on
    `Spread.ratio`, and so on the strength of the noise, which nobody tells: the promise is for the strengths that were
    drawn, taken together, and holds about for each. Nothing is promised of other images and other noise, of single
    pixels, or of what is rare, such as a small lesion: docs/uncertainty.md has what was seen.

    Attributes
    ----------
    weights
        `inference.weights_fingerprint` of the denoiser that it was made for.
    ratios
        `Spread.ratio` at the nodes, ascending; between them logarithms are interpolated, outside the ends hold.
    coverages
        Ascending, in (0, 1); between them logarithms are interpolated, outside is refused.
    factors
        (coverages, ratios), positive.
    protocol
        Which images, how many patients, which noise.

    Raises
    ------
    InputError
        If the numbers are none of a calibration.
    """

    weights: str
    ratios: tuple[float, ...]
    coverages: tuple[float, ...]
    factors: tuple[tuple[float, ...], ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ratios, coverages, factors = (np.asarray(v, np.float64) for v in (self.ratios, self.coverages, self.factors))
        whole = (
            factors.size > 0
            and factors.shape == (*coverages.shape, *ratios.shape)
            and all(np.isfinite(v).all() and (v > 0).all() for v in (ratios, coverages, factors))
            and all((np.diff(v) > 0).all() for v in (ratios, coverages))
            and coverages[-1] < 1
        )
        if not whole:
            raise InputError("the numbers are none of a calibration", MAKE)

    def factor(self, ratio: float, coverage: float) -> float:
        """What to multiply the scale of an image of this ratio with.

        Raises
        ------
        UsageError
            If the coverage lies outside of those that were calibrated.
        """
        check_coverage(coverage, self.coverages)
        logs = np.log(np.asarray(self.factors, np.float64))
        place = math.log(min(max(ratio, self.ratios[0]), self.ratios[-1]))
        at_ratio = [float(np.interp(place, np.log(self.ratios), row)) for row in logs]
        return math.exp(float(np.interp(coverage, self.coverages, at_ratio)))

    def half_width(self, spread: Spread, coverage: float = 0.9) -> Image:
        """The map, float32, in the image's units.

        Raises
        ------
        UsageError
            As `factor`.
        """
        return spread.scale * np.float32(self.factor(spread.ratio, coverage))

    @classmethod
    def read(cls, path: str | os.PathLike[str], weights: str) -> Calibration:
        """A calibration from the JSON that `write` wrote.

        Parameters
        ----------
        path
            By convention ``model_uncertainty.json`` beside ``model.pt``.
        weights
            The fingerprint that it has to be made for.

        Raises
        ------
        InputError
            If there is no such file, it holds something else, or was made for other weights or by another method.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"these weights have no calibration of their uncertainty: no {path}", MAKE)
        try:
            content = read_json(path)
            if content["method"] != METHOD:
                raise InputError(f"{path} was made by another method", MAKE)
            found = cls(
                str(content["weights"]),
                tuple(content["ratios"]),
                tuple(content["coverages"]),
                tuple(tuple(row) for row in content["factors"]),
                dict(content["protocol"]),
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(f"{path} holds no calibration of the uncertainty", MAKE) from error
        if found.weights != weights:
            raise InputError(f"{path} was made for the weights {found.weights}, not {weights}", MAKE)
        return found

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        content = {
            "weights": self.weights,
            "protocol": dict(self.protocol),
            "method": METHOD,
            "ratios": self.ratios,
            "coverages": self.coverages,
            "factors": self.factors,
        }
        with replace_whole(Path(path)) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_coverage(coverage: Any, known: Sequence[float] = COVERAGES) -> None:
    """Refuse a coverage that no calibration has.

    Raises
    ------
    UsageError
        If it is no number, or outside of `known`.
    """
    if not isinstance(coverage, Real) or not known[0] <= float(coverage) <= known[-1]:
        raise UsageError(f"coverage must be a number in [{known[0]}, {known[-1]}], got {coverage!r}", "0.9 is usual")


@dataclass(frozen=True)
class Errors:
    """What is seen of one image whose truth is known.

    Attributes
    ----------
    patient
        Whom it shows.
    ratio
        `Spread.ratio`.
    scores
        (N,): magnitudes of the errors of some pixels, divided by the scale there.
    """

    patient: str
    ratio: float
    scores: NDArray[np.floating]

    @classmethod
    def of(cls, patient: str, clean: NDArray[Any], denoised: NDArray[Any], spread: Spread, most: int = 8192) -> Errors:
        """Of at most so many pixels, evenly spread; an error where none was expected counts as infinite."""
        step = max(1, clean.size // most) | 1  # odd, and so not along columns
        error = np.abs(np.asarray(clean, np.float64) - denoised).reshape(-1)[::step]
        scale = spread.scale.reshape(-1)[::step].astype(np.float64)
        beyond = np.where(error > 0, np.inf, 0.0)
        return cls(patient, spread.ratio, np.divide(error, scale, out=beyond, where=scale > 0))


def calibrate(
    errors: Sequence[Errors], weights: str, nodes: int = 10, protocol: Mapping[str, Any] | None = None
) -> Calibration:
    """The factors at which the mean over patients of the share of pixels inside is what is asked.

    The images are parted by their ratios into as many groups of one size as there are nodes, each of which has its own
    quantiles of the scores. Every patient of a group weighs the same.

    Parameters
    ----------
    errors
        Of the images of the calibration, which no weights were trained on.
    weights
        The fingerprint of the denoiser.
    nodes
        How many.
    protocol
        To be kept with it.

    Raises
    ------
    InputError
        If there are fewer images than nodes, or some in which nothing was found.
    """
    seen = sorted(errors, key=lambda one: one.ratio)
    if len(seen) < nodes or not seen[0].ratio > 0 or not math.isfinite(seen[-1].ratio):
        raise InputError(f"cannot calibrate with {len(seen)} images at {nodes} nodes", "give more, noisy ones")
    ratios, columns = [], []
    for group in (seen[len(seen) * i // nodes : len(seen) * (i + 1) // nodes] for i in range(nodes)):
        ratios.append(math.exp(float(np.mean([math.log(one.ratio) for one in group]))))
        columns.append(_weighted_quantiles(*_weighted(group), COVERAGES))
    return Calibration(weights, tuple(ratios), COVERAGES, tuple(zip(*columns, strict=True)), dict(protocol or {}))


def _weighted(group: Sequence[Errors]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and their weights: 1 for each patient, shared by her images, and by their pixels."""
    images = Counter(one.patient for one in group)
    weights = [np.full(one.scores.size, 1 / (images[one.patient] * one.scores.size)) for one in group]
    return np.concatenate([one.scores for one in group]).astype(np.float64), np.concatenate(weights)


def _weighted_quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], shares: Iterable[float]
) -> list[float]:
    """The least values that these shares of the weight do not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached / reached[-1], list(shares))
    return [float(value) for value in values[order][np.minimum(places, len(values) - 1)]]
