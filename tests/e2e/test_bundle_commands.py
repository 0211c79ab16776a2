"""The bundle's commands, typed as a user types them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.samples import listen_to_interrupts, write_patients

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "{'_target_':'meddenoise_monai.networks.ResidualDenoisingAutoencoder','widths':[4,8],'blocks':1}"

pytestmark = pytest.mark.e2e


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "data", count=8)


def words(job: list[str], **options: object) -> list[str]:
    """``python -m monai.bundle run …`` with ``--name value`` for each option."""
    typed = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "monai.bundle", "run", *job, *typed]


def tiny(folder: Path, data: Path, models: str = "models", **more: object) -> dict[str, object]:
    return {
        "dataset_dir": data, "ckpt_dir": folder / models, "output_dir": folder, "network_def": NETWORK,
        "baselines": "['gaussian']", "max_epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "patches_per_image": 2,
        "patch_size": 32, "validation_window": 48, **more,
    }  # fmt: skip


def start(command: list[str], where: Path = ROOT) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=where, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=listen_to_interrupts,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def statuses(folder: Path, experiment: str = "meddenoise training") -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return [run.info.status for run in client.search_runs([found.experiment_id])]


@pytest.mark.parametrize(
    ("where", "job"),
    [
        (ROOT, ["training", "--config_file", "bundle/configs/train.json"]),
        (ROOT / "bundle", ["--config_file", "configs/train.json"]),
    ],
)
def test_training_runs_from_the_root_and_from_the_bundle(
    where: Path, job: list[str], data: Path, mlflow_folder: Path
) -> None:

    def content() -> set[Path]:
        return {path for path in where.iterdir() if path.name not in ("models", "eval") and "cov" not in path.name}

    before = content()
    code, out, err = finish(start(words(job, **tiny(mlflow_folder, data)), where))
    assert code == 0, err
    assert "| dae " in out
    assert "mlflow ui --backend-store-uri sqlite:///" in out
    assert (mlflow_folder / "models" / "model_best.pt").is_file()
    assert content() == before
    assert statuses(mlflow_folder) == ["FINISHED"]


@pytest.mark.parametrize(
    ("options", "code", "error", "hint"),
    [
        ({"max_epoch": 3}, 2, "unknown override --max_epoch", "did you mean 'max_epochs'?"),
        ({"max_epochs": 0}, 2, "max_epochs must be positive, got 0", "give --max_epochs a number above 0"),
        ({"sigma": "abc"}, 2, "sigma must be positive, got 'abc'", "give --sigma a number above 0"),
        (
            {"network_def": "{'_target_':'monai.networks.nets.BasicUNett'}"},
            2,
            "there is no 'monai.networks.nets.BasicUNett'",
            "did you mean 'BasicUNet'?",
        ),
        ({"ckpt_dir": "LICENSE"}, 1, "cannot make the folder LICENSE: File exists", "choose another folder"),
        ({"dataset_dir": "nowhere"}, 1, "no such folder: nowhere", "give a folder of images"),
    ],
)
def test_errors_end_in_two_lines(
    options: dict[str, object], code: int, error: str, hint: str, data: Path, tmp_path: Path
) -> None:
    job = ["training", "--config_file", "bundle/configs/train.json"]
    got, _, err = finish(start(words(job, **{**tiny(tmp_path, data), **options})))
    assert err.splitlines()[-2:] == [f"error: {error}", f"hint: {hint}"]
    assert "Traceback" not in err
    assert got == code


def wait_for_epoch(checkpoint: Path, epoch: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if checkpoint.is_file() and torch.load(checkpoint, weights_only=True)["epoch"] >= epoch:
            return
        time.sleep(0.02)
    pytest.fail("the training did not get so far: " + "".join(finish(process)[1:]))


def test_killed_and_resumed_equals_uninterrupted(data: Path, mlflow_folder: Path) -> None:
    job = ["training", "--config_file", "bundle/configs/train.json"]
    options = {"max_epochs": 6, "steps_per_epoch": 25}
    code, _, err = finish(start(words(job, **tiny(mlflow_folder, data, "whole", **options))))
    assert code == 0, err

    broken = start(words(job, **tiny(mlflow_folder, data, "broken", **options)))
    checkpoint = mlflow_folder / "broken" / "checkpoint_last.pt"
    wait_for_epoch(checkpoint, 2, broken)
    broken.send_signal(signal.SIGKILL)
    finish(broken)
    stopped_after = torch.load(checkpoint, weights_only=True)["epoch"]
    assert 2 <= stopped_after < 6
    code, _, err = finish(start(words(job, **tiny(mlflow_folder, data, "broken", resume="true", **options))))
    assert code == 0, err
    assert f"resumed after epoch {stopped_after}" in err

    whole, resumed = (
        torch.load(mlflow_folder / name / "checkpoint_last.pt", weights_only=True) for name in ("whole", "broken")
    )
    assert whole["epoch"] == resumed["epoch"] == 6
    assert whole["best_metric"] == resumed["best_metric"]
    for part in ("network", "average"):
        for name, tensor in whole["parts"][part].items():
            assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(resumed["parts"][part][name])), (part, name)
    assert statuses(mlflow_folder) == ["FINISHED", "FINISHED"]  # the resumed training went on in its own run


def test_interrupted_training_ends_killed(data: Path, mlflow_folder: Path) -> None:
    job = ["training", "--config_file", "bundle/configs/train.json"]
    process = start(words(job, **tiny(mlflow_folder, data, max_epochs=500, steps_per_epoch=25)))
    wait_for_epoch(mlflow_folder / "models" / "checkpoint_last.pt", 1, process)
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process)
    assert code != 0
    assert statuses(mlflow_folder) == ["KILLED"]


def test_inference_writes_each_format_back(data: Path, tmp_path: Path) -> None:
    import nibabel
    import numpy as np
    from pydicom.data import get_testdata_file

    from meddenoise_monai import ResidualDenoisingAutoencoder

    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    source = get_testdata_file("CT_small.dcm")
    assert isinstance(source, str)
    (folder / "deep" / "ct.dcm").write_bytes(Path(source).read_bytes())
    volume = np.random.default_rng(0).normal(100, 20, (30, 40, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.0, 2.0, 3.0, 1.0])), folder / "volume.nii.gz")
    (folder / "broken.png").write_bytes(b"no picture")
    weights = tmp_path / "tiny.pt"
    torch.save(ResidualDenoisingAutoencoder(widths=(4, 8), blocks=1).state_dict(), weights)  # untrained: the identity

    out = tmp_path / "out"
    job = ["--config_file", "bundle/configs/inference.json"]
    code, shown, err = finish(
        start(words(job, dataset_dir=folder, output_dir=out, network_def=NETWORK, weights=weights))
    )
    assert code == 3, err
    assert "2 images (1 files skipped)" in shown
    assert "broken.png" in err
    assert "error: 1 file(s) failed; the rest are written\nhint: " in err
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["deep/ct.dcm", "volume.nii.gz"]
    result = nibabel.load(out / "volume.nii.gz")
    np.testing.assert_allclose(result.get_fdata(), volume, atol=1e-4)
    np.testing.assert_array_equal(result.affine, np.diag([2.0, 2.0, 3.0, 1.0]))
