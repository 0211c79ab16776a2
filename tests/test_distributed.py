"""What each process takes of a training, and what they agree on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meddenoise_monai import distributed, runtime, training
from meddenoise_monai.errors import UsageError
from tests.together import agree, in_two


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "size", lambda: size)


@given(count=st.integers(1, 200), size=st.integers(1, 16))
def test_shares_hold_each_entry_once_or_all_of_them(count: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shares = []
        for rank in range(size):
            as_rank(patch, rank, size)
            shares.append(list(distributed.share(count)))
    assert all(shares)  # a process without an image would leave the others waiting for its metric
    if count >= size:
        assert sorted(index for one in shares for index in one) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    else:
        assert shares == [list(range(count))] * size


@settings(deadline=None)  # the first one imports MONAI
@given(images=st.integers(1, 6), patches=st.integers(1, 6), size=st.integers(1, 6))
def test_shares_of_a_batch_are_the_batch(images: int, patches: int, size: int) -> None:
    drawn = [[{"image": torch.tensor([100.0 * i + p])} for p in range(patches)] for i in range(images)]
    whole = [100 * i + p for i in range(images) for p in range(patches)]
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(min(size, len(whole))):
            as_rank(patch, rank, size)
            batch = distributed.ShareOfBatch()(drawn)
            assert batch["image"].shape[1:] == (1,)
            taken.append(batch["image"][:, 0].tolist())
    assert sorted(value for part in taken for value in part) == whole


@given(batch=st.integers(1, 64), patches=st.integers(1, 8), size=st.integers(1, 8))
def test_a_batch_that_fits_is_accepted_and_the_hint_names_one(batch: int, patches: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        as_rank(patch, 0, size)
        effective = max(1, batch // patches) * patches
        if effective % size == 0:
            distributed.check_batch(batch, patches)
            return
        with pytest.raises(UsageError, match="cannot be parted") as caught:
            distributed.check_batch(batch, patches)
        distributed.check_batch(int(caught.value.hint.split()[-1]), patches)


def test_a_single_process_leads_and_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    distributed.join("cpu")
    network = torch.nn.Linear(1, 1)
    assert distributed.leads()
    assert not distributed.restarted()
    assert distributed.first_to_fail()
    assert distributed.size() == 1
    assert distributed.parallel(network) is network
    assert distributed.from_lead(lambda: 5) == 5
    assert distributed.gathered([1, 2]) == [1, 2]
    assert distributed.mean(0.25) == 0.25
    distributed.check_same({"images": 3})
    distributed.leave()


def test_several_processes_of_a_configuration_for_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["site/monai/bundle/__main__.py", "run"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(UsageError, match="2 processes of a configuration for one"):
        runtime.begin()
    assert distributed.first_to_fail()
    monkeypatch.setenv("RANK", "1")
    assert not distributed.first_to_fail()


def test_an_older_checkpoint_is_set_aside_unless_it_is_resumed(tmp_path: Path) -> None:
    last = tmp_path / training.TrainingCheckpoint.LAST
    last.write_bytes(b"an older one")
    training.set_aside(tmp_path, resume=True)
    assert last.read_bytes() == b"an older one"
    training.set_aside(tmp_path, resume=False)
    assert not last.exists()
    assert (tmp_path / "checkpoint_previous.pt").read_bytes() == b"an older one"
    training.set_aside(tmp_path, resume=False)  # nothing is there: nothing happens


@pytest.mark.e2e
def test_two_processes_agree() -> None:
    first, second = in_two(agree)
    assert [first.pop("leads"), second.pop("leads")] == [True, False]
    assert sorted([first.pop("reports"), second.pop("reports")]) == [False, True]
    assert first == second
    assert first == {
        "mean": 0.5, "lead": "by 0", "gathered": [0, 1, 1], "weight": 1.0, "gradient": 1.0, "names": ["weight"],
        "failed": "images: process 1 has 'those of 1', process 0 has 'those of 0'", "lost": True, "other": None,
        "restarted": False,
    }  # fmt: skip
