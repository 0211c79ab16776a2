"""The handler that owns the one tracked run of a training or evaluation."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from .. import __version__, distributed
from ..errors import InputError
from ..runtime import launched_config
from ..tracking import Run, environment_versions, open_run
from ..training import TrainingCheckpoint

__all__ = ["RunTracker", "described"]

_log = logging.getLogger(__name__)

_SILENCE = 30.0  # seconds within an epoch, after which a line says how far it is


def described(parameters: Mapping[str, Any]) -> str:
    """A run's name, of what tells it from others at first sight; empty if the parameters hold nothing of it.

    Such as ``sigma 25/255, epochs 10, seed 0, ResidualDenoisingAutoencoder``; an evaluation's begins with the weights.
    """
    weights, noise, sigma = (parameters.get(name) for name in ("weights", "noise", "sigma"))
    parts = [f"weights {str(weights)[:8]}"] if weights else []
    if noise and not str(noise).startswith("additive Gaussian"):
        parts.append(str(noise))
    elif isinstance(sigma, float | int):
        parts.append(f"sigma {255 * sigma:.3g}/255")
    for name, text in (("max_epochs", "epochs {}"), ("seed", "seed {}"), ("network", "{}")):
        if parameters.get(name) is not None:
            parts.append(text.format(parameters[name]))
    return ", ".join(parts)


class RunTracker:
    """Handler that owns the one tracked run of a training or evaluation, and closes it whatever happens.

    Attach it first to the MONAI engine that is run by hand (the trainer), so that the run is open when others log. Of
    several processes (`distributed`) the first opens the run; the others know none.

    Parameters
    ----------
    experiment_name, run_name
        Names in MLflow; without a run name one is made of the parameters (`described`).
    tracking_uri
        ``sqlite:///…`` or a server; the environment variable MLFLOW_TRACKING_URI goes before it; None is a database
        in `folder`.
    folder
        Where the default database lies, and where records go if the store cannot be reached.
    parameters
        Hyper-parameters, searchable in MLflow.
    tags
        More facts to search by.
    resume_from
        Folder of a training's checkpoint: its run is continued. The tracker must be one of the checkpoint's parts.
    learning_rate
        Is asked for the current learning rate after every epoch.
    """

    def __init__(
        self,
        experiment_name: str,
        folder: str | os.PathLike[str],
        tracking_uri: str | None = None,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        learning_rate: Callable[[], float] | None = None,
    ) -> None:
        self.experiment_name, self.run_name, self.tracking_uri = experiment_name, run_name, tracking_uri
        self.folder = Path(folder)
        self.parameters, self.tags = dict(parameters or {}), dict(tags or {})
        self.resume_from, self.learning_rate = resume_from, learning_rate
        self._run: Run | None = None
        self._loss: list[torch.Tensor] = []
        self._waited = 0.0
        self._epoch_clock = self._fetch_clock = self._said = 0.0
        self._last_epoch = 0  # the last whole one

    @property
    def run(self) -> Run:
        """The open run."""
        if self._run is None:
            raise RuntimeError("the RunTracker must be attached before the handlers that log through it")
        return self._run

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start_fetch)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._end_fetch)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._collect_loss)
        # The clock stops before the validation, whose handler is attached later.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log_epoch)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def start(self, engine: Engine) -> None:
        if not distributed.leads() or (self._run is not None and not self._run.closed):
            return
        resumed = None
        if self._run is not None:  # the engine is run once more: a round of federated learning
            resumed = self._run.run_id
        elif self.resume_from is not None:
            resumed = TrainingCheckpoint.saved_part(self.resume_from, "tracker").get("run_id")
        self._run = open_run(
            self.experiment_name,
            run_name=self.run_name or described(self.parameters) or None,
            tracking_uri=self.tracking_uri,
            fallback_dir=self.folder,
            tags={"package_version": __version__, **self.tags},
            resume_run_id=resumed,
        )
        self._run.log_params(self.parameters)
        self._run.log_dict(environment_versions(), "environment/versions.json")
        config = launched_config()
        if config is not None:
            self._run.log_dict(config, "config/resolved.json")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: which run to go on with."""
        return {"run_id": self._run.run_id if self._run is not None else ""}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing: the run had to be opened before the checkpoint was read (see `resume_from`)."""

    def _start_epoch(self, engine: Engine) -> None:
        self._loss, self._waited = [], 0.0
        self._epoch_clock = self._said = time.monotonic()

    def _start_fetch(self, engine: Engine) -> None:
        self._fetch_clock = time.monotonic()

    def _end_fetch(self, engine: Engine) -> None:
        self._waited += time.monotonic() - self._fetch_clock

    def _collect_loss(self, engine: Any) -> None:
        # At the end of the step MONAI has cut the output into a list. Reading the value would make a GPU wait.
        self._loss.append(engine.state.output[Keys.LOSS].detach())
        now = time.monotonic()
        if now - self._said > _SILENCE and distributed.leads():
            self._said = now
            steps, rate = len(self._loss), len(self._loss) / (now - self._epoch_clock)
            left = ((engine.state.max_epochs or 0) - engine.state.epoch + 1) * (engine.state.epoch_length or 0) - steps
            _log.info(
                "epoch %d/%s: step %d of %s, %.2g steps/s, some %.0f minutes left for all epochs",
                engine.state.epoch, engine.state.max_epochs, steps, engine.state.epoch_length, rate, left / rate / 60,
            )  # fmt: skip

    def _log_epoch(self, engine: Engine) -> None:
        seconds = time.monotonic() - self._epoch_clock
        if not self._loss:
            return
        loss = distributed.mean(float(torch.stack(self._loss).mean()))
        if not np.isfinite(loss):  # raised before the checkpoint of this epoch could replace the last good one
            raise InputError(f"the loss became {loss} in epoch {engine.state.epoch}", "lower --learning_rate")
        if not distributed.leads():
            return
        metrics = {
            "train/loss": loss,
            "train/seconds": seconds,
            "train/steps_per_second": len(self._loss) / seconds,
            "train/data_share": self._waited / seconds,
        }
        if self.learning_rate is not None:
            metrics["train/learning_rate"] = float(self.learning_rate())
        self.run.log_metrics(metrics, step=engine.state.epoch)
        self._last_epoch = engine.state.epoch
        _log.info(
            "epoch %d/%s: loss %.5f, %.1f steps/s, %.0f %% of the time waiting for data",
            engine.state.epoch, engine.state.max_epochs, loss, len(self._loss) / seconds,
            100 * self._waited / seconds,
        )  # fmt: skip

    def log_group(self, group: str, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers as ``group/name``: MLflow's UI shows each group in a section of its own."""
        self.run.log_metrics({f"{group}/{name}": value for name, value in metrics.items()}, step=step)

    def _fail(self, engine: Engine, error: BaseException) -> None:
        if self._run is not None:
            self._run.close("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
            if isinstance(error, KeyboardInterrupt) and self._last_epoch:
                _log.info("the same command with --resume true goes on after epoch %d", self._last_epoch)
        raise error

    def finish(self, weights: Path | None = None) -> None:
        """Log the weights and close the run as finished."""
        if weights is not None:
            self.run.log_file(weights, "weights")
        self.run.close("FINISHED")
