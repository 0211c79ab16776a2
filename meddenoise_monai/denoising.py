"""The job behind `meddenoise denoise`: a file, or every image of a folder, denoised into files of its own format."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from . import __version__
from .dicom import Derivation, check_derivable, check_transfer_syntax
from .envelope import examine, label_map
from .errors import InputError, UsageError
from .images import DICOM_SUFFIXES, IMAGE_SUFFIXES, ImageData, find_images, image_suffix, is_dicom, read_image
from .inference import Denoiser, load_denoiser
from .manifest import Manifest
from .noise import PoissonGaussianStabiliser
from .previews import write_preview
from .results import output_path, write_result
from .treatments import check_request
from .whole_files import TEMPORARY

__all__ = ["DenoiseSummary", "denoise_files"]

_log = logging.getLogger(__name__)

_SYMMETRIC = ("auto", "gaussian", "correlated")


_AHEAD = 2  # images read before their turn, and results not yet written
_AHEAD_BYTES = 2**28  # of files; larger ones are read when their turn comes, and written before the next


@dataclasses.dataclass(frozen=True)
class DenoiseSummary:
    """What `denoise_files` did.

    Parameters
    ----------
    written
        How many results.
    skipped
        The files that failed, with the reason.
    unchanged
        How many results were there already, whole, from the same job before.
    """

    written: int
    skipped: dict[str, str]
    unchanged: int = 0


def _targets(source: Path, output: Path) -> dict[Path, Path]:
    """Where the result of each image goes; refuses whatever would touch an input or lose a result."""
    if source.is_dir():
        if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(source)):
            raise UsageError(f"the output {output} is or lies inside the input {source}", "choose a folder outside")
        targets = {path: output_path(path, source, output) for path in find_images(source)}
    elif not source.exists():
        raise InputError(f"no such file or folder: {source}", "check the path")
    elif image_suffix(output) in IMAGE_SUFFIXES and not output.is_dir():
        made = image_suffix(output_path(source, None, output.parent))
        if is_dicom(source) and not made:  # a DICOM file needs no suffix, and bears any of its own
            made = image_suffix(output) if image_suffix(output) in DICOM_SUFFIXES else ".dcm"
        akin = all(suffix in DICOM_SUFFIXES for suffix in (image_suffix(output), made))
        if not akin and image_suffix(output).replace(".tiff", ".tif") != made.replace(".tiff", ".tif"):
            raise UsageError(f"the result of {source.name} is {made}, not {output.name}", f"let OUTPUT end in {made}")
        targets = {source: output}
    else:
        targets = {source: output_path(source, None, output)}
    inputs = {os.path.realpath(path): path for path in targets}  # Path.resolve() fails on a loop of links
    taken: dict[Path, Path] = {}
    for path, target in targets.items():
        if (replaced := inputs.get(os.path.realpath(target))) is not None:
            raise UsageError(f"the result of {path} would replace {replaced}", "choose another output")
        if (other := taken.setdefault(target, path)) != path:
            raise InputError(f"{other} and {path} would both be written to {target}", "rename one of them")
    return targets


def _noise_options(noise: str, sigma: float | None, gain: float | None, strength: float) -> dict[str, Any]:
    """The `sigma` and `noise` of a `Denoiser`, checked before the weights and the first image are read."""
    check_request(noise, sigma if gain is None else None, strength)
    if gain is None:
        return {"noise": noise, "sigma": sigma}
    if noise != "poisson":
        raise UsageError(f"gain has no meaning for {noise} noise", "add --noise poisson, or leave --gain out")
    check_request(sigma=sigma)  # before it is squared
    read_out = sigma or 0.0
    return {"noise": PoissonGaussianStabiliser(gain, read_out * read_out), "sigma": None}


@dataclasses.dataclass(frozen=True)
class _Task:
    """An image that was read, and what was seen of it; ``warnings`` by kind."""

    image: ImageData
    sigma: float | None
    warnings: dict[str, str]


class _Warnings:
    """Says the first of each kind in full, and at the end of how many other files the same holds."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def say(self, name: str, warnings: Mapping[str, str]) -> None:
        for kind, text in warnings.items():
            if kind not in self.seen:
                _log.warning("%s: %s", name, text)
            self.seen[kind] = self.seen.get(kind, 0) + 1

    def say_rest(self) -> None:
        for kind, count in self.seen.items():
            if count > 1:
                _log.warning("%s: the same of %d other file(s), which manifest.json names", _KINDS[kind], count - 1)


_KINDS = {
    "correlated": "correlated noise", "strong": "strong noise", "small": "small images", "labels": "few values"
}  # fmt: skip


