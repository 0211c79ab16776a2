from __future__ import annotations

import errno
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, get_track_meta, set_track_meta
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import IgniteMetricHandler, LrScheduleHandler, ValidationHandler, from_engine
from monai.metrics import PSNRMetric
from monai.optimizers.lr_scheduler import WarmupCosineSchedule
from monai.transforms import Compose, CopyItemsd, RandFlipd, RandGaussianNoised
from PIL import Image
from torch import nn
from torch.utils.data import RandomSampler

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.identity import image_digests, known_images
from meddenoise_monai.networks import ResidualDenoisingAutoencoder
from meddenoise_monai.training import (
    EpochSeed,
    GradientClipping,
    TrainingCheckpoint,
    WeightAverage,
    averaged_model,
    check_device,
    cosine_with_restarts,
    load_pretrained,
)
from tests.samples import textured, write_patients

LAST, BEST = TrainingCheckpoint.LAST, TrainingCheckpoint.BEST


@pytest.fixture(autouse=True, scope="module")
def _plain_tensors() -> Iterator[None]:
    """As the bundle's configuration: MONAI's tensors with metadata double the time of a step."""
    before = get_track_meta()
    set_track_meta(False)
    yield
    set_track_meta(before)


class Killed(BaseException):
    """What stands for a kill: no handler may treat it as an error of the training."""


class Training:
    """A whole training in miniature, put together as the bundle's configuration does it."""

    def __init__(
        self,
        folder: Path,
        epochs: int = 6,
        kill_at: int | None = None,
        metrics: list[float] | None = None,
        interval: int = 1,
        widths: tuple[int, ...] = (2,),
        workers: int = 0,
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        self.network = ResidualDenoisingAutoencoder(widths=widths, blocks=1)
        self.average = averaged_model(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-2)
        self.schedule = WarmupCosineSchedule(self.optimizer, 3, 6 * 3)
        images = [{"image": torch.from_numpy(np.random.default_rng(i).random((1, 8, 8), np.float32))} for i in range(5)]
        noise = RandGaussianNoised("image", prob=1.0, std=0.2)
        flip = RandFlipd("image", prob=0.5, spatial_axis=0)
        dataset = Dataset(images, Compose([flip, CopyItemsd("image", names="label"), noise]))
        sampler: RandomSampler = RandomSampler(dataset, replacement=True, num_samples=6)
        self.lr: list[float] = []
        self.seen: list[torch.Tensor] = []
        fixed = Dataset([{"image": item["image"] + 0.1, "label": item["image"]} for item in images[:2]])
        self.evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(fixed, batch_size=1),
            network=self.average.module,
            key_val_metric={
                "psnr": IgniteMetricHandler(PSNRMetric(1.0), output_transform=from_engine(["pred", "label"]))
            },
        )
        if metrics is not None:  # the validations answer these numbers, in place of the network's
            self.evaluator.add_event_handler(
                Events.EPOCH_COMPLETED,
                lambda engine: engine.state.metrics.update(psnr=metrics[engine.state.epoch - 1]),
            )
        parts = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
        self.checkpoint = TrainingCheckpoint(folder, parts, self.evaluator, "psnr", **options)
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=nn.L1Loss(),
            train_handlers=[
                EpochSeed(dataset, 7),
                GradientClipping(self.network),
                WeightAverage(self.average, self.network),
                LrScheduleHandler(self.schedule, print_lr=False, epoch_level=False),
                ValidationHandler(validator=self.evaluator, interval=interval, epoch_level=True),
                self.checkpoint,
            ],
        )
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._watch, kill_at)

    def _watch(self, engine: Any, kill_at: int | None) -> None:
        self.lr.append(self.optimizer.param_groups[0]["lr"])
        self.seen.append(torch.stack([item["image"] for item in engine.state.output]))
        if engine.state.iteration == kill_at:
            raise Killed

    def run(self) -> Training:
        self.trainer.run()
        return self


