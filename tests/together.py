"""Two processes that meet; they import nothing heavy, so that a test of them takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from meddenoise_monai import distributed
from meddenoise_monai.errors import InputError, MeddenoiseError


def _meet(rank: int, port: int, job: Callable[[], Any], results: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port), OMP_NUM_THREADS="1")  # fmt: skip
    distributed.join("cpu", minutes=1.0)
    try:
        results.put((rank, job()))
    except MeddenoiseError as error:
        results.put((rank, error.message))
    distributed.leave()


def in_two(job: Callable[[], Any]) -> list[Any]:
    """What `job` gives in each of two processes that have met; an error of ours gives its message."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_meet, args=(rank, port, job, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found_by_rank = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [found_by_rank[rank] for rank in range(2)]


def agree() -> dict[str, Any]:
    """All that two processes can ask of each other; for `in_two`."""
    rank = distributed.rank()
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(float(rank + 1))
    wrapped = distributed.parallel(network)
    wrapped(torch.full((2, 1), float(rank))).sum().backward()
    assert network.weight.grad is not None
    failed: str | None = None
    try:
        distributed.check_same({"seed": 3, "images": f"those of {rank}"})
    except InputError as error:
        failed = error.message
    return {
        "mean": distributed.mean(float(rank)),
        "lead": distributed.from_lead(lambda: f"by {rank}"),
        "gathered": distributed.gathered([rank] * (rank + 1)),
        "leads": distributed.leads(),
        "reports": distributed.first_to_fail(),
        "weight": network.weight.item(),
        "gradient": network.weight.grad.item(),
        "names": list(network.state_dict()),
        "failed": failed,
        "lost": distributed.lost_process(RuntimeError("[pair.cc] Connection closed by peer")) is not None,
        "other": distributed.lost_process(RuntimeError("out of memory")),
        "restarted": distributed.restarted(),
    }
