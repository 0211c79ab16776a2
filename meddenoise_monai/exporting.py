"""The self-contained bundle: configurations, weights, documents, licence, and this package's code at its root."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from . import __version__
from .errors import InputError, UsageError
from .whole_files import TEMPORARY

__all__ = ["BUNDLE_NAME", "ExportSummary", "export_bundle"]

BUNDLE_NAME = "medical_image_denoising_dae"
MAX_FILE_BYTES = 25_000_000  # the model zoo's limit; GitHub shows no larger file either

_ONNX = "models/model.onnx"
_CARD = "docs/README.md"
# Everything else below models/ was left there by a training.
_MODELS = ("models/model.pt", "models/model.json", "models/model_uncertainty.json",
           "models/model_correlated.pt", "models/model_correlated.json")  # fmt: skip
_REQUIRED = ("LICENSE", "configs/metadata.json", "configs/train.json", "configs/inference.json",
             "configs/evaluate.json", "configs/logging.conf", "docs/README.md", "docs/data_license.txt",
             "models/model.pt")  # fmt: skip
_CODE = (".py", ".js", ".css")  # whatever else lies there, an image or a note, is nobody's business
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


@dataclass(frozen=True)
class ExportSummary:
    """What `export_bundle` wrote.

    Parameters
    ----------
    folder, archive
        The bundle, and the same as a zip file.
    version
        Of the bundle.
    files
        Names relative to the folder, sorted.
    bytes
        Of all files together, unpacked.
    sha256
        Of the archive; the same sources give the same.
    """

    folder: Path
    archive: Path
    version: str
    files: tuple[str, ...]
    bytes: int
    sha256: str

    def __str__(self) -> str:
        return (
            f"{self.folder}: version {self.version}, {len(self.files)} files, {self.bytes / 1e6:.1f} MB\n"
            f"{self.archive}: sha256 {self.sha256}"
        )


def export_bundle(output: str | os.PathLike[str], *, onnx: bool = False, overwrite: bool = False) -> ExportSummary:
    """Write the bundle as a folder and as a zip file; both appear whole or not at all.

    Parameters
    ----------
    output
        The folder to write them into, made when missing.
    onnx
        Add ``models/model.onnx``.
    overwrite
        Replace what an earlier export wrote.

    Raises
    ------
    InputError
        If the sources are not there, break a rule of the model zoo (version, sizes), or something is in the way.
    UsageError
        If `output` lies inside of the sources, or what writes ONNX is not installed.
    """
    root, bundle = _roots()
    output = Path(output)
    for source in {root / __package__, bundle}:
        if output.resolve().is_relative_to(source):
            raise UsageError(f"{output} lies inside of what is exported: {source}", "choose another folder")
    sources = _sources(root, bundle)
    version = _checked_version(root, bundle)
    folder = output / BUNDLE_NAME
    archive = output / f"{BUNDLE_NAME}_v{version}.zip"
    _check_place(folder, archive, overwrite)
    try:
        return _written(sources, folder, archive, version, onnx)
    except OSError as error:
        raise InputError(
            f"cannot write {output}: {error.strerror or error}", "check free space and permissions"
        ) from error


def _written(sources: dict[str, Path], folder: Path, archive: Path, version: str, onnx: bool) -> ExportSummary:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
    try:
        new = scratch / BUNDLE_NAME
        for name, source in sources.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, new / name)
        card = new / _CARD
        card.write_text(_without_links_outside(card.read_text(encoding="utf-8")), encoding="utf-8")
        if onnx:
            from .onnx_export import export_onnx

            export_onnx(new / "models" / "model.pt", new / _ONNX)
        names = sorted([*sources, _ONNX] if onnx else sources)
        _check_sizes(new, names)
        _zip(new, names, scratch / archive.name)
        summary = ExportSummary(
            folder, archive, version, tuple(names), sum((new / name).stat().st_size for name in names),
            hashlib.sha256((scratch / archive.name).read_bytes()).hexdigest(),
        )  # fmt: skip
        _put({new: folder, scratch / archive.name: archive}, scratch / "replaced")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return summary


def _roots() -> tuple[Path, Path]:
    """The folder that holds the package, and the bundle: beside it in the repository, the same in an export."""
    root = Path(__file__).resolve().parents[1]
    for bundle in (root / "bundle", root):
        if (bundle / "configs" / "metadata.json").is_file():
            return root, bundle
    raise InputError(
        "this installation has the package alone, without the bundle's configurations",
        "install from a clone of the repository: python -m pip install -c constraints.txt -e .",
    )


def _sources(root: Path, bundle: Path) -> dict[str, Path]:
    """The exported files by their names in the bundle."""
    found = [bundle / "LICENSE", *(bundle / name for name in _MODELS)]
    found += [*(bundle / "configs").glob("*.json"), bundle / "configs" / "logging.conf"]
    found += [bundle / "docs" / "data_license.txt", *(bundle / "docs").glob("*.md"), *(bundle / "docs").glob("*.png")]
    sources = {path.relative_to(bundle).as_posix(): path for path in found if path.is_file() and path.name[0] != "."}
    package = root / __package__
    code = {
        path.relative_to(root).as_posix(): path
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix in _CODE
        and not any(part == "__pycache__" or part[0] == "." for part in path.relative_to(package).parts)
    }
    for name in _REQUIRED:
        if name not in sources:
            raise InputError(f"the bundle lacks {name}", f"restore {bundle / name}")
    return sources | code


def _without_links_outside(card: str) -> str:
    """The model card with links that leave the bundle as words: what they lead to stays in the repository."""
    return re.sub(r"\[([^\]]+)\]\(\.\./\.\./([^)#]+)(?:#[^)]*)?\)", r"\1 (`\2` of the repository)", card)


def _numbers(version: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise InputError(f"{version!r} is no version", "write three numbers, such as 0.2.0")
    return tuple(map(int, version.split(".")))


def _checked_version(root: Path, bundle: Path) -> str:
    """The version of the bundle, on which metadata.json, CHANGELOG.md and the package must agree."""
    place = bundle / "configs" / "metadata.json"
    try:
        metadata = json.loads(place.read_text(encoding="utf-8"))
        version, changelog = str(metadata["version"]), dict(metadata["changelog"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read version and changelog of {place}: {error!r}", "mend the file") from error
    if not str(changelog.get(version, "")).strip():
        raise InputError(f"version {version} has no line in the changelog of {place}", "write what is new in it")
    newest = max(changelog, key=_numbers)
    if newest != version:
        raise InputError(f"{place} says version {version}, its changelog is at {newest}", "make them agree")
    told = {f"{__package__}.__version__": __version__}
    history = root / "CHANGELOG.md"  # an exported bundle has none
    if history.is_file():
        headings = re.findall(r"^## \[?v?(\d+\.\d+\.\d+)", history.read_text(encoding="utf-8"), re.M)
        told[history.name] = headings[0] if headings else "none"
    for name, other in told.items():
        if other != version:
            raise InputError(f"{place} says version {version}, {name} says {other}", "make them agree")
    return version


def _check_place(folder: Path, archive: Path, overwrite: bool) -> None:
    for path in (folder, archive):
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already", "choose another folder, or give --overwrite")
    if archive.is_dir():
        raise InputError(f"{archive} is a folder", "move it away")
    if not folder.exists():
        return
    if not (folder / "configs" / "metadata.json").is_file():
        raise InputError(f"{folder} is no bundle, and is not replaced", "move it away")
    exported = _contents_of_archives(folder.parent)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        by_others = name == "README.md" or path.suffix == ".pyc"  # push_to_hf_hub leaves a README.md
        if path.is_file() and not by_others and (name, zlib.crc32(path.read_bytes())) not in exported:
            raise InputError(
                f"{path} was not exported, or changed since, and would be lost",
                f"move it away; what was exported is known by the {BUNDLE_NAME}_v….zip beside the folder",
            )


def _contents_of_archives(output: Path) -> set[tuple[str, int]]:
    """The names and checksums of all files of the archives that earlier exports wrote."""
    found: set[tuple[str, int]] = set()
    for path in output.glob(f"{BUNDLE_NAME}_v*.zip"):
        with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            found |= {(entry.filename.partition("/")[2], entry.CRC) for entry in archive.infolist()}
    return found


def _put(places: dict[Path, Path], replaced: Path) -> None:
    """Rename all to their places, or none: what is there goes to the folder `replaced`, and comes back."""
    replaced.mkdir()
    undo: list[tuple[Path, Path]] = []
    try:
        for new, place in places.items():
            if place.exists():
                place.rename(replaced / place.name)
                undo.append((replaced / place.name, place))
            new.rename(place)
            undo.append((place, new))
    except BaseException:  # Ctrl-C, too
        for there, back in reversed(undo):
            there.rename(back)
        raise


def _check_sizes(folder: Path, names: list[str]) -> None:
    for name in names:
        size = (folder / name).stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"{name} has {size / 1e6:.1f} MB, more than the {MAX_FILE_BYTES / 1e6:g} MB that the model zoo takes",
                "make it smaller",
            )


def _zip(folder: Path, names: list[str], target: Path) -> None:
    """An archive that depends on names and contents alone."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whose permissions follow
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, (folder / name).read_bytes())
