"""The scripts' own logic; what they run is tested elsewhere."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from meddenoise_monai.noise import RandNoised
from meddenoise_monai.tracking import registry
from tests.samples import write_model, write_patients

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def reproduction() -> ModuleType:
    return load("reproduce_paper")


def test_cells_cover_the_protocol(reproduction: ModuleType) -> None:
    cells = list(reproduction.cells(epochs=5, long_epochs=60, seeds=3, grid_seeds=2))
    assert len(set(cells)) == len(cells) == 3 * (2 + 2 + 3 * 3) + 2 * 6 * 3
    assert len({cell.folder for cell in cells}) == len(cells)
    grid = {tuple(sorted(noise.items())) for name, noise in reproduction.NOISES.items() if name != "v = 0.1 var"}
    assert len(grid) == 6
    # Every noise, data set and seed has exactly one cell that tunes the baselines.
    tuned = [(cell.noise, cell.data, cell.seed) for cell in cells if reproduction.scores_baselines(cell, 5)]
    assert len(set(tuned)) == len(tuned) == 3 * 2 + 2 * 6


def test_splits_keep_the_films_of_a_woman_together(reproduction: ModuleType, tmp_path: Path) -> None:
    folder = write_patients(tmp_path / "films", count=40, size=16)
    for number, path in enumerate(sorted(folder.iterdir()), start=1):
        path.rename(folder / f"mdb{number:03d}.png")
    xray = write_patients(tmp_path / "xray", count=5, size=16)
    items = reproduction.items_of(folder, xray)
    assert len(items["mini-MIAS"]) == 40
    assert len({item["patient"] for item in items["mini-MIAS"]}) == 20
    reproduction.write_datalist(items["mini-MIAS"], 0, tmp_path / "list.json")
    content = json.loads((tmp_path / "list.json").read_text())
    part_of = {Path(item["image"]).stem: part for part, entries in content.items() for item in entries}
    assert len(part_of) == 40
    assert all(part_of[f"mdb{n:03d}"] == part_of[f"mdb{n + 1:03d}"] for n in range(1, 40, 2))


def test_report_states_the_means_of_the_results(
    reproduction: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from meddenoise_monai.tracking import case_id

    films = write_patients(tmp_path / "films", count=12, size=16)
    for number, path in enumerate(sorted(films.iterdir()), start=1):
        path.rename(films / f"mdb{number:03d}.png")
    xray = write_patients(tmp_path / "xray", count=30, size=16)
    trained: list[str] = []

    def train(cell: Any, datalist: Path, output: Path, all_baselines: bool) -> None:
        trained.append(cell.folder)
        folder = output / "cells" / cell.folder
        folder.mkdir(parents=True)
        tests = json.loads(datalist.read_text())["test"]
        by_network = {"ancestor as found": 0.5, "paper's network": 0.7, "ours": 0.9, "ours, full resolution": 0.92}
        ours = by_network[cell.network] + 0.01 * cell.seed
        classical = {"median": 0.6, "nlm": 0.65 + 0.02 * cell.seed} if all_baselines else {"gaussian": 0.99}
        scores = {"noisy": 0.3, **classical, "dae": ours}
        with (folder / "per_image.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["case", "method", "ssim", "ssim_matlab", "psnr", "rmse"])
            for item in tests:
                for method, value in scores.items():
                    writer.writerow([case_id(item["image"]), method, value, value, 30 * value, 0.1])
        methods = {method: {"ssim": {"mean": value}} for method, value in scores.items()}
        (folder / "results.json").write_text(
            json.dumps({"methods": methods, "minutes": 2.0, "training_minutes": 1.0, "cell": asdict(cell)})
        )

    monkeypatch.setattr(reproduction, "train", train)
    report = tmp_path / "docs" / "reproduction.md"
    reproduction.main(
        str(films), str(xray), str(tmp_path / "out"), epochs=2, long_epochs=9, seeds=2, report=str(report)
    )
    text = report.read_text()
    assert len(trained) == 2 * (2 + 2 + 3 * 3 + 6 * 3)
    assert "| ours | mini-MIAS | mini-MIAS | 0.905 ± 0.007 | 0.905 ± 0.007 | 27.15 ± 0.21 |" in text
    assert "| paper's network | pooled | X-ray | 0.705 ± 0.007 |" in text
    assert "| 0.2 Poisson(5) | X-ray | 0.300 ± 0.000 | 0.660 ± 0.014 (nlm) | 0.505 ± 0.007 | 0.705 ± 0.007 |" in text
    assert "gaussian" not in text  # the cheap stand-in of cells that score no baselines
    assert "| ours | pooled | 1 | X-ray | 0.9100 | 0.9100 | 27.30 | 0.6700 (nlm) | 1 |" in text
    assert "| ours | X-ray | all | X-ray | 0.9050 ± 0.0071 | 0.9050 ± 0.0071 | 27.15 ± 0.21 | | |" in text
    assert "| ours, full resolution | pooled | 1 | X-ray | 0.9300 |" in text
    assert "| ours | X-ray | 1 | mini-MIAS |" not in text  # each is tested on what it was trained on
    assert "62 of 62 trainings, 124 minutes" in text
    assert (report.parent / "figures" / "reproduction.png").read_bytes()[:4] == b"\x89PNG"
    assert "--epochs 2 --long_epochs 9 --seeds 2 --grid_seeds 2" in text
    assert capsys.readouterr().out.strip() == text.strip()

    trained.clear()  # what is done is not done again
    reproduction.main(
        str(films), str(xray), str(tmp_path / "out"), epochs=2, long_epochs=9, seeds=2, report=str(report)
    )
    assert trained == []


def test_ssim_benchmark_prints_the_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    threads = torch.get_num_threads()
    load("benchmark_ssim").main(batch=2, size=16, runs=3)
    torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert "MONAI / ours" in shown
    assert float(shown.splitlines()[-1].rsplit(" ", 1)[1]) < 1e-5


def mias_films(folder: Path, count: int, size: int = 64) -> Path:
    write_patients(folder, count=count, size=size)
    for number, path in enumerate(sorted(folder.iterdir()), start=1):
        path.rename(folder / f"mdb{number:03d}.png")
    return folder


@pytest.mark.e2e
def test_release_datalist_gives_each_source_its_share(tmp_path: Path) -> None:
    release = load("train_release")
    films = mias_films(tmp_path / "films", 40, size=136)
    (films / "Info.png").write_bytes(b"no film")
    content = release.release_datalist(films, tmp_path / "out", synthetic=3, size=32)
    shares: dict[str, float] = {}
    for item in content["training"]:
        path = Path(item["image"])
        source = "mini-MIAS" if path.name.startswith("mdb") else "synthetic" if "synthetic" in path.name else "packages"
        source += ", shrunk" if path.parent.name == "shrunk" else ""
        source = "softened" if "softened" in path.name else source
        shares[source] = shares.get(source, 0) + item["weight"]
    assert shares == pytest.approx(release.SHARES)
    split = release.mini_mias_split(films)
    assert {Path(item["image"]).name for part in split.values() for item in part} == {
        f"mdb{number:03d}.png" for number in range(1, 41)
    }
    patients = [{item["patient"] for item in split[part]} for part in ("training", "validation", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 20
    made_here = [
        item for part in ("validation", "test") for item in content[part] if str(tmp_path / "out") in item["image"]
    ]
    assert not made_here
    shrunk = next(
        Path(item["image"]) for item in content["training"] if "mdb" in item["image"] and "shrunk" in item["image"]
    )
    small = np.array(Image.open(shrunk)) / 65535
    large = np.array(Image.open(films / f"{shrunk.name.split('-')[0]}.png")) / 255
    assert small.shape == (68, 68)
    assert np.allclose(small, large.reshape(68, 2, 68, 2).mean(axis=(1, 3)), atol=1e-4)

    soft = np.array(Image.open(tmp_path / "out" / "shrunk" / "camera-softened.png")) / 65535
    assert soft.shape == (256, 256)  # of 512 x 512
    spectrum = np.abs(np.fft.fft2(soft))
    assert spectrum[80:-80].mean() < 0.1 * spectrum[20:50].mean()

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "synthetic").iterdir()}
    release.release_datalist(films, tmp_path / "out", synthetic=3, size=32)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "synthetic").iterdir()} == made


def test_package_images_are_grey_and_no_samples_to_judge_by() -> None:
    from meddenoise_monai.datasets import sample_datalist

    images = dict(load("package_images").package_images())
    assert len(images) >= 19
    assert all(image.ndim == 2 and image.min() == 0 and image.max() == 1 for image in images.values())
    assert all(image.std() > 0.02 for image in images.values())
    judged = {Path(item["image"]).name.partition(".")[0] for part in ("validation", "test") for item in
              sample_datalist()[part]}  # fmt: skip
    assert not judged & {name.partition("-")[2] for name in images}
    red, green, blue = load("package_images").luminance(np.eye(3)[None] * 255)[0]
    assert (red, green, blue) == pytest.approx((0.2125, 0.7154, 0.0721), abs=1e-3)  # of ITU-R BT.709


@pytest.mark.e2e
def test_release_is_trained_recorded_and_gone_on_with(
    tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = load("train_release")
    monkeypatch.setattr(release, "ROOT", tmp_path / "root")  # where --install puts the weights
    shutil.copytree(SCRIPTS.parent / "bundle" / "configs", tmp_path / "root" / "bundle" / "configs")
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    tiny = {
        "mini_mias": str(mias_films(tmp_path / "films", 12)), "output": str(tmp_path), "synthetic": 2,
        "synthetic_size": 64, "steps_per_epoch": 2, "warmup_steps": 1, "batch_size": 4, "validation_window": 48,
        "baselines": ["gaussian"], "validation_images": 2, "val_interval": 1, "patch_size": 32,
    }  # fmt: skip
    release.main(**tiny, max_epochs=1)
    release.main(**tiny, max_epochs=2, install=True)
    record = json.loads((tmp_path / "release.json").read_text())
    assert record["epochs"] == 2
    assert list(record["curve"]["train/loss"]) == ["1", "2"]
    assert len(record["training_data"]) == 16
    for suffix in (".pt", ".json"):
        installed = (tmp_path / "root" / "bundle" / "models" / "model").with_suffix(suffix)
        assert installed.read_bytes() == (tmp_path / "models" / "model_best").with_suffix(suffix).read_bytes()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[-3:]] == ["| 0", "| 1", "| 2"]


@pytest.mark.e2e
def test_release_partner_is_trained_on_correlated_noise(
    tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = load("train_release")
    monkeypatch.setattr(release, "ROOT", tmp_path / "root")
    (tmp_path / "root" / "bundle" / "models").mkdir(parents=True)
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    models: list[str] = []
    make = RandNoised.__init__

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        models.append(kwargs["model"])
        make(self, *args, **kwargs)

    monkeypatch.setattr(RandNoised, "__init__", noted)
    release.main(
        str(mias_films(tmp_path / "films", 12)), str(tmp_path), synthetic=2, synthetic_size=64, correlated=True,
        install=True, max_epochs=1, steps_per_epoch=2, warmup_steps=1, batch_size=4, validation_window=48,
        baselines=["gaussian"], validation_images=2, val_interval=1, patch_size=32,
    )  # fmt: skip
    assert models.count("correlated") == 4  # three of noise, and the texture, which this recipe turns off
    assert json.loads((tmp_path / "release.json").read_text())["curve"]["validation/psnr"].keys() == {"0", "1"}
    installed = tmp_path / "root" / "bundle" / "models" / "model_correlated.pt"
    assert installed.read_bytes() == (tmp_path / "models" / "model_best.pt").read_bytes()


def test_quality_is_scored_on_windows_of_tissue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    quality = load("benchmark_quality")
    monkeypatch.setattr(quality, "WINDOW", 32)
    weights = write_model(tmp_path / "model.pt")
    arguments = {
        "mini_mias": str(mias_films(tmp_path / "films", 30)), "xray": str(write_patients(tmp_path / "xray", 4)),
        "output": str(tmp_path / "out"), "weights": str(weights), "sigmas": (25,), "baselines": ("median", "gaussian"),
    }  # fmt: skip
    quality.main(**arguments)
    shown = capsys.readouterr().out
    assert "| method | mini-MIAS, 25 | X-ray, 25 |" in shown
    assert [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("| ")][:6] == [
        *("method", "noisy", "median", "gaussian", "ours", "method"),
    ]
    assert "| X-ray, 25 | 4 |" in shown
    assert "| X-ray, 25 | 4 | " in shown.split("over the best tuned baseline", 1)[1]
    assert "bm3d" not in shown
    monkeypatch.setattr(quality, "classical", None)  # what is known is not computed again
    quality.main(**arguments)
    assert capsys.readouterr().out == shown

    tuned: dict[str, set[str]] = {}

    def classical(cases: list[Any], *_: Any) -> dict[str, Any]:
        tuned[cases[0].patient.split("-")[0]] = {case.patient for case in cases}
        return {name: lambda noisy, _: noisy for name in ("median", "gaussian")}

    monkeypatch.setattr(quality, "classical", classical)
    quality.main(**{**arguments, "images": 2})
    rows = [line for path in (tmp_path / "out").glob("X-ray-25-2.csv") for line in path.read_text().splitlines()]
    assert tuned.keys() == {"mias", "xray"}
    assert len(tuned["xray"]) == 2
    assert not any(patient in row for row in rows for patient in tuned["xray"])


@pytest.mark.e2e
def test_release_is_compared_on_what_it_has_not_seen_and_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    release = load("benchmark_release")
    for name, value in (("WINDOW", 32), ("FILMS", 3), ("RADIOGRAPHS", 2), ("TUNED_ON", 1)):
        monkeypatch.setattr(release, name, value)
    films, xrays = mias_films(tmp_path / "films", 30), write_patients(tmp_path / "xray", 4, size=56)
    (films / "Info.txt").write_text("mdb001 G CIRC B 20 20 4\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    page = tmp_path / "docs" / "evidence.md"
    page.parent.mkdir()
    arguments = {"mini_mias": str(films), "xray": str(xrays), "output": str(tmp_path / "out"), "levels": (25,),
                 "weights": str(write_model(tmp_path / "model.pt")), "methods": ("gaussian", "dae"), "workers": 1,
                 "document": str(page)}  # fmt: skip
    (page.parent / "benchmarks.md").write_text("# Benchmarks\n")
    with pytest.raises(SystemExit, match="lacks the marks"):
        release.main(**arguments)
    (page.parent / "benchmarks.md").write_text(f"# Benchmarks\n\n{release.BEGIN}\nold\n{release.END}\n\nmore\n")
    capsys.readouterr()
    release.main(**arguments)
    table = capsys.readouterr().out
    assert "mini-MIAS, Gaussian noise 25/255. 3 images" in table
    assert "X-ray, Gaussian noise 25/255. 2 images" in table
    assert set(table.strip().splitlines()) < set(page.read_text().splitlines())
    benchmarks = (page.parent / "benchmarks.md").read_text()
    assert "old" not in benchmarks
    assert benchmarks.endswith(f"{release.END}\n\nmore\n")
    assert "dae (the denoising autoencoder" in benchmarks
    listed = json.loads((tmp_path / "out" / "data" / "datalist.json").read_text())
    women = {part: {item["patient"] for item in items} for part, items in listed.items()}
    assert not women["test"] & women["validation"]
    assert {item["source"] for item in listed["test"]} == {"mini-MIAS", "X-ray"}


def test_multiplications_are_counted_by_hand() -> None:
    from meddenoise_monai.networks import ConvDenoisingAutoencoder, ResidualDenoisingAutoencoder

    peers = load("peers")
    residual = ResidualDenoisingAutoencoder(widths=(8, 16), blocks=1, stride=2)
    fine, coarse = (2 * 2 * 9 * 8**2 + 2 * 36 * 8) / 4, 2 * 9 * 16**2 / 16
    steps = 2 * 4 * 8 * 16 / 16
    assert peers.multiplications(residual) == pytest.approx((fine + coarse + steps) / 1000)
    paper = ConvDenoisingAutoencoder(channels=4)
    assert peers.multiplications(paper) == pytest.approx(25 * (4 + 16 / 4 + 16 / 16 + 16 / 4 + 4) / 1000)


def test_variants_differ_and_build_their_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.syspath_prepend(str(SCRIPTS))
    recipes, peers = load("compare_recipes"), load("peers")
    assert len({repr(overrides) for overrides in recipes.VARIANTS.values()}) == len(recipes.VARIANTS)
    assert set(peers.PEERS) <= set(recipes.VARIANTS)
    networks = [v["network_def"] for v in recipes.VARIANTS.values() if "network_def" in v]
    assert len(networks) >= 10
    image = torch.rand(1, 1, 48, 33)
    for definition in networks:
        with torch.no_grad():
            assert peers.build(definition)(image).shape == image.shape


def test_the_map_of_noise_levels_keeps_to_contrast_and_is_estimated() -> None:
    import torch

    parts = load("recipe_parts")
    levels = torch.tensor([0.02, 0.3]).reshape(2, 1, 1, 1)
    noisy = 0.5 + levels * torch.randn(2, 1, 129, 130, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(parts.noise_level(noisy), levels, rtol=0.05)
    head = parts.levelled(widths=(4, 8), blocks=1, stride=2).head
    plain = head(noisy).detach()
    with torch.no_grad():
        head.level += 1
    assert torch.allclose(head(noisy) - plain, parts.noise_level(noisy), atol=1e-6)
    assert torch.allclose(head(3 * noisy), 3 * head(noisy), atol=1e-5)


def test_a_teacher_has_its_share_of_the_target(tmp_path: Path) -> None:
    import torch

    from meddenoise_monai.inference import load_denoiser

    weights = str(write_model(tmp_path / "model.pt"))
    noisy, clean = torch.rand(2, 1, 40, 36).unbind(0)
    mixed = load("recipe_parts").Taughtd("label", "image", weights, 0.25)({"image": noisy, "label": clean})
    with torch.no_grad():
        answer = load_denoiser(weights, "cpu").network(noisy[None])[0]
    assert torch.allclose(mixed["label"], 0.75 * clean + 0.25 * answer, atol=1e-6)
    assert torch.equal(mixed["image"], noisy)


def test_recipes_that_are_done_are_tabled_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    recipes = load("compare_recipes")
    weights = write_model(tmp_path / "model.pt")
    for variant, minutes in (("reference", 7.9), ("L1", 8.1)):
        (tmp_path / variant / "models").mkdir(parents=True)
        shutil.copy(weights, tmp_path / variant / "models" / "model_best.pt")
        (tmp_path / variant / "release.json").write_text(json.dumps({"epochs": 50}))
        (tmp_path / variant / "seconds.json").write_text(json.dumps(60 * minutes))
    clean = np.random.default_rng(0).random((32, 32), np.float32)
    window = {"clean": clean, "patient": "p", "file": "f"}
    monkeypatch.setattr(recipes, "windows", lambda _: {"mini-MIAS": [window], "samples": [window]})
    recipes.main("unused", str(tmp_path), only=("reference", "L1"), figure=str(tmp_path / "f.png"))
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    heads, reference, other = rows[0], rows[2], rows[3]
    assert (reference[0], other[0]) == ("reference", "L1")
    assert [row[heads.index("minutes")] for row in (reference, other)] == ["7.9", "8.1"]
    assert reference[heads.index("steps")] == str(50 * recipes.STEPS)
    assert reference[heads.index("mini-MIAS, 25")] == other[heads.index("samples, 25")]  # the same weights and image
    psnr, ssim = map(float, reference[heads.index("mini-MIAS, 25")].split(" / "))
    assert 0 < ssim < 1 < psnr
    assert all(float(row[heads.index("MP/s")]) > 0 for row in (reference, other))
    with Image.open(tmp_path / "f.png") as figure:
        assert figure.size[0] > 500


def test_a_recipe_that_was_cut_off_keeps_its_schedule_and_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.syspath_prepend(str(SCRIPTS))
    recipes = load("compare_recipes")
    commands: list[list[str]] = []
    monkeypatch.setattr(recipes.subprocess, "run", lambda command, **_: commands.append(command))
    for seconds_a_step in (0.5, 0.8):  # the machine is busier when it goes on
        monkeypatch.setattr(recipes, "step_seconds", lambda _, seconds=seconds_a_step: seconds)
        recipes.train("1 block", "films", tmp_path, 10)
        spent = json.loads((tmp_path / "seconds.json").read_text())
        assert spent == pytest.approx(70 if seconds_a_step == 0.8 else 0, abs=1)
        (tmp_path / "models").mkdir(exist_ok=True)
        torch.save({"seconds": 70.0}, tmp_path / "models" / "checkpoint_last.pt")
    assert commands[0] == commands[1]
    assert commands[0][commands[0].index("--max_epochs") + 1] == str(round(600 / (0.027 + 0.5) / recipes.STEPS))
    assert commands[0][commands[0].index("--cycles") + 1] == "1"


@pytest.mark.e2e
def test_kinds_are_compared_with_the_best_tuned_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    kinds = load("benchmark_kinds")
    weights = str(write_model(tmp_path / "model.pt"))
    kinds.main(str(tmp_path), weights, draws=2, sigmas=(25,), baselines=("median", "gaussian"))
    tables = [[line.split(" | ") for line in part.splitlines()[2:]] for part in capsys.readouterr().out.split("\n\n")]
    assert len(tables[0]) == len(tables[1]) == 6 + len(kinds.unseen_items())
    for row in tables[0]:
        best, ours, gain = float(row[3].split()[-1]), float(row[4]), float(row[5].split()[0])
        assert gain == pytest.approx(ours - best, abs=0.011)
        assert float(row[2]) == pytest.approx(20.17, abs=0.2)
    assert all(float(row[1]) > 20 for row in tables[1])
    monkeypatch.setattr(kinds, "classical", None)  # the baselines' results are kept
    kinds.main(str(tmp_path), weights, draws=2, sigmas=(25,), baselines=("median", "gaussian"))
    again = capsys.readouterr().out.split("\n\n")
    assert [[line.split(" | ") for line in part.splitlines()[2:]] for part in again] == tables


@pytest.mark.e2e
def test_microcalcifications_are_measured_on_unseen_women(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = load("microcalcifications")
    clean = np.full((160, 160), 0.5)
    rows, columns = np.meshgrid([40, 80, 120], [50, 110])
    clean += 0.2 * ndimage.gaussian_filter(
        np.isin(np.arange(160**2), (rows * 160 + columns).ravel()).reshape(160, 160) * 8.0, 1
    )
    clean += np.random.default_rng(0).normal(0, 0.002, clean.shape)
    spots, places = script.spots_of(clean)
    assert sorted(map(tuple, spots)) == sorted(zip(rows.ravel(), columns.ravel(), strict=True))
    assert len(places) == 1000
    lesion = script.Lesion("p", "n", clean.astype(np.float32), spots, places)
    sharp, blurred = (script.measures(image, lesion) for image in (clean, ndimage.gaussian_filter(clean, 3)))
    assert sharp["AUC"] == 1
    assert sharp["contrast"] > 3 * blurred["contrast"] > 0
    films = mias_films(tmp_path / "films", 30)
    split = script.mini_mias_split(films)
    chosen = [*split["training"][:2], split["validation"][0], split["test"][0]]
    names = [Path(item["image"]).stem for item in chosen]
    (films / "Info.txt").write_text("\n".join(f"{name} G CALC B 500 500 90" for name in names))
    for name in names:
        Image.fromarray(np.uint8(np.tile(clean, (7, 7))[:1024, :1024] * 255)).save(films / f"{name}.png")
    script.main(str(films), str(write_model(tmp_path / "model.pt")), (15,), repeats=1, figure=str(tmp_path / "f.png"))
    shown = capsys.readouterr().out
    assert shown.startswith("2 lesions of 2 women")  # the training's women are left out
    assert "| 15 | ours |" in shown
    with Image.open(tmp_path / "f.png") as figure:
        assert figure.size[0] > 500


@pytest.mark.e2e
def test_uncertainty_is_calibrated_and_judged_on_other_women(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from meddenoise_monai import load_denoiser

    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = load("calibrate_uncertainty")
    for name in ("benchmark_quality", "benchmark_kinds", "calibrate_uncertainty"):
        monkeypatch.setattr(importlib.import_module(name), "WINDOW", 32)
    weights = write_model(tmp_path / "model.pt")
    films, xray = mias_films(tmp_path / "films", 30), write_patients(tmp_path / "xray", 4)
    output = tmp_path / "model_uncertainty.json"
    script.main(str(films), str(output), str(xray), str(weights), sigmas=(25,))
    calibration = load_denoiser(weights, "cpu").calibration
    split = script.mini_mias_split(films)
    assert calibration.protocol["patients"] == len({film["patient"] for film in split["validation"]})
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows[:4]] == ["mini-MIAS, 25", "X-ray, 25", "packages, 25", "whole films, 25"]
    assert len(rows) == 4 + 3 * 3
    assert rows[0][1] == f"{len(split['test'])} ({len({film['patient'] for film in split['test']})})"
    assert all(50 < float(row[2].split()[0]) <= 100 for row in rows[:2])
    # Half of the pixels within, where the half-width is the median of the errors.
    error = np.random.default_rng(0).normal(0, 1, (64, 64))
    seen = script.looked_at("p", np.zeros((64, 64)), error, np.full((64, 64), 0.6745))
    assert seen.coverage == pytest.approx(0.5, abs=0.03)
    assert seen.correlation == 0


@pytest.mark.e2e
def test_speed_is_compared_in_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from meddenoise_monai import baselines

    monkeypatch.syspath_prepend(str(SCRIPTS))
    speed = load("benchmark_speed")
    monkeypatch.setattr(baselines, "available_baselines", lambda: ["median"])
    weights = str(write_model(tmp_path / "model.pt"))
    speed.main(size=64, rounds=1, weights=weights, memory=False)
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in table][1:3] == ["ours", "ours, noise auto"]
    assert {"| DnCNN-17", "| median"} <= {row[0] for row in table}
    ours = table[1]
    assert float(ours[3]) == 1
    assert float(ours[2]) > 0
    speed.main(size=256, weights=weights, memory_of="ours")
    assert float(capsys.readouterr().out.split()[-1]) >= 0
    arithmetic, traffic = speed.ceilings("cpu")
    assert 1e8 < arithmetic < 1e15
    assert 1e8 < traffic < 1e13


def test_sigma_benchmark_prints_both_estimators(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    benchmark = load("benchmark_sigma")
    monkeypatch.setattr(benchmark, "SIGMAS", (25,))
    benchmark.main(size=64)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line
    ]
    errors = {(row[0], row[2]): float(row[3].split()[0]) for row in rows[2:]}
    assert len(errors) == 2 * 12
    assert abs(errors["dead leaves, large", "ours"]) < 5
    assert abs(errors["camera", "ours"]) < 10


def script_failure(
    script: ModuleType, capsys: pytest.CaptureFixture[str], code: int, *words: object
) -> tuple[str, str]:
    """The error and the hint of a script, which must be all there is to see."""
    capsys.readouterr()
    assert script.main([str(word) for word in words]) == code
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


@pytest.fixture
def no_mlflow_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.usefixtures("no_mlflow_settings")
def test_mlflow_is_opened_on_the_store_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load("open_mlflow")
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(script.subprocess, "call", lambda words, env: started.append((words, env)) or 0)
    assert SCRIPTS.parent / "bundle" / "eval" == script.STORE
    monkeypatch.setattr(script, "STORE", tmp_path / "eval")
    error, hint = script_failure(script, capsys, 1)
    assert re.fullmatch(r"there is no MLflow store at .*eval/mlflow.db yet", error)
    assert hint.startswith("`make train` makes")
    assert not (tmp_path / "eval").exists()
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"the port {port} is taken" in script_failure(script, capsys, 2, "--port", port)[0]
    assert not started
    assert script.main(["--port", str(port)]) == 0
    ((words, env),) = started
    assert f"http://127.0.0.1:{port}/#/models" in capsys.readouterr().out
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == str(port)
    assert words[words.index("--artifacts-destination") + 1] == (tmp_path / "eval" / "mlruns").as_uri()
    assert env["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/eval/mlflow.db"

    assert script.main(["--tracking_uri", "https://me:secret@example.org/mlflow/"]) == 0
    shown = capsys.readouterr().out
    assert "experiments: https://example.org/mlflow/#/experiments?" in shown
    assert "secret" not in shown
    for folder in (tmp_path / "mlruns", 5):
        assert "is a folder" in script_failure(script, capsys, 2, "--tracking_uri", folder)[0]
    for words, said in (
        (("--port", "abc"), "--port must be an integer"),
        (("--port", "99999999"), "--port must lie in 1 to 65535"),
        (("--port", "0"), "--port must lie in 1 to 65535"),
        (("--port", "-1"), "--port must lie in 1 to 65535"),
        (("--prt", "5010"), "open_mlflow has no flag --prt"),
        (("5010",), "unexpected argument '5010'"),
    ):
        assert said in script_failure(script, capsys, 2, *words)[0]
    assert script_failure(script, capsys, 2, "--port")[1] == "see python scripts/open_mlflow.py --help"
    assert len(started) == 1
    monkeypatch.setattr(script.subprocess, "call", lambda words, env: 3)
    with pytest.raises(SystemExit, match="3"):
        script.main(["--port", str(port)])


@pytest.mark.usefixtures("no_mlflow_settings")
def test_weights_are_registered_and_how_to_serve_them_is_said(
    tmp_path: Path, mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load("register_model")
    weights = str(write_model(tmp_path / "model.pt"))
    monkeypatch.setattr(script, "STORE", mlflow_folder)
    words = ["--weights", weights, "--name", "mine"]
    assert script.main(words) == 0
    first = capsys.readouterr().out
    assert "is version 1 of mine, champion" in first
    assert "mlflow models serve -m models:/mine@champion --env-manager local" in first
    assert f"MLFLOW_TRACKING_URI=sqlite:///{mlflow_folder}/mlflow.db" in first
    assert script.main(words) == 0
    assert "were there already: nothing new is made of 1 of mine" in capsys.readouterr().out
    for name in ("nowhere.pt", "5"):
        assert script_failure(script, capsys, 1, "--weights", name)[0] == f"no such weights file: {name}"
    assert "the name '5' cannot stand in" in script_failure(script, capsys, 2, "--name", "5")[0]
    assert script.main(["--help"]) == 0
    assert "usage: python scripts/register_model.py [flags]" in capsys.readouterr().out


def test_a_flag_of_a_registration_that_is_misspelt_registers_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load("register_model")
    monkeypatch.setattr(registry, "register_weights", lambda *_: pytest.fail("it registers"))
    error, hint = script_failure(script, capsys, 2, "--tracking_ur", "sqlite:///mine.db")
    assert (error, hint) == ("register_model has no flag --tracking_ur", "did you mean '--tracking_uri'?")


def test_table_of_several_processes_takes_medians() -> None:
    script = load("benchmark_distributed")
    one = script.Result((10.0, 12.0, 50.0), 0.5)
    two = script.Result((20.0, 24.0, 25.0), 0.5001)
    lines = script.as_table([(one, two)], 2).splitlines()
    assert lines[2] == "| 1 | 12.0 | 24.0 | 2.00 | 0.50000 | 0.50010 |"
    assert lines[3] == "| all | 12.0 | 24.0 | 2.00 | 0.50000 | 0.50010 |"
    words = script.command(2, {"max_epochs": 3})
    assert words[-2:] == ["--max_epochs", "3"]
    assert "--nproc_per_node=2" in words
    assert "torch.distributed.run" not in script.command(1, {})


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["train_release.py", "nowhere", "out", "--max_epoch", "3"], "unknown override --max_epoch", "max_epochs"),
        (["train_release.py", "nowhere", "out", "--cycles", "two"], "--cycles must be a whole number", "--cycles"),
        (["train_release.py", "nowhere", "out"], "no such folder: nowhere", "folder"),
        (["compare_recipes.py", "nowhere", "out", "--mnutes", "1"], "there is no option --mnutes", "minutes"),
        (["compare_recipes.py", "nowhere", "out", "--only", "foo"], "there is no variant 'foo'", "known: "),
        (["compare_recipes.py", "nowhere", "out"], "no such folder: nowhere", "folder"),
    ],
)
@pytest.mark.e2e
def test_errors_of_scripts_end_in_two_lines_before_anything_is_made(
    tmp_path: Path, words: list[str], message: str, hint: str
) -> None:
    command = [sys.executable, SCRIPTS / words[0], *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {message}"), done.stderr
    assert second.startswith("hint: ")
    assert hint in second
    assert not list(tmp_path.iterdir())
