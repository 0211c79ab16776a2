"""Cases x methods -> one tidy table: which denoiser does how well on which image.

A case is a clean image and its noisy version; a method is any callable ``(noisy, sigma) -> denoised``. `evaluate`
scores every method on every case, `summarise` takes means, `intervals` says how sure they are, `as_markdown` prints
them.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..intervals import bootstrap_interval
from ..metrics import score
from ..whole_files import replace_whole
from .statistics import verdict_entries

__all__ = ["Case", "Score", "as_columns", "as_markdown", "evaluate", "intervals", "summarise", "write_scores"]

Method = Callable[[NDArray[np.float32], float], NDArray[np.float32]]


@dataclass(frozen=True)
class Case:
    """A noisy image (H, W) or (D, H, W) and the clean one behind it, on the [0, 1] scale.

    `name` says nothing of a patient and may be sent anywhere; `file` and `patient` (the name, if there is none) are for
    files on this machine alone.
    """

    name: str
    clean: NDArray[np.float32]
    noisy: NDArray[np.float32]
    file: str = ""
    patient: str = ""

    @property
    def sigma(self) -> float:
        """The true noise level: the standard deviation of noisy minus clean. Methods that ask for one are given it."""
        return float(np.std(self.noisy.astype(np.float64) - self.clean))


@dataclass(frozen=True)
class Score:
    """One method on one case: SSIM by Wang et al. 2004 and as MATLAB computes it, PSNR in dB, RMSE on [0, 1], and the
    time it took (None: not measured)."""

    case: str
    method: str
    ssim: float
    ssim_matlab: float
    psnr: float
    rmse: float
    file: str = ""
    patient: str = ""
    seconds_per_megapixel: float | None = None


METRICS = ("ssim", "ssim_matlab", "psnr", "rmse")
JUDGED = ("ssim", "psnr")


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
            sigma = case.sigma
            started = time.perf_counter()
            result = method(case.noisy, sigma)
            seconds = time.perf_counter() - started
            values = score(case.clean, result, data_range=1.0)
            scores.append(
                Score(
                    case.name,
                    name,
                    **{metric: float(values[metric]) for metric in METRICS},
                    file=case.file,
                    patient=case.patient or case.name,
                    seconds_per_megapixel=seconds / case.noisy.size * 1e6,
                )
            )
        if progress is not None:
            progress(case.name)
    return scores


def summarise(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """The mean of each metric over the cases, by method, in the order in which the methods were run."""
    return {
        method: {metric: float(np.mean(values)) for metric, values in of_method.items()}
        for method, of_method in _by_metric(scores).items()
    }


def intervals(scores: Sequence[Score]) -> dict[str, dict[str, tuple[float, float] | None]]:
    """The 95 % bootstrap interval over patients of each mean of `summarise` (see `bootstrap_interval`)."""
    return {
        method: {metric: bootstrap_interval(values, _patients(scores, method)) for metric, values in of_method.items()}
        for method, of_method in _by_metric(scores).items()
    }


def as_columns(summary: Mapping[str, Mapping[str, float]]) -> dict[str, list[Any]]:
    """The summary as columns, for a table in MLflow."""
    return {
        "method": list(summary),
        **{metric: [round(row[metric], 4) for row in summary.values()] for metric in METRICS},
    }


def as_markdown(
    summary: Mapping[str, Mapping[str, float]],
    notes: Mapping[str, str] | None = None,
    metrics: Sequence[str] = METRICS,
    ranges: Mapping[str, Mapping[str, tuple[float, float] | None]] | None = None,
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
    ranges
        From `intervals`: stands behind each mean.
    """
    heads = {"ssim": "SSIM", "ssim_matlab": "SSIM (MATLAB)", "psnr": "PSNR [dB]", "rmse": "RMSE"}
    digits = {"psnr": 2}
    rows = [["method", *(heads[metric] for metric in metrics), *(["parameters"] if notes else [])]]
    for method, values in summary.items():
        cells = []
        for metric in metrics:
            form = f".{digits.get(metric, 4)}f"
            ends = ranges[method][metric] if ranges is not None else None
            cells.append(f"{values[metric]:{form}}" + (f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends else ""))
        rows.append([method, *cells, *([notes.get(method, "")] if notes else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _by_metric(scores: Sequence[Score]) -> dict[str, dict[str, list[float]]]:
    methods = dict.fromkeys(entry.method for entry in scores)
    return {
        method: {metric: [getattr(entry, metric) for entry in scores if entry.method == method] for metric in METRICS}
        for method in methods
    }


def _patients(scores: Sequence[Score], method: str) -> list[str]:
    return [entry.patient or entry.case for entry in scores if entry.method == method]


def write_scores(
    folder: Path,
    scores: Sequence[Score],
    protocol: Mapping[str, Any],
    parameters: Mapping[str, int] | None = None,
    ours: str | None = None,
) -> None:
    """Write ``per_image.csv``, ``results.json`` and ``table.md`` into `folder`, each whole or not at all.

    ``case_files.csv`` beside them says which file each case is. File names can name patients: it alone holds them, so
    that the others can be passed on. `parameters` are the numbers of weights of the networks among the methods. `ours`
    is the method that is compared with each other one, image by image (`comparisons.verdicts`).
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
    ranges = intervals(scores)
    methods: dict[str, dict[str, Any]] = {}
    for method, values in summary.items():
        methods[method] = {metric: {"mean": values[metric], "ci95": ranges[method][metric]} for metric in METRICS}
        times = [entry.seconds_per_megapixel for entry in scores if entry.method == method]
        measured = [seconds for seconds in times if seconds is not None]
        methods[method]["seconds_per_megapixel"] = float(np.mean(measured)) if measured else None
        if parameters and method in parameters:
            methods[method]["parameters"] = parameters[method]
    content: dict[str, Any] = {"protocol": dict(protocol), "methods": methods}
    if ours is not None:
        content["verdicts"] = verdict_entries(
            _by_metric(scores), _patients(scores, ours), ours, dict.fromkeys(JUDGED, True)
        )
    with replace_whole(folder / "results.json") as path:
        path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    with replace_whole(folder / "table.md") as path:
        path.write_text(as_markdown(summary, ranges=ranges) + "\n", encoding="utf-8")
