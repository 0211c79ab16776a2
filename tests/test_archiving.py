from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from meddenoise_monai import archiving, ray_engine, records, stages
from meddenoise_monai.archiving import ArchiveSummary, archive_files
from meddenoise_monai.denoising import DenoisedImage, FileJob, ReadImage
from meddenoise_monai.errors import InputError, UnsuitableError, UsageError
from meddenoise_monai.images import ImageData, IntensityScale
from meddenoise_monai.records import RECORDS, Record, Records
from meddenoise_monai.stages import Item, Order, target_name
from meddenoise_monai.trees import Tree
from meddenoise_monai.whole_files import TEMPORARY


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


class FakeWork:
    """Instead of reading, denoising and writing images: the result of a file is its content, turned round.

    Attributes
    ----------
    written
        How often each result was made.
    kill_at
        At which of the steps a run is killed: each result is two, before and after it is put in its place.
    """

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.kill_at, self.step, self.dead = -1, 0, False
        self._lock = threading.Lock()

    def tick(self) -> None:
        with self._lock:
            self.step += 1
            if self.step == self.kill_at or self.dead:
                self.dead = True
                raise Killed

    def read(self, path: Path) -> ReadImage:
        content = path.read_bytes()
        if content.startswith(b"broken"):
            raise InputError(f"cannot read {path}: it is broken", "mend it")
        if content.startswith(b"colour"):
            raise UnsuitableError(f"{path}: it is in colour", "leave it out")
        array = np.frombuffer(content, np.uint8)
        image = ImageData(array, IntensityScale(0, 255), path, dicom=mock.sentinel.dicom)  # nothing is read of it again
        return ReadImage(image, {"estimated_sigma": 1.0}, {"small": "small"})

    def work(self, denoise: Any, task: ReadImage) -> DenoisedImage:
        return DenoisedImage(task.image.array[::-1])

    def write(self, target: Path, task: ReadImage, done: DenoisedImage, fingerprint: str) -> None:
        self.tick()
        self.written[target.name] += 1
        target.write_bytes(done.values.tobytes())

    @contextmanager
    def in_place(self, each: int = 1000, fingerprint: str = "f") -> Iterator[None]:
        put, flush = Order._put, Records.flush

        def put_and_tick(order: Order, *args: Any) -> None:
            put(order, *args)
            self.tick()

        def flush_if_alive(kept: Records) -> None:
            if not self.dead:
                flush(kept)

        weights = types.SimpleNamespace(fingerprint=fingerprint)
        with (
            mock.patch.multiple(FileJob, read=lambda _, *a: self.read(*a), work=lambda _, *a: self.work(*a),
                                write=lambda _, *a: self.write(*a)),
            mock.patch.multiple(Order, _put=put_and_tick),
            mock.patch.multiple(Records, flush=flush_if_alive),
            mock.patch.object(records, "_EACH", each),
            mock.patch.object(archiving, "load_denoiser", return_value=weights),
            mock.patch.object(stages, "load_denoiser", return_value=weights),
        ):  # fmt: skip
            self.step, self.dead = 0, False
            yield


def write_tree(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name} {number}".encode("utf-8", "replace"))
    return folder


