"""The bundle's files keep the zoo's rules, and every workflow runs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.bundle.scripts import ckpt_export, verify_metadata, verify_net_in_out
from PIL import Image

import meddenoise_monai
from meddenoise_monai.datasets import datalist_of, folder_datalist
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.runtime import user_error
from meddenoise_monai.tracking import open_run
from tests.bundle.conftest import CONFIGS, ROOT, TINY_NETWORK
from tests.samples import textured

TRAIN, PAPER, EVALUATE, INFERENCE = (
    str(CONFIGS / f"{name}.json") for name in ("train", "paper", "evaluate", "inference")
)


def workflow(files: str | list[str], kind: str = "train", **overrides: Any) -> ConfigWorkflow:
    return ConfigWorkflow(files, workflow_type=kind, logging_file=False, **overrides)


def run(files: str | list[str], kind: str = "train", **overrides: Any) -> ConfigWorkflow:
    flow = workflow(files, kind, **overrides)
    flow.initialize()
    flow.run()
    return flow


def metrics_of(folder: Path, experiment: str, status: str = "FINISHED") -> dict[str, float]:
    """The last metrics of the only run of an experiment, which must have ended with `status`."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (only,) = client.search_runs([found.experiment_id])
    assert only.info.status == status
    return dict(only.data.metrics)


def test_every_configuration_is_json_with_indent_4() -> None:
    files = sorted(CONFIGS.glob("*.json"))
    assert [file.name for file in files] == [
        "evaluate.json", "inference.json", "metadata.json", "multi_gpu_evaluate.json", "multi_gpu_train.json",
        "paper.json", "release.json", "release_correlated.json", "train.json",
    ]  # fmt: skip
    for file in files:
        content = json.loads(file.read_text())
        assert file.read_text() == json.dumps(content, indent=4) + "\n", file.name


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_overlays_for_several_processes_replace_what_they_mean(name: str) -> None:
    below = json.loads((CONFIGS / f"{name}.json").read_text())
    overlay = json.loads((CONFIGS / f"multi_gpu_{name}.json").read_text())
    assert below["initialize"][1] == "$runtime.begin()"  # they join the others in its place
    assert overlay["initialize::1"].startswith("$runtime.begin(lambda: distributed.join(")
    assert not {"imports", "initialize", "finalize"} & overlay.keys()  # an export needs the lines that are there
    if name == "train":
        assert below["train"]["handlers"][8]["_target_"] == "ignite.handlers.ProgressBar"
    else:
        assert below["run"][1] == "$print('weights:', @weights_file)"


@pytest.mark.e2e
@pytest.mark.parametrize("below", [[TRAIN], [TRAIN, PAPER]])
def test_overlay_for_several_processes_changes_nothing_for_one(
    below: list[str], tiny: dict[str, Any], tmp_path: Path
) -> None:
    if PAPER in below:
        tiny = {**tiny, "stored_size": 48, "image_size": 32, "patches_per_image": 1, "network_def": {
            "_target_": "meddenoise_monai.networks.ConvDenoisingAutoencoder", "channels": 4}}  # fmt: skip
    weights = []
    for name, files in (("plain", below), ("overlaid", [*below, str(CONFIGS / "multi_gpu_train.json")])):
        flow = run(files, **{**tiny, "ckpt_dir": str(tmp_path / name), "max_epochs": 1})
        flow.finalize()
        weights.append(torch.load(tmp_path / name / "model_best.pt", weights_only=True))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_required_files_are_there() -> None:
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"):
        assert (ROOT / "bundle" / name).stat().st_size > 100, name
    # push_to_hf_hub puts YAML front matter there itself
    assert not (ROOT / "bundle" / "docs" / "README.md").read_text().startswith("---")


def test_every_target_of_ours_exists() -> None:
    targets = set()
    for file in CONFIGS.glob("*.json"):
        targets |= set(re.findall(r'"_target_": "(meddenoise_monai\.[^"]+)"', file.read_text()))
    assert len(targets) > 12
    for target in targets:
        module, _, name = target.rpartition(".")
        assert hasattr(__import__(module, fromlist=[name]), name), target


