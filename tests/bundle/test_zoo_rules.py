"""An export keeps the published rules of MONAI's model zoo: its CONTRIBUTING, and what its CI verifies."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, create_workflow
from monai.bundle.scripts import ckpt_export, verify_metadata, verify_net_in_out

from meddenoise_monai.exporting import export_bundle
from meddenoise_monai.inference import load_network
from tests.bundle.conftest import ROOT

LARGEST = 25_000_000  # bytes, "no larger than 25MB"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(tmp_path_factory.mktemp("zoo") / "models").folder


@pytest.fixture(scope="module")
def metadata(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return content


def test_name_tells_task_and_kind_of_data(bundle: Path, metadata: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+){2,}", bundle.name)
    assert len(metadata["name"]) > 10  # the model browser shows it


def test_necessary_and_preferred_files(bundle: Path) -> None:
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md",
                 "docs/data_license.txt"):  # fmt: skip
        assert (bundle / name).stat().st_size > 100, name
    licence = (bundle / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Version 2.0" in licence


def test_no_file_is_too_large(bundle: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in bundle.rglob("*") if path.is_file()}
    assert len(sizes) > 80
    assert max(sizes.values()) <= LARGEST
    assert not list(bundle.glob("large_files.*"))  # which would be for larger ones


def test_version_and_changelog(metadata: dict[str, Any]) -> None:
    assert metadata["version"] in metadata["changelog"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in metadata["changelog"])
    assert all(len(line) > 10 for line in metadata["changelog"].values())


def test_metadata_keeps_the_schema(bundle: Path, metadata: dict[str, Any]) -> None:
    schema = Path(__file__).with_name("meta_schema_20240725.json")
    assert metadata["schema"].endswith(schema.name)
    verify_metadata(
        meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema),
        hash_val=hashlib.sha256(schema.read_bytes()).hexdigest(), hash_type="sha256",
    )  # fmt: skip


def test_packages_are_pinned_as_pip_takes_them(metadata: dict[str, Any]) -> None:
    assert "optional_packages_version" not in metadata  # MONAI 1.6 would replace the required ones by it
    pins = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"],
            "numpy": metadata["numpy_version"], **metadata["required_packages_version"]}  # fmt: skip
    assert {"fire", "jsonschema", "pytorch-ignite"} <= pins.keys()  # the commands of monai.bundle need them
    assert not {"mlflow", "itk"} & pins.keys()  # no training needs them
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for name, version in pins.items():
        assert re.fullmatch(r"\d+(\.\d+)+", version), name  # no +cpu
        assert tested[name] == version, name


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ("inference", ["bundle_root", "device", "network_def", "inferer", "output_dir"]),
        (
            "train",
            [
                "bundle_root", "device", "dataset_dir", "output_dir", "train::trainer", "train::trainer::max_epochs",
                "train::dataset", "train::dataset::data", "train::handlers", "train::preprocessing", "train::inferer",
                "validate::evaluator", "validate::handlers", "validate::dataset", "validate::dataset::data",
                "validate::inferer", "validate::key_metric", "val_interval",
            ],
        ),
    ],
)  # fmt: skip
def test_keys_have_their_names(bundle: Path, config: str, keys: list[str]) -> None:
    parser = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs" / f"{config}.json")))
    assert [key for key in keys if key not in parser] == []


def test_validation_interval_is_the_declared_one(bundle: Path) -> None:
    content = json.loads((bundle / "configs" / "train.json").read_text())
    (handler,) = (one for one in content["train"]["handlers"] if one["_target_"] == "ValidationHandler")
    assert handler["interval"] == "@val_interval"


def test_configurations_name_nobodys_folders(bundle: Path) -> None:
    files = [*(bundle / "configs").iterdir(), bundle / "docs" / "README.md"]
    assert len(files) > 8
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"/home/|/root/|/Users/|[A-Z]:\\", text), file.name
        assert file.suffix != ".json" or text == json.dumps(json.loads(text), indent=4) + "\n", file.name


def test_network_takes_and_gives_what_the_metadata_says(bundle: Path) -> None:
    verify_net_in_out(
        net_id="network_def", meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"), bundle_root=str(bundle),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # MONAI's own export uses it
def test_released_weights_export_to_torchscript(bundle: Path, tmp_path: Path) -> None:
    ckpt_export(
        net_id="network_def", filepath=str(tmp_path / "model.ts"), ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"), config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
    )  # fmt: skip
    torch.manual_seed(0)
    eager, image = load_network(bundle / "models" / "model.pt").eval(), torch.rand(1, 1, 75, 91)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(str(tmp_path / "model.ts"))(image), eager(image))


@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's warning that configurations are programs
def test_apps_make_the_workflow_without_data(bundle: Path) -> None:
    flow = create_workflow(
        config_file=str(bundle / "configs" / "inference.json"), workflow_type="infer", logging_file=False
    )
    assert flow.bundle_root == str(bundle)  # by itself, wherever this test was started
    assert sum(weight.numel() for weight in flow.network_def.parameters()) > 1e6


def test_bundle_root_comes_from_the_configuration_unless_given(bundle: Path, tmp_path: Path) -> None:
    config = str(bundle / "configs" / "inference.json")
    for given, expected in (({}, str(bundle)), ({"bundle_root": str(tmp_path)}, str(tmp_path))):
        with pytest.warns(UserWarning, match="parsing config_file"):
            flow = create_workflow(config_file=config, workflow_type="infer", logging_file=False, **given)
        assert flow.parser.get_parsed_content("ckpt_dir") == f"{expected}/models"


def test_readme_declares_the_other_formats_and_has_no_front_matter(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# ")  # push_to_hf_hub puts the front matter there
    for word in ("ckpt_export", "trt_export", "TensorRT", "ONNX", "not for diagnosis"):
        assert word in text, word
    for name in re.findall(r"configs/[\w.]+|models/model\.pt", text):
        assert (bundle / name).is_file(), name
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (bundle / "docs" / target).is_file(), target


@pytest.mark.parametrize(
    "check",
    [
        # The zoo's flake8, with its bugbear, comprehensions and naming; and its isort and black.
        ["check", "--select", "B,C4,E,F,I,N,W", "--ignore", "E501,E741,C408,N812,B023,B904,B905"],
        ["format", "--check", "--config", "format.skip-magic-trailing-comma=true",
         "--config", "lint.isort.split-on-trailing-comma=false"],
    ],
    ids=["lint", "format"],
)  # fmt: skip
def test_code_keeps_the_zoos_format(bundle: Path, check: list[str]) -> None:
    command = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "120", "--target-version", "py311"]
    zoo_test = ROOT / "tests" / "zoo" / f"test_{bundle.name}.py"
    result = subprocess.run([*command, str(bundle), str(zoo_test)], text=True, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
