"""The record of a training or an evaluation, kept in MLflow or, where MLflow cannot be had, in a local folder.

This is the only module that imports mlflow, and it does so when a run is opened. `open_run` gives a `Run`; whoever
writes into it need not know which of the two kinds it is:

- `MlflowRun` writes to the tracking store, by explicit run id (nothing here touches MLflow's global "active run"). When
  the store is lost in the middle of a training it warns once and goes on in a local folder.
- `LocalRun` is that folder: ``events.jsonl``, one JSON object a line, beside ``images/`` and ``artifacts/``.

No record raises because of the store: a training is never lost to its own logbook. A run that was opened is also ended:
by `Run.close` or as a context manager, else at the interpreter's exit (FAILED) or on SIGTERM or SIGHUP (KILLED), and
what a SIGKILL or a power cut leaves RUNNING is ended by the next `open_run` on the same machine.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import hashlib
import hmac
import http.client
import importlib.metadata
import json
import logging
import math
import numbers
import os
import platform
import posixpath
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import ssl
import struct
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, SupportsFloat, TypeAlias, runtime_checkable
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from .errors import MeddenoiseError, UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["LocalRun", "MlflowRun", "Run", "Status", "case_id", "environment_versions", "open_run"]

_log = logging.getLogger(__name__)

Status: TypeAlias = Literal["FINISHED", "FAILED", "KILLED"]
_Kind: TypeAlias = Literal["records", "files"]

_PARAM_LENGTH = 6000  # MLflow's limits
_TAG_LENGTH = 8000
_NAME_LENGTH = 250
_PER_BATCH = 100
_METRICS_PER_BATCH = 1000

_INFINITY = 1e9
_PROBE_SECONDS = 5.0
_PROCESS_TAG = "meddenoise.process"
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
_DISTRIBUTIONS = (
    "torch",
    "monai",
    "numpy",
    "pytorch-ignite",
    "scikit-image",
    "pydicom",
    "nibabel",
    "mlflow",
    "meddenoise_monai",
)


# --- what other modules see ------------------------------------------------------------------------------------------


@runtime_checkable
class Run(Protocol):
    """One training or evaluation that is being recorded.

    As a context manager it closes itself: FINISHED; FAILED after an exception; KILLED after KeyboardInterrupt or a
    SystemExit with another code than 0.
    """

    @property
    def run_id(self) -> str:
        """Name that `open_run` takes as `resume_run_id`."""

    @property
    def url_hint(self) -> str:
        """How to look at the run: a command line, an address, or the path of a file. Never holds a password."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record hyper-parameters.

        Nested mappings are flattened with dots; values are written with `str` and cut to 6000 characters. MLflow never
        changes a parameter: the first value stays, and a later, different one becomes the tag ``resumed.<name>``.
        """

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; values are written with `str` and cut to 8000 characters."""

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Record numbers of one step (an epoch, an iteration).

        A NaN is left out, with one warning a run; an infinite value is recorded as ±1e9, because MLflow stores it as
        1.8e308 and its charts then show nothing else.
        """

    def log_table(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        """Record a table as ``<name>.json``, shown by MLflow's Evaluation tab; one of the same name is replaced.

        Raises
        ------
        ValueError
            There is no column, or the columns differ in length.
        """

    def log_image(self, key: str, image: np.ndarray[Any, Any], step: int) -> None:
        """Record a picture, uint8 of shape (H, W) or (H, W, 3); MLflow shows a slider over the steps of one key.

        Raises
        ------
        ValueError
            The array has another type or shape.
        """

    def log_text(self, text: str, path: str) -> None:
        """Record a text as the artifact `path`, relative, with forward slashes."""

    def log_dict(self, obj: object, path: str) -> None:
        """Record an object as JSON, as the artifact `path`; what JSON lacks is written with `str`."""

    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Record a copy of a file as an artifact of the same name, in `folder`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        """

    def close(self, status: Status = "FINISHED") -> None:
        """End the run. The first call wins, later ones do nothing; never raises because of the store."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def open_run(
    experiment: str,
    run_name: str | None = None,
    tracking_uri: str | None = None,
    fallback_dir: str | os.PathLike[str] = "eval",
    tags: Mapping[str, object] | None = None,
    *,
    resume_run_id: str | None = None,
    close_stale: bool = True,
) -> Run:
    """Open a run in MLflow, or in a local folder when MLflow is not installed or its store cannot be reached.

    In a distributed training only the first process should call this.

    Parameters
    ----------
    experiment
        MLflow experiment; made when new, restored (with a warning) when it was deleted. One that exists keeps the
        artifact location that it was made with.
    run_name
        Name in the UI. By default the experiment's name, the time and six random characters.
    tracking_uri
        ``sqlite:///FILE``, another database, or the address of a server. The environment variable
        ``MLFLOW_TRACKING_URI`` beats it. By default ``sqlite:///<fallback_dir>/mlflow.db``. Files of a run go where the
        server says, beside an SQLite file into ``mlruns/``, and with any other database into ``<fallback_dir>/mlruns``.
        The first use of a new SQLite file takes about ten seconds.
    fallback_dir
        Folder for the default store, and for the runs that MLflow cannot take (``local_runs/<run id>/``).
    tags
        Tags of the run.
    resume_run_id
        Goes on in this run, which is RUNNING again. When it no longer exists, or is being written by a living
        process, a warning is given and a new run opened.
    close_stale
        Ends, as KILLED, those runs of the same experiment that a process of this machine left RUNNING when it died.

    Raises
    ------
    UsageError
        The experiment has no name; the tracking URI is a folder (which MLflow 3 refuses) or of an unknown kind; or
        neither the store nor `fallback_dir` can be written.
    """
    if not experiment.strip():
        raise UsageError("the experiment has no name", "give one, for example --experiment_name denoising")
    folder = Path(fallback_dir).expanduser().absolute()
    run_name = run_name or f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    uri = _resolve_uri(tracking_uri, folder)
    run: _BaseRun
    # A dead server must be found out in seconds, before the training: few retries here, more of them later.
    with _mlflow_call(seconds=5, retries=1):
        try:
            run = _open_mlflow(experiment, run_name, uri, folder, tags or {}, resume_run_id, close_stale)
        except MeddenoiseError:
            raise
        except Exception as error:
            reason = "mlflow is not installed" if isinstance(error, ImportError) else _one_line(error)
            run = _open_local(experiment, run_name, folder, tags or {}, resume_run_id)
            _log.warning(
                "MLflow cannot be used (%s: %s): this run is written to %s", _public(uri), reason, run.url_hint
            )
        _register(run)
    return run


def environment_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, by distribution name; absent ones are left out.

    Read from the installed metadata: imports nothing.
    """
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if "meddenoise_monai" not in versions:  # an exported bundle carries the package uninstalled
        version = getattr(sys.modules.get("meddenoise_monai"), "__version__", None)
        if version is not None:
            versions["meddenoise_monai"] = str(version)
    return versions