def flat(value: Any) -> Iterator[Any]:
    """The leaves of nested state dicts, tensors as lists of numbers."""
    if isinstance(value, dict):
        for key in value:
            yield key
            yield from flat(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value.tolist() if isinstance(value, torch.Tensor) else value


def state_of(training: Training) -> list[Any]:
    return [entry for part in training.checkpoint.parts.values() for entry in flat(part.state_dict())]


def saved(path: Path) -> Any:
    return torch.load(path, weights_only=True)


# ---------------------------------------------------------------------------------------------------------- average


def test_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = averaged_model(network, decay=0.5)
    expected = None
    for n, value in enumerate([3.0, -1.0, 2.0, 8.0, 5.0, 1.0, 0.0, 4.0, 2.0, 9.0]):
        nn.init.constant_(network.weight, value)
        WeightAverage(average, network)(Engine(lambda engine, batch: None))
        # AveragedModel copies the weights at the first update and counts it.
        decay = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected)
    assert (1 + n) / (10 + n) > 0.5  # both branches of the minimum were taken


def test_average_of_constant_weights_is_they() -> None:
    network = nn.Linear(3, 2)
    average = averaged_model(network)
    for _ in range(3):
        average.update_parameters(network)
    assert torch.allclose(average.module.weight, network.weight)


def test_statistics_of_batch_normalisation_are_averaged_with_the_weights() -> None:
    network = nn.BatchNorm1d(2, momentum=1.0).train()
    average = averaged_model(network, decay=0.5)
    expected = None
    for n, value in enumerate([3.0, -1.0, 2.0]):
        network(torch.full((4, 2), value))
        average.update_parameters(network)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.module.running_mean.tolist() == pytest.approx([expected] * 2)
        assert average.module.num_batches_tracked == n + 1


@pytest.mark.parametrize("warmup", [0, 4])
def test_each_cycle_of_the_learning_rate_is_monais_cosine_at_half_the_height(warmup: int) -> None:
    length, cycles = 20, 3

    def rates(scheduler: Any) -> list[float]:
        found = []
        for _ in range(scheduler.steps):
            found.append(scheduler.get_last_lr()[0])
            scheduler.optimizer.step()
            scheduler.step()
        return found

    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)

    ours = torch.optim.lr_scheduler.LambdaLR(optimizer(), cosine_with_restarts(cycles * length, cycles, warmup))
    monais = WarmupCosineSchedule(optimizer(), warmup, length)
    ours.steps, monais.steps = cycles * length, length  # type: ignore[attr-defined]
    once = np.array(rates(monais))
    np.testing.assert_allclose(rates(ours), np.concatenate([once, once / 2, once / 4]), atol=1e-12)


def test_short_cycles_fall_again_after_their_warmup() -> None:
    factor = cosine_with_restarts(12, 2, warmup_steps=500, decay=0.3)
    once = np.array([0, 1 / 3, 2 / 3, 1, 0.75, 0.25])
    assert [factor(step) for step in range(12)] == pytest.approx([*once, *(0.3 * once)])


def test_steps_that_the_cycles_do_not_divide_begin_no_further_cycle() -> None:
    factor = cosine_with_restarts(5, 2)
    assert [factor(step) for step in range(5)] == pytest.approx([1, 0.75, 0.25, 0.5, 0.375])


@pytest.mark.parametrize(
    ("steps", "cycles", "decay"), [(10, 0, 0.5), (0, 1, 0.5), (2, 3, 0.5), (10, 2, 0.0), (10, 2, 1.5)]
)
def test_impossible_cycles_are_refused(steps: int, cycles: int, decay: float) -> None:
    with pytest.raises(UsageError):
        cosine_with_restarts(steps, cycles, decay=decay)


def test_gradient_is_clipped_before_the_step() -> None:
    network = nn.Linear(4, 1)
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*IterationEvents)
    engine.scaler = None
    GradientClipping(network, 0.5).attach(engine)
    for factor, expected in ((100.0, 0.5), (1e-3, None)):
        network.zero_grad()
        (factor * network(torch.ones(1, 4))).sum().backward()
        before = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        after = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
        assert float(after) == pytest.approx(expected or float(before), rel=1e-4)


