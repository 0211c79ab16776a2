"""Tasks: the same numbers from any number of processes, and none computed twice."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meddenoise_monai.errors import InputError
from meddenoise_monai.evaluation import measures, tasks
from meddenoise_monai.evaluation.conditions import Condition
from meddenoise_monai.evaluation.methods import Method, read_methods
from meddenoise_monai.evaluation.tasks import Task, Workers, run_tasks, workers_here

METHODS = tuple(read_methods(["gaussian", "median"]))
RNG = np.random.default_rng(0)
SCENES = [RNG.random((40, 40)).astype(np.float32) for _ in range(3)]
CONDITION = Condition("gaussian", 20)


def fidelity(clean: Any, methods: tuple[Method, ...] = METHODS, **changes: Any) -> Task:
    return Task("fidelity", methods, {"clean": clean, "noisy": None, "condition": CONDITION, "seed": 0} | changes)


def without_times(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: {k: v for k, v in values.items() if k != "seconds_per_megapixel"} for name, values in result.items()}
        for result in results
    ]


@pytest.mark.e2e
def test_processes_change_no_digit(tmp_path: Path) -> None:
    planned = [fidelity(scene) for scene in SCENES]
    seen: list[int] = []
    alone = run_tasks(planned, tmp_path / "alone", progress=seen.append)
    assert seen == [0, 1, 2, 3]
    with Workers(2) as two:
        together = run_tasks(planned, tmp_path / "together", two)
        pool = two._pool
        again = run_tasks(planned, tmp_path / "again", two)
        assert two._pool is pool is not None
    assert two._pool is None
    assert without_times(alone) == without_times(together) == without_times(again)
    assert [list(result) for result in alone] == [["noisy", "gaussian", "median"]] * 3


def test_what_is_known_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_tasks([fidelity(SCENES[0]), fidelity(SCENES[1])], tmp_path)
    calls: list[str] = []
    real = tasks.load

    def counting(method: Method) -> Any:
        calls.append(method.name)
        return real(method)

    monkeypatch.setattr(tasks, "load", counting)
    seen: list[int] = []
    again = run_tasks([fidelity(SCENES[1]), fidelity(SCENES[0])], tmp_path, progress=seen.append)
    assert again == first[::-1]  # to the last digit, times included
    assert (calls, seen) == ([], [2])

    wider = replace(METHODS[1], parameters={"std": 2.0})
    (result,) = run_tasks([fidelity(SCENES[0], (METHODS[0], wider))], tmp_path)
    assert calls == ["gaussian"]  # the other method's numbers are those of before
    assert result["noisy"] == first[0]["noisy"]
    assert result["gaussian"] != first[0]["gaussian"]

    damaged = tmp_path / f"{fidelity(SCENES[0]).key(METHODS[2])}.json"
    damaged.write_text(damaged.read_text()[:20])
    assert run_tasks([fidelity(SCENES[0])], tmp_path)[0]["gaussian"] == first[0]["gaussian"]
    assert calls == ["gaussian", "median"]


def damage(content: dict[str, Any], kind: str) -> Any:
    if kind == "other number":
        content["values"]["psnr"] += 1
    elif kind == "as before digests":
        return content["values"]
    elif kind == "values of another type":
        return content | {"values": [1]}
    elif kind == "no digest":
        del content["sha256"]
    return content


@pytest.mark.parametrize(
    "kind",
    [
        "other number",
        "as before digests",
        "values of another type",
        "no digest",
        "{}",
        "[]",
        "null",
        "5",
        "[" * 200_000,
    ],
)
def test_a_damaged_number_is_measured_again(tmp_path: Path, kind: str) -> None:
    task = fidelity(SCENES[0], METHODS[:1])
    first = run_tasks([task], tmp_path)
    path = tmp_path / f"{task.key(METHODS[0])}.json"
    whole = path.read_text()
    known = kind[0] in "{[n5" and kind != "no digest"
    path.write_text(kind if known else json.dumps(damage(json.loads(whole), kind)))
    assert without_times(run_tasks([task], tmp_path)) == without_times(first)
    assert json.loads(path.read_text()).keys() == {"sha256", "values"}
    path.write_text(whole)
    assert run_tasks([task], tmp_path) == first  # times included: it was taken


def test_a_key_knows_all_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    task, method = fidelity(SCENES[0]), METHODS[1]
    others = [
        fidelity(SCENES[1]),
        fidelity(SCENES[0].reshape(20, 80)),
        fidelity(SCENES[0], condition=Condition("gaussian", 21)),
        fidelity(SCENES[0], condition=Condition("rician", 20)),
        fidelity(SCENES[0], seed=1),
        fidelity(SCENES[0], keep=True),
        replace(task, measure="repeats"),
    ]
    keys = {task.key(method), *(other.key(method) for other in others), task.key(METHODS[2])}
    assert len(keys) == len(others) + 2
    assert replace(task, about={"place": 1}).key(method) == task.key(method)
    monkeypatch.setattr(tasks, "REVISION", 99)
    assert task.key(method) not in keys


def test_an_error_of_a_measure_reaches_the_caller(tmp_path: Path) -> None:
    small = fidelity(np.ones((8, 8), np.float32))
    with pytest.raises(InputError, match="8x8"):
        run_tasks([fidelity(SCENES[0]), small], tmp_path)
    assert run_tasks([fidelity(SCENES[0])], tmp_path)[0]["noisy"]  # what was done before it is kept


def die(task: Task, cache: Path) -> None:
    """Stands in for the system's killer of processes that need too much memory."""
    os._exit(9)


@pytest.mark.e2e
def test_a_process_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_run", die)
    with Workers(2) as two, pytest.raises(InputError, match="process of the comparison died"):
        run_tasks([replace(fidelity(SCENES[0]), methods=METHODS[:1]), fidelity(SCENES[1])], tmp_path, two)


def test_answers_are_plain(tmp_path: Path) -> None:
    (result,) = run_tasks([fidelity(SCENES[0], keep=True)], tmp_path)
    json.dumps(result, allow_nan=False)
    shown = measures.as_image(result["noisy"]["picture"], SCENES[0].shape)
    np.testing.assert_allclose(shown, CONDITION.draw(SCENES[0], 0), atol=1e-3)
    found = np.array(result["noisy"]["hallucination_map"])
    assert found.shape == (2, 2)  # patches of 32, every 16 pixels and at the end
    assert (found > 0.5).mean() == result["noisy"]["hallucination_rate"]
    assert 1 <= workers_here() <= 8
