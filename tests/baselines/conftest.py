"""A small photograph, with noise and as pairs, that baselines are tested on."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from meddenoise_monai.baselines import (
    available_baselines,
)

SIGMA = 25 / 255
ALWAYS = ["median", "gaussian", "bilateral", "wavelet", "tv", "nlm"]
INSTALLED = available_baselines()
FAST = ["median", "gaussian", "bilateral", "wavelet", "tv"]

Image = NDArray[np.float32]

# Good parameters at 25/255, so that no test of a filter has to tune it.
GOOD: dict[str, dict[str, Any]] = {
    "median": {"size": 5},
    "gaussian": {"std": 1.0},
    "bilateral": {"color": 3.0, "spatial": 1.5},
    "wavelet": {"wavelet": "sym8", "levels": 3},
    "tv": {"weight": 0.8},
    "nlm": {"patch_size": 5, "patch_distance": 5, "h": 0.6},
    "bm3d": {},
}


def noisy_version(clean: Image, sigma: float = SIGMA, seed: int = 0) -> Image:
    return (clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def clean() -> Image:
    from skimage import data

    return (data.camera()[100:164, 190:254] / 255).astype(np.float32)


@pytest.fixture(scope="module")
def noisy(clean: Image) -> Image:
    return noisy_version(clean)


@pytest.fixture(scope="module")
def pairs(clean: Image) -> list[tuple[Image, Image]]:
    crops = clean[:40, :40], clean[20:60, 10:50]
    return [(crop, noisy_version(crop, seed=seed)) for seed, crop in enumerate(crops)]


@pytest.fixture
def without_bm3d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)  # what makes `import bm3d` raise ImportError
