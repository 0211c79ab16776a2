"""Figures of where results have structure that the clean image lacks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .drawing import Drawn, names_of, slug
from .findings import Content
from .naming import condition_title
from .styles import as_png, new_figure

__all__ = ["invented_maps"]

COLUMNS = 5


def invented_maps(results: Content) -> Iterator[Drawn]:
    """For each data set a figure with a map for each method, of the first scene that is shown."""
    names, _ = names_of(results)
    seen: set[tuple[str, str]] = set()
    for entry in results["hallucination_maps"]:
        if (entry["data"], entry["noise"]) in seen:
            continue
        seen.add((entry["data"], entry["noise"]))
        rows = -(-len(names) // COLUMNS)
        figure, axes = new_figure(rows, COLUMNS, 1.5)
        for axis in axes.flat:
            axis.set_visible(False)
        for axis, name in zip(axes.flat, names, strict=False):
            axis.set_visible(True)
            axis.grid(False)
            index = np.asarray(entry["methods"][name])
            # Black on white: the more of it is invented, the darker, also in print.
            shown = axis.imshow(index, vmin=0, vmax=1, cmap="Greys", interpolation="nearest")
            axis.set(title=f"{name}: {100 * (index > 0.5).mean():.0f} %", xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes, shrink=0.7, label="share not in the clean image")
        caption = (
            f"{condition_title(entry)}, one window: for each patch of 32 × 32 pixels the share of the result's "
            "structure that the clean image does not explain; above each map, the patches where that is more than "
            "half. The noisy image shows what noise alone does."
        )
        alt = "Maps of invented structure, one for each method; the rates are in the tables."
        name = slug("maps", entry["data"], entry["noise"])
        yield Drawn(name, "What was removed, what was invented", caption, alt, as_png(figure))
