"""The job behind `meddenoise archive`: more files than one machine, or one day, can do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from .denoising import FileJob
from .dicom import silence
from .errors import InputError, UsageError
from .images import IMAGE_SUFFIXES, load_itk
from .inference import load_denoiser
from .pipeline import in_turn
from .records import RECORDS, Record, Records, spelt
from .stages import Item, Order, Passing, target_name
from .trees import Entry, Tree

__all__ = ["ENGINES", "ArchiveSummary", "archive_files"]

ENGINES = ("local", "ray")
_REFUSALS = 10  # results that could not be written, one after the other: the disk is full, or the store is gone


@dataclasses.dataclass(frozen=True)
class ArchiveSummary:
    """What `archive_files` did.

    Parameters
    ----------
    written
        How many results.
    unchanged
        How many were there already, from the same job before.
    failed, unsuitable, ignored
        How many files were broken; whole, but nothing to be denoised; no images at all. The latter two stay what they
        are when the job is run again.
    """

    written: int = 0
    unchanged: int = 0
    failed: int = 0
    unsuitable: int = 0
    ignored: int = 0


def archive_files(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    job: FileJob | None = None,
    engine: str = "local",
    workers: int | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str | None = None,
    overwrite: bool = False,
    address: str | None = None,
) -> ArchiveSummary:
    """Denoise all images of an archive into the same tree, as `denoise_files` would; what is done is passed over.

    Every result appears whole or not at all, and depends on its source alone. `records.Records` beside the results says
    what became of each file. Killed at any moment, the same call goes on: what has a record and is there is done; what
    is there without a record is made again and compared; what failed is tried again.

    Parameters
    ----------
    source, target
        Paths or URLs of fsspec's; the target is not inside the source.
    job
        What is done with each file; by default what `meddenoise denoise` does by default.
    engine
        ``local``: one process, one file after the other; ``ray``: actors of Ray Data.
    workers
        Of ray: how many processes that denoise; by default one for each GPU, or core, of this machine.
    model, device
        As in `load_denoiser`.
    overwrite
        Replace files that are there and are not results of this very job.
    address
        Of a Ray cluster that runs already; by default one is started on this machine, for this job.

    Raises
    ------
    UsageError
        If a parameter is out of its range, or the places lie in each other.
    InputError
        If there are no files, or results of another job are there, or the results cannot be written.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", f"known: {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be 1 or more, not {workers}", "leave it out for one for each core or GPU")
    if engine == "local" and ((workers or 1) > 1 or address is not None):
        raise UsageError("the engine local is one process on this machine", "add --engine ray for more")
    order = _order(Tree(source), Tree(target), job or FileJob(), model, device, elsewhere=address is not None)
    records = Records(order.target)
    known = records.latest()
    if not overwrite and any(record.job != order.digest and record.target for record in known.values()):
        raise InputError(f"{order.target.place} holds results of another job", "add --overwrite, or choose another")
    to_do, versions = _to_do(order, known, overwrite)
    counts = dict.fromkeys((field.name for field in dataclasses.fields(ArchiveSummary)), 0)
    for name in versions.keys() - {item.name for item in to_do}:
        status = known[spelt(name)].status
        counts["unchanged" if status == "done" else status] += 1
    order.target.remove_halves()
    if to_do:
        records.tree.check_writable()
        try:
            _run(order, to_do, versions, records, counts, engine, workers, address)
        finally:
            records.flush()
    records.merge()
    return ArchiveSummary(**counts)


def _order(
    source: Tree, target: Tree, job: FileJob, model: str | os.PathLike[str] | None, device: str | None, elsewhere: bool
) -> Order:
    if source.holds(target):
        raise UsageError(f"the target {target.place} is or lies inside the source", "choose a place outside")
    if target.holds(source):
        raise UsageError(f"the source {source.place} lies inside the target", "choose a target beside it")
    if not source.exists():
        hint = "for one file use meddenoise denoise" if os.path.isfile(source.root) else "check the path, or the URL"
        raise InputError(f"no such folder: {source.place}", hint)
    path = os.path.abspath(model) if model is not None else None
    # The machine that gives the order need not have the GPU of those that follow it.
    fingerprint = load_denoiser(path, "cpu" if elsewhere else device).fingerprint
    digest = hashlib.sha256(json.dumps(job.identity(fingerprint), sort_keys=True).encode()).hexdigest()
    return Order(source, target, job, path, device, fingerprint, digest)


def _to_do(order: Order, known: dict[str, Record], overwrite: bool) -> tuple[list[Item], dict[str, str]]:
    """What is to be done, and the versions of all sources that could be images."""
    there = {spelt(name): entry for name, entry in order.target.entries() if not name.startswith(f"{RECORDS}/")}
    folders: set[str] = set()
    to_do: list[Item] = []
    versions: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name, entry in order.source.entries(lenient=True):
        if name.rpartition("/")[2].upper() == "DICOMDIR":
            continue
        target = target_name(name)
        if (other := taken.setdefault(target, name)) != name:
            raise InputError(f"{other} and {name} would both be written to {target}", "rename one of them")
        record = known.get(spelt(name))
        versions[name] = f"{entry.size}-{entry.version}"
        folders.add(target.rpartition("/")[0])
        if record is None or not _is_settled(record, order.digest, versions[name], there.get(record.target)):
            ours = record.target_sha256 if record is not None and record.target == spelt(target) else ""
            to_do.append(Item(name, careful=spelt(target) in there and not overwrite, known=ours))
    for folder in folders if order.target.local else ():  # a link in the target may lead back
        if order.source.holds(Tree(f"{order.target.place.rstrip('/')}/{folder}")):
            raise UsageError(f"{order.target.place}/{folder} lies inside the source", "choose another target")
    if not versions:
        raise InputError(f"no images in {order.source.place}", f"files like {', '.join(IMAGE_SUFFIXES)} are searched")
    return to_do, versions


def _is_settled(record: Record, digest: str, version: str, there: Entry | None) -> bool:
    """Whether nothing is left to do for a source: its result is there, whole, or there can be none."""
    if (record.job, record.source_version) != (digest, version):
        return False
    if record.status == "done":
        return there is not None and there.size == record.target_size
    return record.status in ("unsuitable", "ignored")


def _run(
    order: Order,
    to_do: list[Item],
    versions: dict[str, str],
    records: Records,
    counts: dict[str, int],
    engine: str,
    workers: int | None,
    address: str | None,
) -> None:
    if engine == "ray":
        from .ray_engine import run_on_ray

        made = run_on_ray(order, to_do, workers, address)
    else:
        made = run_here(order, to_do)
    refusals = 0
    seldom = 0.5 if sys.stderr is not None and sys.stderr.isatty() else 60.0  # a line a minute in the log of a cluster
    total = len(versions)
    with tqdm(total=total, initial=total - len(to_do), desc="archive", unit="image", mininterval=seldom) as bar:
        if engine == "ray":
            bar.set_postfix_str("starting Ray and its processes, half a minute or more")
        for record in made:
            records.add(dataclasses.replace(record, source_version=versions[record.source]))
            counts["written" if record.status == "done" else record.status] += 1
            bar.set_postfix(failed=counts["failed"], refresh=False)
            bar.update()
            refusals = refusals + 1 if record.reason.startswith("cannot write") else 0
            if refusals >= _REFUSALS:
                raise InputError(record.reason, "check free space and permissions; the same command goes on")


def run_here(order: Order, items: Sequence[Item]) -> Iterator[Record]:
    """The engine `local`: the files are read ahead and written behind the one that is denoised."""
    denoise = order.denoiser()
    paths = {Path(order.source.root, item.name): item for item in items}
    load_itk(paths)
    made: dict[Path, Record] = {}

    def write(path: Path, _: Passing, passing: Passing, seconds: float) -> None:
        made[path] = order.encode(passing)

    with silence():
        for path, problem in in_turn(
            list(paths), lambda path: order.decode(paths[path]), lambda _, passing: order.work(denoise, passing), write
        ):
            if problem is not None:
                raise problem
            yield made.pop(path)
