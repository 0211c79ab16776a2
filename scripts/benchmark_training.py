"""Where the time of a training step goes: waiting for data, forward, backward, optimiser, handlers.

Runs a short training by `bundle/configs/train.json` on a folder and prints the shares, without writing anything that
lasts.

    python scripts/benchmark_training.py --dataset_dir DIR [--steps 100] [--threads 2]
"""

from __future__ import annotations

import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent


def main(dataset_dir: str = "", datalist: str = "", steps: int = 100, warmup: int = 10, threads: int = 0) -> None:
    """Print milliseconds and share of each part of a step.

    Args:
        dataset_dir: images to train on; by default the embedded samples.
        datalist: or a datalist.
        steps: that are timed.
        warmup: steps before.
        threads: torch's; 0 leaves it at the number of cores.
    """
    from ignite.engine import Engine, Events
    from monai.bundle import ConfigWorkflow
    from monai.engines.utils import IterationEvents

    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        workflow = ConfigWorkflow(
            str(ROOT / "bundle" / "configs" / "train.json"),
            workflow_type="train",
            bundle_root=str(ROOT / "bundle"),
            dataset_dir=dataset_dir,
            datalist=datalist,
            ckpt_dir=folder,
            output_dir=folder,
            max_epochs=1,
            steps_per_epoch=warmup + steps,
            baselines=["gaussian"],  # tuning them all takes minutes, and is no part of a step
            validation_images=1,
        )
        workflow.initialize()
        trainer: Any = workflow.parser.get_parsed_content("train::trainer")
        # The end of the epoch (validation, checkpoint, tables) is no part of a step.
        trainer._event_handlers.pop(Events.EPOCH_COMPLETED, None)
        trainer._event_handlers.pop(Events.COMPLETED, None)
        spent: dict[str, float] = {}
        clock = [0.0]

        def mark(part: str) -> Any:
            def note(engine: Engine) -> None:
                now = time.perf_counter()
                if (engine.state.iteration or 0) > warmup:
                    spent[part] = spent.get(part, 0.0) + now - clock[0]
                clock[0] = now

            return note

        for event, part in (
            (Events.GET_BATCH_STARTED, "handlers"),
            (Events.GET_BATCH_COMPLETED, "data"),
            (IterationEvents.FORWARD_COMPLETED, "forward"),
            (IterationEvents.BACKWARD_COMPLETED, "loss and backward"),
            (IterationEvents.MODEL_COMPLETED, "clipping and optimiser"),
        ):
            trainer.add_event_handler(event, mark(part))
        workflow.run()
        workflow.parser.get_parsed_content("tracker").finish()
        network = workflow.parser.get_parsed_content("network")
        images = workflow.parser.get_parsed_content("train::dataset").summary()
    total = sum(spent.values())
    print(f"\n{type(network).__name__}, {images}, {steps} steps, {torch.get_num_threads()} threads, "
          f"{platform.machine()}, torch {torch.__version__}")  # fmt: skip
    for part, seconds in spent.items():
        print(f"{part:24} {1000 * seconds / steps:8.2f} ms  {100 * seconds / total:5.1f} %")
    model = spent["forward"] + spent["loss and backward"]
    print(f"{'forward and backward':24} {1000 * model / steps:8.2f} ms  {100 * model / total:5.1f} %")


if __name__ == "__main__":
    from launching import launch

    launch(main)
