"""How much faster several processes train than one, at the same global batch, and whether they learn the same.

Trains by `bundle/configs/train.json` with one thread a process, in turns: one process, several, one, several, … Prints
a table and writes nothing that lasts.

    python scripts/benchmark_distributed.py --dataset_dir DIR [--processes 2] [--rounds 3] [--epochs 4] [--steps 50]
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "benchmark"


@dataclass(frozen=True)
class Result:
    """A training's samples per second in each epoch but the first, and its last validation SSIM."""

    samples_per_second: tuple[float, ...]
    ssim: float


def command(processes: int, options: dict[str, object]) -> list[str]:
    """What a user would type, with this Python."""
    python, job = [sys.executable], ["-m", "monai.bundle", "run", "training", "--config_file"]
    files = [str(ROOT / "bundle" / "configs" / f"{name}.json") for name in ("train", "multi_gpu_train")]
    if processes == 1:
        python += [*job, files[0]]
    else:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        python += [*launcher, *job, f"[{','.join(repr(file) for file in files)}]"]
    return python + [word for name, value in options.items() for word in (f"--{name}", str(value))]


def train(processes: int, batch_size: int, options: dict[str, object]) -> Result:
    """Train in a folder of its own, and read what the run logged."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        places = {"ckpt_dir": Path(folder, "models"), "output_dir": folder, "tracking_uri": uri}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            command(processes, {**options, **places, "batch_size": batch_size, "experiment_name": EXPERIMENT}),
            env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{processes} process(es) failed:\n{done.stderr[-4000:]}")
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        assert found is not None
        (run,) = client.search_runs([found.experiment_id])
        speeds = client.get_metric_history(run.info.run_id, "train/steps_per_second")
        by_epoch = [entry.value * batch_size for entry in sorted(speeds, key=lambda entry: entry.step)]
        return Result(tuple(by_epoch[1:]), run.data.metrics["validation/ssim"])


def as_table(rounds: list[tuple[Result, Result]], processes: int) -> str:
    """One line a round, and one for all: samples per second (medians over the epochs), their ratio, the SSIMs."""
    lines = [
        f"| round | 1 process, samples/s | {processes} processes, samples/s | ratio "
        f"| SSIM of 1 | SSIM of {processes} |",
        "|---|---|---|---|---|---|",
    ]
    for number, (one, several) in enumerate(rounds, start=1):
        slow, fast = (statistics.median(result.samples_per_second) for result in (one, several))
        lines.append(
            f"| {number} | {slow:.1f} | {fast:.1f} | {fast / slow:.2f} | {one.ssim:.5f} | {several.ssim:.5f} |"
        )
    slow, fast = (
        statistics.median([speed for pair in rounds for speed in pair[side].samples_per_second]) for side in (0, 1)
    )
    ends = [statistics.mean(pair[side].ssim for pair in rounds) for side in (0, 1)]
    lines.append(f"| all | {slow:.1f} | {fast:.1f} | {fast / slow:.2f} | {ends[0]:.5f} | {ends[1]:.5f} |")
    return "\n".join(lines)


def main(
    dataset_dir: str = "",
    datalist: str = "",
    processes: int = 2,
    rounds: int = 3,
    epochs: int = 4,
    steps: int = 50,
    batch_size: int = 16,
    precision: str = "auto",
) -> None:
    """Print the table.

    Args:
        dataset_dir: images to train on; by default the embedded samples.
        datalist: or a datalist.
        processes: that are compared with one; no more than there are cores.
        rounds: trainings of each kind, in turns.
        epochs: of a training; the first one is not timed.
        steps: of an epoch.
        batch_size: patches of a step, of all processes together.
        precision: of the network.
    """
    if epochs < 2:
        raise SystemExit("error: the first epoch is not timed\nhint: give --epochs 2 or more")
    options = {"dataset_dir": dataset_dir, "datalist": datalist, "max_epochs": epochs, "steps_per_epoch": steps,
               "precision": precision, "device": "cpu", "baselines": "['gaussian']"}  # fmt: skip
    options = {name: value for name, value in options.items() if value != ""}
    results = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        results.append((train(1, batch_size, options), train(processes, batch_size, options)))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread a process, global batch "
          f"{batch_size}, {epochs} epochs of {steps} steps\n")  # fmt: skip
    print(as_table(results, processes))


if __name__ == "__main__":
    from launching import launch

    launch(main)
