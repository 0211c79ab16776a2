"""A comparison from scenes to numbers: which tasks it takes, what baselines are tuned to, what is measured where."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..baselines.grids import family_of
from ..datasets import evenly
from .conditions import ACQUIRED, Condition
from .measures import PHANTOM_SIDE
from .methods import Method
from .scenes import Scene, evenly_by_data
from .tasks import Task, Values, Workers, run_tasks

__all__ = ["Outcome", "Plan", "carry_out", "plan_tasks", "tune_methods"]

TUNED_ON, TUNING_SIDE = 8, 96  # images of each data set, pixels
SLOW_TUNED_ON = {"bm3d": 4}  # whose grid on all would take as long as the rest
REPEATED = 3  # scenes of each data set whose noise is drawn again and again
REPEATED_SIDE = 96
CONTRASTS = (0.1, 0.2, 0.4)  # of the phantom's edges, on the [0, 1] scale
PHANTOM_DRAWS = 4
OBSERVED = 10  # scenes of each data set with signals
FIELDS = 20  # uniform ones, with signals
PICTURED = 2  # scenes of each data set that are shown

FEWEST_TUNED_ON = 4  # without a warning

Progress = Callable[[int, int], None]

_log = logging.getLogger(__name__)


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
    workers: Workers | None = None,
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
        if len(pairs) < FEWEST_TUNED_ON and condition == conditions[0]:
            _log.warning("%s: baselines are tuned on %d image(s) only: they might do better", data, len(pairs))
        for method in baselines:
            grid = repr(family_of(method.name).candidates)
            few = evenly(pairs, SLOW_TUNED_ON.get(method.name, TUNED_ON))
            arguments = {"name": method.name, "pairs": few, "grid": grid}
            about = {"data": data, "condition": condition}
            tasks.append(Task("tuning", (method,), arguments, about, cost=method.name == "bm3d"))
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
    """All measurements of a comparison."""
    tasks: list[Task] = []
    first = next(iter(plan.methods.values()))

    def add(measure: str, methods: tuple[Method, ...], about: dict[str, Any], **arguments: Any) -> None:
        cost = _DENOISED.get(measure, 1) * about["scene"].clean.size
        tasks.append(Task(measure, methods, arguments, about, cost))

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
            common = {"clean": scene.clean, "condition": condition, "seed": plan.seed}
            if id(scene) in observed and condition in plan.observed and min(scene.clean.shape) >= 128:
                add("observed", methods, about, **common, keep=keep)
            else:
                add("fidelity", methods, about, **common, noisy=noisy, keep=keep)
            if calibrated := tuple(method for method in methods if method.calibration):
                add("coverage", calibrated, about, **common, noisy=noisy)
            if id(scene) in repeated and plan.realisations > 1 and len(scene.acquired) != 1:
                parts = tuple(_middle(image, REPEATED_SIDE) for image in scene.acquired)
                clean = _middle(scene.clean, REPEATED_SIDE)
                add("repeats", methods, about, clean=clean, acquired=parts, condition=condition, seed=plan.seed,
                    count=plan.realisations)  # fmt: skip
        for scene in plan.annotated if condition in plan.observed else ():
            methods = plan.methods.get((scene.data, condition), first)
            places = [(each.row, each.column, each.radius) for each in scene.annotations]
            add("annotated", methods, {"condition": condition, "scene": scene}, clean=scene.clean, places=places,
                condition=condition, seed=plan.seed)  # fmt: skip
        if condition.noise != ACQUIRED:
            tasks += _phantom_tasks(plan, condition)
    return tasks


# How often a measure denoises its image; the coverage is asked of one method only, and a network.
_DENOISED = {"observed": 2, "repeats": 0.7, "coverage": 0.1}


def _phantom_tasks(plan: Plan, condition: Condition) -> list[Task]:
    """Phantoms show what no image does; the baselines are as tuned for the first data set."""
    methods = next(methods for (_, tuned_for), methods in plan.methods.items() if tuned_for == condition)
    about = {"condition": condition}
    # The same noise at each level would make of three levels one experiment: all is in proportion to it.
    seed = plan.seed + 7919 * plan.conditions.index(condition)
    common = {"condition": condition, "seed": seed, "count": PHANTOM_DRAWS}
    cost = PHANTOM_DRAWS * PHANTOM_SIDE**2
    tasks = [Task(measure, methods, common, about, cost) for measure in ("uniform", "details")]
    for contrast in CONTRASTS:
        tasks.append(Task("edge", methods, {**common, "contrast": contrast}, {**about, "contrast": contrast}, cost))
    if condition in plan.observed:
        flat = np.full((PHANTOM_SIDE, PHANTOM_SIDE), 0.4, np.float32)
        for number in range(FIELDS):
            arguments = {"clean": flat, "condition": condition, "seed": plan.seed + 2 + number}
            tasks.append(Task("signals", methods, arguments, {**about, "field": number}, 2 * PHANTOM_SIDE**2))
    return tasks


def carry_out(
    tasks: Sequence[Task], cache: Path, workers: Workers | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """Run the tasks (see `tasks.run_tasks`); `progress` is told how many are done, of how many."""
    told = None if progress is None else (lambda done: progress(done, len(tasks)))
    results = run_tasks(tasks, cache, workers, told)
    found = []
    for task, values in zip(tasks, results, strict=True):
        if task.measure == "observed":  # two measures at once
            parts = {part: {name: each[part] for name, each in values.items()} for part in ("fidelity", "signals")}
        else:
            parts = {task.measure: values}
        found += [Outcome(measure, dict(task.about), measured) for measure, measured in parts.items()]
    return found


def _middle(image: Any, side: int) -> Any:
    top, left = (max(0, (length - side) // 2) for length in image.shape)
    return np.ascontiguousarray(image[top : top + side, left : left + side])
