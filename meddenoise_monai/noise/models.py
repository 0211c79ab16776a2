"""Noise models: frozen values that corrupt an image as a function of ``(image, seed)``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from ..errors import InputError, UsageError, nearest

__all__ = [
    "MEANINGS",
    "NOISE_MODELS",
    "POSITIVE",
    "CorrelatedGaussianNoise",
    "GaussianNoise",
    "NoiseModel",
    "PaperGaussianNoise",
    "PaperPoissonNoise",
    "PoissonGaussianNoise",
    "PoissonNoise",
    "RicianNoise",
    "SeededNoise",
    "SpeckleNoise",
    "VarianceGaussianNoise",
    "image_seed",
    "make_noise",
    "model_class",
]

# Beyond this, torch.poisson overflows its 64-bit count and returns large negative numbers without a warning.
_MAX_COUNT = 1e15


@runtime_checkable
class NoiseModel(Protocol):
    """What corrupts an image reproducibly."""

    def apply(self, image: Tensor, seed: int) -> Tensor:
        """Return a corrupted copy of `image`, the same for the same ``(image, seed)``."""
        ...


MEANINGS = {
    "sigma": "sigma is on the [0, 1] scale, as 25/255 (for `corrupt` in image units; for speckle a proportion)",
    "std": "std is the noise's standard deviation before the factor p",
    "mean": "mean is the noise's mean before the factor p",
    "p": "p is the proportion of noise that is added, such as 0.1",
    "factor": "the noise's variance is factor times the image's variance, such as 0.1",
    "fwhm": "fwhm is the smoothing kernel's full width at half maximum in pixels",
    "elongation": "elongation is the vertical over the horizontal width of the kernel, such as 1.5",
    "ramp": "ramp is the power of the frequency that the spectrum grows with at its lower end: 0, or 1 as of CT",
    "photons": "photons is the expected count where the image is 1",
    "rate": "rate is the mean of the Poisson noise before the factor p",
    "clip": "clip says whether values are clipped to [0, 1] after corruption",
}
POSITIVE = ("photons", "rate", "elongation")  # strictly, and drawn uniformly in their logarithm


def _checked(owner: str, name: str, value: Any) -> bool | float:
    """The parameter's `value` as a plain bool or float, which is all that is ever handed to torch."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if name == "clip":
        valid, must_be = isinstance(value, bool), "true or false"
    elif name in POSITIVE:
        valid, must_be = number and 0 < value <= 1e12, "a number > 0 and at most 1e12"
    elif name == "mean":
        valid, must_be = number, "a finite number"
    else:
        valid, must_be = number and value >= 0, "a finite number >= 0"
    if not valid:
        raise UsageError(f"{owner}: {name} must be {must_be}, got {value!r}", MEANINGS[name])
    return value if isinstance(value, bool) else float(value)


@dataclass(frozen=True)
class SeededNoise:
    """Checks the parameters, and wraps `_corrupt` so that type, device and metadata of the image are kept."""

    clip: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for parameter in fields(self):
            value = _checked(type(self).__name__, parameter.name, getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)

    def apply(self, image: Tensor, seed: int) -> Tensor:
        """Return a corrupted copy of `image`.

        Parameters
        ----------
        image
            Floating point, on [0, 1], of any shape such as ``(channels, height, width)``. Never modified.
        seed
            Seed of the noise, which is drawn and added on the CPU, in float32 or float64, and thus the same on
            every device. Torch's CPU generator looks at the lowest 32 bits only.

        Returns
        -------
        Tensor
            Of the image's shape, type, device and class (a MetaTensor keeps its metadata); not clipped to [0, 1]
            unless `clip` is set.

        Raises
        ------
        InputError
            If the image is not floating point, or the model cannot be applied to it.
        """
        if not torch.is_floating_point(image):
            raise InputError(
                f"{type(self).__name__} needs a floating point image, got {image.dtype}", "scale it to [0, 1] first"
            )
        # As plain tensor: every operation on a MetaTensor would copy its metadata.
        plain = image.as_subclass(Tensor).detach()
        plain = plain.to("cpu", torch.float64 if image.dtype == torch.float64 else torch.float32)
        noisy = self._corrupt(plain, Generator().manual_seed(seed))
        if self.clip:
            noisy = noisy.clamp(0, 1)
        result = torch.empty_like(image, requires_grad=False)
        result.as_subclass(Tensor).copy_(noisy)
        return result

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        raise NotImplementedError


def _normal(image: Tensor, generator: Generator, *leading: int) -> Tensor:
    """Standard normal numbers, always drawn as float32 so that a float64 image gets the same ones."""
    return torch.randn((*leading, *image.shape), generator=generator)


