"""Faint lesions for the training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from meddenoise_monai.errors import UsageError
from meddenoise_monai.faint import RandFaintLesionsd


def added(seed: int, level: float = 0.5, **options: float) -> Tensor:
    """What the transform adds to a flat patch (H, W)."""
    transform = RandFaintLesionsd("image", prob=1.0, **options)  # type: ignore[arg-type]
    transform.set_random_state(seed)
    result: Tensor = transform({"image": torch.full((1, 64, 64), level)})["image"]
    return (result - level)[0]


def test_contrasts_of_both_signs_within_bounds() -> None:
    changes = torch.stack([added(seed, most=1, contrast=0.1) for seed in range(200)])
    extremes = torch.where(changes.amax((1, 2)) > -changes.amin((1, 2)), changes.amax((1, 2)), changes.amin((1, 2)))
    assert float(extremes.abs().max()) <= 0.1 + 1e-6
    assert 0.3 < float((extremes > 0).double().mean()) < 0.7
    assert 0.5 < float((extremes.abs() < 0.04).double().mean()) < 0.9  # log-uniform: most are faint
    areas = (changes.abs() > changes.abs().amax((1, 2), keepdim=True) / 2).double().sum((1, 2))
    assert float(areas.min()) < 10
    assert float(areas.max()) > 300


def test_keys_get_the_same_lesions_and_the_inputs_stay() -> None:
    transform = RandFaintLesionsd(["image", "label"], prob=1.0)
    transform.set_random_state(3)
    item = {"image": torch.full((1, 64, 64), 0.5), "label": torch.full((1, 64, 64), 0.4)}
    result = transform(item)
    assert torch.allclose(result["image"] - 0.5, result["label"] - 0.4, atol=1e-6)
    assert float((result["image"] - 0.5).abs().max()) > 1e-3
    assert bool((item["image"] == 0.5).all())


def test_results_stay_in_the_range() -> None:
    for seed in range(50):
        assert float(added(seed, 0.98, contrast=0.5).max()) <= 0.02 + 1e-6
        assert float(added(seed, 0.02, contrast=0.5).min()) >= -0.02 - 1e-6


def test_as_often_as_asked() -> None:
    transform = RandFaintLesionsd("image", prob=0.3)
    transform.set_random_state(0)
    flat = torch.full((1, 32, 32), 0.5)
    changed = [not bool((transform({"image": flat})["image"] == flat).all()) for _ in range(400)]
    assert 0.2 < float(np.mean(changed)) < 0.4


@pytest.mark.parametrize("options", [{"prob": 1.5}, {"most": 0}, {"contrast": 0.001}, {"contrast": 2.0}])
def test_parameters_out_of_bounds(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="no lesions with"):
        RandFaintLesionsd("image", **options)  # type: ignore[arg-type]
