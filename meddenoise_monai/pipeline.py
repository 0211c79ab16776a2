"""Files that are read ahead and whose results are written behind the one that is being worked on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError, UsageError

__all__ = ["in_turn"]

_AHEAD = 2  # images read before their turn, and results not yet written
_AHEAD_BYTES = 2**28  # of files; larger ones are read when their turn comes, and written before the next

T = TypeVar("T")
R = TypeVar("R")


def in_turn(
    paths: Sequence[Path],
    read: Callable[[Path], T],
    work: Callable[[Path, T], R],
    write: Callable[[Path, T, R, float], None],
) -> Iterator[tuple[Path, InputError | None]]:
    """Each path and what went wrong with it, if anything, in order.

    Parameters
    ----------
    paths
        The files.
    read
        What is read of a file; done by two threads, ahead of its turn.
    work
        What comes of it; done by the caller's thread, one file after the other.
    write
        Puts that down, with the seconds that the work took; done by the two threads again.

    Raises
    ------
    UsageError
        Whatever of these the three raise: it concerns all files. Of what else they raise an InputError is made.
    """
    reading: deque[tuple[Path, Future[T]]] = deque()
    writing: deque[tuple[Path, Future[None]]] = deque()
    waiting = deque(paths)
    pool = ThreadPoolExecutor(2)

    def read_ahead() -> None:
        while waiting and (not reading or (len(reading) < _AHEAD and _size(waiting[0], reading) <= _AHEAD_BYTES)):
            path = waiting.popleft()
            reading.append((path, pool.submit(read, path)))

    def settle(done: tuple[Path, Future[Any]]) -> tuple[Path, InputError | None]:
        try:
            done[1].result()
        except Exception as error:
            return done[0], _as_problem(done[0], error)
        return done[0], None

    try:
        read_ahead()
        while reading:
            path, future = reading.popleft()
            try:
                task = future.result()
                read_ahead()
                started = time.monotonic()
                values = work(path, task)
                writing.append((path, pool.submit(write, path, task, values, time.monotonic() - started)))
            except Exception as error:
                yield path, _as_problem(path, error)
                read_ahead()
            while len(writing) > (_AHEAD if _size(path, reading) <= _AHEAD_BYTES else 0):
                yield settle(writing.popleft())
        while writing:
            yield settle(writing.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _as_problem(path: Path, error: Exception) -> InputError:
    """What is wrong with one file, so that the others can go on; not what is wrong with the command."""
    if isinstance(error, UsageError):
        raise error
    if isinstance(error, InputError):
        return error
    reason = " ".join(str(error).split())[:300]
    problem = InputError(f"{path}: {type(error).__name__}: {reason}", "this should not happen: please report it")
    problem.__cause__ = error
    return problem


def _size(path: Path, reading: Iterable[tuple[Path, Any]]) -> int:
    """Bytes of the file and of those being read."""
    return sum(entry.stat().st_size for entry in (path, *(other for other, _ in reading)) if entry.is_file())
