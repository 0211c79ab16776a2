"""The record of a job over many files: what became of each, so that it can be checked and gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from .errors import InputError
from .whole_files import replace_whole

__all__ = ["MANIFEST", "Manifest", "file_digest"]

MANIFEST = "manifest.json"
_JOURNAL = ".manifest.jsonl"


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _difference(old: Any, new: Mapping[str, Any]) -> str:
    """In what another job differs from this one."""
    if not isinstance(old, Mapping):
        return "of another job"
    names = [name for name in (*new, *(name for name in old if name not in new)) if old.get(name) != new.get(name)]
    return "of another job: " + ", ".join(f"{name} {old.get(name)}, now {new.get(name)}" for name in names)


class Manifest:
    """`manifest.json` in an output folder, with a journal beside it while the job runs.

    A line of the journal is written before a result is, and another one after it: however a job ends, the next one
    knows which results are whole, and which one it may replace. `close` turns the journal into the manifest.

    Parameters
    ----------
    folder
        Where the results go; made if need be.
    identity
        All that a result depends on besides its source. Records of a job of another identity are forgotten.
    source
        The folder that the sources lie in. Of another one only results of the very same files count.

    Raises
    ------
    InputError
        If there is a `manifest.json` of something else.

    Attributes
    ----------
    files
        What became of each, by name: ``status`` (``begun``, ``done``, ``failed``, or ``unsuitable`` for what is no
        image to be worked on), and facts.
    other
        In what the job differs that the folder has results of; empty if there is none such.
    cut_off
        Whether the job before was killed: half files of it may lie about.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: Mapping[str, Any], source: Path) -> None:
        self.folder, self.source = Path(folder), os.path.realpath(source)
        self.identity = json.loads(json.dumps(identity))
        self.files: dict[str, dict[str, Any]] = {}
        self.cut_off = (self.folder / _JOURNAL).is_file()
        self._journal: IO[str] | None = None
        self._lock = threading.Lock()  # writing threads share the journal
        self._elsewhere: set[str] = set()
        self.other = ""
        for content in (self._read_manifest(), *self._read_journal()):
            if content and content.get("job") != self.identity:
                self.other = _difference(content.get("job"), self.identity)
            if content.get("job") == self.identity:
                self.files.update(content["files"])
                here = content.get("source") == self.source
                self.other = "" if here else f"of the folder {content.get('source')}"
                (self._elsewhere.difference_update if here else self._elsewhere.update)(content["files"])

    def _read_manifest(self) -> dict[str, Any]:
        path = self.folder / MANIFEST
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        if isinstance(content, dict) and isinstance(content.get("files"), dict) and "job" in content:
            return content
        raise InputError(f"{path} is none that was written here", "choose another output, or move that file away")

    def _read_journal(self) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / _JOURNAL).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return []
        found: list[dict[str, Any]] = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:  # torn by a kill
                continue
        return [content for content in found if isinstance(content, dict) and isinstance(content.get("files"), dict)]

    def begun(self, name: str) -> bool:
        """Whether this job, or one of the same identity and source before, has begun `name`: it may be replaced."""
        entry = self.files.get(name, {}) if name not in self._elsewhere else {}
        return entry.get("status") == "begun" or "output" in entry

    def is_done(self, name: str, source: Path) -> bool:
        """Whether the result of `source` is there, whole, and of this very source."""
        entry = self.files.get(name, {})
        result = self.folder / str(entry.get("output", ""))
        if entry.get("status") != "done" or not result.is_file():
            return False
        return (file_digest(source), file_digest(result)) == (entry.get("input_sha256"), entry.get("output_sha256"))

    def begin(self, name: str) -> None:
        """To be called before the result of `name` is written."""
        self._append(name, {"status": "begun"})

    def done(self, name: str, source: Path, result: Path, **facts: Any) -> None:
        """To be called when it is written.

        Parameters
        ----------
        facts
            Whatever else is to stand in the record.
        """
        digests = {"input_sha256": file_digest(source), "output_sha256": file_digest(result)}
        self._append(name, {"status": "done", "output": result.relative_to(self.folder).as_posix(), **digests, **facts})

    def failed(self, name: str, error: str, status: str = "failed") -> None:
        """To be called if there is none; a result of before stays this job's."""
        made = {key: value for key, value in self.files.get(name, {}).items() if key in ("output", "output_sha256")}
        self._append(name, {"status": status, "error": error, **made})

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        line = json.dumps({"job": self.identity, "source": self.source, "files": {name: entry}})
        with self._lock:
            self.files[name] = entry
            self._elsewhere.discard(name)
            self._write(line)

    def _write(self, line: str) -> None:
        try:
            if self._journal is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._journal = (self.folder / _JOURNAL).open("a", encoding="utf-8")
                self._journal.write("\n")  # the last line may have been torn
            self._journal.write(line + "\n")
            self._journal.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.folder / _JOURNAL}: {error.strerror or error}",
                             "check free space and permissions") from error  # fmt: skip

    def close(self) -> None:
        """Write `manifest.json` and remove the journal.

        Raises
        ------
        InputError
            If the file system refuses; the journal stays then.
        """
        if self._journal is None and not self.cut_off:
            return
        if self._journal is not None:
            self._journal.close()
        self._journal = None
        with replace_whole(self.folder / MANIFEST) as temporary:
            content = {"job": self.identity, "source": self.source, "files": dict(sorted(self.files.items()))}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        (self.folder / _JOURNAL).unlink(missing_ok=True)