def case_id(text: str) -> str:
    """Short stable name for a case, to be recorded in place of its file name: 12 hexadecimal digits of SHA-256.

    This is a pseudonym, not an anonymisation: whoever can guess the name can check the guess. With the environment
    variable ``MEDDENOISE_CASE_SALT`` set (and kept secret) the digits are of HMAC-SHA-256 under that key instead.
    """
    salt = os.environ.get("MEDDENOISE_CASE_SALT", "")
    if salt:
        return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()[:12]
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# --- runs ------------------------------------------------------------------------------------------------------------


class _Store(Protocol):
    """A place for records. Names and values are already clean; paths use forward slashes."""

    def params(self, values: dict[str, str]) -> None: ...

    def tags(self, values: dict[str, str]) -> None: ...

    def metrics(self, values: dict[str, float], step: int) -> None: ...

    def table(self, path: str, columns: dict[str, list[object]]) -> None: ...

    def image(self, key: str, image: np.ndarray[Any, Any], step: int) -> None: ...

    def file(self, source: Path, folder: str | None) -> None: ...

    def end(self, status: Status) -> None: ...


class _BaseRun:
    """Checks and cleans what is recorded, and closes once; where it is written is the subclass's matter."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._status: Status | None = None
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._nan_seen = False

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def url_hint(self) -> str:
        raise NotImplementedError

    def _write(self, kind: _Kind, action: Callable[[_Store], None]) -> None:
        raise NotImplementedError

    def _end(self, status: Status) -> None:
        raise NotImplementedError

    def log_params(self, params: Mapping[str, object]) -> None:
        values = {_clean_name(name): _cut(str(value), _PARAM_LENGTH) for name, value in _flatten(params)}
        if values:
            self._write("records", lambda store: store.params(values))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        values = _clean_tags(tags)
        if values:
            self._write("records", lambda store: store.tags(values))

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        values = {}
        for name, value in metrics.items():
            number = float(value)
            if math.isnan(number):
                if not self._nan_seen:
                    self._nan_seen = True
                    _log.warning("metric %s is NaN at step %d: NaN values are not recorded", name, step)
                continue
            values[_clean_name(name)] = math.copysign(_INFINITY, number) if math.isinf(number) else number
        if values:
            self._write("records", lambda store: store.metrics(values, int(step)))

    def log_table(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        lengths = {title: len(column) for title, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"table {name!r} needs one or more columns of one length, got {lengths}")
        path = _clean_path(re.sub(r"[\"',:\[\]{}]", "_", name.removesuffix(".json")) + ".json")
        values = {str(title): [_plain(value) for value in column] for title, column in columns.items()}
        self._write("files", lambda store: store.table(path, values))

    def log_image(self, key: str, image: np.ndarray[Any, Any], step: int) -> None:
        picture = np.asarray(image)
        grey = picture.ndim == 2
        if picture.dtype != np.uint8 or not (grey or picture.shape[2:] == (3,)) or picture.size == 0:
            raise ValueError(
                f"image {key!r} must be uint8 of shape (H, W) or (H, W, 3), got {picture.dtype} {picture.shape}"
            )
        self._write("files", lambda store: store.image(_clean_name(key), picture, int(step)))

    def log_text(self, text: str, path: str) -> None:
        folder, name = posixpath.split(_clean_path(path))
        try:
            with tempfile.TemporaryDirectory() as temporary:
                source = Path(temporary, name)
                source.write_bytes(text.encode())
                self._write("files", lambda store: store.file(source, folder or None))
        except OSError as error:  # no room for the temporary file
            _log.warning("%s could not be recorded: %s", path, error)

    def log_dict(self, obj: object, path: str) -> None:
        text = json.dumps(obj, indent=2, ensure_ascii=False, default=str) + "\n"
        self.log_text(text, path)

    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"no file to record at {source}")
        target = _clean_path(folder) if folder else None
        self._write("files", lambda store: store.file(source, target))

    def close(self, status: Status = "FINISHED") -> None:
        if status not in ("FINISHED", "FAILED", "KILLED"):
            raise ValueError(f"status must be FINISHED, FAILED or KILLED, got {status!r}")
        # A forked worker holds a copy of the run, which is not the worker's to end.
        if os.getpid() != self._process:
            return
        with _mlflow_call(), self._lock:
            if self._status is not None:
                return
            self._status = status
            try:
                self._end(status)
            except Exception as error:
                _log.warning("run %s could not be closed: %s", self._run_id, _one_line(error))
        _unregister(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.close("FINISHED")
        else:
            self.close("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")


class LocalRun(_BaseRun):
    """A run in a folder of its own: ``events.jsonl``, ``images/<key>/<step>.png`` and ``artifacts/``.

    Parameters
    ----------
    folder
        The run's folder, made when missing; when it already holds a run, that one is continued.
    run_id
        By default the folder's name.

    Raises
    ------
    UsageError
        The folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], run_id: str | None = None) -> None:
        path = Path(folder).expanduser().absolute()
        super().__init__(run_id or path.name)
        self._store = _LocalStore(path)
        resumed = self._store.events.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._store.append("resume" if resumed else "start", {"run_id": self._run_id, "pid": os.getpid()})
        except OSError as error:
            raise UsageError(
                f"the folder for the record of this run cannot be written: {error}",
                "give a folder that can, or the address of an MLflow server as tracking_uri",
            ) from error

    @property
    def url_hint(self) -> str:
        return str(self._store.events)

    def _write(self, kind: _Kind, action: Callable[[_Store], None]) -> None:
        with self._lock:
            self._store.attempt(action)

    def _end(self, status: Status) -> None:
        self._store.attempt(lambda store: store.end(status))


