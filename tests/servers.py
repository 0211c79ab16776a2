"""Programs that listen on this machine's loopback while a test looks at them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def surroundings(**variables: str) -> dict[str, str]:
    """The environment for a server of MLflow's: nothing of the tester's own settings, our Python's programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "no_proxy": "127.0.0.1",
    }
    return kept | {"PATH": path} | quiet | variables


@contextmanager
def running(words: Sequence[object], log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """A server that is ended, with its children, when the block is left; `wait_for` tells when it is ready."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(word) for word in words], stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
        try:
            yield
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and its children: gently, and after 20 seconds at once."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 20
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()  # lets an ended one go
                os.killpg(process.pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:  # none is left
            break
    process.wait(20)


def wait_for(address: str, log: Path, seconds: float = 240) -> None:
    """Until the address answers with status 200."""
    deadline = time.monotonic() + seconds
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            opener.open(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{address} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
