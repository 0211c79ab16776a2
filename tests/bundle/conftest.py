"""A tiny training: a folder of small images and the overrides that make the bundle run on it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.samples import write_patients

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundle" / "configs"
TINY_NETWORK = {
    "_target_": "meddenoise_monai.networks.ResidualDenoisingAutoencoder", "widths": [4, 8], "blocks": 1
}  # fmt: skip


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """A folder of 8 patients with one small image each."""
    return write_patients(tmp_path / "patients", count=8)


@pytest.fixture
def tiny(patients: Path, mlflow_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Overrides for `ConfigWorkflow`; everything is written below tmp_path, where an MLflow database waits."""
    return {
        "bundle_root": str(ROOT / "bundle"),
        "dataset_dir": str(patients),
        "ckpt_dir": str(tmp_path / "models"),
        "output_dir": str(mlflow_folder),
        "network_def": TINY_NETWORK,
        "baselines": ["gaussian", "median"],
        "max_epochs": 2,
        "steps_per_epoch": 3,
        "batch_size": 4,
        "patches_per_image": 2,
        "patch_size": 32,
        "validation_window": 48,
    }