def rows(target: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(target / RECORDS).to_pylist()
    return found


def results(target: Path) -> dict[str, bytes]:
    files = (path for path in target.rglob("*") if path.is_file() and RECORDS not in path.parts)
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def work() -> Iterator[FakeWork]:
    fake = FakeWork()
    with fake.in_place():
        yield fake


def test_all_files_are_done_once_and_each_has_a_record(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["a/1.png", "a/2.jpg", "b/c/3.dcm", ".hidden/4.png"])
    (source / "notes.txt").write_bytes(b"no image")
    (source / "b" / "5.png").write_bytes(b"broken")
    (source / "b" / "6.png").write_bytes(b"colour")
    summary = archive_files(source, tmp_path / "out")
    assert summary == ArchiveSummary(written=3, failed=1, unsuitable=1, ignored=1)
    expected = {"a/1.png": "a/1.png", "a/2.jpg": "a/2.jpg.png", "b/c/3.dcm": "b/c/3.dcm"}
    made = results(tmp_path / "out")
    assert made == {result: (source / name).read_bytes()[::-1] for name, result in expected.items()}
    found = {row["source"]: row for row in rows(tmp_path / "out")}
    assert {name: row["target"] for name, row in found.items() if row["status"] == "done"} == expected
    assert {name: (row["status"], row["reason"]) for name, row in found.items() if row["status"] != "done"} == {
        "notes.txt": ("ignored", "no image"),
        "b/5.png": ("failed", "cannot read b/5.png: it is broken"),
        "b/6.png": ("unsuitable", "b/6.png: it is in colour"),
    }
    for name, result in expected.items():
        assert found[name]["source_sha256"] == hashlib.sha256((source / name).read_bytes()).hexdigest()
        assert found[name]["target_sha256"] == hashlib.sha256(made[result]).hexdigest()
        assert (found[name]["warnings"], found[name]["estimated_sigma"]) == ("small", 1.0)


def test_what_is_done_is_not_done_again_but_what_failed_is(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["1.png", "2.png", "3.png"])
    (source / "4.png").write_bytes(b"broken")
    (source / "5.png").write_bytes(b"colour")
    archive_files(source, tmp_path / "out")
    again = archive_files(source, tmp_path / "out")
    assert again == ArchiveSummary(unchanged=3, failed=1, unsuitable=1)
    (source / "4.png").write_bytes(b"mended")
    (source / "1.png").write_bytes(b"other than before")
    (tmp_path / "out" / "2.png").unlink()
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(written=3, unchanged=1, unsuitable=1)
    assert results(tmp_path / "out") == {f"{n}.png": (source / f"{n}.png").read_bytes()[::-1] for n in (1, 2, 3, 4)}
    assert sorted(row["source"] for row in rows(tmp_path / "out")) == [f"{n}.png" for n in (1, 2, 3, 4, 5)]


def test_a_foreign_file_in_the_targets_place_stays(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["1.png", "2.png"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.png").write_bytes(b"mine")
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(written=1, failed=1)
    assert results(tmp_path / "out")["1.png"] == b"mine"
    assert archive_files(source, tmp_path / "out", overwrite=True) == ArchiveSummary(written=1, unchanged=1)
    assert results(tmp_path / "out")["1.png"] == (source / "1.png").read_bytes()[::-1]


def test_results_of_another_job_are_replaced_only_on_demand(tmp_path: Path) -> None:
    source, fake = write_tree(tmp_path / "in", ["1.png", "2.png"]), FakeWork()
    with fake.in_place():
        archive_files(source, tmp_path / "out")
    with fake.in_place(fingerprint="g"):
        with pytest.raises(InputError, match="another job"):
            archive_files(source, tmp_path / "out")
        assert archive_files(source, tmp_path / "out", overwrite=True) == ArchiveSummary(written=2)
        assert archive_files(source, tmp_path / "out", overwrite=True) == ArchiveSummary(unchanged=2)
    with fake.in_place(fingerprint="g"), pytest.raises(InputError, match="another job"):
        archive_files(source, tmp_path / "out", FileJob(strength=0.5))


def test_two_sources_of_one_target_are_refused(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["film.jpg", "film.jpg.png"])
    with pytest.raises(InputError, match=r"both be written to film\.jpg\.png"):
        archive_files(source, tmp_path / "out")


@pytest.mark.parametrize("known", [True, False])
def test_what_took_the_place_of_a_result_stays(tmp_path: Path, work: FakeWork, known: bool) -> None:
    source = write_tree(tmp_path / "in", ["1.png", "2.png"])
    archive_files(source, tmp_path / "out")
    (tmp_path / "out" / "1.png").write_bytes(b"notes of mine")
    if known:  # the source is another, too
        (source / "1.png").write_bytes(b"other than before")
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(failed=1, unchanged=1)
    assert results(tmp_path / "out")["1.png"] == b"notes of mine"
    assert archive_files(source, tmp_path / "out", overwrite=True) == ArchiveSummary(written=1, unchanged=1)


PLACES = ["{0}/in", "{0}/in/out", "local://{0}/in", "file:{0}/in/out", "{0}/link", "{0}/link/out", "{0}"]


@pytest.mark.parametrize("target", PLACES)
@pytest.mark.parametrize("source", ["in", "link"])
def test_a_target_inside_the_source_is_refused(tmp_path: Path, work: FakeWork, source: str, target: str) -> None:
    write_tree(tmp_path / "in", ["in/1.png"])  # so that it could be the result of in/in/1.png
    (tmp_path / "link").symlink_to("in")
    before = results(tmp_path / "in")
    with pytest.raises(UsageError, match=r"inside the (source|target)"):
        archive_files(tmp_path / source, target.format(tmp_path), overwrite=True)
    assert results(tmp_path / "in") == before
    assert not (tmp_path / RECORDS).exists()


def test_a_link_in_the_target_that_leads_back_is_refused(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["a/1.png", "b/2.png"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(source / "a")
    before = results(source)
    with pytest.raises(UsageError, match="out/a lies inside the source"):
        archive_files(source, tmp_path / "out", overwrite=True)
    assert results(source) == before


def test_files_of_others_are_not_taken_for_unfinished_ones(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["1.png"])
    mine = write_tree(tmp_path / "out", [".tmp-scan.png", ".git/.tmp-meddenoise-x", ".tmp-mine/notes"])
    (mine / f"{TEMPORARY}half.png").touch()
    (mine / f"{TEMPORARY}folder").mkdir()
    assert archive_files(source, mine) == ArchiveSummary(written=1)
    assert set(results(mine)) == {".tmp-scan.png", ".git/.tmp-meddenoise-x", ".tmp-mine/notes", "1.png"}


def test_folders_that_cannot_be_listed_are_told_of(tmp_path: Path, work: FakeWork, locked: list[str]) -> None:
    source = write_tree(tmp_path / "in", ["1.png", "a/locked/2.png"])
    locked.append(str(source / "a" / "locked"))
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(written=1, failed=1)
    (failed,) = [row for row in rows(tmp_path / "out") if row["status"] == "failed"]
    assert (failed["source"], failed["reason"]) == ("a/locked/", "cannot list a/locked/")
    locked.append(str(source))
    with pytest.raises(InputError, match=f"cannot read {source}: Permission denied"):
        archive_files(source, tmp_path / "out")


def test_a_target_that_cannot_be_listed_is_refused(
    tmp_path: Path, work: FakeWork, locked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tree(tmp_path / "in", ["a/1.png"])
    (tmp_path / "out" / "a").mkdir(parents=True)
    locked.append(str(tmp_path / "out" / "a"))
    with pytest.raises(InputError, match="Permission denied"):
        archive_files(source, tmp_path / "out")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.ls", refuse)
    with pytest.raises(InputError, match="Access Denied"):
        archive_files(source, "memory://archive-unlisted")
    assert not work.written


def test_pipes_and_loops_of_links_fail_alone(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["1.png"])
    os.mkfifo(source / "pipe.png")
    os.mkfifo(source / "pipe")
    (source / "loop.png").symlink_to("loop.png")
    (source / "nowhere.png").symlink_to("nothing.png")
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(written=1, failed=2, ignored=1)
    found = {row["source"]: row["reason"] for row in rows(tmp_path / "out") if row["status"] == "failed"}
    assert set(found.values()) == {f"cannot read {name}: it is no regular file" for name in ("pipe.png", "loop.png")}


@pytest.mark.parametrize("name", ["out", f"out/{RECORDS}"])
def test_a_target_that_takes_nothing_is_found_before_the_work(tmp_path: Path, work: FakeWork, name: str) -> None:
    source = write_tree(tmp_path / "in", ["1.png"])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"a file")
    with pytest.raises(InputError):
        archive_files(source, tmp_path / "out")
    assert not work.written
    assert (tmp_path / name).read_bytes() == b"a file"


def test_names_that_are_no_unicode_are_done_once(tmp_path: Path, work: FakeWork) -> None:
    source = write_tree(tmp_path / "in", ["a\udcff\udcfe.png"])
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(written=1)
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(unchanged=1)
    (source / "a\udcff\udcfe.png").write_bytes(b"other than before")
    assert archive_files(source, tmp_path / "out") == ArchiveSummary(written=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "nonsense"])
def test_ray_is_not_started_for_a_device_that_is_not_there(tmp_path: Path, device: str) -> None:
    source = write_tree(tmp_path / "in", ["1.png"])
    with pytest.raises(UsageError, match=f"cannot use the device '{device}'"):
        archive_files(source, tmp_path / "out", engine="ray", device=device)


def test_wrong_parameters_are_usage_errors(tmp_path: Path) -> None:
    for options in ({"engine": "spark"}, {"workers": 0, "engine": "ray"}, {"workers": 2}, {"address": "auto"}):
        with pytest.raises(UsageError):
            archive_files(tmp_path, tmp_path / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nonsense"):
        archive_files("nonsense://bucket", tmp_path / "out")


def test_no_source_and_no_files_are_errors(tmp_path: Path, work: FakeWork) -> None:
    with pytest.raises(InputError, match="no such folder"):
        archive_files(tmp_path / "missing", tmp_path / "out")
    (tmp_path / "file.png").touch()
    with pytest.raises(InputError, match="no such folder") as caught:
        archive_files(tmp_path / "file.png", tmp_path / "out")
    assert "meddenoise denoise" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        archive_files(tmp_path / "empty", tmp_path / "out")


def test_a_full_disk_ends_the_job(tmp_path: Path, work: FakeWork, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tree(tmp_path / "in", [f"{number}.png" for number in range(40)])

    def full(*_: Any) -> None:
        raise InputError("cannot write x: No space left on device", "make room")

    monkeypatch.setattr(Order, "_put", full)
    with pytest.raises(InputError, match="No space left"):
        archive_files(source, tmp_path / "out")
    assert sum(work.written.values()) < 20


@pytest.mark.e2e
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 16), max_size=4), st.integers(1, 5))
def test_after_crashes_anywhere_nothing_is_lost_and_nothing_twice(count: int, kills: list[int], each: int) -> None:
    fake = FakeWork()
    with tempfile.TemporaryDirectory() as scratch:
        source, target = (
            write_tree(Path(scratch, "in"), [f"{number}.png" for number in range(count)]),
            Path(scratch, "o"),
        )
        for kill_at in kills:
            settled = {row["source"] for row in rows(target)} if (target / RECORDS).is_dir() else set()
            before = Counter(fake.written)
            fake.kill_at = kill_at
            with fake.in_place(each):
                try:
                    archive_files(source, target)
                except Killed:
                    target.mkdir(exist_ok=True)
                    (target / f"{TEMPORARY}half.png").touch()
            again = {name for name, times in fake.written.items() if times > before[name]}
            assert not again & settled  # what has a record is not done again
            for name, content in results(target).items():
                assert name == f"{TEMPORARY}half.png" or content == (source / name).read_bytes()[::-1]
        fake.kill_at = -1
        with fake.in_place(each):
            summary = archive_files(source, target)
        assert summary.written + summary.unchanged == count
        assert results(target) == {f"{n}.png": (source / f"{n}.png").read_bytes()[::-1] for n in range(count)}
        assert sorted(row["source"] for row in rows(target)) == sorted(f"{number}.png" for number in range(count))


def record(name: str, **changes: Any) -> Record:
    return dataclasses.replace(Record(name, name, "done", "", "job", "1-2", target_size=3), **changes)


def test_records_appear_in_parts_and_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_EACH", 2)
    kept = Records(Tree(tmp_path))
    for number in range(5):
        kept.add(record(f"{number}.png"))
    assert len(kept.parts()) == 2
    assert len(Records(Tree(tmp_path)).latest()) == 4
    kept.add(record("0.png", status="failed", reason="later"))
    kept.merge()
    assert len(kept.parts()) == 1
    found = rows(tmp_path)
    assert [row["source"] for row in found] == [f"{number}.png" for number in range(5)]
    assert found[0]["reason"] == "later"


def test_records_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / RECORDS).mkdir()
    (tmp_path / RECORDS / "part-1.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"part-1\.parquet is none that was written here"):
        Records(Tree(tmp_path)).latest()


@pytest.mark.parametrize("values", [[None], [1]])
def test_records_of_other_kinds_of_values_are_refused(tmp_path: Path, values: list[Any]) -> None:
    columns = {field.name: values for field in dataclasses.fields(Record)}
    (tmp_path / RECORDS).mkdir()
    parquet.write_table(pyarrow.table(columns), tmp_path / RECORDS / "part-1.parquet")
    with pytest.raises(InputError, match=r"the values of source are none of the kind"):
        Records(Tree(tmp_path)).latest()


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, work: FakeWork, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tree(tmp_path / "in", ["1.png"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="needs pyarrow"):
        archive_files(source, tmp_path / "out")
    assert not work.written


def test_names_that_are_no_unicode_are_recorded(tmp_path: Path) -> None:
    kept = Records(Tree(tmp_path))
    kept.add(record("a\udcff.png"))
    kept.flush()
    assert [row["source"] for row in rows(tmp_path)] == [r"a\udcff.png"]


@pytest.mark.parametrize("place", ["{}", "file://{}", "memory://archive-test{}"])
def test_a_tree_lists_reads_and_writes(tmp_path: Path, place: str) -> None:
    tree = Tree(place.format(tmp_path))
    assert list(tree.entries()) == []
    (tmp_path / "scratch").write_bytes(b"content")
    for name in ("a/b/1.dcm", "2.dcm", ".hidden/3.dcm", "a/.4.dcm"):
        tree.put(tmp_path / "scratch", name)
    (tmp_path / "scratch").unlink()
    found = dict(tree.entries())
    assert set(found) == {"a/b/1.dcm", "2.dcm"}
    assert {entry.size for entry in found.values()} == {7}
    assert tree.exists()
    with tree.as_file("a/b/1.dcm") as path:
        assert (path.read_bytes(), path.name) == (b"content", "1.dcm")
    assert tree.read("2.dcm") == b"content"
    tree.remove("2.dcm")
    tree.remove("2.dcm")
    assert set(dict(tree.entries())) == {"a/b/1.dcm"}
    with pytest.raises(InputError, match="cannot read"):
        tree.read("2.dcm")


@pytest.mark.parametrize("place", ["{}", "memory://archive-content{}"])
def test_what_is_wrong_with_a_file_is_no_problem_of_the_store(tmp_path: Path, place: str) -> None:
    tree = Tree(place.format(tmp_path))
    (tmp_path / "scratch").write_bytes(b"content")
    tree.put(tmp_path / "scratch", "1.dcm")
    with pytest.raises(ZeroDivisionError), tree.as_file("1.dcm"):
        raise ZeroDivisionError


def test_a_header_elsewhere_comes_with_its_pixels(tmp_path: Path) -> None:
    tree = Tree("memory://companions")
    (tmp_path / "x").write_bytes(b"pixels")
    tree.put(tmp_path / "x", "head.mhd")
    tree.put(tmp_path / "x", "head.raw")
    with tree.as_file("head.mhd") as path:
        assert path.with_suffix(".raw").read_bytes() == b"pixels"


def test_names_of_targets() -> None:
    names = ["a/1.dcm", "a/IM0001", "2.nii.gz", "b/3.jpg", "4.pnm", "5.par", "1.2.840.1"]
    expected = ["a/1.dcm", "a/IM0001", "2.nii.gz", "b/3.jpg.png", "4.pnm.tif", "5.par.nii.gz", "1.2.840.1"]
    assert [target_name(name) for name in names] == expected


def test_what_is_no_image_is_known_by_its_content(tmp_path: Path, work: FakeWork) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM and more")
    (tmp_path / "notes").write_bytes(b"DICM")
    order = Order(Tree(tmp_path), Tree(tmp_path / "out"), FileJob(), None, None, "f", "d")
    assert [order.decode(Item(name)).status for name in ("IM0001", "notes")] == ["done", "ignored"]


def test_sigterm_ends_a_job_on_ray_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def told_to_end() -> None:
        with ray_engine._ended_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        told_to_end()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_cluster_that_nobody_answers_for_is_a_usage_error() -> None:
    pytest.importorskip("ray")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    started = time.monotonic()
    for address in (f"127.0.0.1:{port}", "127.0.0.1:99999"):
        with pytest.raises(UsageError, match=f"no Ray cluster at {address}"):
            ray_engine._join(address, {})
    assert time.monotonic() - started < 20


def test_closed_streams_do_not_matter_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    with ray_engine._streams_shut():
        pass
