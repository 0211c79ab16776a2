from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from meddenoise_monai.errors import UsageError
from meddenoise_monai.tracking import (
    LocalRun,
    MlflowRun,
    Run,
    addresses,
    case_id,
    environment_versions,
    open_run,
    opening,
    owners,
    process,
)
from meddenoise_monai.tracking.cleaning import clean_name

REPOSITORY = Path(__file__).parents[1]
NO_SERVER = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _clean_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the tester's machine, and no run left open for the next test."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE", "MEDDENOISE_CASE_SALT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield
    for run in list(process._open_runs):
        run.close("KILLED")
    assert signal.getsignal(signal.SIGTERM) is not process._on_signal


@pytest.fixture
def client(mlflow_folder: Path) -> Any:
    from mlflow import MlflowClient

    with process.mlflow_call():
        return MlflowClient(tracking_uri=f"sqlite:///{mlflow_folder}/mlflow.db")


def events(run: LocalRun | Path) -> list[dict[str, Any]]:
    path = run if isinstance(run, Path) else Path(run.url_hint)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_script(script: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


# --- what is recorded can be read back -------------------------------------------------------------------------------


def test_everything_recorded_is_read_back_through_mlflow(mlflow_folder: Path, client: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (20, 30), np.uint8), rng.integers(0, 256, (20, 30, 3), np.uint8)
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    with open_run("denoise", "first", fallback_dir=mlflow_folder, tags={"data": "sample"}) as run:
        assert isinstance(run, Run)
        assert isinstance(run, MlflowRun)
        assert client.get_run(run.run_id).info.status == "RUNNING"
        run.log_params({"optimizer": {"name": "Adam", "lr": 1e-3}, "widths": [16, 32], "über": 0.1, "long": "x" * 7000})
        run.log_params({f"p{i}": i for i in range(250)})
        for epoch in (1, 2):
            run.log_metrics({"loss": 1 / epoch, "ssim/val": np.float32(0.5)}, step=epoch)
            run.log_image("panel", grey if epoch == 1 else colour, step=epoch)
        for gain in (1.0, 2.0):  # the second replaces the first
            run.log_table("comparison", {"method": ["noisy", "dae"], "psnr": [np.float64(20), 20 + gain]})
        run.log_text("ä", "notes/a.txt")
        run.log_dict({"net": {"path": Path("x")}}, "config/resolved.json")
        run.log_file(weights, "weights")

    recorded = client.get_run(run.run_id)
    assert recorded.info.status == "FINISHED"
    assert recorded.info.run_name == "first"
    params = recorded.data.params
    assert params["optimizer.name"] == "Adam"
    assert params["optimizer.lr"] == "0.001"
    assert params["widths"] == "[16, 32]"
    assert params["_ber"] == "0.1"
    assert len(params["long"]) == 6000
    assert len(params) == 5 + 250
    assert recorded.data.tags["data"] == "sample"
    history = client.get_metric_history(run.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5)]
    assert recorded.data.metrics["ssim/val"] == 0.5

    def artifact(path: str) -> bytes:
        return Path(client.download_artifacts(run.run_id, path)).read_bytes()

    assert artifact("notes/a.txt").decode() == "ä"
    assert json.loads(artifact("config/resolved.json")) == {"net": {"path": "x"}}
    assert artifact("weights/model.pt") == b"weights"
    images = sorted(file.path for file in client.list_artifacts(run.run_id, "images") if file.path.endswith(".png"))
    assert [image.split("+")[:3] for image in images] == [["images/panel", "step", "1"], ["images/panel", "step", "2"]]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(artifact(images[0])))), grey)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(artifact(images[1])))), colour)
    table = pd.read_json(io.BytesIO(artifact("comparison.json")), orient="split")  # as MLflow reads it
    assert table.to_dict("list") == {"method": ["noisy", "dae"], "psnr": [20.0, 22.0]}
    assert json.loads(recorded.data.tags["mlflow.loggedArtifacts"]) == [{"path": "comparison.json", "type": "table"}]
    assert (mlflow_folder / "mlruns" / run.run_id).is_dir()
    command, page = run.url_hint.splitlines()
    assert command.endswith(f"mlflow ui --backend-store-uri sqlite:///{mlflow_folder}/mlflow.db")
    assert f"/runs/{run.run_id}?workflowType=machine_learning" in page