# ------------------------------------------------------------------------------------------------------------ seeds


def draws(epoch: int, seed: int = 7, spoil: int = 0) -> list[float]:
    dataset = Dataset([0], Compose([RandGaussianNoised("image", prob=1.0)]))
    for _ in range(spoil):  # another past
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        dataset.transform({"image": torch.zeros(1, 1)})
    engine = Engine(lambda engine, batch: None)
    EpochSeed(dataset, seed).attach(engine)
    engine.state.epoch = epoch
    engine.fire_event(Events.EPOCH_STARTED)
    own = float(dataset.transform({"image": torch.zeros(1, 1)})["image"])
    return [random.random(), float(np.random.random()), float(torch.rand(1)), own]  # noqa: NPY002  # the global states


def test_epoch_decides_the_draws_and_nothing_else_does() -> None:
    assert draws(3) == draws(3) == draws(3, spoil=5)
    for other in (draws(4), draws(3, seed=8)):
        assert all(a != b for a, b in zip(draws(3), other, strict=True))


# ------------------------------------------------------------------------------------------------------------ resume


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    return Training(folder).run(), folder


@pytest.mark.parametrize("kill_at", [10, 11, 12])
def test_killed_and_resumed_equals_unbroken_bit_for_bit(
    tmp_path: Path, unbroken: tuple[Training, Path], kill_at: int
) -> None:
    whole, folder = unbroken
    first = Training(tmp_path, kill_at=kill_at)  # in the middle, or at the last step, of the fourth epoch of 3 steps
    with pytest.raises(Killed):
        first.run()
    assert saved(tmp_path / LAST)["epoch"] == 3
    second = Training(tmp_path, resume=True).run()
    assert [epoch.tolist() for epoch in second.seen] == [epoch.tolist() for epoch in whole.seen[9:]]
    assert second.lr == whole.lr[9:]
    assert state_of(second) == state_of(whole)
    assert second.checkpoint.best_metric == whole.checkpoint.best_metric
    assert second.checkpoint.best_epoch == whole.checkpoint.best_epoch
    assert second.trainer.state.iteration == 18
    for name in (LAST, BEST):
        ours, theirs = saved(tmp_path / name), saved(folder / name)
        ours.pop("seconds", None), theirs.pop("seconds", None)
        assert list(flat(ours)) == list(flat(theirs))


def test_workers_draw_the_same_after_a_resume(tmp_path: Path) -> None:
    whole = Training(tmp_path / "a", epochs=2, workers=1).run()
    with pytest.raises(Killed):
        Training(tmp_path / "b", epochs=2, workers=1, kill_at=5).run()
    second = Training(tmp_path / "b", epochs=2, workers=1, resume=True).run()
    assert [batch.tolist() for batch in second.seen] == [batch.tolist() for batch in whole.seen[3:]]
    assert state_of(second) == state_of(whole)


def test_training_learns_and_draws_anew_each_epoch(unbroken: tuple[Training, Path]) -> None:
    whole, folder = unbroken
    assert len(whole.seen) == 18
    assert len({str(batch.tolist()) for batch in whole.seen}) == 18
    assert len(set(whole.lr)) > 10
    best = saved(folder / BEST)
    assert best.keys() == whole.network.state_dict().keys()
    assert float(best["tail.weight"].abs().max()) > 0


def test_best_weights_are_the_average_of_the_best_epoch(tmp_path: Path) -> None:
    weights = {}
    training = Training(tmp_path, metrics=[1.0, 5.0, 3.0, float("nan"), 5.0, 2.0])

    @training.trainer.on(Events.EPOCH_COMPLETED)
    def keep(engine: Any) -> None:
        weights[engine.state.epoch] = [*flat(training.average.module.state_dict())]

    training.run()
    assert [*flat(saved(tmp_path / BEST))] == weights[2]
    assert weights[2] != [*flat(training.network.state_dict())]
    assert (training.checkpoint.best_metric, training.checkpoint.best_epoch) == (5.0, 2)
    assert training.checkpoint.best_path == tmp_path / BEST


