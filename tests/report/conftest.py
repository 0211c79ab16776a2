"""A small comparison that every test may change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from meddenoise_monai.evaluation.study import Outcome
from meddenoise_monai.report import Report, write_report
from tests.small_study import small_study


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A report with everything, and its folder. Shared: leave it as it is."""
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(folder, *small_study())


@pytest.fixture
def results() -> dict[str, Any]:
    return copy.deepcopy(small_study()[0])


@pytest.fixture
def outcomes() -> list[Outcome]:
    return list(small_study()[1])
