"""How an image is brought to a network for white Gaussian noise, and back, by the kind of noise it carries.

A `Treatment` holds what that takes: a transform that makes signal-dependent noise Gaussian; the network for correlated
noise instead of that for white noise; or, where there is none, the step at which pixels are picked so that correlated
noise falls apart into white noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError, UsageError
from .noise import (
    NoiseCorrelation,
    PoissonGaussianStabiliser,
    RicianStabiliser,
    Stabiliser,
    estimate_poisson_gaussian,
    estimate_rician_sigma,
    noise_correlation,
)
from .recognition import Recognition, Remove, recognise

__all__ = ["NOISE_KINDS", "Treatment", "check_request", "choose_treatment", "join_phases", "split_phases"]

NOISE_KINDS = ("auto", "gaussian", "poisson", "rician", "correlated")

# Where noise counts as correlated without a network for such noise: pixels apart, least correlation, least sigma as a
# share of the image's range. Every 2nd and 4th pixel are looked at, too: noise that was smoothed over pixels has next
# to nothing at the finest scale. Images without noise look correlated, too, if they are smooth, but then there is
# little of it at the fine scales; only dense textures such as gravel are above the limits.
_LIMITS = {1: ((0.1, 12 / 255), (0.25, 4 / 255)), 2: ((0.25, 4 / 255),), 4: ((0.4, 8 / 255),)}
# Pictures smaller than this say too little, more pixels than that take time and say no more.
_SMALLEST, _LOOKED_AT = 64, 2**18
# Pixels at a step count as independent below this correlation: a little more, and the network takes it for structure.
_INDEPENDENT = 0.1
_STEPS = (1, 2, 4, 8)
# A detector's range in counts, and the read-out noise in counts, are below that.
_COUNTS = 1e9
_NAMES = {"gain": "photon counts", "sigma": "magnitudes"}


@dataclass(frozen=True)
class Treatment:
    """What is done to an image before the network and after.

    Attributes
    ----------
    stabiliser
        Makes the noise Gaussian and of one strength; None where it is so already.
    steps
        Along ``(rows, columns)``: every so-many-th pixel makes an image of its own, all of which are denoised apart and
        put together again (pixel-shuffle down-sampling, Zhou et al., "When AWGN-based Denoiser Meets Real Noises",
        AAAI 2020).
    correlated
        Whether the network for correlated noise takes it: at these steps and at twice these, which are averaged, for
        noise that is smoothed over many pixels is better seen at the wider one.
    warning
        What the user should know before she trusts the result; empty if nothing.
    """

    stabiliser: Stabiliser | None = None
    steps: tuple[int, int] = (1, 1)
    correlated: bool = False
    warning: str = ""


def check_request(noise: str | Stabiliser | Treatment = "auto", sigma: Any = None, strength: Any = 1.0) -> None:
    """Refuse, before an image is read, what cannot be asked of any.

    Raises
    ------
    UsageError
        If `noise` is unknown, `sigma` is no number, negative, or has no meaning beside `noise`, or `strength` does not
        lie in [0, 1].
    """
    if not isinstance(noise, Stabiliser | Treatment) and noise not in NOISE_KINDS:
        raise UsageError(f"unknown noise {noise!r}", f"known: {', '.join(NOISE_KINDS)}")
    if not isinstance(strength, Real) or not 0.0 <= float(strength) <= 1.0:
        raise UsageError(f"strength must be a number in [0, 1], got {strength!r}", "0 keeps all noise, 1 removes it")
    if sigma is None:
        return
    if not isinstance(sigma, Real) or isinstance(sigma, bool) or not float(sigma) >= 0.0:
        raise UsageError(
            f"sigma must be a number that is not negative, got {sigma!r}", "give it in the image's own units"
        )
    if isinstance(noise, Stabiliser):
        raise UsageError("sigma is given beside a stabiliser", "leave sigma out: the stabiliser knows the noise")
    if noise == "poisson":
        raise UsageError("sigma has no meaning for photon counting", "leave it out, or give the gain, too")


def choose_treatment(
    image: NDArray[Any], noise: str | Stabiliser = "auto", sigma: float | None = None, remove: Remove | None = None
) -> Treatment:
    """The treatment for an image.

    Parameters
    ----------
    image
        (H, W) or (D, H, W), real and finite, in its own units.
    noise
        ``"gaussian"``, ``"poisson"`` (photon counting, with Gaussian read-out noise), ``"rician"`` (magnitude MR
        images), ``"correlated"`` (Gaussian, but smoothed, up-sampled or reconstructed), or a `Stabiliser` whose
        parameters are known. ``"auto"`` looks whether the noise is correlated, and takes it for Gaussian if not.
    sigma
        Standard deviation of the noise in the image's own units where it is known; for Rician noise that of the
        Gaussian noise in either channel. It has no meaning for photon counting, nor beside a `Stabiliser`.
    remove
        What takes correlated noise out of pictures, as in `recognise`; without it the image's own statistics decide.

    Returns
    -------
    Treatment
        With a warning that names the correlation where ``"auto"`` has found one, or is in doubt.

    Raises
    ------
    UsageError
        If `noise` is unknown, or `sigma` is given where it has no meaning.
    InputError
        If the parameters of the noise cannot be estimated from this image, or no image of its values can carry such
        noise.
    """
    check_request(noise, sigma)
    if isinstance(noise, Stabiliser):
        return Treatment(_possible(noise, image))
    if noise == "poisson":
        gain, variance = estimate_poisson_gaussian(image)
        if gain * _COUNTS <= max(_width(image), math.sqrt(variance)):  # next to nothing of it depends on the signal
            return Treatment()
        return Treatment(_possible(PoissonGaussianStabiliser(gain, variance), image))
    if noise == "rician":
        channel = estimate_rician_sigma(image) if sigma is None else sigma
        if channel == 0 or (sigma is None and channel * _COUNTS <= _width(image)):  # next to no noise
            return Treatment()
        return Treatment(_possible(RicianStabiliser(channel), image))
    if noise == "gaussian" or (noise == "auto" and min(image.shape[-2:]) < _SMALLEST):  # too small to tell
        return Treatment()
    if remove is not None:
        return _recognised(recognise(image, remove, forced=noise == "correlated"), noise)
    correlation = _correlation(image, forced=noise == "correlated")
    if correlation is None:
        return Treatment()
    steps = _steps(correlation)
    if noise == "correlated":
        return Treatment(steps=steps)
    return Treatment(
        steps=steps,
        warning=f"{_named(correlation)}, as after smoothing or up-sampling; denoised at every {_words(steps)} pixel: "
        "check fine detail (or choose noise gaussian)",
    )


def _recognised(found: Recognition, noise: str) -> Treatment:
    """What follows from it, `noise` being ``"auto"`` or ``"correlated"``."""
    treatment = Treatment(steps=(found.step, found.step), correlated=True)
    if noise == "correlated":
        return treatment
    if found.evident:
        return replace(
            treatment,
            warning=f"{_named(found)}, as after smoothing, up-sampling or reconstruction, and was removed as such: "
            "check fine detail (or choose noise gaussian)",
        )
    if found.suspected:
        return Treatment(
            warning=f"{_named(found)}, if it is noise and no texture; it was left in: choose noise correlated to "
            "remove it (or noise gaussian)"
        )
    return Treatment()


def _named(found: NoiseCorrelation | Recognition) -> str:
    return (
        f"the noise of neighbouring pixels is correlated: {found.vertical:.2f} vertically, {found.horizontal:.2f} "
        "horizontally"
    )


def _width(image: NDArray[Any]) -> float:
    return float(image.max()) - float(image.min())


def _possible(stabiliser: Stabiliser, image: NDArray[Any]) -> Stabiliser:
    """The stabiliser, if its noise can be that of the image: else what it makes of the image is far off.

    Raises
    ------
    InputError
        If the noise is stronger than the image's whole range or next to nothing of it, or the image has values far
        below what such noise reaches.
    """
    width = _width(image)
    if isinstance(stabiliser, PoissonGaussianStabiliser):
        unit, read_out, zero = stabiliser.gain, math.sqrt(stabiliser.variance), stabiliser.offset
        name = "gain"
    elif isinstance(stabiliser, RicianStabiliser):
        unit, read_out, zero, name = stabiliser.noise, stabiliser.noise, 0.0, "sigma"
    else:
        return stabiliser
    if max(unit, read_out) > width or 0 < unit < width / _COUNTS:
        raise InputError(
            f"noise of {name} {unit:g} and deviation {read_out:g} is not that of an image whose values span {width:g}",
            "give both in the image's own units, or leave them out",
        )
    below = float((image < zero - 6 * read_out - unit).mean())
    if below > 1e-4:
        raise InputError(
            f"{100 * below:.3g} % of the pixels lie far below {zero:g}, which {_NAMES[name]} cannot",
            "take --noise gaussian or auto, or subtract the image's offset first",
        )
    return stabiliser


def _correlation(image: NDArray[Any], forced: bool) -> NoiseCorrelation | None:
    """The widest correlation that strong noise has at any scale, as one of the image's pixels."""
    width = _width(image)
    found = []
    for apart, limits in _LIMITS.items():
        picture = image[..., ::apart, ::apart]
        if apart > 1 and min(picture.shape[-2:]) < _SMALLEST:
            break
        here = noise_correlation(picture, _LOOKED_AT)
        rows, columns = here.smoothing
        if any(here.strength > least and (forced or here.sigma > share * width) for least, share in limits):
            found.append(NoiseCorrelation((apart * rows, apart * columns), here.sigma))
    # Noise shows with all its strength from the scale of its smoothing on, so what is much less is not the noise.
    strongest = max((noise.sigma for noise in found), default=0.0)
    return next((noise for noise in reversed(found) if noise.sigma >= strongest / 4), None)


