"""Which files of two folders belong together."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError, UsageError
from .images import IMAGE_SUFFIXES, find_images, image_suffix

__all__ = ["matched"]


def _stem(path: Path) -> str:
    """The path without its suffix, or with that of a format it was converted from: ``a.dcm.tif`` matches ``a.dcm``."""
    name = str(path)
    while (suffix := image_suffix(name)) in IMAGE_SUFFIXES:
        name = name[: -len(suffix)]
    return name


def _by_stem(folder: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in find_images(folder):
        other = paths.setdefault(_stem(path.relative_to(folder)), path)
        if other != path:
            raise InputError(f"{other} and {path} have the same name but for their suffixes", "leave one of them out")
    return paths


def matched(reference: Path, test: Path) -> list[tuple[str, Path, Path]]:
    """The two files, or the like-named files of two folders: ``(name, file of reference, file of test)``.

    Suffixes may differ, also by that of a format a file was converted from.

    Raises
    ------
    UsageError
        If one is a file and the other a folder.
    InputError
        If one is missing, or the folders hold different names.
    """
    for path in (reference, test):
        if not path.exists():
            raise InputError(f"no such file or folder: {path}", "check the path")
    if reference.is_file() and test.is_file():
        return [(reference.name, reference, test)]
    if reference.is_file() or test.is_file():
        raise UsageError("one of the two is a file and the other is not", "give two files or two folders")
    references, tests = _by_stem(reference), _by_stem(test)
    unmatched = sorted(references.keys() ^ tests.keys())
    if unmatched:
        raise InputError(
            f"{len(unmatched)} file(s) are in one folder only, first {unmatched[0]}",
            "both folders must hold the same names (suffixes may differ)",
        )
    return [(name, references[name], tests[name]) for name in sorted(references)]
