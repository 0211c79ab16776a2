"""How words become a job, and how errors become messages and exit codes."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from meddenoise_monai import __version__, cli, denoising, folders
from meddenoise_monai.cli import main
from meddenoise_monai.whole_files import TEMPORARY
from tests.commands.conftest import digests, failure, pixels, run
from tests.samples import listen_to_interrupts

VERBS = ("denoise", "archive", "corrupt", "score", "compare", "prepare", "export", "version")


# --- verbs, help, version ---------------------------------------------------------------------------------------------


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--help")
    assert (code, err) == (0, "")
    assert run(capsys, "-h") == (0, out, "")
    assert tuple(cli._VERBS) == VERBS
    for verb in VERBS:
        assert re.search(rf"^  {verb} +\S", out, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_every_argument_and_flag(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, verb, "--help")
    assert (code, err) == (0, "")
    assert run(capsys, verb, "in", "-h") == (0, out, "")
    assert f"usage: meddenoise {verb}" in out
    assert "    meddenoise" not in out  # the docstring's own indentation is gone
    assert max(map(len, out.splitlines())) <= 120
    parameters = inspect.signature(cli._VERBS[verb]).parameters.values()
    for parameter in parameters:
        shown = f"--{parameter.name}" if parameter.kind is parameter.KEYWORD_ONLY else parameter.name.upper()
        assert re.search(rf"^ +.*{shown}\b", out, re.MULTILINE), shown
    named = set(re.findall(r"^ +--(\w+)", out, re.MULTILINE))
    assert named <= {parameter.name for parameter in parameters}
    if parameters:
        assert f"examples:\n  meddenoise {verb}" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "version") == (0, f"meddenoise {__version__}\n", "")
    assert run(capsys, "--version") == (0, f"meddenoise {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ([], "no verb given", "denoise"),
        (["denois", "in", "out"], "unknown verb 'denois'", "did you mean 'denoise'?"),
        (["xyzzy", "--help"], "unknown verb 'xyzzy'", "known: archive, compare, corrupt, denoise"),
        (["--sigma", "3"], "a verb comes first, got --sigma", "denoise"),
        (["denoise"], "denoise needs INPUT", "usage: meddenoise denoise INPUT OUTPUT [flags]"),
        (["denoise", "in"], "denoise needs OUTPUT", "usage: meddenoise denoise INPUT OUTPUT [flags]"),
        (["denoise", "", "out"], "INPUT is empty", "unset"),
        (["denoise", "in", "out", "--model="], "--model is empty", "unset"),
        (["denoise", "in", "out", "more"], "unexpected argument 'more'", "usage: "),
        (["denoise", "--input", "a", "b", "c"], "Could not consume arg: c", "usage: "),
        (["version", "run"], "unexpected argument 'run'", "usage: meddenoise version"),
    ],
)
def test_usage_errors(words: list[str], error: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    got_error, got_hint = failure(capsys, 2, *words)
    assert got_error == error
    assert hint in got_hint


def test_nothing_runs_before_every_word_is_understood(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(folders, "score_folders", lambda *args, **_: calls.append(args))
    failure(capsys, 2, "score", "a", "b", "--data-rnge", "3")
    failure(capsys, 2, "score", "--reference=a", "b", "c")
    assert calls == []


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _raise(error: BaseException) -> Any:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_a_fault_of_the_program_is_two_lines_and_a_traceback_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders, "score_folders", _raise(ValueError("two\nlines")))
    error, hint = failure(capsys, 1, "score", "a", "b")
    assert error == "ValueError: two lines"
    assert "--debug" in hint
    code, _, err = run(capsys, "score", "a", "--debug", "b")
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-2:] == [f"error: {error}", f"hint: {hint}"]


def test_debug_shows_where_a_users_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--debug", "denoise", "nowhere", "out")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-2:] == ["error: no such file or folder: nowhere", "hint: check the path"]


def test_an_interrupt_is_one_line(
    source: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(denoising, "read_image", _raise(KeyboardInterrupt()))
    assert run(capsys, "denoise", "in", "out", "--model", model) == (130, "", "interrupted\n")


# --- as a user types it -----------------------------------------------------------------------------------------------


def typed(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meddenoise_monai.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


HEAVY = ("torch", "monai", "mlflow", "itk", "pydicom", "numpy", "scipy", "skimage", "matplotlib", "nibabel")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from meddenoise_monai.cli import main; code = main(['denoise', '--help']);"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "0 []"


def test_the_package_is_the_command() -> None:
    """For those whose path lacks the command."""
    command = [sys.executable, "-m", "meddenoise_monai"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"meddenoise {__version__}\n", "")
    done = subprocess.run([*command, "denois"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: unknown verb 'denois'\nhint: did you mean 'denoise'?\n"


def test_the_entry_point_is_main() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="meddenoise")
    assert script.load() is main


@pytest.mark.parametrize(("words", "code"), [(["corrupt", "--help"], 0), (["denoise", "in"], 2)])
def test_a_reader_that_left_is_no_error(words: list[str], code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "meddenoise_monai.cli", *words]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (result.returncode, len(result.stderr.splitlines())) == (code, code)
    both = subprocess.run(command, stdout=writing, stderr=writing, timeout=60, check=False)
    os.close(writing)
    assert both.returncode == code


def test_help_on_a_terminal_without_unicode_and_pager() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PAGER": "false"}
    result = typed("--help", env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "denoise" in result.stdout


@pytest.mark.e2e
def test_exit_codes_and_streams_of_a_process(source: Path, tmp_path: Path, model: Path) -> None:
    before = digests(source)
    done = typed("denoise", "in", "out", "--model", model)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 image(s) denoised into out\n", "")
    failed = typed("denoise", "in", "out", "--model", model, "--strength", "0.5")
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 2)
    usage = typed("denoise", "in", "out2", "--modle", model)
    assert (usage.returncode, usage.stdout) == (2, "")
    assert usage.stderr == "error: denoise has no flag --modle\nhint: did you mean '--model'?\n"
    (source / "broken.png").write_bytes(b"no image")
    partial = typed("corrupt", "in", "pairs", "--sigma", "25")
    assert partial.returncode == 3
    assert [line.split(":")[0] for line in partial.stderr.splitlines()] == ["warning", "error", "hint"]
    (source / "broken.png").unlink()
    scored = typed("score", "in", "pairs/noisy", "--json")
    assert (scored.returncode, scored.stderr) == (0, "")
    assert len(json.loads(scored.stdout)["images"]) == 3
    assert digests(source) == before


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_whole_files_and_is_gone_on_with(
    source: Path, model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    if os.name == "nt":
        pytest.skip("POSIX signals")
    rng = np.random.default_rng(0)
    for index in range(60):
        Image.fromarray(rng.integers(0, 256, (512, 512)).astype(np.uint8)).save(source / f"{index}.png")
    command = [sys.executable, "-m", "meddenoise_monai.cli", "denoise", "in", "out", "--model", str(model)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    ) as process:
        deadline = time.monotonic() + 90
        # The third, so that of one at least the record is complete, too.
        while len(list((tmp_path / "out").rglob("[!.]*.png"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    interrupted = number == signal.SIGINT
    assert (process.returncode, out, err) == ((130, "", "interrupted\n") if interrupted else (-9, "", ""))
    written = [path for path in (tmp_path / "out").rglob("[!.]*.*") if path.name != "manifest.json"]
    assert 0 < len(written) < 63
    assert all(pixels(path).size for path in written)
    assert interrupted == (tmp_path / "out" / "manifest.json").is_file()
    # A kill leaves no time to tidy up: the next run does.
    half = f"{TEMPORARY}half.png"
    (tmp_path / "out" / half).touch()
    again = typed("denoise", "in", "out", "--model", model)
    assert again.returncode == 0
    done, before = map(int, re.findall(r"\d+", again.stdout))
    assert done + before == 63
    assert before >= len(written) - 3  # those whose record was not written yet are made again
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(names - {half}) == 63 + 1
    assert interrupted == (half in names)


@pytest.mark.e2e
def test_the_progress_bar_is_for_terminals(source: Path, model: Path) -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    command = [sys.executable, "-m", "meddenoise_monai.cli", "denoise", "in", "out", "--model", str(model)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, timeout=120, check=False)
    os.close(follower)
    shown = ""
    while "3/3" not in shown and select.select([leader], [], [], 1)[0]:
        shown += os.read(leader, 65536).decode()
    os.close(leader)
    assert (result.returncode, result.stdout) == (0, b"3 image(s) denoised into out\n")
    assert "denoise: 100%" in shown
    assert "3/3" in shown


def test_a_flag_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--sigma", "3", "--sigma", "50"], ["--overwrite", "--overwrite"], ["--sigma=3", "--sigma=3"]):
        message, _ = failure(capsys, 2, "denoise", "a.png", "b.png", *words)
        assert "twice" in message


def test_version_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "denoise", "--version") == run(capsys, "--version") == run(capsys, "version")


def test_names_that_no_file_system_holds_are_an_error_of_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.arange(400).astype(np.uint8).reshape(20, 20)).save(tmp_path / "a.png")
    for verb in (["denoise"], ["corrupt", "--sigma", "3"], ["prepare", "folder"]):
        message, hint = failure(capsys, 1, *verb, str(tmp_path), str(tmp_path.parent / ("x" * 300)))
        assert "too long" in message
        assert "--debug" not in hint


def test_a_pipe_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    message, _ = failure(capsys, 1, "prepare", "folder", str(tmp_path / "pipe"), str(tmp_path / "out"))
    assert "is no file" in message


@pytest.mark.e2e
def test_closed_streams_do_not_matter(tmp_path: Path) -> None:
    Image.fromarray(np.arange(400).astype(np.uint8).reshape(20, 20)).save(tmp_path / "a.png")
    words = [sys.executable, "-m", "meddenoise_monai.cli", "corrupt", str(tmp_path / "a.png"), str(tmp_path / "out")]
    command = " ".join([*words, "--sigma", "3"])
    done = subprocess.run(["sh", "-c", f"{command} 2>&- >&-"], check=False, timeout=120)
    assert done.returncode == 0
    assert (tmp_path / "out" / "noisy" / "a.png.tif").is_file()


@pytest.mark.e2e
def test_relative_paths_are_kept_while_itk_is_loaded(tmp_path: Path, model: Path) -> None:
    """It changes the working directory while it loads, under the feet of other threads."""
    import itk

    source = tmp_path / "in"
    source.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    for number in range(20):
        Image.fromarray(np.roll(image, number)).save(source / f"{number:02d}.png")
    for name in ("00.mha", "09.nrrd"):
        itk.imwrite(itk.image_from_array(image), str(source / name))
    done = typed("denoise", "in", "out", "--preview", "shown", "--model", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.json", *(path.name for path in source.iterdir())
    }  # fmt: skip
    assert len(list((tmp_path / "shown").iterdir())) == 22