class MlflowRun(_BaseRun):
    """A run in an MLflow store, which goes on in a local folder when the store is lost. `open_run` makes it.

    A record that the store refuses (and would refuse again) goes to the local folder alone. When only the files cannot
    be stored, as on a server whose artifact folder the client cannot write, only the files go there.
    """

    def __init__(self, store: _MlflowStore, uri: str, url_hint: str, local_folder: Path) -> None:
        super().__init__(store.run_id)
        self._store = store
        self._uri = uri
        self._hint = url_hint
        self._local = _LocalStore(local_folder)
        self._lost: set[_Kind] = set()
        self._refused = False

    @property
    def url_hint(self) -> str:
        return f"{self._hint} (what the store did not take: {self._local.events})" if self._lost else self._hint

    def _write(self, kind: _Kind, action: Callable[[_Store], None]) -> None:
        with _mlflow_call(), self._lock:
            if kind not in self._lost:
                try:
                    action(self._store)
                    return
                except Exception as error:
                    self._note_failure(kind, error)
            self._local.attempt(action)

    def _note_failure(self, kind: _Kind, error: Exception) -> None:
        reason = _one_line(error)
        if isinstance(error, ValueError | TypeError) or getattr(error, "error_code", None) in _REFUSALS:
            if not self._refused:
                self._refused = True
                _log.warning("MLflow refused a record (%s): it, and any other refused, is in %s", reason, self._local)
            return
        self._lost.add(kind)
        if kind == "files":
            try:
                self._store.check()
            except Exception:
                self._lost.add("records")
            else:
                _log.warning("MLflow cannot store files (%s): they are written to %s from now on", reason, self._local)
                return
        self._lost.add("files")
        _log.warning(
            "the MLflow store %s was lost (%s): this run is written to %s from now on",
            _public(self._uri),
            reason,
            self._local,
        )

    def _end(self, status: Status) -> None:
        if "records" not in self._lost:
            try:
                self._store.end(status)
                if self._local.events.exists():
                    self._local.attempt(lambda store: store.end(status))
                return
            except Exception as error:
                self._note_failure("records", error)
        self._local.attempt(lambda store: store.end(status))
        # The server may have come back: then the run shall not stay RUNNING there.
        if _why_unreachable(self._uri) is None:
            with contextlib.suppress(Exception):
                self._store.tags({"meddenoise.incomplete": "the store was lost while the run was being recorded"})
                self._store.end(status)