def _photon_counts(image: Tensor, photons: float, generator: Generator) -> Tensor:
    """Poisson counts scaled back to the image's scale; negative values expect no photons."""
    expected = photons * image.clamp(min=0)
    if expected.numel() and not float(expected.max()) <= _MAX_COUNT:  # also true for NaN
        raise InputError(
            "photon noise needs finite image values on [0, 1], got NaN, infinity or values too large",
            "replace such values and scale the image to [0, 1] first",
        )
    return torch.poisson(expected, generator=generator) / photons


@dataclass(frozen=True)
class GaussianNoise(SeededNoise):
    """Additive white Gaussian noise, ``x + N(0, sigma^2)``."""

    sigma: float

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        return image + self.sigma * _normal(image, generator)


@dataclass(frozen=True)
class PaperGaussianNoise(SeededNoise):
    """Gaussian noise as Gondara writes it, ``x + p N(mean, std^2)`` (arXiv:1608.04667)."""

    p: float
    mean: float
    std: float

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        return image + self.p * (self.mean + self.std * _normal(image, generator))


@dataclass(frozen=True)
class VarianceGaussianNoise(SeededNoise):
    """Gaussian noise of variance ``factor * var(x)``, the rule ``v = 0.1*var(I(:))`` of this project's ancestor.

    The variance is MATLAB's `var`: taken over all values of the image, divided by their number less one, and 0 for
    a single value. It is the variance of what is given: corrupt the image before patches are cut from it.
    """

    factor: float = 0.1

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        # In float64, so that the order of summation, which depends on the number of threads, does not show.
        variance = float(image.double().var(correction=1)) if image.numel() > 1 else 0.0
        return image + math.sqrt(self.factor * variance) * _normal(image, generator)


@dataclass(frozen=True)
class PaperPoissonNoise(SeededNoise):
    """Signal-independent Poisson noise as Gondara writes it, ``x + p Poisson(rate)`` (arXiv:1608.04667)."""

    p: float
    rate: float

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        return image + self.p * torch.poisson(torch.full(image.shape, float(self.rate)), generator=generator)


@dataclass(frozen=True)
class PoissonNoise(SeededNoise):
    """Photon-counting noise, ``Poisson(photons * max(x, 0)) / photons``: mean x, variance x / photons."""

    photons: float

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        return _photon_counts(image, self.photons, generator)


@dataclass(frozen=True)
class PoissonGaussianNoise(SeededNoise):
    """Photon counting, then Gaussian read-out noise: mean x, variance x / photons + sigma^2 (Foi et al. 2008)."""

    photons: float
    sigma: float

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        counted = _photon_counts(image, self.photons, generator)
        return counted + self.sigma * _normal(image, generator)


@dataclass(frozen=True)
class RicianNoise(SeededNoise):
    """Noise of magnitude MR images, ``sqrt((x + n1)^2 + n2^2)`` with n1, n2 ~ N(0, sigma^2).

    Never negative; where the signal is 0 its mean is ``sigma * sqrt(pi / 2)`` (Gudbjartsson and Patz 1995).
    """

    sigma: float

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        noise = (self.sigma * _normal(image, generator, 2)).to(image.dtype)
        return torch.hypot(image + noise[0], noise[1])


@dataclass(frozen=True)
class SpeckleNoise(SeededNoise):
    """Multiplicative noise, ``x (1 + N(0, sigma^2))``."""

    sigma: float

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        return image + image * self.sigma * _normal(image, generator)


