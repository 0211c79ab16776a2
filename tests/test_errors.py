from __future__ import annotations

import pickle

import pytest

from meddenoise_monai.errors import InputError, MeddenoiseError, PartialFailure, UsageError, fail_in_part, nearest

KINDS = [(MeddenoiseError, 1), (InputError, 1), (UsageError, 2), (PartialFailure, 3)]


@pytest.mark.parametrize(("kind", "exit_code"), KINDS)
def test_two_lines_and_an_exit_code(kind: type[MeddenoiseError], exit_code: int) -> None:
    error = kind("a.png is broken", "leave it out")
    assert str(error) == "a.png is broken\nhint: leave it out"
    assert (error.message, error.hint, error.exit_code) == ("a.png is broken", "leave it out", exit_code)
    assert isinstance(error, MeddenoiseError)


@pytest.mark.parametrize(("kind", "exit_code"), KINDS)
def test_survives_the_way_out_of_a_worker_process(kind: type[MeddenoiseError], exit_code: int) -> None:
    error = pickle.loads(pickle.dumps(kind("message", "hint")))
    assert type(error) is kind
    assert (error.message, error.hint, error.exit_code) == ("message", "hint", exit_code)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("gausian", ["poisson", "gaussian"], "did you mean 'gaussian'?"),
        ("xyz", ["poisson", "gaussian"], "known: gaussian, poisson"),
        ("max_epoch", {"max_epochs": 1, "patience": 2}, "did you mean 'max_epochs'?"),
        ("", ["b", "a"], "known: a, b"),
    ],
)
def test_nearest(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, known) == hint


def test_files_that_failed_end_in_their_exit_code() -> None:
    fail_in_part(0)
    with pytest.raises(PartialFailure, match=r"2 file\(s\) failed") as caught:
        fail_in_part(2)
    assert caught.value.exit_code == 3
    with pytest.raises(PartialFailure, match=r"^1 file\(s\) failed, 3 file\(s\) are whole, but nothing") as caught:
        fail_in_part(1, unsuitable=3)
    assert "--lenient" in caught.value.hint
