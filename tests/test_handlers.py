from __future__ import annotations

import csv
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from monai.metrics import PSNRMetric, SSIMMetric
from monai.utils.enums import CommonKeys as Keys
from PIL import Image
from torch import nn

from meddenoise_monai import __version__
from meddenoise_monai.baselines import TunedBaseline
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.evaluation import METRICS
from meddenoise_monai.handlers import BaselineComparison, FinalComparison, ImagePanels, RunTracker
from meddenoise_monai.handlers import comparison as comparison_module
from meddenoise_monai.handlers import run as run_module
from meddenoise_monai.handlers.comparison import cases_of
from meddenoise_monai.handlers.panels import GAP, HEAD, panel
from meddenoise_monai.handlers.run import described
from meddenoise_monai.inference import weights_fingerprint
from meddenoise_monai.metrics import psnr, ssim
from meddenoise_monai.networks import ResidualDenoisingAutoencoder
from meddenoise_monai.tracking import LocalRun, case_id
from meddenoise_monai.training import TrainingCheckpoint

NAMES = ["median", "gaussian"]
CPU = torch.device("cpu")
SIZE = 24


def items(count: int = 2, shape: tuple[int, ...] = (SIZE, SIZE)) -> Dataset:
    """Smooth images with noise of sigma 0.1, as the bundle's validation set gives them."""
    rng = np.random.default_rng(1)
    ramp = np.linspace(0.1, 0.9, shape[-1], dtype=np.float32)
    made = []
    for index in range(count):
        clean = np.broadcast_to(ramp, shape) * np.float32(1 - index / 10)
        noisy = clean + np.float32(0.1) * rng.standard_normal(shape, np.float32)
        image, label = (torch.tensor(array.copy())[None] for array in (noisy, clean))
        made.append({"image": image, "label": label, "source": f"/secret/Doe^John/{index}.dcm"})
    return Dataset(made)


