"""From an experiment's name to an open run: a new one or one that goes on, in MLflow or in a local folder."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import shlex
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, MeddenoiseError, UsageError
from .addresses import PROBE_SECONDS, artifact_location, check_reachable, public, resolve_uri, sqlite_path
from .cleaning import clean_tags, one_line
from .owners import owner_of, owner_tag, writer_lives
from .process import hush, mlflow_call, register
from .runs import LocalRun, MlflowRun, Run
from .stores import MlflowStore

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["create_database", "open_run"]

_log = logging.getLogger(__name__)


def open_run(
    experiment: str,
    run_name: str | None = None,
    tracking_uri: str | None = None,
    fallback_dir: str | os.PathLike[str] = "eval",
    tags: Mapping[str, object] | None = None,
    *,
    resume_run_id: str | None = None,
    close_stale: bool = True,
    fall_back: bool = True,
) -> Run:
    """Open a run in MLflow, or in a local folder when MLflow is not installed or its store cannot be reached.

    In a distributed training only the first process should call this.

    Parameters
    ----------
    experiment
        MLflow experiment; made when new, restored (with a warning) when it was deleted. One that exists keeps the
        artifact location that it was made with.
    run_name
        Name in the UI. By default the experiment's name, the time and six random characters.
    tracking_uri
        ``sqlite:///FILE``, another database, or the address of a server. The environment variable
        ``MLFLOW_TRACKING_URI`` beats it. By default ``sqlite:///<fallback_dir>/mlflow.db``. Files of a run go where the
        server says, beside an SQLite file into ``mlruns/``, and with any other database into ``<fallback_dir>/mlruns``.
        The first use of a new SQLite file takes about ten seconds.
    fallback_dir
        Folder for the default store, and for the runs that MLflow cannot take (``local_runs/<run id>/``).
    tags
        Tags of the run.
    resume_run_id
        Goes on in this run, which is RUNNING again. When it no longer exists, or is being written by a living
        process, a warning is given and a new run opened.
    close_stale
        Ends, as KILLED, those runs of the same experiment that a process of this machine left RUNNING when it died.
    fall_back
        Whether a run that MLflow cannot take goes to a folder; else that is an error.

    Raises
    ------
    InputError
        MLflow is not installed or its store cannot be reached, and there is no `fall_back`.
    UsageError
        The experiment has no name; the tracking URI is a folder (which MLflow 3 refuses) or of an unknown kind; or
        neither the store nor `fallback_dir` can be written.
    """
    if not experiment.strip():
        raise UsageError("the experiment has no name", "give one, for example --experiment_name denoising")
    folder = Path(fallback_dir).expanduser().absolute()
    run_name = run_name or f"{experiment}-{_now_and_random()}"
    uri = resolve_uri(tracking_uri, folder)
    tags = dict(tags or {})
    run: Run
    # A dead server must be found out in seconds, before the training: few retries here, more of them later.
    with mlflow_call(seconds=5, retries=1):
        try:
            run = _open_mlflow(experiment, run_name, uri, folder, tags, resume_run_id, close_stale)
        except MeddenoiseError:
            raise
        except Exception as error:
            if not fall_back:
                raise InputError(
                    f"MLflow cannot be used ({public(uri)}: {one_line(error)})",
                    "start its server, or give another tracking_uri",
                ) from error
            run = _open_local(experiment, run_name, folder, tags, resume_run_id)
            if isinstance(error, ImportError):  # it is optional in an exported bundle
                _log.info("mlflow is not installed: this run is written to %s", run.url_hint)
            else:
                said = (public(uri), one_line(error), run.url_hint)
                _log.warning("MLflow cannot be used (%s: %s): this run is written to %s", *said)
        register(run)
    return run


def _open_mlflow(
    experiment: str,
    run_name: str,
    uri: str,
    folder: Path,
    tags: Mapping[str, object],
    resume_run_id: str | None,
    close_stale: bool,
) -> MlflowRun:
    check_reachable(uri)
    # MLflow asks at each call whether it may report usage; setting this late is early enough.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    hush()  # the import has just set the levels of its loggers
    database = sqlite_path(uri)
    if database is not None:
        _prepare_sqlite(database)
    try:
        client = MlflowClient(tracking_uri=uri)
    except UnsupportedModelRegistryStoreURIException as error:
        raise UsageError(
            f"tracking_uri {public(uri)!r} is of a kind that MLflow does not know",
            "use sqlite:///FILE, http://HOST:PORT, or a database (postgresql://…, mysql://…)",
        ) from error
    experiment_id = _experiment_id(client, experiment, artifact_location(uri, folder))
    if close_stale:
        _end_stale_runs(client, experiment_id)
    mine = {**clean_tags(tags), **owner_tag()}
    store = _resume(client, resume_run_id, mine) if resume_run_id else None
    if store is None:
        created = client.create_run(experiment_id, run_name=run_name, tags={**_origin_tags(), **mine})
        store = MlflowStore(client, created.info.run_id, {})
    # Without the query MLflow 3 shows the run in its workspace for language models.
    page = f"#/experiments/{experiment_id}/runs/{store.run_id}?workflowType=machine_learning"
    if uri.startswith("http"):
        hint = f"{public(uri).rstrip('/')}/{page}"
    else:
        command = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
        hint = f"{command} ui --backend-store-uri {shlex.quote(public(uri))}\n  then http://127.0.0.1:5000/{page}"
    return MlflowRun(store, uri, hint, folder / "local_runs" / store.run_id)


def _open_local(
    experiment: str, run_name: str, folder: Path, tags: Mapping[str, object], resume_run_id: str | None
) -> LocalRun:
    runs = folder / "local_runs"
    origin = {"experiment": experiment, "run_name": run_name}
    if resume_run_id and (runs / resume_run_id / "events.jsonl").exists():
        run = LocalRun(runs / resume_run_id)
    else:
        run = LocalRun(runs / f"local-{_now_and_random()}")
        if resume_run_id:
            origin["resumed_from"] = resume_run_id
    run.set_tags({**origin, **tags})
    return run


def _now_and_random() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def _prepare_sqlite(path: Path) -> None:
    """Make the database when it is new, and see that it can be written: MLflow would try for minutes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        create_database(path)
    with contextlib.closing(sqlite3.connect(path, timeout=PROBE_SECONDS, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):  # locked by another training: alive, and MLflow waits longer
                raise


def create_database(path: Path) -> None:
    """Make an empty MLflow database, whole or not at all.

    MLflow migrates a new SQLite file in place, for about ten seconds; a file whose making was interrupted can neither
    be used nor mended (seen with MLflow 3.17). So it is made elsewhere, which also lets two trainings start at the
    same moment.
    """
    from mlflow import MlflowClient

    _log.info("making the MLflow database %s: once, about ten seconds", path)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent, ignore_cleanup_errors=True) as folder:
        temporary = Path(folder, path.name)
        MlflowClient(tracking_uri=f"sqlite:///{temporary.as_posix()}").search_experiments(max_results=1)
        try:
            os.link(temporary, path)  # unlike os.replace, it leaves the database of a faster process alone
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(temporary, path)


