"""Open the MLflow UI on the store that trainings, evaluations and registrations write to.

python scripts/open_mlflow.py [--tracking_uri URI] [--port 5000]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STORE = Path(__file__).resolve().parent.parent / "bundle" / "eval"


def open_mlflow(*, tracking_uri: str | None = None, port: int = 5000) -> None:
    """Start the MLflow UI on this machine's loopback, and say where it is; ends when the UI is closed.

    usage: python scripts/open_mlflow.py [flags]

    flags:
      --tracking_uri URI    of the store; the environment variable MLFLOW_TRACKING_URI beats it. By default
                            bundle/eval/mlflow.db. A server has a UI already: its address is printed
      --port NUMBER         of the UI, from 1 to 65535; 5000 by default
    """
    from meddenoise_monai.command_line import say
    from meddenoise_monai.errors import InputError, UsageError
    from meddenoise_monai.tracking.addresses import artifact_location, public, resolve_uri, sqlite_path

    if not 1 <= port <= 65535:
        raise UsageError(f"--port must lie in 1 to 65535, got {port}", "for example --port 5010")
    uri = resolve_uri(tracking_uri, STORE)
    if uri.startswith("http"):
        say(pages(public(uri).rstrip("/")))
        return
    database = sqlite_path(uri)
    if database is not None and not database.is_file():
        raise InputError(
            f"there is no MLflow store at {database} yet",
            "`make train` makes one, and so does `make register`, which registers the released model",
        )
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            other = port + 1 if port < 65535 else port - 1
            raise UsageError(f"the port {port} is taken, by another UI perhaps", f"give another: --port {other}")
    say(f"the store: {public(uri)}\n{pages(f'http://127.0.0.1:{port}')}\nCtrl-C closes it")
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


def main(argv: Sequence[str]) -> int:
    """Do what the words ask for; the exit code is that of the command line."""
    from meddenoise_monai.command_line import execute_alone

    return execute_alone(open_mlflow, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