@dataclass(frozen=True)
class CorrelatedGaussianNoise(SeededNoise):
    """White Gaussian noise smoothed over the last two axes, then scaled to the standard deviation `sigma`.

    The kernel is a Gaussian of full width at half maximum `fwhm` pixels (0: white), so the autocorrelation at a
    distance of d pixels is ``exp(-2 ln 2 (d / fwhm)^2)`` where `fwhm` is small against the image, and opposite
    borders are independent. Dividing by the kernel's L2 norm makes `sigma` exact at every pixel, in expectation.

    With `elongation` the vertical width is ``fwhm * sqrt(elongation)`` and the horizontal one ``fwhm /
    sqrt(elongation)``, as of interpolated or partially sampled images. With `ramp` the power spectrum is multiplied by
    the frequency to this power; 1 is that of filtered back-projection (Riederer, Pelc and Chesler, Physics in Medicine
    and Biology 23(3), 1978), whose reconstruction kernel the Gaussian then stands for.
    """

    sigma: float
    fwhm: float
    elongation: float = 1.0
    ramp: float = 0.0

    def _corrupt(self, image: Tensor, generator: Generator) -> Tensor:
        if image.dim() < 2:
            raise InputError(
                f"CorrelatedGaussianNoise needs at least two axes, got shape {tuple(image.shape)}",
                "give an image of (height, width) or (channels, height, width)",
            )
        height, width = image.shape[-2:]
        # Smoothed on a torus that exceeds the image by 3 FWHM, where the autocorrelation has fallen to 4e-6: a margin
        # capped at the image's size keeps the cost bounded, and the standard deviation exact, for any FWHM. Multiples
        # of 16 because prime sizes are slow.
        widths = self.fwhm * math.sqrt(self.elongation), self.fwhm / math.sqrt(self.elongation)
        sizes = [16 * math.ceil((n + min(3 * w, n)) / 16) for n, w in zip((height, width), widths, strict=True)]
        white = torch.randn((*image.shape[:-2], *sizes), generator=generator)
        rows, columns = (_unit_gaussian(n, w) for n, w in zip(sizes, widths, strict=True))
        transfer = torch.fft.fft(rows).real[:, None] * torch.fft.rfft(columns).real
        if self.ramp:
            transfer *= self._ramp(sizes, torch.fft.fft(rows).real[:, None] * torch.fft.fft(columns).real)
        smooth: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * transfer.float(), s=sizes)
        return image + self.sigma * smooth[..., :height, :width]

    def _ramp(self, sizes: list[int], transfer: Tensor) -> Tensor:
        """The square root of the frequency's power at all frequencies that rfft2 has, such that `sigma` is kept."""
        rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in sizes)
        amplitude = torch.hypot(rows[:, None], columns) ** (self.ramp / 2)
        energy = (transfer * amplitude).square().mean() / transfer.square().mean()
        return amplitude[:, : sizes[1] // 2 + 1] / energy.sqrt()


def _unit_gaussian(size: int, fwhm: float) -> Tensor:
    """Gaussian centred at 0 on a circle of `size` pixels, float64 of shape (size,), with an L2 norm of 1."""
    index = torch.arange(size, dtype=torch.float64)
    distance = torch.minimum(index, size - index)
    # The floor stands for fwhm 0: already there only the centre is left.
    kernel = torch.exp(-4 * math.log(2) * (distance / max(fwhm, 1e-3)) ** 2)
    return kernel / kernel.square().sum().sqrt()


NOISE_MODELS: dict[str, type[SeededNoise]] = {
    "gaussian": GaussianNoise,
    "paper_gaussian": PaperGaussianNoise,
    "variance_gaussian": VarianceGaussianNoise,
    "paper_poisson": PaperPoissonNoise,
    "poisson": PoissonNoise,
    "poisson_gaussian": PoissonGaussianNoise,
    "rician": RicianNoise,
    "speckle": SpeckleNoise,
    "correlated": CorrelatedGaussianNoise,
}
"""The noise models by the short names that configs and the command line use."""


def model_class(name: str, given: Iterable[str]) -> type[SeededNoise]:
    """The model called `name`, after a check that the `given` parameters are those that it takes."""
    if name not in NOISE_MODELS:
        raise UsageError(f"unknown noise model {name!r}", nearest(str(name), NOISE_MODELS))
    model = NOISE_MODELS[name]
    known = [parameter.name for parameter in fields(model)]
    for parameter in given:
        if parameter not in known:
            raise UsageError(f"noise model {name!r} has no parameter {parameter!r}", nearest(parameter, known))
    missing = [p.name for p in fields(model) if p.default is MISSING and p.name not in given]
    if missing:
        raise UsageError(f"noise model {name!r} needs {' and '.join(missing)}", "; ".join(MEANINGS[p] for p in missing))
    return model


def make_noise(name: str, **parameters: Any) -> NoiseModel:
    """Return the model of `NOISE_MODELS` called `name`, such as ``make_noise("gaussian", sigma=0.1)``.

    Raises
    ------
    UsageError
        If the name or a parameter is unknown, or a parameter is missing or out of its range.
    """
    return model_class(name, parameters)(**parameters)


def image_seed(image: Tensor, seed: int) -> int:
    """Seed that depends on `seed` and the image's content alone, not on epoch, worker, order or batch.

    Parameters
    ----------
    image
        Of any shape and device; its shape and its values as float32 count.
    seed
        Any integer; other seeds give other noise on the same image.

    Returns
    -------
    int
        On [0, 2^63), the same on every machine.
    """
    values = image.as_subclass(Tensor).detach().to("cpu", torch.float32).contiguous().numpy()
    digest = hashlib.blake2b(f"{int(seed)} {tuple(image.shape)}".encode(), digest_size=8)
    digest.update(values.astype("<f4", copy=False).tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1
