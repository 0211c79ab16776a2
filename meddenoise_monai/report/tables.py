"""The tables of a comparison, as Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_markdown", "condition_table"]

_SHOWN = (("psnr", "PSNR [dB]", 2), ("ssim", "SSIM", 4), ("ms_ssim", "MS-SSIM", 4), ("rmse", "RMSE", 4))


def as_markdown(results: Mapping[str, Any]) -> str:
    """All tables of ``results.json``, a heading above each."""
    parts = []
    for condition in results["conditions"]:
        level = f" {condition['level']:g}/255" if condition["level"] else ""
        parts.append(
            f"## {condition['data']}, {condition['noise']}{level}\n\n"
            f"{condition['images']} images of {condition['patients']} patients; means with 95 % bootstrap intervals "
            f"over patients.\n\n{markdown_table(condition_table(condition))}\n"
        )
    return "\n".join(parts)


def condition_table(condition: Mapping[str, Any]) -> list[list[str]]:
    """A row for each method: its means with intervals, and what ours is beside it. The first row holds the titles."""
    words = {(v["other"], v["metric"]): v for v in condition["verdicts"]}
    ours = condition["ours"]
    shown = [(key, title, digits) for key, title, digits in _SHOWN if condition["methods"][ours][key] is not None]
    rows = [["method", *(title for _, title, _ in shown), f"{ours} against it: PSNR [dB]", "SSIM"]]
    for method, values in condition["methods"].items():
        cells = [_with_interval(values[key]["mean"], values[key]["ci95"], digits) for key, _, digits in shown]
        for metric, digits in (("psnr", 2), ("ssim", 4)):
            found = words.get((method, metric))
            cells.append("" if found is None else f"{found['difference']:+.{digits}f}, {found['word']}")
        rows.append([method, *cells])
    return rows


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _with_interval(mean: float, interval: Sequence[float] | None, digits: int) -> str:
    if interval is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
