"""`meddenoise prepare`: a public archive, or any folder of images, becomes a checked datalist split by patient.

The result is a folder with ``datalist.json`` and, where the source is an archive, ``images/`` beside it. Every image
that the datalist names was read once and found usable.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .archives import ARCHIVE_SUFFIXES, archive_format, download_archive, unpack
from .candidates import Report, check, layout, missing_films, survey
from .datasets import IMAGE_SUFFIXES, SPLITS, split_patients
from .errors import InputError, UsageError, nearest
from .identity import content_digest, data_fingerprint
from .images import find_images
from .public_data import COLLECTIONS, MINI_MIAS_URLS, parse_mias_info

__all__ = ["MINI_MIAS_URLS", "PrepareSummary", "download_archive", "parse_mias_info", "prepare"]

_log = logging.getLogger(__name__)

_KINDS = (*COLLECTIONS, "folder")
_SIDE_FILES = (".rec", ".raw", ".zraw")  # the pixels that a .par or .mhd header points to


@dataclass(frozen=True)
class PrepareSummary:
    """What `prepare` made.

    Parameters
    ----------
    kind
        ``"mini_mias"``, ``"dx"`` or ``"folder"``.
    datalist
        The JSON file.
    images, patients
        Numbers for each of ``"training"``, ``"validation"``, ``"test"``.
    skipped
        (file, reason) for each image that was left out; not empty means exit code 3 on the command line.
    missing
        How many films of the public data set the source lacks.
    fingerprint
        `meddenoise_monai.identity.data_fingerprint` of all images of the datalist.
    archive_sha256
        Of the archive as a whole, or None where the source is a folder.
    licence
        Terms of the images, in a sentence.
    """

    kind: str
    datalist: Path
    images: dict[str, int]
    patients: dict[str, int]
    skipped: tuple[tuple[str, str], ...]
    missing: int
    fingerprint: str
    archive_sha256: str | None
    licence: str

    def as_dict(self) -> dict[str, Any]:
        """Everything in types that JSON knows."""
        return {**vars(self), "datalist": str(self.datalist), "skipped": [list(pair) for pair in self.skipped]}

    def __str__(self) -> str:
        lines = [f"{self.datalist}: {sum(self.images.values())} images of {sum(self.patients.values())} patients"]
        lines += [f"  {part:<10} {self.images[part]:>5} images, {self.patients[part]:>5} patients" for part in SPLITS]
        if self.skipped:
            lines.append(f"  skipped    {len(self.skipped):>5} images")
        if self.missing:
            lines.append(f"  missing    {self.missing:>5} images")
        if self.archive_sha256:
            lines.append(f"  sha256 of the archive: {self.archive_sha256}")
        lines += [f"  fingerprint: {self.fingerprint}", f"  licence: {self.licence}"]
        return "\n".join(lines)


def prepare(
    kind: str,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    download: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    strict: bool = False,
    sha256: str | None = None,
    patient_pattern: str | None = None,
    url: str | None = None,
) -> PrepareSummary:
    r"""Check a data set and write ``OUTPUT/datalist.json``, split by patient.

    Images of a folder stay where they are and the datalist points to them; those of an archive are unpacked to
    ``OUTPUT/images``. Items are ``{"image", "patient"}``; for mini-MIAS also ``"lesions"``, a list of
    ``{"class", "severity", "x", "y", "radius"}`` in pixels with (0, 0) the centre of the top left pixel (see
    `parse_mias_info`); for DX also ``"subset"``, the challenge's own.

    The patient is, for mini-MIAS, the pair of films (001, 002), (003, 004)...; for DX the film; for a folder the first
    of these that applies: the group of `patient_pattern`, the hashed DICOM PatientID (else StudyInstanceUID), the
    first folder below `source` that does not merely say what a file is for (``train``, ``images``...), the file's stem.
    The hash (12 hexadecimal digits of SHA-256) keeps the identifier out of sight; it is no anonymisation, for whoever
    has a list of identifiers can find it again.

    Files of two patients with the same content are a leak; the second one is left out.

    Parameters
    ----------
    kind
        ``"mini_mias"``: ``mdb001.pgm``... (or ``.png``) and ``Info.txt``, as in ``all-mias.tar.gz``.
        ``"dx"``: ``TrainingData/001.bmp``, ``Test1Data/151.bmp``, ``Test2Data/301.bmp``..., as in ``RawImage``.
        ``"folder"``: images of any supported format, at any depth.
    source
        A folder or a ``.tar.gz``, ``.tgz``, ``.tar`` or ``.zip`` file; never changed. With `download`, the file (or
        the existing folder) to save the archive to, which is used as it is if it exists already.
    output
        The folder to make. It appears whole or not at all.
    seed
        Of the split.
    download
        Fetch the archive first; only mini-MIAS has a public address. The archive must then be complete.
    overwrite
        Replace what an earlier `prepare` made in `output`; anything else there is never removed.
    progress
        Progress bars on stderr, if it is a terminal.
    strict
        Raise at the first unusable image, and if films are missing, instead of leaving them out with a warning.
    sha256
        What the archive must have; 64 hexadecimal digits.
    patient_pattern
        For ``"folder"``: a regular expression with one group, searched in the stem of each file's name; the group is
        the patient, e.g. ``r"^(\d+)_"``.
    url
        Where to download from instead of `MINI_MIAS_URLS`.

    Raises
    ------
    UsageError
        If an argument is wrong, or `source` and `output` overlap.
    InputError
        If the source cannot be used, holds no usable image or too few patients, an archive is damaged, hostile or not
        the expected one, `output` exists, the download fails, or the disk refuses.
    """
    pattern = _checked_arguments(kind, seed, download, sha256, patient_pattern, url)
    source, output = Path(source).expanduser().resolve(), Path(output).expanduser().resolve()
    _refuse_output(output, overwrite)
    if download:
        if source.is_dir() or not source.name.lower().endswith(ARCHIVE_SUFFIXES):
            source = source / "all-mias.tar.gz"
        if not source.exists():
            download_archive(source, (url,) if url else MINI_MIAS_URLS, sha256=sha256, progress=progress)
    if not source.exists():
        hint = "check the path" + (", or add --download" if kind == "mini_mias" else "")
        raise InputError(f"no such folder or archive: {source}", hint)
    if source == output or source in output.parents or output in source.parents:
        raise UsageError(f"{output} and {source} lie in each other", "choose an output outside the source")
    digest = _checked_archive(source, sha256)

    report = Report(strict)
    with _staged(output) as staging:
        root = source
        if digest is not None:
            root = staging / "images"
            unpack(source, root, lambda parts, head: _wanted(kind, parts, head), progress)
        try:
            found = find_images(root)
        except InputError:
            raise InputError(f"no images in {source}", layout(kind)) from None
        candidates, missing = survey(kind, source, root, found, pattern, report)
        if missing and download and not strict:
            raise InputError(f"{source}: {missing_films(kind, missing)}", f"remove {source}, try again")
        if missing:
            report.fault(missing_films(kind, missing))
        usable = check(kind, candidates, root, report, progress)
        if not usable:
            first = f", first {report.skipped[0][0]}: {report.skipped[0][1]}" if report.skipped else ""
            raise InputError(f"{source}: none of {len(found)} image(s) can be used{first}", layout(kind))
        if digest is not None:
            _remove_unlisted(root, {item.path for item in usable})

        split = split_patients((item.patient for item in usable), seed)
        datalist: dict[str, list[dict[str, Any]]] = {part: [] for part in SPLITS}
        for item in usable:
            place = item.path if digest is None else output / "images" / item.path.relative_to(root)
            entry = {"image": _reference(place, output), "patient": item.patient, **item.facts}
            datalist[split[item.patient]].append(entry)
        summary = PrepareSummary(
            kind=kind,
            datalist=output / "datalist.json",
            images={part: len(datalist[part]) for part in SPLITS},
            patients={part: sum(place == part for place in split.values()) for part in SPLITS},
            skipped=tuple(report.skipped),
            missing=len(missing),
            fingerprint=data_fingerprint({"image": str(item.path)} for item in usable),
            archive_sha256=digest,
            licence=(
                COLLECTIONS[kind].licence
                if kind in COLLECTIONS
                else "Not stated: the terms under which you hold these images apply."
            ),
        )
        counts = {"images": summary.images, "patients": summary.patients}
        content = {
            "name": COLLECTIONS[kind].title if kind in COLLECTIONS else kind,
            "kind": kind,
            "seed": seed,
            "fingerprint": summary.fingerprint,
            "archive_sha256": digest,
            "licence": summary.licence,
            "counts": {**counts, "skipped": len(summary.skipped), "missing": summary.missing},
            **datalist,
        }
        (staging / "datalist.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return summary


def _checked_arguments(
    kind: str, seed: int, download: bool, sha256: str | None, patient_pattern: str | None, url: str | None
) -> re.Pattern[str] | None:
    if kind not in _KINDS:
        raise UsageError(f"unknown kind of data: {kind!r}", nearest(str(kind), _KINDS))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"--seed is {seed!r}", "give an integer")
    if download and kind == "dx":
        raise UsageError(
            "the DX images have no stable public address to download from",
            "get RawImage from the ISBI 2015 challenge (Wang et al. 2016) by hand, and give the folder or archive",
        )
    if download and kind != "mini_mias":
        raise UsageError(f"--download does not go with {kind!r}", "only mini_mias can be downloaded")
    if url is not None and not download:
        raise UsageError("--url is given without --download", "add --download")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        raise UsageError(f"--sha256 is {sha256!r}", "give 64 hexadecimal digits")
    if patient_pattern is None:
        return None
    if kind != "folder":
        raise UsageError(f"--patient_pattern does not go with {kind!r}", "its patients are known; leave it out")
    try:
        pattern = re.compile(str(patient_pattern))
    except re.error as error:
        raise UsageError(f"--patient_pattern {patient_pattern!r}: {error}", r"for example '^(\d+)_'") from None
    if pattern.groups != 1:
        raise UsageError(
            f"--patient_pattern {patient_pattern!r} has {pattern.groups} groups, not 1",
            r"put the patient's part into one pair of parentheses, for example '^(\d+)_'; (?:...) does not count",
        )
    return pattern


def _refuse_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"{output} is a file", "choose a folder that does not exist yet")
    names = {path.name for path in output.iterdir()}
    if names and not overwrite:
        raise InputError(f"{output} exists and is not empty", "choose another folder, or add --overwrite")
    if names and ("datalist.json" not in names or names - {"datalist.json", "images"}):
        foreign = sorted(names - {"datalist.json", "images"})
        raise InputError(
            f"{output} was not made by prepare" + (f": it holds {foreign[0]}" if foreign else ""),
            "--overwrite replaces only folders with datalist.json and images; choose another folder",
        )


def _checked_archive(source: Path, sha256: str | None) -> str | None:
    """The checksum of an archive, compared with what it must be; None for a folder."""
    if source.is_dir():
        if sha256 is not None:
            raise UsageError("--sha256 is given, but the source is a folder", "it is the checksum of an archive")
        return None
    archive_format(source)  # raises for any other file
    digest = content_digest(source)
    if sha256 is not None and digest != sha256.lower():
        raise InputError(f"{source} has the sha256 {digest}, not {sha256.lower()}", "is it the right archive?")
    return digest


@contextmanager
def _staged(output: Path) -> Iterator[Path]:
    """A new folder beside `output` that takes its place at the end, or leaves no trace."""
    staging = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    try:
        staging.mkdir(parents=True)
        yield staging
        _take_place(staging, output)
    except OSError as error:
        raise InputError(
            f"cannot write {output}: {error.strerror or error}", "check free space and permissions"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _take_place(staging: Path, output: Path) -> None:
    old = staging.with_suffix(".old")
    if output.exists():
        os.replace(output, old)
    try:
        os.replace(staging, output)
    except OSError:
        if old.exists():
            os.replace(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _wanted(kind: str, parts: Sequence[str], head: bytes) -> bool:
    """Whether a file of an archive, given its first bytes, is to be unpacked."""
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return False
    name = parts[-1].lower()
    if kind in COLLECTIONS:
        return name.endswith(COLLECTIONS[kind].kept)
    return name.endswith((*IMAGE_SUFFIXES, *_SIDE_FILES)) or head[128:132] == b"DICM"


def _remove_unlisted(root: Path, listed: set[Path]) -> None:
    """Remove what was unpacked and is not used, so that a reader of the folder finds what the datalist names."""
    for path in sorted(root.rglob("*"), reverse=True):  # what a folder holds comes before it
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in listed and path.suffix.lower() not in (".txt", *_SIDE_FILES):
            path.unlink()


def _reference(path: Path, output: Path) -> str:
    """How the datalist names a file: relative where both can be expected to move together, else absolute."""
    try:
        relative = Path(os.path.relpath(path, output))
    except ValueError:  # another drive, on Windows
        return path.as_posix()
    return relative.as_posix() if relative.parts.count("..") <= 2 else path.as_posix()
