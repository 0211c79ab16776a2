"""One training in several processes, as torchrun starts them: who leads, what each takes, what all must agree on.

The first process (rank 0) leads: it alone tunes baselines, writes files and tracks the run. Every function also works
in a single process, which leads and takes everything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from .errors import InputError, MeddenoiseError, UsageError

__all__ = [
    "ShareOfBatch",
    "check_batch",
    "check_same",
    "device_here",
    "first_to_fail",
    "from_lead",
    "gathered",
    "join",
    "launched",
    "leads",
    "leave",
    "lost_process",
    "mark_begun",
    "mean",
    "parallel",
    "rank",
    "restarted",
    "share",
    "size",
]

T = TypeVar("T")

_JOINED, _BEGUN = "meddenoise/joined", "meddenoise/begun"


@dataclass(frozen=True)
class _Job:
    """What `join` found: the agent's store and this attempt's, the group that objects go through, what comes next."""

    shared: Any
    store: Any
    objects: Any
    restarted: bool


_job: _Job | None = None


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if _job is not None else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _job is not None else 0


def leads() -> bool:
    """Whether this process writes files and tracks the run."""
    return rank() == 0


def device_here() -> torch.device:
    """The GPU of this process on its machine, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def join(device: str | torch.device, minutes: float = 1440.0) -> None:
    """Meet the other processes: over nccl for GPUs, over gloo for CPUs. Nothing happens without torchrun.

    Only rank 0 logs from here on, but for errors.

    Parameters
    ----------
    device
        Of this process.
    minutes
        How long one process waits for another. Rank 0 may tune baselines for an hour while the others wait; a dead
        process is noticed by torchrun at once, not by this limit.

    Raises
    ------
    UsageError
        If this machine has fewer GPUs than processes.
    InputError
        If the processes cannot reach each other.
    """
    global _job
    if _job is not None or not launched():
        return
    here = torch.device(device)
    if here.type == "cuda":
        processes, cards = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if processes > cards:  # all processes of this machine see it, so its first one says it
            raise UsageError(
                f"torchrun started {processes} processes on a machine with {cards} GPU(s)",
                f"give it --nproc_per_node={cards}, or --device cpu to the bundle",
            )
        torch.cuda.set_device(here)
    timeout = timedelta(minutes=minutes)
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    try:
        shared, number, count = next(iter(rendezvous("env://", timeout=timedelta(minutes=10))))
        # The agent's store may outlive the processes, and with it the addresses of those that died.
        store = dist.distributed_c10d.PrefixStore(f"meddenoise/attempt_{attempt}", shared)
        dist.init_process_group(
            "nccl" if here.type == "cuda" else "gloo", store=store, rank=number, world_size=count, timeout=timeout
        )
        # Objects lie in memory: they need no GPU, and waiting for them none either.
        objects = dist.new_group(backend="gloo", timeout=timeout)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the processes cannot meet: {reason}", "start them with torchrun; see docs/scaling.md for several nodes"
        ) from error

    def goes_on() -> bool:
        # A process that died before the training began leaves nothing to go on with but, perhaps, an older training's
        # checkpoint. A store that knows nothing is a new one.
        if attempt:
            return not shared.check([_JOINED]) or shared.check([_BEGUN])
        shared.set(_JOINED, "1")
        return False

    _job = _Job(shared, store, objects, _from_lead(objects, goes_on, number))
    if number:
        logging.disable(logging.WARNING)


def restarted() -> bool:
    """Whether torchrun started the processes again (``--max-restarts``), and the training had begun before."""
    return _job is not None and _job.restarted


def mark_begun() -> None:
    """From now on a restart goes on with this training's checkpoint."""
    if _job is not None and leads():
        _job.shared.set(_BEGUN, "1")


def leave() -> None:
    """Wait for the others, and part from them."""
    global _job
    if _job is not None:
        dist.barrier(_job.objects)
        _job = None
        dist.destroy_process_group()


