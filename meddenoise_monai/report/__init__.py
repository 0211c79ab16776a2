"""Figures, tables and the printable page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.study import Outcome
from ..whole_files import replace_whole
from .tables import as_markdown

__all__ = ["write_report"]


def write_report(folder: Path, results: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write ``table.md`` into `folder`, whole or not at all."""
    with replace_whole(folder / "table.md") as path:
        path.write_text(as_markdown(results), encoding="utf-8")