def test_everything_recorded_is_read_back_from_a_local_folder(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (tmp_path / "model.pt").write_bytes(b"weights")
    with LocalRun(tmp_path / "run") as run:
        assert isinstance(run, Run)
        run.log_params({"a": {"b": 1}})
        run.log_metrics({"loss": 0.5}, step=3)
        run.log_table("comparison.json", {"method": ["noisy"], "psnr": [float("nan")]})
        run.log_image("panel 1", grey, step=3)
        run.log_text("hello", "notes/a.txt")
        run.log_file(tmp_path / "model.pt", "weights")
    kinds = [event["event"] for event in events(run)]
    assert kinds == ["start", "params", "metrics", "table", "image", "file", "file", "end"]
    assert events(run)[1]["params"] == {"a.b": "1"}
    assert (events(run)[2]["step"], events(run)[2]["metrics"]) == (3, {"loss": 0.5})
    assert events(run)[-1]["status"] == "FINISHED"
    folder = tmp_path / "run"
    assert json.loads((folder / "artifacts/comparison.json").read_text()) == {
        "columns": ["method", "psnr"],
        "data": [["noisy", None]],
    }
    np.testing.assert_array_equal(np.asarray(Image.open(folder / events(run)[4]["path"])), grey)
    assert (folder / "artifacts/notes/a.txt").read_text() == "hello"
    assert (folder / "artifacts/weights/model.pt").read_bytes() == b"weights"
    assert not list(folder.rglob("*.new"))


def test_nan_is_left_out_with_one_warning_and_infinity_is_capped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = LocalRun(tmp_path / "run")
    run.log_metrics({"a": float("nan"), "b": float("inf"), "c": -np.inf, "d": 2}, step=1)
    run.log_metrics({"a": float("nan")}, step=2)
    assert events(run)[-1]["metrics"] == {"b": 1e9, "c": -1e9, "d": 2.0}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)],
    ids=["float", "rgba", "empty", "line"],
)
def test_an_array_that_is_no_picture_is_refused(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        LocalRun(tmp_path / "run").log_image("panel", image, 0)


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "a\\b", "."])
def test_artifacts_stay_in_the_folder_of_the_run(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="must be relative"):
        LocalRun(tmp_path / "run").log_text("x", path)


def test_other_errors_of_the_caller_are_raised(tmp_path: Path) -> None:
    run = LocalRun(tmp_path / "run")
    with pytest.raises(ValueError, match="columns of one length"):
        run.log_table("t", {"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="columns of one length"):
        run.log_table("t", {})
    with pytest.raises(FileNotFoundError):
        run.log_file(tmp_path / "absent")


@given(st.text(max_size=20))
@example("a/../../b//c." * 40)
@settings(max_examples=50, deadline=None)
def test_a_cleaned_name_is_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    clean = clean_name(name)
    _validate_metric_name(clean)  # type: ignore[no-untyped-call]
    assert len(clean) <= 250
    assert clean_name(clean) == clean


# --- status ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("crash"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "KILLED"),
        (SystemExit(0), "FINISHED"),
    ],
    ids=repr,
)
def test_the_status_tells_how_the_run_ended(
    mlflow_folder: Path, client: Any, error: BaseException | None, status: str
) -> None:
    run = open_run("e", fallback_dir=mlflow_folder)
    with contextlib.suppress(ValueError, KeyboardInterrupt, SystemExit), run:
        if error is not None:
            raise error
    assert client.get_run(run.run_id).info.status == status


def test_the_first_close_wins(mlflow_folder: Path, client: Any) -> None:
    run = open_run("e", fallback_dir=mlflow_folder)
    run.close("FAILED")
    run.close("FINISHED")
    assert client.get_run(run.run_id).info.status == "FAILED"


SCRIPT = """
    import logging, sys, time
    from meddenoise_monai import tracking
    assert "mlflow" not in sys.modules
    logging.basicConfig(level=logging.WARNING)
    run = tracking.open_run("e", fallback_dir={folder!r})
    print(run.run_id, flush=True)
"""


