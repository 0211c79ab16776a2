"""Under which noise methods are compared: a noise model at a level, or the noise that images came with."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError, nearest
from ..noise import NoiseModel, image_seed, make_noise

__all__ = ["ACQUIRED", "FWHM", "Condition", "read_conditions"]

ACQUIRED = "acquired"
FWHM = 2.0  # pixels, of the correlated noise
LEAST_LEVEL, MOST_LEVEL = 0.01, 1000.0

# How a level, the standard deviation at the middle of the [0, 1] scale, becomes a model's parameters.
_PARAMETERS: dict[str, Callable[[float], dict[str, float]]] = {
    "gaussian": lambda sigma: {"sigma": sigma},
    "poisson": lambda sigma: {"photons": 0.5 / sigma**2},
    "poisson_gaussian": lambda sigma: {"photons": 1 / sigma**2, "sigma": sigma / math.sqrt(2)},
    "rician": lambda sigma: {"sigma": sigma},
    "speckle": lambda sigma: {"sigma": 2 * sigma},
    "correlated": lambda sigma: {"sigma": sigma, "fwhm": FWHM},
}


@dataclass(frozen=True)
class Condition:
    """A noise model and its level.

    Attributes
    ----------
    noise
        ``gaussian``, ``poisson``, ``poisson_gaussian`` (half of the variance each), ``rician``, ``speckle``,
        ``correlated`` (FWHM 2 pixels), or ``acquired``: the noise that the images have.
    level
        Standard deviation of the noise where the image is 0.5, in 1/255 of the [0, 1] scale; 0 if acquired. All models
        at one level are thus about equally strong. (Rician: that of either channel.)
    """

    noise: str
    level: float = 0.0

    def __str__(self) -> str:
        return "as acquired" if self.noise == ACQUIRED else f"{self.noise} {self.level:g}/255"

    @property
    def sigma(self) -> float:
        """The level on the [0, 1] scale."""
        return self.level / 255

    @property
    def model(self) -> NoiseModel:
        """The noise model.

        Raises
        ------
        UsageError
            The noise is the images' own.
        """
        if self.noise == ACQUIRED:
            raise UsageError("acquired noise cannot be drawn", "give clean images")
        return make_noise(self.noise, **_PARAMETERS[self.noise](self.sigma))

    def draw(self, clean: NDArray[np.float32], seed: int, realisation: int = 0) -> NDArray[np.float32]:
        """A noisy copy (H, W), not clipped: a function of all arguments, the image's content among them."""
        image = torch.from_numpy(np.ascontiguousarray(clean, np.float32))
        noisy: NDArray[np.float32] = self.model.apply(image, image_seed(image, seed + 1009 * realisation)).numpy()
        return noisy


def read_conditions(noise: str | Sequence[str], levels: float | Sequence[float]) -> list[Condition]:
    """All models at all levels.

    Parameters
    ----------
    noise
        A name or names.
    levels
        Of 255, each from 0.01 to 1000: beyond these, the noise or the image is lost in rounding.

    Raises
    ------
    UsageError
        A name is unknown, a level is none of these numbers, or there is none.
    """
    names = [noise] if isinstance(noise, str) else list(noise)
    strengths = [levels] if isinstance(levels, int | float) else list(levels)
    for name in names:
        if name not in _PARAMETERS:
            raise UsageError(f"methods cannot be compared under the noise {name!r}", nearest(str(name), _PARAMETERS))
    for level in strengths:
        number = isinstance(level, int | float) and not isinstance(level, bool)
        if not (number and LEAST_LEVEL <= level <= MOST_LEVEL):
            raise UsageError(
                f"{reprlib.repr(level)} is no noise level from {LEAST_LEVEL:g} to {MOST_LEVEL:g}",
                "give numbers of 255, such as --levels 15,25,50",
            )
    if not names or not strengths:
        raise UsageError("no noise to compare under", "give --noise gaussian --levels 15,25,50")
    # The same twice would count its images twice.
    return [Condition(name, float(level)) for name in dict.fromkeys(names) for level in dict.fromkeys(strengths)]
