"""Noise models, and the MONAI transforms that corrupt images with them.

Drawing is apart from applying: a model is a frozen value that corrupts an image as a function of ``(image, seed)``;
a random transform only draws a model and a seed, so any corrupted sample can be replayed. Images are on the [0, 1]
scale of the clean image, and so is every `sigma`.

`estimation` reads the noise off an image, in the image's own units; `stabilising` makes noise that depends on the
signal white, and undoes it without bias.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .estimation import (
    NoiseCorrelation,
    PoissonGaussianParameters,
    estimate_poisson_gaussian,
    estimate_rician_sigma,
    estimate_sigma,
    noise_correlation,
)
from .models import (
    NOISE_MODELS,
    CorrelatedGaussianNoise,
    GaussianNoise,
    NoiseModel,
    PaperGaussianNoise,
    PaperPoissonNoise,
    PoissonGaussianNoise,
    PoissonNoise,
    RicianNoise,
    SpeckleNoise,
    VarianceGaussianNoise,
    image_seed,
    make_noise,
)
from .stabilising import PoissonGaussianStabiliser, RicianStabiliser, Stabiliser

if TYPE_CHECKING:
    from .transforms import Noised, RandNoised, UnlessPairedd

__all__ = [
    "NOISE_MODELS",
    "CorrelatedGaussianNoise",
    "GaussianNoise",
    "NoiseCorrelation",
    "NoiseModel",
    "Noised",
    "PaperGaussianNoise",
    "PaperPoissonNoise",
    "PoissonGaussianNoise",
    "PoissonGaussianParameters",
    "PoissonGaussianStabiliser",
    "PoissonNoise",
    "RandNoised",
    "RicianNoise",
    "RicianStabiliser",
    "SpeckleNoise",
    "Stabiliser",
    "UnlessPairedd",
    "VarianceGaussianNoise",
    "estimate_poisson_gaussian",
    "estimate_rician_sigma",
    "estimate_sigma",
    "image_seed",
    "make_noise",
    "noise_correlation",
]

_TRANSFORMS = frozenset({"Noised", "RandNoised", "UnlessPairedd"})


def __getattr__(name: str) -> object:
    # They derive from MONAI's, which take longer to import than all else that a denoising command does before its work.
    if name in _TRANSFORMS:
        return getattr(importlib.import_module(".transforms", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
