"""What is measured of one method on one subject: each function denoises, and answers with plain numbers.

All take the method first, then what makes the subject, and draw the noise themselves, so that a task is a handful of
small arrays. Images are float32 on the [0, 1] scale. Noise is a function of image, condition, seed and realisation.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..baselines import tune
from ..comparisons import split_error
from ..errors import InputError
from ..hallucination import hallucinations, ring_correlation
from ..lesions import insert_lesions, lesion_detection
from ..metrics import MS_SSIM_SIDE, score
from ..observers import channel_outputs, difference_of_gaussians, laguerre_gauss, lesion_contrast, microcalcifications
from ..phantoms import disc, disc_grid
from ..physics import (
    autocorrelation,
    circular_edge_mtf,
    contrast_recovery,
    contrast_to_noise,
    noise_power,
    structure_in_residual,
)
from .conditions import Condition
from .methods import Blind, Denoise

__all__ = ["MEASURES", "REVISION", "as_image"]

REVISION = 2  # of what the measures mean: a cached number of another revision is not used

Image = NDArray[np.float32]
Values = dict[str, Any]

FLOOR = 2 / 255  # patches of an output with less structure than that, root mean square, have none to be invented
ASKED = 0.9  # of the pixels, within the half-width of the uncertainty
CELL = 64  # pixels around each inserted signal
DPRIME = 3.0  # of an ideal observer of an inserted signal in white noise of the condition's level and nothing else
FATE = ("kept_contrast", "removed", "invented", "true_positive_rate")
DISC_RADIUS, DOTS, DOT_SIGMA, CLUSTER_RADIUS = 4.0, 6, 1.0, 8.0  # pixels
FREQUENCIES = np.linspace(0, 0.5, 26)  # cycles/pixel, at which the MTF is kept
DETAIL_CONTRASTS, DETAIL_DIAMETERS = (0.25, 0.5, 1.0, 2.0), (4, 8, 16)  # of the noise; pixels
PHANTOM_SIDE, PHANTOM_DIAMETER, PHANTOM_BACKGROUND = 128, 71.3, 0.4


def fidelity(
    denoise: Denoise, clean: Image, noisy: Image | None, condition: Condition, seed: int, keep: bool = False
) -> Values:
    """How like the result is to the clean image, what was removed, and what was invented; `keep` adds the picture, and
    the map of what the reference lacks (`Hallucinations.index`)."""
    before = condition.draw(clean, seed) if noisy is None else noisy
    sigma = _sigma(before, clean)
    started = time.perf_counter()
    result = denoise(before, sigma)
    seconds = time.perf_counter() - started
    large = min(clean.shape) >= MS_SSIM_SIDE
    found: Values = {"ms_ssim": None, **score(clean, result, data_range=1.0, multi_scale=large)}
    found |= _removed(before - result, clean)
    invented = hallucinations(result, clean, floor=FLOOR)
    found["hallucination_rate"] = invented.rate()
    found["agreement_cutoff"] = ring_correlation(result, clean).cutoff()
    found["sigma"] = sigma
    found["seconds_per_megapixel"] = seconds / clean.size * 1e6
    if keep:
        found["picture"] = _as_text(result)
        found["hallucination_map"] = invented.index.round(4)
    return found


def repeats(
    denoise: Denoise, clean: Image, acquired: Sequence[Image], condition: Condition, seed: int, count: int
) -> Values:
    """Bias and variance over draws of the noise, and the power spectrum of the noise that is left."""
    before = list(acquired) or [condition.draw(clean, seed, number) for number in range(count)]
    stack = np.stack([denoise(noisy, _sigma(noisy, clean)) for noisy in before])
    split = split_error(stack, clean)
    return {"mse": split.mse, "bias2": split.bias2, "variance": split.variance, **_spectrum(stack)}


def uniform(denoise: Denoise, condition: Condition, seed: int, count: int) -> Values:
    """The power spectrum of the noise that is left in a uniform field."""
    field = np.full((PHANTOM_SIDE, PHANTOM_SIDE), 0.5, np.float32)
    before = [condition.draw(field, seed, number) for number in range(count)]
    return _spectrum(np.stack([denoise(noisy, _sigma(noisy, field)) for noisy in before]))


def edge(denoise: Denoise, condition: Condition, seed: int, count: int, contrast: float) -> Values:
    """A disc's edge (task transfer function), its contrast, and its contrast-to-noise ratio."""
    shape = (PHANTOM_SIDE, PHANTOM_SIDE)
    picture, truth = disc(shape, PHANTOM_DIAMETER, contrast, PHANTOM_BACKGROUND, (63.3, 63.7))
    clean = picture.astype(np.float32)
    before = [condition.draw(clean, seed, number) for number in range(count)]
    stack = np.stack([denoise(noisy, _sigma(noisy, clean)) for noisy in before])
    inside, around = truth.inside(shape, 3.0), truth.around(shape, 3.0, 15.0)
    found: Values = {
        "recovery": contrast_recovery(stack, inside, around, _difference(clean, inside, around)),
        "cnr": contrast_to_noise(stack, inside, around),
    }
    try:
        transfer = circular_edge_mtf(stack, (truth.row, truth.column), truth.radius, 1)
        mtf = np.interp(FREQUENCIES, transfer.frequencies, transfer.mtf)
        found |= {"f50": transfer.f50, "mtf": mtf}
    except InputError:  # nothing is left that rises: the edge is lost in the noise
        found |= {"f50": None, "mtf": None}
    return found


