"""How figures look: one colour, marker and line for a method in all of them, and the bytes of a figure."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.methods import NOISY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Style", "as_png", "logarithmic", "look", "new_figure", "styles"]

WIDTH, DPI = 7.2, 150  # inches: the text of an A4 page
_SETTINGS = {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7.5, "axes.spines.top": False,
             "axes.spines.right": False, "text.parse_math": False}  # fmt: skip

# Okabe and Ito's colours, which the colour-blind tell apart; markers and lines part them in grey.
_LOOKS = (
    ("#d55e00", "o", "-"),
    ("#0072b2", "s", "--"),
    ("#009e73", "^", "-."),
    ("#cc79a7", "D", (0, (3, 1, 1, 1, 1, 1))),
    ("#e69f00", "v", (0, (5, 1))),
    ("#56b4e9", "P", (0, (1, 1))),
    ("#000000", "X", (0, (4, 2, 1, 2))),
    ("#806000", "<", (0, (2, 2))),
    ("#7f3fbf", ">", (0, (6, 2, 2, 2))),
)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Style:
    """A method's colour, marker and line, as matplotlib takes them."""

    color: str
    marker: str
    linestyle: Any
    linewidth: float = 1.2
    zorder: float = 2


def styles(methods: Sequence[str], ours: str) -> dict[str, Style]:
    """Ours in vermilion, the noisy input in grey, the others in the order of the tables."""
    found = {ours: Style(*_LOOKS[0], linewidth=2.0, zorder=4)}
    others = [name for name in methods if name not in (ours, NOISY)]
    for place, name in enumerate(others):
        found[name] = Style(*_LOOKS[1 + place % (len(_LOOKS) - 1)])
    if NOISY in methods and ours != NOISY:
        found[NOISY] = Style("#777777", "x", ":", zorder=1)
    return {name: found[name] for name in methods}


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure without pyplot, which would keep it, and its axes (rows, columns); `height` of a row in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.45 + height * rows), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.grid(alpha=0.3, linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def logarithmic(axis: Axes) -> None:
    """Make the vertical axis logarithmic; matplotlib's own labels of powers are mathtext, which `look` turns off."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(_power))
    axis.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))  # speaks where there are few powers


def _power(value: float, _: object) -> str:
    """As a plain number where that is short, else as a power of ten."""
    exponent = round(math.log10(value))
    return f"{value:g}" if -3 <= exponent <= 4 else f"10{str(exponent).translate(_RAISED)}"


@contextmanager
def look() -> Iterator[None]:
    """All figures are drawn within this, whatever settings of matplotlib the user has."""
    from matplotlib import style

    with style.context(["default", _SETTINGS]):
        yield


def as_png(figure: Figure) -> bytes:
    """The bytes of a figure: the same for the same figure, of few colours, so small."""
    from PIL import Image

    canvas = figure.canvas
    canvas.draw()  # savefig would draw everything twice
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
    packed = io.BytesIO()
    # Of a rare colour, the usual ways of choosing 256 would make grey.
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        packed, "png", optimize=True, dpi=(DPI, DPI)
    )
    return packed.getvalue()
