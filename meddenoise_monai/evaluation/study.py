"""A comparison from scenes to numbers: which tasks it takes, what baselines are tuned to, what is measured where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..baselines.grids import family_of
from ..datasets import evenly
from .conditions import ACQUIRED, Condition
from .methods import Method
from .scenes import Scene, evenly_by_data
from .tasks import Task, Values, run_tasks

__all__ = ["Outcome", "Plan", "carry_out", "plan_tasks", "tune_methods"]

TUNED_ON, TUNING_SIDE = 4, 128  # images of each data set, pixels: BM3D's grid on all would take as long as the rest
REPEATED = 3  # scenes of each data set whose noise is drawn again and again
REPEATED_SIDE = 128
CONTRASTS = (0.1, 0.2, 0.4)  # of the phantom's edges, on the [0, 1] scale
PHANTOM_DRAWS = 4
OBSERVED = 10  # scenes of each data set, and uniform fields, with signals
PICTURED = 2  # scenes of each data set that are shown

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes
    ----------
    scenes
        What is judged.
    annotated
        Windows around annotated lesions.
    conditions
        Of noise; ``acquired`` alone for pairs and repeats.
    methods
        By data set and condition, since baselines are tuned for each.
    seed
        Of the noise.
    realisations
        Draws for bias and variance.
    """

    scenes: Sequence[Scene]
    annotated: Sequence[Scene]
    conditions: Sequence[Condition]
    methods: dict[tuple[str, Condition], tuple[Method, ...]]
    seed: int
    realisations: int

    @property
    def observed(self) -> list[Condition]:
        """The conditions under which lesions are looked for: of each noise the level in the middle."""
        found = []
        for noise in dict.fromkeys(condition.noise for condition in self.conditions):
            levels = sorted((c for c in self.conditions if c.noise == noise), key=lambda c: c.level)
            if noise != ACQUIRED:
                found.append(levels[len(levels) // 2])
        return found


@dataclass(frozen=True)
class Outcome:
    """A task's `about`, and what was measured of each method."""

    measure: str
    about: dict[str, Any]
    values: dict[str, Values]


def tune_methods(
    methods: Sequence[Method],
    tuning: Sequence[Scene],
    conditions: Sequence[Condition],
    seed: int,
    cache: Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[dict[tuple[str, Condition], tuple[Method, ...]], dict[tuple[str, Condition], dict[str, Values]]]:
    """The methods for each data set and condition, baselines with the parameters of the best PSNR there.

    Returns
    -------
    tuple
        The methods; and what was found, by data set and condition and by baseline (`measures.tuning`).
    """
    baselines = [method for method in methods if method.kind == "baseline"]
    tasks = []
    groups = list(dict.fromkeys((scene.data, condition) for scene in tuning for condition in conditions))
    for data, condition in groups:
        pairs = []
        for scene in evenly([scene for scene in tuning if scene.data == data], TUNED_ON):
            clean = _middle(scene.clean, TUNING_SIDE)
            noisy = _middle(scene.acquired[0], TUNING_SIDE) if scene.acquired else condition.draw(clean, seed)
            pairs.append((clean, noisy))
        for method in baselines:
            grid = repr(family_of(method.name).candidates)
            arguments = {"name": method.name, "pairs": pairs, "grid": grid}
            tasks.append(Task("tuning", (method,), arguments, {"data": data, "condition": condition}))
    # BM3D takes longest: it goes first.
    tasks.sort(key=lambda task: task.methods[0].name != "bm3d")
    records: dict[tuple[str, Condition], dict[str, Values]] = {group: {} for group in groups}
    for outcome in carry_out(tasks, cache, workers, progress):
        records[outcome.about["data"], outcome.about["condition"]] |= outcome.values
    found = {
        group: tuple(
            replace(method, parameters=tuned[method.name]["parameters"]) if method.name in tuned else method
            for method in methods
        )
        for group, tuned in records.items()
    }
    return found, records


def plan_tasks(plan: Plan) -> list[Task]:
    """All measurements of a comparison, those that take longest first."""
    tasks: list[Task] = []
    first = next(iter(plan.methods.values()))

    def add(measure: str, methods: tuple[Method, ...], about: dict[str, Any], **arguments: Any) -> None:
        tasks.append(Task(measure, methods, arguments, about))

    shown = {id(scene) for scene in evenly_by_data(plan.scenes, PICTURED)}
    repeated = {id(scene) for scene in evenly_by_data(plan.scenes, REPEATED)}
    observed = {id(scene) for scene in evenly_by_data(plan.scenes, OBSERVED)}
    middle = plan.observed[0] if plan.observed else plan.conditions[0]
    for condition in plan.conditions:
        for scene in plan.scenes:
            methods = plan.methods[scene.data, condition]
            about = {"condition": condition, "scene": scene}
            noisy = scene.acquired[0] if scene.acquired else None
            keep = id(scene) in shown and condition == middle
            add(
                "fidelity",
                methods,
                about,
                clean=scene.clean,
                noisy=noisy,
                condition=condition,
                seed=plan.seed,
                keep=keep,
            )
            if calibrated := tuple(method for method in methods if method.calibration):
                add("coverage", calibrated, about, clean=scene.clean, noisy=noisy, condition=condition, seed=plan.seed)
            if id(scene) in repeated and plan.realisations > 1 and len(scene.acquired) != 1:
                parts = tuple(_middle(image, REPEATED_SIDE) for image in scene.acquired)
                clean = _middle(scene.clean, REPEATED_SIDE)
                add("repeats", methods, about, clean=clean, acquired=parts, condition=condition, seed=plan.seed,
                    count=plan.realisations)  # fmt: skip
            if id(scene) in observed and condition in plan.observed and min(scene.clean.shape) >= 128:
                add("signals", methods, about, clean=scene.clean, condition=condition, seed=plan.seed + 1)
        for scene in plan.annotated if condition in plan.observed else ():
            methods = plan.methods.get((scene.data, condition), first)
            places = [(each.row, each.column, each.radius) for each in scene.annotations]
            add("annotated", methods, {"condition": condition, "scene": scene}, clean=scene.clean, places=places,
                condition=condition, seed=plan.seed)  # fmt: skip
        if condition.noise != ACQUIRED:
            tasks += _phantom_tasks(plan, condition)
    return sorted(tasks, key=lambda task: _COST[task.measure], reverse=True)


_COST = {
    "signals": 6,
    "edge": 5,
    "uniform": 4,
    "details": 4,
    "repeats": 3,
    "fidelity": 2,
    "annotated": 1,
    "coverage": 0,
}


def _phantom_tasks(plan: Plan, condition: Condition) -> list[Task]:
    """Phantoms show what no image does; the baselines are as tuned for the first data set."""
    methods = next(methods for (_, tuned_for), methods in plan.methods.items() if tuned_for == condition)
    about = {"condition": condition}
    common = {"condition": condition, "seed": plan.seed, "count": PHANTOM_DRAWS}
    tasks = [Task(measure, methods, common, about) for measure in ("uniform", "details")]
    tasks += [Task("edge", methods, {**common, "contrast": each}, {**about, "contrast": each}) for each in CONTRASTS]
    if condition in plan.observed:
        flat = np.full((128, 128), 0.4, np.float32)
        for number in range(OBSERVED):
            arguments = {"clean": flat, "condition": condition, "seed": plan.seed + 2 + number}
            tasks.append(Task("signals", methods, arguments, {**about, "field": number}))
    return tasks


def carry_out(tasks: Sequence[Task], cache: Path, workers: int = 1, progress: Progress | None = None) -> list[Outcome]:
    """Run the tasks (see `tasks.run_tasks`); `progress` is told how many are done, of how many."""
    told = None if progress is None else (lambda done: progress(done, len(tasks)))
    results = run_tasks(tasks, cache, workers, told)
    return [Outcome(task.measure, dict(task.about), values) for task, values in zip(tasks, results, strict=True)]


def _middle(image: Any, side: int) -> Any:
    top, left = (max(0, (length - side) // 2) for length in image.shape)
    return np.ascontiguousarray(image[top : top + side, left : left + side])
