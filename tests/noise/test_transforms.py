"""The noise transforms inside MONAI's own machinery."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.data.utils import set_rnd
from monai.transforms import Compose, RandGaussianNoised, ScaleIntensityd
from monai.utils import set_determinism

from meddenoise_monai.errors import UsageError
from meddenoise_monai.noise import (
    GaussianNoise,
    Noised,
    PoissonGaussianNoise,
    PoissonNoise,
    RandNoised,
    UnlessPairedd,
)


def item(index: int, side: int = 16, **more: Any) -> dict[str, Any]:
    image = torch.rand(1, side, side, generator=torch.Generator().manual_seed(index))
    return {"image": image, "index": index, **more}


def test_noised_is_the_same_in_every_epoch_order_and_batch() -> None:
    noised = Noised("image", GaussianNoise(0.1), seed=3)
    first = [noised(item(i))["image"] for i in range(4)]
    second = [noised(item(i))["image"] for i in reversed(range(4))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    residuals = torch.stack([noisy - item(i)["image"] for i, noisy in enumerate(first)])
    assert not torch.allclose(residuals[0], residuals[1], atol=1e-3)
    assert not torch.equal(first[0], Noised("image", GaussianNoise(0.1), seed=4)(item(0))["image"])


def test_noised_leaves_its_item_alone_and_respects_keys() -> None:
    data = item(0, label=torch.zeros(1, 4, 4))
    before = copy.deepcopy(data)
    result = Noised("image", GaussianNoise(0.1))(data)
    assert torch.equal(data["image"], before["image"])
    assert result["label"] is data["label"]
    with pytest.raises(KeyError, match="scan"):
        Noised("scan", GaussianNoise(0.1))(data)
    assert Noised("scan", GaussianNoise(0.1), allow_missing_keys=True)(data).keys() == data.keys()


def test_noised_takes_arrays_even_read_only_ones() -> None:
    array = item(0)["image"].numpy().copy()
    array.flags.writeable = False
    result = Noised("image", GaussianNoise(0.1))({"image": array})["image"]
    assert torch.equal(result, Noised("image", GaussianNoise(0.1))(item(0))["image"])


@pytest.mark.parametrize("noise", ["gaussian", None, GaussianNoise])
def test_noised_refuses_what_is_no_model(noise: Any) -> None:
    with pytest.raises(UsageError, match="noise must be a noise model, got"):
        Noised("image", noise)


def test_noised_refuses_a_seed_that_is_no_integer() -> None:
    with pytest.raises(UsageError, match=r"seed must be an integer, got 0\.5"):
        Noised("image", GaussianNoise(0.1), seed=0.5)  # type: ignore[arg-type]


def test_rand_noised_is_reproducible_and_replayable() -> None:
    transform = RandNoised("image", "poisson_gaussian", photons=[10, 1000], sigma=[0, 0.2])
    transform.set_random_state(5)
    first = [transform(item(0))["image"] for _ in range(3)]
    assert transform.noise is not None
    assert torch.equal(transform.noise.apply(item(0)["image"], transform.noise_seed), first[-1])
    transform.set_random_state(5)
    assert all(torch.equal(image, transform(item(0))["image"]) for image in first)
    assert not torch.equal(first[0], first[1])
    transform.set_random_state(6)
    assert not torch.equal(first[0], transform(item(0))["image"])


def test_rand_noised_ignores_the_global_random_state() -> None:
    transform = RandNoised("image", "gaussian", sigma=(0, 0.2)).set_random_state(5)
    first = transform(item(0))["image"]
    transform.set_random_state(5)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert torch.equal(first, transform(item(0))["image"])


def test_rand_noised_follows_set_determinism_and_set_rnd() -> None:
    def noisy(rnd: int | None) -> torch.Tensor:
        transform = Compose([RandNoised("image", "gaussian", sigma=(0, 0.2))])
        if rnd is not None:
            set_rnd(transform, rnd)
        return transform(item(0))["image"]

    try:
        set_determinism(11)
        first = noisy(None)
        set_determinism(11)
        assert torch.equal(first, noisy(None))
        set_determinism(12)
        assert not torch.equal(first, noisy(None))
        assert torch.equal(noisy(3), noisy(3))
        assert not torch.equal(noisy(3), noisy(4))
    finally:
        set_determinism(None)


def test_rand_noised_draws_uniformly_and_counts_log_uniformly() -> None:
    transform = RandNoised("image", "poisson_gaussian", photons=[10, 1000], sigma=[0.1, 0.3], clip=True)
    transform.set_random_state(0)
    draws = []
    for _ in range(2000):
        transform.randomize()
        assert isinstance(transform.noise, PoissonGaussianNoise)
        assert transform.noise.clip
        draws.append((transform.noise.sigma, math.log10(transform.noise.photons)))
    sigma, log_photons = np.array(draws).T
    for values, low, high in ((sigma, 0.1, 0.3), (log_photons, 1, 3)):
        assert values.min() >= low
        assert values.max() <= high
        standard_error = (high - low) / math.sqrt(12 * len(values))
        assert abs(values.mean() - (low + high) / 2) < 5 * standard_error
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)


@settings(deadline=None, max_examples=50)
@given(ends=st.tuples(st.floats(1e-3, 1e12), st.floats(1e-3, 1e12)).map(sorted), seed=st.integers(0, 2**31))
def test_drawn_counts_stay_within_their_range(ends: list[float], seed: int) -> None:
    transform = RandNoised("image", "poisson", photons=ends)
    transform.set_random_state(seed)
    transform.randomize()
    assert isinstance(transform.noise, PoissonNoise)
    assert ends[0] <= transform.noise.photons <= ends[1]


def test_rand_noised_probability() -> None:
    image = item(0)["image"]
    transform = RandNoised("image", "gaussian", prob=0.3, sigma=0.1).set_random_state(0)
    changed = []
    for _ in range(1000):
        changed.append(not torch.equal(transform({"image": image})["image"], image))
        assert (transform.noise is not None) == changed[-1]
    assert abs(np.mean(changed) - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 1000)
    assert torch.equal(RandNoised("image", "gaussian", prob=0, sigma=0.1)({"image": image})["image"], image)


def test_rand_noised_keeps_metadata_and_gives_all_keys_the_same_noise() -> None:
    image = MetaTensor(torch.zeros(1, 8, 8), meta={"modality": "CT"})
    result = RandNoised(["a", "b"], "gaussian", sigma=0.1)({"a": image, "b": torch.zeros(1, 8, 8)})
    assert result["a"].meta["modality"] == "CT"
    assert torch.equal(result["a"].as_tensor(), result["b"])
    with pytest.raises(KeyError, match="b"):
        RandNoised(["a", "b"], "gaussian", sigma=0.1)({"a": image})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "gaussain", "sigma": 0.1}, "unknown noise model 'gaussain'"),
        ({"model": "gaussian"}, "needs sigma"),
        ({"model": "gaussian", "photons": 3}, "no parameter 'photons'"),
        ({"model": "gaussian", "sigma": [0.2, 0.1]}, r"sigma must be \(low, high\), got \(0.2, 0.1\)"),
        ({"model": "gaussian", "sigma": [0.1, 0.2, 0.3]}, r"sigma must be a number or \(low, high\)"),
        ({"model": "gaussian", "sigma": [-0.1, 0.1]}, "sigma must be a finite number >= 0"),
        ({"model": "gaussian", "sigma": [0.1, math.inf]}, "sigma must be a finite number >= 0"),
        ({"model": "gaussian", "sigma": 0.1, "clip": [True, False]}, "clip must be true or false"),
        ({"model": "poisson", "photons": [0, 10]}, "photons must be a number > 0"),
        ({"model": "gaussian", "sigma": 0.1, "prob": 1.5}, r"prob must be on \[0, 1\], got 1.5"),
        ({"model": "gaussian", "sigma": 0.1, "prob": "1"}, r"prob must be on \[0, 1\], got '1'"),
    ],
)
def test_rand_noised_refuses_bad_arguments_when_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RandNoised("image", **arguments)


def test_transforms_can_be_named_in_a_config() -> None:
    model = "meddenoise_monai.noise."
    parser = ConfigParser(
        {
            "noised": {
                "_target_": model + "Noised",
                "keys": "image",
                "noise": {"_target_": model + "GaussianNoise", "sigma": "$25/255", "clip": True},
            },
            "random": {"_target_": model + "RandNoised", "keys": "image", "model": "rician", "sigma": [0.0, 0.1]},
            "unless": {
                "_target_": model + "UnlessPairedd",
                "transform": {
                    "_target_": "RandGaussianNoised",
                    "keys": "image",
                    "prob": 1,
                    "std": 0.1,
                    "sample_std": True,
                },
            },
        }
    )
    assert parser.get_parsed_content("noised").noise == GaussianNoise(25 / 255, clip=True)
    for name in ("noised", "random", "unless"):
        assert not torch.equal(parser.get_parsed_content(name)(item(0))["image"], item(0)["image"])


def test_pairs_get_no_synthetic_noise() -> None:
    transform = UnlessPairedd(RandGaussianNoised("image", prob=1.0, std=0.1, sample_std=True))
    paired = item(0, paired=True)
    result = transform(paired)
    assert result is not paired
    assert torch.equal(result["image"], item(0)["image"])
    for alone in (item(0), item(0, paired=False), item(0, paired=None)):
        assert not torch.equal(transform(alone)["image"], item(0)["image"])
    assert torch.equal(UnlessPairedd(transform, flag="real")(item(0, real=1))["image"], item(0)["image"])
    with pytest.raises(UsageError, match="transform must be callable, got 'x'"):
        UnlessPairedd("x")  # type: ignore[arg-type]


def test_random_state_reaches_the_wrapped_transform() -> None:
    inner = RandNoised("image", "gaussian", sigma=(0, 0.2))
    transform = Compose([ScaleIntensityd("image"), UnlessPairedd(inner)])
    transform.set_random_state(4)
    first = transform(item(0))["image"]
    transform.set_random_state(4)
    assert torch.equal(first, transform(item(0))["image"])
    transform.set_random_state(5)
    assert not torch.equal(first, transform(item(0))["image"])
    inner.noise = None
    transform.randomize()
    assert inner.noise is not None
    UnlessPairedd(Noised("image", GaussianNoise(0.1))).set_random_state(1).randomize()  # nothing to pass on


def load(transform: Any, workers: int, count: int = 4, batch_size: int = 1, same: bool = False) -> list[torch.Tensor]:
    dataset = Dataset([item(0 if same else i) for i in range(count)], Compose([transform]))
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers)
    return [image for batch in loader for image in batch["image"]]


def test_noised_is_the_same_in_any_data_loader() -> None:
    noised = Noised("image", GaussianNoise(0.1))
    expected = [noised(item(i))["image"] for i in range(4)]
    for workers, batch_size in ((0, 1), (0, 3), (2, 2)):
        loaded = load(noised, workers, batch_size=batch_size)
        assert len(loaded) == 4
        assert all(torch.equal(a, b) for a, b in zip(expected, loaded, strict=True))


@pytest.mark.parametrize(
    "inner",
    [RandNoised("image", "gaussian", sigma=(0.05, 0.2)), RandGaussianNoised("image", prob=1.0, std=0.1)],
    ids=["ours", "monai"],
)
def test_workers_draw_different_noise(inner: Any) -> None:
    loaded = load(UnlessPairedd(inner), workers=2, same=True)
    assert len(loaded) == 4
    for i in range(4):
        for j in range(i):
            assert not torch.equal(loaded[i], loaded[j])
