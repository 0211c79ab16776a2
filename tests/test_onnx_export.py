"""The ONNX file answers as PyTorch does, on sizes and batches that it was not exported with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meddenoise_monai import ResidualDenoisingAutoencoder
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.inference import load_network, released_weights
from meddenoise_monai.onnx_export import LEAST_SIZE, export_onnx
from tests.samples import textured, write_model

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(released_weights(), target)
    return target


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "shape", [(LEAST_SIZE, LEAST_SIZE), (17, 130), (64, 64), (101, 48), (75, 91), (200, 321)], ids=str
)
@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_agrees_with_pytorch(released: Path, shape: tuple[int, int], batch: int) -> None:
    clean = np.stack([textured(seed, max(shape))[: shape[0], : shape[1]] for seed in range(batch)])[:, None] / 255
    image = (clean + np.random.default_rng(0).normal(0, 25 / 255, clean.shape)).astype(np.float32)
    with torch.inference_mode():
        expected = load_network(released_weights()).eval()(torch.from_numpy(image)).numpy()
    (pred,) = session(released).run(["pred"], {"image": image})
    assert pred.dtype == np.float32
    np.testing.assert_allclose(pred, expected, rtol=0, atol=1e-4)
    assert np.abs(pred - image).max() > 0.01  # the network does something


def test_the_file_is_one_and_names_its_axes(released: Path) -> None:
    assert [path.name for path in released.parent.iterdir()] == ["model.onnx"]  # no weights beside it
    running = session(released)
    (image,), (pred,) = running.get_inputs(), running.get_outputs()
    assert (image.name, pred.name) == ("image", "pred")
    assert image.shape == pred.shape == ["batch", 1, "height", "width"]


def test_paths_of_this_machine_stay_out(released: Path) -> None:
    content = released.read_bytes()
    for secret in (str(Path.home()), str(Path(__file__).resolve().parents[1])):
        assert secret.encode() not in content


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    volumes = ResidualDenoisingAutoencoder(spatial_dims=3, widths=(4, 8), blocks=1)
    torch.save(volumes.state_dict(), tmp_path / "volumes.pt")
    with pytest.raises(UsageError, match="holds a 3D network"):
        export_onnx(tmp_path / "volumes.pt", tmp_path / "model.onnx")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="weights of another network"):
        export_onnx(tmp_path / "other.pt", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_without_the_packages_that_write_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxscript"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # what is None cannot be imported
    with pytest.raises(UsageError, match="cannot write ONNX") as caught:
        export_onnx(write_model(tmp_path / "tiny.pt"), tmp_path / "model.onnx")
    assert "[onnx]" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]
