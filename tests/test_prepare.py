from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from meddenoise_monai import candidates
from meddenoise_monai import prepare as module
from meddenoise_monai.datasets import SPLITS, read_datalist, split_patients
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.identity import data_fingerprint
from meddenoise_monai.prepare import PrepareSummary, parse_mias_info, prepare
from meddenoise_monai.public_data import COLLECTIONS
from tests.sources import INFO, bmp, dx, mias, pgm, picture, png, tar, tree, write, zipped


def items(summary: PrepareSummary) -> list[dict[str, Any]]:
    content = json.loads(summary.datalist.read_text())
    return [item for part in SPLITS for item in content[part]]


@pytest.fixture(autouse=True)
def _nothing_half_made(tmp_path: Path) -> Iterator[None]:
    yield
    assert [p for p in tmp_path.rglob(".*") if p.suffix in (".partial", ".old") or p.name.startswith(".tmp-")] == []


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that mini-MIAS has 8 films, so that a small archive is complete."""
    monkeypatch.setitem(COLLECTIONS, "mini_mias", replace(COLLECTIONS["mini_mias"], films=8))


@pytest.fixture
def small_dx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COLLECTIONS, "dx", replace(COLLECTIONS["dx"], shape=(24, 19)))


# --- mini-MIAS --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "./", "all-mias/"])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_mini_mias_archive(tmp_path: Path, films: None, prefix: str, pack: Callable[..., Path]) -> None:
    source = pack(
        tmp_path / ("all-mias.tar.gz" if pack is tar else "m.zip"), {prefix + k: v for k, v in mias().items()}
    )
    before = source.read_bytes()
    summary = prepare("mini_mias", source, tmp_path / "out", strict=True)
    content = json.loads(summary.datalist.read_text())

    assert source.read_bytes() == before
    assert sum(summary.images.values()) == 8
    assert sum(summary.patients.values()) == 4
    assert content["counts"] == {
        "images": summary.images, "patients": summary.patients, "skipped": 0, "missing": 0
    }  # fmt: skip
    assert content["archive_sha256"] == summary.archive_sha256 == hashlib.sha256(before).hexdigest()
    assert content["name"] == "mini-MIAS"
    assert content["seed"] == 0
    assert "Suckling" in content["licence"]
    for item in items(summary):
        assert not Path(item["image"]).is_absolute()
        number = int(item["image"][-7:-4])
        assert item["patient"] == f"mias-{(number + 1) // 2:03d}"
        # the file is the archive's, bit for bit
        assert (tmp_path / "out" / item["image"]).read_bytes() == pgm(number)
    assert content["fingerprint"] == data_fingerprint(
        {"image": str(tmp_path / "out" / i["image"])} for i in items(summary)
    )
    unpacked = [Path(name).name for name in tree(tmp_path / "out")]
    assert sorted(unpacked) == sorted(["datalist.json", "Info.txt", *(f"mdb{n:03d}.pgm" for n in range(1, 9))])


def test_the_datalist_is_read_by_monai_and_by_the_package(tmp_path: Path, films: None) -> None:
    from monai.data import load_decathlon_datalist

    summary = prepare("mini_mias", tar(tmp_path / "a.tgz", mias()), tmp_path / "out")
    ours = read_datalist(summary.datalist)
    for part in SPLITS:
        theirs = load_decathlon_datalist(str(summary.datalist), True, part)
        assert [i["image"] for i in theirs] == [i["image"] for i in ours[part]]
        assert len(theirs) == summary.images[part] > 0


def test_mini_mias_folder_stays_where_it_is_and_is_found_relatively(tmp_path: Path, films: None) -> None:
    source = write(tmp_path / "data" / "mias", mias())
    before = tree(source)
    summary = prepare("mini_mias", source, tmp_path / "out")
    assert tree(source) == before
    assert list(tree(tmp_path / "out")) == ["datalist.json"]
    assert {i["image"] for i in items(summary)} == {f"../data/mias/mdb{n:03d}.pgm" for n in range(1, 9)}
    assert summary.archive_sha256 is None
    read_datalist(summary.datalist)  # raises if a file is missing

    far = prepare("mini_mias", source, tmp_path / "a" / "b" / "c" / "out")
    assert all(Path(i["image"]).is_absolute() for i in items(far))
    assert far.fingerprint == summary.fingerprint


def test_lesions_count_from_the_top_left(tmp_path: Path, films: None) -> None:
    summary = prepare("mini_mias", tar(tmp_path / "a.tgz", mias()), tmp_path / "out")
    lesions = {int(i["image"][-7:-4]): i.get("lesions") for i in items(summary)}
    assert lesions[1] == [{"class": "CIRC", "severity": "B", "x": 535, "y": 1023 - 425, "radius": 197}]
    assert lesions[3] == lesions[4] == []
    assert [lesion["x"] for lesion in lesions[5] or []] == [477, 500]
    nowhere = {"severity": "M", "x": None, "y": None, "radius": None}
    assert lesions[6] == [{"class": "CALC", **nowhere}]
    assert lesions[7] == [{"class": "CIRC", **nowhere, "severity": "B"}]
    assert lesions[8] is None  # not in Info.txt: unknown is not the same as none


def test_info_lines_that_cannot_be_understood_are_named(
    tmp_path: Path, films: None, caplog: pytest.LogCaptureFixture
) -> None:
    bad = INFO + "mdb008 G CIRC B 12 13\nmdb009 Q NORM\nmdb0010 G NORM\r\nsee mdb001\n"
    lesions, problems = parse_mias_info(bad)
    assert sorted(lesions) == [1, 2, 3, 4, 5, 6, 7]
    assert [p.split(":")[0] for p in problems] == ["line 12 cannot be understood", "line 13 cannot be understood"]
    source = write(tmp_path / "mias", mias() | {"Info.txt": bad.encode()})
    with pytest.raises(InputError, match=r"Info\.txt: line 12 cannot be understood"):
        prepare("mini_mias", source, tmp_path / "out", strict=True)
    assert prepare("mini_mias", source, tmp_path / "out").skipped == ()
    assert "mdb009 Q NORM" in caplog.text


def test_info_is_optional(tmp_path: Path, films: None, caplog: pytest.LogCaptureFixture) -> None:
    files = mias()
    del files["Info.txt"]
    summary = prepare("mini_mias", write(tmp_path / "mias", files), tmp_path / "out")
    assert "no Info.txt" in caplog.text
    assert all("lesions" not in item for item in items(summary))


@pytest.fixture(scope="session")
def real_mias() -> Path:
    folder = Path(os.environ.get("MEDDENOISE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"), "mini_mias")
    if not folder.is_dir():
        pytest.skip("needs the mini-MIAS films: set MEDDENOISE_DATA")
    return folder.resolve()


def test_the_real_info_txt(real_mias: Path) -> None:
    lesions, problems = parse_mias_info((real_mias / "Info.txt").read_text())
    assert problems == []
    assert sorted(lesions) == list(range(1, 323))
    # Oliver's thesis and the database's own summary: 207 normal films
    assert sum(not found for found in lesions.values()) == 207
    assert sorted(n for n, found in lesions.items() if any(f["x"] is None for f in found)) == [59, 216, 233, 245]
    assert len(lesions[226]) == 3


def test_real_lesions_lie_in_the_breast_not_in_the_background(real_mias: Path) -> None:
    lesions, _ = parse_mias_info((real_mias / "Info.txt").read_text())
    ours, unturned = [], []
    for number in [n for n in sorted(lesions) if lesions[n]][:40]:
        path = real_mias / f"mdb{number:03d}.png"
        if path.is_file():
            image = np.asarray(Image.open(path))
            for lesion in lesions[number]:
                if lesion["x"] is not None:
                    ours.append(int(image[lesion["y"], lesion["x"]]))
                    unturned.append(int(image[1023 - lesion["y"], lesion["x"]]))
    assert len(ours) > 20
    assert min(ours) > 40
    assert np.mean(ours) > np.mean(unturned) + 20


def test_missing_films_are_counted_named_and_refused_when_strict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "mias", mias([1, 2, 3, 4, 7, 8, 322]))
    summary = prepare("mini_mias", source, tmp_path / "out")
    assert summary.missing == 322 - 7
    assert "315 of 322 films are missing: 005-006, 009-321" in caplog.text
    with pytest.raises(InputError, match="315 of 322"):
        prepare("mini_mias", source, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


BAD_FILMS = {
    "small": (pgm(1, 1000), "1000x1000 pixels of uint8, not 1024x1024"),
    "deep": (b"P5\n1024 1024\n65535\n" + np.arange(2**20).astype(">u2").tobytes(), "uint16"),
    "truncated": (pgm(1)[:5000], "cannot be read"),
    "text": (b"<html>404</html>", "cannot be read"),
    "empty": (b"", "cannot be read"),
    "constant": (b"P5\n1024 1024\n255\n" + bytes(2**20), "same value"),
}


@pytest.mark.parametrize("fault", BAD_FILMS)
def test_a_bad_film_is_named_skipped_and_counted(
    tmp_path: Path, films: None, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    content, reason = BAD_FILMS[fault]
    source = tar(tmp_path / "a.tar", mias() | {"mdb005.pgm": content})
    summary = prepare("mini_mias", source, tmp_path / "out")
    [(name, why)] = summary.skipped
    assert name == "mdb005.pgm"
    assert reason in why
    assert "skipped mdb005.pgm" in caplog.text
    assert str(tmp_path) not in caplog.text  # the folder that an archive is unpacked to is gone afterwards
    assert sum(summary.images.values()) == 7
    assert json.loads(summary.datalist.read_text())["counts"]["skipped"] == 1
    assert not (tmp_path / "out" / "images" / "mdb005.pgm").exists()
    with pytest.raises(InputError, match=r"^mdb005\.pgm: ") as error:
        prepare("mini_mias", source, tmp_path / "strict", strict=True)
    assert "--strict" in error.value.hint
    assert not (tmp_path / "strict").exists()


def test_a_film_that_is_there_twice_and_strangers(
    tmp_path: Path, films: None, caplog: pytest.LogCaptureFixture
) -> None:
    extra = {"more/MDB001.PGM": pgm(1), "thumbnail.png": png(1), "mdb999.pgm": pgm(9)}
    summary = prepare("mini_mias", write(tmp_path / "m", mias() | extra), tmp_path / "out")
    assert sum(summary.images.values()) == 8
    assert summary.skipped == (("more/MDB001.PGM", "the same film as mdb001.pgm"),)
    assert "2 image file(s) are no films" in caplog.text


def test_two_patients_with_the_same_pixels_are_a_leak(tmp_path: Path, films: None) -> None:
    summary = prepare("mini_mias", write(tmp_path / "m", mias() | {"mdb007.pgm": pgm(2)}), tmp_path / "out")
    assert summary.skipped == (("mdb007.pgm", "the same file as mdb002.pgm, which is another patient's"),)
    # the other film of one woman may well be the same (black) image
    again = prepare("mini_mias", write(tmp_path / "m2", mias() | {"mdb008.pgm": pgm(7)}), tmp_path / "out2")
    assert again.skipped == ()


@pytest.fixture(scope="module")
def thirty_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("films"), mias(range(1, 31)))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.sets(st.integers(1, 30), min_size=8), seed=st.integers(0, 5))
def test_no_woman_is_on_both_sides(
    thirty_films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: set[int], seed: int
) -> None:
    # The pixels do not matter here; reading them would take minutes.
    fake = type("Fake", (), {"array": np.zeros((1024, 1024), np.uint8)})
    monkeypatch.setattr(candidates, "read_image", lambda path: fake)
    source = tmp_path / "subset"
    source.mkdir(exist_ok=True)
    for old in source.iterdir():
        old.unlink()
    for number in numbers:
        os.link(thirty_films / f"mdb{number:03d}.pgm", source / f"mdb{number:03d}.pgm")
    summary = prepare("mini_mias", source, tmp_path / "out", seed=seed, overwrite=True)
    where: dict[int, set[str]] = {}
    content = json.loads(summary.datalist.read_text())
    for part in SPLITS:
        assert content[part]
        for item in content[part]:
            where.setdefault((int(item["image"][-7:-4]) - 1) // 2, set()).add(part)
    assert all(len(parts) == 1 for parts in where.values())
    assert set(where) == {(n - 1) // 2 for n in numbers}


def test_same_seed_same_bytes_other_seed_other_split(tmp_path: Path, films: None) -> None:
    source = tar(tmp_path / "a.tgz", mias())
    first, second = (prepare("mini_mias", source, tmp_path / name).datalist.read_bytes() for name in "ab")
    assert first == second
    others = {prepare("mini_mias", source, tmp_path / f"s{s}", seed=s).datalist.read_bytes() for s in range(1, 4)}
    assert first not in others


# --- DX ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["parent", "itself", "zip", "tar", "windows zip"])
def test_dx_layouts(tmp_path: Path, small_dx: None, caplog: pytest.LogCaptureFixture, how: str) -> None:
    files = dx() | {"RawImage/TrainingData/Thumbs.db": b"x", "AnnotationsByMD/400_senior/001.txt": b"835,996"}
    mac = {"__MACOSX/RawImage/TrainingData/._001.bmp": b"resource fork"}
    if how in ("parent", "itself"):
        source = write(tmp_path / "src", files)
        source = source / "RawImage" if how == "itself" else source
    elif how == "tar":
        source = tar(tmp_path / "RawImage.tar.gz", files | mac)
    else:
        names = {k.replace("/", "\\") if how == "windows zip" else k: v for k, v in (files | mac).items()}
        source = zipped(tmp_path / "RawImage.zip", names)
    summary = prepare("dx", source, tmp_path / "out")
    found = items(summary)
    assert {i["patient"] for i in found} == {f"dx-{n:03d}" for n in (1, 2, 3, 150, 151, 300, 301, 400)}
    assert {i["patient"]: i["subset"] for i in found}["dx-300"] == "Test1Data"
    assert summary.missing == 392
    assert "392 of 400 films are missing: 004-149, 152-299, 302-399" in caplog.text
    assert summary.skipped == ()
    for item in found:
        assert (tmp_path / "out" / item["image"]).read_bytes() == bmp(int(item["patient"][-3:]))
    if summary.archive_sha256:
        assert {Path(n).suffix for n in tree(tmp_path / "out")} == {".bmp", ".json"}


def test_dx_films_have_their_true_size(tmp_path: Path) -> None:
    files = {f"TrainingData/{n:03d}.bmp": bmp(n, 2400, 1935) for n in (1, 2, 3)}
    files["TrainingData/004.bmp"] = bmp(4, 1935, 2400)
    summary = prepare("dx", write(tmp_path / "RawImage", files), tmp_path / "out")
    assert summary.images == {"training": 1, "validation": 1, "test": 1}
    assert summary.skipped == (("TrainingData/004.bmp", "2400x1935 pixels of uint8, not 1935x2400 of uint8"),)


def test_dx_films_in_colour_or_in_the_wrong_place(tmp_path: Path, small_dx: None) -> None:
    files = dx() | {"RawImage/TrainingData/002.bmp": bmp(2, grey=False), "RawImage/Test1Data/077.bmp": bmp(77)}
    summary = prepare("dx", write(tmp_path / "src", files), tmp_path / "out")
    assert summary.skipped == (("RawImage/TrainingData/002.bmp", "the image is in colour"),)
    assert "dx-077" not in {i["patient"] for i in items(summary)}


def test_other_cephalograms_are_never_called_dx(tmp_path: Path) -> None:
    source = write(tmp_path / "ceph", {f"{n:03d}.png": png(n) for n in range(1, 9)})
    with pytest.raises(InputError, match="holds no film of DX") as error:
        prepare("dx", source, tmp_path / "out")
    assert "TrainingData/001.bmp" in error.value.hint


# --- any folder -------------------------------------------------------------------------------------------------------


def dicom(path: Path, patient: str | None, number: int, study: str = "1.2.3.4") -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    if patient is not None:
        dataset.PatientID = patient
        dataset.PatientName = f"Name^Of^{patient}"
    dataset.StudyInstanceUID = study
    dataset.Modality = "CT"
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = picture(number, 16, 16).astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_dicom_patients_are_hashed_and_never_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = tmp_path / "scans"
    for number in range(12):
        # the folder says otherwise; the header is right. One file has no suffix.
        dicom(source / f"series{number % 2}" / (f"{number}.dcm" if number else "IM0001"), f"MRN-77{number % 4}", number)
    summary = prepare("folder", source, tmp_path / "out")
    expected = {hashlib.sha256(f"MRN-77{n}".encode()).hexdigest()[:12] for n in range(4)}
    assert {i["patient"] for i in items(summary)} == expected
    assert sum(summary.patients.values()) == 4
    assert sum(summary.images.values()) == 12
    for text in (summary.datalist.read_text(), str(summary), json.dumps(summary.as_dict()), caplog.text):
        assert "MRN" not in text
        assert "Name^" not in text


def test_dicom_without_patient_goes_by_study(tmp_path: Path) -> None:
    for number in range(8):
        dicom(tmp_path / "s" / f"{number}.dcm", ("", None)[number % 2], number, study=f"1.2.{number // 2}")
    summary = prepare("folder", tmp_path / "s", tmp_path / "out")
    assert sum(summary.patients.values()) == 4
    assert {i["patient"] for i in items(summary)} == {
        hashlib.sha256(f"1.2.{n}".encode()).hexdigest()[:12] for n in range(4)
    }


def test_folder_patients_are_subfolders_else_stems(tmp_path: Path) -> None:
    names = ["anna/1.png", "anna/deep/2.png", "bob/1.PNG", "train/carla/x.png", "images/dora.png", "emil.png"]
    source = write(tmp_path / "src", {name: png(n) for n, name in enumerate(names)} | {"notes.txt": b"no image"})
    volume = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    nibabel.save(volume, source / "fred.nii.gz")
    summary = prepare("folder", source, tmp_path / "out")
    patients = {i["image"].removeprefix("../src/"): i["patient"] for i in items(summary)}
    assert patients == {
        "anna/1.png": "anna", "anna/deep/2.png": "anna", "bob/1.PNG": "bob", "train/carla/x.png": "carla",
        "images/dora.png": "dora", "emil.png": "emil", "fred.nii.gz": "fred",
    }  # fmt: skip


def test_a_guess_at_patients_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(tmp_path / "src", {f"mdb00{n}.png": png(n) for n in range(1, 7)})
    prepare("folder", source, tmp_path / "guessed")
    assert "every image is taken for another patient" in caplog.text
    assert "--patient_pattern" in caplog.text
    caplog.clear()
    prepare("folder", source, tmp_path / "told", patient_pattern="(.*)")
    assert "another patient" not in caplog.text


def test_patient_pattern(tmp_path: Path) -> None:
    names = [f"train/p{n // 2}_slice{n}.png" for n in range(8)]
    source = write(tmp_path / "src", {name: png(n) for n, name in enumerate(names)})
    summary = prepare("folder", source, tmp_path / "out", patient_pattern=r"^(p\d+)_")
    assert {i["patient"] for i in items(summary)} == {"p0", "p1", "p2", "p3"}
    with pytest.raises(UsageError, match=r"finds no patient in 'p0_slice0'"):
        prepare("folder", source, tmp_path / "bad", patient_pattern=r"^q(\d+)_")
    for wrong, why in (("(", "missing"), (r"p\d+", "0 groups"), (r"(p)(\d)", "2 groups")):
        with pytest.raises(UsageError, match=why):
            prepare("folder", source, tmp_path / "bad", patient_pattern=wrong)
    with pytest.raises(UsageError, match="does not go with 'dx'"):
        prepare("dx", source, tmp_path / "bad", patient_pattern="(a)")
    assert not (tmp_path / "bad").exists()


def test_folder_from_an_archive(tmp_path: Path) -> None:
    buffer = tmp_path / "x.dcm"
    dicom(buffer, "secret", 1)
    scanner = Path(nibabel.__file__).parent / "tests" / "data" / "phantom_EPI_asc_CLEAR_2_1.PAR"
    files = {
        "a/1.png": png(1),
        "b/2.png": png(2),
        "c/IM1": buffer.read_bytes(),
        "d/v.PAR": scanner.read_bytes(),
        "d/v.REC": scanner.with_suffix(".REC").read_bytes(),  # the pixels of v.PAR
        "e/broken.png": b"?",
        "run.sh": b"#!/bin/sh",
    }
    summary = prepare("folder", zipped(tmp_path / "a.zip", files), tmp_path / "out")
    found = {i["image"]: i["patient"] for i in items(summary)}
    assert found == {
        "images/a/1.png": "a",
        "images/b/2.png": "b",
        "images/d/v.PAR": "d",
        "images/c/IM1": hashlib.sha256(b"secret").hexdigest()[:12],
    }
    assert [name for name, _ in summary.skipped] == ["e/broken.png"]
    assert sorted(tree(tmp_path / "out")) == sorted([*found, "images/d/v.REC", "datalist.json"])
    assert not (tmp_path / "out" / "images" / "e").exists()


def test_adding_images_moves_nobody(tmp_path: Path) -> None:
    source = write(tmp_path / "src", {f"p{n}.png": png(n) for n in range(30)})
    before = {i["patient"] for i in json.loads(prepare("folder", source, tmp_path / "a").datalist.read_text())["test"]}
    write(source, {f"new{n}.png": png(100 + n) for n in range(10)})
    after = {i["patient"] for i in json.loads(prepare("folder", source, tmp_path / "b").datalist.read_text())["test"]}
    assert before
    assert before == {p for p in after if p.startswith("p")}
    assert before == {p for p, part in split_patients(f"p{n}" for n in range(30)).items() if part == "test"}


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "no images in"),
        ({"readme.txt": b"x"}, "no images in"),
        ({"a.png": b"?", "b.png": b""}, r"none of 2 image\(s\) can be used, first a.png"),
        ({"a.png": png(1), "b.png": png(2)}, r"2 patient\(s\) cannot be split"),
    ],
)
def test_a_folder_without_enough_images(tmp_path: Path, files: dict[str, bytes], match: str) -> None:
    source = write(tmp_path / "src", files)
    source.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=match):
        prepare("folder", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_a_broken_archive_nothing_stays(tmp_path: Path) -> None:
    source = tar(tmp_path / "a.tgz", mias([1, 2, 3, 4]))
    source.write_bytes(source.read_bytes()[:-2000])
    (tmp_path / "void.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    for name, match in (("a.tgz", "damaged"), ("void.zip", "no images in")):
        with pytest.raises(InputError, match=match):
            prepare("mini_mias", tmp_path / name, tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "void.zip"]


# --- output and arguments ---------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_unless_overwrite(tmp_path: Path, films: None) -> None:
    source = tar(tmp_path / "a.tgz", mias())
    prepare("mini_mias", source, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match="not empty") as error:
        prepare("mini_mias", source, tmp_path / "out", seed=1)
    assert "--overwrite" in error.value.hint
    assert tree(tmp_path / "out") == before
    prepare("mini_mias", source, tmp_path / "out", seed=1, overwrite=True)
    assert json.loads((tmp_path / "out" / "datalist.json").read_text())["seed"] == 1


def test_overwrite_removes_only_what_prepare_made(tmp_path: Path) -> None:
    source = write(tmp_path / "src", {f"{n}.png": png(n) for n in range(4)})
    for files in ({"thesis.docx": b"x"}, {"datalist.json": b"{}", "thesis.docx": b"x"}, {"images/a.png": png(1)}):
        out = write(tmp_path / f"out{len(files)}{next(iter(files))[:2]}", files)
        with pytest.raises(InputError, match="was not made by prepare"):
            prepare("folder", source, out, overwrite=True)
        assert tree(out) == files
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        prepare("folder", source, tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    prepare("folder", source, tmp_path / "empty")
    assert (tmp_path / "empty" / "datalist.json").is_file()


def test_source_and_output_must_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "src", {f"{n}.png": png(n) for n in range(4)})
    inside = write(tmp_path / "out", {"datalist.json": b"{}", "images/a.tar": b"x" * 600}) / "images" / "a.tar"
    for src, out in ((source, source / "out"), (inside, tmp_path / "out"), (inside.parent, tmp_path / "out")):
        with pytest.raises(UsageError, match="lie in each other"):
            prepare("folder", src, out, overwrite=True)
    (tmp_path / "alias").symlink_to(source)
    with pytest.raises(UsageError, match="lie in each other"):
        prepare("folder", source, tmp_path / "alias" / "out")
    assert sorted(p.name for p in source.iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    assert inside.is_file()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("bug"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("where", ["unpack", "check", "split_patients", "data_fingerprint", "_take_place"])
@pytest.mark.parametrize("old", [False, True])
def test_whatever_happens_the_output_is_whole(
    tmp_path: Path, films: None, monkeypatch: pytest.MonkeyPatch, failure: BaseException, where: str, old: bool
) -> None:
    source = tar(tmp_path / "a.tgz", mias())
    if old:
        prepare("mini_mias", source, tmp_path / "out")
    before = tree(tmp_path)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise failure

    monkeypatch.setattr(module, where, fail)
    with pytest.raises(InputError if isinstance(failure, OSError) else type(failure)):
        prepare("mini_mias", source, tmp_path / "out", seed=1, overwrite=True)
    assert tree(tmp_path) == before
    assert (tmp_path / "out").exists() == old


def test_a_full_disk(tmp_path: Path, films: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tar(tmp_path / "a.tgz", mias())
    true_open = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = true_open(self, mode, *args, **kwargs)
        return Full(file) if mode == "xb" else file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(InputError, match=r"cannot write .*/out: No space left") as error:
        prepare("mini_mias", source, tmp_path / "out")
    assert "free space" in error.value.hint
    assert not (tmp_path / "out").exists()


def test_the_old_output_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "src", {f"{n}.png": png(n) for n in range(4)})
    prepare("folder", source, tmp_path / "out")
    before = tree(tmp_path)
    true_replace = os.replace

    def refuse(old: Path, new: Path) -> None:
        if str(old).endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        true_replace(old, new)

    monkeypatch.setattr(module.os, "replace", refuse)
    with pytest.raises(InputError, match="cannot write"):
        prepare("folder", source, tmp_path / "out", overwrite=True, seed=3)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "match", "hint"),
    [
        ({"kind": "mini-mias"}, "unknown kind of data: 'mini-mias'", "did you mean 'mini_mias'"),
        ({"kind": "dx", "download": True}, "no stable public address", "by hand"),
        ({"kind": "folder", "download": True}, "does not go with 'folder'", "mini_mias"),
        ({"seed": "x"}, "--seed is 'x'", "integer"),
        ({"seed": True}, "--seed is True", "integer"),
        ({"sha256": "abc"}, "--sha256 is 'abc'", "64"),
        ({"sha256": "0" * 64}, "source is a folder", "archive"),
        ({"url": "http://127.0.0.1/"}, "without --download", "--download"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], match: str, hint: str) -> None:
    source = write(tmp_path / "src", {"mdb001.pgm": pgm(1, 16)})
    with pytest.raises(UsageError, match=match) as error:
        prepare(**({"kind": "mini_mias", "source": source, "output": tmp_path / "out"} | arguments))
    assert hint in error.value.hint
    assert not (tmp_path / "out").exists()


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder or archive") as error:
        prepare("mini_mias", tmp_path / "nothing", tmp_path / "out")
    assert "--download" in error.value.hint
    with pytest.raises(InputError, match="no such folder or archive") as error:
        prepare("dx", tmp_path / "nothing", tmp_path / "out")
    assert "--download" not in error.value.hint


def test_summary_can_be_printed_and_dumped(tmp_path: Path, films: None) -> None:
    summary = prepare(
        "mini_mias", tar(tmp_path / "a.tgz", mias([1, 2, 3, 4, 5, 6]) | {"mdb006.pgm": b"?"}), tmp_path / "o"
    )
    text = str(summary)
    assert "5 images of 3 patients" in text
    assert f"sha256 of the archive: {summary.archive_sha256}" in text
    assert "skipped        1 images" in text
    assert "missing        2 images" in text
    assert json.loads(json.dumps(summary.as_dict()))["skipped"][0][0] == "mdb006.pgm"


# --- download ---------------------------------------------------------------------------------------------------------


def test_download(tmp_path: Path, films: None, file_server: tuple[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    address, www = file_server
    archive = tar(www / "all-mias.tar.gz", mias())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    url = f"{address}/all-mias.tar.gz"

    summary = prepare("mini_mias", tmp_path / "get" / "m.tar.gz", tmp_path / "out", download=True, url=url)
    assert (tmp_path / "get" / "m.tar.gz").read_bytes() == archive.read_bytes()
    assert summary.archive_sha256 == digest
    assert "unencrypted" in caplog.text
    assert digest in caplog.text

    # into a folder; and once it is there, it is not fetched again
    archive.unlink()
    (tmp_path / "get" / "m.tar.gz").rename(tmp_path / "get" / "all-mias.tar.gz")
    again = prepare(
        "mini_mias", tmp_path / "get", tmp_path / "o2", download=True, url=url, sha256=digest.upper(), progress=False
    )
    assert again.fingerprint == summary.fingerprint


def test_download_with_the_wrong_checksum(tmp_path: Path, films: None, file_server: tuple[str, Path]) -> None:
    address, www = file_server
    archive = tar(www / "a.tar.gz", mias())
    target = tmp_path / "get" / "a.tar.gz"
    with pytest.raises(InputError, match="has the sha256"):
        prepare("mini_mias", target, tmp_path / "out", download=True, url=f"{address}/a.tar.gz", sha256="0" * 64)
    assert not target.exists()
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="has the sha256"):  # a local archive is held to it, too
        prepare("mini_mias", archive, tmp_path / "out", sha256="0" * 64)


def test_an_incomplete_download_is_no_mini_mias(tmp_path: Path, films: None, file_server: tuple[str, Path]) -> None:
    address, www = file_server
    tar(www / "a.tar.gz", mias([1, 2, 3, 4, 5, 6]))
    with pytest.raises(InputError, match="2 of 8 films are missing: 007-008"):
        prepare("mini_mias", tmp_path / "get", tmp_path / "out", download=True, url=f"{address}/a.tar.gz")
    assert not (tmp_path / "out").exists()


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = "http://127.0.0.1:1/all-mias.tar.gz"
    with pytest.raises(InputError, match=r"cannot download .*refused") as error:
        prepare("mini_mias", tmp_path / "get" / "a.tgz", tmp_path / "out", download=True, url=url)
    assert url in error.value.hint
    assert "\n" not in error.value.message + error.value.hint
    assert not (tmp_path / "out").exists()


def test_importing_is_cheap() -> None:
    heavy = "torch monai mlflow itk pydicom"
    code = f"import sys, meddenoise_monai.prepare; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
