"""The two places that take records: a folder, and an MLflow store.

Names and values come clean, paths with forward slashes. Both have the same methods.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from .cleaning import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["LocalStore", "MlflowStore", "Status", "Store"]

_log = logging.getLogger(__name__)

Status: TypeAlias = Literal["FINISHED", "FAILED", "KILLED"]

_PARAMS_PER_BATCH = 100  # MLflow's limit


class LocalStore:
    """A folder: ``events.jsonl``, one JSON object a line, beside ``images/<key>/<step>.png`` and ``artifacts/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = folder / "events.jsonl"
        self._failed = False

    def attempt(self, action: Callable[[Store], None]) -> None:
        """Record, or, on a full disk, warn once and drop."""
        try:
            action(self)
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning("records of this run are lost, %s cannot be written: %s", self.folder, one_line(error))

    def append(self, event: str, content: Mapping[str, object]) -> None:
        line = json.dumps({"time": time.time(), "event": event, **content}, ensure_ascii=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def params(self, values: dict[str, str]) -> None:
        self.append("params", {"params": values})

    def tags(self, values: dict[str, str]) -> None:
        self.append("tags", {"tags": values})

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.append("metrics", {"step": step, "metrics": values})

    def table(self, path: str, columns: dict[str, list[object]]) -> None:
        path = f"artifacts/{path}"
        self._make(path, lambda temporary: temporary.write_text(_table_json(columns), encoding="utf-8"))
        self.append("table", {"path": path})

    def image(self, key: str, image: np.ndarray[Any, Any], step: int) -> None:
        from PIL import Image

        path = f"images/{key}/{step:06d}.png"
        self._make(path, lambda temporary: Image.fromarray(image).save(temporary, "PNG"))
        self.append("image", {"key": key, "step": step, "path": path})

    def text(self, text: str, path: str) -> None:
        path = f"artifacts/{path}"
        self._make(path, lambda temporary: temporary.write_bytes(text.encode()))
        self.append("file", {"path": path})

    def file(self, source: Path, folder: str) -> None:
        path = posixpath.join("artifacts", folder, source.name)
        self._make(path, lambda temporary: shutil.copyfile(source, temporary))
        self.append("file", {"path": path})

    def end(self, status: Status) -> None:
        self.append("end", {"status": status})

    def _make(self, path: str, make: Callable[[Path], object]) -> None:
        """Make a file under another name in the same folder, then put it in its place."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.new")
        try:
            make(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


class MlflowStore:
    """A run of an MLflow store, by its id: MLflow's global "active run" is not touched.

    Every method raises what MlflowClient raises.

    Parameters
    ----------
    client
        Of the store.
    run_id
        Of the run.
    known_params
        What the run already holds, for one that goes on.
    """

    def __init__(self, client: MlflowClient, run_id: str, known_params: Mapping[str, str]) -> None:
        self._client = client
        self._params = dict(known_params)
        self.run_id = run_id

    def params(self, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        changed = {name: value for name, value in values.items() if self._params.get(name, value) != value}
        fresh = [(name, value) for name, value in values.items() if name not in self._params]
        for start in range(0, len(fresh), _PARAMS_PER_BATCH):
            batch = fresh[start : start + _PARAMS_PER_BATCH]
            self._client.log_batch(self.run_id, params=[Param(*item) for item in batch], synchronous=True)
            self._params.update(batch)
        if changed:
            _log.warning(
                "parameters differ from those that the run began with: %s; the new values are tags resumed.<name>",
                ", ".join(sorted(changed)),
            )
            self.tags({f"resumed.{name}": value for name, value in changed.items()})

    def tags(self, values: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(*item) for item in values.items()], synchronous=True)

    def metrics(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, value, now, step) for name, value in values.items()]
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

    def text(self, text: str, path: str) -> None:
        self._client.log_text(self.run_id, text, path)

    def file(self, source: Path, folder: str) -> None:
        self._client.log_artifact(self.run_id, str(source), folder or None)

    def end(self, status: Status) -> None:
        self._client.set_terminated(self.run_id, status)


def _table_json(columns: Mapping[str, list[object]]) -> str:
    """The "split" form of pandas, in which MLflow keeps its tables."""
    return json.dumps({"columns": list(columns), "data": list(zip(*columns.values(), strict=True))})


Store: TypeAlias = LocalStore | MlflowStore
