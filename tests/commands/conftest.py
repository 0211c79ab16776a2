"""A tree of images and a small model, and how a test types a command."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from meddenoise_monai.cli import main
from meddenoise_monai.images import read_image
from tests.samples import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that changes its input."""
    return write_model(tmp_path_factory.mktemp("weights") / "model.pt")


def picture(path: Path, seed: int = 0) -> Path:
    """A ramp with noise that no warning is due for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 20, (32, 48))
    Image.fromarray(np.clip(np.linspace(60, 190, 48) + noise, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tree of images; the test runs beside it."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one.png", "a/two.pgm", "a/001/three.bmp")):
        picture(tmp_path / "in" / name, seed)
    return tmp_path / "in"


def digests(folder: Path) -> dict[str, str]:
    """Of all files, but for the record of the job."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def failure(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> tuple[str, str]:
    """The error and the hint, which must be all there is to see but for warnings."""
    got, _, err = run(capsys, *words)
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert got == code, err
    assert len(lines) == 2, err
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    return lines[0].removeprefix("error: "), lines[1].removeprefix("hint: ")


def pixels(path: Path) -> NDArray[Any]:
    return read_image(path).array
