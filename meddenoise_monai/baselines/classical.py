"""A classical denoiser as a callable ``(image, sigma) -> image``."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, UsageError, nearest
from .filters import Image
from .grids import FAMILIES, Parameter, family_of

__all__ = ["Baseline", "ClassicalBaseline", "checked_image", "checked_sigma", "make_baseline"]


class Baseline(Protocol):
    """What every denoiser that we compare with looks like."""

    @property
    def name(self) -> str:
        """The name in tables: ``"median"``, ``"nlm"``..."""
        ...

    def __call__(self, image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        """Denoise `image` (H, W) on the [0, 1] scale, whose noise has the standard deviation `sigma`."""
        ...


@dataclass(frozen=True)
class ClassicalBaseline:
    """A classical denoiser with its parameters; made by `make_baseline`.

    Attributes
    ----------
    name
        One of `available_baselines`.
    parameters
        All of them, by name; None leaves one to the library.
    """

    name: str
    parameters: Mapping[str, Parameter]

    def __call__(self, image: ArrayLike, sigma: float) -> NDArray[np.float32]:
        """Denoise one image.

        Parameters
        ----------
        image
            ``(H, W)``, or ``(D, H, W)`` which is denoised slice by slice; on the [0, 1] scale, which noise may leave
            on either side.
        sigma
            Standard deviation of the noise on that scale. Median and Gaussian do not use it; the others return the
            image as it is below 1e-6.

        Returns
        -------
        NDArray[np.float32]
            A new array of the same shape, not clipped. A constant image comes back as it is.

        Raises
        ------
        InputError
            The image has a wrong shape or dtype, or values that are not finite.
        UsageError
            `sigma` is negative or not finite.
        """
        values = checked_image(image)
        sigma = checked_sigma(sigma)
        if values.ndim == 3:
            return np.stack([self(part, sigma) for part in values])
        if values.min() == values.max():
            return values.copy()
        denoised: NDArray[np.float32] = FAMILIES[self.name].denoise(values, sigma, **self.parameters)
        return np.array(denoised, dtype=np.float32)


def make_baseline(name: str, **parameters: object) -> ClassicalBaseline:
    """A classical denoiser with the library's default parameters, or yours.

    Parameters
    ----------
    name
        ``"median"``, ``"gaussian"``, ``"bilateral"``, ``"wavelet"``, ``"tv"``, ``"nlm"`` or, where installed,
        ``"bm3d"``.
    **parameters
        ``median``: `size` in pixels.
        ``gaussian``: `std` in pixels.
        ``bilateral``: `color`, standard deviation of the range kernel as a factor of sigma (None: the image's own
        standard deviation), and `spatial` in pixels.
        ``wavelet``: `wavelet` (orthogonal), `levels` (None: three fewer than possible), `mode` (``"soft"`` or
        ``"hard"``).
        ``tv``: `weight` as a factor of sigma (None: 0.1), and `eps`, the relative decrease at which it stops.
        ``nlm``: `patch_size` and `patch_distance` in pixels, `h` as a factor of sigma (None: 0.1, and sigma unused).
        ``bm3d``: `factor` on sigma.

    Raises
    ------
    UsageError
        The name, a parameter or its value is wrong, or the package behind it is not installed.
    """
    family = family_of(name)
    for key in parameters:
        if key not in family.parameters:
            raise UsageError(f"the baseline {name!r} has no parameter {key!r}", nearest(key, family.parameters))
    chosen = family.defaults
    for key, value in parameters.items():
        try:
            chosen[key] = family.parameters[key].parse(value)
        except ValueError as error:
            tried = ", ".join(map(repr, family.parameters[key].grid))
            raise UsageError(f"{key} of the baseline {name!r} {error}, got {value!r}", f"usual: {tried}") from None
    return ClassicalBaseline(name, chosen)


def checked_image(image: ArrayLike) -> Image:
    """The image as float32, (H, W) or (D, H, W); raises InputError if it is none."""
    values = np.asarray(image)
    if values.dtype.kind not in "biuf":
        raise InputError(f"an image has dtype {values.dtype}", "give real numbers")
    if values.ndim not in (2, 3) or values.size == 0:
        raise InputError(f"an image has shape {values.shape}", "give (H, W) or (D, H, W), not empty")
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InputError("an image has values that are NaN or infinite", "mask or replace them first")
    return values


def checked_sigma(sigma: float) -> float:
    """The standard deviation as a float; raises UsageError if it is none."""
    if isinstance(sigma, bool) or not isinstance(sigma, numbers.Real) or not 0 <= float(sigma) < math.inf:
        raise UsageError(f"sigma must be a number that is not negative, got {sigma!r}", "give it on the [0, 1] scale")
    return float(sigma)