def batches(dataset: Dataset) -> DataLoader:
    return DataLoader(
        dataset, batch_size=1, collate_fn=lambda batch: {k: batch[0][k][None] for k in ("image", "label")}
    )


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run that every tracker opens: without MLflow, to be fast."""
    folder = tmp_path / "run"
    monkeypatch.setattr(run_module, "open_run", lambda *args, **options: LocalRun(folder))
    return folder


def events(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if not kind or event["event"] == kind]


def metrics(folder: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for event in events(folder, "metrics"):
        for name, value in event["metrics"].items():
            found.setdefault(name, {})[event["step"]] = value
    return found


def status(folder: Path) -> list[str]:
    return [event["status"] for event in events(folder, "end")]


def trainer(tracker: RunTracker, *handlers: Any, epochs: int = 2, loss: Callable[..., Any] | None = None) -> Any:
    network = nn.Conv2d(1, 1, 3, padding=1)
    return SupervisedTrainer(
        device=CPU,
        max_epochs=epochs,
        train_data_loader=batches(items(3)),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
        loss_function=loss or nn.L1Loss(),
        train_handlers=[tracker, *handlers],
    )


def evaluator(dataset: Dataset, network: nn.Module, *handlers: Any) -> Any:
    def metric(function: Any) -> IgniteMetricHandler:
        return IgniteMetricHandler(function, output_transform=from_engine(["pred", "label"]))

    return SupervisedEvaluator(
        device=CPU,
        val_data_loader=batches(dataset),
        network=network,
        key_val_metric={"val_ssim": metric(SSIMMetric(2, data_range=1.0))},
        additional_metrics={"val_psnr": metric(PSNRMetric(1.0))},
        val_handlers=list(handlers),
    )


def comparison(tracker: RunTracker, dataset: Dataset, **options: Any) -> BaselineComparison:
    return BaselineComparison(tracker, dataset, **{"names": NAMES, **options})


# --------------------------------------------------------------------------------------------------------------- run


def test_run_records_what_a_training_does(local: Path) -> None:
    rates = iter([0.5, 0.25])
    tracker = RunTracker("test", local, parameters={"sigma": 0.1, "net": {"w": 3}}, learning_rate=lambda: next(rates))
    losses: list[float] = []

    def loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value = (prediction - target).abs().mean()
        losses.append(value.item())
        return value

    engine = trainer(tracker, loss=loss)
    engine.add_event_handler(Events.COMPLETED, lambda: tracker.finish())
    engine.run()
    logged = metrics(local)
    assert logged["train/loss"] == {
        epoch: pytest.approx(np.mean(losses[3 * epoch - 3 : 3 * epoch]), rel=1e-5) for epoch in (1, 2)
    }
    assert logged["train/learning_rate"] == {1: 0.5, 2: 0.25}
    assert all(0 <= share <= 1 for share in logged["train/data_share"].values())
    for epoch in (1, 2):
        assert logged["train/steps_per_second"][epoch] == pytest.approx(3 / logged["train/seconds"][epoch])
    assert events(local, "params")[0]["params"] == {"sigma": "0.1", "net.w": "3"}
    versions = json.loads((local / "artifacts/environment/versions.json").read_text(encoding="utf-8"))
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert not (local / "artifacts/config").exists()
    assert status(local) == ["FINISHED"]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (
            {
                "max_epochs": 10,
                "seed": 0,
                "sigma": 25 / 255,
                "network": "Net",
                "noise": "additive Gaussian, not clipped",
            },
            "sigma 25/255, epochs 10, seed 0, Net",
        ),
        ({"weights": "e45b0913bc95c2a2", "sigma": 0.05, "network": "Net"}, "weights e45b0913, sigma 12.8/255, Net"),
        ({"sigma": None, "noise": "v = 0.1 var", "seed": 3}, "v = 0.1 var, seed 3"),
        ({"widths": [3]}, ""),
    ],
)
def test_run_is_named_by_what_tells_it_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], name: str
) -> None:
    assert described(parameters) == name
    opened: list[dict[str, Any]] = []

    def note(experiment: str, **options: Any) -> LocalRun:
        opened.append(options)
        return LocalRun(tmp_path / "run")

    monkeypatch.setattr(run_module, "open_run", note)
    for given in (None, "mine"):
        tracker = RunTracker("test", tmp_path, run_name=given, parameters=parameters, tags={"job": "training"})
        tracker.start(Engine(lambda engine, batch: None))
        tracker.run.close()
    assert [options["run_name"] for options in opened] == [name or None, "mine"]
    assert opened[0]["tags"] == {"job": "training", "package_version": __version__}


def test_run_records_the_launched_configuration(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "launched_config", lambda: {"max_epochs": 3})
    tracker = RunTracker("test", local)
    tracker.start(Engine(lambda engine, batch: None))
    config = json.loads((local / "artifacts/config/resolved.json").read_text(encoding="utf-8"))
    assert config == {"max_epochs": 3}
    tracker.run.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [(RuntimeError("oops"), "FAILED"), (InputError("bad", "good"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED, Events.COMPLETED])
def test_run_of_a_broken_training_is_ended(local: Path, error: BaseException, expected: str, event: Events) -> None:
    def fail() -> None:
        raise error

    engine = trainer(RunTracker("test", local))
    engine.add_event_handler(event, fail)
    with pytest.raises(type(error)):
        engine.run()
    assert status(local) == [expected]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_training_stops_before_its_checkpoint(local: Path, tmp_path: Path, value: float) -> None:
    tracker = RunTracker("test", local)
    calls = []

    def loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return (prediction - target).abs().mean() * (value if len(calls) == 5 else 1.0)

    checkpoint = TrainingCheckpoint(
        tmp_path / "models", {"average": nn.Linear(1, 1), "tracker": tracker}, Engine(lambda engine, batch: None), "x"
    )
    with pytest.raises(InputError, match=r"the loss became (nan|inf) in epoch 2") as error:
        trainer(tracker, checkpoint, epochs=3, loss=loss).run()
    assert "--learning_rate" in error.value.hint
    assert torch.load(tmp_path / "models" / TrainingCheckpoint.LAST)["epoch"] == 1
    assert status(local) == ["FAILED"]


def test_handlers_that_log_too_early_are_told() -> None:
    with pytest.raises(RuntimeError, match="RunTracker must be attached before"):
        _ = RunTracker("test", "nowhere").run


def test_resumed_training_goes_on_in_its_run(mlflow_folder: Path) -> None:
    from mlflow import MlflowClient

    models = mlflow_folder / "models"

    def training(epochs: int, resume: bool, kill: bool = False) -> RunTracker:
        tracker = RunTracker("test", mlflow_folder, tags={"job": "training"}, resume_from=models if resume else None)
        parts = {"average": nn.Linear(1, 1), "tracker": tracker}
        checkpoint = TrainingCheckpoint(models, parts, Engine(lambda engine, batch: None), "x", resume=resume)
        engine = trainer(tracker, checkpoint, epochs=epochs)
        if kill:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), self_interrupt)
        engine.add_event_handler(Events.COMPLETED, lambda: tracker.finish(checkpoint.best_path))
        engine.run()
        return tracker

    def self_interrupt() -> None:
        raise KeyboardInterrupt

    client = MlflowClient(tracking_uri=f"sqlite:///{mlflow_folder}/mlflow.db")
    with pytest.raises(KeyboardInterrupt):
        training(3, resume=False, kill=True)
    run_id = TrainingCheckpoint.saved_part(models, "tracker")["run_id"]
    assert client.get_run(run_id).info.status == "KILLED"
    assert training(3, resume=True).run.run_id == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run_id, "train/loss")] == [1, 2, 3]
    assert [entry.path for entry in client.list_artifacts(run_id, "weights")] == ["weights/model_best.pt"]
    assert client.get_run(run_id).data.tags["job"] == "training"
    assert training(1, resume=False).run.run_id != run_id
    assert TrainingCheckpoint.saved_part(models, "tracker")["run_id"] != run_id


# -------------------------------------------------------------------------------------------------------- comparison


def test_cases_show_no_file_name() -> None:
    cases = cases_of(items())
    assert [case.name for case in cases] == [case_id(f"/secret/Doe^John/{index}.dcm") for index in range(2)]
    assert np.array_equal(cases[1].clean, items()[1]["label"][0])
    assert np.array_equal(cases[1].noisy, items()[1]["image"][0])


def test_comparison_tunes_once_and_logs_gains(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tunings = []
    original = comparison_module.tune_all
    monkeypatch.setattr(
        comparison_module, "tune_all", lambda *args, **options: tunings.append(1) or original(*args, **options)
    )
    dataset, tracker = items(), RunTracker("test", local)
    network = nn.Identity()
    handler = comparison(tracker, dataset, cache_dir=tmp_path / "tuning")
    validation = evaluator(dataset, network, handler)
    validator = ValidationHandler(validator=validation, interval=1, epoch_level=True)
    engine = trainer(tracker, validator, epochs=2)
    engine.run()
    tracker.finish()
    assert tunings == [1]
    assert sorted(handler.tuned) == sorted(NAMES)
    logged = metrics(local)
    for metric, function in (("psnr", psnr), ("ssim", ssim)):
        noisy, tuned = [], {name: [] for name in NAMES}
        for case in cases_of(dataset):
            noisy.append(function(case.clean, case.noisy, 1.0))
            for name in NAMES:
                tuned[name].append(function(case.clean, handler.tuned[name](case.noisy, case.sigma), 1.0))
        assert logged[f"baselines/noisy_{metric}"] == {0: pytest.approx(np.mean(noisy))}
        for name in NAMES:
            assert logged[f"baselines/{name}_{metric}"] == {0: pytest.approx(np.mean(tuned[name]))}
        best = max(float(np.mean(values)) for values in tuned.values())
        # The network changes nothing, so its scores are those of the noisy images.
        assert logged[f"validation/{metric}"] == {epoch: pytest.approx(np.mean(noisy), abs=1e-4) for epoch in (1, 2)}
        assert logged[f"validation/gain_over_noisy_{metric}"] == {epoch: pytest.approx(0, abs=1e-4) for epoch in (1, 2)}
        expected = pytest.approx(np.mean(noisy) - best, abs=1e-4)
        assert logged[f"validation/gain_over_best_baseline_{metric}"] == {1: expected, 2: expected}
        assert np.mean(noisy) - best < -0.1
    assert handler.best.name == max(NAMES, key=lambda name: handler.summary[name]["psnr"])
    table = json.loads((local / "artifacts/baselines_on_validation.json").read_text(encoding="utf-8"))
    assert table["columns"][:2] == ["method", "ssim"]
    assert [row[0] for row in table["data"]] == ["noisy", *NAMES]
    parameters = dict(
        zip(["noisy", *NAMES], (row[table["columns"].index("parameters")] for row in table["data"]), strict=True)
    )
    assert parameters["noisy"] == ""
    assert json.loads(parameters["median"]) == dict(handler.tuned["median"].parameters)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"names": []}, "no baseline"), ({"names": ["medain"]}, "medain"), ({"metric": "pnsr"}, "pnsr")],
)
def test_impossible_comparisons_are_refused_before_the_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        comparison(RunTracker("test", "nowhere"), items(), **options)


def test_one_baseline_needs_no_list() -> None:
    assert comparison(RunTracker("test", "nowhere"), items(), names="median").names == ["median"]


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (3, SIZE, SIZE)])
def test_final_comparison_writes_logs_and_prints(
    local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...]
) -> None:
    tracker = RunTracker("test", local)
    tracker.start(Engine(lambda engine, batch: None))
    network = ResidualDenoisingAutoencoder(widths=(2,), blocks=1)
    weights = {name: torch.full_like(value, 0.01) for name, value in network.state_dict().items()}
    torch.save(weights, tmp_path / "model_best.pt")
    dataset = items(3, shape)
    seen = []

    def inferer(inputs: torch.Tensor, network: Any) -> torch.Tensor:
        assert not network.training
        seen.append(tuple(inputs.shape))
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
        return inputs / 2

    final = FinalComparison(
        tracker, comparison(tracker, items(2, shape)), dataset, inferer, network.train(), CPU, tmp_path / "out",
        weights=tmp_path / "model_best.pt", protocol={"sigma": 0.1},
    )  # fmt: skip
    engine = Engine(lambda engine, batch: None)
    final.attach(engine)
    engine.run([0])
    assert seen == [(1, 1, *shape)] * 3
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert list(results["methods"]) == ["noisy", *NAMES, "dae"]
    halves = [psnr(case.clean, case.noisy / 2, 1.0) for case in cases_of(dataset)]
    assert results["methods"]["dae"]["psnr"]["mean"] == pytest.approx(np.mean(halves))
    assert results["protocol"]["sigma"] == 0.1
    assert results["protocol"]["cases"] == 3
    assert set(results["protocol"]["baseline_parameters"]) == set(NAMES)
    text = (tmp_path / "out/per_image.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1 + 3 * 4
    assert "Doe" not in text + (local / "events.jsonl").read_text(encoding="utf-8")
    with (tmp_path / "out/case_files.csv").open(newline="", encoding="utf-8") as stream:
        named = {row["case"]: row["file"] for row in csv.DictReader(stream)}
    assert named == {case_id(item["source"]): item["source"] for item in dataset}
    assert metrics(local)["test/dae_psnr"] == {0: pytest.approx(np.mean(halves))}
    table = json.loads((local / "artifacts/comparison.json").read_text(encoding="utf-8"))
    assert [row[0] for row in table["data"]] == ["noisy", *NAMES, "dae"]
    assert (local / "artifacts/weights/model_best.pt").read_bytes() == (tmp_path / "model_best.pt").read_bytes()
    assert events(local, "tags")[-1]["tags"] == {"weights": weights_fingerprint(network)}
    assert status(local) == ["FINISHED"]
    printed = capsys.readouterr().out
    assert "3 held-out images" in printed
    assert [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")] == [
        *("method", "-" * 10, "noisy", *NAMES, "dae"),
    ]
    assert "size=" in printed
    assert tracker.run.url_hint in printed


def test_evaluation_run_as_the_bundle_does(local: Path, tmp_path: Path) -> None:
    dataset, tracker = items(), RunTracker("test", local)
    compared = comparison(tracker, dataset)
    network = nn.Identity()
    final = FinalComparison(
        tracker, compared, dataset, lambda inputs, network: network(inputs), network, CPU, tmp_path / "out"
    )
    evaluator(dataset, network, tracker, compared, ImagePanels(tracker, compared, count=8), final).run()
    assert status(local) == ["FINISHED"]
    assert sorted(path.name for path in (local / "images").iterdir()) == ["panel_1", "panel_2"]
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["methods"]
    for metric in METRICS:
        assert results["dae"][metric] == results["noisy"][metric]
    assert "train/loss" not in metrics(local)


# ------------------------------------------------------------------------------------------------------------ panels


def tiles(picture: Any, height: int, width: int) -> list[Any]:
    """The six tiles of a panel, row by row, after a look at what is between them."""
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * (height + HEAD), 3 * (width + GAP) - GAP)
    found = []
    for row, column in itertools.product(range(2), range(3)):
        top, left = row * (height + HEAD), column * (width + GAP)
        assert (picture[top : top + HEAD, left : left + width] < 128).any()  # a title
        assert (picture[top + HEAD : top + HEAD + height, left + width : left + width + GAP] == 255).all()
        found.append(picture[top + HEAD : top + HEAD + height, left : left + width].astype(int))
    return found


def test_panel_shows_images_and_what_was_removed_and_left() -> None:
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.2, 0.6, (200, 210)).astype(np.float32)
    ours = clean.copy()
    ours[:100] += 0.02
    noise = np.where(rng.random(clean.shape) < 0.5, np.float32(-1), np.float32(1))  # of standard deviation 1
    shown = tiles(panel(clean, clean + noise, clean, ours, residual_gain=5.0), 200, 210)
    window = (clean - clean.min()) / (clean.max() - clean.min()) * 255
    assert np.abs(shown[0] - window).max() <= 0.5 + 1e-3
    assert (shown[0].min(), shown[0].max()) == (0, 255)
    assert np.array_equal(shown[1] == 255, noise > 0)  # far above the clean image's window, or far below
    assert np.array_equal(shown[2], shown[0])
    assert np.array_equal(shown[3][100:], shown[0][100:])
    assert (shown[3][:100] >= shown[0][:100]).all()
    assert set(np.unique(shown[4][100:])) == {128}  # no residual is mid-grey
    assert np.abs(shown[4][:100] - (0.5 + 5 * 0.02) * 255).max() <= 1
    assert np.abs(shown[5][100:] - (0.5 + noise[100:] / 6) * 255).max() <= 1
    assert np.abs(shown[5][:100] - (0.5 + (noise[:100] - 0.02) / 6) * 255).max() <= 1


def test_small_images_are_enlarged_without_smoothing() -> None:
    clean = np.array([[0.0, 1.0], [0.5, 0.25]], np.float32)
    shown = tiles(panel(clean, clean, clean, clean, 1.0), 2 * 96, 192)
    assert np.array_equal(shown[0][::96, ::96], [[0, 255], [128, 64]])
    assert len(np.unique(shown[0])) == 4


def test_constant_image_gives_a_panel() -> None:
    flat = np.full((8, 8), 0.5, np.float32)
    assert panel(flat, flat, flat, flat, 5.0).dtype == np.uint8


class _Engine:
    """What the panels read of an engine."""

    def __init__(self, epoch: int, iteration: int, output: Any) -> None:
        self.state = type("State", (), {"epoch": epoch, "iteration": iteration, "output": output})()


def test_panels_follow_the_same_images_at_their_interval(local: Path) -> None:
    dataset, tracker = items(4, (3, SIZE, SIZE)), RunTracker("test", local)
    tracker.start(Engine(lambda engine, batch: None))
    compared = comparison(tracker, dataset)
    compared.prepare()
    panels = ImagePanels(tracker, compared, count=2, interval=3)
    for epoch in range(1, 7):
        for iteration, item in enumerate([dataset[i] for i in range(4)], 1):
            output = {Keys.IMAGE: item["image"], Keys.LABEL: item["label"], Keys.PRED: item["label"]}
            panels(_Engine(epoch, iteration, [output]))  # type: ignore[arg-type]
        panels._end(None)  # type: ignore[arg-type]
    tracker.finish()
    shown = [(event["key"], event["step"]) for event in events(local, "image")]
    assert shown == [(f"panel_{image}", epoch) for epoch in (1, 3, 6) for image in (1, 2)]
    picture = np.asarray(Image.open(local / "images/panel_2/000003.png"))
    noisy, clean = (dataset[1][key][0, 1].numpy() for key in ("image", "label"))  # the middle slice of three
    best = compared.best(noisy, float(np.std(noisy - clean)))
    assert isinstance(compared.best, TunedBaseline)
    assert np.array_equal(picture, panel(clean, noisy, best, clean, 5.0))


def test_tuning_logs_its_progress(local: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = items()
    handler = comparison(RunTracker("test", local), dataset)
    validator = ValidationHandler(validator=evaluator(dataset, nn.Identity(), handler), interval=1, epoch_level=True)
    with caplog.at_level(logging.INFO, "meddenoise_monai.handlers.comparison"):
        trainer(handler.tracker, validator, epochs=1).run()
    handler.tracker.finish()
    for name in NAMES:
        assert sum(message.startswith(f"tuning {name}, after ") for message in caplog.messages) == 1


def test_training_logs_its_progress(local: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "meddenoise_monai.handlers.run"):
        tracker = RunTracker("test", local)
        trainer(tracker, epochs=1).run()
    tracker.finish()
    assert "epoch 1/1: loss" in caplog.text
    assert "left for all epochs" not in caplog.text


def test_long_epochs_say_how_far_they_are(
    local: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=16.0)  # seconds; it is read more than once a step
    monkeypatch.setattr(run_module.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, "meddenoise_monai.handlers.run"):
        tracker = RunTracker("test", local)
        trainer(tracker, epochs=2).run()
    tracker.finish()
    said = [message for message in caplog.messages if "left for all epochs" in message]
    assert len(said) == 6  # in each step of both epochs
    assert said[0].startswith("epoch 1/2: step 1 of 3, 0.021 steps/s, some 4 minutes left")
    assert said[5].startswith("epoch 2/2: step 3 of 3")
    assert said[5].endswith("some 0 minutes left for all epochs")


def test_an_interrupted_training_says_how_to_go_on(local: Path, caplog: pytest.LogCaptureFixture) -> None:
    def interrupt(engine: Engine) -> None:
        if engine.state.epoch == 2:
            raise KeyboardInterrupt

    engine = trainer(RunTracker("test", local), epochs=3)
    engine.add_event_handler(Events.ITERATION_COMPLETED, interrupt)
    with caplog.at_level(logging.INFO, "meddenoise_monai.handlers.run"), pytest.raises(KeyboardInterrupt):
        engine.run()
    assert "--resume true goes on after epoch 1" in caplog.text