@pytest.mark.e2e
def test_a_run_that_was_never_closed_ends_failed(mlflow_folder: Path, client: Any) -> None:
    script = SCRIPT.format(folder=str(mlflow_folder)) + "    raise RuntimeError('crash')\n"
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_CURRENT_TEST")}
    process = run_script(script, env=environment)
    output, errors = process.communicate(timeout=60)
    assert client.get_run(output.strip()).info.status == "FAILED"  # also: nothing but the run's id is printed
    assert errors.strip().startswith("Traceback")  # nothing of MLflow's or Alembic's before it
    assert errors.strip().endswith("RuntimeError: crash")


@pytest.mark.e2e
def test_sigterm_ends_the_run_as_killed_and_the_process_by_the_signal(mlflow_folder: Path, client: Any) -> None:
    # The forked child, such as a worker of a DataLoader, must not end its parent's run.
    script = (
        SCRIPT.format(folder=str(mlflow_folder))
        + """
    import os, signal
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), run._client_status(), flush=True)
    time.sleep(60)
    """.replace("run._client_status()", "run._store._client.get_run(run.run_id).info.status")
    )
    process = run_script(script)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    assert process.stdout.readline().split() == ["15", "RUNNING"]
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert client.get_run(run_id).info.status == "KILLED"