def details(denoise: Denoise, condition: Condition, seed: int, count: int) -> Values:
    """The share of contrast that discs keep, by their contrast in units of the noise and by their diameter in pixels.

    A contrast-detail phantom, denoised with its discs and without, in the same noise: the difference of the two results
    within a disc less that around it.
    """
    contrasts = [min(factor * condition.sigma, 1 - PHANTOM_BACKGROUND) for factor in DETAIL_CONTRASTS]
    picture, discs = disc_grid(contrasts, DETAIL_DIAMETERS, PHANTOM_BACKGROUND, 32)
    empty = np.full(picture.shape, PHANTOM_BACKGROUND, np.float32)
    change = np.zeros(picture.shape)
    for number in range(count):
        noise = condition.draw(empty, seed, number) - empty
        sigma = _sigma(noise, np.zeros_like(noise))
        shown, hidden = (denoise((image + noise).astype(np.float32), sigma) for image in (picture, empty))
        change += (shown.astype(np.float64) - hidden) / count
    kept = []
    for truth in discs:
        inside, around = truth.inside(picture.shape, 0.0), truth.around(picture.shape, 1.0, 4.0)
        kept.append(_difference(change, inside, around) / _difference(picture, inside, around))
    return {"kept": np.reshape(kept, (len(DETAIL_CONTRASTS), len(DETAIL_DIAMETERS)))}


