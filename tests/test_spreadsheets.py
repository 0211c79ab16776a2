from __future__ import annotations

import csv
import io

import pytest

from meddenoise_monai.spreadsheets import as_cell


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|calc!A1",
        "+1+cmd|calc",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "-1_0",
        "\t5",
        "-5\t",
        '=HYPERLINK("a,b")',
        "-",
    ],
)
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    assert as_cell(text) == f"'{text}"
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow([as_cell(text), 1])
    assert next(csv.reader(io.StringIO(stream.getvalue(), newline=""))) == [f"'{text}", "1"]


@pytest.mark.parametrize("text", ["", "mdb001.png", "a=b", "'quoted'", "-1.5", "+3", "-1e-05", "-inf", "a-b", " =1"])
def test_other_text_and_numbers_stay(text: str) -> None:
    assert as_cell(text) == text
