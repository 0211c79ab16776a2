"""Figures, tables and the printable page of a comparison.

`findings` (where ours is better or worse), `answer` (the same in words), `tables`, `plain` (both as Markdown),
`figures` (by subject in ``*_figures``), `panels` (pictures of the data), `protocol` and `limits` (what was done, and
what it does not show); `page` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.study import Outcome
from ..whole_files import replace_whole
from .drawing import Drawn
from .figures import KINDS, make_figures
from .page import make_page
from .panels import make_panels
from .plain import as_markdown, in_short

__all__ = ["Report", "in_short", "write_report"]


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes
    ----------
    results
        What it reports.
    figures
        Its figures, none of which shows an image of the data.
    """

    results: Mapping[str, Any]
    figures: tuple[Drawn, ...]

    def without_pictures(self) -> str:
        """The page without images of the data, for where these must not go."""
        return make_page(self.results, self.figures, None)


def write_report(
    folder: Path, results: Mapping[str, Any], outcomes: Sequence[Outcome], pictures: bool = True
) -> Report:
    """Write ``table.md``, ``figures/*.png`` and ``report.html`` into `folder`, each whole or not at all.

    Parameters
    ----------
    folder
        Figures of an earlier report that this one does not have are removed.
    results
        The content of ``results.json``.
    outcomes
        Of `evaluation.study.carry_out`, for the pictures.
    pictures
        Whether the page holds windows of the data's images; it then has to be handled as the data is.
    """
    figures = tuple(make_figures(results))
    ours = results["conditions"][0]["ours"]
    page = make_page(results, figures, make_panels(outcomes, ours) if pictures else None)
    for old in (folder / "figures").glob("*.png"):  # nothing is touched before all could be drawn
        if old.stem.startswith(KINDS) and old.stem not in {figure.name for figure in figures}:
            old.unlink()
    for figure in figures:
        with replace_whole(folder / "figures" / f"{figure.name}.png") as path:
            path.write_bytes(figure.png)
    with replace_whole(folder / "table.md") as path:
        path.write_text(as_markdown(results), encoding="utf-8")
    with replace_whole(folder / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return Report(results, figures)
