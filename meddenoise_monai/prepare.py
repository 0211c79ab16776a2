"""`meddenoise prepare`: a public archive, or any folder of images, becomes a checked datalist split by patient.

The result is a folder with ``datalist.json`` and, where the source is an archive, ``images/`` beside it. Every image
that the datalist names was read once and found usable. Archives come from strangers: what they may write, where and
how much, is decided here.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import logging
import os
import re
import secrets
import shutil
import stat
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from .datasets import IMAGE_SUFFIXES, SPLITS, data_fingerprint, split_patients
from .errors import InputError, UsageError, nearest
from .images import find_images, image_suffix, read_image

__all__ = ["MINI_MIAS_URLS", "PrepareSummary", "download_archive", "parse_mias_info", "prepare"]

_log = logging.getLogger(__name__)

# The address that the database's own page gives is the second one; the first is the same file, encrypted on the way.
MINI_MIAS_URLS = (
    "https://peipa.essex.ac.uk/pix/mias/all-mias.tar.gz",
    "http://peipa.essex.ac.uk/pix/mias/all-mias.tar.gz",
)
MINI_MIAS_FILMS = 322
_MIAS_SIDE = 1024
_DX_SUBSETS = {"trainingdata": (1, 150), "test1data": (151, 300), "test2data": (301, 400)}
_EXPECTED_SHAPE = {"mini_mias": (_MIAS_SIDE, _MIAS_SIDE), "dx": (2400, 1935)}  # (height, width)
_NAMES = {"mini_mias": "mini-MIAS", "dx": "DX (ISBI 2015 cephalograms)", "folder": "folder"}
_LICENCES = {
    "mini_mias": "Research use only, under the licence agreement of the Mammographic Image Analysis Society "
    "(Licence.txt of the archive). Cite: J Suckling et al. (1994), The Mammographic Image Analysis Society Digital "
    "Mammogram Database, Exerpta Medica, International Congress Series 1069, pp. 375-378.",
    "dx": "Research use, under the terms of the ISBI 2015 Grand Challenge in Dental X-ray Image Analysis. Cite: "
    "C-W Wang et al. (2016), A benchmark for comparison of dental radiography analysis algorithms, "
    "Medical Image Analysis 31, pp. 63-76.",
    "folder": "Not stated: the terms under which you hold these images apply.",
}

# What an archive may unpack to. Medical images compress by less than 50 to 1; small bombs do no harm.
MAX_UNPACKED_BYTES = 20 * 2**30
MAX_COMPRESSION = 200
HARMLESS_BYTES = 256 * 2**20
MAX_DOWNLOAD_BYTES = 4 * 2**30

_CHUNK = 1 << 20
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_SIDE_FILES = (".rec", ".raw", ".zraw")  # the pixels that a .par or .mhd header points to
_MIAS_TEXTS = ("info.txt", "licence.txt")
# Folders that say what a file is for, not whom it shows.
# fmt: off
_NO_PATIENT = frozenset({
    "train", "training", "trainingdata", "val", "valid", "validation", "dev", "test", "testing", "test1data",
    "test2data", "image", "images", "img", "imgs", "data", "raw", "rawimage", "dicom", "noisy", "clean", "original",
})
# fmt: on
_Report = Callable[[str, str], None]


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
        `meddenoise_monai.datasets.data_fingerprint` of all images of the datalist.
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


@dataclass(frozen=True)
class _Candidate:
    """An image that may enter the datalist, and what is known of it from its name and place."""

    path: Path
    patient: str
    facts: dict[str, Any] = field(default_factory=dict)


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
        if source.is_dir() or not source.name.lower().endswith(_ARCHIVE_SUFFIXES):
            source = source / "all-mias.tar.gz"
        if not source.exists():
            download_archive(source, (url,) if url else MINI_MIAS_URLS, sha256=sha256, progress=progress)
    if not source.exists():
        hint = "check the path" + (", or add --download" if kind == "mini_mias" else "")
        raise InputError(f"no such folder or archive: {source}", hint)
    if source == output or source in output.parents or output in source.parents:
        raise UsageError(f"{output} and {source} lie in each other", "choose an output outside the source")

    archive_format = None if source.is_dir() else _archive_format(source)
    digest = None
    if archive_format:
        digest = _sha256(source)
        if sha256 is not None and digest != sha256.lower():
            raise InputError(f"{source} has the sha256 {digest}, not {sha256.lower()}", "is it the right archive?")
    elif sha256 is not None:
        raise UsageError("--sha256 is given, but the source is a folder", "it is the checksum of an archive")

    staging = _sibling(output, "partial")
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(output, error) from error
    try:
        root = source
        if archive_format:
            root = staging / "images"
            _unpack(source, archive_format, root, output, kind, progress)
        skipped: list[tuple[str, str]] = []

        def report(name: str, reason: str) -> None:
            if strict:
                raise InputError(f"{name}: {reason}", "mend or remove it, or run without --strict to leave it out")
            skipped.append((name, reason))
            _log.warning("skipped %s: %s", name, reason)

        try:
            found = find_images(root)
        except InputError as error:
            raise InputError(error.message.replace(str(root), str(source)), error.hint) from None
        candidates, missing = _survey(kind, source, root, found, pattern, report, strict)
        if missing:
            message = f"{len(missing)} of {_expected(kind)} films are missing: {_ranges(missing)}"
            if strict or download:
                hint = "run without --strict to use those that are there" if strict else f"remove {source}, try again"
                raise InputError(f"{source}: {message}", hint)
            _log.warning("%s", message)
        usable = _check(kind, candidates, root, report, progress)
        if not usable:
            first = f", first {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
            raise InputError(f"{source}: none of {len(found)} image(s) can be used{first}", _layout(kind))
        if archive_format:
            _remove_unlisted(root, {item.path for item in usable})

        split = split_patients((item.patient for item in usable), seed)
        datalist: dict[str, list[dict[str, Any]]] = {part: [] for part in SPLITS}
        for item in usable:
            place = item.path if root == source else output / "images" / item.path.relative_to(root)
            entry = {"image": _reference(place, output), "patient": item.patient, **item.facts}
            datalist[split[item.patient]].append(entry)
        summary = PrepareSummary(
            kind=kind,
            datalist=output / "datalist.json",
            images={part: len(datalist[part]) for part in SPLITS},
            patients={part: sum(place == part for place in split.values()) for part in SPLITS},
            skipped=tuple(skipped),
            missing=len(missing),
            fingerprint=data_fingerprint({"image": str(item.path)} for item in usable),
            archive_sha256=digest,
            licence=_LICENCES[kind],
        )
        counts = {"images": summary.images, "patients": summary.patients}
        _write_json(
            staging / "datalist.json",
            output,
            {
                "name": _NAMES[kind],
                "kind": kind,
                "seed": seed,
                "fingerprint": summary.fingerprint,
                "archive_sha256": digest,
                "licence": summary.licence,
                "counts": {**counts, "skipped": len(skipped), "missing": len(missing)},
                **datalist,
            },
        )
        _take_place(staging, output)
    finally:
        # Also at KeyboardInterrupt; after success there is nothing left to remove.
        shutil.rmtree(staging, ignore_errors=True)
    return summary


def _checked_arguments(
    kind: str, seed: int, download: bool, sha256: str | None, patient_pattern: str | None, url: str | None
) -> re.Pattern[str] | None:
    if kind not in _NAMES:
        raise UsageError(f"unknown kind of data: {kind!r}", nearest(str(kind), _NAMES))
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


# --- What a source holds ----------------------------------------------------------------------------------------------


def _survey(
    kind: str,
    source: Path,
    root: Path,
    found: Sequence[Path],
    pattern: re.Pattern[str] | None,
    report: _Report,
    strict: bool,
) -> tuple[list[_Candidate], list[int]]:
    """The candidates among the files found, and the numbers of films that are missing."""
    if kind == "folder":
        return [_Candidate(path, _patient(path, root, pattern)) for path in found], []
    films: dict[int, Path] = {}
    strangers = 0
    for path in found:
        number = (_mias_number if kind == "mini_mias" else _dx_number)(path)
        if number is None:
            strangers += 1
        elif number in films:
            report(_shown(path, root), f"the same film as {_shown(films[number], root)}")
        else:
            films[number] = path
    if not films:
        raise InputError(f"{source} holds no film of {_NAMES[kind]}", _layout(kind))
    if strangers:
        _log.warning("%d image file(s) are no films of %s and are passed over", strangers, _NAMES[kind])
    missing = sorted(set(range(1, _expected(kind) + 1)) - set(films))
    if kind == "dx":
        return [
            _Candidate(path, f"dx-{number:03d}", {"subset": path.parent.name}) for number, path in sorted(films.items())
        ], missing
    lesions = _mias_lesions(root, strict)
    return [
        _Candidate(path, f"mias-{(number + 1) // 2:03d}", {"lesions": lesions[number]} if number in lesions else {})
        for number, path in sorted(films.items())
    ], missing


def _expected(kind: str) -> int:
    return MINI_MIAS_FILMS if kind == "mini_mias" else _DX_SUBSETS["test2data"][1]


def _layout(kind: str) -> str:
    return {
        "mini_mias": "expected are mdb001.pgm to mdb322.pgm (or .png), 1024x1024, with Info.txt beside them",
        "dx": "expected are RawImage/TrainingData/001.bmp, Test1Data/151.bmp, Test2Data/301.bmp..., 1935x2400",
        "folder": f"readable are {', '.join(IMAGE_SUFFIXES)}",
    }[kind]


def _mias_number(path: Path) -> int | None:
    match = re.fullmatch(r"mdb(\d{3})\.(pgm|png)", path.name.lower())
    number = int(match[1]) if match else 0
    return number if 1 <= number <= MINI_MIAS_FILMS else None


def _dx_number(path: Path) -> int | None:
    match = re.fullmatch(r"(\d{1,3})\.(bmp|png)", path.name.lower())
    first, last = _DX_SUBSETS.get(path.parent.name.lower(), (1, 0))
    return int(match[1]) if match and first <= int(match[1]) <= last else None


def _mias_lesions(root: Path, strict: bool) -> dict[int, list[dict[str, Any]]]:
    texts = sorted((p for p in root.rglob("*") if p.name.lower() == "info.txt"), key=lambda p: (len(p.parts), p))
    if not texts:
        _log.warning("no Info.txt: the datalist says nothing about lesions")
        return {}
    lesions, problems = parse_mias_info(texts[0].read_text(encoding="utf-8", errors="replace"))
    for problem in problems:
        if strict:
            raise InputError(f"{_shown(texts[0], root)}: {problem}", "mend the line, or run without --strict")
        _log.warning("%s: %s", _shown(texts[0], root), problem)
    return lesions


def parse_mias_info(text: str) -> tuple[dict[int, list[dict[str, Any]]], list[str]]:
    """The lesions that mini-MIAS's ``Info.txt`` lists.

    A film of class NORM has none; a film with several has several lines. Lines that give no coordinates (only class
    and severity, or ``*NOTE 3*``: widespread calcifications) lead to a lesion whose x, y and radius are None.

    Parameters
    ----------
    text
        All of the file; what does not begin with ``mdb`` and three digits is explanation.

    Returns
    -------
    lesions
        Film number -> list of ``{"class", "severity", "x", "y", "radius"}``, in pixels of 200 micrometres. x counts
        from the left. y is turned over: the file counts from the bottom left corner, we from the top, so that
        ``image[y, x]`` is the centre (y = 1023 - the file's y).
    problems
        One sentence for each line that begins like a film and cannot be understood.
    """
    lesions: dict[int, list[dict[str, Any]]] = {}
    problems: list[str] = []
    finding = re.compile(
        r"mdb(\d{3})\s+[FGD]\s+(?:NORM|(CALC|CIRC|SPIC|MISC|ARCH|ASYM)\s+([BM])"
        r"(?:\s+(?:\*NOTE\s*3\*|(\d+)\s+(\d+)\s+(\d+)))?)"
    )
    for count, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not re.match(r"mdb\d{3}\b", line):
            continue
        match = finding.fullmatch(line)
        if match is None:
            problems.append(f"line {count} cannot be understood: {line!r}")
            continue
        film = lesions.setdefault(int(match[1]), [])
        if match[2]:
            x, y, radius = (int(value) if value else None for value in match.group(4, 5, 6))
            top = None if y is None else _MIAS_SIDE - 1 - y
            film.append({"class": match[2], "severity": match[3], "x": x, "y": top, "radius": radius})
    return lesions, problems


def _patient(path: Path, root: Path, pattern: re.Pattern[str] | None) -> str:
    suffix = image_suffix(path)
    stem = path.name[: len(path.name) - len(suffix)]
    if pattern is not None:
        match = pattern.search(stem)
        if match is None or not match[1]:
            raise UsageError(
                f"--patient_pattern {pattern.pattern!r} finds no patient in {stem!r}",
                "mend the expression so that it fits each file's name, or leave it out",
            )
        return match[1]
    if suffix in _DICOM_SUFFIXES or suffix not in IMAGE_SUFFIXES:  # find_images has recognised the others as DICOM
        hashed = _dicom_patient(path)
        if hashed:
            return hashed
    return next((part for part in path.relative_to(root).parts[:-1] if part.lower() not in _NO_PATIENT), stem)


def _dicom_patient(path: Path) -> str | None:
    import warnings

    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom comments on every slightly irregular file
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", "StudyInstanceUID"])
            identifier = str(header.get("PatientID") or "").strip() or str(header.get("StudyInstanceUID") or "").strip()
    except Exception:  # no DICOM after all: reading the image will say so, and name it
        return None
    return hashlib.sha256(identifier.encode()).hexdigest()[:12] if identifier else None


def _check(
    kind: str, candidates: Sequence[_Candidate], root: Path, report: _Report, progress: bool
) -> list[_Candidate]:
    """Those that can be read, are of the right kind, and do not show another patient's pixels again."""
    usable: list[_Candidate] = []
    first_with: dict[str, _Candidate] = {}
    expected = _EXPECTED_SHAPE.get(kind)
    for item in tqdm(candidates, "checking", leave=False, disable=None if progress else True):
        shown = _shown(item.path, root)
        try:
            array = read_image(item.path).array
        except InputError as error:
            # The archive's files lie in a temporary folder that nobody should look for afterwards.
            reason = error.message.removeprefix(f"{item.path}: ").replace(f"cannot read {item.path}", "cannot be read")
            report(shown, reason.replace(str(item.path), item.path.name))
            continue
        if expected is not None and (array.shape != expected or array.dtype != np.uint8):
            size = "x".join(str(n) for n in array.shape[::-1])
            report(shown, f"{size} pixels of {array.dtype}, not {expected[1]}x{expected[0]} of uint8")
            continue
        twin = first_with.setdefault(_sha256(item.path), item)
        if twin.patient != item.patient:
            report(shown, f"the same file as {_shown(twin.path, root)}, which is another patient's")
            continue
        usable.append(item)
    return usable


# --- Archives ---------------------------------------------------------------------------------------------------------


def _archive_format(path: Path) -> str:
    """``"gzip"``, ``"tar"`` or ``"zip"``, by content; anything else is refused."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    name = path.name.lower()
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar" or (name.endswith(".tar") and head):
        return "tar"
    if head.startswith((b"Rar!", b"7z\xbc\xaf")) or name.endswith((".rar", ".7z")):
        raise InputError(
            f"{path.name} is a {'7z' if name.endswith('.7z') else 'RAR'} archive, which cannot be opened here",
            f"unpack it first, for example with `unar {path.name}` or `7z x {path.name}`, and give the folder",
        )
    raise InputError(
        f"{path.name} is neither a folder nor an archive", f"give a folder or one of {', '.join(_ARCHIVE_SUFFIXES)}"
    )


class _Metered(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes: tar headers, too, can unpack without end."""

    def __init__(self, stream: IO[bytes], limit: int, refusal: InputError) -> None:
        self._stream, self._left, self._refusal = stream, limit, refusal

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise self._refusal
        buffer[: len(data)] = data
        return len(data)


def _unpack(archive: Path, archive_format: str, folder: Path, output: Path, kind: str, progress: bool) -> None:
    """Write the images (and mini-MIAS's texts) of an archive into `folder`; other members are passed over.

    `output` is what the user called the place.
    """
    limit = min(MAX_UNPACKED_BYTES, max(HARMLESS_BYTES, MAX_COMPRESSION * archive.stat().st_size))
    refusal = InputError(
        f"{archive.name} unpacks to more than {limit / 2**30:.3g} GiB, which no archive of images of its size does",
        "if you trust it, unpack it yourself and give the folder",
    )
    members = (_zip_members if archive_format == "zip" else _tar_members)(archive, archive_format, limit, refusal)
    written = images = 0
    bar = tqdm(desc="unpacking", unit=" files", leave=False, disable=None if progress else True)
    try:
        with bar:
            for name, stream in members:
                parts = [part for part in _safe_parts(name, archive) if part != "."]
                chunk = stream.read(_CHUNK)
                if not _wanted(parts, chunk, kind):
                    continue
                target = folder.joinpath(*parts)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        while chunk:
                            written += len(chunk)
                            if written > limit:
                                raise refusal
                            file.write(chunk)
                            chunk = _next_chunk(stream, archive)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    raise InputError(f"{archive.name} holds {name!r} twice", _by_hand(archive)) from None
                except OSError as error:
                    raise _cannot_write(output.joinpath("images", *parts), error) from error
                images += target.suffix.lower() != ".txt"
                bar.update()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, OSError) as error:
        raise _damaged(archive, error) from error
    if not images:
        raise InputError(f"{archive.name} holds no images", _layout(kind))


