"""The measurements of a comparison as small independent tasks: run side by side, kept on disk, never done twice."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..whole_files import read_json, replace_whole
from .conditions import Condition
from .measures import MEASURES, REVISION
from .methods import Method, load

__all__ = ["Task", "Values", "Workers", "run_tasks", "workers_here"]

Values = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One measure of several methods on one subject.

    Attributes
    ----------
    measure
        Name of a function of `measures`.
    methods
        Each is measured by itself.
    arguments
        Of that function: arrays, numbers, a `Condition`.
    about
        What the results are filed under; no part of what is computed.
    cost
        How long it takes, roughly, on any scale: what takes longest goes first, so that no process ends long after the
        others.
    """

    measure: str
    methods: tuple[Method, ...]
    arguments: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 0.0

    def key(self, method: Method) -> str:
        """Hex digits that change with whatever changes the numbers."""
        digest = hashlib.sha256(f"{REVISION} {self.measure} {method.identity} {torch.__version__}".encode())
        for name, value in sorted(self.arguments.items()):
            digest.update(f" {name}=".encode())
            _feed(digest.update, value)
        return digest.hexdigest()[:24]


def run_tasks(
    tasks: Sequence[Task], cache: Path, workers: Workers | None = None, progress: Callable[[int], None] | None = None
) -> list[dict[str, Values]]:
    """What each task measures of each method, by the method's name, in the order of the tasks.

    Parameters
    ----------
    tasks
        All independent of each other.
    cache
        A folder. What it holds is not computed again; each number is kept there as soon as it is known.
    workers
        Who computes; by default this process.
    progress
        Is told how many tasks are done, after each.

    Raises
    ------
    MeddenoiseError
        What a measure raises.
    InputError
        A process died, as it does where memory is short.
    """
    cache.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Values]] = [{} for _ in tasks]
    missing = []
    for number, task in enumerate(tasks):
        known = {method.name: _read(cache / f"{task.key(method)}.json") for method in task.methods}
        results[number] = {name: values for name, values in known.items() if values is not None}
        if len(results[number]) < len(task.methods):
            missing.append(number)
    missing.sort(key=lambda number: tasks[number].cost, reverse=True)
    done = len(tasks) - len(missing)
    if progress is not None:
        progress(done)
    for place, values in (workers or Workers()).run([tasks[number] for number in missing], cache):
        results[missing[place]] = values
        done += 1
        if progress is not None:
            progress(done)
    return [
        {method.name: result[method.name] for method in task.methods}
        for task, result in zip(tasks, results, strict=True)
    ]


def workers_here() -> int:
    """As many processes as this machine has cores to give, and no more than eight, which have memory enough."""
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


class Workers:
    """Processes of one thread each, so that no result depends on their number. They start when there is work.

    With a `count` of one, the process itself works. Use it as a context: its end is theirs, too.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def run(self, tasks: Sequence[Task], cache: Path) -> Iterator[tuple[int, dict[str, Values]]]:
        """The place of each task and its results, as they come."""
        if self.count <= 1 or (len(tasks) <= 1 and self._pool is None):
            with _one_thread(), _quiet():
                for number, task in enumerate(tasks):
                    yield number, _run(task, cache)
            return
        # Processes start with the first tasks, and take these variables over then.
        with _environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"):
            if self._pool is None:
                # Spawned, not forked: a fork would take the locks of this process's threads with it.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self.count, context, _start)
            try:
                futures = {self._pool.submit(_run, task, cache): number for number, task in enumerate(tasks)}
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BrokenProcessPool:
                raise InputError(
                    "a process of the comparison died", "run it again, with --workers 1 if memory is short: it goes on"
                ) from None


def _start() -> None:
    """What a worker does first. Ctrl-C ends it at once and without a word: nothing half done is ever in the cache."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run(task: Task, cache: Path) -> dict[str, Values]:
    results = {}
    for method in task.methods:
        path = cache / f"{task.key(method)}.json"
        values = _read(path)
        if values is None:
            measured = MEASURES[task.measure](load(method), **task.arguments)
            values = json.loads(json.dumps(measured, default=_plain))  # as the next run will read it, to the last digit
            with replace_whole(path) as temporary:
                temporary.write_text(json.dumps({"sha256": _digest(values), "values": values}), encoding="utf-8")
        results[method.name] = values
    return results


def _read(path: Path) -> Values | None:
    """What the cache holds; nothing where the file is damaged or was changed, so that it is measured again."""
    try:
        content = read_json(path)
        values: Values = content["values"]
        whole = isinstance(values, dict) and content["sha256"] == _digest(values)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return values if whole else None


def _digest(values: Values) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a measure answered with {type(value).__name__}")


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    if isinstance(value, np.ndarray):
        update(f"{value.dtype.str}{value.shape}".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, list | tuple):
        update(f"[{len(value)}".encode())
        for part in value:
            _feed(update, part)
    elif isinstance(value, Condition):
        update(f"{value.model if value.level else value}".encode())
    else:
        update(repr(value).encode())


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """The denoiser names what it does to each image; in a comparison of hundreds nobody reads that."""
    log = logging.getLogger("meddenoise_monai.inference")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Children take these variables over when they start."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
