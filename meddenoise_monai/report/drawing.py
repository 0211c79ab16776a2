"""What all figures of a comparison share: a drawn figure with its words, legends, points with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .findings import Content
from .styles import Style, as_png

__all__ = ["Drawn", "finish", "forest", "levels_axis", "names_of", "points", "slug", "style_of"]

LONGEST = 100  # letters of a name


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes
    ----------
    name
        Of its file, without ``.png``.
    topic
        Under which heading it stands.
    caption
        What it shows, with units.
    alt
        For somebody who cannot see it.
    png
        The bytes of the file.
    """

    name: str
    topic: str
    caption: str
    alt: str
    png: bytes


def names_of(results: Content) -> tuple[list[str], str]:
    """All methods in the order of the tables, and which is ours."""
    return list(results["methods"]), results["conditions"][0]["ours"]


def style_of(results: Content) -> dict[str, Style]:
    """The look of each method."""
    from .styles import styles

    return styles(*names_of(results))


def slug(*words: str) -> str:
    """Words as a file's name, of small letters, digits and hyphens."""
    text = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in "_".join(words).lower())
    name = "-".join(part for part in text.split("-") if part) or "data"
    if len(name) > LONGEST:  # names of files are limited, and have to differ
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def points(axis: Any, x: Sequence[float], values: Sequence[Content | None], style: Style, label: str) -> None:
    """A line through means with their intervals; what is not known is left out."""
    known = [(place, value) for place, value in zip(x, values, strict=True) if value is not None]
    if not known:
        return
    means = [value["mean"] for _, value in known]
    ends = [value.get("ci95") or (value["mean"], value["mean"]) for _, value in known]
    bars = [
        [max(0.0, mean - low) for mean, (low, _) in zip(means, ends, strict=True)],
        [max(0.0, high - mean) for mean, (_, high) in zip(means, ends, strict=True)],
    ]
    axis.errorbar([place for place, _ in known], means, bars, color=style.color, marker=style.marker, markersize=4.5,
                  linestyle=style.linestyle, linewidth=style.linewidth, zorder=style.zorder, elinewidth=0.9,
                  capsize=2, label=label)  # fmt: skip


def forest(
    axis: Any, values: Mapping[str, Content | None], looks: Mapping[str, Style], factor: float = 1.0, names: bool = True
) -> None:
    """One row for each method, the first on top: its mean and interval."""
    rows = list(values)
    for row, name in enumerate(rows):
        value = values[name]
        if value is None:
            axis.annotate("too few", (0.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=7)
            continue
        mean = factor * value["mean"]
        low, high = (factor * end for end in value.get("ci95") or (value["mean"], value["mean"]))
        style = looks[name]
        axis.errorbar([mean], [row], xerr=[[max(0.0, mean - low)], [max(0.0, high - mean)]], color=style.color,
                      marker=style.marker, markersize=5, elinewidth=1.2, capsize=2.5, linestyle="none")  # fmt: skip
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_yticks(range(len(rows)), rows if names else [""] * len(rows))


def levels_axis(axis: Any, levels: Sequence[float]) -> None:
    """Noise levels as equally wide steps."""
    axis.set_xticks(range(len(levels)), [f"{level:g}" if level else "as acquired" for level in levels])
    axis.set_xlim(-0.5, len(levels) - 0.5)
    axis.set_xlabel("noise level [1/255]" if any(levels) else "")


def finish(figure: Any, axes: Any, name: str, topic: str, caption: str, alt: str, legend: bool = True) -> Drawn:
    """The figure with one legend below all panels, as bytes."""
    if legend:
        handles, labels = axes.flat[0].get_legend_handles_labels()
        for axis in axes.flat[1:]:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                if label not in labels:
                    handles, labels = [*handles, handle], [*labels, label]
        if labels:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
    return Drawn(name, topic, caption, alt, as_png(figure))