def _result(denoise: Denoiser, task: _Task, options: Mapping[str, Any], strength: float) -> NDArray[Any]:
    """The denoised image, in its units."""
    image = task.image
    array, scale = image.array, image.scale
    if strength == 0.0:
        return array
    # MONOCHROME1 is mirrored within its range: the network shall see bright tissue, as elsewhere. Not so where the
    # noise depends on the values themselves.
    mirror = scale.low + scale.high if scale.inverted and options["noise"] in _SYMMETRIC else None
    if mirror is not None:
        array = (mirror - array.astype(np.float64)).astype(array.dtype)
    treatment = denoise.treatment(array, **options)
    if treatment.warning:
        task.warnings["correlated"] = treatment.warning
        treatment = dataclasses.replace(treatment, warning="")
    result = denoise(array, options["sigma"], strength, treatment)
    if (array.dtype.kind in "iu" and array.dtype.itemsize > 2) or array.dtype == np.float64:
        # What float32 does not hold is no noise.
        return image.array + (1 if mirror is None else -1) * (result.astype(np.float64) - array.astype(np.float32))
    return result if mirror is None else mirror - result.astype(np.float64)


def denoise_files(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    device: str | None = None,
    sigma: float | None = None,
    strength: float = 1.0,
    noise: str = "auto",
    gain: float | None = None,
    overwrite: bool = False,
    strict: bool = False,
    transfer_syntax: str = "keep",
    keep_private: bool = False,
    preview: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> DenoiseSummary:
    """Denoise an image file, or all images below a folder into the same tree; formats as in `output_path`.

    Of a folder a `Manifest` is kept beside the results: the same job, run again, does what is missing.

    Parameters
    ----------
    source, output
        A file or folder, never changed; and a folder outside of it, or for one file also the result's own name.
    model, device, sigma, strength, noise
        As in `load_denoiser` and `Denoiser`: sigma is in each image's own units, strength in [0, 1].
    gain
        For ``noise="poisson"`` whose parameters are known: the image's units per count; sigma is then the deviation of
        the Gaussian read-out noise (by default 0).
    overwrite, strict
        Replace results that exist already; raise at the first file that fails instead of skipping it with a warning.
    transfer_syntax, keep_private
        Of DICOM results, as in `dicom.derive`.
    preview
        A folder outside of the source for pictures of before, after and what was removed, one for each file, under its
        whole name and ``.png``.
    force
        Denoise masks and maps of labels, too, which are refused else.

    Raises
    ------
    UsageError
        If a result would touch an input, or a parameter is out of its range.
    InputError
        If no image can be found or denoised, a result exists already, or the disk refuses.
    """
    source, output = Path(source), Path(output)
    targets = _targets(source, output)
    pictures = _pictures(preview, source, targets)
    options = _noise_options(noise, sigma, gain, strength)
    check_transfer_syntax(transfer_syntax)
    denoise = load_denoiser(model, device)
    settings = {"noise": noise, "sigma": sigma, "gain": gain, "strength": strength}
    derivation = Derivation(
        __version__,
        denoise.fingerprint,
        ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None),
    )
    form = transfer_syntax, keep_private
    job = {"version": __version__, "weights": derivation.weights, **settings, "dicom": form}
    manifest = Manifest(output, job, source) if source.is_dir() else None
    to_do = _still_to_do(targets, source, manifest, overwrite, pictures)
    if manifest is not None and manifest.cut_off:
        for half in {half for target in targets.values() for half in target.parent.glob(f"{TEMPORARY}*")}:
            half.unlink(missing_ok=True)

    warnings = _Warnings()

    def read(path: Path) -> _Task:
        image = read_image(path)
        if image.dicom is not None:
            check_derivable(image.dicom.dataset)  # before the work, not after it
        labels = label_map(image.array)
        if labels and not force:
            raise InputError(f"{path} is a mask or a map of labels: {labels}", "add --force to denoise it all the same")
        seen = examine(image.array, image.scale)
        return _Task(image, seen.sigma, {**seen.warnings, **({"labels": labels} if labels else {})})

    def work(path: Path, task: _Task) -> NDArray[Any]:
        values = _result(denoise, task, options, strength)
        warnings.say(str(path), task.warnings)
        return values

    def write(path: Path, task: _Task, values: NDArray[Any], seconds: float) -> None:
        name, target, image = _name(path, source), targets[path], task.image
        if pictures:
            write_preview(pictures[path], image, values)
        if manifest is None:
            write_result(target, values, image, derivation, *form)
            return
        manifest.begin(name)
        write_result(target, values, image, derivation, *form)
        facts: dict[str, Any] = {
            "sigma": task.sigma,
            "removed": _removed(image.array, values),
            "seconds": round(seconds, 3),
        }
        if task.warnings:
            facts["warnings"] = list(task.warnings.values())
        manifest.done(name, path, target, **facts)

    skipped: dict[str, str] = {}
    try:
        with tqdm(to_do, "denoise", unit="image", disable=None) as bar:
            for path, problem in _pipeline(to_do, read, work, write):
                bar.update()
                if problem is None:
                    continue
                # A full disk would refuse all other files, too, each after its computation.
                disk = problem.message.startswith("cannot write") and isinstance(problem.__cause__, OSError)
                message = problem.message
                if manifest is not None and not disk:
                    manifest.failed(_name(path, source), message)
                if strict or disk or len(targets) == 1:
                    raise problem
                skipped[str(path)] = message
                _log.warning("skipped: %s", message if str(path) in message else f"{path}: {message}")
    finally:
        if manifest is not None:
            manifest.close()
    warnings.say_rest()
    if len(skipped) == len(targets):
        raise InputError(f"none of {len(targets)} file(s) could be denoised", next(iter(skipped.values())))
    return DenoiseSummary(len(to_do) - len(skipped), skipped, len(targets) - len(to_do))