def from_lead(make: Callable[[], T]) -> T:
    """What `make` gives in rank 0, in every process; nobody else calls it."""
    return make() if _job is None else _from_lead(_job.objects, make, rank())


def _from_lead(group: Any, make: Callable[[], T], number: int) -> T:
    box: list[Any] = [make() if number == 0 else None]
    dist.broadcast_object_list(box, src=0, group=group)
    found: T = box[0]
    return found


def gathered(own: Sequence[T]) -> list[T]:
    """The entries of all processes, in the order of their ranks."""
    if _job is None:
        return list(own)
    parts: list[Any] = [None] * size()
    dist.all_gather_object(parts, list(own), group=_job.objects)
    return [entry for part in parts for entry in part]


def mean(value: float) -> float:
    """The mean over the processes, the same in each."""
    values = gathered([value])
    return sum(values) / len(values)


def share(count: int) -> range:
    """Which of `count` entries this process takes: every `size`-th, so that each entry has one taker.

    Fewer entries than processes are taken by all of them, which keeps their mean and leaves nobody without.
    """
    return range(count) if count < size() else range(rank(), count, size())


def check_batch(batch_size: int, patches_per_image: int = 1) -> None:
    """Refuse a global batch of which the processes cannot take equal parts: their mean would not be its mean.

    Raises
    ------
    UsageError
        With the next size that fits.
    """
    patches = max(1, batch_size // patches_per_image) * patches_per_image
    if patches % size():
        fitting = next(n for n in range(patches, patches * size() + 1, patches_per_image) if n % size() == 0)
        raise UsageError(
            f"a batch of {patches} patches cannot be parted among {size()} processes", f"give --batch_size {fitting}"
        )


def check_same(facts: Mapping[str, object]) -> None:
    """Refuse to go on if the processes differ in one of the `facts`, such as the images they found.

    Raises
    ------
    InputError
        Naming the first of them.
    """
    for name, value in facts.items():
        values = gathered([str(value)])
        others = [number for number, other in enumerate(values) if other != values[0]]
        if others:
            raise InputError(
                f"{name}: process {others[0]} has {values[others[0]]!r}, process 0 has {values[0]!r}",
                "every node needs the same files and options",
            )


def parallel(network: nn.Module) -> nn.Module:
    """`network`, its gradients averaged over the processes; itself where there is one process.

    The parameters stay those of `network`, whose state has no ``module.`` in its names.
    """
    if _job is None:
        return network
    return nn.parallel.DistributedDataParallel(network)


class ShareOfBatch:
    """Collates this process's part of a global batch: every `size`-th patch.

    All processes draw the whole batch, in the same order from the same seeds, so the union of what they take is what
    one process would have drawn. Drawing costs little beside a step of the network; workers hide it.
    """

    def __init__(self) -> None:
        self.first, self.step = rank(), size()  # a worker process could not ask

    def __call__(self, items: Iterable[Any]) -> Any:
        from monai.data.utils import list_data_collate

        patches = [patch for item in items for patch in (item if isinstance(item, list) else [item])]
        return list_data_collate(patches[self.first :: self.step])


def first_to_fail() -> bool:
    """Whether this process is the one that reports the error it ends with; the others fail because of it.

    Before they have met, the first process of each machine does.
    """
    if _job is None:
        return not launched() or os.environ.get("LOCAL_RANK", os.environ["RANK"]) == "0"
    try:
        return bool(_job.store.add("failed", 1) == 1)
    except RuntimeError:  # the store is gone, and who knows what was said
        return True


def lost_process(error: BaseException) -> MeddenoiseError | None:
    """The user's view of an error that only says that another process is gone; None for any other error."""
    text = str(error).lower()
    if _job is None or not (isinstance(error, dist.DistError) or "gloo" in text or "connection closed by peer" in text):
        return None
    return MeddenoiseError(
        f"process {rank()} lost another process of this training",
        "its own messages say why; torchrun --max-restarts=3 goes on from the last checkpoint by itself",
    )
