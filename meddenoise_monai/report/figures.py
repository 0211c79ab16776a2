"""All figures that a comparison's results have numbers for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .drawing import Drawn
from .findings import Content
from .lesion_figures import contrast_kept, observers
from .map_figures import invented_maps
from .physics_figures import contrast, noise_power, transfer
from .quality_figures import bias_and_variance, by_level
from .styles import look

__all__ = ["KINDS", "make_figures"]

# How the names of figures' files begin.
KINDS = ("quality", "invented", "maps", "bias_variance", "noise-power", "transfer", "contrast", "observers")


def make_figures(results: Content) -> list[Drawn]:
    """Each figure, topic by topic; the same results give the same bytes."""
    makers: tuple[Callable[[Content], Iterator[Drawn]], ...] = (
        by_level, invented_maps, bias_and_variance, noise_power, contrast_kept, observers, transfer, contrast,
    )  # fmt: skip
    with look():
        return [figure for make in makers for figure in make(results)]
