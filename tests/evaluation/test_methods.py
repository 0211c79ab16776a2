"""Methods by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meddenoise_monai.baselines import available_baselines
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.evaluation.methods import NOISY, OURS, load, read_methods
from tests.small_networks import trained


@pytest.fixture
def other(tmp_path: Path) -> str:
    path = tmp_path / "other.pt"
    torch.save(trained(stride=2).state_dict(), path)
    return str(path)


def test_by_default_all_that_can_be_had_the_input_first_ours_last() -> None:
    names = [method.name for method in read_methods()]
    assert names == [NOISY, *available_baselines(), OURS]


def test_each_does_what_it_is_called(other: str) -> None:
    noisy = np.random.default_rng(0).random((40, 40), np.float32)
    results = {method.name: load(method)(noisy, 0.1) for method in read_methods(["dae", "median", f"mine={other}"])}
    assert list(results) == [NOISY, "median", "mine", OURS]
    assert results[NOISY] is noisy
    assert all(result.shape == noisy.shape for result in results.values())
    assert len({result.tobytes() for result in results.values()}) == 4


def test_an_identity_changes_with_what_changes_results_and_with_nothing_else(other: str, tmp_path: Path) -> None:
    _, median, mine, ours = read_methods(["median", f"mine={other}", "dae"])
    assert median.identity != replace(median, parameters={"size": 5}).identity
    assert mine.identity != ours.identity
    copy = tmp_path / "copy.pt"
    copy.write_bytes(Path(other).read_bytes())
    (_, renamed) = read_methods([f"yours={copy}"])
    assert renamed.identity == mine.identity
    assert (mine.told, median.told) == (False, True)
    assert mine.size == sum(weight.numel() for weight in trained(stride=2).parameters())


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["medain"], UsageError, "medain"),
        (["median", "median"], UsageError, "same name"),
        (["median=x.pt"], UsageError, "same name"),
        (["noisy"], UsageError, "no method to compare"),
        (["mine=/nowhere.pt"], InputError, "nowhere"),
    ],
)
def test_what_is_refused(names: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_methods(names)