def _removed(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Root mean square of the difference, line by line: of a large image there is no room for another copy."""
    lines = zip(before, after, strict=True)
    power = sum(float(np.sum(np.subtract(a, b, dtype=np.float64) ** 2)) for a, b in lines)
    return float(np.sqrt(power / before.size))


def _name(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if path != source else path.name


def _pictures(preview: str | os.PathLike[str] | None, source: Path, targets: Mapping[Path, Path]) -> dict[Path, Path]:
    """Where the picture of each image goes, if anywhere."""
    if preview is None:
        return {}
    if source.is_dir() and Path(os.path.realpath(preview)).is_relative_to(os.path.realpath(source)):
        raise UsageError(f"the preview folder {preview} is or lies inside the input {source}", "choose one outside")
    pictures = {path: Path(preview) / f"{_name(path, source)}.png" for path in targets}
    taken = {os.path.realpath(path) for path in (*targets, *targets.values())}
    if clashing := next((path for path in pictures.values() if os.path.realpath(path) in taken), None):
        raise UsageError(f"the picture {clashing} would replace an image", "choose another preview folder")
    return pictures


def _still_to_do(
    targets: Mapping[Path, Path],
    source: Path,
    manifest: Manifest | None,
    overwrite: bool,
    pictures: Mapping[Path, Path],
) -> list[Path]:
    """The sources whose results, or pictures, are not there; refuses to replace what this job has not made."""
    to_do, foreign = [], []
    for path, target in targets.items():
        name = _name(path, source)
        picture = pictures.get(path)
        ours = manifest is not None and manifest.begun(name)
        if not overwrite and not ours:
            done = manifest is not None and target.exists() and manifest.is_done(name, path)
            foreign += [place for place in (target, picture) if place and place.exists() and not done]
        elif not overwrite and manifest is not None and manifest.is_done(name, path):
            done = True
        else:
            done = False
        if not (done and (picture is None or picture.exists())):
            to_do.append(path)
    if foreign:
        raise InputError(
            f"{len(foreign)} result(s) exist already, of another source, other weights or settings, first {foreign[0]}",
            "add --overwrite, or choose another output",
        )
    return to_do


def _pipeline(
    paths: Sequence[Path],
    read: Callable[[Path], _Task],
    work: Callable[[Path, _Task], NDArray[Any]],
    write: Callable[[Path, _Task, NDArray[Any], float], None],
) -> Iterator[tuple[Path, InputError | None]]:
    """Each path and what went wrong with it, in order; threads read ahead and write behind the one that works."""
    reading: deque[tuple[Path, Future[_Task]]] = deque()
    writing: deque[tuple[Path, Future[None]]] = deque()
    waiting = deque(paths)
    pool = ThreadPoolExecutor(2)

    def read_ahead() -> None:
        while waiting and (not reading or (len(reading) < _AHEAD and _size(waiting[0], reading) <= _AHEAD_BYTES)):
            path = waiting.popleft()
            reading.append((path, pool.submit(read, path)))

    def settle(done: tuple[Path, Future[Any]]) -> tuple[Path, InputError | None]:
        try:
            done[1].result()
        except Exception as error:
            return done[0], _as_problem(done[0], error)
        return done[0], None

    try:
        read_ahead()
        while reading:
            path, future = reading.popleft()
            try:
                task = future.result()
                read_ahead()
                started = time.monotonic()
                values = work(path, task)
                writing.append((path, pool.submit(write, path, task, values, time.monotonic() - started)))
            except Exception as error:
                yield path, _as_problem(path, error)
                read_ahead()
            while len(writing) > (_AHEAD if _size(path, reading) <= _AHEAD_BYTES else 0):
                yield settle(writing.popleft())
        while writing:
            yield settle(writing.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _as_problem(path: Path, error: Exception) -> InputError:
    """What is wrong with one file, so that the others can go on; not what is wrong with the command."""
    if isinstance(error, UsageError):
        raise error
    if isinstance(error, InputError):
        return error
    reason = " ".join(str(error).split())[:300]
    problem = InputError(f"{path}: {type(error).__name__}: {reason}", "this should not happen: please report it")
    problem.__cause__ = error
    return problem


def _size(path: Path, reading: Iterable[tuple[Path, Any]]) -> int:
    """Bytes of the file and of those being read."""
    return sum(entry.stat().st_size for entry in (path, *(other for other, _ in reading)) if entry.is_file())
