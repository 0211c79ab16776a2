"""What MLflow gets of a comparison: tables, figures, and the report without pictures unless it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from meddenoise_monai.comparing import compare
from meddenoise_monai.evaluation import study
from tests.samples import write_patients


@pytest.mark.e2e
def test_pictures_go_to_mlflow_only_where_asked_for(
    mlflow_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "OBSERVED", 1)
    monkeypatch.setattr(study, "FIELDS", 1)
    monkeypatch.setattr(study, "PHANTOM_DRAWS", 2)
    data = write_patients(tmp_path_factory.mktemp("in") / "films", 3)
    settings = {"methods": ["median"], "levels": [25.0], "realisations": 1, "workers": 1}
    found = compare(data, mlflow_folder, **settings)  # type: ignore[arg-type]
    assert [entry["methods"]["median"] for entry in found.results["observers"]] == [None] * 4  # one field, no observer
    compare(data, mlflow_folder, **settings, log_pictures=True)  # type: ignore[arg-type]
    ours = (mlflow_folder / "report.html").read_text("utf-8")
    assert 'data-name="clean"' in ours
    logged = sorted(mlflow_folder.glob("mlruns/**/report.html"), key=lambda path: path.stat().st_mtime)
    without, with_pictures = (path.read_text("utf-8") for path in logged)
    assert with_pictures == ours
    assert 'data-name="' not in without.partition("<script>")[0]
    for path in logged:
        beside = {file.relative_to(path.parent).as_posix() for file in path.parent.rglob("*")}
        assert {"table.md", "figures/quality-films-gaussian.png", "results.json"} <= beside
