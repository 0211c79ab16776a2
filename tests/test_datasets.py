from __future__ import annotations

import hashlib
import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

from meddenoise_monai.datasets import (
    SPLITS,
    ImageDataset,
    collate_one,
    datalist_of,
    evenly,
    folder_datalist,
    input_items,
    list_images,
    patient_of,
    read_datalist,
    sample_datalist,
    split_patients,
    weights_of,
)
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.images import read_image
from tests.samples import write_patients

COHORT = [f"patient {number}" for number in range(120)]


def picture(path: Path, number: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.arange(64).reshape(8, 8) + number).astype(np.uint8)).save(path)
    return str(path)


# --- Splitting --------------------------------------------------------------------------------------------------------


def test_split_follows_the_fractions() -> None:
    split = list(split_patients(map(str, range(2000))).values())
    # Binomial: 4.5 standard deviations are 80 and 60 patients.
    assert split.count("training") == pytest.approx(1600, abs=80)
    assert split.count("validation") == pytest.approx(200, abs=60)
    assert split.count("test") == pytest.approx(200, abs=60)
    halves = list(split_patients(map(str, range(2000)), fractions=(0.5, 0.25, 0.25)).values())
    assert halves.count("training") == pytest.approx(1000, abs=100)


def test_patients_whose_names_are_no_unicode_are_split_and_the_others_stay() -> None:
    odd = ["M\udcfcller", "\ud800"]
    assert set(split_patients([*COHORT, *odd])) == {*COHORT, *odd}
    assert split_patients([*COHORT, *odd]) | split_patients(COHORT) == split_patients([*COHORT, *odd])


@given(st.sets(st.text(max_size=8), min_size=3, max_size=30), st.integers(0, 5))
def test_no_split_is_empty(patients: set[str], seed: int) -> None:
    split = split_patients(patients, seed)
    assert split.keys() == patients
    assert set(split.values()) == set(SPLITS)
    assert split == split_patients(sorted(patients, reverse=True), seed)


@settings(max_examples=60)
@given(st.sets(st.sampled_from(COHORT), min_size=3), st.sets(st.text(max_size=8), max_size=20))
def test_adding_patients_moves_nobody(some: set[str], new: set[str]) -> None:
    whole = split_patients(COHORT)
    assert {name: part for name, part in split_patients({*COHORT, *new}).items() if name in whole} == whole
    # In a part of the cohort, only patients who fill a split that would be empty stand elsewhere.
    part = split_patients(some)
    moved = [name for name in some if part[name] != whole[name]]
    empty = set(SPLITS) - {whole[name] for name in some}
    assert sorted(part[name] for name in moved) == sorted(empty)


def test_the_seed_changes_the_split() -> None:
    assert split_patients(COHORT, 0) != split_patients(COHORT, 1)
    assert split_patients([*COHORT, *COHORT], 1) == split_patients(COHORT, 1)


def test_the_split_of_today_is_that_of_yesterday() -> None:
    """Published weights were trained on a split that these names pin down."""
    split = split_patients([f"mdb{number:03}" for number in range(1, 41)])
    assert [name for name in split if split[name] == "validation"] == ["mdb002", "mdb014", "mdb024", "mdb035", "mdb040"]
    assert [name for name in split if split[name] == "test"] == ["mdb013", "mdb016", "mdb018", "mdb031"]


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "b", "a"]])
def test_too_few_patients(patients: list[str]) -> None:
    with pytest.raises(InputError, match=rf"{len(set(patients))} patient\(s\) cannot be split"):
        split_patients(patients)


# --- Folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("mdb001.pgm", "mdb001"),
        ("a.nii.gz", "a"),
        ("anna/left.png", "anna"),
        ("anna/2021/left.png", "anna"),
        ("train/anna/left.png", "anna"),
        ("Images/Test/anna/x.png", "anna"),
        ("train/a.png", "a"),
        ("val/images/b.png", "b"),
        ("noisy/a.tif", "a"),
        ("clean/a.tif", "a"),
    ],
)
def test_patient_of_a_place(tmp_path: Path, name: str, patient: str) -> None:
    picture(tmp_path / "x.png")
    assert patient_of(tmp_path / name, tmp_path) == patient


