"""Which process writes a run, and whether it still lives: a run left RUNNING by a dead one can be ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PROCESS_TAG", "owner_of", "owner_tag", "writer_lives"]

PROCESS_TAG = "meddenoise.process"


def owner_tag() -> dict[str, str]:
    """The tag that says which process writes a run."""
    return {PROCESS_TAG: json.dumps(_this_process())}


def owner_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """The process that a run's tags name; empty for a run that is not ours."""
    owner: dict[str, Any] = json.loads(tags.get(PROCESS_TAG, "{}"))
    return owner


def writer_lives(owner: Mapping[str, Any], run_started: float) -> bool | None:
    """Whether the process that writes a run still lives; None where this machine cannot tell.

    Parameters
    ----------
    owner
        See `owner_of`.
    run_started
        Seconds since 1970. After a restart of the machine, which looks like another machine of the same name, the run
        must be older than the restart.
    """
    me = _this_process()
    if any(owner.get(key) != me[key] for key in ("host", "machine")):
        return None
    if owner["boot"] != me["boot"]:
        uptime = float(_first_line("/proc/uptime").partition(" ")[0])
        return False if run_started < time.time() - uptime else None
    if owner["namespace"] != me["namespace"]:
        return None
    return bool(_process_start(owner["pid"]) == owner["started"])


def _this_process() -> dict[str, Any]:
    """What tells this process from any other, on this machine and after a restart of it."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        # The machine's id is not to be shown to others (machine-id(5)): only a hash of it is.
        "machine": hashlib.sha256(f"meddenoise {_first_line('/etc/machine-id')}".encode()).hexdigest()[:12],
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "namespace": namespace,
        "pid": os.getpid(),
        "started": _process_start(os.getpid()),
    }


def _process_start(pid: int) -> str | None:
    """When a process began, in whatever form this system tells it; None for a dead one."""
    if Path("/proc/self/stat").exists():
        try:
            # The second field, the program's name, may hold spaces and brackets.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.1f}"
    except psutil.NoSuchProcess:
        return None


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return ""
