"""The released model as a service: registered by the script, served by MLflow, asked over HTTP."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.debian import need
from tests.servers import free_port, running, surroundings, wait_for

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]


def ask(address: str, body: object) -> tuple[int, Any]:
    """Status and content of the answer to a JSON request."""
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server of the registered model, and its log."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    words = [sys.executable, ROOT / "scripts" / "register_model.py", "--tracking_uri", uri]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, env=surroundings(), check=False)
    assert done.returncode == 0, done.stderr
    assert "is version 1 of meddenoise, champion" in done.stdout
    # What the script says is typed, at another port.
    said = re.search(r"MLFLOW_TRACKING_URI=(\S+) \\\n +mlflow (models serve .+) --port \d+", done.stdout)
    assert said, done.stdout
    port, log = free_port(), folder / "server.log"
    words = [sys.executable, "-m", "mlflow", *said[2].split(), "--port", port]
    address = f"http://127.0.0.1:{port}"
    with running(words, log, surroundings(MLFLOW_TRACKING_URI=said[1], CUDA_VISIBLE_DEVICES="")):
        wait_for(f"{address}/ping", log)
        yield address, log


def test_an_array_is_answered_bit_for_bit(server: tuple[str, Path]) -> None:
    from meddenoise_monai import load_denoiser

    image = np.random.default_rng(0).normal(120, 15, (70, 90)).clip(0, 255).astype(np.uint8)
    image[20:50, 30:60] //= 2
    denoise = load_denoiser(device="cpu")
    status, answer = ask(server[0], {"inputs": {"image": image.tolist()}, "params": {"dtype": "uint8"}})
    assert status == 200
    values = np.array(answer["predictions"][0]["image"])
    expected = denoise(image)
    np.testing.assert_array_equal(values, expected)
    assert np.abs(expected - image).mean() > 1  # the noise of 15 grey levels is gone
    volume = np.stack([image, image[::-1]]).astype(np.float32)
    body = {"dataframe_records": [{"image": volume.tolist()}, {"image": (2 * volume).tolist()}],
            "params": {"sigma": 4, "strength": 0.5, "noise": "gaussian", "dtype": "float32"}}  # fmt: skip
    status, answer = ask(server[0], body)
    assert status == 200
    for row, factor in zip(answer["predictions"], (1, 2), strict=True):
        np.testing.assert_array_equal(
            np.array(row["image"]), denoise(factor * volume, sigma=4.0, strength=0.5, noise="gaussian")
        )


def test_a_dicom_file_is_answered_as_the_command_writes_it(server: tuple[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "in.dcm"
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.PatientName = "Doe^Jane"
    dataset.save_as(source)
    words = [sys.executable, "-m", "meddenoise_monai.cli", "denoise", source, tmp_path / "out.dcm", "--device", "cpu",
             "--strength", "0.8"]  # fmt: skip
    threads = {name: value for name, value in os.environ.items() if name == "OMP_NUM_THREADS"}
    subprocess.run([str(word) for word in words], check=True, timeout=120, env=surroundings(**threads))
    content = base64.b64encode(source.read_bytes()).decode()
    for form in ({"inputs": {"dicom": content}}, {"dataframe_split": {"columns": ["dicom"], "data": [[content]]}}):
        status, answer = ask(server[0], {**form, "params": {"strength": 0.8}})
        assert status == 200
        assert base64.b64decode(answer["predictions"][0]["dicom"]) == (tmp_path / "out.dcm").read_bytes()
    status, answer = ask(server[0], {"inputs": {"dicom": base64.b64encode(source.read_bytes()[:3000]).decode()}})
    assert status == 400
    assert answer["message"] == "the DICOM object holds no image\nhint: leave it out: grey images can be denoised"
    status, answer = ask(server[0], {"inputs": [[1, 2], [3, 4]]})
    assert status == 400
    assert answer["message"].startswith("the request holds neither image nor dicom")
    assert "Doe" not in server[1].read_text()


def test_the_commands_of_the_docs_work(server: tuple[str, Path], tmp_path: Path) -> None:
    from meddenoise_monai import load_denoiser

    need("curl")
    text = (ROOT / "docs" / "mlflow.md").read_text(encoding="utf-8")
    array, dicom = (block for block in re.findall(r"```sh\n(.*?)```", text, re.S) if "/invocations" in block)
    shutil.copyfile(str(get_testdata_file("CT_small.dcm")), tmp_path / "slice.dcm")

    def typed(command: str) -> str:
        words = ["bash", "-o", "pipefail", "-c", command.replace("http://127.0.0.1:5001", server[0])]
        done = subprocess.run(
            words, cwd=tmp_path, env=surroundings(), capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout

    image = np.array(json.loads(re.findall(r"\[\[.*?\]\]", array)[0]), np.uint8)
    np.testing.assert_array_equal(
        json.loads(typed(array))["predictions"][0]["image"], load_denoiser(device="cpu")(image)
    )
    typed(dicom)
    assert "strength 0.8" in pydicom.dcmread(tmp_path / "denoised.dcm").DerivationDescription
