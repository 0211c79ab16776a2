"""`meddenoise archive` as it is typed: both engines, killed and started again, and from one S3 bucket into another."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
from PIL import Image
from pyarrow import parquet

from meddenoise_monai.records import RECORDS
from tests.samples import write_model
from tests.test_denoising import dicom, digests, pixels

pytestmark = pytest.mark.e2e

SLICES = 120
BROKEN = ("broken.png", "a/cut.dcm")


def write_sources(folder: Path) -> Path:
    """CT slices, pictures and a volume, some of which are broken, and a file that is no image."""
    (folder / "a").mkdir(parents=True)
    for number in range(SLICES):
        dicom(folder / "a" / f"{number:03d}.dcm", pixels(number, 2000, (160, 160)) + 9000)
    shutil.copy(folder / "a" / "000.dcm", folder / "a" / "IM0001")  # DICOM needs no suffix
    Image.fromarray(pixels(1, shape=(40, 50))).save(folder / "film.png")
    Image.fromarray(pixels(2, shape=(40, 50))).save(folder / "film.jpg", quality=95)
    volume = pixels(3, 300, (12, 13, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "a" / "head.nii.gz")  # type: ignore
    (folder / "broken.png").write_bytes(b"\x89PNG and nothing else")
    (folder / "a" / "cut.dcm").write_bytes((folder / "a" / "001.dcm").read_bytes()[:20000])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """The sources, the weights, and the digests of what `meddenoise denoise` makes of the sources."""
    top = tmp_path_factory.mktemp("archive")
    source, model = write_sources(top / "in"), write_model(top / "model.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "meddenoise_monai.cli", "denoise", source, top / "plain", "--model", model]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 3
    expected = digests(top / "plain")
    assert len(expected) == SLICES + 4
    return source, model, expected


def command(source: Any, target: Any, model: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "meddenoise_monai.cli", "archive", str(source), str(target), "--model", str(model),
            "--json", *words]  # fmt: skip


def run(words: list[str], **environment: str) -> tuple[int, dict[str, int], str]:
    ended = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, capture_output=True,
                           text=True, timeout=300)  # fmt: skip
    return ended.returncode, json.loads(ended.stdout or "{}"), ended.stderr


def results(target: Path) -> dict[str, str]:
    return {name: digest for name, digest in digests(target).items() if not name.startswith(RECORDS)}


def check_records(table: Any, expected: dict[str, str]) -> None:
    found = table.to_pylist()
    assert len({row["source"] for row in found}) == len(found)  # nothing twice
    assert {row["target"]: row["target_sha256"] for row in found if row["status"] == "done"} == expected
    rest = {row["source"]: row["status"] for row in found if row["status"] != "done"}
    assert rest == {**dict.fromkeys(BROKEN, "failed"), "notes.txt": "ignored"}
    assert all(row["reason"].startswith(f"cannot read {row['source']}") for row in found if row["status"] == "failed")


def test_one_process_gives_the_bytes_of_denoise(case: tuple[Path, Path, dict[str, str]], tmp_path: Path) -> None:
    source, model, expected = case
    code, summary, error = run(command(source, tmp_path / "out", model))
    assert code == 3, error
    assert summary == {"written": len(expected), "unchanged": 0, "failed": 2, "unsuitable": 0, "ignored": 1}
    assert results(tmp_path / "out") == expected
    check_records(parquet.read_table(tmp_path / "out" / RECORDS), expected)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_workers_and_the_driver_are_killed(case: tuple[Path, Path, dict[str, str]], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    source, model, expected = case
    target = tmp_path / "out"
    words = command(source, target, model, "--engine", "ray", "--workers", "2")

    def written() -> int:
        return sum(path.is_file() for path in target.rglob("[!.]*.dcm"))

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 500  # busy machines start Ray in minutes
        while written() < count and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert written() >= count
        assert process.poll() is None

    killed = []
    began = time.time() - 1
    with subprocess.Popen(
        words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            wait_for(1)
            logs = [
                path for path in Path(tempfile.gettempdir()).glob("meddenoise-ray-*") if path.stat().st_mtime > began
            ]
            assert logs  # of Ray, which makes its own folder one for everybody
            assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in logs)
            workers = stages_of(process.pid)
            assert len([stage for stage in workers.values() if stage == "Denoise"]) == 2  # not more than were asked for
            for stage in ("Denoise", "Encode"):
                killed.append(next(pid for pid, its in workers.items() if its == stage))
                os.kill(killed[-1], signal.SIGKILL)
            wait_for(written() + 8)
        finally:
            process.kill()
            process.communicate()
    there = results(target)
    assert 8 < len(there) < len(expected) + 1
    # Whole files, and the right ones; what was not whole yet is hidden.
    visible = {name: digest for name, digest in there.items() if not Path(name).name.startswith(".")}
    assert visible.items() <= expected.items()
    made = {name: (target / name).stat().st_ino for name in visible}
    code, summary, error = run(words)
    assert code == 3, error
    assert summary["written"] + summary["unchanged"] == len(expected) + (1 if summary["ignored"] == 0 else 0)
    assert results(target) == expected
    check_records(parquet.read_table(target / RECORDS), expected)
    assert {name: (target / name).stat().st_ino for name in visible} == made  # what was there was not written again


# Its class lives in the program itself, so that Ray takes it along to the workers.
DEADLY = """
import os, signal, sys
from meddenoise_monai import archiving, ray_engine
from meddenoise_monai.stages import Item, Order, Passing