class _LocalStore:
    """A folder that takes records. `attempt` never raises OSError: on a full disk it warns once and drops."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed = False
        self.events = folder / "events.jsonl"

    def __str__(self) -> str:
        return str(self._folder)

    def attempt(self, action: Callable[[_Store], None]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            action(self)
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning("records of this run are lost, %s cannot be written: %s", self._folder, error)

    def append(self, event: str, content: Mapping[str, object]) -> None:
        line = json.dumps({"time": time.time(), "event": event, **content}, ensure_ascii=False, default=str)
        with self.events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def params(self, values: dict[str, str]) -> None:
        self.append("params", {"params": values})

    def tags(self, values: dict[str, str]) -> None:
        self.append("tags", {"tags": values})

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.append("metrics", {"step": step, "metrics": values})

    def table(self, path: str, columns: dict[str, list[object]]) -> None:
        target = self._folder / "artifacts" / path
        _replace(target, lambda temporary: temporary.write_text(_table_json(columns), encoding="utf-8"))
        self.append("table", {"path": f"artifacts/{path}"})

    def image(self, key: str, image: np.ndarray[Any, Any], step: int) -> None:
        path = f"images/{key}/{step:06d}.png"
        _replace(self._folder / path, lambda temporary: temporary.write_bytes(_png(image)))
        self.append("image", {"key": key, "step": step, "path": path})

    def file(self, source: Path, folder: str | None) -> None:
        path = posixpath.join("artifacts", folder or "", source.name)
        _replace(self._folder / path, lambda temporary: shutil.copyfile(source, temporary))
        self.append("file", {"path": path})

    def end(self, status: Status) -> None:
        self.append("end", {"status": status})


class _MlflowStore:
    """A run of an MLflow store; every method raises what MlflowClient raises."""

    def __init__(self, client: MlflowClient, run_id: str, known_params: Mapping[str, str]) -> None:
        self._client = client
        self._params = dict(known_params)
        self.run_id = run_id

    def check(self) -> None:
        self._client.get_run(self.run_id)

    def params(self, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        changed = {name: value for name, value in values.items() if self._params.get(name, value) != value}
        fresh = [(name, value) for name, value in values.items() if name not in self._params]
        for start in range(0, len(fresh), _PER_BATCH):
            batch = fresh[start : start + _PER_BATCH]
            self._client.log_batch(self.run_id, params=[Param(*item) for item in batch], synchronous=True)
            self._params.update(batch)
        if changed:
            _log.warning(
                "parameters differ from those that the run began with: %s; the new values are tags resumed.<name>",
                ", ".join(sorted(changed)),
            )
            self.tags({f"resumed.{name}"[:_NAME_LENGTH]: value for name, value in changed.items()})

    def tags(self, values: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        items = list(values.items())
        for start in range(0, len(items), _PER_BATCH):
            batch = [RunTag(*item) for item in items[start : start + _PER_BATCH]]
            self._client.log_batch(self.run_id, tags=batch, synchronous=True)

    def metrics(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        items = list(values.items())
        for start in range(0, len(items), _METRICS_PER_BATCH):
            batch = [Metric(name, value, now, step) for name, value in items[start : start + _METRICS_PER_BATCH]]
            self._client.log_batch(self.run_id, metrics=batch, synchronous=True)

    def table(self, path: str, columns: dict[str, list[object]]) -> None:
        folder = posixpath.dirname(path) or None
        if path in {file.path for file in self._client.list_artifacts(self.run_id, folder)}:
            # log_table would append to the table that is there: after a resumption every row would stand twice.
            self._client.log_text(self.run_id, _table_json(columns), path)
        else:
            self._client.log_table(self.run_id, columns, path)

    def image(self, key: str, image: np.ndarray[Any, Any], step: int) -> None:
        self._client.log_image(self.run_id, image, key=key, step=step, synchronous=True)

    def file(self, source: Path, folder: str | None) -> None:
        self._client.log_artifact(self.run_id, str(source), folder)

    def end(self, status: Status) -> None:
        self._client.set_terminated(self.run_id, status)


# --- opening ---------------------------------------------------------------------------------------------------------


def _resolve_uri(argument: str | None, folder: Path) -> str:
    """The tracking URI to use, an SQLite path made absolute; UsageError for a folder, which MLflow 3 refuses."""
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    uri = environment or argument
    if not uri:
        return f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
    scheme = urlsplit(uri).scheme
    if uri in ("databricks", "databricks-uc", "uc"):
        return uri
    # A single letter is a Windows drive.
    if (len(scheme) < 2 or scheme == "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        origin = "MLFLOW_TRACKING_URI" if environment else "tracking_uri"
        path = urlsplit(uri).path if scheme == "file" else uri
        raise UsageError(
            f"{origin} is a folder, {uri!r}: MLflow 3 keeps runs in a database or on a server",
            f"use sqlite:///{path.rstrip('/')}/mlflow.db, or the address of a server (http://…)",
        )
    database = _sqlite_path(uri)
    if database is not None:
        query = uri.partition("?")[2]
        return f"sqlite:///{database.as_posix()}" + (f"?{query}" if query else "")
    return uri


def _sqlite_path(uri: str) -> Path | None:
    """The absolute path of the SQLite file that a URI names, None for any other URI."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if not uri.startswith("sqlite:///") or path in ("", ":memory:"):
        return None
    return Path(path).absolute()


