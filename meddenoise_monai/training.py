"""What a training does beside its steps: weight averaging, repeatable epochs, checkpoints that survive a kill."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from . import distributed
from .errors import InputError, UsageError
from .identity import image_digests, known_images
from .inference import load_weights
from .whole_files import replace_whole

__all__ = ["EpochSeed", "GradientClipping", "TrainingCheckpoint", "WeightAverage", "averaged_model",
           "cosine_with_restarts", "load_pretrained", "set_aside"]  # fmt: skip

_log = logging.getLogger(__name__)


class Stateful(Protocol):
    """Anything whose state a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        """The state, in types that `torch.save` knows."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take over what `state_dict` gave."""


def averaged_model(network: nn.Module, decay: float = 0.999) -> AveragedModel:
    """An exponential moving average of `network`'s weights, which generalises better than its last step.

    The decay grows as (1 + n) / (10 + n) up to `decay`, so that short trainings are averaged over fewer steps. The
    statistics of batch normalisation are averaged with the weights that they belong to.

    Raises
    ------
    UsageError
        If `decay` does not lie in [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise UsageError(f"average_decay must lie in [0, 1), got {decay!r}", "0 takes the last step, 0.999 many")

    @torch.no_grad()
    def update(averages: Any, currents: Any, count: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # numbers of batches seen
            torch._foreach_copy_(averages, currents)
            return
        n = float(count)
        torch._foreach_lerp_(averages, currents, 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def cosine_with_restarts(steps: int, cycles: int, warmup_steps: int = 0, decay: float = 0.5) -> Callable[[int], float]:
    """What `torch.optim.lr_scheduler.LambdaLR` multiplies the learning rate by: `cycles` cosines, each to nearly 0.

    Warm restarts as in Loshchilov and Hutter 2017 (arXiv:1608.03983), each peak `decay` times the one before. Every
    cycle has the same share of `steps`, rounded up, and begins with `warmup_steps` of linear warmup, half of the cycle
    at most. MONAI's WarmupCosineSchedule does not restart, torch's CosineAnnealingWarmRestarts keeps the peak.

    Raises
    ------
    UsageError
        If there is no cycle, or no step for each, or `decay` does not lie in (0, 1].
    """
    if not 1 <= cycles <= steps or not 0.0 < decay <= 1.0:
        raise UsageError(
            f"cannot share {steps!r} steps among cycles={cycles!r} with decay={decay!r}",
            "--cycles 1 never restarts; decay lies in (0, 1]",
        )
    length = math.ceil(steps / cycles)
    warmup = min(warmup_steps, length // 2)

    def factor(step: int) -> float:
        cycle, within = divmod(step, length)
        peak = decay**cycle
        if within < warmup:
            return peak * within / warmup
        return peak * 0.5 * (1.0 + math.cos(math.pi * (within - warmup) / (length - warmup)))

    return factor


class WeightAverage:
    """Handler of the trainer: updates the average after every step."""

    def __init__(self, average: AveragedModel, network: nn.Module) -> None:
        self.average, self.network = average, network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.average.update_parameters(self.network)


class GradientClipping:
    """Handler of MONAI's trainer: limits the norm of the gradient before each step of the optimiser.

    A bias-free network has nothing else that bounds it: one bad batch can throw it so far that it never comes back.
    """

    def __init__(self, network: nn.Module, max_norm: float = 1.0) -> None:
        self.network, self.max_norm = network, max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


class EpochSeed:
    """Handler of the trainer: makes each epoch a function of (seed, epoch).

    All random states (Python, NumPy, torch, the transforms' own) are set anew at each epoch's start. So a training
    that goes on after a kill draws the very patches and noise that it would have drawn, with no state to save.

    Parameters
    ----------
    dataset
        Whose random transforms are seeded too (with workers, MONAI's DataLoader derives theirs from torch's state).
    seed
        Of the training.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # third-party transforms may draw from the global state
        torch.manual_seed(seed)
        set_rnd(self.dataset.transform, seed=seed)


def _scaler(engine: Engine) -> Any:
    """The gradient scaler that MONAI's trainer has with AMP on CUDA, else None."""
    return getattr(engine, "scaler", None)


class TrainingCheckpoint:
    """Handler of the trainer: saves after every epoch, stops early, and goes on where a killed training stopped.

    Each file is written whole or not at all: ``checkpoint_last.pt`` holds all that a resumed training needs,
    ``model_best.pt`` the plain averaged weights of the epoch with the best validation metric (of the first epoch until
    there is one), ``model_best.json`` which images they were trained on. MONAI's CheckpointSaver forgets the best
    metric when a training is resumed, and then overwrites the best weights by worse ones.

    Attach it after the validation handler: it reads the metric of the epoch that just ended.

    Parameters
    ----------
    folder
        Where the files go.
    parts
        What the checkpoint keeps, by name: network, average, optimizer, schedule, …; ``"average"`` must be among them.
    evaluator
        The validation engine.
    metric
        Name of its metric, higher is better.
    data
        The items (``{"image": path}``) that the training sees. Digests of them are kept: no training is resumed on
        other images, and an evaluation on these images is noticed (`identity.count_known`).
    pretrained
        The weights that the training starts from, if any: what is noted beside them is noted beside these as well.
    resume
        Go on from ``checkpoint_last.pt`` where there is one.
    patience
        Stop after this many validations without a better metric; 0 never does.
    max_minutes
        Stop before the epoch that would end later than this, minutes of training before a resume counted in; 0 never
        does.
    """

    LAST, BEST = "checkpoint_last.pt", "model_best.pt"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        parts: Mapping[str, Stateful],
        evaluator: Engine,
        metric: str,
        data: Iterable[Mapping[str, Any]] = (),
        pretrained: str | os.PathLike[str] | None = None,
        resume: bool = False,
        patience: int = 0,
        max_minutes: float = 0.0,
    ) -> None:
        self.folder = Path(folder)
        self.parts, self.evaluator, self.metric = dict(parts), evaluator, metric
        self.resume, self.patience, self.max_minutes = resume, patience, max_minutes
        self._images = image_digests(data)
        self._before = known_images(pretrained) if pretrained else frozenset()  # seen by the weights at the start
        if pretrained and not self._before:
            _log.warning(
                "no %s names the images that these weights were trained on: an evaluation on them will not be noticed",
                Path(pretrained).with_suffix(".json"),
            )
        self.best_metric = float("-inf")
        self.best_epoch = 0  # of the weights in model_best.pt; 0 until this training has written them
        self._stale = 0  # validations since then
        self._seconds = 0.0
        self._clock = time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)

    @property
    def best_path(self) -> Path:
        return self.folder / self.BEST

    @property
    def _note_path(self) -> Path:
        return self.best_path.with_suffix(".json")

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            _ = [state[key] for key in ("epoch", "parts", "best_metric", "best_epoch", "stale", "seconds")]
        except Exception as error:
            raise InputError(f"cannot resume from {path}: not a checkpoint of a training", "delete it") from error
        return state

    @classmethod
    def saved_part(cls, folder: str | os.PathLike[str], name: str) -> dict[str, Any]:
        """The state of one part in the checkpoint in `folder`; empty if there is none."""
        path = Path(folder, cls.LAST)
        return dict(cls._read(path)["parts"].get(name, {})) if path.is_file() else {}

    def start(self, engine: Engine) -> None:
        self._clock = time.monotonic()
        path = self.folder / self.LAST
        if not self.resume:
            if distributed.leads() and self.best_path.is_file():
                kept = self.best_path.with_name("model_previous.pt")
                os.replace(self.best_path, kept)
                if self._note_path.is_file():
                    os.replace(self._note_path, kept.with_suffix(".json"))
                _log.info("the best weights of an earlier training are kept as %s", kept)
            return
        # Of several processes the first reads: the others may run on machines that do not have the file.
        state = distributed.from_lead(lambda: self._read(path) if path.is_file() else None)
        if state is None:
            _log.warning("nothing to resume in %s: a new training starts", self.folder)
            return
        if state["parts"].keys() != self.parts.keys():
            raise InputError(f"{path} was saved by another configuration", "delete it, or resume with its own options")
        if state.get("training_images", self._images) != self._images:
            raise InputError(
                f"{path} was trained on other images than these",
                "repeat the training's --dataset_dir or --datalist and --seed, or start anew from its weights: "
                f"--pretrained {self.best_path}",
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
            if _scaler(engine) is not None and state.get("scaler"):
                _scaler(engine).load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} does not fit this network or optimiser", "resume with the options it was started with"
            ) from error
        self._before |= frozenset(state.get("images_before", ()))  # --pretrained need not be repeated
        self.best_metric, self.best_epoch = state["best_metric"], state["best_epoch"]
        self._seconds, self._stale = state["seconds"], state["stale"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * (engine.state.epoch_length or 0)
        _log.info("resumed after epoch %d, best %s %.4f", state["epoch"], self.metric, self.best_metric)
        if state["epoch"] >= (engine.state.max_epochs or 0):
            _log.warning("all %d epochs are done: raise --max_epochs to go on", state["epoch"])
        if reason := distributed.from_lead(lambda: self._stop_reason(0.0)):
            _log.warning("nothing is left to train: %s", reason)
            engine.terminate()

    def end_epoch(self, engine: Engine) -> None:
        now = time.monotonic()
        took, self._clock = now - self._clock, now
        self._seconds += took
        metric = self.evaluator.state.metrics.get(self.metric)
        # MONAI's ValidationHandler hands the trainer's epoch to the evaluator.
        validated = self.evaluator.state.epoch == engine.state.epoch
        better = False
        # The metric is that of all processes, so they agree on what is better; the first one writes.
        if metric is not None and validated and metric > self.best_metric:
            better, self.best_metric = True, float(metric)
        self._stale = 0 if better else self._stale + validated
        if better or not self.best_epoch:  # without a validation too: an older training's weights must not stay
            self.best_epoch = engine.state.epoch
            if distributed.leads():
                self._save_best()
        if distributed.leads():
            self._save_last(engine)
        reason = distributed.from_lead(lambda: self._stop_reason(took))  # the clocks of several processes differ
        if reason:
            _log.info("stopped after epoch %d: %s", engine.state.epoch, reason)
            engine.terminate()

    def _save_best(self) -> None:
        average = self.parts["average"]
        weights = average.module.state_dict() if isinstance(average, AveragedModel) else average.state_dict()
        # The note first: weights without it could be judged on their own training images unnoticed.
        note = {"training_images": sorted(self._before.union(self._images))}
        with replace_whole(self._note_path) as temporary:
            temporary.write_text(json.dumps(note, indent=4) + "\n", encoding="utf-8")
        self._save(self.best_path, {name: tensor.detach().cpu() for name, tensor in weights.items()})

    def _save_last(self, engine: Engine) -> None:
        self._save(
            self.folder / self.LAST,
            {
                "epoch": engine.state.epoch,
                "best_metric": self.best_metric,
                "best_epoch": self.best_epoch,
                "stale": self._stale,
                "seconds": self._seconds,
                "training_images": self._images,
                "images_before": sorted(self._before),
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "scaler": _scaler(engine).state_dict() if _scaler(engine) is not None else {},
            },
        )

    def _stop_reason(self, epoch_seconds: float) -> str | None:
        if self.patience and self._stale >= self.patience:
            return f"no better {self.metric} in {self.patience} validations"
        if self.max_minutes and self._seconds + epoch_seconds > 60 * self.max_minutes:
            return f"the next epoch would pass the limit of {self.max_minutes:g} minutes, interrupted sessions included"
        return None

    @staticmethod
    def _save(path: Path, state: Mapping[str, Any]) -> None:
        with replace_whole(path) as temporary:
            try:
                torch.save(dict(state), temporary)
            except RuntimeError as error:  # torch reports a full disk as a RuntimeError of its zip writer
                raise InputError(f"cannot write {path}: {str(error).splitlines()[0]}", "is the disk full?") from error


def set_aside(folder: str | os.PathLike[str], resume: bool) -> None:
    """Before a distributed training begins: rename an older one's checkpoint, which a restart would else go on with."""
    last = Path(folder, TrainingCheckpoint.LAST)
    if not resume and distributed.leads() and last.is_file():
        os.replace(last, last.with_name("checkpoint_previous.pt"))
        _log.info("the checkpoint of an earlier training is kept as %s", last.with_name("checkpoint_previous.pt"))
    distributed.mark_begun()


def load_pretrained(network: nn.Module, path: str | os.PathLike[str] | None) -> nn.Module:
    """Start from the weights in `path`, if one is given.

    Raises
    ------
    UsageError
        If `network` is none, as a ``network_def`` without ``_target_`` makes it.
    InputError
        If the file is missing or belongs to another network.
    """
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"network_def makes no network but {str(network)[:100]!r}",
            "write --network_def \"{'_target_': 'monai.networks.nets.BasicUNet', 'spatial_dims': 2}\"",
        )
    if path:
        try:
            network.load_state_dict(load_weights(path))
        except RuntimeError as error:
            raise InputError(
                f"the weights {path} do not fit this network", "give the network_def they were trained with"
            ) from error
    return network


def check_device(name: str) -> torch.device:
    """The device of that name, or the error that a user can act on.

    Raises
    ------
    UsageError
        If it does not exist here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"cannot use the device {name!r}", "take --device cpu, or cuda where there is one") from error
    return device
