"""The job behind `meddenoise compare`: what it writes, repeats, resumes and refuses."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from meddenoise_monai import comparing, report
from meddenoise_monai.comparing import Comparison, compare
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.evaluation import summary
from meddenoise_monai.identity import image_digests
from meddenoise_monai.synthetic import power_law
from tests.samples import write_patients
from tests.small_networks import trained

pytestmark = pytest.mark.e2e

METHODS = ["gaussian", "median", "dae"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datalist of two sources, with names that must not leave this machine, and annotated lesions."""
    root = tmp_path_factory.mktemp("data")
    parts: dict[str, list[dict[str, Any]]] = {"validation": [], "test": []}
    for number in range(8):
        scene = power_law(160, 2.5, np.random.default_rng(number))
        scene[60:80, 70:90] += 0.2
        path = root / f"JaneDoe{number}.png"
        Image.fromarray(np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8)).save(path)
        item = {"image": path.name, "patient": f"DoeJ{number // 2}", "source": "films" if number < 6 else "plates"}
        if number == 4:
            item["lesions"] = [{"class": "CIRC", "x": 80, "y": 70, "radius": 9}]
        parts["validation" if number in (0, 1, 6) else "test"].append(item)
    parts["test"][-1]["patient"] = "DoeJ9"
    (root / "datalist.json").write_text(json.dumps(parts))
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures: they take most of the time of so small a comparison, and tests/report looks at them."""
    monkeypatch.setattr(report, "make_figures", lambda results: [])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(trained(stride=2).state_dict(), path)
    return str(path)


def run(folder: Path, output: Path, weights: str, **options: Any) -> Comparison:
    given = {"methods": METHODS, "levels": (10, 20), "window": 128, "realisations": 2, "workers": 1, "model": weights}
    return compare(folder, output, **{**given, "tracking_uri": None, **options})


@pytest.fixture(scope="module")
def done(folder: Path, weights: str, tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Comparison:
    output = tmp_path_factory.mktemp("out")
    (output / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return run(folder, output, weights)


def test_every_part_of_the_results_is_there(done: Comparison) -> None:
    results = json.loads((done.folder / "results.json").read_text())
    assert results == json.loads(json.dumps(done.results))
    assert list(results) == [
        "protocol",
        "methods",
        "conditions",
        "phantoms",
        "observers",
        "hallucination_maps",
        "uncertainty",
        "lesions",
    ]
    assert list(results["methods"]) == ["noisy", *METHODS]
    assert results["methods"]["dae"]["parameters"] == sum(w.numel() for w in trained(stride=2).parameters())
    groups = [(c["data"], c["noise"], c["level"], c["images"], c["patients"]) for c in results["conditions"]]
    assert groups == [
        (d, "gaussian", level, *n) for d, n in (("films", (4, 2)), ("plates", (1, 1))) for level in (10, 20)
    ]
    films = results["conditions"][0]
    assert {v["other"] for v in films["verdicts"]} == {"noisy", "gaussian", "median"}
    assert {v["word"] for v in films["verdicts"]} == {"too few patients"}  # two show nothing
    for method in ("noisy", *METHODS):
        split = films["repeats"]["methods"][method]
        assert split["mse"] == pytest.approx(split["bias2"] + split["variance"])
    assert [p["level"] for p in results["phantoms"]] == [10, 20]
    assert [e["contrast"] for e in results["phantoms"][0]["edges"]] == [0.1, 0.2, 0.4]
    seen = {(o["data"], o["level"], o["signal"], o["channels"]) for o in results["observers"]}
    assert len(seen) == len(results["observers"]) == 12  # three backgrounds, two signals, two kinds of channels
    assert {o["level"] for o in results["observers"]} == {20}
    (lesions,) = results["lesions"]
    assert (lesions["data"], lesions["lesions"], lesions["kinds"]) == ("films", 1, {"CIRC": 1})
    assert lesions["kept"]["noisy"]["mean"] == pytest.approx(1, abs=0.2)


def test_means_are_those_of_the_table_of_images(done: Comparison) -> None:
    with (done.folder / "per_image.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5 * 2 * 4
    for condition in done.results["conditions"]:
        for method, values in condition["methods"].items():
            chosen = [
                float(row["psnr"])
                for row in rows
                if (row["data"], float(row["level"]), row["method"]) == (condition["data"], condition["level"], method)
            ]
            assert values["psnr"]["mean"] == pytest.approx(np.mean(chosen), rel=1e-12)
            assert (values["psnr"]["ci95"] is None) == (condition["patients"] < 2)


def test_names_of_patients_and_files_stay_in_one_file(done: Comparison) -> None:
    assert "JaneDoe" in (done.folder / "case_files.csv").read_text()
    for path in done.folder.rglob("*"):
        if path.is_file() and path.name != "case_files.csv":
            assert not re.search(rb"JaneDoe|DoeJ\d", path.read_bytes()), path
    # What MLflow has: a run by a name that says what it is, with what is needed to do it again.
    with sqlite3.connect(done.folder / "mlflow.db") as database:
        ((name,),) = database.execute("select name from runs").fetchall()
        params = dict(database.execute("select key, value from params").fetchall())
        metrics = {key for (key,) in database.execute("select key from metrics").fetchall()}
    assert name == "films (4), plates (1): gaussian"
    assert params["levels"] == "(10, 20)"
    assert {"dae/psnr", "noisy/ssim", "dae/annotated_contrast_kept", "dae/inserted_contrast_kept"} <= metrics
    logged = {path.name for path in (done.folder / "mlruns").rglob("*") if path.is_file()}
    assert {"protocol.json", "results.json", "comparison.json", "table.md"} <= logged


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_gives_the_same_to_the_last_digit(
    done: Comparison, folder: Path, weights: str, tmp_path: Path, mlflow_template: Path
) -> None:
    protocol = next(path for path in (done.folder / "mlruns").rglob("protocol.json"))
    (tmp_path / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    again = compare(folder, tmp_path, protocol=protocol, model=weights, workers=1)
    for name in ("results.json", "per_image.csv", "table.md", "case_files.csv"):
        assert (again.folder / name).read_bytes() == (done.folder / name).read_bytes(), name


def test_a_protocol_refuses_other_data_and_weights(
    done: Comparison, folder: Path, weights: str, tmp_path: Path
) -> None:
    protocol = done.folder / "results.json"
    other = tmp_path / "other.pt"
    torch.save(trained(1, stride=2).state_dict(), other)
    with pytest.raises(InputError, match="methods differ"):
        compare(folder, tmp_path / "o", protocol=protocol, model=str(other))
    changed = json.loads((folder / "datalist.json").read_text())
    changed["test"].pop()
    listed = folder / "changed.json"
    listed.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="test data differ"):
        compare(listed, tmp_path / "o", protocol=protocol, model=weights)
    for text in ("{", "[]", '{"settings": 3}'):
        (tmp_path / "no.json").write_text(text)
        with pytest.raises(InputError, match="no protocol"):
            compare(folder, tmp_path / "o", protocol=tmp_path / "no.json")
    assert not (tmp_path / "o").exists()


SETTINGS: dict[str, Any] = {
    "methods": ["noisy", "median"], "noise": "gaussian", "levels": [15], "realisations": 1, "images": 0, "window": 128,
    "tissue": None, "repeats": False, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tissue", "abc"),
        ("tissue", float("nan")),
        ("tissue", 2),
        ("tissue", True),
        ("noise", [["a"]]),
        ("noise", 5),
        ("noise", None),
        ("noise", []),
        ("levels", None),
        ("levels", [10**400]),
        ("levels", [True]),
        ("levels", float("inf")),
        ("methods", 5),
        ("methods", "median"),
        ("methods", [5]),
        ("methods", ["dae=/etc/passwd"]),
        ("realisations", "5"),
        ("images", 1.5),
        ("window", None),
        ("window", 10**400),
        ("repeats", 1),
        ("seed", [0]),
        ("output", "elsewhere"),
        ("mod\nel", "/etc/passwd"),
    ],
)
def test_a_setting_of_a_protocol_that_is_wrong_is_named(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "protocol.json"
    path.write_text(json.dumps({"settings": SETTINGS}))
    assert comparing._read_protocol(path) == {"settings": SETTINGS}
    path.write_text(json.dumps({"protocol": {"settings": {**SETTINGS, key: value}}}))
    with pytest.raises(InputError, match="is no protocol") as caught:
        comparing._read_protocol(path)
    assert repr(key) in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 250 + len(str(path))


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '"abc"', "5", '{"protocol": []}', '{"protocol": {"settings": []}}', '{"settings": {"seed": 0}}'],
)
def test_what_is_no_protocol_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "protocol.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no protocol of a comparison"):
        comparing._read_protocol(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"realisations": 0}, "--realisations"),
        ({"images": -1}, "--images"),
        ({"window": 8}, "window of 8"),
        ({"workers": 0}, "--workers"),
        ({"noise": "gausian"}, "gausian"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_read(
    folder: Path, weights: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(folder, tmp_path / "o", weights, **options)


def test_an_output_inside_the_data_would_become_data(folder: Path, weights: str) -> None:
    with pytest.raises(UsageError, match="lies inside"):
        run(folder, folder / "out", weights)


@pytest.mark.usefixtures("undrawn")
def test_pairs_keep_their_noise_and_get_no_phantoms(
    folder: Path, weights: str, tmp_path: Path, mlflow_template: Path
) -> None:
    rng = np.random.default_rng(0)
    for source in sorted(folder.glob("*.png"))[:4]:
        clean = np.asarray(Image.open(source)).astype(float)
        for kind, values in (("original", clean), ("noisy", clean + rng.normal(0, 15, clean.shape))):
            (tmp_path / "pairs" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).save(
                tmp_path / "pairs" / kind / source.name
            )
    output = tmp_path / "out"
    output.mkdir()
    (output / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    found = run(tmp_path / "pairs", output, weights).results
    ((condition,), phantoms, observers) = (found[key] for key in ("conditions", "phantoms", "observers"))
    assert (condition["noise"], condition["images"]) == ("acquired", 3)
    assert condition["sigma"] * 255 == pytest.approx(15, rel=0.05)
    assert condition["repeats"]["scenes"] == 0
    assert (phantoms, observers) == ([], [])


def test_the_summary_says_better_where_all_patients_agree() -> None:
    """The words come from `comparisons`; here only that the right numbers reach them."""
    from meddenoise_monai.evaluation.conditions import Condition
    from meddenoise_monai.evaluation.methods import Method
    from meddenoise_monai.evaluation.scenes import Scene
    from meddenoise_monai.evaluation.study import Outcome

    rng = np.random.default_rng(0)
    methods = [Method("noisy", "input"), Method("dae", "network")]
    outcomes = []
    for number in range(20):
        scene = Scene("d", f"p{number}", "f", rng.random((32, 32)).astype(np.float32))
        base = dict.fromkeys(summary.METRICS, 0.0) | {"ms_ssim": None, "sigma": 0.1}
        values = {
            "noisy": {**base, "psnr": 20 + rng.random(), "ssim": 0.5},
            "dae": {**base, "psnr": 30 + rng.random(), "ssim": 0.5},
        }
        outcomes.append(Outcome("fidelity", {"condition": Condition("gaussian", 25), "scene": scene}, values))
    (condition,) = summary.summarise_study(outcomes, methods, "dae")["conditions"]
    words = {verdict["metric"]: verdict["word"] for verdict in condition["verdicts"]}
    assert words == {"psnr": "better", "ssim": "no difference shown"}
    assert condition["methods"]["dae"]["ms_ssim"] is None
    assert condition["methods"]["dae"]["psnr"]["mean"] == pytest.approx(30.5, abs=0.2)


@pytest.mark.parametrize("case", ["figures", "datalist"])
def test_results_never_overwrite_what_is_compared(case: str, tmp_path: Path) -> None:
    data = write_patients(tmp_path / "figures", 3)
    if case == "datalist":
        images = sorted(data.rglob("*.png"))
        data = tmp_path / "results.json"
        data.write_text(json.dumps({"test": [{"image": str(path), "patient": path.stem} for path in images]}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(UsageError, match="would be overwritten or removed"):
        compare(data, tmp_path, methods="median")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_negative_seed_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--seed -5"):
        compare(write_patients(tmp_path / "in", 2), tmp_path / "out", methods="median", seed=-5)
    assert not (tmp_path / "out").exists()


def test_files_for_the_networks_of_a_protocol_are_given_anew() -> None:
    assert comparing._with_files(["gaussian", "b", "dae"], "b=other.pt") == ["gaussian", "b=other.pt", "dae"]
    assert comparing._with_files(["gaussian", "dae"], None) == ["gaussian", "dae"]


@pytest.mark.usefixtures("undrawn")
def test_images_that_the_weights_know_are_named(
    folder: Path, weights: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = json.loads((folder / "datalist.json").read_text())["test"]
    digests = image_digests([{"image": folder / item["image"]} for item in test])
    known = tmp_path / "known.pt"
    known.write_bytes(Path(weights).read_bytes())
    known.with_suffix(".json").write_text(json.dumps({"training_images": list(digests)[:2]}))
    found = run(folder, tmp_path / "out", str(known), levels=10, methods=["dae"], realisations=1)
    assert found.results["protocol"]["judged_in_training"] == {"dae": 2}
    assert "2 of 5 test images are among those that" in caplog.text
    assert "2 judged images are among those that dae was trained on" in (tmp_path / "out/report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_cells_of_the_tables_are_no_formulas_and_guessed_patients_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "=1+1"
    data.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(noise).save(data / f"-cmd{number}.png")
    output = tmp_path / "out"
    compare(data, output, methods="median", levels=25, realisations=1, workers=1)
    assert "every image is taken for another patient" in caplog.text
    per_image, files = (
        list(csv.reader((output / f"{name}.csv").read_text().splitlines())) for name in ("per_image", "case_files")
    )
    assert {row[1] for row in per_image[1:]} == {row[1] for row in files[1:]} == {"'=1+1"}
    assert all(row[2].startswith("'-cmd") for row in files[1:])
