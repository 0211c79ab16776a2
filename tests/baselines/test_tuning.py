"""The choice of a baseline's parameters, and the cache of what was chosen."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meddenoise_monai.baselines import (
    Baseline,
    ClassicalBaseline,
    TunedBaseline,
    grids,
    make_baseline,
    tune,
    tune_all,
    tuning,
)
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.metrics import psnr, ssim
from meddenoise_monai.noise import estimate_sigma
from tests.baselines.conftest import ALWAYS, FAST, INSTALLED, SIGMA, Image, noisy_version

# -------------------------------------------------------------------------------------------------------------- tuning


@pytest.mark.parametrize("metric", ["psnr", "ssim"])
@pytest.mark.parametrize("name", ALWAYS)
def test_tuned_is_the_best_of_defaults_and_grid(
    name: str, metric: str, pairs: list[tuple[Image, Image]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: dict[str, list[float]] = {}
    measured = tuning._score

    def record(baseline: ClassicalBaseline, *args: Any) -> float:
        score = measured(baseline, *args)
        tried.setdefault(repr(baseline.parameters), []).append(score)
        return score

    monkeypatch.setattr(tuning, "_score", record)
    tuned = tune(name, pairs, SIGMA, metric)
    assert isinstance(tuned, TunedBaseline)
    assert (tuned.name, tuned.metric) == (name, metric)
    assert len(tried) == len(grids.FAMILIES[name].candidates) >= 6
    means = {point: float(np.mean(scores)) for point, scores in tried.items() if len(scores) == len(pairs)}
    assert tuned.score == max(means.values()) == means[repr(tuned.parameters)]
    assert tuned.default_score == means[repr(make_baseline(name).parameters)]
    measure = {"psnr": psnr, "ssim": ssim}[metric]
    assert tuned.score == pytest.approx(np.mean([measure(a, tuned(b, SIGMA), 1) for a, b in pairs]), abs=1e-9)
    default = make_baseline(name)
    assert tuned.default_parameters == default.parameters
    assert tuned.default_score == pytest.approx(np.mean([measure(a, default(b, SIGMA), 1) for a, b in pairs]), abs=1e-9)
    same = make_baseline(name, **tuned.parameters)
    assert np.array_equal(tuned(pairs[0][1], SIGMA), same(pairs[0][1], SIGMA))


def test_tuning_nl_means_gains_a_decibel(clean: Image, noisy: Image) -> None:
    tuned = tune("nlm", [(clean, noisy)], SIGMA)
    assert tuned.score > tuned.default_score + 1
    assert tuned.parameters["h"] is not None


@pytest.mark.e2e
@pytest.mark.skipif("bm3d" not in INSTALLED, reason="bm3d, which is optional, is not installed")
def test_bm3d_is_tuned_too(pairs: list[tuple[Image, Image]]) -> None:
    tuned = tune("bm3d", pairs[:1], SIGMA)
    assert tuned.score >= tuned.default_score > psnr(*pairs[0], 1) + 3


def test_every_default_passes_for_itself_and_every_grid_point_is_allowed() -> None:
    for name, family in grids.FAMILIES.items():
        assert len(family.candidates) == len({json.dumps(point) for point in family.candidates})
        for point in family.candidates if name in INSTALLED else []:
            assert make_baseline(name, **point) == ClassicalBaseline(name, point)


def test_the_edge_of_the_grid_is_told(clean: Image) -> None:
    stripes = np.tile(np.float32([0, 1]), (32, 16))
    finest = tune("gaussian", [(stripes, stripes)], 0.0)
    assert (finest.parameters["std"], finest.on_grid_edge) == (0.4, ("std",))
    # No smaller window is left to try than 3 pixels.
    finest = tune("median", [(clean, clean)], 0.0)
    assert (finest.parameters["size"], finest.on_grid_edge) == (3, ())
    flat = np.full((48, 48), 0.5, np.float32)
    widest = tune("median", [(flat, noisy_version(flat))], SIGMA)
    assert (widest.parameters["size"], widest.on_grid_edge) == (19, ("size",))


def test_sigma_can_be_known_for_each_pair_or_estimated(clean: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [0.05, 0.2]
    pairs = [(clean, noisy_version(clean, level, seed)) for seed, level in enumerate(levels)]
    seen: list[float] = []
    monkeypatch.setattr(tuning, "_score", lambda _, case, __: seen.append(case.sigmas[0]) or 0.0)
    tune("gaussian", pairs, levels)
    assert list(dict.fromkeys(seen)) == levels
    seen.clear()
    tune("gaussian", pairs, np.array(levels))  # type: ignore[arg-type]
    assert list(dict.fromkeys(seen)) == levels
    seen.clear()
    tune("gaussian", pairs, None)
    assert list(dict.fromkeys(seen)) == [estimate_sigma(noisy) for _, noisy in pairs]
    with pytest.raises(UsageError, match="3 values of sigma for 2 pairs"):
        tune("gaussian", pairs, [0.1, 0.1, 0.1])


def test_volumes_count_as_the_mean_of_their_slices(pairs: list[tuple[Image, Image]]) -> None:
    volume = np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])
    assert tune("tv", [volume], SIGMA).score == pytest.approx(tune("tv", pairs, SIGMA).score, abs=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [(np.zeros((16, 16)), np.zeros((16, 17)))],
        [(np.zeros((16, 16)), np.full((16, 16), np.nan))],
    ],
)
def test_pairs_that_cannot_be_used_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        tune("median", wrong, SIGMA)


@pytest.mark.parametrize("metric", ["psnr", "ssim"])
def test_the_race_finds_what_the_whole_grid_does_in_fewer_tries(
    pairs: list[tuple[Image, Image]], metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    score = tuning._score
    monkeypatch.setattr(tuning, "_score", lambda *args: tries.append(1) or score(*args))
    raced = tune_all(pairs, SIGMA, metric, names=FAST)
    spared = len(tries)
    monkeypatch.setitem(tuning._HOPELESS, metric, np.inf)
    assert tune_all(pairs, SIGMA, metric, names=FAST) == raced
    assert spared < 0.8 * (len(tries) - spared)


def test_tuning_all_keeps_the_order_and_reports_progress(pairs: list[tuple[Image, Image]]) -> None:
    steps: list[tuple[str, int, int]] = []
    tuned = tune_all(pairs, SIGMA, names=["gaussian", "median"], progress=lambda *step: steps.append(step))
    assert list(tuned) == ["gaussian", "median"]
    assert tuned["median"] == tune("median", pairs, SIGMA)
    total = steps[-1][2]
    done = [each for _, each, _ in steps]
    assert done == sorted(set(done)), "never backwards, none told twice"
    assert (done[0], done[-1]) == (1, total)
    assert list(dict.fromkeys(name for name, _, _ in steps)) == ["gaussian", "median"]


# --------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the baselines, once for each grid point that was really tried."""
    log: list[str] = []
    measured = tuning._score

    def record(baseline: Baseline, *args: Any) -> float:
        log.append(baseline.name)
        return measured(baseline, *args)

    monkeypatch.setattr(tuning, "_score", record)
    return log