def test_metadata_version_matches_package_and_changelog() -> None:
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    assert metadata["version"] == meddenoise_monai.__version__
    assert metadata["version"] in metadata["changelog"]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )  # fmt: skip
    packages = {**metadata["required_packages_version"], "monai": metadata["monai_version"],
                "torch": metadata["pytorch_version"], "numpy": metadata["numpy_version"]}  # fmt: skip
    assert {name: pins[name] for name in packages} == packages


def test_metadata_verifies_against_the_schema() -> None:
    schema = Path(__file__).with_name("meta_schema_20240725.json")
    checksum = hashlib.sha256(schema.read_bytes()).hexdigest()
    verify_metadata(
        meta_file=str(CONFIGS / "metadata.json"), filepath=str(schema), hash_val=checksum, hash_type="sha256"
    )


@pytest.mark.parametrize(("files", "kind"), [(TRAIN, "train"), ([TRAIN, PAPER], "train"), (INFERENCE, "infer")])
def test_monais_properties_are_all_there(
    files: str | list[str], kind: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    if kind == "infer":
        tiny = {"dataset_dir": tiny["dataset_dir"], "output_dir": str(tmp_path / "out"), "network_def": TINY_NETWORK,
                "weights": str(tiny_weights(tmp_path))}  # fmt: skip
    flow = workflow(files, kind, **tiny)
    flow.initialize()
    assert flow.check_properties() == []


def tiny_weights(folder: Path) -> Path:
    from meddenoise_monai import ResidualDenoisingAutoencoder

    torch.manual_seed(0)
    network = ResidualDenoisingAutoencoder(widths=(4, 8), blocks=1)
    torch.nn.init.normal_(network.tail.weight, std=0.01)
    torch.save(network.state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


def test_network_takes_and_gives_what_the_metadata_says(tmp_path: Path) -> None:
    verify_net_in_out(
        net_id="network_def", meta_file=str(CONFIGS / "metadata.json"), config_file=TRAIN, p=1, n=1, any=1
    )


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # MONAI's own export uses it
def test_checkpoint_exports_to_torchscript(tmp_path: Path) -> None:
    weights, target = tiny_weights(tmp_path), tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def", filepath=str(target), ckpt_file=str(weights), meta_file=str(CONFIGS / "metadata.json"),
        config_file=INFERENCE, key_in_ckpt="", network_def=TINY_NETWORK,
    )  # fmt: skip
    from meddenoise_monai import ResidualDenoisingAutoencoder
    from meddenoise_monai.inference import load_weights

    image = torch.rand(1, 1, 50, 70)
    eager = ResidualDenoisingAutoencoder.from_state_dict(load_weights(weights))
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(str(target))(image), eager(image))


def mixed_up(patients: Path, folder: Path) -> Path:
    """A datalist of the split that seed 0 makes, in which a training and a test image have changed places."""
    content = {
        part: [{"image": str(Path(item["image"]).resolve())} for item in entries]
        for part, entries in datalist_of(str(patients)).items()
    }
    content["test"] = [content["test"][0], content["training"].pop()]
    path = folder / "mixed_up.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.e2e
