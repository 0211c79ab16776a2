from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meddenoise_monai import runtime
from meddenoise_monai.errors import InputError, MeddenoiseError, UsageError
from meddenoise_monai.runtime import (
    as_bool,
    begin,
    check_numbers,
    check_overrides,
    check_sigma,
    launched_config,
    make_folder,
    user_error,
)

PROGRAM = "/usr/lib/python3/site-packages/monai/bundle/__main__.py"
BASE = {
    "max_epochs": 12,
    "sigma": "$25 / 255",
    "strict": False,
    "max_minutes": 0.0,
    "network_def": {"_target_": "UNet", "widths": [16, 32]},
    "train": {"trainer": {"max_epochs": "@max_epochs"}, "handlers": [{"interval": 1}]},
}
OVERLAY = {"weights": "", "train#trainer#device": "cpu", "network_def::norm": None}


@pytest.fixture
def files(tmp_path: Path) -> str:
    for name, content in (("base", BASE), ("overlay", OVERLAY)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return f"['{tmp_path}/base.json','{tmp_path}/overlay.json']"


def launch(files: str, *options: str, run_id: tuple[str, ...] = ("training",)) -> list[str]:
    return [PROGRAM, "run", *run_id, "--config_file", files, *options]


# -------------------------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--max_epochs", "3"),
        ("--max_epochs=3", "--sigma", "-1"),
        ("--max-epochs", "3"),
        ("--weights", "x.pt"),
        ("--train::trainer::max_epochs", "3"),
        ("--train#trainer#max_epochs=3",),
        ("--train::handlers::0::interval", "2"),
        ("--train::trainer::device", "cuda"),
        ("--network_def::norm", "batch"),
        ("--network_def", "{'_target_': 'BasicUNet', 'x': '--y'}"),
        ("--meta_file", "m.json", "--logging_file", "l.conf", "--init_id", "initialize"),
        ("--network_def::widths::0=8",),
    ],
)
def test_known_overrides_pass(files: str, options: tuple[str, ...]) -> None:
    check_overrides(launch(files, *options))
    check_overrides(launch(files, *options, run_id=()))


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--max_epoch=3", "did you mean 'max_epochs'?"),
        ("--max-epoch=3", "did you mean 'max_epochs'?"),
        ("--simga=3", "did you mean 'sigma'?"),
        ("--wieghts=3", "did you mean 'weights'?"),
        ("--tarin::trainer::max_epochs=3", "did you mean 'train::trainer::max_epochs'?"),
        ("--trian#trainer=3", "did you mean 'train::trainer'?"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_misspelt_override_is_refused_with_the_nearest_name(files: str, option: str, hint: str, split: bool) -> None:
    with pytest.raises(UsageError, match="unknown override") as error:
        check_overrides(launch(files, "--sigma", "1", *(option.split("=") if split else [option])))
    assert error.value.hint == hint
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "option",
    ["max_epochs=3", "max_epochs=$3", "max_epochs=@x", "max_minutes=3", "strict=true", "network_def::widths::0=8"],
)
def test_values_of_the_right_type_pass(files: str, option: str) -> None:
    check_overrides(launch(files, f"--{option}"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("max_epochs=ten", "--max_epochs must be a whole number, got 'ten'"),
        ("max_epochs=1.5", "--max_epochs must be a whole number, got 1.5"),
        ("max_epochs", "--max_epochs must be a whole number, got True"),
        ("max_epochs=True", "--max_epochs must be a whole number, got True"),
        ("max_minutes=nan", "--max_minutes must be a number, got 'nan'"),
        ("network_def::widths::0=x", "--network_def::widths::0 must be a whole number, got 'x'"),
    ],
)
def test_values_of_the_wrong_type_are_refused(files: str, option: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        check_overrides(launch(files, f"--{option}"))
    assert error.value.message == message


def test_name_like_no_other_gets_all_names(files: str) -> None:
    with pytest.raises(UsageError) as error:
        check_overrides(launch(files, "--qqqq", "1"))
    assert error.value.hint.startswith("known: max_epochs, max_minutes, network_def, sigma, strict, train")


@pytest.mark.parametrize(
    "form", ["{0}/base.json", "['{0}/base.json']", "{0}/base.json,{0}/overlay.json", '["{0}/base.json"]']
)
@pytest.mark.parametrize("equals", [False, True])
def test_configuration_files_are_read_in_every_form(files: str, tmp_path: Path, form: str, equals: bool) -> None:
    value = form.format(tmp_path)
    words = [f"--config_file={value}"] if equals else ["--config_file", value]
    check_overrides([PROGRAM, "run", *words, "--max_epochs", "3"])
    with pytest.raises(UsageError):
        check_overrides([PROGRAM, "run", *words, "--max_epoch", "3"])


def test_yaml_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("max_epochs: 3\n", encoding="utf-8")
    check_overrides(launch(f"{tmp_path}/c.yaml", "--max_epochs", "4"))
    with pytest.raises(UsageError, match="unknown override --max_epoch"):
        check_overrides(launch(f"{tmp_path}/c.yaml", "--max_epoch", "4"))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["pytest", "run", "--max_epoch", "3"],
        [PROGRAM],
        [PROGRAM, "ckpt_export", "--config_file", "{}", "--max_epoch", "3"],
        [PROGRAM, "run", "--max_epoch", "3"],
        ["/home/me/monai/train.py", "run", "--config_file", "{}", "--max_epoch", "3"],
    ],
)
def test_other_programs_are_left_alone(files: str, argv: list[str]) -> None:
    check_overrides([word.format(files) for word in argv])