def test_a_cached_tuning_is_not_repeated(pairs: list[tuple[Image, Image]], tries: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    first = tune_all(pairs, SIGMA, names=FAST, cache_dir=folder)
    assert set(tries) == set(FAST)
    tries.clear()
    steps: list[tuple[str, int, int]] = []
    again = tune_all(pairs, SIGMA, names=FAST, cache_dir=folder, progress=lambda *step: steps.append(step))
    assert tries == []
    assert again == first
    assert [name for name, _, _ in steps] == FAST
    assert steps[-1][1] == steps[-1][2]
    assert len(list(folder.iterdir())) == len(FAST)
    assert all(file.suffix == ".json" for file in folder.iterdir())
    assert tune("median", pairs, SIGMA, cache_dir=str(folder)) == first["median"]
    assert tries == []


def test_the_cache_knows_what_it_depends_on(
    pairs: list[tuple[Image, Image]], tries: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_new(*args: Any) -> bool:
        tries.clear()
        tune("gaussian", *args, cache_dir=tmp_path)
        return bool(tries)

    other_noise = [(clean, noisy_version(clean, seed=99)) for clean, _ in pairs]
    other_clean = [(clean + np.float32(1e-4), noisy) for clean, noisy in pairs]
    assert is_new(pairs, SIGMA)
    assert not is_new(pairs, SIGMA)
    assert not is_new(pairs, [SIGMA, SIGMA])
    assert is_new(other_noise, SIGMA)
    assert is_new(other_clean, SIGMA)
    assert is_new(pairs, 0.1)
    assert is_new(pairs, None)
    assert is_new(pairs, SIGMA, "ssim")
    assert is_new(pairs[:1], SIGMA)
    monkeypatch.setattr(grids, "_version", lambda package: "99")
    assert is_new(pairs, SIGMA)
    monkeypatch.setattr(tuning, "REVISION", 99)
    assert is_new(pairs, SIGMA)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "null", '"text"', "\x00\xff"])
def test_a_damaged_cache_is_replaced(
    damage: str, pairs: list[tuple[Image, Image]], tries: list[str], tmp_path: Path
) -> None:
    first = tune("gaussian", pairs, SIGMA, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage.encode("latin-1"))
    tries.clear()
    assert tune("gaussian", pairs, SIGMA, cache_dir=tmp_path) == first
    assert tries
    assert file.read_bytes() == sound


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("key", "0" * 64),
        ("parameters", {"std": -1}),
        ("parameters", {"size": 3}),
        ("parameters", None),
        ("score", "good"),
        ("on_grid_edge", 3),
    ],
)
def test_a_cache_with_wrong_content_is_replaced(
    key: str, value: Any, pairs: list[tuple[Image, Image]], tries: list[str], tmp_path: Path
) -> None:
    first = tune("gaussian", pairs, SIGMA, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    tries.clear()
    assert tune("gaussian", pairs, SIGMA, cache_dir=tmp_path) == first
    assert tries


def test_a_failed_write_costs_a_warning_and_leaves_nothing(
    pairs: list[tuple[Image, Image]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    tuned = tune("gaussian", pairs, SIGMA, cache_dir=tmp_path)
    assert tuned.score > 0
    assert list(tmp_path.iterdir()) == []
    assert "No space left" in caplog.text
    taken = tmp_path / "a file"
    taken.write_text("")
    assert tune("gaussian", pairs, SIGMA, cache_dir=taken) == tuned


def test_without_a_cache_folder_nothing_is_written(
    pairs: list[tuple[Image, Image]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tune("gaussian", pairs, SIGMA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_cached_files_are_readable_by_the_group_as_any_other(pairs: list[tuple[Image, Image]], tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    tune("gaussian", pairs, SIGMA, cache_dir=tmp_path)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1