def test_training_evaluation_and_inference_follow_each_other(
    tiny: dict[str, Any],
    tmp_path: Path,
    patients: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = {path: path.read_bytes() for path in patients.iterdir()}
    run(TRAIN, **tiny)
    shown = capsys.readouterr().out
    assert re.search(r"^\| noisy +\|", shown, re.M)
    assert re.search(r"^\| dae +\|", shown, re.M)
    assert "mlflow ui --backend-store-uri sqlite:///" in shown
    models = tmp_path / "models"
    assert sorted(path.name for path in models.iterdir()) == ["checkpoint_last.pt", "model_best.json", "model_best.pt"]
    logged = metrics_of(tmp_path, "meddenoise training")
    assert set(logged) >= {
        "train/loss", "train/learning_rate", "train/data_share", "validation/ssim", "validation/psnr",
        "baselines/gaussian_ssim", "baselines/noisy_psnr", "validation/gain_over_noisy_ssim",
        "validation/gain_over_best_baseline_psnr", "test/dae_ssim",
    }  # fmt: skip
    # The sliders of the panels open at step 0: it must have a picture.
    panels = [path.name for path in (tmp_path / "mlruns").rglob("panel_1+step+*.png")]
    assert sorted(int(name.split("+")[2]) for name in panels) == [0, *range(1, tiny["max_epochs"] + 1)]
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["methods"]) == {"noisy", "gaussian", "median", "dae"}
    small = meddenoise_monai.ResidualDenoisingAutoencoder(widths=TINY_NETWORK["widths"], blocks=1)
    assert results["methods"]["dae"]["parameters"] == sum(weight.numel() for weight in small.parameters())
    assert results["methods"]["dae"]["seconds_per_megapixel"] > 0
    assert results["protocol"]["patients"] == results["protocol"]["cases"]
    assert results["methods"]["dae"]["ssim"]["mean"] == pytest.approx(logged["test/dae_ssim"])

    overrides = {name: tiny[name] for name in ("bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "network_def",
                                               "baselines", "patch_size", "validation_window")}  # fmt: skip
    run([TRAIN, EVALUATE], **overrides)
    again = json.loads((tmp_path / "results.json").read_text())
    # the same weights on the same noise: validation noise depends on the seed and the image alone
    assert again["methods"]["dae"]["psnr"]["mean"] == pytest.approx(results["methods"]["dae"]["psnr"]["mean"], abs=1e-6)
    assert again["protocol"]["test_images_trained_on"] == 0
    evaluated = metrics_of(tmp_path, "meddenoise evaluation")
    assert evaluated["test/dae_ssim"] == pytest.approx(again["methods"]["dae"]["ssim"]["mean"], abs=1e-6)
    assert not any(name.startswith("validation/") for name in evaluated)  # they would be those of the test images
    assert f"weights: {tiny['ckpt_dir']}/model_best.pt" in capsys.readouterr().out

    # Judged on another split, some test images were trained on: that is said, and stands in the results.
    caplog.clear()
    run([TRAIN, EVALUATE], **{**overrides, "dataset_dir": ""}, datalist=str(mixed_up(patients, tmp_path)))
    assert "1 of 2 test images are among those that" in caplog.text
    assert json.loads((tmp_path / "results.json").read_text())["protocol"]["test_images_trained_on"] == 1

    target = tmp_path / "denoised"
    run(INFERENCE, "infer", bundle_root=tiny["bundle_root"], dataset_dir=str(patients), ckpt_dir=tiny["ckpt_dir"],
        output_dir=str(target), network_def=TINY_NETWORK)  # fmt: skip
    assert f"denoised by {tiny['ckpt_dir']}/model_best.pt alone" in capsys.readouterr().out
    assert sorted(path.name for path in target.iterdir()) == sorted(path.name for path in patients.iterdir())
    for path in target.iterdir():
        result, source = Image.open(path), Image.open(patients / path.name)
        assert (result.mode, result.size) == (source.mode, source.size)
        assert np.abs(np.asarray(result, int) - np.asarray(source, int)).mean() < 40
    assert {path: path.read_bytes() for path in patients.iterdir()} == before


