"""Handlers that compare the network with the tuned classical baselines, on validation images and at the end."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from tqdm import tqdm

from .. import distributed
from ..baselines import TunedBaseline, available_baselines, make_baseline, tune_all
from ..errors import UsageError, nearest
from ..evaluation import Case, Score, as_columns, as_markdown, evaluate, intervals, summarise, write_scores
from ..inference import load_weights, weights_fingerprint
from ..intervals import FEWEST_PATIENTS
from ..tracking import case_id
from .run import RunTracker

__all__ = ["BaselineComparison", "FinalComparison", "cases_of"]

_log = logging.getLogger(__name__)


def cases_of(dataset: Any) -> list[Case]:
    """The items of a dataset (tensors ``image`` and ``label`` of shape (1, …)) as cases; their names are hashed."""
    return [
        Case(
            case_id(str(item.get("source", index))),
            item["label"][0].numpy(),
            item["image"][0].numpy(),
            file=str(item.get("source", "")),
            patient=str(item.get("patient", "")),
        )
        for index, item in enumerate(dataset[i] for i in range(len(dataset)))
    ]


def _by_method(summary: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{name}_{metric}": values[metric] for name, values in summary.items() for metric in ("ssim", "psnr")}


class BaselineComparison:
    """Handler of the validation engine: how much better than the noise and than the best tuned baseline?

    At the first validation every baseline is tuned on the validation images, for the same noise and metric, and its
    scores are logged; after each validation our gains over the noisy images and over the best baseline are. The
    baselines are told the true noise level of each image (`Case.sigma`), the network is not.

    Parameters
    ----------
    tracker
        Whose run is logged to.
    dataset
        The validation images.
    metric
        The baselines are tuned for: ``"psnr"`` or ``"ssim"``.
    cache_dir
        Keeps the tuning for the next run on the same images.
    names
        Which baseline or baselines; None is every one installed.
    ssim_name, psnr_name
        Names of our metrics in the engine's state.
    gains
        False where the engine runs on other images than `dataset`: then nothing is logged but the baselines.

    Raises
    ------
    UsageError
        If a baseline or the metric is unknown, or no baseline is named.
    """

    def __init__(
        self,
        tracker: RunTracker,
        dataset: Any,
        metric: str = "psnr",
        cache_dir: str | os.PathLike[str] | None = None,
        names: Sequence[str] | str | None = None,
        ssim_name: str = "val_ssim",
        psnr_name: str = "val_psnr",
        gains: bool = True,
    ) -> None:
        self.gains = gains
        self.tracker, self.dataset, self.metric = tracker, dataset, metric
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.names = available_baselines() if names is None else [names] if isinstance(names, str) else list(names)
        self.ours = {"ssim": ssim_name, "psnr": psnr_name}
        if not self.names:
            raise UsageError("no baseline to compare with", f"name one or more of {', '.join(available_baselines())}")
        for name in self.names:
            make_baseline(name)  # refuses what it does not know, now and not after the first epoch
        if metric not in self.ours:
            raise UsageError(f"baselines cannot be tuned for {metric!r}", nearest(metric, self.ours))
        self.tuned: dict[str, TunedBaseline] = {}
        self.summary: dict[str, dict[str, float]] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.prepare)
        if self.gains:
            engine.add_event_handler(Events.COMPLETED, self.log_gains)

    @property
    def best(self) -> TunedBaseline:
        """The baseline that did best on the validation images."""
        return self.tuned[max(self.tuned, key=lambda name: self.summary[name][self.metric])]

    def prepare(self, engine: Engine | None = None) -> None:
        """Tune and score the baselines, once; of several processes the first does, and tells the others."""
        if not self.tuned:
            self.tuned, self.summary = distributed.from_lead(self._tune)

    def _tune(self) -> tuple[dict[str, TunedBaseline], dict[str, dict[str, float]]]:
        cases = cases_of(self.dataset)
        _log.info("tuning the classical baselines on %d validation images", len(cases))
        pairs = [(case.clean, case.noisy) for case in cases]
        sigmas = [case.sigma for case in cases]
        # Minutes, for many large images: a bar in a terminal, and a line for each method anywhere.
        with tqdm(desc="tuning", unit="try", leave=False, disable=None) as bar:
            seen: list[str] = []

            def progress(name: str, done: int, total: int) -> None:
                if name not in seen:
                    seen.append(name)
                    _log.info("tuning %s, after %d of %d tries", name, done, total)
                bar.total = total
                bar.update(done - bar.n)

            tuned = tune_all(pairs, sigmas, self.metric, names=self.names, cache_dir=self.cache_dir, progress=progress)
        summary = summarise(evaluate(cases, tuned))
        self.tracker.log_group("baselines", _by_method(summary), step=0)
        columns = as_columns(summary)
        columns["parameters"] = [json.dumps(dict(tuned[name].parameters)) if name in tuned else "" for name in summary]
        columns["with default parameters"] = [
            round(tuned[name].default_score, 4) if name in tuned else None for name in summary
        ]
        self.tracker.run.log_table("baselines_on_validation.json", columns)
        return tuned, summary

    def log_gains(self, engine: Engine) -> None:
        if not distributed.leads():
            return
        values = {metric: engine.state.metrics.get(name) for metric, name in self.ours.items()}
        gains = {
            name.removeprefix("val_"): float(value)
            for name, value in engine.state.metrics.items()
            if isinstance(value, int | float)
        }
        for metric, value in values.items():
            if value is not None:
                gains[f"gain_over_noisy_{metric}"] = value - self.summary["noisy"][metric]
                others = [values[metric] for name, values in self.summary.items() if name != "noisy"]
                gains[f"gain_over_best_baseline_{metric}"] = value - max(others)
        self.tracker.log_group("validation", gains, step=engine.state.epoch)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in gains.items())
        when = f"after epoch {engine.state.epoch}" if engine.state.epoch else "before the training"
        _log.info("validation %s: %s", when, shown)


class FinalComparison:
    """Handler for the end: scores the denoiser and all baselines on held-out images, logs and prints the table.

    The baselines keep the parameters that were tuned on the validation images. Of several processes each scores its
    share of the images; the first one writes and prints.

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

    def denoise(self, noisy: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        """Our result on one image (H, W) or (D, H, W), blind: `sigma` is not used."""
        with torch.inference_mode():
            inputs = torch.from_numpy(noisy)[None, None].to(self.device)
            result: NDArray[np.float32] = self.inferer(inputs, self.network)[0, 0].cpu().numpy()
        return result

    def _scores(self) -> list[Score]:
        """Of all cases, in their order; each process scores its share of them."""
        cases = cases_of(self.dataset)
        own = [(index, cases[index]) for index in distributed.share(len(cases))]
        scored = [(i, evaluate([case], {**self.comparison.tuned, self.NAME: self.denoise})) for i, case in own]
        found = dict(distributed.gathered(scored))
        return [score for index in range(len(cases)) for score in found[index]]

    def __call__(self, engine: Engine | None = None) -> list[Score]:
        if self.weights is not None:
            weights_file = self.weights  # only the first process's machine need have it
            self.network.load_state_dict(distributed.from_lead(lambda: load_weights(weights_file)))
        self.network.eval()
        self.comparison.prepare()
        scores = self._scores()
        if not distributed.leads():
            return scores
        summary = summarise(scores)
        notes = {
            name: ", ".join(f"{key}={value:g}" if isinstance(value, float | int) else f"{key}={value}"
                            for key, value in baseline.parameters.items())
            for name, baseline in self.comparison.tuned.items()
        }  # fmt: skip
        patients = len({entry.patient for entry in scores})
        protocol = {**self.protocol, "baseline_parameters": notes, "cases": len(self.dataset), "patients": patients}
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        write_scores(self.folder, scores, protocol, {self.NAME: weights}, self.NAME)
        run = self.tracker.run
        run.log_table("comparison.json", {**as_columns(summary), "parameters": [notes.get(m, "") for m in summary]})
        self.tracker.log_group("test", _by_method(summary), step=0)
        run.set_tags({"weights": weights_fingerprint(self.network)})  # the registry calls it "network"
        self.tracker.finish(self.weights)
        shown = intervals(scores) if patients >= FEWEST_PATIENTS else None
        print(f"\n{len(self.dataset)} held-out images, baselines tuned on the validation images:\n")
        print(as_markdown(summary, notes, ("ssim", "psnr"), shown))
        if shown:
            print(f"\n[…]: 95 % bootstrap interval over {patients} patients")
        print(f"\nper image: {self.folder / 'per_image.csv'}\nlook at it: {run.url_hint}", flush=True)
        return scores
