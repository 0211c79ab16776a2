"""Ignite handlers: the tracked run, the comparison with classical baselines, the image panels.

`RunTracker` owns the MLflow run; `BaselineComparison` and `ImagePanels` attach to the validation engine and log
through it. They work on batches of one image, as the bundle's validation gives them.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from numpy.typing import NDArray

from .baselines import TunedBaseline, tune_all
from .errors import InputError
from .evaluation import Case, Score, as_columns, as_markdown, evaluate, summarise, write_scores
from .runtime import launched_config
from .tracking import Run, case_id, environment_versions, open_run
from .training import TrainingCheckpoint

__all__ = ["BaselineComparison", "FinalComparison", "ImagePanels", "RunTracker", "cases_of"]

_log = logging.getLogger(__name__)


def cases_of(dataset: Any) -> list[Case]:
    """The items of a dataset (tensors ``image`` and ``label`` of shape (1, …)) as cases; files appear hashed only."""
    return [
        Case(case_id(str(item.get("source", index))), item["label"][0].numpy(), item["image"][0].numpy())
        for index, item in enumerate(dataset[i] for i in range(len(dataset)))
    ]


class RunTracker:
    """Handler that owns the one tracked run of a training or evaluation, and closes it whatever happens.

    Attach it first to the engine that is run by hand (the trainer), so that the run is open when others log.

    Parameters
    ----------
    experiment_name, run_name
        Names in MLflow; without a run name one is made.
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
        self._epoch_clock = self._fetch_clock = 0.0

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
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect_loss)
        # The clock stops before the validation, whose handler is attached later.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log_epoch)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def start(self, engine: Engine) -> None:
        if self._run is not None:
            return
        resumed = None
        if self.resume_from is not None:
            resumed = TrainingCheckpoint.saved_part(self.resume_from, "tracker").get("run_id")
        self._run = open_run(
            self.experiment_name,
            run_name=self.run_name,
            tracking_uri=self.tracking_uri,
            fallback_dir=self.folder,
            tags=self.tags,
            resume_run_id=resumed,
        )
        if not resumed:  # MLflow refuses to change a parameter, and a resumed training may have more epochs
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
        self._epoch_clock = time.monotonic()

    def _start_fetch(self, engine: Engine) -> None:
        self._fetch_clock = time.monotonic()

    def _end_fetch(self, engine: Engine) -> None:
        self._waited += time.monotonic() - self._fetch_clock

    def _collect_loss(self, engine: Engine) -> None:
        output = engine.state.output
        if isinstance(output, Mapping) and Keys.LOSS in output:
            self._loss.append(output[Keys.LOSS].detach())  # reading it here would make a GPU wait at every step

    def _log_epoch(self, engine: Engine) -> None:
        seconds = time.monotonic() - self._epoch_clock
        if not self._loss:
            return
        loss = float(torch.stack(self._loss).mean())
        if not np.isfinite(loss):  # raised before the checkpoint of this epoch could replace the last good one
            raise InputError(f"the loss became {loss} in epoch {engine.state.epoch}", "lower --learning_rate")
        metrics = {
            "train_loss": loss,
            "train_seconds": seconds,
            "train_steps_per_second": len(self._loss) / seconds,
            "train_data_share": self._waited / seconds,
        }
        if self.learning_rate is not None:
            metrics["learning_rate"] = float(self.learning_rate())
        self.run.log_metrics(metrics, step=engine.state.epoch)
        _log.info(
            "epoch %d/%s: loss %.5f, %.1f steps/s, %.0f %% of the time waiting for data",
            engine.state.epoch, engine.state.max_epochs, loss, len(self._loss) / seconds,
            100 * self._waited / seconds,
        )  # fmt: skip

    def log_validation(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers of the validation."""
        self.run.log_metrics(dict(metrics), step=step)

    def _fail(self, engine: Engine, error: BaseException) -> None:
        if self._run is not None:
            self._run.close("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
        raise error

    def finish(self, weights: Path | None = None) -> None:
        """Log the weights and close the run as finished."""
        if weights is not None:
            self.run.log_file(weights, "weights")
        self.run.close("FINISHED")


class BaselineComparison:
    """Handler of the validation engine: how much better than the noise and than the best tuned baseline?

    At the first validation every baseline is tuned on the validation images, for the same noise and metric, and its
    scores are logged; after each validation our gains over the noisy images and over the best baseline are.

    Parameters
    ----------
    tracker
        Whose run is logged to.
    dataset
        The validation images.
    sigma
        Standard deviation of the noise on [0, 1]; None estimates it for each image.
    metric
        The baselines are tuned for: ``"psnr"`` or ``"ssim"``.
    cache_dir
        Keeps the tuning for the next run on the same images.
    names
        Which baselines; None is every one installed.
    ssim_name, psnr_name
        Names of our metrics in the engine's state.
    """

    def __init__(
        self,
        tracker: RunTracker,
        dataset: Any,
        sigma: float | None,
        metric: str = "psnr",
        cache_dir: str | os.PathLike[str] | None = None,
        names: Sequence[str] | None = None,
        ssim_name: str = "val_ssim",
        psnr_name: str = "val_psnr",
    ) -> None:
        self.tracker, self.dataset, self.sigma, self.metric = tracker, dataset, sigma, metric
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.names = None if names is None else list(names)
        self.ours = {"ssim": ssim_name, "psnr": psnr_name}
        self.tuned: dict[str, TunedBaseline] = {}
        self.summary: dict[str, dict[str, float]] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.prepare)
        engine.add_event_handler(Events.COMPLETED, self.log_gains)

    @property
    def best(self) -> TunedBaseline:
        """The baseline that did best on the validation images."""
        return self.tuned[max(self.tuned, key=lambda name: self.summary[name][self.metric])]

    def prepare(self, engine: Engine | None = None) -> None:
        """Tune and score the baselines, once."""
        if self.tuned:
            return
        cases = cases_of(self.dataset)
        _log.info("tuning the classical baselines on %d validation images", len(cases))
        pairs = [(case.clean, case.noisy) for case in cases]
        self.tuned = tune_all(pairs, self.sigma, self.metric, names=self.names, cache_dir=self.cache_dir)
        scores = evaluate(cases, baseline_methods(self.tuned, self.sigma))
        self.summary = summarise(scores)
        self.tracker.log_validation(
            {
                f"baseline_{name}_{metric}": values[metric]
                for name, values in self.summary.items()
                for metric in ("ssim", "psnr")
            },
            step=0,
        )
        columns = as_columns(self.summary)
        columns["parameters"] = [
            json.dumps(dict(self.tuned[name].parameters)) if name in self.tuned else "" for name in self.summary
        ]
        columns["with default parameters"] = [
            round(self.tuned[name].default_score, 4) if name in self.tuned else None for name in self.summary
        ]
        self.tracker.run.log_table("baselines_on_validation.json", columns)

    def log_gains(self, engine: Engine) -> None:
        values = {metric: engine.state.metrics.get(name) for metric, name in self.ours.items()}
        gains = {name: float(value) for name, value in engine.state.metrics.items() if isinstance(value, int | float)}
        for metric, value in values.items():
            if value is not None:
                gains[f"gain_over_noisy_{metric}"] = value - self.summary["noisy"][metric]
                others = [values[metric] for name, values in self.summary.items() if name != "noisy"]
                gains[f"gain_over_best_baseline_{metric}"] = value - max(others)
        self.tracker.log_validation(gains, step=engine.state.epoch)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in gains.items())
        _log.info("validation after epoch %d: %s", engine.state.epoch, shown)


def baseline_methods(
    tuned: Mapping[str, TunedBaseline], sigma: float | None
) -> dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]]:
    """Baselines as methods of `evaluate`: volumes slice by slice, sigma estimated where it is not known."""
    from .baselines import estimate_sigma

    def method(baseline: TunedBaseline) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        def run(noisy: NDArray[np.float32]) -> NDArray[np.float32]:
            if noisy.ndim == 3:
                return np.stack([run(part) for part in noisy])
            return baseline(noisy, sigma if sigma is not None else estimate_sigma(noisy))

        return run

    return {name: method(baseline) for name, baseline in tuned.items()}


class ImagePanels:
    """Handler of the validation engine: logs pictures of the first images, the same ones each time.

    A panel shows, side by side, the clean image, the noisy one, the best baseline's result, ours, and what ours
    leaves of the difference to the clean image, times `residual_gain` around mid-grey. MLflow shows a slider over the
    steps. Volumes show their middle slice.

    Parameters
    ----------
    tracker
        Whose run is logged to.
    comparison
        Knows the best baseline; must be attached before.
    count
        Number of images.
    interval
        Epochs between two panels; the first validation always gives one.
    residual_gain
        Factor on the residual.
    """

    def __init__(
        self,
        tracker: RunTracker,
        comparison: BaselineComparison,
        count: int = 3,
        interval: int = 1,
        residual_gain: float = 5.0,
    ) -> None:
        self.tracker, self.comparison = tracker, comparison
        self.count, self.interval, self.residual_gain = count, max(1, interval), residual_gain
        self._baseline: dict[int, NDArray[np.float32]] = {}
        self._shown = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _end(self, engine: Engine) -> None:
        self._shown = True

    def __call__(self, engine: Engine) -> None:
        index = engine.state.iteration - 1
        if index >= self.count or (self._shown and engine.state.epoch % self.interval):
            return
        output = engine.state.output
        output = output[0] if isinstance(output, list) else output

        def picture(key: str) -> NDArray[np.float32]:
            array: NDArray[np.float32] = output[key].detach().float().cpu().numpy()
            return array.reshape(-1, *array.shape[-2:])[array[..., 0, 0].size // 2]

        clean, noisy, ours = picture(Keys.LABEL), picture(Keys.IMAGE), picture(Keys.PRED)
        if index not in self._baseline:
            name = self.comparison.best.name
            self._baseline[index] = baseline_methods({name: self.comparison.best}, self.comparison.sigma)[name](noisy)
        self.tracker.run.log_image(
            f"panel_{index + 1}", panel(clean, noisy, self._baseline[index], ours, self.residual_gain),
            step=engine.state.epoch,
        )  # fmt: skip


def panel(
    clean: NDArray[np.float32],
    noisy: NDArray[np.float32],
    baseline: NDArray[np.float32],
    ours: NDArray[np.float32],
    residual_gain: float,
) -> NDArray[np.uint8]:
    """One picture (H + title, 5 W + gaps), uint8, of five images (H, W) on [0, 1], all in the clean image's window."""
    from PIL import Image, ImageDraw

    low, high = float(clean.min()), float(clean.max())
    tiles = [(image - low) / max(high - low, 1e-6) for image in (clean, noisy, baseline, ours)]
    tiles.append(0.5 + residual_gain * (ours - clean))
    titles = ["clean", "noisy", "best baseline", "ours", f"(ours - clean) x {residual_gain:g}"]
    zoom = max(1, -(-192 // clean.shape[1]))  # titles need some 190 pixels of width
    gap, head = 4, 16
    height, width = clean.shape[0] * zoom, clean.shape[1] * zoom
    canvas = Image.new("L", (5 * width + 4 * gap, height + head), 255)
    for column, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
        grey = np.kron((np.clip(tile, 0, 1) * 255 + 0.5).astype(np.uint8), np.ones((zoom, zoom), np.uint8))
        canvas.paste(Image.fromarray(grey), (column * (width + gap), head))
        ImageDraw.Draw(canvas).text((column * (width + gap) + 2, 2), title, fill=0)
    return np.asarray(canvas)


class FinalComparison:
    """Handler for the end: scores the denoiser and all baselines on held-out images, logs and prints the table.

    The baselines keep the parameters that were tuned on the validation images.

    Parameters
    ----------
    tracker
        Whose run gets the table, and is closed afterwards.
    comparison
        Holds the tuned baselines.
    dataset
        The held-out images.
    inferer, network, device
        The denoiser; `network` holds the weights to be judged when the engine completes.
    folder
        Gets ``per_image.csv``, ``results.json`` and ``table.md``.
    weights
        If given, this file is loaded into the network first.
    protocol
        What stands in ``results.json`` besides the numbers.
    """

    NAME = "dae"

    def __init__(
        self,
        tracker: RunTracker,
        comparison: BaselineComparison,
        dataset: Any,
        inferer: Any,
        network: torch.nn.Module,
        device: torch.device,
        folder: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        protocol: Mapping[str, Any] | None = None,
    ) -> None:
        self.tracker, self.comparison, self.dataset = tracker, comparison, dataset
        self.inferer, self.network, self.device = inferer, network, device
        self.folder, self.protocol = Path(folder), dict(protocol or {})
        self.weights = None if weights is None else Path(weights)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def denoise(self, noisy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Our result on one image (H, W) or (D, H, W)."""
        with torch.inference_mode():
            inputs = torch.from_numpy(noisy)[None, None].to(self.device)
            result: NDArray[np.float32] = self.inferer(inputs, self.network)[0, 0].cpu().numpy()
        return result

    def __call__(self, engine: Engine | None = None) -> list[Score]:
        from .inference import load_weights

        if self.weights is not None:
            self.network.load_state_dict(load_weights(self.weights))
        self.network.eval()
        self.comparison.prepare()
        methods = baseline_methods(self.comparison.tuned, self.comparison.sigma)
        scores = evaluate(cases_of(self.dataset), {**methods, self.NAME: self.denoise})
        summary = summarise(scores)
        notes = {
            name: ", ".join(f"{key}={value:g}" if isinstance(value, float | int) else f"{key}={value}"
                            for key, value in baseline.parameters.items())
            for name, baseline in self.comparison.tuned.items()
        }  # fmt: skip
        write_scores(self.folder, scores, {**self.protocol, "baseline_parameters": notes, "cases": len(self.dataset)})
        run = self.tracker.run
        run.log_table("comparison.json", {**as_columns(summary), "parameters": [notes.get(m, "") for m in summary]})
        run.log_metrics(
            {f"test_{name}_{metric}": values[metric] for name, values in summary.items() for metric in ("ssim", "psnr")},
            step=0,
        )
        self.tracker.finish(self.weights)
        print(f"\n{len(self.dataset)} held-out images, baselines tuned on the validation images:\n")
        print(as_markdown(summary, notes, ("ssim", "psnr")))
        print(f"\nper image: {self.folder / 'per_image.csv'}\nlook at it: {run.url_hint}", flush=True)
        return scores
