"""The job behind `meddenoise denoise`: a file, or every image of a folder, denoised into files of its own format."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from . import __version__
from .dicom import Derivation, check_derivable, check_transfer_syntax, is_derived_here, silence
from .envelope import examine, label_map
from .errors import InputError, UnsuitableError, UsageError
from .image_writing import write_image
from .images import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    NIFTI_SUFFIXES,
    ImageData,
    find_images,
    image_suffix,
    is_dicom,
    load_itk,
    read_image,
)
from .inference import Denoiser, load_denoiser
from .manifest import Manifest
from .noise import PoissonGaussianStabiliser
from .notices import Skipped, Warnings
from .pipeline import in_turn
from .previews import write_preview
from .results import float_name, output_path, write_result
from .treatments import check_request
from .whole_files import TEMPORARY

__all__ = ["DenoiseSummary", "DenoisedImage", "FileJob", "ReadImage", "denoise_files"]

_log = logging.getLogger(__name__)

_SYMMETRIC = ("auto", "gaussian", "correlated")
# Less than that share of the estimated noise counts as next to nothing, if the noise is no less than that of the range.
_LITTLE, _NOISY = 0.1, 0.5 / 255
# The share of the pixels that shall lie within the half-width of a map.
_COVERAGE = 0.9
_UNCALIBRATED = (
    "its uncertainty was calibrated on white noise, not on correlated noise such as was removed: fewer pixels may lie "
    "within it"
)


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
    unsuitable
        How many of those in `skipped` are whole, but nothing to be denoised: in colour, masks, reports.
    """

    written: int
    skipped: dict[str, str]
    unchanged: int = 0
    unsuitable: int = 0


def _targets(source: Path, output: Path, unlisted: dict[str, str] | None) -> dict[Path, Path]:
    """Where the result of each image goes; refuses whatever would touch an input or lose a result.

    `unlisted` is that of `find_images`."""
    if source.is_dir():
        if output.exists() and not output.is_dir():
            raise UsageError(f"the output {output} is a file, not a folder", "choose another output")
        if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(source)):
            raise UsageError(f"the output {output} is or lies inside the input {source}", "choose a folder outside")
        targets = {path: output_path(path, source, output) for path in find_images(source, unlisted)}
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
class ReadImage:
    """An image that was read, and what was seen of it, for the manifest; ``warnings`` by kind."""

    image: ImageData
    facts: dict[str, Any]
    warnings: dict[str, str]


@dataclasses.dataclass(frozen=True)
class DenoisedImage:
    """What became of its values, and if that was asked for how far they may lie from the clean ones, in its units."""

    values: NDArray[Any]
    half_width: NDArray[Any] | None = None