def _steps(correlation: NoiseCorrelation) -> tuple[int, int]:
    """The smallest steps at which pixels are next to independent."""

    def along(rows: int, columns: int) -> int:
        return next((n for n in _STEPS if correlation.at(n * rows, n * columns) < _INDEPENDENT), _STEPS[-1])

    return along(1, 0), along(0, 1)


def _words(steps: tuple[int, int]) -> str:
    ordinal = {1: "single", 2: "second", 4: "fourth", 8: "eighth"}
    rows, columns = (ordinal[step] for step in steps)
    return rows if rows == columns else f"{rows} (rows) and {columns} (columns)"


def split_phases(image: Tensor, steps: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) to (B * r * c, 1, H / r, W / c): a picture of each r-th row and c-th column from every start."""
    rows, columns = steps
    batch, _, height, width = image.shape
    parts = image.reshape(batch, height // rows, rows, width // columns, columns)
    return parts.permute(0, 2, 4, 1, 3).reshape(-1, 1, height // rows, width // columns)


def join_phases(phases: Tensor, steps: tuple[int, int]) -> Tensor:
    """The inverse of `split_phases`."""
    rows, columns = steps
    height, width = phases.shape[-2:]
    parts = phases.reshape(-1, rows, columns, height, width).permute(0, 3, 1, 4, 2)
    return parts.reshape(-1, 1, height * rows, width * columns)