def _open_mlflow(
    experiment: str,
    run_name: str,
    uri: str,
    folder: Path,
    tags: Mapping[str, object],
    resume_run_id: str | None,
    close_stale: bool,
) -> MlflowRun:
    reason = _why_unreachable(uri)
    if reason is not None:
        raise ConnectionError(reason)
    # MLflow asks at each call whether it may report usage; setting this late is early enough.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from mlflow import MlflowClient

    _hush()  # the import has just set the levels of its loggers
    database = _sqlite_path(uri)
    if database is not None:
        _prepare_sqlite(database)
    try:
        client = MlflowClient(tracking_uri=uri)
    except Exception as error:
        unknown = getattr(mlflow.tracking.registry, "UnsupportedModelRegistryStoreURIException", ())
        if isinstance(error, unknown) and "://" in uri and not uri.startswith(("http", "sqlite:", *_DATABASE_PORTS)):
            raise UsageError(
                f"tracking_uri {_public(uri)!r} is of a kind that MLflow does not know",
                "use sqlite:///FILE, http://HOST:PORT, or a database (postgresql://…, mysql://…)",
            ) from error
        raise
    experiment_id = _experiment_id(client, experiment, _artifact_location(uri, database, folder))
    if close_stale:
        _end_stale_runs(client, experiment_id)
    mine = {**_clean_tags(tags), _PROCESS_TAG: json.dumps(_this_process())}
    store = _resume(client, resume_run_id, mine) if resume_run_id else None
    if store is None:
        run = client.create_run(experiment_id, run_name=run_name, tags={**_origin_tags(), **mine})
        store = _MlflowStore(client, run.info.run_id, {})
    if urlsplit(uri).scheme in ("http", "https"):
        hint = f"{_public(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{store.run_id}"
    else:
        hint = f"mlflow ui --backend-store-uri {shlex.quote(_public(uri))}"
    return MlflowRun(store, uri, hint, folder / "local_runs" / store.run_id)


