"""Folders of this machine, and of any store that fsspec knows (s3://bucket/prefix, gs://, sftp://, …), as one thing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
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
    """A file: its size, and what changes when the file does (its ETag, or the time of its last change)."""

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
        if self.place.startswith("file://"):
            self.place, self.local = self.place.removeprefix("file://"), True
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
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"cannot use {self.place}: {error}", "install the extra: pip install 'meddenoise-monai[archive]'"
            ) from error

    def _full(self, name: str) -> str:
        return f"{self.root}/{name}"

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """All files, but for hidden ones and those in hidden folders; folder by folder, in no order.

        Raises
        ------
        InputError
            If the place cannot be read. One that does not exist has no files.
        """
        with self._problems("read"):
            if self.local:
                yield from self._local_entries()
                return
            files = self._files()
            files.invalidate_cache()  # other processes write there, too
            for folder, _, found in files.walk(self.root, detail=True):
                inside = str(folder)[len(self.root) :].strip("/")
                if any(part.startswith(".") for part in inside.split("/")):
                    continue
                for base, facts in found.items():
                    if base and not base.startswith("."):
                        yield (f"{inside}/{base}" if inside else base), _entry(facts)

    def _local_entries(self) -> Iterator[tuple[str, Entry]]:
        for folder, folders, found in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.relpath(folder, self.root).replace(os.sep, "/")
            for base in found:
                if not base.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # a link to nowhere, or removed meanwhile
                        seen = os.stat(os.path.join(folder, base))
                        name = base if inside == "." else f"{inside}/{base}"
                        yield name, Entry(seen.st_size, str(seen.st_mtime_ns))

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
        with tempfile.TemporaryDirectory(prefix="meddenoise-") as scratch, self._problems("read"):
            files, copy = self._files(), Path(scratch, PurePosixPath(name).name)
            files.get_file(self._full(name), str(copy))
            for suffix in _COMPANIONS.get(copy.suffix.lower(), ()):  # their pixels lie in a second file
                beside = str(PurePosixPath(name).with_suffix(suffix))
                if files.exists(self._full(beside)):
                    files.get_file(self._full(beside), str(Path(scratch, PurePosixPath(beside).name)))
            yield copy

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
        if self.local:
            for half in Path(self.root).rglob(f"{TEMPORARY}*"):
                half.unlink(missing_ok=True)

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
            if type(error).__module__.partition(".")[0] not in ("botocore", "aiobotocore", "aiohttp", "gcsfs", "adlfs"):
                raise
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"cannot {what} {self.place}: {reason}", "check the place and the credentials") from error


def _entry(facts: dict[str, Any]) -> Entry:
    version = next((facts[key] for key in ("ETag", "etag", "mtime", "LastModified", "created") if facts.get(key)), "")
    return Entry(int(facts.get("size") or 0), str(version).strip('"'))