@pytest.mark.e2e
def test_paper_overlay_trains_on_shrunk_whole_images(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = {**tiny, "network_def": {"_target_": "meddenoise_monai.networks.ConvDenoisingAutoencoder", "channels": 4},
            "stored_size": 48, "image_size": 32, "patches_per_image": 1}  # fmt: skip
    flow = run([TRAIN, PAPER], **tiny)
    batch = next(iter(flow.parser.get_parsed_content("train::dataloader")))
    assert batch["image"].shape == batch["label"].shape == (4, 1, 32, 32)
    assert batch["image"].min() >= 0
    assert batch["image"].max() <= 1
    assert batch["label"].amax((1, 2, 3)).tolist() == pytest.approx([1, 1, 1, 1])
    case = flow.parser.get_parsed_content("validate::dataset")[0]
    residual = (case["image"] - case["label"]).std()
    # v = 0.1 var; clipping to [0, 1] takes some of it away
    assert 0.6 < float(residual / (0.1 * case["label"].var()).sqrt()) < 1.05
    assert metrics_of(tmp_path, "meddenoise paper protocol")["validation/ssim"] > -1
    protocol = json.loads((tmp_path / "results.json").read_text())["protocol"]
    assert protocol["noise"] == "{'model': 'variance_gaussian', 'factor': 0.1}, clipped to [0, 1]"
    assert protocol["sigma"] is None  # it plays no part


@pytest.mark.e2e
def test_pairs_are_trained_without_synthetic_noise(tiny: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    for number, part in enumerate(["training"] * 3 + ["validation"] + ["test"]):
        clean = textured(number).astype(float)
        for kind, image in (("clean", clean), ("noisy", clean + rng.normal(0, 12, clean.shape))):
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(tmp_path / f"{kind}{number}.png")
        items[part].append({"image": f"noisy{number}.png", "label": f"clean{number}.png", "patient": str(number)})
    (tmp_path / "pairs.json").write_text(json.dumps(items))
    flow = run(TRAIN, **{**tiny, "dataset_dir": "", "datalist": str(tmp_path / "pairs.json")})
    case = flow.parser.get_parsed_content("validate::dataset")[0]
    noisy = np.asarray(Image.open(tmp_path / "noisy3.png"), np.float32) / 255
    assert any(np.array_equal(case["image"][0].numpy(), window) for window in windows(noisy, case["image"].shape[1:]))


def windows(image: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    rows, columns = (image.shape[axis] - shape[axis] + 1 for axis in (0, 1))
    return [image[r : r + shape[0], c : c + shape[1]] for r in range(rows) for c in range(columns)]


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        ({"max_epochs": 0}, UsageError, "max_epochs must be positive"),
        ({"batch_size": -1}, UsageError, "batch_size must be positive"),
        ({"gradient_norm": -1.0}, UsageError, "gradient_norm must be positive"),  # it would climb
        ({"patches_per_image": 0}, UsageError, "patches_per_image must be positive"),
        ({"warmup_steps": -5}, UsageError, "warmup_steps must be zero or more"),
        ({"average_decay": 2}, UsageError, "average_decay must lie"),
        ({"learning_rate": "fast"}, UsageError, "learning_rate must be positive"),
        ({"device": "cuda:99"}, UsageError, "cannot use the device"),
        ({"datalist": "nowhere.json", "dataset_dir": ""}, InputError, "no such datalist"),
        ({"datalist": "nowhere.json"}, UsageError, "both given"),
        ({"dataset_dir": "nowhere"}, InputError, "no such folder"),
        ({"pretrained": "nowhere.pt"}, InputError, "no such weights file"),
        (
            {"network_def": {"_target_": "torch.nn.AvgPool2d", "kernel_size": 2}},
            UsageError,
            "network_def changes the shape",
        ),
        (
            {"network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 1, "kernel_size": 1}},
            UsageError,
            "network_def fails on an input",
        ),
    ],
)
def test_bad_input_is_refused_before_the_engine_starts(
    tiny: dict[str, Any], overrides: dict[str, Any], kind: type[Exception], message: str
) -> None:
    flow = workflow(TRAIN, **{**tiny, **overrides})
    with pytest.raises(Exception) as caught:  # MONAI wraps it
        flow.initialize()
    error = user_error(caught.value)
    assert type(error) is kind
    assert message in error.message
    assert error.hint


def test_folder_without_images_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Exception) as caught:
        workflow(TRAIN, **{**tiny, "dataset_dir": str(tmp_path / "empty")}).initialize()
    error = user_error(caught.value)
    assert isinstance(error, InputError)
    assert "no images in" in error.message


def test_one_unreadable_file_is_skipped_unless_strict(
    tiny: dict[str, Any], patients: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Path(folder_datalist(patients)["training"][0]["image"])
    broken.write_bytes(b"\x89PNG broken")
    flow = workflow(TRAIN, **tiny)
    flow.initialize()
    skipped = sum(flow.parser.get_parsed_content(f"{part}::dataset").skipped for part in ("train", "validate", "test"))
    assert skipped == 1
    assert broken.name in caplog.text
    with pytest.raises(Exception) as caught:
        workflow(TRAIN, **{**tiny, "strict": "true"}).initialize()
    error = user_error(caught.value)
    assert isinstance(error, InputError)
    assert broken.name in error.message


@pytest.mark.e2e
def test_a_network_of_monai_can_take_the_place(tiny: dict[str, Any], tmp_path: Path) -> None:
    network = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1,
               "channels": [4, 8], "strides": [2], "norm": None}  # fmt: skip
    run(TRAIN, **{**tiny, "network_def": network, "max_epochs": 1, "validation_window": 51})
    assert metrics_of(tmp_path, "meddenoise training")["validation/psnr"] > 0


def test_fine_tuning_starts_from_the_given_weights(tiny: dict[str, Any], tmp_path: Path) -> None:
    from meddenoise_monai.inference import load_weights

    weights = tiny_weights(tmp_path)
    flow = workflow(TRAIN, **{**tiny, "pretrained": str(weights)})
    flow.initialize()
    given = load_weights(weights)
    for part in ("network", "average"):
        module = flow.parser.get_parsed_content(part)
        state = (module.module if part == "average" else module).state_dict()
        assert all(torch.equal(state[name], given[name]) for name in given)


@pytest.mark.e2e
def test_volumes_train_a_3d_network(tiny: dict[str, Any], tmp_path: Path) -> None:
    import nibabel

    folder = tmp_path / "volumes"
    folder.mkdir()
    for number in range(4):
        volume = np.stack([textured(10 * number + z, 40) for z in range(24)], axis=-1).astype(np.int16) * 7
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"p{number}.nii.gz")
    network = {**TINY_NETWORK, "spatial_dims": 3}
    run(TRAIN, **{**tiny, "dataset_dir": str(folder), "spatial_dims": 3, "network_def": network, "patch_size": 16,
                  "validation_window": 24, "max_epochs": 1, "baselines": ["gaussian"]})  # fmt: skip
    assert metrics_of(tmp_path, "meddenoise training")["validation/psnr"] > 0


