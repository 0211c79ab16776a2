"""The stages of an archive's job as actors of Ray Data: read and decoded, denoised, encoded and written.

Ray Data streams: it starts no more than what the slowest stage and the store of objects can take. A worker that dies is
replaced, and what it had in hand is done again; a file at which workers die again and again is given up by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from .dicom import silence
from .errors import MeddenoiseError, UsageError
from .records import Record
from .stages import Item, Order, Passing

__all__ = ["run_on_ray"]

_log = logging.getLogger(__name__)

_BLOCK = 16  # files that go from stage to stage together, at most
_RETRIES = 3  # of a block whose worker died
_OBJECTS = 2**30  # bytes that wait between the stages, on one machine


class _Stage:
    """An actor: takes and gives columns of pickled values. Workers log nothing: messages may name files."""

    def __init__(self, order: Order) -> None:
        self.order = order
        logging.getLogger(__package__).setLevel(logging.CRITICAL)
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(silence())

    def one(self, value: Any) -> Any:
        raise NotImplementedError

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        values = [pickle.dumps(self.one(pickle.loads(value.as_py()))) for value in batch.column("value")]
        return pyarrow.table({"value": pyarrow.array(values, pyarrow.large_binary())})


class Decode(_Stage):
    """Files → images."""

    def one(self, value: Item) -> Passing:
        return self.order.decode(value)


class Denoise(_Stage):
    """Images → denoised images."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self.problem: MeddenoiseError | None = None
        try:
            self.denoise = order.denoiser()
        except MeddenoiseError as error:  # raised here, it would only be tried again
            self.problem = error

    def one(self, value: Passing) -> Passing | MeddenoiseError:
        return self.problem or self.order.work(self.denoise, value)


class Encode(_Stage):
    """Denoised images → files, and records of them."""

    def one(self, value: Passing | MeddenoiseError) -> Record | MeddenoiseError:
        return value if isinstance(value, MeddenoiseError) else self.order.encode(value)


def run_on_ray(
    order: Order, items: Sequence[Item], workers: int | None = None, address: str | None = None
) -> Iterator[Record]:
    """The records of all items, in the order in which they come to be.

    Parameters
    ----------
    order, items
        What is to be done.
    workers
        Processes that denoise; by default one for each GPU or core of this machine.
    address
        Of a cluster that runs; by default one is started here, on the loopback interface, and ended with the job.

    Raises
    ------
    UsageError
        If Ray is not installed, or the cluster cannot be reached, or has no GPU where one is asked for.
    InputError
        If its machines have other weights.
    """
    import torch

    gpu = (order.device or ("cuda" if torch.cuda.is_available() else "cpu")).startswith("cuda")
    count = workers or (torch.cuda.device_count() if gpu else os.cpu_count()) or 1
    if address is None and not gpu and count > (os.cpu_count() or 1):
        _log.warning("%d workers on %d cores get in each other's way", count, os.cpu_count() or 1)
    with _cluster(count, gpu, address):
        missing = {item.name: item for item in items}
        # Blocks that are given up are small the second time, so that what kills workers is found out.
        for size in (max(1, min(_BLOCK, len(items) // (4 * count))), 1):
            if not missing:
                return
            for record in _stream(order, list(missing.values()), size, count, gpu):
                if missing.pop(record.source, None) is not None:
                    yield record
        for name in missing:
            yield Record(name, "", "failed", "the process that worked on it died, again and again", order.digest, "")


def _stream(order: Order, items: Sequence[Item], size: int, workers: int, gpu: bool) -> Iterator[Record]:
    import pyarrow
    import ray.data

    tables = [
        pyarrow.table({"value": pyarrow.array(map(pickle.dumps, items[at : at + size]), pyarrow.large_binary())})
        for at in range(0, len(items), size)
    ]
    # On CPUs the network is the work by far: a quarter of a core is enough for all that is beside it.
    beside, cpus = (4 * workers, 1.0) if gpu else (max(1, workers // 4), 0.25)
    data: Any = ray.data.from_arrow(tables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of where Ray will take the number of retries in another version
        for stage, actors, resources in (
            (Decode, beside, {"num_cpus": cpus}),
            (Denoise, workers, {"num_cpus": 1.0, "num_gpus": 1 if gpu else 0}),
            (Encode, beside, {"num_cpus": cpus}),
        ):
            data = data.map_batches(
                stage, fn_constructor_args=(order,), compute=ray.data.ActorPoolStrategy(size=actors), batch_size=size,
                batch_format="pyarrow", max_restarts=-1, max_task_retries=_RETRIES, **resources,
            )  # fmt: skip
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for value in batch.column("value"):
                made = pickle.loads(value.as_py())
                if isinstance(made, MeddenoiseError):
                    raise made
                yield made


@contextlib.contextmanager
def _cluster(workers: int, gpu: bool, address: str | None) -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing of an archive leaves it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its core would write to our standard error
    if address is None:
        # A cluster of this machine alone, on the loopback interface: as Ray does it where it knows no others. It takes
        # the address 127.0.0.1 for that of the network, and would listen to everybody. Read when Ray is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            f"the engine ray needs Ray: {error}", "install the extra: pip install 'meddenoise-monai[archive]'"
        ) from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # Ray logs what its processes print; what they print of a patient is nothing, but none but the user shall read it.
    # Ray opens its folder to everybody, so it gets one inside. Its sockets lie there, whose paths may have 107 bytes.
    top = tempfile.gettempdir()
    scratch = tempfile.mkdtemp(prefix="meddenoise-ray-", dir=top if len(os.fsencode(top)) < 16 else "/tmp")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    stack = contextlib.ExitStack()
    try:
        with _streams_shut():
            if address is None:
                ray.init(
                    address="local", num_cpus=None if gpu else workers + max(1, workers // 4), include_dashboard=False,
                    object_store_memory=_OBJECTS, _temp_dir=f"{scratch}/r", **common,
                )  # fmt: skip
            else:
                _join(address, common)
        resources: Any = ray.cluster_resources  # which has no types
        if gpu and not resources().get("GPU"):
            raise UsageError(
                "no machine of the cluster has a GPU", "start Ray where there is one, or take --device cpu"
            )
        stack.enter_context(_ended_by_sigterm())
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
        stack.close()


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    if (place := re.fullmatch(r"([^/:]+):(\d+)", address)) is not None:  # Ray itself would try for minutes
        try:
            socket.create_connection((place[1], int(place[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"no Ray cluster at {address}: {error}", "start one by: ray start --head") from error
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"no Ray cluster at {address}: {reason}", "start one by: ray start --head") from error


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, which batch systems send, ends the job as Ctrl-C does. Ray's own handler would print a stack of C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _streams_shut() -> Iterator[None]:
    """What Ray says while it starts, some of it from C++, is nothing to those who asked for denoised images."""
    kept = []
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # closed by the shell
            kept.append((stream, os.dup(stream)))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream, _ in kept:
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)