def test_arguments_of_this_program_are_the_default(files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", launch(files, "--max_epoch", "3"))
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with pytest.raises(UsageError):
        begin()
    assert sys.excepthook is runtime._report


def test_begin_leaves_other_programs_their_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    before = sys.excepthook
    begin()
    assert sys.excepthook is before


def test_launched_configuration_holds_files_and_overrides(files: str) -> None:
    options = ("--max_epochs", "3", "--train::trainer::device", "cuda", "--resume=True", "--weights", "a b.pt")
    config = launched_config(launch(files, *options, "--network_def", "{'_target_': 'X'}", "--train#handlers", "[]"))
    assert config == {
        "max_epochs": 3,
        "sigma": "$25 / 255",
        "strict": False,
        "max_minutes": 0.0,
        "resume": True,
        "weights": "a b.pt",
        "network_def": {"_target_": "X"},
        "train": {"trainer": {"max_epochs": "@max_epochs", "device": "cuda"}, "handlers": []},
    }


def test_no_launched_configuration_in_other_programs(files: str) -> None:
    assert launched_config(["pytest", "--config_file", files]) is None
    assert launched_config([PROGRAM, "run", "training"]) is None
    assert launched_config() is None


# ---------------------------------------------------------------------------------------------------------- numbers


@given(value=st.integers(1, 10**9) | st.floats(1e-9, 1e9))
def test_numbers_that_can_work_pass(value: float) -> None:
    check_numbers({"a": value}, {"b": value, "c": 0, "d": 0.0})


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, "3", None, True, [1]])
def test_what_is_not_positive_is_refused_by_name(value: Any) -> None:
    with pytest.raises(UsageError, match="max_epochs must be positive"):
        check_numbers({"ok": 1, "max_epochs": value}, {})


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, "0", None, False])
def test_what_is_negative_is_refused_by_name(value: Any) -> None:
    with pytest.raises(UsageError, match="patience must be zero or more") as error:
        check_numbers({}, {"patience": value})
    assert "--patience" in error.value.hint


def test_sigma_in_grey_levels_is_refused() -> None:
    for sigma in (0, 0.1, 1):
        check_sigma(sigma)
    with pytest.raises(UsageError, match=r"got 25") as error:
        check_sigma(25)
    assert error.value.hint.endswith("--sigma 0.0980")


def test_folder_where_a_file_is_cannot_be_made(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "models"):
        with pytest.raises(InputError, match="cannot make the folder"):
            make_folder(path)


@pytest.mark.parametrize("value", [True, 1, "true", "True", " YES ", "on", "1"])
def test_words_for_true(value: object) -> None:
    assert as_bool(value) is True


@pytest.mark.parametrize("value", [False, 0, None, "false", "No", "off", "0", "", "None"])
def test_words_for_false(value: object) -> None:
    assert as_bool(value) is False


