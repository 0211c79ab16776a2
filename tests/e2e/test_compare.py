"""`meddenoise compare` as a user types it: killed in the middle and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from meddenoise_monai.synthetic import power_law
from tests.small_networks import trained

pytestmark = pytest.mark.e2e

COMMAND = (sys.executable, "-m", "meddenoise_monai.cli", "compare")


@pytest.fixture
def place(tmp_path: Path, mlflow_template: Path) -> Path:
    for number in range(6):
        values = np.rint(power_law(160, 2.5, np.random.default_rng(number)) * 255)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    torch.save(trained(stride=2).state_dict(), tmp_path / "model.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return tmp_path


def typed(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], cwd=place, capture_output=True, text=True, timeout=240, check=False)


def test_a_killed_comparison_goes_on(place: Path) -> None:
    words = ["images", "--output", "out", "--methods", "median,wavelet,dae", "--model", "model.pt", "--levels", "20,10",
             "--window", "128", "--workers", "2"]  # fmt: skip
    with subprocess.Popen([*COMMAND, *words], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 180
        while len(list((place / "out" / "cache").glob("[!.]*.json"))) < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive  # they end with their parent
    kept = {path: path.stat().st_mtime_ns for path in (place / "out" / "cache").glob("[!.]*.json")}
    assert len(kept) >= 8
    assert not (place / "out" / "results.json").exists()
    again = typed(place, *words)
    assert again.returncode == 3, again.stderr  # the broken image is left out, and said so
    assert "broken.png" in again.stderr
    assert again.stderr.splitlines()[-2].startswith("error: 1 file(s) failed")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "## How like the clean image" in again.stdout
    assert "images, Gaussian noise 10/255" in again.stdout
    assert "report.html" in again.stdout
    results = json.loads((place / "out" / "results.json").read_text())
    assert list(results["methods"]) == ["noisy", "median", "wavelet", "dae"]