@dataclasses.dataclass(frozen=True)
class FileJob:
    """What is done with each file, in three steps: `read`, `work`, `write`. What goes from one to the next can be
    pickled, so that each can be done by a process of its own.

    Parameters
    ----------
    noise, sigma, gain, strength, transfer_syntax, keep_private, force
        As in `denoise_files`.
    uncertain
        Whether `work` answers half widths.

    Raises
    ------
    UsageError
        If a parameter is out of its range.
    """

    noise: str = "auto"
    sigma: float | None = None
    gain: float | None = None
    strength: float = 1.0
    transfer_syntax: str = "keep"
    keep_private: bool = False
    force: bool = False
    uncertain: bool = False

    def __post_init__(self) -> None:
        _noise_options(self.noise, self.sigma, self.gain, self.strength)
        check_transfer_syntax(self.transfer_syntax)

    @property
    def settings(self) -> dict[str, Any]:
        """What a result depends on, beside the weights and how DICOM is written."""
        return {"noise": self.noise, "sigma": self.sigma, "gain": self.gain, "strength": self.strength}

    def derivation(self, fingerprint: str) -> Derivation:
        """What DICOM results say of how they were made, by weights of that `Denoiser.fingerprint`."""
        return _derivation(fingerprint, {**self.settings, "keep_private": self.keep_private or None})

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """All that a result depends on besides its source."""
        form = {"transfer_syntax": self.transfer_syntax, "keep_private": self.keep_private}
        return {"version": __version__, "weights": fingerprint, **self.settings, **form}

    def read(self, path: Path) -> ReadImage:
        """An image, if it is one to be denoised.

        Raises
        ------
        InputError
            If it is not; an UnsuitableError, if it is whole.
        """
        image = read_image(path)
        if image.dicom is not None:
            check_derivable(image.dicom.dataset)  # before the work, not after it
            if is_derived_here(image.dicom.dataset) and not self.force:
                raise UnsuitableError(f"{path}: it was denoised by this program", "add --force to denoise it again")
        labels = label_map(image.array)
        if labels and not self.force:
            raise UnsuitableError(
                f"{path}: it is a mask or a map of labels: {labels}", "add --force to denoise it all the same"
            )
        seen = examine(image.array, image.scale)
        warned = {**seen.warnings, "labels": labels} if labels else seen.warnings
        return ReadImage(image, {"estimated_sigma": seen.sigma}, dict(warned))

    def work(self, denoise: Denoiser, task: ReadImage) -> DenoisedImage:
        """What the denoiser makes of it; adds to its facts and warnings."""
        options = _noise_options(self.noise, self.sigma, self.gain, self.strength)
        values, half_width = _result(denoise, task, options, self.strength, self.uncertain)
        if half_width is not None:
            task.facts["mean_half_width"] = float(half_width.mean(dtype=np.float64))
            task.facts["half_width_coverage"] = _COVERAGE
        task.facts["removed_sigma"], most = _removed(task.image.array, values)
        if self.strength == 1.0 and self.sigma is None:
            task.warnings.update(_little(task, most))
        return DenoisedImage(values, half_width)

    def write(self, target: Path, task: ReadImage, done: DenoisedImage, fingerprint: str) -> None:
        """Write the result as one whole file, as `results.write_result` does."""
        derivation = self.derivation(fingerprint)
        write_result(target, done.values, task.image, derivation, self.transfer_syntax, self.keep_private)