def test_resumed_training_keeps_a_better_best(tmp_path: Path) -> None:
    Training(tmp_path, epochs=2, metrics=[1.0, 9.0]).run()
    best = (tmp_path / BEST).read_bytes()
    resumed = Training(tmp_path, epochs=4, metrics=[1.0, 9.0, 3.0, 4.0], resume=True).run()
    assert (tmp_path / BEST).read_bytes() == best
    assert (resumed.checkpoint.best_metric, resumed.checkpoint.best_epoch) == (9.0, 2)
    better = Training(tmp_path, epochs=5, metrics=[1.0, 9.0, 3.0, 4.0, 10.0], resume=True).run()
    assert (tmp_path / BEST).read_bytes() != best
    assert better.checkpoint.best_epoch == 5


def test_fresh_training_replaces_the_best_of_an_older_one(tmp_path: Path) -> None:
    Training(tmp_path, epochs=2, metrics=[9.0, 9.0]).run()
    old = (tmp_path / BEST).read_bytes()
    Training(tmp_path, epochs=1, metrics=[1.0]).run()
    assert (tmp_path / BEST).read_bytes() != old
    assert (tmp_path / "model_previous.pt").read_bytes() == old  # a short trial must not cost a long training
    for options in ({"interval": 5}, {"metrics": [float("nan")]}):  # no validation, or none with a number
        (tmp_path / BEST).write_bytes(old)
        training = Training(tmp_path, epochs=1, **options).run()
        assert [*flat(saved(tmp_path / BEST))] == [*flat(training.average.module.state_dict())]


def test_stale_metric_of_an_epoch_without_validation_does_not_count(tmp_path: Path) -> None:
    training = Training(tmp_path, epochs=4, interval=2, metrics=[0.0, 4.0, 0.0, 6.0]).run()
    assert (training.checkpoint.best_metric, training.checkpoint.best_epoch) == (6.0, 4)


def test_nothing_to_resume_is_a_warning_and_a_fresh_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = Training(tmp_path / "new", epochs=1, resume=True).run()
    assert "nothing to resume" in caplog.text
    assert training.trainer.state.epoch == 1
    assert (tmp_path / "new" / LAST).is_file()


def test_without_resume_the_checkpoint_is_not_read(tmp_path: Path) -> None:
    Training(tmp_path, epochs=2).run()
    assert Training(tmp_path, epochs=2).run().trainer.state.iteration == 6
    assert len(Training(tmp_path, epochs=2).run().seen) == 6


@pytest.mark.parametrize("epochs", [2, 1])
def test_finished_training_is_not_trained_further(tmp_path: Path, epochs: int) -> None:
    done = Training(tmp_path, epochs=2).run()
    before = (tmp_path / LAST).read_bytes()
    ended = []
    again = Training(tmp_path, epochs=epochs, resume=True)
    again.trainer.add_event_handler(Events.COMPLETED, lambda: ended.append(True))
    again.run()
    assert not again.seen
    assert ended == [True]
    assert state_of(again) == state_of(done)
    assert (tmp_path / LAST).read_bytes() == before


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    Training(tmp_path, epochs=1).run()
    with pytest.raises(InputError, match="does not fit this network"):
        Training(tmp_path, widths=(3,), resume=True).run()
    other = Training(tmp_path, resume=True)
    del other.checkpoint.parts["schedule"]
    with pytest.raises(InputError, match="another configuration"):
        other.run()


def test_training_is_not_resumed_on_other_images(tmp_path: Path) -> None:
    first, other = ({"image": write_patients(tmp_path / name, 1) / "patient00.png"} for name in "ab")
    Image.fromarray(textured(9)).save(other["image"])
    Training(tmp_path, epochs=1, data=[first]).run()
    for data in ([other], [first, other], []):
        with pytest.raises(InputError, match="trained on other images") as caught:
            Training(tmp_path, epochs=2, resume=True, data=data).run()
        assert "--pretrained" in caught.value.hint
    moved = {"image": shutil.copy(first["image"], tmp_path / "moved.png")}
    assert Training(tmp_path, epochs=2, resume=True, data=[moved]).run().trainer.state.epoch == 2


