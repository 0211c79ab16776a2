"""Open the MLflow UI on the store that trainings, evaluations and registrations write to.

python scripts/open_mlflow.py [--tracking_uri URI] [--port 5000]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

STORE = Path(__file__).resolve().parent.parent / "bundle" / "eval"


def main(tracking_uri: str = "", port: int = 5000) -> None:
    """Start the UI on this machine's loopback, and say where it is.

    Parameters
    ----------
    tracking_uri
        Of the store; the environment variable MLFLOW_TRACKING_URI beats it. By default ``bundle/eval/mlflow.db``. A
        server has a UI already: its address is printed.
    port
        Of the UI.
    """
    from meddenoise_monai.errors import MeddenoiseError

    try:
        serve(tracking_uri, port)
    except MeddenoiseError as error:
        raise SystemExit(f"error: {error}") from None


def serve(tracking_uri: str, port: int) -> None:
    """The job of `main`; returns when the UI is closed.

    Raises
    ------
    InputError
        If there is no store yet.
    UsageError
        If the tracking URI is a folder, or the port is taken.
    """
    from meddenoise_monai.errors import InputError, UsageError
    from meddenoise_monai.tracking.addresses import artifact_location, public, resolve_uri, sqlite_path

    uri = resolve_uri(tracking_uri or None, STORE)
    if uri.startswith("http"):
        print(pages(public(uri).rstrip("/")), flush=True)
        return
    database = sqlite_path(uri)
    if database is not None and not database.is_file():
        raise InputError(
            f"there is no MLflow store at {database} yet",
            "`make train` makes one, and so does `make register`, which registers the released model",
        )
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UsageError(f"the port {port} is taken, by another UI perhaps", f"give another: --port {port + 1}")
    print(f"the store: {public(uri)}\n{pages(f'http://127.0.0.1:{port}')}\nCtrl-C closes it", flush=True)
    # An address may hold a password, which no list of processes shall show.
    surroundings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    surroundings.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    words = ["ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if (files := artifact_location(uri, STORE)) is not None:
        words += ["--artifacts-destination", files]
    try:
        ended = subprocess.call([sys.executable, "-m", "mlflow", *words], env=surroundings)
    except KeyboardInterrupt:
        return
    if ended:
        raise SystemExit(ended)


def pages(address: str) -> str:
    """Where to look, at a server of that address."""
    # Without the query MLflow 3 opens its workspace for language models.
    return "\n".join(
        f"{what}: {address}/#/{page}?workflowType=machine_learning"
        for what, page in (("experiments", "experiments"), ("the registry", "models"))
    )


if __name__ == "__main__":
    import fire

    fire.Fire(main)
