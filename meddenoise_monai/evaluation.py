"""Cases x methods -> one tidy table: which denoiser does how well on which image.

A case is a clean image and its noisy version; a method is any callable ``(noisy, sigma) -> denoised``. `evaluate`
scores every method on every case, `summarise` takes means, `as_markdown` prints them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .images import replace_whole
from .metrics import score

__all__ = ["Case", "Score", "as_columns", "as_markdown", "evaluate", "summarise", "write_scores"]

Method = Callable[[NDArray[np.float32], float], NDArray[np.float32]]


@dataclass(frozen=True)
class Case:
    """A noisy image (H, W) or (D, H, W) and the clean one behind it, on the [0, 1] scale.

    `name` says nothing of a patient and may be sent anywhere; `file` is for files on this machine alone.
    """

    name: str
    clean: NDArray[np.float32]
    noisy: NDArray[np.float32]
    file: str = ""

    @property
    def sigma(self) -> float:
        """The true noise level: the standard deviation of noisy minus clean. Methods that ask for one are given it."""
        return float(np.std(self.noisy.astype(np.float64) - self.clean))


@dataclass(frozen=True)
class Score:
    """One method on one case; SSIM by Wang et al. 2004 and as MATLAB computes it, PSNR in dB, RMSE on [0, 1]."""

    case: str
    method: str
    ssim: float
    ssim_matlab: float
    psnr: float
    rmse: float
    file: str = ""


METRICS = ("ssim", "ssim_matlab", "psnr", "rmse")


def evaluate(
    cases: Iterable[Case], methods: Mapping[str, Method], progress: Callable[[str], None] | None = None
) -> list[Score]:
    """Score every method on every case, and the untouched input as ``"noisy"``.

    Parameters
    ----------
    cases
        Are read once.
    methods
        By the name the table shows; each takes the noisy image and its true noise level, and returns an image.
    progress
        Is told the case's name after each case.
    """
    scores = []
    for case in cases:
        for name, method in {"noisy": lambda noisy, sigma: noisy, **methods}.items():
            values = score(case.clean, method(case.noisy, case.sigma), data_range=1.0)
            means = {metric: float(values[metric]) for metric in METRICS}
            scores.append(Score(case.name, name, **means, file=case.file))
        if progress is not None:
            progress(case.name)
    return scores


def summarise(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """The mean of each metric over the cases, by method, in the order in which the methods were run."""
    methods = dict.fromkeys(entry.method for entry in scores)
    return {
        method: {
            metric: float(np.mean([getattr(entry, metric) for entry in scores if entry.method == method]))
            for metric in METRICS
        }
        for method in methods
    }


def as_columns(summary: Mapping[str, Mapping[str, float]]) -> dict[str, list[Any]]:
    """The summary as columns, for a table in MLflow."""
    return {
        "method": list(summary),
        **{metric: [round(row[metric], 4) for row in summary.values()] for metric in METRICS},
    }


def as_markdown(
    summary: Mapping[str, Mapping[str, float]], notes: Mapping[str, str] | None = None, metrics: Sequence[str] = METRICS
) -> str:
    """The summary as a Markdown table that also reads well in a terminal.

    Parameters
    ----------
    summary
        From `summarise`.
    notes
        What stands in the last column, by method, such as a baseline's parameters.
    metrics
        The columns.
    """
    heads = {"ssim": "SSIM", "ssim_matlab": "SSIM (MATLAB)", "psnr": "PSNR [dB]", "rmse": "RMSE"}
    digits = {"psnr": 2}
    rows = [["method", *(heads[metric] for metric in metrics), *(["parameters"] if notes else [])]]
    for method, values in summary.items():
        cells = [f"{values[metric]:.{digits.get(metric, 4)}f}" for metric in metrics]
        rows.append([method, *cells, *([notes.get(method, "")] if notes else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_scores(folder: Path, scores: Sequence[Score], protocol: Mapping[str, Any]) -> None:
    """Write ``per_image.csv``, ``results.json`` and ``table.md`` into `folder`, each whole or not at all.

    ``case_files.csv`` beside them says which file each case is. File names can name patients: it alone holds them, so
    that the others can be passed on.
    """
    summary = summarise(scores)
    with replace_whole(folder / "per_image.csv") as path, path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["case", "method", *METRICS])
        writer.writeheader()
        writer.writerows({name: getattr(entry, name) for name in writer.fieldnames} for entry in scores)
    files = {entry.case: entry.file for entry in scores if entry.file}
    if files:
        with replace_whole(folder / "case_files.csv") as path, path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("case", "file"), *files.items()])
    content = {
        "protocol": dict(protocol),
        "methods": {
            method: {metric: {"mean": values[metric]} for metric in METRICS} for method, values in summary.items()
        },
    }
    with replace_whole(folder / "results.json") as path:
        path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    with replace_whole(folder / "table.md") as path:
        path.write_text(as_markdown(summary) + "\n", encoding="utf-8")
