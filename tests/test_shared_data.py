"""Checks on the real data sets, which may not be part of the repository; skipped where they are absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("MEDDENOISE_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (DATA / "mini_mias").is_dir(), reason=f"no real data in {DATA} (MEDDENOISE_DATA)"),
]


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from meddenoise_monai.prepare import prepare

    summary = prepare("mini_mias", DATA / "mini_mias", tmp_path_factory.mktemp("prepared") / "mias", progress=False)
    return Path(summary.datalist)


def test_mini_mias_is_split_by_woman(datalist: Path) -> None:
    content = json.loads(datalist.read_text())
    films = {
        int(Path(item["image"]).stem.removeprefix("mdb")): part
        for part in ("training", "validation", "test")
        for item in content[part]
    }
    assert len(films) == len(list((DATA / "mini_mias").glob("mdb*.png")))
    assert set(films.values()) == {"training", "validation", "test"}
    pairs = [number for number in films if number % 2 and number + 1 in films]
    assert len(pairs) > 100
    assert all(films[number] == films[number + 1] for number in pairs)


def test_paper_protocol_learns_on_mini_mias_in_a_minute(datalist: Path, mlflow_folder: Path, tmp_path: Path) -> None:
    from monai.bundle import ConfigWorkflow

    configs = ROOT / "bundle" / "configs"
    overrides: dict[str, Any] = {
        "bundle_root": str(ROOT / "bundle"),
        "datalist": str(datalist),
        "ckpt_dir": str(tmp_path / "models"),
        "output_dir": str(mlflow_folder),
        "network_def": {"_target_": "meddenoise_monai.networks.ResidualDenoisingAutoencoder"},
        "baselines": ["gaussian", "median"],
        "max_epochs": 1,
        "steps_per_epoch": 120,
        "warmup_steps": 20,
    }
    flow = ConfigWorkflow(
        [str(configs / "train.json"), str(configs / "paper.json")],
        workflow_type="train",
        logging_file=False,
        **overrides,
    )
    flow.initialize()
    flow.run()
    means = json.loads((mlflow_folder / "results.json").read_text())["methods"]
    best = max(means["gaussian"]["ssim"]["mean"], means["median"]["ssim"]["mean"])
    assert means["dae"]["ssim"]["mean"] > best > means["noisy"]["ssim"]["mean"]
