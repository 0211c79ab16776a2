"""Trainings in several processes, started by torchrun as a user starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.test_bundle_commands import ROOT, finish, statuses, tiny, wait_for_epoch, words
from tests.samples import write_patients

pytestmark = pytest.mark.e2e

SINGLE = ["training", "--config_file", "bundle/configs/train.json"]
SEVERAL = ["training", "--config_file", "['bundle/configs/train.json','bundle/configs/multi_gpu_train.json']"]
OPTIONS: dict[str, Any] = {
    "max_epochs": 4, "steps_per_epoch": 25, "batch_size": 8, "precision": "fp32", "learning_rate": 1e-4
}  # fmt: skip
# The same sums in another order: Adam, which divides by the gradient's size, makes more of it than float32 alone. The
# weights themselves move by up to 5e-3 (100 steps, whose rate rises to 1e-4).
ROUNDING = 2e-4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("distributed") / "data", count=24)


def torchrun(command: list[str], *options: str) -> subprocess.Popen[str]:
    """`command` (``python -m module …``) in the processes of one agent, which is a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *command[1:]], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def two(command: list[str], *options: str) -> subprocess.Popen[str]:
    return torchrun(command, "--standalone", "--nproc_per_node=2", *options)


def trained(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint_last.pt", weights_only=True)
    return state


def largest_difference(one: dict[str, Any], other: dict[str, Any], part: str = "average") -> float:
    assert one["parts"][part].keys() == other["parts"][part].keys()
    pairs = [(value, other["parts"][part][name]) for name, value in one["parts"][part].items()]
    return max(float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max()) for a, b in pairs)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process gives: a folder with its models, its tables and its MLflow database."""
    folder = tmp_path_factory.mktemp("alone")
    process = subprocess.Popen(
        words(SINGLE, **tiny(folder, data, **OPTIONS)), cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    code, _, err = finish(process)
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def pair(data: Path, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """What two processes give: such a folder, and what they said on stdout and stderr."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    code, out, err = finish(two(words(SEVERAL, **tiny(folder, data, **OPTIONS))))
    assert code == 0, err
    return folder, out, err


def children(process: subprocess.Popen[str]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in path.read_text().split()]


def test_two_processes_equal_one(alone: Path, pair: tuple[Path, str, str]) -> None:
    folder, out, err = pair
    assert out.count("| dae ") == 1
    assert err.count("validation after epoch 4") == 1
    assert statuses(folder) == ["FINISHED"]  # one run, not two
    one, several = trained(alone / "models"), trained(folder / "models")
    assert not any(name.startswith("module.") for name in several["parts"]["network"])
    assert largest_difference(one, several, "network") < ROUNDING
    assert largest_difference(one, several) < ROUNDING
    assert several["best_metric"] == pytest.approx(one["best_metric"], abs=1e-5)
    tables = [json.loads((folder / "results.json").read_text()) for folder in (alone, folder)]
    for name in ("noisy", "gaussian", "dae"):
        for metric in ("ssim", "psnr"):
            means = [table["methods"][name][metric]["mean"] for table in tables]
            assert means[1] == pytest.approx(means[0], abs=1e-3)
    assert tables[0]["protocol"]["cases"] == tables[1]["protocol"]["cases"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_nodes_equal_one_process(data: Path, alone: Path, mlflow_folder: Path) -> None:
    port = free_port()
    agents = [
        torchrun(
            words(SEVERAL, **tiny(mlflow_folder, data, **OPTIONS)), "--nnodes=2", "--nproc_per_node=1",
            f"--node_rank={node}", "--master_addr=127.0.0.1", f"--master_port={port}",
        )
        for node in (0, 1)
    ]  # fmt: skip
    ends = [finish(agent) for agent in agents]
    assert [code for code, _, _ in ends] == [0, 0], ends[0][2] + ends[1][2]
    assert "| dae " in ends[0][1]
    assert "| dae " not in ends[1][1]
    assert largest_difference(trained(alone / "models"), trained(mlflow_folder / "models")) < ROUNDING
    assert statuses(mlflow_folder) == ["FINISHED"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes in /proc")
def test_killed_process_restarts_from_the_checkpoint(
    data: Path, pair: tuple[Path, str, str], mlflow_folder: Path
) -> None:
    whole = trained(pair[0] / "models")
    broken = mlflow_folder / "broken"
    broken.mkdir()
    # A finished training's checkpoint lies there: it must not be taken for this one's.
    shutil.copyfile(pair[0] / "models" / "checkpoint_last.pt", broken / "checkpoint_last.pt")
    process = two(words(SEVERAL, **tiny(mlflow_folder, data, "broken", **OPTIONS)), "--max-restarts=1")
    set_aside = broken / "checkpoint_previous.pt"
    deadline = time.monotonic() + 120
    while not set_aside.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    wait_for_epoch(broken / "checkpoint_last.pt", 1, process)
    os.kill(children(process)[1], signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 0, err
    resumed = re.findall(r"resumed after epoch (\d)", err)
    assert len(resumed) == 1
    assert 1 <= int(resumed[0]) < OPTIONS["max_epochs"]
    assert out.count("| dae ") == 1
    again = trained(broken)
    for part in ("network", "average"):
        assert largest_difference(whole, again, part) == 0.0
    assert whole["best_metric"] == again["best_metric"]
    assert statuses(mlflow_folder) == ["FINISHED"]  # the restarted training went on in its own run


def test_error_of_all_is_told_once(data: Path, mlflow_folder: Path) -> None:
    got, _, err = finish(two(words(SEVERAL, **tiny(mlflow_folder, data, max_epoch=3))))
    assert got != 0
    lines = err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == ["error: unknown override --max_epoch"]
    assert lines[lines.index("error: unknown override --max_epoch") + 1] == "hint: did you mean 'max_epochs'?"


def test_error_of_one_process_ends_all(data: Path, mlflow_folder: Path) -> None:
    network = "$1 / 0 if distributed.rank() else torch.nn.Conv2d(1, 1, 3, padding=1)"
    command = words(SEVERAL, **tiny(mlflow_folder, data))
    command[command.index("--network_def") + 1] = network
    started = time.monotonic()
    code, _, err = finish(two(command))
    assert code != 0
    assert time.monotonic() - started < 120  # no waiting for what never comes
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: ZeroDivisionError: division by zero"
    ]


def test_evaluation_equals_that_of_one_process(data: Path, alone: Path, mlflow_folder: Path) -> None:
    files = [f"'bundle/configs/{name}.json'" for name in ("train", "evaluate", "multi_gpu_evaluate")]
    options = tiny(mlflow_folder, data)
    options = {name: options[name] for name in ("dataset_dir", "output_dir", "network_def", "baselines", "patch_size",
                                                "validation_window")}  # fmt: skip
    job = ["evaluating", "--config_file", f"[{','.join(files)}]"]
    code, out, err = finish(two(words(job, ckpt_dir=alone / "models", precision="fp32", **options)))
    assert code == 0, err
    assert out.count("weights: ") == 1
    tables = [json.loads((folder / "results.json").read_text()) for folder in (alone, mlflow_folder)]
    for name, of_one in tables[0]["methods"].items():
        assert tables[1]["methods"][name]["ssim"]["mean"] == pytest.approx(of_one["ssim"]["mean"], abs=1e-6)
    rows = [(folder / "per_image.csv").read_text().splitlines() for folder in (alone, mlflow_folder)]
    assert [row.split(",")[:2] for row in rows[0]] == [row.split(",")[:2] for row in rows[1]]  # each once, in order
