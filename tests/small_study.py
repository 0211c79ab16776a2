"""A comparison of seconds: three patients, two noise levels, filters; measured and summed up by the real code."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from meddenoise_monai.evaluation import study
from meddenoise_monai.evaluation.conditions import Condition
from meddenoise_monai.evaluation.methods import Method
from meddenoise_monai.evaluation.scenes import Annotation, Scene
from meddenoise_monai.evaluation.study import Outcome, Plan
from meddenoise_monai.evaluation.summary import summarise_study
from tests.samples import textured

SIDE = 192
OURS = "median"
METHODS = (
    Method("noisy", "input"),
    Method("gaussian", "baseline", {"std": 1.0}),
    Method(OURS, "baseline", {"size": 3}),
)
CONDITIONS = (Condition("gaussian", 15.0), Condition("gaussian", 25.0))


def scene(number: int, **more: Any) -> Scene:
    clean = textured(number, SIDE).astype(np.float32) / 255
    return Scene(more.pop("data", "films"), f"patient {number}", f"film{number}.png", clean, **more)


def protocol(results: dict[str, Any]) -> dict[str, Any]:
    """As `comparing` writes it."""
    first = results["conditions"][0]
    return {
        "program": "meddenoise_monai 0", "versions": {"python": "3"}, "test_data": "0123", "tuning_data": "4567",
        "settings": {
            "methods": [method.name for method in METHODS], "noise": ["gaussian"], "levels": [15.0, 25.0],
            "realisations": 2, "images": 64, "window": SIDE, "tissue": None, "repeats": False, "seed": 0,
        },
        "data": {first["data"]: {"images": first["images"], "patients": first["patients"]}},
        "tuned_on_other_patients": True, "tuned_for": "psnr", "noise_clipped": False,
        "methods": {
            method.name: {"kind": method.kind, "told_noise_level": method.told} for method in METHODS[1:]
        },
        "tuned": {
            "films, gaussian 15/255": {
                "gaussian": {
                    "images": 4, "side": 96, "parameters": {"std": 1.0}, "psnr": 30.0, "default_psnr": 29.0,
                    "on_grid_edge": [],
                },
            }
        },
    }  # fmt: skip


@functools.cache
def small_study() -> tuple[dict[str, Any], list[Outcome]]:
    """``results.json`` and what it was made from. Shared: copy it before you change it."""
    scenes = [scene(number) for number in range(3)]
    marked = [scene(number, annotations=(Annotation(60.0, 70.0, 9.0, "mass"),)) for number in (3, 4)]
    plan = Plan(scenes, marked, CONDITIONS, {("films", each): METHODS for each in CONDITIONS}, 0, 2)
    with mock.patch.multiple(study, OBSERVED=8, FIELDS=10, PHANTOM_DRAWS=2):
        tasks = study.plan_tasks(plan)
        with tempfile.TemporaryDirectory() as cache:
            outcomes = study.carry_out(tasks, Path(cache))
    results = summarise_study(outcomes, METHODS, OURS)
    return {"protocol": protocol(results), **results}, outcomes
