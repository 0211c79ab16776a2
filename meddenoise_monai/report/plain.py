"""The report as Markdown that also reads well in a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .answer import Point, answer
from .findings import Content
from .tables import Table, fidelity_tables, make_tables

__all__ = ["answer_as_markdown", "as_markdown", "in_short"]

_ANGLE = re.compile(r"<(?=[A-Za-z/!?])")  # in a name of the data it would open a tag of HTML


def answer_as_markdown(results: Content) -> str:
    """What the comparison says of ours: where it is worse first, then where better, then where nothing is shown."""
    found = answer(results)
    parts = [f"**{found.headline}**" + (f" {found.caveat}" if found.caveat else "")]
    parts += [f"{title}:\n\n{_listed(points)}" for title, points in found.worse]
    if found.better:
        parts.append(f"Better, and shown to be:\n\n{_listed(found.better)}")
    if found.undecided:
        parts.append(f'No difference shown, which is not "equal":\n\n{_listed(found.undecided)}')
    return "\n\n".join(parts)


def _listed(points: tuple[Point, ...]) -> str:
    return "\n".join(f"- {point.measure}: {point.words}." for point in points)


def as_markdown(results: Content) -> str:
    """The answer, then all tables: by topic, under headings that a link can name, the caption above each."""
    return _with_tables(results, make_tables(results))


def in_short(results: Content) -> str:
    """What fits a terminal: the answer, and the tables of how like the clean image the results are."""
    return _with_tables(results, fidelity_tables(results))


def _with_tables(results: Content, tables: Iterable[Table]) -> str:
    parts = [f"{answer_as_markdown(results)}\n"]
    topic = ""
    for table in tables:
        if table.topic != topic:
            topic = table.topic
            parts.append(f"## {topic}\n")
        parts.append(f"### {table.title}\n\n{table.caption}\n\n{_markdown_table(table.rows)}\n")
    return _ANGLE.sub(r"\\<", "\n".join(parts))


def _markdown_table(rows: tuple[tuple[str, ...], ...]) -> str:
    """Columns padded to one width; a bar in a cell is escaped."""
    rows = tuple(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