def test_a_crash_ends_the_run_as_failed(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = workflow(TRAIN, **tiny)
    flow.initialize()
    trainer = flow.parser.get_parsed_content("train::trainer")

    def crash(*_: Any) -> None:
        raise RuntimeError("a crash in the middle")

    monkeypatch.setattr(trainer.optimizer, "step", crash)
    with pytest.raises(RuntimeError, match=r"crash|Failed to evaluate"):
        flow.run()
    metrics_of(tmp_path, "meddenoise training", status="FAILED")


def test_an_unreachable_server_costs_a_local_record_only(
    tiny: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(TRAIN, **{**tiny, "tracking_uri": "http://127.0.0.1:9", "max_epochs": 1})
    assert (tmp_path / "models" / "model_best.pt").is_file()
    assert len(list(tmp_path.rglob("events.jsonl"))) == 1
    assert any(record.levelname == "WARNING" and "127.0.0.1" in record.message for record in caplog.records)


def test_open_run_is_what_the_tracker_uses() -> None:
    from meddenoise_monai.handlers import run as module

    assert module.open_run is open_run


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_training_and_evaluation_run_on_cuda(tiny: dict[str, Any], tmp_path: Path) -> None:
    flow = run(TRAIN, **{**tiny, "device": "cuda"})
    assert next(flow.parser.get_parsed_content("network").parameters()).is_cuda
    assert flow.parser.get_parsed_content("train::trainer").amp
    assert metrics_of(tmp_path, "meddenoise training")["validation/psnr"] > 0
