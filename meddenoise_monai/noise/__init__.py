"""Noise models, and the MONAI transforms that corrupt images with them.

Drawing is apart from applying: a model is a frozen value that corrupts an image as a function of ``(image, seed)``;
a random transform only draws a model and a seed, so any corrupted sample can be replayed. Images are on the [0, 1]
scale of the clean image, and so is every `sigma`.
"""

from __future__ import annotations

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
from .transforms import Noised, RandNoised, UnlessPairedd

__all__ = [
    "NOISE_MODELS",
    "CorrelatedGaussianNoise",
    "GaussianNoise",
    "NoiseModel",
    "Noised",
    "PaperGaussianNoise",
    "PaperPoissonNoise",
    "PoissonGaussianNoise",
    "PoissonNoise",
    "RandNoised",
    "RicianNoise",
    "SpeckleNoise",
    "UnlessPairedd",
    "VarianceGaussianNoise",
    "image_seed",
    "make_noise",
]