def test_patient_of_dicom_is_a_hash_of_the_header(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for name, patient, study in [
        ("1.dcm", "Anna", "1.2"),
        ("b/2", "Anna", "1.3"),
        ("3", "", "1.2"),
        ("4.IMA", "", "1.2"),
    ]:
        dataset.PatientID, dataset.StudyInstanceUID = patient, study
        (tmp_path / name).parent.mkdir(exist_ok=True)
        dataset.save_as(tmp_path / name)
    patients = {Path(item["image"]).name: item["patient"] for item in list_images(tmp_path)}
    assert patients["1.dcm"] == patients["2"] == hashlib.sha256(b"Anna").hexdigest()[:12]
    assert patients["3"] == patients["4.IMA"] == hashlib.sha256(b"1.2").hexdigest()[:12]
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    assert patient_of(tmp_path / "broken.dcm", tmp_path) == "broken"


def test_folder_datalist_splits_by_patient(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / "train" / f"p{number}" / "a.png", number)
        picture(tmp_path / "test" / f"p{number}" / "b.png", number)
    datalist = folder_datalist(tmp_path)
    owners = {part: {item["patient"] for item in datalist[part]} for part in SPLITS}
    assert sum(map(len, datalist.values())) == 24
    assert set.union(*owners.values()) == {f"p{number}" for number in range(12)}
    assert sum(map(len, owners.values())) == 12
    assert all(len(datalist[part]) == 2 * len(owners[part]) > 0 for part in SPLITS)
    assert datalist == folder_datalist(tmp_path)
    assert datalist != folder_datalist(tmp_path, seed=3)


def test_input_items(tmp_path: Path) -> None:
    names = [picture(tmp_path / name) for name in ("a.png", "b/c.png")]
    assert input_items(str(tmp_path)) == [{"image": name} for name in names]
    with pytest.raises(UsageError, match="no input folder"):
        input_items("")
    with pytest.raises(InputError, match="no such folder"):
        input_items(str(tmp_path / "none"))


# --- Datalists --------------------------------------------------------------------------------------------------------


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_read_datalist(tmp_path: Path) -> None:
    outside = picture(tmp_path / "elsewhere" / "x.png")
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        picture(tmp_path / "data" / name)
    content = {
        "training": [{"image": "a.png", "patient": 7, "age": 50}, {"image": "sub/b.png", "label": "sub/c.png"}],
        "validation": [{"image": outside, "label": None, "patient": None}],
        "test": None,
        "name": "mine",
    }
    data = tmp_path / "data"
    assert read_datalist(write(data / "list.json", content)) == {
        "training": [
            {"image": str(data / "a.png"), "patient": 7, "age": 50, "paired": False},
            {"image": str(data / "sub/b.png"), "label": str(data / "sub/c.png"), "paired": True},
        ],
        "validation": [{"image": outside, "paired": False}],
        "test": [],
    }


A, B = {"image": "a.png"}, {"image": "b.png"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read the datalist"),
        ("\ufeff{}", "cannot read the datalist"),
        ("[" * 200_000, "cannot read the datalist .*nested too deeply"),
        ([A], "lists no images"),
        ({}, "lists no images"),
        ({"training": [], "test": []}, "lists no images"),
        ({"train": [A]}, "lists no images"),
        ({"training": "a.png"}, "'training' is not a list"),
        ({"training": ["a.png"]}, "an item of 'training' names no image: 'a.png'"),
        ({"training": [{"label": "a.png"}]}, "an item of 'training' names no image"),
        ({"training": [A, {"image": "c.png"}, {"image": "d.png"}]}, r"names 2 missing file\(s\), first .*c\.png"),
        ({"training": [{**A, "label": "c.png"}]}, r"names 1 missing file\(s\), first .*c\.png"),
        ({"training": [{**A, "patient": 1}], "test": [{**B, "patient": "1"}]}, "patient '1' is in 'training' and in"),
        ({"training": [A], "validation": [B], "test": [A]}, r"image .*a\.png' is in 'training' and in 'test'"),
    ],
)
def test_datalists_that_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        read_datalist(write(tmp_path / "list.json", content))
    assert "list.json" in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_datalist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such datalist: .*none\.json"):
        read_datalist(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot read the datalist"):
        read_datalist(tmp_path)


def test_datalist_of(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / "data" / f"{name}.png", ord(name))
    folder = str(tmp_path / "data")
    path = write(tmp_path / "list.json", {"training": [{"image": "data/a.png"}]})
    assert datalist_of(datalist=str(path)) == read_datalist(path)
    assert datalist_of(folder, seed=2) == folder_datalist(folder, 2)
    assert datalist_of() == datalist_of("", "") == sample_datalist()
    with pytest.raises(UsageError, match="both given"):
        datalist_of(folder, str(path))
    with pytest.raises(InputError, match="no such folder"):
        datalist_of(str(tmp_path / "none"))
    write(tmp_path / "data" / "datalist.json", {"test": [{"image": "b.png"}]})
    assert datalist_of(folder)["test"] == [{"image": str(tmp_path / "data" / "b.png"), "paired": False}]


# --- The embedded samples ---------------------------------------------------------------------------------------------


def test_sample_images_exist_and_are_in_one_split_alone() -> None:
    owner: dict[str, str] = {}
    counts = {}
    for part, items in sample_datalist().items():
        counts[part] = len(items)
        for item in items:
            digest = hashlib.sha256(Path(item["image"]).read_bytes()).hexdigest()
            assert owner.setdefault(digest, f"{part} {item['image']}") == f"{part} {item['image']}"
    assert counts == {"training": 13, "validation": 3, "test": 3}
    assert len(owner) == 19


def test_sample_pixels_are_readable_and_in_one_split_alone() -> None:
    seen: dict[bytes, str] = {}
    for items in sample_datalist().values():
        for item in items:
            array = read_image(item["image"]).array
            assert min(array.shape[-2:]) >= 24
            digest = hashlib.sha256(array.astype(np.float32).tobytes()).digest()
            assert seen.setdefault(digest, item["image"]) == item["image"]


def test_samples_that_an_installation_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    present = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: path.name != "cell.png" and present(path))
    assert len(sample_datalist()["training"]) == 12
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    with pytest.raises(InputError, match="no embedded sample images for training"):
        sample_datalist()


