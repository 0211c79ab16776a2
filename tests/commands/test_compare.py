"""`meddenoise compare`: what its flags become, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meddenoise_monai import comparing, report
from meddenoise_monai.comparing import Comparison
from tests.commands.conftest import failure, run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    monkeypatch.setattr(report, "in_short", lambda results: "the tables in short\n")
    seen: list[dict[str, Any]] = []

    def compare(data: str, output: str, **options: Any) -> Comparison:
        seen.append({"data": data, "output": output, **options})
        return Comparison(tmp_path, {"methods": {}}, {"broken.png": "is broken"}, "mlflow ui")

    monkeypatch.setattr(comparing, "compare", compare)
    return seen


def test_flags_become_lists_and_numbers(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    words = "compare 001 --output 002 --methods nlm,mine=a.pt --noise gaussian,poisson --levels 5,12.5 --tissue 0.95"
    code, out, err = run(capsys, *words.split())
    assert code == 3  # a file was left out
    assert out.startswith("the tables in short\n")
    assert "report.html" in out
    assert "1 file(s) failed" in err
    (call,) = calls
    assert (call["data"], call["output"]) == ("001", "002")
    assert (call["methods"], call["noise"], call["levels"]) == (
        ["nlm", "mine=a.pt"],
        ["gaussian", "poisson"],
        [5, 12.5],
    )
    assert (call["tissue"], call["workers"], call["realisations"]) == (0.95, None, 5)
    code, out, _ = run(capsys, "compare", "a", "--output", "b", "--json")
    assert out == '{\n  "methods": {}\n}\n'


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("images", 2, "Missing required flags: {'output'}"),
        ("nowhere --output o", 1, "no such file or folder: nowhere"),
        ("nowhere --output o --methods medain", 2, "there is no baseline 'medain'"),
        ("nowhere --output o --levels 5,", 2, "--levels must be a number, got ''"),
        ("nowhere --output o --workers 0", 2, "--workers 0 is no whole number from 1 up"),
    ],
)
def test_what_cannot_be_compared_ends_in_two_lines(
    words: str, code: int, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure(capsys, code, "compare", *words.split())[0] == error