def _experiment_id(client: MlflowClient, name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            # Without this tag MLflow 3 shows the experiment in its workspace for language models.
            return client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"})
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise error
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        _log.warning("the MLflow experiment %r had been deleted: it is restored, with its runs", name)
    return experiment.experiment_id


def _resume(client: MlflowClient, run_id: str, tags: dict[str, str]) -> MlflowStore | None:
    """The existing run, RUNNING again; None, with a warning, when it is gone or in use."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        run = None
    if run is None or run.info.lifecycle_stage == "deleted":
        _log.warning("the MLflow run %s no longer exists: a new one is opened", run_id)
        return None
    owner = owner_of(run.data.tags)
    lives = run.info.status == "RUNNING" and writer_lives(owner, run.info.start_time / 1000)
    if lives and owner["pid"] != os.getpid():
        _log.warning("the MLflow run %s is being written by process %s: a new one is opened", run_id, owner["pid"])
        return None
    store = MlflowStore(client, run_id, run.data.params)
    client.update_run(run_id, status="RUNNING")
    store.tags(tags)
    return store


def _end_stale_runs(client: MlflowClient, experiment_id: str) -> None:
    """End, as KILLED, the runs that a dead process of this machine left RUNNING."""
    try:
        for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=200):
            owner = owner_of(run.data.tags)
            if writer_lives(owner, run.info.start_time / 1000) is False:
                client.set_terminated(run.info.run_id, "KILLED")
                _log.warning(
                    "the MLflow run %s was left RUNNING by process %s, which is dead: marked KILLED",
                    run.info.run_id,
                    owner["pid"],
                )
    except Exception as error:  # tidying up must not keep a training from its record
        _log.debug("stale runs were not looked for: %s", error)


def _origin_tags() -> dict[str, str]:
    """What MLflow's own fluent API would tell about the origin of a run, without the path of the program."""
    module = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m monai.bundle`, whose file says less
    name = module.name.removesuffix(".__main__") if module else Path(sys.argv[0]).name or "python"
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": name}
    with contextlib.suppress(Exception):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags
