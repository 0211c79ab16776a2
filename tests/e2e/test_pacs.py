"""A PACS at the other end: the recipe of docs/pacs.md with a real Orthanc; what other programs make of results."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.debian import need

pytestmark = pytest.mark.e2e

SLICES = 4
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def series(folder: Path) -> Path:
    """CT slices of one series, as a scanner would have made them."""
    folder.mkdir(parents=True)
    for number in range(SLICES):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.{number}"
        dataset.InstanceNumber = number + 1
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 5 * number]
        dataset.SliceLocation = z + 5 * number
        dataset.PixelData = np.roll(dataset.pixel_array, 3 * number, axis=0).tobytes()
        dataset.save_as(folder / f"{number}.dcm")
    return folder


def run(*words: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def denoise(source: Path, target: Path, *flags: object) -> None:
    run(sys.executable, "-m", "meddenoise_monai.cli", "denoise", source, target, "--device", "cpu", *flags)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series in ``in`` and what became of it in ``out``."""
    folder = tmp_path_factory.mktemp("study")
    denoise(series(folder / "in"), folder / "out")
    (folder / "out" / "manifest.json").rename(folder / "manifest.json")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


@contextmanager
def running(words: Sequence[object], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as stream, subprocess.Popen([str(w) for w in words], stdout=stream, stderr=stream) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()
            process.wait(30)


class Orthanc:
    """An archive on this machine's loopback."""

    def __init__(self, folder: Path) -> None:
        self.dicom, self.http, self.desk = free_port(), free_port(), free_port()
        self.config = folder / "orthanc.json"
        content: dict[str, Any] = {
            "DicomAet": "ORTHANC", "DicomPort": self.dicom, "HttpPort": self.http, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "DicomModalities": {"desk": ["DENOISE", "127.0.0.1", self.desk]}, "DicomAlwaysAllowStore": True,
            "OverwriteInstances": False, "Plugins": [str(PLUGIN)] if PLUGIN.is_file() else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }  # fmt: skip
        self.config.write_text(json.dumps(content))

    def ask(self, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", body)
        request.add_header("Content-Type", kind)
        request.add_header("Accept", "application/dicom+json" if path.startswith("/dicom-web") else "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def series(self) -> dict[str, int]:
        """Descriptions of all series, with their number of instances."""
        found = [self.ask(f"/series/{name}") for name in self.ask("/series")]
        return {one["MainDicomTags"].get("SeriesDescription", ""): len(one["Instances"]) for one in found}


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    need("Orthanc", "storescu", "storescp")
    archive = Orthanc(tmp_path)
    with running(["Orthanc", archive.config], tmp_path / "orthanc.log", archive.dicom):
        yield archive


def test_from_an_archive_through_the_denoiser_and_back(orthanc: Orthanc, study: Path, tmp_path: Path) -> None:
    run("storescu", "-aec", "ORTHANC", "+sd", "127.0.0.1", orthanc.dicom, study / "in")
    before = orthanc.series()
    assert list(before.values()) == [SLICES]
    received = tmp_path / "received"
    received.mkdir()
    listen = ["storescp", "-aet", "DENOISE", "-od", received, orthanc.desk]
    with running(listen, tmp_path / "storescp.log", orthanc.desk):
        for one in orthanc.ask("/series"):
            orthanc.ask("/modalities/desk/store", json.dumps(one).encode())
    assert len(list(received.iterdir())) == SLICES
    sent = tmp_path / "denoised"
    for _ in range(2):  # the second time nothing is made anew, and the archive sees no duplicates
        denoise(received, sent)
        run("storescu", "-aec", "ORTHANC", "+sd", "+sp", "*.[0-9]*", "127.0.0.1", orthanc.dicom, sent)
        assert len(orthanc.ask("/studies")) == 1
        assert sorted(orthanc.series().values()) == [SLICES, SLICES]
    (new,) = orthanc.series().keys() - before.keys()
    assert new.endswith("denoised")
    assert len(orthanc.ask("/instances")) == 2 * SLICES
    # An archive that sends the results, too, gets no results of results.
    with running(listen, tmp_path / "storescp.log", orthanc.desk):
        for one in orthanc.ask("/series"):
            orthanc.ask("/modalities/desk/store", json.dumps(one).encode())
    assert len(list(received.iterdir())) == 2 * SLICES
    denoise(received, sent, "--lenient")
    assert len(list(sent.glob("CT.*"))) == SLICES


def test_an_archive_takes_results_over_the_web(orthanc: Orthanc, study: Path) -> None:
    if not PLUGIN.is_file():
        pytest.skip("the DICOMweb plugin of Orthanc is not installed (orthanc-dicomweb)")
    boundary = b"----meddenoise"
    for folder in ("in", "out"):
        parts = [
            b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n"
            for path in sorted((study / folder).iterdir())
        ]
        kind = f'multipart/related; type="application/dicom"; boundary="{boundary.decode()}"'
        answer = orthanc.ask("/dicom-web/studies", b"".join(parts) + b"--" + boundary + b"--\r\n", kind)
        assert len(answer["00081199"]["Value"]) == SLICES  # Referenced SOP Sequence: what was stored
        assert not answer.get("00081198", {}).get("Value")  # Failed SOP Sequence
    assert len(orthanc.ask("/studies")) == 1
    assert sorted(orthanc.series().values()) == [SLICES, SLICES]


def test_a_result_series_is_consistent(study: Path) -> None:
    need("dcentvfy")

    def complaints(folder: Path) -> set[str]:
        words = ["dcentvfy", *map(str, sorted(folder.iterdir()))]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        lines = (done.stdout + done.stderr).splitlines()
        return {re.sub(r"\S+/", "", line) for line in lines if re.match("(Error|Warning)", line)}

    assert complaints(study / "out") <= complaints(study / "in")
    broken = study / "broken"
    broken.mkdir()
    for path in (study / "out").iterdir():
        dataset = pydicom.dcmread(path)
        if path.name == "0.dcm":
            dataset.Modality = "MR"
        dataset.save_as(broken / path.name)
    assert complaints(broken) - complaints(study / "in")  # it would have said so


@pytest.mark.parametrize("name", ["CT", "MR_small.dcm"])
def test_dcm2niix_sees_the_same_place_in_space(study: Path, tmp_path: Path, name: str) -> None:
    need("dcm2niix")
    folders = {"in": study / "in", "out": study / "out"}
    if name != "CT":
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / name).write_bytes(Path(str(get_testdata_file(name))).read_bytes())
        denoise(tmp_path / "in", tmp_path / "out")
        folders = {"in": tmp_path / "in", "out": tmp_path / "out"}
    volumes: dict[str, Any] = {}
    for which, folder in folders.items():
        made = tmp_path / f"nifti-{which}"
        made.mkdir()
        run("dcm2niix", "-o", made, "-f", "volume", "-z", "n", folder)
        (path,) = made.glob("*.nii")
        volumes[which] = nibabel.load(path)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(volumes["in"].affine, volumes["out"].affine)
    assert volumes["in"].shape == volumes["out"].shape
    assert volumes["in"].get_data_dtype() == volumes["out"].get_data_dtype()
    change = volumes["out"].get_fdata() - volumes["in"].get_fdata()
    assert np.abs(change).max() > 0
    assert np.abs(change).std() < volumes["in"].get_fdata().std()
    assert os.path.exists(folders["out"])