class Deadly(Order):
    def decode(self, item: Item) -> Passing:
        if "poison" in item.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(item)

archiving.Order = Deadly
ray_engine._RETRIES = 1  # each takes as long as a worker takes to start
print(archiving.archive_files(sys.argv[1], sys.argv[2], engine="ray", workers=1, model=sys.argv[3]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_file_that_kills_every_worker_is_given_up_alone(
    case: tuple[Path, Path, dict[str, str]], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    source, model, expected = case
    few, program = tmp_path / "few", tmp_path / "deadly.py"
    few.mkdir()
    names = [f"{number:03d}.dcm" for number in range(4)]
    for name in names:
        shutil.copy(source / "a" / name, few / name)
    shutil.copy(source / "a" / "009.dcm", few / "poison.dcm")
    program.write_text(DEADLY)
    ended = subprocess.run([sys.executable, program, few, tmp_path / "out", model], capture_output=True, text=True,
                           env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=900)  # fmt: skip
    assert "written=4" in ended.stdout, ended.stderr
    assert "failed=1" in ended.stdout
    assert results(tmp_path / "out") == {name: expected[f"a/{name}"] for name in names}
    (lost,) = [row for row in parquet.read_table(tmp_path / "out" / RECORDS).to_pylist() if row["status"] == "failed"]
    assert lost["source"] == "poison.dcm"
    assert lost["reason"] == "the process that worked on it died, again and again"


def stages_of(driver: int) -> dict[int, str]:
    """The workers of a driver by process number, and which stage each is."""
    found = {}
    for child in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(child.cmdline())
            stage = next((stage for stage in ("Decode", "Denoise", "Encode") if f"({stage})" in title), "")
            found[child.pid] = stage
    return found


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, str], Any]]:
    """Environment variables for a server of S3 on this machine, and its file system."""
    server_module = pytest.importorskip("moto.server")
    import s3fs

    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        yield environment, s3fs.S3FileSystem(endpoint_url=environment["AWS_ENDPOINT_URL"], skip_instance_cache=True)
    finally:
        server.stop()


def test_from_bucket_to_bucket(
    case: tuple[Path, Path, dict[str, str]], s3: tuple[dict[str, str], Any], tmp_path: Path
) -> None:
    source, model, expected = case
    environment, files = s3
    for bucket in ("raw", "clean"):
        files.mkdir(bucket)
    names = ["a/000.dcm", "a/IM0001", "a/cut.dcm", "a/head.nii.gz", "film.jpg", "film.png", "broken.png", "notes.txt"]
    for name in names:
        files.put_file(str(source / name), f"raw/studies/{name}")
    wanted = {name: digest for name, digest in expected.items() if name.removesuffix(".png") in names or name in names}
    assert len(wanted) == 5
    words = command("s3://raw/studies", "s3://clean/results", model)
    code, summary, error = run(words, **environment)
    assert code == 3, error
    assert summary == {"written": 5, "unchanged": 0, "failed": 2, "unsuitable": 0, "ignored": 1}
    files.invalidate_cache()
    files.get("clean/results/", str(tmp_path / "got"), recursive=True)
    assert results(tmp_path / "got") == wanted
    check_records(parquet.read_table(tmp_path / "got" / RECORDS), wanted)
    again = run(words, **environment)[1]
    assert again == {"written": 0, "unchanged": 5, "failed": 2, "unsuitable": 0, "ignored": 1}
