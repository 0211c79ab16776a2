"""Recognise correlated noise by what a network that was trained on it takes out of an image.

Statistics of the image alone cannot tell smoothed noise from a fine texture where either is weak. Such a network can:
it leaves textures alone, and what it takes out of noise is of one strength all over the image, as noise is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .noise import noise_correlation

__all__ = ["Recognition", "recognise"]

# Every so-many-th pixel is looked at, too: there, noise that was smoothed over more pixels than the network knows is
# noise that it knows.
_STEPS = (1, 2, 4)
_WINDOW, _SMALLEST = 128, 32
# White noise is seen without the network: at least so strong, and so little correlated.
_WHITE_SIGMA, _WHITE_CORRELATION = 2 / 255, 0.06
# Evidence, one: what is taken out is no less than that share of the range, correlated, and about as strong in the tenth
# of the image where it is weakest, and strongest, as in the middle.
_LEAST, _CORRELATION, _WEAKEST, _STRONGEST = 0.25 / 255, 0.12, 0.7, 1.35
# Evidence, two: the image's own statistics say as much, and the network takes out a good part of it.
_SIGMA, _STRENGTH, _SHARE, _EITHER = 3.5 / 255, 0.1, 0.5, 0.08
# Below that there is no reason to speak of it.
_SUSPECTED, _MOST_TAKEN = 1.5 / 255, 0.9

Remove = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Recognition:
    """What was found.

    Attributes
    ----------
    vertical, horizontal
        Correlation of what the network takes out between neighbouring pixels.
    step
        Every so-many-th pixel is where the network takes all of it out.
    evident
        Whether it is certainly correlated noise.
    suspected
        Whether it may be, and is not `evident`.
    """

    vertical: float = 0.0
    horizontal: float = 0.0
    step: int = 1
    evident: bool = False
    suspected: bool = False


@dataclass(frozen=True)
class _Taken:
    """What is taken out at a step: deviation, correlations, and how the deviation is spread over the image."""

    sigma: float
    vertical: float
    horizontal: float
    weakest: float
    strongest: float

    @property
    def even(self) -> bool:
        return (
            self.sigma >= _LEAST
            and max(self.vertical, self.horizontal) >= _CORRELATION
            and self.weakest >= _WEAKEST
            and self.strongest <= _STRONGEST
        )


def recognise(image: NDArray[Any], remove: Remove, forced: bool = False) -> Recognition:
    """Look for correlated noise.

    Parameters
    ----------
    image
        (H, W) or (D, H, W), real and finite, in any units.
    remove
        Denoises a batch (N, H, W) of pictures on the [0, 1] scale by a network for correlated noise.
    forced
        Look for the step even where there is no doubt that the noise is white, or nothing speaks for noise.
    """
    low, width = float(image.min()), float(image.max()) - float(image.min())
    if min(image.shape[-2:]) < _SMALLEST or width == 0:
        return Recognition()
    seen = noise_correlation(image, 2**18)
    sigma = seen.sigma / width
    if not forced and sigma >= _WHITE_SIGMA and seen.strength < _WHITE_CORRELATION:
        return Recognition()
    taken: dict[int, _Taken] = {}
    for step in _STEPS:
        pictures = _windows(image, step)
        if min(pictures.shape[1:]) < _SMALLEST:
            break
        unit = ((pictures.astype(np.float64) - low) / width).astype(np.float32)
        taken[step] = _taken(unit, remove(unit))
    first = taken[1]
    even = [step for step, here in taken.items() if here.even]
    both = (
        sigma >= _SIGMA
        and seen.strength >= _STRENGTH
        and first.sigma >= _SHARE * sigma
        and min(first.vertical, first.horizontal) >= _EITHER
    )
    candidates = even or ([1] if both else list(taken))
    most = max(taken[step].sigma for step in candidates)
    step = next(step for step in candidates if taken[step].sigma >= _MOST_TAKEN * most)
    # Between neighbours, were they not `step` apart: that of a Gaussian falls with the square of the distance.
    vertical, horizontal = (max(here, 0.0) ** (1 / step**2) for here in (taken[step].vertical, taken[step].horizontal))
    doubt = (
        first.sigma >= _SUSPECTED
        and max(first.vertical, first.horizontal) >= _CORRELATION
        and seen.strength >= _STRENGTH
    )
    evident = bool(even) or both
    return Recognition(vertical, horizontal, step, evident, doubt and not evident)


def _windows(image: NDArray[Any], step: int) -> NDArray[Any]:
    """(N, h, w): every `step`-th pixel of four windows in the middle of the image's quarters, of slices all over."""
    height, width = image.shape[-2:]
    slices = image.reshape(-1, height, width)
    size = step * _WINDOW
    starts = [
        sorted({round(place * (length - size)) for place in (1 / 4, 3 / 4)}) if length > size else [0]
        for length in (height, width)
    ]
    places = [(top, left) for top in starts[0] for left in starts[1]]
    count = max(len(places), min(4, len(slices)))
    found = []
    for number in range(count):
        top, left = places[number % len(places)]
        picture = slices[(2 * number + 1) * len(slices) // (2 * count)]
        found.append(picture[top : top + size : step, left : left + size : step])
    return np.stack(found)


def _taken(pictures: NDArray[np.float32], denoised: NDArray[np.float32]) -> _Taken:
    residual = (pictures - denoised).astype(np.float64)
    power = float((residual**2).mean())
    if power == 0:
        return _Taken(0.0, 0.0, 0.0, 0.0, np.inf)
    vertical = float((residual[:, 1:] * residual[:, :-1]).mean()) / power
    horizontal = float((residual[..., 1:] * residual[..., :-1]).mean()) / power
    shorter = min(pictures.shape[1:])
    side = next(side for side in (32, 16, 8, 4) if shorter >= 4 * side or side == 4)
    if pictures[0].size * len(pictures) < 24 * side**2:
        side //= 2
    varied = _deviations(pictures.astype(np.float64), side) > 0  # what is cut out of the image carries no noise
    spread = _deviations(residual, side)[varied]
    if len(spread) < 8:
        return _Taken(power**0.5, vertical, horizontal, 0.0, np.inf)
    weakest, middle, strongest = np.quantile(spread, [0.1, 0.5, 0.9])
    if middle == 0:
        return _Taken(power**0.5, vertical, horizontal, 0.0, np.inf)
    return _Taken(power**0.5, vertical, horizontal, float(weakest / middle), float(strongest / middle))


def _deviations(pictures: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Standard deviation of each square block of all pictures."""
    count, height, width = pictures.shape
    rows, columns = height // side, width // side
    cut = pictures[:, : rows * side, : columns * side].reshape(count, rows, side, columns, side)
    return np.asarray(cut.std(axis=(2, 4))).reshape(-1)
