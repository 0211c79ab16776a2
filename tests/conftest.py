"""Fixtures that several test modules share."""

from __future__ import annotations

import getpass
import http.server
import importlib.metadata
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _meta_tensors_are_tracked() -> Iterator[None]:
    """The bundle's configurations switch MONAI's metadata off for the whole process; no later test shall notice.

    What it was before is not looked at: a fixture of a whole module may have changed it already.
    """
    yield
    if "monai.data" in sys.modules:  # importing it here would cost every session ten seconds
        sys.modules["monai.data"].set_track_meta(True)


@pytest.fixture(scope="session")
def mlflow_template() -> Path:
    """An empty MLflow database, kept between test sessions: MLflow needs about ten seconds to make one."""
    import mlflow  # noqa: F401  # sets its loggers up, which the call below then silences

    from meddenoise_monai.tracking.opening import create_database
    from meddenoise_monai.tracking.process import mlflow_call

    version = importlib.metadata.version("mlflow")
    path = Path(tempfile.gettempdir(), f"meddenoise-test-{getpass.getuser()}", f"mlflow-{version}.db")
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with mlflow_call():
            create_database(path)
    return path


@pytest.fixture
def mlflow_folder(tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `mlflow.db` is an empty MLflow database: `open_run(…, fallback_dir=mlflow_folder)` takes it."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    shutil.copyfile(mlflow_template, tmp_path / "mlflow.db")
    return tmp_path


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/short.tgz":  # announces more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"\x1f\x8b" + bytes(500))
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of an HTTP server on this machine, and the folder that it serves."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "www"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders that cannot be listed; nothing is locked for those who run tests as root."""
    names: list[str] = []
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if not isinstance(path, int) and os.fspath(path) in names:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return names