def _open_local(
    experiment: str, run_name: str, folder: Path, tags: Mapping[str, object], resume_run_id: str | None
) -> LocalRun:
    runs = folder / "local_runs"
    run_id = resume_run_id if resume_run_id and re.fullmatch(r"[\w-]+", resume_run_id) else None
    if run_id is None or not (runs / run_id / "events.jsonl").exists():
        run_id = f"local-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    run = LocalRun(runs / run_id)
    resumed = {"resumed_from": resume_run_id} if resume_run_id and resume_run_id != run_id else {}
    run.set_tags({"experiment": experiment, "run_name": run_name, **resumed, **tags})
    return run


def _why_unreachable(uri: str) -> str | None:
    """What keeps a server from answering, found out within seconds; None when it answers or there is none to ask."""
    parts = urlsplit(uri)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if host is None:
        return None
    if parts.scheme in ("http", "https"):
        try:
            with urllib.request.urlopen(f"{_public(uri).rstrip('/')}/health", timeout=_PROBE_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            # Any other answer, a demand for a password among them, is the answer of a living server.
            return f"HTTP status {error.code}" if error.code in (502, 503, 504) else None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            # MLflow has settings of its own for certificates.
            return None if isinstance(cause, ssl.SSLError) else str(cause)
    database = parts.scheme.partition("+")[0]
    if database not in _DATABASE_PORTS:
        return None
    try:
        socket.create_connection((host, port or _DATABASE_PORTS[database]), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        return str(error)
    return None


def _prepare_sqlite(path: Path) -> None:
    """Make the database when it is new, and see that it can be written: MLflow would try for minutes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create_database(path)
    with contextlib.closing(sqlite3.connect(path, timeout=_PROBE_SECONDS, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):  # locked by another training: alive, and MLflow waits longer
                raise


def _create_database(path: Path) -> None:
    """Make an empty MLflow database, whole or not at all.

    MLflow migrates a new SQLite file in place, for about ten seconds; a file whose making was interrupted can neither
    be used nor mended (seen with MLflow 3.17). So it is made under another name, which also lets two trainings start
    at the same moment.
    """
    from mlflow import MlflowClient

    _log.info("making the MLflow database %s: once, about ten seconds", path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:6]}.new")
    for left in path.parent.glob(f".{path.name}.*.new*"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 600:
                left.unlink()
    try:
        client = MlflowClient(tracking_uri=f"sqlite:///{temporary.as_posix()}")
        client.search_experiments(max_results=1)
        with contextlib.suppress(AttributeError):
            client._tracking_client.store.engine.dispose()
        with contextlib.suppress(FileExistsError):
            try:
                os.link(temporary, path)  # unlike os.replace, it leaves the database of a faster process alone
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                if not path.exists():
                    os.replace(temporary, path)
    finally:
        for name in (temporary, temporary.with_name(f"{temporary.name}-journal")):
            with contextlib.suppress(OSError):
                name.unlink(missing_ok=True)


def _artifact_location(uri: str, database: Path | None, folder: Path) -> str | None:
    """Where a new experiment keeps its files; None leaves it to the server."""
    if database is not None:
        return (database.parent / "mlruns").as_uri()
    if urlsplit(uri).scheme.partition("+")[0] in _DATABASE_PORTS:
        return (folder / "mlruns").as_uri()
    return None


def _experiment_id(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location))
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        _log.warning("the MLflow experiment %r had been deleted: it is restored, with its runs", name)
    return str(experiment.experiment_id)


def _resume(client: MlflowClient, run_id: str, tags: dict[str, str]) -> _MlflowStore | None:
    """The existing run, RUNNING again; None, with a warning, when it is gone or in use."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", None) not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        run = None
    if run is None or run.info.lifecycle_stage == "deleted":
        _log.warning("the MLflow run %s no longer exists: a new one is opened", run_id)
        return None
    owner = _owner(run.data.tags)
    if run.info.status == "RUNNING" and _is_alive(owner) and owner.get("pid") != os.getpid():
        _log.warning("the MLflow run %s is being written by process %s: a new one is opened", run_id, owner["pid"])
        return None
    store = _MlflowStore(client, run_id, run.data.params)
    client.update_run(run_id, status="RUNNING")
    store.tags(tags)
    return store


def _origin_tags() -> dict[str, str]:
    """What MLflow's own fluent API would tell about the origin of a run, without the path of the program."""
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": Path(sys.argv[0]).name or "python"}
    with contextlib.suppress(Exception):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


# --- runs left behind by a process that was killed -------------------------------------------------------------------


def _end_stale_runs(client: MlflowClient, experiment_id: str) -> None:
    try:
        runs = client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=200)
        for run in runs:
            owner = _owner(run.data.tags)
            if owner and _is_dead(owner, run.info.start_time / 1000):
                client.set_terminated(run.info.run_id, "KILLED")
                _log.warning(
                    "the MLflow run %s was left RUNNING by process %s, which is dead: marked KILLED",
                    run.info.run_id,
                    owner["pid"],
                )
    except Exception as error:  # tidying up must not keep a training from its record
        _log.debug("stale runs were not looked for: %s", error)


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