def test_best_weights_know_their_training_images(tmp_path: Path) -> None:
    item = {"image": write_patients(tmp_path / "in", 1) / "patient00.png"}
    Training(tmp_path, epochs=1, data=[item]).run()
    assert known_images(tmp_path / BEST) == set(image_digests([item]))
    Training(tmp_path, epochs=1).run()
    assert known_images(tmp_path / BEST) == set()
    assert known_images(tmp_path / "model_previous.pt") == set(image_digests([item]))


def test_best_weights_know_the_training_images_of_those_they_started_from(tmp_path: Path) -> None:
    first, second = ({"image": write_patients(tmp_path / name, 1) / "patient00.png"} for name in ("first", "second"))
    Image.fromarray(textured(9)).save(second["image"])
    Training(tmp_path, epochs=1, data=[first]).run()
    # the same folder: the training renames what it started from
    Training(tmp_path, epochs=1, data=[second], pretrained=tmp_path / BEST).run()
    both = set(image_digests([first, second]))
    assert len(both) == 2
    assert known_images(tmp_path / BEST) == both
    (tmp_path / BEST).with_suffix(".json").unlink()
    better = {"data": [second], "metrics": [100.0, 101.0, 102.0], "resume": True}
    Training(tmp_path, epochs=2, **better).run()  # without saying again what it started from
    (tmp_path / BEST).with_suffix(".json").unlink()
    Training(tmp_path, epochs=3, **better).run()
    assert known_images(tmp_path / BEST) == both


def test_weights_of_unknown_training_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Training(tmp_path, epochs=1).run()
    assert "no " + str(tmp_path / "bare.json") not in caplog.text
    shutil.copy(tmp_path / BEST, tmp_path / "bare.pt")
    Training(tmp_path, epochs=1, pretrained=tmp_path / "bare.pt").run()
    assert f"no {tmp_path / 'bare.json'} names the images" in caplog.text


@pytest.mark.parametrize("content", [b"", b"half a file", {}, {"epoch": 1}, [1, 2]])
def test_broken_checkpoint_is_refused(tmp_path: Path, content: Any) -> None:
    if isinstance(content, bytes):
        (tmp_path / LAST).write_bytes(content)
    else:
        torch.save(content, tmp_path / LAST)
    with pytest.raises(InputError, match="cannot resume from"):
        Training(tmp_path, resume=True).run()
    with pytest.raises(InputError, match="cannot resume from"):
        TrainingCheckpoint.saved_part(tmp_path, "network")


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    Training(tmp_path, epochs=1).run()
    content = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot resume from"):
        Training(tmp_path, resume=True).run()


def test_one_part_can_be_read_alone(tmp_path: Path) -> None:
    assert TrainingCheckpoint.saved_part(tmp_path, "network") == {}
    training = Training(tmp_path, epochs=1).run()
    part = TrainingCheckpoint.saved_part(tmp_path, "network")
    assert [*flat(part)] == [*flat(dict(training.network.state_dict()))]
    assert TrainingCheckpoint.saved_part(tmp_path, "tracker") == {}


# ------------------------------------------------------------------------------------------------------------ limits


def test_patience_counts_validations_without_a_better_metric(tmp_path: Path) -> None:
    numbers = [1.0, 5.0, 4.0, float("nan"), 3.0, 9.0]
    assert Training(tmp_path, metrics=numbers, patience=3).run().trainer.state.epoch == 5
    assert Training(tmp_path, metrics=numbers, patience=4).run().trainer.state.epoch == 6
    assert Training(tmp_path, metrics=numbers, patience=0).run().trainer.state.epoch == 6


def test_patience_does_not_count_epochs_without_validation(tmp_path: Path) -> None:
    numbers = [0.0, 5.0, 0.0, 4.0, 0.0, 3.0]
    assert Training(tmp_path, metrics=numbers, interval=2, patience=1).run().trainer.state.epoch == 4
    assert Training(tmp_path, metrics=numbers, interval=2, patience=2).run().trainer.state.epoch == 6