def _next_chunk(stream: IO[bytes], archive: Path) -> bytes:
    try:
        return stream.read(_CHUNK)
    except OSError as error:  # else it would be taken for a failure to write
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> InputError:
    return InputError(f"{archive.name} is damaged or cut short: {error}", "fetch it again, or compare its sha256")


def _by_hand(archive: Path) -> str:
    return f"if you trust {archive.name}, unpack it yourself and give the folder"


def _wanted(parts: Sequence[str], head: bytes, kind: str) -> bool:
    name = parts[-1].lower() if parts else "."
    if any(part.startswith(".") or part == "__MACOSX" for part in parts) or name == ".":
        return False
    if kind == "mini_mias":
        return name.endswith((".pgm", ".png")) or name in _MIAS_TEXTS
    if kind == "dx":
        return name.endswith((".bmp", ".png"))
    return name.endswith((*IMAGE_SUFFIXES, *_SIDE_FILES)) or head[128:132] == b"DICM"


def _safe_parts(name: str, archive: Path) -> list[str]:
    """The parts of a member's path, or a refusal of the whole archive if it could lead outside."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or re.match(r"[A-Za-z]:", parts[0]) or "\0" in name:
        raise InputError(f"{archive.name} holds a file that would be written elsewhere: {name!r}", "do not trust it")
    return [part for part in parts if part]


def _refuse_special(name: str, archive: Path) -> InputError:
    return InputError(f"{archive.name} holds a link or special file: {name!r}", _by_hand(archive))


def _tar_members(
    archive: Path, archive_format: str, limit: int, refusal: InputError
) -> Iterator[tuple[str, IO[bytes]]]:
    with archive.open("rb") as raw:
        plain: IO[bytes] = gzip.GzipFile(fileobj=raw) if archive_format == "gzip" else raw  # type: ignore[assignment]
        metered = _Metered(plain, limit, refusal)
        # Mode "r|" reads strictly forward, once: nothing is unpacked twice, and the meter sees every byte.
        with tarfile.open(fileobj=metered, mode="r|") as tar:
            for member in tar:
                _safe_parts(member.name, archive)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise _refuse_special(member.name, archive)
                if hasattr(tarfile, "data_filter"):  # a second opinion, from Python 3.11.4 on
                    try:
                        tarfile.data_filter(member, os.fspath(archive.parent))
                    except tarfile.FilterError as error:
                        raise InputError(f"{archive.name}: {error}", "do not trust it") from None
                if member.size > limit:
                    raise refusal
                stream = tar.extractfile(member)
                if stream is not None:
                    yield member.name, stream
        while metered.read(_CHUNK):  # tar stops at its own end; gzip's checksum comes after it
            pass


def _zip_members(
    archive: Path, archive_format: str, limit: int, refusal: InputError
) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        if sum(member.file_size for member in members) > limit:
            raise refusal
        for member in members:
            _safe_parts(member.orig_filename, archive)
            if member.is_dir():
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise _refuse_special(member.filename, archive)
            if member.flag_bits & 1:
                raise InputError(f"{archive.name} is encrypted", "unpack it yourself and give the folder")
            with content.open(member) as stream:
                yield member.filename, stream


def _remove_unlisted(root: Path, listed: set[Path]) -> None:
    """Remove what was unpacked and is not used, so that a reader of the folder finds what the datalist names."""
    for parent, folders, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(parent, name)
            if path not in listed and path.suffix.lower() not in (".txt", *_SIDE_FILES):
                path.unlink()
        for name in folders:
            path = Path(parent, name)
            if not any(path.iterdir()):
                path.rmdir()


# --- The way in and out -----------------------------------------------------------------------------------------------


def download_archive(
    target: str | os.PathLike[str],
    urls: Sequence[str] = MINI_MIAS_URLS,
    *,
    sha256: str | None = None,
    progress: bool = True,
    timeout: float = 60.0,
) -> str:
    """Fetch an archive; `target` appears whole or not at all.

    No checksum of mini-MIAS is published. Without `sha256` the file is checked for being an archive of the announced
    length; `prepare` then checks each film in it.

    Parameters
    ----------
    target
        The file to write.
    urls
        Addresses of the same file, http or https, tried in this order while one cannot be reached.
    sha256
        What the file must have; 64 hexadecimal digits.
    progress
        A progress bar on stderr, if it is a terminal.
    timeout
        Seconds without an answer.

    Returns
    -------
    str
        The file's SHA-256, hexadecimal.

    Raises
    ------
    UsageError
        If an address is neither http nor https.
    InputError
        If no address answers, or what comes is cut short, no archive, too large or of another checksum.
    """
    target = Path(target)
    for url in urls:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"cannot download from {url!r}", "give an address that begins with https:// or http://")
    by_hand = f"fetch it by hand, for example with a browser, and give the file as SOURCE: {urls[-1]}"
    reason = ""
    for url in urls:
        part = _sibling(target, "part")
        try:
            try:
                request = urllib.request.Request(url, headers={"User-Agent": "meddenoise"})
                response = urllib.request.urlopen(request, timeout=timeout)
            except urllib.error.HTTPError as error:
                reason = str(error)
                error.close()
                continue
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(getattr(error, "reason", None) or error)
                continue
            with response:
                digest = _save(response, part, url, progress, by_hand)
            if sha256 is not None and digest != sha256.lower():
                raise InputError(f"{url} has the sha256 {digest}, not {sha256.lower()}", "do not trust this file")
            try:
                _archive_format(part)
            except InputError:
                raise InputError(f"{url} answered with something that is no archive", by_hand) from None
            if sha256 is None and url.startswith("http://"):
                _log.warning("%s came unencrypted; compare its sha256 with another source: %s", target.name, digest)
            try:
                os.replace(part, target)
            except OSError as error:
                raise _cannot_write(target, error) from error
            return digest
        finally:
            part.unlink(missing_ok=True)
    raise InputError(f"cannot download {urls[-1]}: {reason}", by_hand)


def _save(response: Any, part: Path, url: str, progress: bool, by_hand: str) -> str:
    announced = response.headers.get("Content-Length")
    total = int(announced) if announced and announced.isdigit() else None
    digest, size = hashlib.sha256(), 0
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("xb")
    except OSError as error:
        raise _cannot_write(part.parent, error) from error
    bar = tqdm(desc="downloading", total=total, unit="B", unit_scale=True, disable=None if progress else True)
    with file, bar:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise InputError(f"the download of {url} broke off: {error}", f"try again, or {by_hand}") from error
            if not chunk:
                break
            size += len(chunk)
            if size > MAX_DOWNLOAD_BYTES:
                raise InputError(f"{url} is larger than {MAX_DOWNLOAD_BYTES / 2**30:.3g} GiB", by_hand)
            digest.update(chunk)
            try:
                file.write(chunk)
            except OSError as error:
                raise _cannot_write(part.parent, error) from error
            bar.update(len(chunk))
    if total is not None and size != total:
        raise InputError(f"the download of {url} broke off: {size} of {total} bytes", f"try again, or {by_hand}")
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def _sibling(path: Path, suffix: str) -> Path:
    """A new name in the same folder, so that a rename is enough to take the place of `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{suffix}")


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


def _take_place(staging: Path, output: Path) -> None:
    old = _sibling(output, "old")
    try:
        if output.exists():
            os.replace(output, old)
        try:
            os.replace(staging, output)
        except OSError:
            if old.exists():
                os.replace(old, output)
            raise
    except OSError as error:
        raise _cannot_write(output, error) from error
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, output: Path, content: dict[str, Any]) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_write(output / path.name, error) from error


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}", "check free space and permissions")


def _reference(path: Path, output: Path) -> str:
    """How the datalist names a file: relative where both can be expected to move together, else absolute."""
    try:
        relative = Path(os.path.relpath(path, output))
    except ValueError:  # another drive, on Windows
        return path.as_posix()
    return relative.as_posix() if relative.parts.count("..") <= 2 else path.as_posix()


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _ranges(numbers: Sequence[int]) -> str:
    """``1, 4-6, 9``, cut after eight entries."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{first:03d}" if first == last else f"{first:03d}-{last:03d}" for first, last in runs[:8]]
    return ", ".join(shown) + (", ..." if len(runs) > 8 else "")