def signals(denoise: Denoise, clean: Image, condition: Condition, seed: int) -> Values:
    """What channels of observers answer to discs and clusters of microcalcifications, and to the same places without.

    The image is cut into cells, with a disc in every other one and a cluster in the rest, and denoised twice: with the
    signals and without, in the same noise. Also whether discs are kept, removed or invented.
    """
    pictures = _signals(condition.sigma)
    cells = [(row, column) for row in range(clean.shape[0] // CELL) for column in range(clean.shape[1] // CELL)]
    places = {
        "disc": [cell for cell in cells if sum(cell) % 2 == 0],
        "cluster": [cell for cell in cells if sum(cell) % 2 == 1],
    }
    middles = {
        kind: [(row * CELL + CELL // 2, column * CELL + CELL // 2) for row, column in places[kind]] for kind in places
    }
    absent = condition.draw(clean, seed)
    present = absent.astype(np.float64)
    for kind, picture in pictures.items():
        present = insert_lesions(present, picture, middles[kind])
    sigma = _sigma(absent, clean)
    outputs = {
        state: denoise(noisy.astype(np.float32), sigma) for state, noisy in (("present", present), ("absent", absent))
    }
    found: Values = {}
    for kind, chosen in places.items():
        for name, channels in _channels().items():
            for state, image in outputs.items():
                patches = [image[r * CELL : (r + 1) * CELL, c * CELL : (c + 1) * CELL] for r, c in chosen]
                found[f"{kind}/{name}/{state}"] = channel_outputs(np.stack(patches), channels)
    fate = lesion_detection(clean, pictures["disc"], middles["disc"], outputs["present"], outputs["absent"])
    found["fate"] = {name: getattr(fate, name) for name in FATE}
    return found


def observed(denoise: Denoise, clean: Image, condition: Condition, seed: int, keep: bool = False) -> Values:
    """`fidelity` and `signals` of one image in the same noise, which is denoised without the signals only once."""
    answers: dict[bytes, Image] = {}

    def once(noisy: Image, sigma: float) -> Image:
        key = noisy.tobytes()
        if key not in answers:
            answers[key] = denoise(noisy, sigma)
        return answers[key]

    return {
        "fidelity": fidelity(once, clean, None, condition, seed, keep),
        "signals": signals(once, clean, condition, seed),
    }


def annotated(
    denoise: Denoise, clean: Image, places: Sequence[tuple[float, float, float]], condition: Condition, seed: int
) -> Values:
    """The contrast of annotated lesions in the clean image, and in the result."""
    before = condition.draw(clean, seed)
    result = denoise(before, _sigma(before, clean))
    return {"clean": lesion_contrast(clean, places), "result": lesion_contrast(result, places)}


def coverage(denoise: Blind, clean: Image, noisy: Image | None, condition: Condition, seed: int) -> Values:
    """The share of pixels whose error is within the half-width that was to hold `ASKED` of them, and its mean."""
    before = condition.draw(clean, seed) if noisy is None else noisy
    result, half_width = denoise.denoiser.with_uncertainty(before, coverage=ASKED)
    within = np.abs(result.astype(np.float64) - clean) <= half_width
    return {"coverage": float(within.mean()), "half_width": float(half_width.mean(dtype=np.float64))}


def tuning(denoise: Denoise, name: str, pairs: Sequence[tuple[Image, Image]], grid: str) -> Values:
    """The parameters of the baseline `name` with the best mean PSNR on pairs (clean, noisy); `grid` says what is tried.

    The method itself is not asked: it stands for the baseline and its packages.
    """
    found = tune(name, pairs, [_sigma(noisy, clean) for clean, noisy in pairs], "psnr")
    return {
        "images": len(pairs),
        "side": int(pairs[0][0].shape[0]),
        "parameters": dict(found.parameters),
        "psnr": found.score,
        "default_psnr": found.default_score,
        "on_grid_edge": list(found.on_grid_edge),
    }


MEASURES: dict[str, Callable[..., Values]] = {
    measure.__name__: measure
    for measure in (fidelity, repeats, uniform, edge, details, signals, observed, annotated, coverage, tuning)
}


def as_image(text: str, shape: Sequence[int]) -> Image:
    """The inverse of what `fidelity` answers as ``picture``: (H, W), to 11 bits."""
    return np.frombuffer(base64.b64decode(text), "<f2").reshape(tuple(shape)).astype(np.float32)


def _as_text(image: Image) -> str:
    return base64.b64encode(image.astype("<f2").tobytes()).decode()


def _sigma(noisy: Image, clean: Image) -> float:
    return float(np.std(noisy.astype(np.float64) - clean))


def _removed(residual: Image, clean: Image) -> Values:
    if not np.ptp(residual):
        return {"residual_values": None, "residual_edges": None, "residual_correlation": None}
    structure = structure_in_residual(residual, clean)
    neighbours = autocorrelation(residual, 1)
    return {
        "residual_values": structure.values,
        "residual_edges": structure.edges,
        "residual_correlation": float((neighbours[1, 2] + neighbours[2, 1]) / 2),
    }


def _spectrum(stack: ArrayLike) -> Values:
    images = np.asarray(stack)
    power = noise_power(images, min(64, *images.shape[1:]))
    return {
        "frequencies": power.frequencies,
        "radial": power.radial,
        "noise_variance": power.variance,
        "peak_frequency": power.peak_frequency,
        "mean_frequency": None if np.isnan(power.mean_frequency) else power.mean_frequency,
    }


def _difference(image: NDArray[Any], inside: NDArray[np.bool_], around: NDArray[np.bool_]) -> float:
    return float(image[inside].mean(dtype=np.float64) - image[around].mean(dtype=np.float64))


def _signals(sigma: float) -> dict[str, NDArray[np.float64]]:
    """A disc and a cluster, each of the contrast that gives the ideal observer `DPRIME` in white noise."""
    shape = (CELL // 2 + 1, CELL // 2 + 1)
    middle = (CELL // 4, CELL // 4)
    shown = {
        "disc": disc(shape, 2 * DISC_RADIUS, 1.0, 0.0, middle)[0],
        "cluster": microcalcifications(shape, DOTS, CLUSTER_RADIUS, DOT_SIGMA, 1.0, seed=0, centre=middle),
    }
    return {kind: DPRIME * sigma / np.sqrt((picture**2).sum()) * picture for kind, picture in shown.items()}


def _channels() -> dict[str, NDArray[np.float64]]:
    shape, middle = (CELL, CELL), (CELL // 2, CELL // 2)
    return {
        "laguerre_gauss": laguerre_gauss(shape, 14.0, 5, middle),
        "difference_of_gaussians": difference_of_gaussians(shape, "sparse", middle),
    }
