"""An exported bundle, by its README's own commands, where only the packages are installed that its metadata names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from meddenoise_monai.exporting import BUNDLE_NAME, export_bundle
from tests.isolation import isolated, link_packages

ROOT = Path(__file__).resolve().parents[2]
# What makes a training short; the images are the sample images all the same.
SHORT = {
    "max_epochs": "1", "steps_per_epoch": "3", "batch_size": "4", "patches_per_image": "2", "validation_window": "64",
    "baselines": "['gaussian']",
}  # fmt: skip

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nothing but the packages that the metadata names, and what they require."""
    metadata = json.loads((ROOT / "bundle" / "configs" / "metadata.json").read_text(encoding="utf-8"))
    names = ["monai", "torch", "numpy", *metadata["required_packages_version"]]
    return link_packages(names, tmp_path_factory.mktemp("environment") / "packages")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The exported bundle, alone in its folder."""
    summary = export_bundle(tmp_path / "alone")
    summary.archive.unlink()
    return summary.folder


def python(packages: Path, where: Path, *words: str) -> str:
    """Run a Python that sees `packages` alone, and answer what it printed."""
    start, environment = isolated(packages)
    result = subprocess.run([*start, *words], cwd=where, env=environment, text=True, capture_output=True, timeout=240)
    assert result.returncode == 0, result.stderr
    return result.stdout


def options(names: dict[str, str]) -> list[str]:
    return [word for name, value in names.items() for word in (f"--{name}", value)]


def dicom_folder(folder: Path) -> Path:
    from pydicom.data import get_testdata_file

    (folder / "study").mkdir(parents=True)
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copyfile(str(get_testdata_file(name)), folder / "study" / name)
    return folder


def readme_commands(bundle: Path) -> list[list[str]]:
    """The words of each command in the README's block that trains, evaluates, denoises and verifies."""
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```sh\n(.*?)```", text, re.S) if "verify_metadata" in block)
    return [shlex.split(line) for line in block.splitlines()]


def test_this_project_is_not_installed_there(packages: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('meddenoise_monai', 'mlflow', 'itk') if u.find_spec(n)])"
    assert python(packages, tmp_path, "-c", code) == "[]\n"


def test_the_commands_of_its_readme(bundle: Path, packages: Path, tmp_path: Path) -> None:
    import pydicom

    source, output = dicom_folder(tmp_path / "dicom"), tmp_path / "denoised"
    (bundle / "eval").mkdir()
    schema = ROOT / "tests" / "bundle" / "meta_schema_20240725.json"  # which the command would download
    shutil.copyfile(schema, bundle / "eval" / "schema.json")
    shown = {}
    for program, *words in readme_commands(bundle):
        assert program == "python"
        words = [{"IN": str(source), "OUT": str(output)}.get(word, word) for word in words]
        short = SHORT if "train.json" in " ".join(words) else {}
        shown[words[3] if words[2] == "run" else words[2]] = python(packages, bundle, *words, *options(short))
    jobs = {"training", "evaluating", "--config_file", "verify_metadata", "verify_net_in_out", "ckpt_export"}
    assert shown.keys() == jobs
    for job in ("training", "evaluating"):
        assert re.search(r"^\| dae +\|", shown[job], re.M)
    assert "3 held-out images" in shown["training"]
    assert "weights: models/model_best.pt" in shown["evaluating"]
    assert "metadata is verified with no error" in shown["verify_metadata"]
    assert "data shape of network is verified with no error" in shown["verify_net_in_out"]
    assert (bundle / "models" / "model.ts").stat().st_size > 4e6
    assert json.loads((bundle / "eval" / "results.json").read_text())["methods"]["dae"]["psnr"]["mean"] > 10
    for name in ("CT_small.dcm", "MR_small.dcm"):
        before, after = (pydicom.dcmread(folder / "study" / name) for folder in (source, output))
        assert after.ImageType[0] == "DERIVED"
        assert after.StudyInstanceUID == before.StudyInstanceUID
        assert after.pixel_array.shape == before.pixel_array.shape
    again = python(packages, bundle, "-m", "meddenoise_monai.cli", "denoise", str(source), str(tmp_path / "again"))
    assert again == f"2 image(s) denoised into {tmp_path / 'again'}\n"
    assert [path.name for path in bundle.parent.iterdir()] == [BUNDLE_NAME]


def test_any_working_directory_will_do(bundle: Path, packages: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    configs = str(bundle / "configs")
    job = ["-m", "monai.bundle", "run"]
    # The parent folder, by a relative path; then a folder that has nothing to do with the bundle.
    python(packages, bundle.parent, *job, "--config_file", f"{BUNDLE_NAME}/configs/train.json", *options(SHORT))
    assert (bundle / "models" / "model_best.pt").is_file()
    files = f"['{configs}/train.json','{configs}/evaluate.json']"
    out = python(packages, elsewhere, *job, "evaluating", "--config_file", files, *options(SHORT))
    assert f"weights: {bundle}/models/model_best.pt" in out
    source = dicom_folder(tmp_path / "dicom")
    out = python(packages, elsewhere, *job, "--config_file", f"{configs}/inference.json", "--dataset_dir", str(source))
    assert "2 images denoised" in out
    assert sorted(path.name for path in (bundle / "eval" / "denoised" / "study").iterdir()) == [
        "CT_small.dcm", "MR_small.dcm",
    ]  # fmt: skip
    assert list(elsewhere.iterdir()) == []
    assert [path.name for path in bundle.parent.iterdir()] == [BUNDLE_NAME]


LOADING = f"""
import sys, monai.bundle
network = monai.bundle.load({BUNDLE_NAME!r}, bundle_dir=sys.argv[1])
assert sys.modules["meddenoise_monai"].__file__.startswith(sys.argv[1] + "/"), sys.modules["meddenoise_monai"]
print(type(network).__name__, sum(weight.numel() for weight in network.parameters()))
network = monai.bundle.load({BUNDLE_NAME!r}, bundle_dir=sys.argv[1], workflow_type="inference")
config = sys.argv[1] + "/{BUNDLE_NAME}/configs/inference.json"
flow = monai.bundle.create_workflow(config_file=config, workflow_type="infer", dataset_dir=sys.argv[2])
print(flow.check_properties())
import meddenoise_monai, torch
state = torch.load(sys.argv[1] + "/{BUNDLE_NAME}/models/model.pt", weights_only=True)
print(all(torch.equal(value.cpu(), state[name]) for name, value in network.state_dict().items()))
"""


def test_python_loads_it(bundle: Path, packages: Path, tmp_path: Path) -> None:
    source = dicom_folder(tmp_path / "dicom")
    out = python(packages, tmp_path, "-c", LOADING, str(bundle.parent), str(source))
    assert re.search(r"^ResidualDenoisingAutoencoder 11\d{5}$", out, re.M)
    assert out.splitlines()[-2:] == ["[]", "True"]


@pytest.mark.parametrize(("name", "count"), [(f"test_{BUNDLE_NAME}", 3), (f"test_{BUNDLE_NAME}_dist", 1)])
def test_the_zoos_own_unit_tests_pass(name: str, count: int, packages: Path, tmp_path: Path) -> None:
    export_bundle(tmp_path / "models")
    tests = tmp_path / "ci" / "unit_tests"
    tests.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "zoo" / f"{name}.py", tests)
    start, environment = isolated(packages)
    result = subprocess.run(
        [*start, f"ci/unit_tests/{name}.py"], cwd=tmp_path, env=environment, text=True,
        capture_output=True, timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert re.search(rf"^Ran {count} tests? in .*\n\nOK$", result.stderr, re.M)