def _owner(tags: Mapping[str, str]) -> dict[str, Any]:
    try:
        owner = json.loads(tags.get(_PROCESS_TAG, "{}"))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else {}


def _is_dead(owner: Mapping[str, Any], run_started: float) -> bool:
    """Whether a run's process is certainly dead; False whenever this machine cannot tell.

    Parameters
    ----------
    run_started
        Seconds since 1970. After a restart of the machine, which looks like another machine of the same name, the run
        must be older than the restart.
    """
    me = _this_process()
    if any(owner.get(key) != me[key] for key in ("host", "machine")):
        return False
    if owner.get("boot") != me["boot"]:
        uptime = _first_line("/proc/uptime").partition(" ")[0]
        return bool(uptime) and run_started < time.time() - float(uptime)
    started = _process_start(owner["pid"])
    return owner.get("namespace") == me["namespace"] and started != owner.get("started") and started != "?"


def _is_alive(owner: Mapping[str, Any]) -> bool:
    """Whether a run's process certainly lives; False whenever this machine cannot tell."""
    me = _this_process()
    same_machine = bool(owner) and all(owner.get(key) == me[key] for key in ("host", "machine", "boot", "namespace"))
    return same_machine and _process_start(owner["pid"]) == owner.get("started") is not None


def _process_start(pid: int) -> str | None:
    """When a process began, in whatever form this system tells it; None for a dead one, "?" where one cannot know."""
    if Path("/proc/self/stat").exists():
        try:
            # The second field, the program's name, may hold spaces and brackets.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        import psutil
    except ImportError:
        return "?"
    try:
        return f"{psutil.Process(pid).create_time():.1f}"
    except psutil.Error:
        return None


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return ""


# --- calls into mlflow, and the end of the process -------------------------------------------------------------------

