from __future__ import annotations

import csv
import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from meddenoise_monai.errors import InputError
from meddenoise_monai.evaluation import (
    METRICS,
    Case,
    Score,
    as_columns,
    as_markdown,
    evaluate,
    intervals,
    summarise,
    write_scores,
)

SCORES = [
    Score("a", "noisy", 0.5, 0.25, 20.0, 0.1, "/in/a, b.png"),
    Score("a", "zeta", 0.75, 0.5, 30.0, 0.05, "/in/a, b.png", seconds_per_megapixel=2.0),
    Score("b", "noisy", 0.25, 0.75, 22.0, 0.2),
    Score("b", "zeta", 1.0, 1.0, 40.0, 0.0, seconds_per_megapixel=4.0),
]
SUMMARY = {
    "noisy": {"ssim": 0.375, "ssim_matlab": 0.5, "psnr": 21.0, "rmse": pytest.approx(0.15)},
    "zeta": {"ssim": 0.875, "ssim_matlab": 0.75, "psnr": 35.0, "rmse": 0.025},
}


def cases(count: int = 2, *, shape: tuple[int, ...] = (20, 24), noise: float = 0.1) -> list[Case]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(count):
        clean = rng.random(shape, dtype=np.float32)
        made.append(Case(f"case{index}", clean, clean + np.float32(noise) * rng.standard_normal(shape, np.float32)))
    return made


def test_scores_are_those_of_the_definitions() -> None:
    first, second = cases()
    half = {"half": lambda noisy, sigma: noisy / 2}
    scores = evaluate([first, second], half)
    assert [(entry.case, entry.method) for entry in scores] == [
        *(("case0", "noisy"), ("case0", "half"), ("case1", "noisy"), ("case1", "half")),
    ]
    for entry, case, result in zip(
        scores,
        (first, first, second, second),
        (first.noisy, first.noisy / 2, second.noisy, second.noisy / 2),
        strict=True,
    ):
        error = float(np.mean((case.clean.astype(np.float64) - result) ** 2))
        assert entry.rmse == pytest.approx(np.sqrt(error))
        assert entry.psnr == pytest.approx(-10 * np.log10(error))
        assert entry.ssim == pytest.approx(
            structural_similarity(
                case.clean, result, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            ),
            abs=1e-5,
        )
        assert entry.ssim_matlab != entry.ssim


def test_constant_error_scores_as_by_hand() -> None:
    clean = cases(1)[0].clean
    (entry,) = evaluate([Case("c", clean, clean + np.float32(0.1))], {})
    assert entry.method == "noisy"
    assert entry.rmse == pytest.approx(0.1, abs=1e-6)
    assert entry.psnr == pytest.approx(20.0, abs=1e-4)


def test_methods_are_told_the_true_noise_level() -> None:
    told = []

    def method(noisy: Any, sigma: float) -> Any:
        told.append(sigma)
        return noisy

    quiet, loud = cases(1, noise=0.01)[0], cases(1, noise=0.5)[0]
    evaluate([quiet, loud], {"method": method})
    assert told == [quiet.sigma, loud.sigma]
    assert told[0] == pytest.approx(0.01, rel=0.1)
    assert told[1] == pytest.approx(0.5, rel=0.1)


def test_volumes_are_scored_and_progress_is_told() -> None:
    seen: list[str] = []
    scores = evaluate(iter(cases(3, shape=(2, 12, 14))), {}, seen.append)
    assert seen == ["case0", "case1", "case2"]
    assert len(scores) == 3


def test_summary_is_the_mean_in_the_order_of_the_methods() -> None:
    summary = summarise(SCORES)
    assert list(summary) == ["noisy", "zeta"]
    assert summary == SUMMARY
    assert summarise([]) == {}


def test_intervals_are_those_of_the_patients() -> None:
    scores = [replace(score, patient="one") for score in SCORES]
    assert intervals(scores)["zeta"] == dict.fromkeys(METRICS)  # one patient says nothing of others
    assert intervals(SCORES)["zeta"]["psnr"] == (30.0, 40.0)  # without a name, each case is a patient


def test_time_is_that_of_the_method() -> None:
    def slow(noisy: Any, sigma: float) -> Any:
        time.sleep(0.05)
        return noisy

    (case,) = cases(1)
    entries = {entry.method: entry for entry in evaluate([replace(case, patient="p")], {"slow": slow})}
    assert (entries["slow"].seconds_per_megapixel or 0) >= 0.05 / case.noisy.size * 1e6
    assert entries["slow"].patient == "p"


def test_columns() -> None:
    columns = as_columns({"a": dict.fromkeys(METRICS, 1 / 3), "b": dict.fromkeys(METRICS, 2.0)})
    assert columns == {"method": ["a", "b"], **{metric: [0.3333, 2.0] for metric in METRICS}}


def test_table_layout() -> None:
    table = as_markdown(summarise(SCORES), {"zeta": "size=3"}, ("ssim", "psnr"))
    assert table.splitlines() == [
        "| method | SSIM   | PSNR [dB] | parameters |",
        "|--------|--------|-----------|------------|",
        "| noisy  | 0.3750 | 21.00     |            |",
        "| zeta   | 0.8750 | 35.00     | size=3     |",
    ]
    head = as_markdown(summarise(SCORES)).splitlines()[0]
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        *("method", "SSIM", "SSIM (MATLAB)", "PSNR [dB]", "RMSE"),
    ]


def test_files_hold_the_scores(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_scores(folder, SCORES, {"sigma": 0.1}, {"zeta": 7})
    assert sorted(path.name for path in folder.iterdir()) == [
        "case_files.csv",
        "per_image.csv",
        "results.json",
        "table.md",
    ]
    with (folder / "per_image.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with (folder / "case_files.csv").open(newline="", encoding="utf-8") as stream:
        files = {row["case"]: row["file"] for row in csv.DictReader(stream)}
    assert files == {"a": "/in/a, b.png"}
    read = [Score(row["case"], row["method"], *(float(row[metric]) for metric in METRICS)) for row in rows]
    assert read == [replace(score, file="", seconds_per_megapixel=None) for score in SCORES]
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["protocol"] == {"sigma": 0.1}
    for method, row in summarise(SCORES).items():
        written = results["methods"][method]
        assert {metric: written[metric]["mean"] for metric in METRICS} == row
        assert {metric: tuple(written[metric]["ci95"]) for metric in METRICS} == intervals(SCORES)[method]
    assert results["methods"]["noisy"]["seconds_per_megapixel"] is None
    assert results["methods"]["zeta"]["seconds_per_megapixel"] == 3.0
    assert "parameters" not in results["methods"]["noisy"]
    assert results["methods"]["zeta"]["parameters"] == 7
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert table == as_markdown(summarise(SCORES), ranges=intervals(SCORES)) + "\n"
    assert "| 35.00 [30.00, 40.00] |" in table


def test_files_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scores(tmp_path, SCORES, {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self: Path, text: str, **options: Any) -> int:
        with open(self, "w", encoding="utf-8") as stream:
            stream.write(text[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space left"):
        write_scores(tmp_path, SCORES[:2], {"other": 1})
    monkeypatch.undo()
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert after["results.json"] == before["results.json"]
    assert after["table.md"] == before["table.md"]
