"""Runs and the process they live in: quiet calls into mlflow, and no run left open when the process ends."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runs import Run

__all__ = ["hush", "mlflow_call", "register", "unregister"]

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_lock = threading.RLock()
_depth = 0
_thread: int | None = None  # the one within mlflow_call
_undo = contextlib.ExitStack()
_levels: dict[str, int] = {}

_open_runs: list[Run] = []
_previous_handlers: dict[int, Any] = {}
_pending_signal: int | None = None


@contextlib.contextmanager
def mlflow_call(seconds: int = 30, retries: int = 2) -> Iterator[None]:
    """Calls into mlflow: one thread at a time, quiet, soon giving up a dead server, not torn apart by SIGTERM.

    The settings are the process's own (logger levels, warning filters, environment) and are put back afterwards. What
    the user has set in the environment is left alone.
    """
    global _depth, _thread
    try:
        with _lock:
            _depth += 1
            if _depth == 1:
                _thread = threading.get_ident()
                _change_settings(seconds, retries)
            try:
                yield
            finally:
                _depth -= 1
                if _depth == 0:
                    _undo.close()
                    _thread = None
    finally:
        if _pending_signal is not None and _in_main_thread() and not _within_call():
            _end_by_signal(_pending_signal, None)


def _change_settings(seconds: int, retries: int) -> None:
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds)),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries)),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        if name not in os.environ:
            os.environ[name] = value
            _undo.callback(os.environ.pop, name, None)
    _undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    hush()
    _undo.callback(_unhush)


def hush() -> None:
    """Silence, until `mlflow_call` is left, the loggers whose messages and tracebacks repeat what our warning says."""
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        if logger.level != logging.CRITICAL:
            _levels[name] = logger.level
            logger.setLevel(logging.CRITICAL)


def _unhush() -> None:
    while _levels:
        name, level = _levels.popitem()
        logging.getLogger(name).setLevel(level)


def register(run: Run) -> None:
    """Let the run be closed at the end of the process, however it comes."""
    _open_runs.append(run)
    atexit.unregister(_close_at_exit)
    atexit.register(_close_at_exit)
    if _in_main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # None: not set from Python, and cannot be put back. SIG_IGN: under nohup the process lives on.
            if handler not in (None, signal.SIG_IGN, _on_signal):
                _previous_handlers[number] = handler
                signal.signal(number, _on_signal)


def unregister(run: Run) -> None:
    """The run was closed; after the last one the signals do again what they did before."""
    if run in _open_runs:
        _open_runs.remove(run)
    if not _open_runs and _in_main_thread():
        for number in list(_previous_handlers):
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, _previous_handlers.pop(number))


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _pending_signal
    if _within_call():
        # The interrupted call may hold the database's write lock: closing the run here would wait for it for ever.
        _pending_signal = number
    else:
        _end_by_signal(number, frame)


def _end_by_signal(number: int, frame: FrameType | None) -> None:
    """End the open runs as KILLED, then do what would have been done without us."""
    global _pending_signal
    _pending_signal = None
    previous = _previous_handlers.pop(number, signal.SIG_DFL)
    for run in list(_open_runs):
        run.close("KILLED")
    signal.signal(number, previous)
    if callable(previous):
        previous(number, frame)
    else:
        os.kill(os.getpid(), number)


def _close_at_exit() -> None:
    # The interpreter leaves the type of the uncaught exception here.
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
    for run in list(_open_runs):
        run.close("KILLED" if interrupted else "FAILED")


def _forget_runs() -> None:
    """In a forked child, such as a worker of a DataLoader: the runs are the parent's, and a held lock stays held."""
    global _lock, _depth, _thread
    _lock, _depth, _thread = threading.RLock(), 0, None
    _open_runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_runs)


def _within_call() -> bool:
    return _thread == threading.get_ident()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
