"""The job of one file of an archive in three stages, each of which can be done by a process of its own, elsewhere.

Nothing that is wrong with a file is raised: it comes to stand in the file's `records.Record`. What the stages do with
an image is `denoising.FileJob`, as in `meddenoise denoise`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .denoising import DenoisedImage, FileJob, ReadImage
from .errors import InputError, MeddenoiseError, UnsuitableError
from .images import IMAGE_SUFFIXES, image_suffix, is_dicom
from .inference import Denoiser, load_denoiser
from .manifest import file_digest
from .records import Record
from .results import output_path
from .trees import Tree

__all__ = ["Item", "Order", "Passing", "target_name"]

_ROOT = Path("/")


def target_name(name: str) -> str:
    """Where the result of a source goes, by the names alone: what has no suffix of an image can only be DICOM."""
    if image_suffix(name) not in IMAGE_SUFFIXES:
        return name
    return output_path(_ROOT / name, _ROOT, Path()).as_posix()


@dataclasses.dataclass(frozen=True)
class Item:
    """A file to be done.

    Parameters
    ----------
    name
        Relative to the source.
    careful
        A file is there already in its result's place, and may be somebody else's.
    known
        What that file has as SHA-256 if it is an older result of this job.
    """

    name: str
    careful: bool = False
    known: str = ""


@dataclasses.dataclass
class Passing:
    """A file on its way from stage to stage. To be pickled as a whole: what is the same array stays the same."""

    item: Item
    sha256: str = ""
    task: ReadImage | None = None
    done: DenoisedImage | None = None
    seconds: float = 0.0
    status: str = "done"
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Order:
    """What each process of a job has to know.

    Parameters
    ----------
    source, target
        Where the files are, and where the results go.
    job
        What is done with each.
    model, device
        As in `load_denoiser`; on several machines the file has to be on each.
    fingerprint, digest
        Of the weights, and of all that results depend on besides their sources.
    """

    source: Tree
    target: Tree
    job: FileJob
    model: str | None
    device: str | None
    fingerprint: str
    digest: str

    def denoiser(self) -> Denoiser:
        """The denoiser, loaded here.

        Raises
        ------
        InputError
            If its weights are others than those of the process that gave the order.
        """
        denoise = load_denoiser(self.model, self.device)
        if denoise.fingerprint != self.fingerprint:
            raise InputError("the weights are others on this machine", "put the same file on each")
        return denoise

    def decode(self, item: Item) -> Passing:
        """Fetch the file, and read the image."""
        passing = Passing(item)
        with _settled(passing), self.source.as_file(item.name) as path, _named(path, item.name):
            if item.name.endswith("/"):
                raise InputError(f"cannot list {path}", "check the permissions")
            if image_suffix(item.name) not in IMAGE_SUFFIXES and not is_dicom(path):
                passing.status, passing.reason = "ignored", "no image"
                return passing
            if not path.is_file():  # opening a pipe would wait for ever
                raise InputError(f"cannot read {path}: it is no regular file", "leave it out")
            passing.sha256 = file_digest(path)
            passing.task = self.job.read(path)
        return passing

    def work(self, denoise: Denoiser, passing: Passing) -> Passing:
        """Denoise it."""
        if passing.task is not None:
            started = time.monotonic()
            with _settled(passing), _named(passing.task.image.path, passing.item.name):
                passing.done = self.job.work(denoise, passing.task)
            passing.seconds = time.monotonic() - started
        return passing

    def encode(self, passing: Passing) -> Record:
        """Write the result, and say what became of the file."""
        name, task, target, digest, size = passing.item.name, passing.task, target_name(passing.item.name), "", 0
        if task is not None and passing.done is not None:
            with _settled(passing), contextlib.ExitStack() as stack:
                image = task.image
                if image.dicom is None:  # the writers take the metadata from the file itself
                    path = stack.enter_context(self.source.as_file(name))
                    image = dataclasses.replace(image, path=path)
                stack.enter_context(_named(image.path, name))
                result = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meddenoise-")), Path(target).name)
                again = dataclasses.replace(task, image=image)
                self.job.write(result, again, passing.done, self.fingerprint)
                digest, size = file_digest(result), result.stat().st_size
                self._put(result, target, digest, passing.item)
        done = passing.status == "done"
        return Record(
            source=name, target=target if done else "", status=passing.status, reason=passing.reason, job=self.digest,
            source_version="", source_sha256=passing.sha256, target_sha256=digest if done else "",
            target_size=size if done else 0, seconds=round(passing.seconds, 3),
            warnings="\n".join(task.warnings.values()) if task is not None else "",
            estimated_sigma=_number(task, "estimated_sigma"), removed_sigma=_number(task, "removed_sigma"),
        )  # fmt: skip

    def _put(self, result: Path, target: str, digest: str, item: Item) -> None:
        """A file that is there already stays if it is the very same: a killed job has made it."""
        if item.careful:
            there = hashlib.sha256(self.target.read(target)).hexdigest()
            if there == digest:
                return
            if there != item.known:
                raise InputError("another file is there, which is not the result", "add --overwrite, or move it away")
        self.target.put(result, target)


def _number(task: ReadImage | None, fact: str) -> float | None:
    value = task.facts.get(fact) if task is not None else None
    return None if value is None else float(value)


@contextlib.contextmanager
def _settled(passing: Passing) -> Iterator[None]:
    """Whatever goes wrong is what is wrong with this file; the others go on."""
    try:
        yield
    except MeddenoiseError as error:
        passing.status, passing.reason = "unsuitable" if isinstance(error, UnsuitableError) else "failed", error.message
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        passing.status, passing.reason = "failed", f"{type(error).__name__}: {reason}"


@contextlib.contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Errors speak of the name in the archive, not of where a copy was."""
    try:
        yield
    except MeddenoiseError as error:
        raise type(error)(error.message.replace(str(path), name), error.hint) from error
