"""The filters behind the baselines, each a function of an image (H, W), its sigma, and its own parameters."""

from __future__ import annotations

import itertools
import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["REVISION", "Image", "bilateral", "bm3d", "gaussian", "median", "nlm", "tv", "wavelet"]

Image: TypeAlias = NDArray[np.float32]

# Part of the tuning cache's key: raise it with every change to a filter below.
REVISION = 1

# Noise below this is lost in float32 on [0, 1], and the filters would divide by its square.
_NO_NOISE = 1e-6


def median(image: Image, sigma: float, *, size: int) -> Image:
    filtered: Image = ndimage.median_filter(image, size)
    return filtered


def gaussian(image: Image, sigma: float, *, std: float) -> Image:
    filtered: Image = ndimage.gaussian_filter(image, std)
    return filtered


def bilateral(image: Image, sigma: float, *, color: float | None, spatial: float) -> Image:
    """Tomasi and Manduchi, ICCV 1998; window, truncation and defaults as in scikit-image's ``denoise_bilateral``.

    Not that function itself: up to version 0.26 at least it reads its table of spatial weights, which has
    ``(win_size + 1)**2`` entries, as one of ``win_size**2``, so the kernel comes out scrambled and off-centre; it
    widens the range kernel of images with negative values; and it quantises the range.
    """
    if color is not None and sigma < _NO_NOISE:
        return image
    range_std = float(image.std()) if color is None else color * sigma
    radius = max(2, math.ceil(3 * spatial))
    padded = np.pad(image, radius, mode="symmetric")
    height, width = image.shape
    total, weights = np.zeros_like(image), np.zeros_like(image)
    for row, column in itertools.product(range(2 * radius + 1), repeat=2):
        neighbour = padded[row : row + height, column : column + width]
        distance = ((row - radius) ** 2 + (column - radius) ** 2) / spatial**2
        weight = (neighbour - image) / np.float32(range_std)
        weight *= weight
        weight += np.float32(distance)
        weight *= np.float32(-0.5)
        np.exp(weight, out=weight)
        weights += weight
        weight *= neighbour
        total += weight
    filtered: Image = total / weights
    return filtered


def wavelet(image: Image, sigma: float, *, wavelet: str, levels: int | None, mode: str) -> Image:
    """BayesShrink: Chang, Yu and Vetterli, IEEE Transactions on Image Processing 9(9), 2000.

    Equal to scikit-image's ``denoise_wavelet`` with sigma given, without its warning that more `levels` than the
    size allows make the borders matter (which does not keep them from being the best).
    """
    import pywt

    if sigma < _NO_NOISE:
        return image
    if levels is None:
        levels = max(pywt.dwtn_max_level(image.shape, wavelet) - 3, 1)
    approximation, details = image, []
    for _ in range(levels):
        shape = approximation.shape
        bands = pywt.dwtn(approximation, wavelet)
        approximation = bands.pop("aa")
        details.append((shape, {key: _bayes_shrink(band, sigma, mode) for key, band in bands.items()}))
    for (height, width), bands in reversed(details):
        approximation = pywt.idwtn({"aa": approximation, **bands}, wavelet)[:height, :width]
    return approximation


def _bayes_shrink(band: Image, sigma: float, mode: str) -> Image:
    import pywt

    signal_variance = float(np.mean(np.square(band, dtype=np.float64))) - sigma**2
    if signal_variance <= 0:
        return np.zeros_like(band)
    shrunk: Image = pywt.threshold(band, sigma**2 / math.sqrt(signal_variance), mode)
    return shrunk


def tv(image: Image, sigma: float, *, weight: float | None, eps: float) -> Image:
    """Rudin, Osher and Fatemi's model by Chambolle's algorithm, J. Math. Imaging Vision 20, 2004."""
    from skimage.restoration import denoise_tv_chambolle

    if weight is not None and sigma < _NO_NOISE:
        return image
    strength = 0.1 if weight is None else weight * sigma
    filtered: Image = denoise_tv_chambolle(image, weight=strength, eps=eps)  # type: ignore[no-untyped-call]
    return filtered


def nlm(image: Image, sigma: float, *, patch_size: int, patch_distance: int, h: float | None) -> Image:
    """Non-local means: Buades, Coll and Morel, CVPR 2005, with the noise variance taken off the distances."""
    from skimage.restoration import denoise_nl_means

    if h is not None and sigma < _NO_NOISE:
        return image
    strength = {} if h is None else {"h": h * sigma, "sigma": sigma}
    filtered: Image = denoise_nl_means(image, patch_size, patch_distance, fast_mode=True, **strength)
    return filtered.reshape(image.shape)  # it drops axes of length 1


def bm3d(image: Image, sigma: float, *, factor: float) -> Image:
    """Dabov, Foi, Katkovnik and Egiazarian, IEEE Transactions on Image Processing 16(8), 2007; the authors' code."""
    import bm3d

    if sigma < _NO_NOISE:
        return image
    # bm3d 4.0.3 crashes the interpreter on 8x8 pixels and refuses fewer than 8 in a row.
    missing = [max(0, 16 - size) for size in image.shape]
    padded = np.pad(image, [(0, count) for count in missing], mode="symmetric")
    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # with more of them the last digits differ from run to run
    filtered: Image = bm3d.bm3d(padded, sigma_psd=factor * sigma, profile=profile)
    return filtered[: image.shape[0], : image.shape[1]]
