"""Fixtures that several test modules share."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mlflow_template() -> Path:
    """An empty MLflow database, kept between test sessions: MLflow needs about ten seconds to make one."""
    import mlflow  # noqa: F401  # sets its loggers up, which the call below then silences

    from meddenoise_monai import tracking

    version = importlib.metadata.version("mlflow")
    path = Path(tempfile.gettempdir(), f"meddenoise-test-{getpass.getuser()}", f"mlflow-{version}.db")
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with tracking._mlflow_call():
            tracking._create_database(path)
    return path


@pytest.fixture
def mlflow_folder(tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `mlflow.db` is an empty MLflow database: `open_run(…, fallback_dir=mlflow_folder)` takes it."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    shutil.copyfile(mlflow_template, tmp_path / "mlflow.db")
    return tmp_path
