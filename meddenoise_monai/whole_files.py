"""Files that appear whole or not at all, and JSON files that were perhaps never whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["TEMPORARY", "read_json", "replace_whole"]

TEMPORARY = ".tmp-meddenoise-"  # how the names of unfinished files begin; no other program's do


@contextmanager
def replace_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` with the same suffix; on success it takes its place, on failure nothing stays.

    Raises
    ------
    InputError
        If the file system refuses the write (full disk, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = path.name.lower().endswith(".nii.gz")  # writers go by the suffix, this one has two parts
        suffix = ".nii.gz" if packed else path.suffix
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=suffix)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes files private
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no JSON, or nested deeper than Python can read: whoever wrote that, it is none of our files.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _cannot_write(path: Path, error: OSError) -> InputError:
    told: BaseException | None = error
    while told is not None and not getattr(told, "strerror", None):  # some libraries raise an OSError of their own
        told = told.__cause__ or told.__context__
    reason = told.strerror if isinstance(told, OSError) else " ".join(str(error).split())[-200:]
    return InputError(f"cannot write {path}: {reason}", "check free space and permissions")
