"""Classical denoisers, which a network has to beat, and the tuning that makes them worth beating.

A baseline is a callable ``(image, sigma) -> image`` on the [0, 1] scale. Its parameters come from a small grid,
declared in `grids` beside the library's own defaults, and are chosen by `tune` on validation pairs for the same noise
and metric: an untuned baseline proves nothing. Strengths are factors of sigma, so that they serve other noise levels
too.
"""

from __future__ import annotations

from .classical import Baseline, ClassicalBaseline, make_baseline
from .grids import Parameter, available_baselines
from .tuning import TunedBaseline, tune, tune_all

__all__ = [
    "Baseline",
    "ClassicalBaseline",
    "Parameter",
    "TunedBaseline",
    "available_baselines",
    "make_baseline",
    "tune",
    "tune_all",
]
