"""Noise by name and level."""

from __future__ import annotations

import numpy as np
import pytest

from meddenoise_monai.errors import UsageError
from meddenoise_monai.evaluation.conditions import ACQUIRED, Condition, read_conditions

NAMES = ("gaussian", "poisson", "poisson_gaussian", "rician", "speckle", "correlated")


@pytest.mark.parametrize("name", NAMES)
def test_a_level_is_the_deviation_at_mid_grey_whatever_the_noise(name: str) -> None:
    grey = np.full((400, 400), 0.5, np.float32)
    noise = Condition(name, 10).draw(grey, seed=1) - grey
    assert np.std(noise) * 255 == pytest.approx(10, rel=0.03)


def test_noise_is_a_function_of_image_seed_and_realisation() -> None:
    condition, image = Condition("gaussian", 25), np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    first = condition.draw(image, 0)
    assert (condition.draw(image, 0) == first).all()
    others = (condition.draw(image, 1), condition.draw(image, 0, 1), condition.draw(image[::-1], 0)[::-1])
    for other in others:
        assert abs(np.corrcoef((other - image).ravel(), (first - image).ravel())[0, 1]) < 0.1


def test_all_models_at_all_levels_each_once() -> None:
    found = read_conditions(["gaussian", "rician", "gaussian"], (15, 25.0, 15))
    assert [str(each) for each in found] == ["gaussian 15/255", "gaussian 25/255", "rician 15/255", "rician 25/255"]
    assert read_conditions("poisson", 5) == [Condition("poisson", 5.0)]
    assert [each.level for each in read_conditions("gaussian", (0.01, 1000))] == [0.01, 1000]


def test_acquired_noise_is_not_drawn() -> None:
    assert str(Condition(ACQUIRED)) == "as acquired"
    with pytest.raises(UsageError, match="cannot be drawn"):
        Condition(ACQUIRED).draw(np.zeros((8, 8), np.float32), 0)


@pytest.mark.parametrize(
    ("noise", "levels", "message"),
    [
        ("gausian", 5, "gausian"),
        ("gaussian", 0, "no noise level"),
        ("gaussian", (5, float("nan")), "no noise level"),
        ("gaussian", True, "no noise level"),
        ("gaussian", 1e-320, "no noise level"),
        ("poisson", (25, 0.0099), "no noise level"),
        ("gaussian", 1000.1, "no noise level from 0.01 to 1000"),
        ("gaussian", 10**400, "no noise level"),
        ((), 5, "no noise to compare"),
        ("gaussian", (), "no noise to compare"),
    ],
)
def test_what_is_refused(noise: object, levels: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_conditions(noise, levels)  # type: ignore[arg-type]
