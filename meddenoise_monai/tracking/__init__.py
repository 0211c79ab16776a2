"""The record of a training or an evaluation, kept in MLflow or, where MLflow cannot be had, in a local folder.

This package is the only one that imports mlflow, and it does so when a run is opened. `open_run` gives a `Run`; whoever
writes into it need not know which of the two kinds it is. No record raises because of the store: a training is never
lost to its own logbook. A run that was opened is also ended: by `Run.close` or as a context manager, else at the
interpreter's exit (FAILED) or on SIGTERM or SIGHUP (KILLED), and what a SIGKILL or a power cut leaves RUNNING is ended
by the next `open_run` on the same machine.
"""

from __future__ import annotations

from .opening import open_run
from .provenance import case_id, environment_versions
from .runs import LocalRun, MlflowRun, Run
from .stores import Status

__all__ = ["LocalRun", "MlflowRun", "Run", "Status", "case_id", "environment_versions", "open_run"]