# --- The dataset ------------------------------------------------------------------------------------------------------


class Load:
    """Reads a picture and counts how often."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.count += 1
        return {**item, "image": torch.from_numpy(read_image(item["image"]).array[None].copy())}


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    return [{"image": picture(tmp_path / f"{number}.png", number)} for number in range(6)]


def test_images_are_read_once_in_order(items: list[dict[str, Any]]) -> None:
    load = Load()
    dataset = ImageDataset(items, load, num_threads=3)
    assert len(dataset) == 6
    for _ in range(2):
        assert [int(item["image"][0, 0, 0]) for item in dataset] == list(range(6))
    assert load.count == 6
    assert dataset.skipped == 0
    assert dataset.data == items
    assert dataset[-1]["image"][0, 0, 0] == 5
    with pytest.raises(IndexError):
        dataset[6]


def test_the_transform_runs_at_each_access_and_cannot_spoil_the_cache(items: list[dict[str, Any]]) -> None:
    def transform(item: dict[str, Any]) -> list[dict[str, Any]]:
        item["image"] = item["image"].float() + float(torch.rand(()))
        return [item, item]

    dataset = ImageDataset(items, Load(), transform)
    first, second = dataset[0], dataset[0]
    assert len(first) == 2
    assert not torch.equal(first[0]["image"], second[0]["image"])
    assert torch.equal(ImageDataset(items, Load())[0]["image"][0, 0], torch.arange(8, dtype=torch.uint8))


@pytest.mark.parametrize(("budget", "reads"), [(0.0, 12), (64 * 2 / 2**30, 10), (1.0, 6)])
def test_what_does_not_fit_the_budget_is_read_again(items: list[dict[str, Any]], budget: float, reads: int) -> None:
    load = Load()
    dataset = ImageDataset(items, load, max_cache_gib=budget)
    assert load.count == 6
    assert [int(item["image"][0, 0, 0]) for item in dataset] == list(range(6))
    assert load.count == reads


def test_a_large_image_leaves_room_for_small_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.arange(10000).reshape(100, 100))
    load = Load()
    items = [{"image": str(tmp_path / "large.npy")}, {"image": picture(tmp_path / "a.png")}]
    dataset = ImageDataset(items, load, max_cache_gib=100 / 2**30)
    assert len(list(dataset)) == 2
    assert load.count == 3


def test_broken_files_are_skipped_named_and_counted(
    items: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from monai.transforms import Compose

    (tmp_path / "broken.png").write_bytes(b"x")
    data = [items[0], {"image": str(tmp_path / "broken.png")}, {"image": str(tmp_path / "gone.png")}, items[1]]
    for load in (Load(), Compose([Load()])):  # MONAI wraps what a transform raises
        caplog.clear()
        dataset = ImageDataset(data, load, name="training images")
        assert dataset.data == [items[0], items[1]]
        assert dataset.skipped == 2
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
        first, second, last = (record.getMessage() for record in caplog.records)
        assert "broken.png" in first
        assert "no such file" in second
        assert "gone.png" in second
        assert last == "training images: 2 of 4 files skipped"
        with pytest.raises(InputError, match=r"broken\.png"):
            ImageDataset(data, load, strict=True)


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test images: none of 1 file\(s\) can be used"):
        ImageDataset([{"image": str(tmp_path / "gone.png")}], Load(), name="test images")
    with pytest.raises(InputError, match="images: none are given"):
        ImageDataset([], Load())


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_fault_of_the_program_is_not_hidden(items: list[dict[str, Any]], wrapped: bool) -> None:
    from monai.transforms import Compose

    class Faulty(Load):
        def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
            super().__call__(item)
            raise KeyError("a mistake")

    faulty = Faulty()
    with pytest.raises(RuntimeError if wrapped else KeyError) as caught:
        ImageDataset(items * 100, Compose([faulty]) if wrapped else faulty, num_threads=1)
    assert "a mistake" in str(caught.value.__cause__ if wrapped else caught.value)
    assert faulty.count < 600  # the rest is not read first


def test_collate_one() -> None:
    batch = collate_one([{"image": torch.zeros(1, 4, 5), "source": "a.png", "scale": torch.zeros(3)}])
    assert batch["image"].shape == (1, 1, 4, 5)
    assert batch["scale"].shape == (1, 3)
    assert batch["source"] == ["a.png"]


def test_folder_of_single_images_warns_that_patients_are_a_guess(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_patients(tmp_path / "flat", count=4, size=16)
    folder_datalist(tmp_path / "flat")
    assert "every image is taken for another patient" in caplog.text
    caplog.clear()
    for number, path in enumerate(sorted((tmp_path / "flat").iterdir())):
        target = tmp_path / "nested" / f"p{number % 3}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    folder_datalist(tmp_path / "nested")
    assert "another patient" not in caplog.text


def test_weights_are_one_unless_given() -> None:
    assert weights_of([{"image": "a"}, {"image": "b", "weight": 2}, {"image": "c", "weight": 0.5}]) == [1.0, 2.0, 0.5]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), True, "2", None])
def test_weights_that_are_none_are_refused(weight: object) -> None:
    with pytest.raises(InputError, match=r"a\.png: the weight"):
        weights_of([{"image": "a.png", "weight": weight}])


def test_evenly_spreads_and_never_exceeds() -> None:
    items = [{"image": str(number)} for number in range(10)]
    assert [item["image"] for item in evenly(items, 4)] == ["0", "2", "5", "7"]
    assert evenly(items, 99) == items
    assert evenly([], 3) == []