@pytest.mark.parametrize("value", ["ture", 2, "latest.pt"])
def test_other_words_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="expected true or false"):
        as_bool(value)


# ----------------------------------------------------------------------------------------------------------- errors


def wrapped(*chain: BaseException, explicit: bool) -> BaseException:
    """The last of `chain`, raised because of or while handling the one before, and so on."""
    try:
        if len(chain) > 1:
            try:
                raise wrapped(*chain[:-1], explicit=explicit)
            except BaseException as inner:
                if explicit:
                    raise chain[-1] from inner
                raise chain[-1]  # noqa: B904
        raise chain[-1]
    except BaseException as error:
        return error


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_user_error_is_found_behind_its_wrappers(explicit: bool, depth: int) -> None:
    mine = InputError("no images", "give some")
    assert user_error(wrapped(mine, *(RuntimeError(str(i)) for i in range(depth)), explicit=explicit)) is mine


@pytest.mark.parametrize(
    ("network", "message", "hint"),
    [
        ({"_target_": "torch.nn.Conv2dd"}, "there is no 'torch.nn.Conv2dd'", "did you mean 'Conv2d'?"),
        ({"_target_": "no_such_module.Net"}, "there is no 'no_such_module.Net'", "mend its _target_"),
        ({"_target_": "torch.nn.Linear", "in_feature": 1}, "keyword argument 'in_feature'", "mend its arguments"),
    ],
)
def test_component_that_cannot_be_made_is_a_user_error(network: dict[str, Any], message: str, hint: str) -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser({"network": network, "run": "$@network"})
    with pytest.raises((RuntimeError, ModuleNotFoundError)) as caught:
        parser.get_parsed_content("run")
    found = user_error(caught.value)
    assert isinstance(found, UsageError)
    assert message in found.message
    assert found.hint.startswith(hint)


def test_misspelt_job_is_a_user_error() -> None:
    found = user_error(ValueError("run ID 'trainin' doesn't exist in the config file."))
    assert isinstance(found, UsageError)
    assert found.message == "these configurations have no job 'trainin'"


def test_other_errors_are_no_user_errors() -> None:
    assert user_error(None) is None
    assert user_error(wrapped(KeyError("a"), ValueError("b"), explicit=True)) is None
    loop = ValueError("loop")
    loop.__context__ = loop
    assert user_error(loop) is None


def run_script(body: str) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(
        """
        import atexit, sys
        sys.argv = ["/x/monai/bundle/__main__.py", "run", "training"]
        from meddenoise_monai import runtime
        from meddenoise_monai.errors import InputError, MeddenoiseError, PartialFailure, UsageError
        runtime.begin()
        atexit.register(print, "tidied up")
        """
    ) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.e2e
@pytest.mark.parametrize(("kind", "code"), [("InputError", 1), ("UsageError", 2), ("PartialFailure", 3)])
def test_user_error_is_two_lines_and_an_exit_code(kind: str, code: int) -> None:
    assert {error.__name__ for error in (MeddenoiseError, *MeddenoiseError.__subclasses__())} >= {kind}
    done = run_script(
        f"""
        try:
            raise {kind}("sigma must\\nbe positive", "give\\nmore")
        except {kind} as error:
            raise RuntimeError("Failed to instantiate") from error
        """
    )
    assert done.returncode == code
    assert done.stderr == "error: sigma must be positive\nhint: give more\n"
    assert done.stdout == "tidied up\n"


@pytest.mark.e2e
def test_other_errors_keep_their_traceback() -> None:
    done = run_script("raise KeyError('oops')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert "KeyError: 'oops'\nerror: KeyError: 'oops'\nhint: the traceback above" in done.stderr


@pytest.mark.e2e
def test_interruption_has_no_traceback() -> None:
    done = run_script("raise KeyboardInterrupt")
    assert done.returncode == -signal.SIGINT
    assert done.stderr == "interrupted\n"


@pytest.mark.parametrize("reason", [TypeError("no such argument"), ValueError("no blocks"), IndexError("no widths")])
def test_what_a_component_refuses_is_the_users_error(reason: Exception) -> None:
    error = RuntimeError("Failed to instantiate component 'a.Network' with keywords")
    error.__cause__ = reason
    found = runtime.user_error(error)
    assert isinstance(found, UsageError)
    assert str(reason) in found.message