def test_sigterm_goes_on_to_the_handler_that_was_there(mlflow_folder: Path, client: Any) -> None:
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        run = open_run("e", fallback_dir=mlflow_folder)
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
        assert client.get_run(run.run_id).info.status == "KILLED"
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_within_a_record_waits_for_its_end(tmp_path: Path) -> None:
    order: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: order.append("handler"))
    try:
        run = LocalRun(tmp_path / "run")
        process.register(run)
        with process.mlflow_call():
            os.kill(os.getpid(), signal.SIGTERM)
            run.log_metrics({"a": 1}, 0)
            order.append("record")
        assert order == ["record", "handler"]
        assert events(run)[-1]["status"] == "KILLED"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_opened_in_a_thread_leaves_the_signals_alone(mlflow_folder: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: open_run("e", fallback_dir=mlflow_folder))
    thread.start()
    thread.join()
    assert len(process._open_runs) == 1
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_runs_of_dead_processes_of_this_machine_are_closed(
    mlflow_folder: Path, client: Any, dead_pid: int, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = client.create_experiment("e", (mlflow_folder / "mlruns").as_uri())
    me = owners._this_process()
    writers = {
        "dead": {**me, "pid": dead_pid},
        "pid used again": {**me, "started": "1"},
        "before a restart": {**me, "boot": "earlier"},
        "alive": me,
        "other host": {**me, "host": "elsewhere", "pid": dead_pid},
        "other container": {**me, "namespace": "pid:[1]", "pid": dead_pid},
        "not ours": None,
    }
    ids = {}
    for name, owner in writers.items():
        start = 1000 if name == "before a restart" else int(time.time() * 1000)
        tags = {} if owner is None else {"meddenoise.process": json.dumps(owner)}
        ids[name] = client.create_run(experiment, start_time=start, tags=tags).info.run_id
    restarted_lately = client.create_run(
        experiment, tags={"meddenoise.process": json.dumps({**me, "boot": "earlier"})}
    ).info.run_id
    open_run("e", fallback_dir=mlflow_folder, close_stale=False)
    assert {client.get_run(run_id).info.status for run_id in ids.values()} == {"RUNNING"}
    open_run("e", fallback_dir=mlflow_folder)
    killed = {name for name, run_id in ids.items() if client.get_run(run_id).info.status == "KILLED"}
    assert killed == {"dead", "pid used again", "before a restart"}
    # Such a run is younger than this machine's last restart: it must be of another machine of the same name.
    assert client.get_run(restarted_lately).info.status == "RUNNING"
    assert len([record for record in caplog.records if "left RUNNING" in record.message]) == 3


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_training_goes_on_in_its_run(mlflow_folder: Path, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with open_run("e", fallback_dir=mlflow_folder) as first:
        first.log_params({"max_epochs": 2, "lr": 0.1})
        first.log_metrics({"loss": 1}, step=1)
    with open_run("e", fallback_dir=mlflow_folder, resume_run_id=first.run_id) as second:
        assert second.run_id == first.run_id
        assert client.get_run(first.run_id).info.status == "RUNNING"
        second.log_params({"max_epochs": 4, "lr": 0.1, "new": 1})  # MLflow would refuse to change max_epochs
        second.log_metrics({"loss": 0.5}, step=2)
    recorded = client.get_run(first.run_id)
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params == {"max_epochs": "2", "lr": "0.1", "new": "1"}
    assert recorded.data.tags["resumed.max_epochs"] == "4"
    assert [metric.step for metric in client.get_metric_history(first.run_id, "loss")] == [1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("why", ["absent", "deleted", "in use", "of a local run"])
def test_a_run_that_cannot_go_on_is_replaced_by_a_new_one(
    mlflow_folder: Path, client: Any, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    run_id = {"absent": "0" * 32, "of a local run": "local-20200101-000000-abcdef"}.get(why)
    if run_id is None:
        owner = {**owners._this_process(), "pid": os.getppid(), "started": owners._process_start(os.getppid())}
        run = open_run("e", fallback_dir=mlflow_folder, tags={"meddenoise.process": json.dumps(owner)})
        run_id = run.run_id
        client.set_tag(run_id, "meddenoise.process", json.dumps(owner))
        if why == "deleted":
            client.delete_run(run_id)
    with open_run("e", fallback_dir=mlflow_folder, resume_run_id=run_id) as new:
        assert isinstance(new, MlflowRun)
        assert new.run_id != run_id
    assert len([record for record in caplog.records if run_id in record.message and record.levelname == "WARNING"]) == 1


def test_a_local_run_goes_on_too(tmp_path: Path) -> None:
    with open_run("e", fallback_dir=tmp_path, tracking_uri=NO_SERVER) as first:
        first.log_metrics({"loss": 1}, step=1)
    with open_run("e", fallback_dir=tmp_path, tracking_uri=NO_SERVER, resume_run_id=first.run_id) as second:
        assert second.run_id == first.run_id
        assert isinstance(second, LocalRun)
    kinds = [event["event"] for event in events(second)]
    assert kinds == ["start", "tags", "metrics", "end", "resume", "tags", "end"]


# --- which store -----------------------------------------------------------------------------------------------------


def test_the_environment_beats_the_argument(
    mlflow_folder: Path, client: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_folder}/mlflow.db")
    with open_run("e", tracking_uri=NO_SERVER, fallback_dir=elsewhere) as run:
        run.log_text("x", "a.txt")
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert (mlflow_folder / "mlruns" / run.run_id / "artifacts/a.txt").is_file()
    assert list(elsewhere.iterdir()) == []


def test_an_empty_setting_is_no_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert addresses.resolve_uri("", tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert addresses.resolve_uri(NO_SERVER, tmp_path) == NO_SERVER


def test_a_relative_database_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert addresses.resolve_uri("sqlite:///a/b.db?timeout=3", tmp_path) == f"sqlite:///{tmp_path}/a/b.db?timeout=3"


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "/data/mlruns/", "file:///data/mlruns", "C:\\mlruns"])
def test_a_folder_is_refused_with_a_way_out(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="tracking_uri is a folder") as caught:
        open_run("e", tracking_uri=uri, fallback_dir=tmp_path)
    assert "sqlite:///" in caught.value.hint
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI is a folder"):
        open_run("e", fallback_dir=tmp_path)


def test_a_misspelt_kind_of_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not know"):
        open_run("e", tracking_uri="sqllite:///mlflow.db", fallback_dir=tmp_path)
    with pytest.raises(UsageError, match="does not know"):
        open_run("e", tracking_uri="htp://somewhere:5000", fallback_dir=tmp_path)


def test_an_experiment_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name"):
        open_run(" ", fallback_dir=tmp_path)


def test_two_runs_without_a_name_have_two_names(mlflow_folder: Path, client: Any) -> None:
    names = {client.get_run(open_run("e", fallback_dir=mlflow_folder).run_id).info.run_name for _ in range(2)}
    assert len(names) == 2


def test_a_deleted_experiment_is_restored(mlflow_folder: Path, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    client.delete_experiment(client.create_experiment("e", (mlflow_folder / "mlruns").as_uri()))
    with open_run("e", fallback_dir=mlflow_folder) as run:
        pass
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert "restored" in caplog.text


@pytest.mark.parametrize("event", ["done", "interrupted", "overtaken"])
def test_a_new_database_appears_whole_or_not_at_all(
    tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    path = tmp_path / "new.db"

    class Client:
        """Makes the file that its URI names as slowly as one likes."""

        def __init__(self, tracking_uri: str) -> None:
            made = Path(tracking_uri.removeprefix("sqlite:///"))
            assert made != path
            made.write_bytes(mlflow_template.read_bytes()[: None if event == "done" else 1000])
            if event == "interrupted":
                raise KeyboardInterrupt
            if event == "overtaken":
                path.write_text("another process was faster")

        def search_experiments(self, max_results: int) -> None:
            pass

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    with contextlib.suppress(KeyboardInterrupt):
        opening.create_database(path)
    expected = {"done": mlflow_template.read_bytes(), "overtaken": b"another process was faster"}.get(event)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == ({path: expected} if expected else {})


# --- no store, a slow one, one that dies -----------------------------------------------------------------------------


def test_an_unreachable_server_costs_a_warning_and_a_local_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin = time.monotonic()
    with open_run("e", "name", "http://user:secret@127.0.0.1:9/base?token=secret", tmp_path, {"a": 1}) as run:
        assert time.monotonic() - begin < 10
        assert isinstance(run, LocalRun)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert run.url_hint in caplog.text
    assert "http://127.0.0.1:9/base" in caplog.text
    assert "secret" not in caplog.text
    assert events(run)[1]["tags"] == {"experiment": "e", "run_name": "name", "a": "1"}
    assert Path(run.url_hint).is_relative_to(tmp_path)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        begin = time.monotonic()
        assert isinstance(open_run("e", tracking_uri=uri, fallback_dir=tmp_path), LocalRun)
        assert time.monotonic() - begin < 10


def test_an_absent_database_server_is_given_up(tmp_path: Path) -> None:
    uri = "postgresql+psycopg2://user:secret@127.0.0.1:9/mlflow"
    begin = time.monotonic()
    assert isinstance(open_run("e", tracking_uri=uri, fallback_dir=tmp_path), LocalRun)
    assert time.monotonic() - begin < 10


def test_a_server_that_asks_for_a_password_is_alive() -> None:
    answers = {"401 Unauthorized": True, "200 OK": True, "503 Service Unavailable": False}
    for answer, alive in answers.items():
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve(server: socket.socket = server, answer: str = answer) -> None:
                connection = server.accept()[0]
                with connection:
                    connection.recv(4096)
                    connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

            thread = threading.Thread(target=serve)
            thread.start()
            with contextlib.nullcontext() if alive else pytest.raises(ConnectionError, match="HTTP status 503"):
                addresses.check_reachable(f"http://me:pw@127.0.0.1:{server.getsockname()[1]}/")
            thread.join()


def test_without_mlflow_a_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with caplog.at_level(logging.INFO, "meddenoise_monai"), open_run("e", fallback_dir=tmp_path) as run:
        run.log_metrics({"loss": 1}, step=1)
    assert isinstance(run, LocalRun)
    assert "mlflow is not installed" in caplog.text
    assert all(record.levelno < logging.WARNING for record in caplog.records)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_file_that_is_no_database_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    assert isinstance(open_run("e", fallback_dir=tmp_path), LocalRun)
    assert "not a database" in caplog.text
    assert (tmp_path / "mlflow.db").read_text() == "not a database" * 100


def test_where_nothing_can_be_written_the_user_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        open_run("e", fallback_dir=tmp_path / "file", tracking_uri=NO_SERVER)


def lose(run: Run, monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    from mlflow.exceptions import MlflowException

    def fail(*args: object, **kwargs: object) -> None:
        raise MlflowException("the server at http://me:secret@host is gone\nand a long explanation")

    assert isinstance(run, MlflowRun)
    for method in methods:
        monkeypatch.setattr(run._store._client, method, fail)


def test_a_store_lost_in_the_middle_costs_a_warning_for_files_and_one_for_records(
    mlflow_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run("e", fallback_dir=mlflow_folder)
    run.log_metrics({"loss": 1}, step=1)
    lose(run, monkeypatch, "log_batch", "log_image", "log_artifact", "log_table", "get_run", "set_terminated")
    run.log_image("panel", np.zeros((2, 2), np.uint8), 1)  # the first to find it out
    run.log_metrics({"loss": 0.5}, step=2)
    run.log_params({"a": 1})
    run.log_text("x", "a.txt")
    run.log_table("t", {"a": [1]})
    run.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "http://host is gone" in caplog.text
    folder = mlflow_folder / "local_runs" / run.run_id
    assert str(folder) in caplog.text
    assert str(folder) in run.url_hint
    kinds = [event["event"] for event in events(folder / "events.jsonl")]
    assert kinds == ["image", "metrics", "params", "file", "table", "end"]
    assert [metric.step for metric in client.get_metric_history(run.run_id, "loss")] == [1]


def test_a_store_that_came_back_learns_the_end(
    mlflow_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run("e", fallback_dir=mlflow_folder)
    with monkeypatch.context() as patch:
        lose(run, patch, "log_batch")
        run.log_metrics({"loss": 1}, step=1)
    run.close("FAILED")
    assert client.get_run(run.run_id).info.status == "FAILED"
    assert "meddenoise.incomplete" in client.get_run(run.run_id).data.tags


def test_where_only_files_cannot_be_stored_metrics_go_on(
    mlflow_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run("e", fallback_dir=mlflow_folder) as run:
        lose(run, monkeypatch, "log_artifact")
        run.log_text("x", "a.txt")
        run.log_text("y", "b.txt")
        run.log_metrics({"loss": 1}, step=1)
    assert client.get_run(run.run_id).data.metrics == {"loss": 1.0}
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert len(caplog.records) == 1
    folder = mlflow_folder / "local_runs" / run.run_id / "artifacts"
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]


def test_a_refused_record_is_not_taken_for_a_lost_store(
    mlflow_folder: Path, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run("e", fallback_dir=mlflow_folder) as run:
        client.log_param(run.run_id, "a", "somebody else's")
        run.log_params({"a": 1})
        run.log_metrics({"loss": 1}, step=1)
    assert client.get_run(run.run_id).data.metrics == {"loss": 1.0}
    assert len(caplog.records) == 1
    assert [event["event"] for event in events(mlflow_folder / "local_runs" / run.run_id / "events.jsonl")] == [
        "params",
        "end",
    ]


def test_a_full_disk_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = LocalRun(tmp_path / "run")
    os.replace(tmp_path / "run", tmp_path / "moved")
    (tmp_path / "run").write_text("in the way")
    for step in range(3):
        run.log_metrics({"loss": 1}, step=step)
    run.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# --- manners ---------------------------------------------------------------------------------------------------------


def test_settings_of_the_process_are_put_back(mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow  # noqa: F401

    def settings() -> object:
        names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_TRACKING_URI")
        levels = [logging.getLogger(name).level for name in ("mlflow", "alembic", "urllib3.connectionpool")]
        return [os.environ.get(name) for name in names], levels

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    before = settings()
    with process.mlflow_call():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    run = open_run("e", fallback_dir=mlflow_folder)
    threads = [threading.Thread(target=run.log_metrics, args=({"a": i}, i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.close()
    assert settings() == before
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_run_s_source_is_the_program_and_not_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/Doe^John/monai/bundle/__main__.py"])
    main = sys.modules["__main__"]
    for spec, name in ((SimpleNamespace(name="monai.bundle.__main__"), "monai.bundle"), (None, "__main__.py")):
        monkeypatch.setattr(main, "__spec__", spec)
        assert opening._origin_tags()["mlflow.source.name"] == name


def test_mlflow_s_own_active_run_is_left_alone(mlflow_folder: Path) -> None:
    import mlflow

    with open_run("a", fallback_dir=mlflow_folder) as one, open_run("b", fallback_dir=mlflow_folder) as other:
        assert mlflow.active_run() is None
        assert one.run_id != other.run_id


def test_versions_come_without_imports() -> None:
    versions = environment_versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["numpy"] == np.__version__
    assert {"torch", "monai", "pytorch-ignite", "scikit-image", "pydicom", "mlflow"} <= versions.keys()


def test_a_case_id_is_a_hash_that_can_be_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = case_id("patient/Müller.dcm")
    assert plain == hashlib.sha256("patient/Müller.dcm".encode()).hexdigest()[:12]
    monkeypatch.setenv("MEDDENOISE_CASE_SALT", "secret")
    keyed = case_id("patient/Müller.dcm")
    assert keyed != plain
    assert len(keyed) == 12
    monkeypatch.setenv("MEDDENOISE_CASE_SALT", "other")
    assert case_id("patient/Müller.dcm") != keyed
    assert len(case_id("patient/M\udcfcller.dcm")) == 12  # as a file system may have it
