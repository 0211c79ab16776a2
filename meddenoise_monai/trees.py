"""Folders of this machine, and of any store that fsspec knows (s3://bucket/prefix, gs://, sftp://, …), as one thing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import InputError, UsageError
from .whole_files import TEMPORARY, replace_whole

__all__ = ["Entry", "Tree"]

# Where what is uploaded appears whole by itself; elsewhere it is renamed when it is there.
_WHOLE_AT_ONCE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})
_COMPANIONS = {".par": (".rec", ".REC"), ".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz")}


@dataclasses.dataclass(frozen=True, slots=True)  # there are millions of them
class Entry:
    """A file: its size, and what changes when the file does (its ETag, or the time of its last change).

    Of what cannot be looked at, the size is -1 and the version the reason.
    """

    size: int
    version: str


class Tree:
    """All files below a folder, by names relative to it, with slashes. Can be pickled: each process opens its own.

    Parameters
    ----------
    place
        A path, or a URL of fsspec's.

    Raises
    ------
    UsageError
        If what is needed for such a URL is not installed, or nobody knows it.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.place = os.fspath(place)
        self.local = "://" not in self.place and "::" not in self.place
        if of_this_machine := re.match(r"(file|local):(//)?(?=/)", self.place):
            self.place, self.local = self.place[of_this_machine.end() :], True
        if self.local:
            self.place = os.path.abspath(self.place)
            self.root = self.place
        else:
            self.root = str(self._files()._strip_protocol(self.place)).rstrip("/")

    def _files(self) -> Any:
        """The file system."""
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.place)[0]
        except ImportError as error:
            hint = "install it; s3:// needs the extra: pip install 'meddenoise-monai[archive]'"
            raise UsageError(f"cannot use {self.place}: {' '.join(str(error).split())}", hint) from error
        except ValueError as error:
            raise UsageError(f"cannot use {self.place}: {error}", "give a path, or a URL such as s3://…") from error

    def _full(self, name: str) -> str:
        return f"{self.root}/{name}"

    def holds(self, other: Tree) -> bool:
        """Whether the other place is this one, or lies in it, whatever links lead there."""
        if self.local != other.local:
            return False
        mine, its = (os.path.realpath(tree.root) if tree.local else tree.root.rstrip("/") for tree in (self, other))
        return f"{its}/".startswith(f"{mine.rstrip('/')}/")

    def entries(self, lenient: bool = False) -> Iterator[tuple[str, Entry]]:
        """All files, but for hidden ones and those in hidden folders; folder by folder, in no order.

        Parameters
        ----------
        lenient
            Of what lies on this machine: give a folder that cannot be listed as an entry of size -1, whose name ends in
            a slash, instead of raising.

        Raises
        ------
        InputError
            If the place cannot be read, wholly or in part. One that does not exist has no files.
        """
        with self._problems("read"):
            if self.local:
                yield from self._local_entries(lenient)
                return
            files = self._files()
            files.invalidate_cache()  # other processes write there, too
            for folder, _, found in files.walk(self.root, detail=True, on_error=_raise_but_for_missing):
                inside = str(folder)[len(self.root) :].strip("/")
                if any(part.startswith(".") for part in inside.split("/")):
                    continue
                for base, facts in found.items():
                    if base and not base.startswith("."):
                        yield (f"{inside}/{base}" if inside else base), _entry(facts)

    def _local_entries(self, lenient: bool) -> Iterator[tuple[str, Entry]]:
        unlisted: list[OSError] = []
        for folder, folders, found in os.walk(self.root, onerror=unlisted.append):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for base in found:
                if not base.startswith("."):
                    yield from self._seen(os.path.join(folder, base))
        for error in unlisted:
            if isinstance(error, FileNotFoundError):  # the place itself, or removed meanwhile
                continue
            if not lenient or error.filename == self.root:
                raise error
            yield f"{self._name(error.filename)}/", Entry(-1, str(error.strerror))

    def _seen(self, path: str) -> Iterator[tuple[str, Entry]]:
        try:
            facts = os.stat(path)
            yield self._name(path), Entry(facts.st_size, str(facts.st_mtime_ns))
        except FileNotFoundError:  # a link to nowhere, or removed meanwhile
            return
        except OSError as error:
            yield self._name(path), Entry(-1, str(error.strerror))

    def _name(self, path: str) -> str:
        return path[len(self.root) :].replace(os.sep, "/").lstrip("/")

    def exists(self) -> bool:
        """Whether there is such a folder; of a store that knows no folders, whether there is a file in it."""
        with self._problems("read"):
            return os.path.isdir(self.root) if self.local else bool(self._files().exists(self.root))

    @contextlib.contextmanager
    def as_file(self, name: str) -> Iterator[Path]:
        """A path under which a file can be read: its own, or that of a copy that stays as long as the context.

        Raises
        ------
        InputError
            If it cannot be fetched.
        """
        if self.local:
            yield Path(self._full(name))
            return
        with tempfile.TemporaryDirectory(prefix="meddenoise-") as scratch:
            copy = Path(scratch, PurePosixPath(name).name)
            with self._problems("read"):
                files = self._files()
                files.get_file(self._full(name), str(copy))
                for suffix in _COMPANIONS.get(copy.suffix.lower(), ()):  # their pixels lie in a second file
                    beside = str(PurePosixPath(name).with_suffix(suffix))
                    if files.exists(self._full(beside)):
                        files.get_file(self._full(beside), str(Path(scratch, PurePosixPath(beside).name)))
            yield copy  # what is wrong with its content is no problem of the store

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        with self._problems("read"):
            return (
                Path(self._full(name)).read_bytes() if self.local else bytes(self._files().cat_file(self._full(name)))
            )

    def put(self, file: Path, name: str) -> None:
        """Copy a file of this machine to `name`, where it appears whole or not at all.

        Raises
        ------
        InputError
            If the store refuses.
        """
        if self.local:
            with replace_whole(self._full(name)) as temporary:
                temporary.write_bytes(file.read_bytes())
            return
        with self._problems("write"):
            files, place = self._files(), self._full(name)
            protocol = files.protocol if isinstance(files.protocol, str) else files.protocol[0]
            if protocol in _WHOLE_AT_ONCE:
                files.put_file(str(file), place)
                return
            parent, _, base = place.rpartition("/")
            files.makedirs(parent, exist_ok=True)
            files.put_file(str(file), f"{parent}/{TEMPORARY}{base}")
            files.mv(f"{parent}/{TEMPORARY}{base}", place)

    def remove(self, name: str) -> None:
        """Remove a file; that it is gone already is no error."""
        with self._problems("write"), contextlib.suppress(FileNotFoundError):
            if self.local:
                os.unlink(self._full(name))
            else:
                self._files().rm_file(self._full(name))

    def remove_halves(self) -> None:
        """Remove what a killed job has left of files of this machine that were not whole yet."""
        if not self.local:
            return
        for folder, folders, found in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for base in found:
                if base.startswith(TEMPORARY):
                    Path(folder, base).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Write and remove an empty file: a place that refuses is better found before the work than after it.

        Raises
        ------
        InputError
            If it refuses.
        """
        name = f"{TEMPORARY}{uuid.uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory(prefix="meddenoise-") as scratch:
            (empty := Path(scratch, name)).touch()
            self.put(empty, name)
        self.remove(name)

    @contextlib.contextmanager
    def _problems(self, what: str) -> Iterator[None]:
        """What the many kinds of stores raise, as an error of the user's."""
        try:
            yield
        except (InputError, UsageError):
            raise
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"cannot {what} {self.place}: {reason}", "check the place and the permissions") from error
        except Exception as error:
            if self.local:
                raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"cannot {what} {self.place}: {reason}", "check the place and the credentials") from error


def _raise_but_for_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _entry(facts: dict[str, Any]) -> Entry:
    version = next((facts[key] for key in ("ETag", "etag", "mtime", "LastModified", "created") if facts.get(key)), "")
    return Entry(int(facts.get("size") or 0), str(version).strip('"'))
