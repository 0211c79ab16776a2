"""The model registry: what a version holds, when a new one is made, and that it runs from its files alone."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meddenoise_monai import __version__
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.inference import load_denoiser, weights_fingerprint
from meddenoise_monai.tracking import process, registry
from meddenoise_monai.tracking.registry import register_weights
from tests.small_networks import trained


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(trained().state_dict(), tmp_path / "mine.pt")
    torch.save(trained(1).state_dict(), tmp_path / "mine_correlated.pt")
    return tmp_path / "mine.pt"


@pytest.fixture
def client(mlflow_folder: Path) -> Any:
    from mlflow import MlflowClient

    with process.mlflow_call():
        return MlflowClient(tracking_uri=f"sqlite:///{mlflow_folder}/mlflow.db")


@pytest.mark.e2e
def test_a_version_says_what_it_is_and_holds_no_pickle(weights: Path, mlflow_folder: Path, client: Any) -> None:
    done = register_weights(weights, folder=mlflow_folder)
    assert (done.version, done.created, done.model_uri) == ("1", True, "models:/meddenoise@champion")
    version = client.get_model_version_by_alias("meddenoise", "champion")
    assert int(version.version) == 1
    assert version.status == "READY"
    assert version.tags["weights"] == done.weights == load_denoiser(weights).fingerprint
    assert version.tags["network"] == weights_fingerprint(trained())
    assert version.tags["package_version"] == __version__
    for text in (version.tags["intended_use"], version.description, client.get_registered_model(done.name).description):
        assert "not for diagnosis" in text
    run = client.get_run(version.run_id)
    assert run.info.run_name == f"meddenoise {__version__}, weights {done.weights[:8]}"
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == registry.EXPERIMENT

    model = Path(version.source.removeprefix("file://"))
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert {file for file in files if file.startswith("data/")} == {
        "data/weights/model.pt", "data/weights/model_correlated.pt"
    }  # fmt: skip
    assert (model / "data/weights/model.pt").read_bytes() == weights.read_bytes()
    assert "code/meddenoise_monai/serving.py" in files
    assert not {file for file in files if file.endswith((".pkl", ".pyc", ".pt")) and not file.startswith("data/")}
    pins = dict(line.split("==") for line in (model / "requirements.txt").read_text().split())
    assert {"mlflow", "torch", "monai", "pydicom", "numpy"} <= pins.keys()
    assert not {"pytest", "ruff", "bm3d"} & pins.keys()
    assert pins["numpy"] == importlib.metadata.version("numpy")
    assert "+" not in pins["torch"]


@pytest.mark.e2e
def test_the_same_weights_are_registered_once(
    weights: Path, mlflow_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = register_weights(weights, folder=mlflow_folder)
    again = register_weights(weights, folder=mlflow_folder)
    assert (again.version, again.created, again.weights) == ("1", False, first.weights)
    assert len(client.search_model_versions("name = 'meddenoise'")) == 1
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    assert len(client.search_runs([experiment.experiment_id])) == 1

    weights.with_name("mine_correlated.pt").unlink()  # another model: it treats correlated noise in another way
    alone = register_weights(weights, folder=mlflow_folder)
    assert (alone.version, alone.created) == ("2", True)
    assert alone.weights != first.weights
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_code_digest", lambda: "another program")
        assert register_weights(weights, folder=mlflow_folder).version == "3"
    assert int(client.get_model_version_by_alias("meddenoise", "champion").version) == 3
    assert register_weights(weights, folder=mlflow_folder).version == "2"  # the alias goes where it was told
    assert int(client.get_model_version_by_alias("meddenoise", "champion").version) == 2


@pytest.mark.e2e
def test_it_runs_from_its_own_files(weights: Path, mlflow_folder: Path, tmp_path: Path) -> None:
    """In another process, isolated from this repository, the registered code denoises as this one does."""
    done = register_weights(weights, "other-name", folder=mlflow_folder)
    image = np.random.default_rng(0).integers(3, 250, (40, 50)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    script = f"""
import json, sys
import mlflow, numpy as np
mlflow.set_tracking_uri({done.tracking_uri!r})
model = mlflow.pyfunc.load_model({done.model_uri!r})
image = np.load({str(tmp_path / "image.npy")!r})
np.save({str(tmp_path / "array.npy")!r}, model.predict({{"image": image}}, params={{"strength": 0.5}})["image"][0])
schema = model.metadata.signature
print(json.dumps([sys.modules["meddenoise_monai"].__file__, schema.inputs.input_names(), schema.outputs.input_names(),
                  {{spec.name: spec.default for spec in schema.params}}]))
"""
    done_process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done_process.returncode == 0, done_process.stderr
    place, inputs, outputs, params = json.loads(done_process.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(mlflow_folder)
    assert inputs == outputs == ["image", "dicom"]
    assert params == {"sigma": None, "strength": 1.0, "noise": "auto", "dtype": ""}
    expected = load_denoiser(weights)(image, strength=0.5)
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), expected)


def test_what_cannot_be_registered_is_refused(weights: Path, mlflow_folder: Path, client: Any, tmp_path: Path) -> None:
    for options in ({"name": "a b"}, {"name": "x'"}, {"name": ""}, {"alias": "latest"}, {"alias": "a/b"}):
        with pytest.raises(UsageError, match="cannot stand in models:/NAME@ALIAS"):
            register_weights(weights, folder=mlflow_folder, **options)
    with pytest.raises(InputError, match="no such weights"):
        register_weights(tmp_path / "none.pt", folder=mlflow_folder)
    (tmp_path / "bad.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="not a plain state dict"):
        register_weights(tmp_path / "bad.pt", folder=mlflow_folder)
    assert client.search_registered_models() == []
    assert client.get_experiment_by_name(registry.EXPERIMENT) is None


def test_a_registry_that_cannot_be_reached_is_an_error(weights: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=r"MLflow cannot be used \(http://127\.0\.0\.1:9: .*refused"):
        register_weights(weights, tracking_uri="http://127.0.0.1:9", folder=tmp_path / "eval")
    assert not (tmp_path / "eval").exists()  # no record of a run that never was


def test_a_failed_registration_leaves_no_version(
    weights: Path, mlflow_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise UsageError("the package is not installed", "install it")

    monkeypatch.setattr(registry, "_requirements", fail)
    with pytest.raises(UsageError, match="not installed"):
        register_weights(weights, folder=mlflow_folder)
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.status == "FAILED"
    assert client.search_registered_models() == []


def test_a_registry_that_refuses_is_an_error(
    weights: Path, mlflow_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("the server at http://me:secret@host may not\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", refuse)
        with pytest.raises(InputError, match="does not take the weights: the server at http://host may not") as caught:
            register_weights(weights, folder=mlflow_folder)
    assert "secret" not in str(caught.value)
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    assert register_weights(weights, folder=mlflow_folder).version == "1"  # it can be tried again
