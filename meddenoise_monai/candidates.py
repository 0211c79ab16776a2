"""Which images a source holds, whom they show, and which of them can be used."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .datasets import patient_of
from .errors import InputError, UsageError
from .identity import content_digest
from .images import IMAGE_SUFFIXES, image_suffix, read_image
from .public_data import COLLECTIONS

__all__ = ["Candidate", "Report", "check", "layout", "missing_films", "survey"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """An image that may enter the datalist, and what is known of it from its name and place."""

    path: Path
    patient: str
    facts: dict[str, Any] = field(default_factory=dict)


class Report:
    """Collects the images that are left out; if `strict`, the first fault of the data is an error."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.skipped: list[tuple[str, str]] = []

    def skip(self, name: str, reason: str) -> None:
        self.fault(f"{name}: {reason}", f"skipped {name}: {reason}")
        self.skipped.append((name, reason))

    def fault(self, message: str, warning: str = "") -> None:
        if self.strict:
            raise InputError(message, "mend or remove it, or run without --strict")
        _log.warning("%s", warning or message)


def survey(
    kind: str, source: Path, root: Path, found: Sequence[Path], pattern: re.Pattern[str] | None, report: Report
) -> tuple[list[Candidate], list[int]]:
    """The candidates among the files found, and the numbers of films that are missing."""
    if kind == "folder":
        candidates = [Candidate(path, _patient(path, root, pattern)) for path in found]
        if pattern is None and len({one.patient for one in candidates}) == len(candidates) > 1:
            _log.warning(
                "every image is taken for another patient; if some show the same one, name patients by "
                "--patient_pattern, or put each patient's images into a folder of their own"
            )
        return candidates, []
    collection = COLLECTIONS[kind]
    films: dict[int, Path] = {}
    strangers = 0
    for path in found:
        number = collection.number(path)
        if number is None or not 1 <= number <= collection.films:
            strangers += 1
        elif number in films:
            report.skip(_shown(path, root), f"the same film as {_shown(films[number], root)}")
        else:
            films[number] = path
    if not films:
        raise InputError(f"{source} holds no film of {collection.title}", collection.layout)
    if strangers:
        _log.warning("%d image file(s) are no films of %s and are passed over", strangers, collection.title)
    facts, problems = collection.facts(root, films)
    for problem in problems:
        report.fault(problem)
    candidates = [
        Candidate(path, collection.patient(number), facts.get(number, {})) for number, path in sorted(films.items())
    ]
    return candidates, sorted(set(range(1, collection.films + 1)) - set(films))


def missing_films(kind: str, numbers: Sequence[int]) -> str:
    return f"{len(numbers)} of {COLLECTIONS[kind].films} films are missing: {_ranges(numbers)}"


def layout(kind: str) -> str:
    return COLLECTIONS[kind].layout if kind in COLLECTIONS else f"readable are {', '.join(IMAGE_SUFFIXES)}"


def _patient(path: Path, root: Path, pattern: re.Pattern[str] | None) -> str:
    """Who is shown by an image of a folder; `prepare` states the rule."""
    if pattern is None:
        return patient_of(path, root)
    stem = path.name[: len(path.name) - len(image_suffix(path))]
    match = pattern.search(stem)
    if match is None or not match[1]:
        raise UsageError(
            f"--patient_pattern {pattern.pattern!r} finds no patient in {stem!r}",
            "mend the expression so that it fits each file's name, or leave it out",
        )
    return match[1]


def check(kind: str, candidates: Sequence[Candidate], root: Path, report: Report, progress: bool) -> list[Candidate]:
    """Those that can be read, are of the right kind, and do not show another patient's pixels again."""
    usable: list[Candidate] = []
    first_with: dict[str, Candidate] = {}
    expected = COLLECTIONS[kind].shape if kind in COLLECTIONS else None
    for item in tqdm(candidates, "checking", leave=False, disable=None if progress else True):
        shown = _shown(item.path, root)
        try:
            array = read_image(item.path).array
        except InputError as error:
            # The archive's files lie in a temporary folder that nobody should look for afterwards.
            reason = error.message.removeprefix(f"{item.path}: ").replace(f"cannot read {item.path}", "cannot be read")
            report.skip(shown, reason.replace(str(item.path), item.path.name))
            continue
        if expected is not None and (array.shape != expected or array.dtype != np.uint8):
            size = "x".join(str(n) for n in array.shape[::-1])
            report.skip(shown, f"{size} pixels of {array.dtype}, not {expected[1]}x{expected[0]} of uint8")
            continue
        twin = first_with.setdefault(content_digest(item.path), item)
        if twin.patient != item.patient:
            report.skip(shown, f"the same file as {_shown(twin.path, root)}, which is another patient's")
            continue
        usable.append(item)
    return usable


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