_calls_lock = threading.RLock()
_calls_depth = 0
_calls_undo = contextlib.ExitStack()
_calls_levels: dict[str, int] = {}
_calls_here = threading.local()
_open_runs: list[_BaseRun] = []
_previous_handlers: dict[int, Any] = {}
_pending_signal: int | None = None
_exit_hook = False
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def _mlflow_call(seconds: int = 30, retries: int = 2) -> Iterator[None]:
    """Calls into mlflow: quiet, with an end to the waiting for a dead server, and not torn apart by SIGTERM.

    The settings are the process's own (logger levels, warning filters, environment), so they are changed by the first
    thread that comes and put back by the last that leaves. What the user has set in the environment is left alone.
    """
    global _calls_depth
    with _calls_lock:
        if _calls_depth == 0:
            for name, value in (
                ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds)),
                ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries)),
                ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
            ):
                if name not in os.environ:
                    os.environ[name] = value
                    _calls_undo.callback(os.environ.pop, name, None)
            _calls_undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            _hush()
        _calls_depth += 1
    _calls_here.depth = getattr(_calls_here, "depth", 0) + 1
    try:
        yield
    finally:
        with _calls_lock:
            _calls_depth -= 1
            if _calls_depth == 0:
                _calls_undo.close()
                while _calls_levels:
                    name, level = _calls_levels.popitem()
                    logging.getLogger(name).setLevel(level)
        _calls_here.depth -= 1
        if _calls_here.depth == 0 and _pending_signal is not None and _in_main_thread():
            _end_by_signal(_pending_signal, None)


def _hush() -> None:
    """Silence the loggers whose messages, tracebacks among them, repeat what our one warning says."""
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        if logger.level != logging.CRITICAL:
            _calls_levels[name] = logger.level
            logger.setLevel(logging.CRITICAL)


def _register(run: _BaseRun) -> None:
    global _exit_hook
    _open_runs.append(run)
    if not _exit_hook:
        _exit_hook = True
        atexit.register(_close_at_exit)
    if _in_main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # None: not set from Python, and cannot be put back. SIG_IGN: under nohup the process lives on.
            if handler is not None and handler is not signal.SIG_IGN and handler is not _on_signal:
                _previous_handlers[number] = handler
                signal.signal(number, _on_signal)


def _unregister(run: _BaseRun) -> None:
    if run in _open_runs:
        _open_runs.remove(run)
    if not _open_runs and _in_main_thread():
        for number in list(_previous_handlers):
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, _previous_handlers.pop(number))


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _pending_signal
    if getattr(_calls_here, "depth", 0) > 0:
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
    if callable(previous):
        signal.signal(number, previous)
        previous(number, frame)
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _close_at_exit() -> None:
    # The interpreter leaves the type of the uncaught exception here.
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
    for run in list(_open_runs):
        run.close("KILLED" if interrupted else "FAILED")


def _forget_runs() -> None:
    """In a forked child, such as a worker of a DataLoader: the runs are the parent's, and a held lock stays held."""
    global _calls_lock, _pending_signal
    _calls_lock = threading.RLock()
    _pending_signal = None
    _open_runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_runs)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


# --- cleaning of names and values ------------------------------------------------------------------------------------


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _clean_name(name: str) -> str:
    """`name` with what MLflow allows in a name: ASCII letters, digits, ``_-./`` and space; no leading dot or slash."""
    allowed = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", str(name))
    return posixpath.normpath(allowed).lstrip("./ ")[:_NAME_LENGTH].rstrip("/. ") or "_"


def _clean_tags(tags: Mapping[str, object]) -> dict[str, str]:
    return {_clean_name(name): _cut(str(value), _TAG_LENGTH) for name, value in tags.items()}


def _clean_path(path: str) -> str:
    normal = posixpath.normpath(path)
    if normal in ("", ".") or normal.startswith(("/", "..")) or "\\" in normal:
        raise ValueError(f"the path of an artifact must be relative, with forward slashes and no '..', got {path!r}")
    return normal


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _plain(value: object) -> object:
    """A cell of a table as JSON knows it; NaN and infinities become null, as in pandas."""
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else None
    return str(value)


def _table_json(columns: Mapping[str, list[object]]) -> str:
    """The "split" form of pandas, in which MLflow keeps its tables."""
    return json.dumps({"columns": list(columns), "data": list(zip(*columns.values(), strict=True))})


def _png(image: np.ndarray[Any, Any]) -> bytes:
    """PNG (ISO/IEC 15948) of a uint8 image of shape (H, W) or (H, W, 3)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = image.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if image.ndim == 2 else 2, 0, 0, 0)
    lines = b"".join(b"\0" + np.ascontiguousarray(line).tobytes() for line in image)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _replace(target: Path, make: Callable[[Path], object]) -> None:
    """Make a file under another name in the same folder, then put it in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        make(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _public(uri: str) -> str:
    """The URI without the user name, password and query that it may carry."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _one_line(error: BaseException) -> str:
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return _cut(re.sub(r"://[^/@\s]*@", "://", text), 300)