def _result(
    denoise: Denoiser, task: ReadImage, options: Mapping[str, Any], strength: float, uncertain: bool
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The denoised image, and if it is asked for how far that may lie from the clean one, in its units."""
    image = task.image
    array, scale = image.array, image.scale
    if strength == 0.0 and not uncertain:
        return array, None
    # MONOCHROME1 is mirrored within its range: the network shall see bright tissue, as elsewhere. Not so where the
    # noise depends on the values themselves.
    mirror = scale.low + scale.high if scale.inverted and options["noise"] in _SYMMETRIC else None
    if mirror is not None:
        array = (mirror - array.astype(np.float64)).astype(array.dtype)
    treatment = denoise.treatment(array, **options)
    if treatment.warning:
        task.warnings["correlated"] = treatment.warning
        treatment = dataclasses.replace(treatment, warning="")
    half_width = None
    if uncertain:
        if treatment.correlated or treatment.steps != (1, 1):
            task.warnings["uncalibrated"] = _UNCALIBRATED
        result, half_width = denoise.with_uncertainty(array, options["sigma"], strength, treatment, _COVERAGE)
    else:
        result = denoise(array, options["sigma"], strength, treatment)
    if strength == 0.0:
        return image.array, half_width
    if (array.dtype.kind in "iu" and array.dtype.itemsize > 2) or array.dtype == np.float64:
        # What float32 does not hold is no noise.
        sign = 1 if mirror is None else -1
        return image.array + sign * (result.astype(np.float64) - array.astype(np.float32)), half_width
    return (result if mirror is None else mirror - result.astype(np.float64)), half_width


def denoise_files(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | Denoiser | None = None,
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
    uncertainty: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> DenoiseSummary:
    """Denoise an image file, or all images below a folder into the same tree; formats as in `output_path`.

    Of a folder a `Manifest` is kept beside the results: the same job, run again, does what is missing.

    Parameters
    ----------
    source, output
        A file or folder, never changed; and a folder outside of it, or for one file also the result's own name.
    model, device, sigma, strength, noise
        As in `load_denoiser` and `Denoiser`: sigma is in each image's own units, strength in [0, 1]. A `Denoiser` that
        is loaded already stays where it is.
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
    uncertainty
        A folder outside of the source for maps of how far each pixel of the result may lie from the clean image, as of
        `Denoiser.uncertainty` with a coverage of 0.9: float32, in the image's own units, named by `results.float_name`.
    force
        Denoise masks and maps of labels, too, which are refused else.

    Raises
    ------
    UsageError
        If a result would touch an input, or a parameter is out of its range.
    InputError
        If no image can be found or denoised, a result exists already, or the disk refuses.
    """
    if not Path(source).exists():
        raise InputError(f"no such file or folder: {source}", "check the path")
    # Absolute, for libraries may change the working directory while they load.
    source, output = Path(os.path.abspath(source)), Path(os.path.abspath(output))
    unlisted: dict[str, str] = {}
    targets = _targets(source, output, None if strict else unlisted)
    pictures = _beside(preview, "preview", "picture", source, targets, lambda name: name.with_name(f"{name.name}.png"))
    maps = _beside(uncertainty, "uncertainty", "map", source, targets, float_name)
    job = FileJob(noise, sigma, gain, strength, transfer_syntax, keep_private, force, bool(maps))
    if not source.is_dir() and not overwrite:
        _refuse_to_replace([*targets.values(), *pictures.values(), *maps.values()])  # before the work, not after it
    denoise = model if isinstance(model, Denoiser) else load_denoiser(model, device)
    if maps:
        _ = denoise.calibration  # fails here where there is none
    load_itk(targets)
    fingerprint = denoise.fingerprint
    manifest = Manifest(output, job.identity(fingerprint), source) if source.is_dir() else None
    to_do = _still_to_do(targets, source, manifest, overwrite, (pictures, maps))
    if manifest is not None and manifest.cut_off:
        for half in {path for target in targets.values() for path in target.parent.glob(f"{TEMPORARY}*")}:
            half.unlink(missing_ok=True)

    warnings = Warnings()

    def work(path: Path, task: ReadImage) -> DenoisedImage:
        done = job.work(denoise, task)
        warnings.say(str(path), task.warnings)
        return done

    def write(path: Path, task: ReadImage, done: DenoisedImage, seconds: float) -> None:
        name, target = _name(path, source), targets[path]
        if pictures:
            write_preview(pictures[path], task.image, done.values)
        if done.half_width is not None:
            write_image(maps[path], done.half_width, like=path if image_suffix(path) in NIFTI_SUFFIXES else None)
        if manifest is None:
            job.write(target, task, done, fingerprint)
            return
        manifest.begin(name)
        job.write(target, task, done, fingerprint)
        warned = {"warnings": list(task.warnings.values())} if task.warnings else {}
        manifest.done(name, path, target, **task.facts, seconds=round(seconds, 3), **warned)

    skipped = Skipped()
    try:
        # pydicom looks at an attribute when it is first asked for, wherever that is.
        with silence(), tqdm(to_do, "denoise", unit="image", disable=None) as bar:
            for path, problem in in_turn(to_do, job.read, work, write):
                bar.update()
                if problem is None:
                    continue
                # A full disk would refuse all other files, too, each after its computation.
                disk = problem.message.startswith("cannot write") and isinstance(problem.__cause__, OSError)
                if manifest is not None and not disk:
                    unsuitable = isinstance(problem, UnsuitableError)
                    manifest.failed(_name(path, source), problem.message, "unsuitable" if unsuitable else "failed")
                if strict or disk or len(targets) == 1:
                    raise problem
                skipped.add(path, problem)
    finally:
        if manifest is not None:
            manifest.close()
    warnings.say_rest()
    skipped.say_rest()
    reasons = dict(skipped.reasons)
    if len(reasons) == len(targets):
        raise InputError(f"none of {len(targets)} file(s) could be denoised", next(iter(reasons.values())))
    written = len(to_do) - len(reasons)
    for folder, reason in unlisted.items():
        _log.warning("skipped: %s", reason)
        reasons[folder] = reason
    return DenoiseSummary(written, reasons, len(targets) - len(to_do), skipped.unsuitable)


def _derivation(fingerprint: str, settings: Mapping[str, Any]) -> Derivation:
    said = {name: value for name, value in settings.items() if value is not None}
    words = [f"{name} {value}" for name, value in said.items()]
    default = {"noise": "auto", "strength": 1.0}
    variant = [
        str(value) if name == "noise" else f"{name} {value:g}"
        for name, value in said.items()
        if value != default.get(name) and name != "keep_private"
    ]
    return Derivation(__version__, fingerprint, ", ".join(words), ", ".join(variant))


def _little(task: ReadImage, most: float) -> dict[str, str]:
    """A warning where the noise that was estimated is left in, or no pixel has changed by `most`."""
    found, removed = task.facts["estimated_sigma"], task.facts["removed_sigma"]
    if found and removed < _LITTLE * found and found >= _NOISY * task.image.scale.width:
        what = f"next to nothing was removed, {removed:.3g} of noise of about {found:.3g}"
    elif task.image.array.dtype.kind in "iu" and most < 0.5:
        what = f"no pixel has changed: at most {most:.2g} of a grey level would have been removed"
    else:
        return {}
    return {"little": f"{what}; where what is left is noise and no texture, try --noise correlated"}


def _removed(before: NDArray[Any], after: NDArray[Any]) -> tuple[float, float]:
    """Root mean square of the difference, and its largest magnitude; line by line, for a large image leaves no room
    for another copy."""
    power, most = 0.0, 0.0
    for a, b in zip(before, after, strict=True):
        difference = np.subtract(a, b, dtype=np.float64)
        power += float(np.sum(difference**2))
        most = max(most, float(np.abs(difference).max()))
    return float(np.sqrt(power / before.size)), most


def _name(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if path != source else path.name


def _beside(
    folder: str | os.PathLike[str] | None,
    option: str,
    what: str,
    source: Path,
    targets: Mapping[Path, Path],
    named: Callable[[Path], Path],
) -> dict[Path, Path]:
    """Where what goes with the result of each image is written, if it is asked for: in the same tree below `folder`."""
    if folder is None:
        return {}
    if source.is_dir() and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(source)):
        raise UsageError(f"the {option} folder {folder} is or lies inside the input {source}", "choose one outside")
    top = Path(os.path.abspath(folder))
    places = {path: top / named(Path(_name(path, source))) for path in targets}
    taken = {os.path.realpath(path) for path in (*targets, *targets.values())}
    if os.path.realpath(top) in taken:
        raise UsageError(f"the {option} folder {folder} is the name of an image", f"choose another {option} folder")
    there = next(path for path in (top, *top.parents) if os.path.exists(path))
    if not os.path.isdir(there):
        said = f"the {option} folder {folder} is a file, not a folder" if there == top else f"{there} is no folder"
        raise UsageError(said, f"choose another {option} folder")
    # Neither may be a folder that the other lies in.
    above = {str(parent) for path in taken for parent in Path(path).parents}
    for place in places.values():
        real = Path(os.path.realpath(place))
        if str(real) in above or not taken.isdisjoint(map(str, (real, *real.parents))):
            raise UsageError(f"the {what} {place} would replace an image", f"choose another {option} folder")
    return places


def _still_to_do(
    targets: Mapping[Path, Path],
    source: Path,
    manifest: Manifest | None,
    overwrite: bool,
    beside: Iterable[Mapping[Path, Path]],
) -> list[Path]:
    """The sources whose results, or what goes with them, are not there; refuses to replace what this job has not
    made."""
    to_do, foreign = [], []
    for path, target in targets.items():
        name = _name(path, source)
        others = [places[path] for places in beside if places]
        ours = manifest is not None and manifest.begun(name)
        if not overwrite and not ours:
            done = manifest is not None and target.exists() and manifest.is_done(name, path)
            foreign += [place for place in (target, *others) if place.exists() and not done]
        elif not overwrite and manifest is not None and manifest.is_done(name, path):
            done = True
        else:
            done = False
        if not (done and all(place.exists() for place in others)):
            to_do.append(path)
    _refuse_to_replace(foreign, manifest.other if manifest is not None else "")
    return to_do


def _refuse_to_replace(places: Iterable[Path], why: str = "") -> None:
    if there := [place for place in places if place.exists()]:
        made = f", {why}" if why else ""
        named = f"{there[0]} exists already" if len(there) == 1 else f"{len(there)} files exist already"
        first = f": {there[0]} and others" if len(there) > 1 else ""
        raise InputError(f"{named}{made}{first}", "add --overwrite, or choose another output")
