"""One training or evaluation that is being recorded: what is taken, and where it goes when the store is lost."""

from __future__ import annotations

import abc
import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, SupportsFloat, TypeAlias

import numpy as np

from ..errors import UsageError
from .addresses import check_reachable, public
from .cleaning import clean_name, clean_params, clean_path, clean_tags, one_line, plain
from .process import mlflow_call, unregister
from .stores import LocalStore, MlflowStore, Status, Store

__all__ = ["LocalRun", "MlflowRun", "Run"]

_log = logging.getLogger(__name__)

_Kind: TypeAlias = Literal["records", "files"]

_INFINITY = 1e9
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


class Run(abc.ABC):
    """One training or evaluation that is being recorded.

    As a context manager it closes itself: FINISHED; FAILED after an exception; KILLED after KeyboardInterrupt or a
    SystemExit with another code than 0.

    Parameters
    ----------
    run_id
        Name that `open_run` takes as `resume_run_id`.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._closed = False
        self._nan_seen = False

    @property
    @abc.abstractmethod
    def url_hint(self) -> str:
        """How to look at the run: a command line, an address, or the path of a file. Never holds a password."""

    @abc.abstractmethod
    def _write(self, kind: _Kind, action: Callable[[Store], None]) -> None:
        """Apply `action` to the store that takes this kind of record."""

    @abc.abstractmethod
    def _end(self, status: Status) -> None:
        """Tell the store that the run has ended, and how."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record hyper-parameters.

        Nested mappings are flattened with dots; values are written with `str` and cut to 6000 characters. MLflow never
        changes a parameter: the first value stays, and a later, different one becomes the tag ``resumed.<name>``.
        """
        values = clean_params(params)
        self._record("records", lambda store: store.params(values))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; values are written with `str` and cut to 8000 characters."""
        values = clean_tags(tags)
        self._record("records", lambda store: store.tags(values))

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Record numbers of one step (an epoch, an iteration).

        A NaN is left out, with one warning a run; an infinite value is recorded as ±1e9, because MLflow stores it as
        1.8e308 and its charts then show nothing else.
        """
        values = {}
        for name, value in metrics.items():
            number = float(value)
            if not math.isnan(number):
                values[clean_name(name)] = math.copysign(_INFINITY, number) if math.isinf(number) else number
            elif not self._nan_seen:
                self._nan_seen = True
                _log.warning("metric %s is NaN at step %d: NaN values are not recorded", name, step)
        if values:
            self._record("records", lambda store: store.metrics(values, step))

    def log_table(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        """Record a table as ``<name>.json``, shown by MLflow's Evaluation tab; one of the same name is replaced.

        Raises
        ------
        ValueError
            There is no column, or the columns differ in length.
        """
        lengths = {title: len(column) for title, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"table {name!r} needs one or more columns of one length, got {lengths}")
        path = clean_path(name.removesuffix(".json") + ".json")
        values = {title: [plain(value) for value in column] for title, column in columns.items()}
        self._record("files", lambda store: store.table(path, values))

    def log_image(self, key: str, image: np.ndarray[Any, Any], step: int) -> None:
        """Record a picture, uint8 of shape (H, W) or (H, W, 3); MLflow shows a slider over the steps of one key.

        Raises
        ------
        ValueError
            The array has another type or shape.
        """
        if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)) or image.size == 0:
            raise ValueError(
                f"image {key!r} must be uint8 of shape (H, W) or (H, W, 3), got {image.dtype} {image.shape}"
            )
        self._record("files", lambda store: store.image(clean_name(key), image, step))

    def log_text(self, text: str, path: str) -> None:
        """Record a text as the artifact `path`, relative, with forward slashes."""
        target = clean_path(path)
        self._record("files", lambda store: store.text(text, target))

    def log_dict(self, obj: object, path: str) -> None:
        """Record an object as JSON, as the artifact `path`; what JSON lacks is written with `str`."""
        self.log_text(json.dumps(obj, indent=2, ensure_ascii=False, default=str) + "\n", path)

    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Record a copy of a file as an artifact of the same name, in `folder`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        """
        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"no file to record at {source}")
        target = clean_path(folder) if folder else ""
        self._record("files", lambda store: store.file(source, target))

    @property
    def closed(self) -> bool:
        """Whether the run has ended."""
        return self._closed

    def close(self, status: Status = "FINISHED") -> None:
        """End the run. The first call wins, later ones do nothing; never raises because of the store."""
        with mlflow_call():
            if not self._closed:
                self._closed = True
                self._end(status)
        unregister(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.close("FINISHED")
        else:
            self.close("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")

    def _record(self, kind: _Kind, action: Callable[[Store], None]) -> None:
        with mlflow_call():
            self._write(kind, action)


class LocalRun(Run):
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
        self._store = LocalStore(path)
        try:
            event = "resume" if self._store.events.exists() else "start"
            self._store.append(event, {"run_id": self.run_id, "pid": os.getpid()})
        except OSError as error:
            raise UsageError(
                f"the folder for the record of this run cannot be written: {error}",
                "give a folder that can, or the address of an MLflow server as tracking_uri",
            ) from error

    @property
    def url_hint(self) -> str:
        return str(self._store.events)

    def _write(self, kind: _Kind, action: Callable[[Store], None]) -> None:
        self._store.attempt(action)

    def _end(self, status: Status) -> None:
        self._store.attempt(lambda store: store.end(status))


class MlflowRun(Run):
    """A run in an MLflow store, which goes on in a local folder when the store is lost. `open_run` makes it.

    A record that the store refuses (and would refuse again) goes to the local folder alone. When only the files cannot
    be stored, as on a server whose artifact folder the client cannot write, only the files go there.
    """

    def __init__(self, store: MlflowStore, uri: str, url_hint: str, local_folder: Path) -> None:
        super().__init__(store.run_id)
        self._store = store
        self._uri = uri
        self._hint = url_hint
        self._local = LocalStore(local_folder)
        self._lost: set[_Kind] = set()
        self._refused = False

    @property
    def tracking_uri(self) -> str:
        """The address of the store, with the password that it may hold."""
        return self._uri

    @property
    def url_hint(self) -> str:
        return f"{self._hint} (what the store did not take: {self._local.events})" if self._lost else self._hint

    def _write(self, kind: _Kind, action: Callable[[Store], None]) -> None:
        if kind not in self._lost:
            try:
                action(self._store)
                return
            except Exception as error:
                self._note_failure(kind, error)
        self._local.attempt(action)

    def _note_failure(self, kind: _Kind, error: Exception) -> None:
        refused = getattr(error, "error_code", None) in _REFUSALS
        if not refused:
            self._lost.add(kind)
        if not (refused and self._refused):
            _log.warning(
                "MLflow (%s) %s (%s): %s written to %s",
                public(self._uri),
                "refused a record" if refused else f"takes no more {kind}",
                one_line(error),
                "it and any other refused are" if refused else "from now on they are",
                self._local.folder,
            )
        self._refused |= refused

    def _end(self, status: Status) -> None:
        if "records" in self._lost:
            # The server may have come back: then the run shall not stay RUNNING there.
            with contextlib.suppress(Exception):
                check_reachable(self._uri)
                self._store.tags({"meddenoise.incomplete": "the store was lost while the run was being recorded"})
                self._store.end(status)
        else:
            try:
                self._store.end(status)
            except Exception as error:
                self._note_failure("records", error)
        if self._lost or self._refused:
            self._local.attempt(lambda store: store.end(status))