def test_patience_goes_on_after_a_resume(tmp_path: Path) -> None:
    numbers = [5.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    Training(tmp_path, epochs=2, metrics=numbers).run()
    assert Training(tmp_path, metrics=numbers, patience=2, resume=True).run().trainer.state.epoch == 3
    ended = Training(tmp_path, metrics=numbers, patience=2, resume=True).run()
    assert ended.trainer.state.epoch == 3
    assert not ended.seen


def test_time_limit_stops_before_the_epoch_that_would_pass_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("meddenoise_monai.training.time.monotonic", lambda: clock[0])

    def timed(**options: Any) -> Training:
        training = Training(tmp_path, max_minutes=1.0, **options)
        training.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: clock.__setitem__(0, clock[0] + 25.0))
        ended: list[bool] = []
        training.trainer.add_event_handler(Events.COMPLETED, lambda: ended.append(True))
        training.run()
        assert ended == [True]
        return training

    assert timed().trainer.state.epoch == 2  # 25 s each: the third would end at 75 s
    assert saved(tmp_path / LAST)["seconds"] == 50.0
    assert timed(resume=True).trainer.state.epoch == 3  # the length of an epoch is not known after a resume
    assert not timed(resume=True).seen
    assert timed(epochs=2, resume=True).trainer.state.epoch == 3


# -------------------------------------------------------------------------------------------------------- whole files


def half_then(error: Exception) -> Callable[[Any, Path], None]:
    def save(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half a file")
        raise error

    return save


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), InputError, "No space left"),
        (
            RuntimeError("[enforce fail at inline_container.cc:1] . PytorchStreamWriter failed\nmore"),
            InputError,
            "Pytorch",
        ),
        (Killed(), Killed, None),
    ],
)
def test_file_is_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, expected: type[BaseException], message: str | None
) -> None:
    Training(tmp_path, epochs=1).run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {LAST, BEST, "model_best.json"}
    monkeypatch.setattr(torch, "save", half_then(error))
    with pytest.raises(expected, match=message) as raised:
        Training(tmp_path, epochs=2, resume=True).run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    if isinstance(raised.value, InputError):
        assert len(str(raised.value).splitlines()) == 2
    monkeypatch.undo()
    assert Training(tmp_path, epochs=2, resume=True).run().trainer.state.epoch == 2


def test_file_system_that_takes_no_more_is_an_input_error(tmp_path: Path) -> None:
    Training(tmp_path, epochs=1).run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    training = Training(tmp_path, epochs=2, resume=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write") as raised:
            training.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(str(raised.value).splitlines()) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# -------------------------------------------------------------------------------------------------------- beginnings


def test_pretrained_weights_are_loaded(tmp_path: Path) -> None:
    source, target = ResidualDenoisingAutoencoder(widths=(2, 4)), ResidualDenoisingAutoencoder(widths=(2, 4))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    assert load_pretrained(target, tmp_path / "model.pt") is target
    assert [*flat(target.state_dict())] == [*flat(source.state_dict())]


@pytest.mark.parametrize("nothing", ["", None])
def test_without_pretrained_weights_the_network_stays(nothing: str | None) -> None:
    network = nn.Linear(1, 1)
    before = [*flat(network.state_dict())]
    assert load_pretrained(network, nothing) is network
    assert [*flat(network.state_dict())] == before


def test_pretrained_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="do not fit this network"):
        load_pretrained(nn.Linear(3, 3), tmp_path / "model.pt")
    with pytest.raises(InputError, match="no such weights"):
        load_pretrained(nn.Linear(3, 3), tmp_path / "missing.pt")


@pytest.mark.parametrize("nothing", ["BasicUNet", {"target": "BasicUNet"}])
def test_what_is_no_network_is_refused(nothing: Any) -> None:
    with pytest.raises(UsageError, match=r"network_def makes no network but .*BasicUNet"):
        load_pretrained(nothing, None)


def test_devices_are_checked() -> None:
    assert check_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "gpu"):
        with pytest.raises(UsageError, match=name):
            check_device(name)
