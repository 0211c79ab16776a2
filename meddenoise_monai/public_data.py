"""The public data sets that `meddenoise prepare` knows by name: mini-MIAS and DX."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["COLLECTIONS", "MINI_MIAS_URLS", "Collection", "parse_mias_info"]

_log = logging.getLogger(__name__)

# The address that the database's own page gives is the second one; the first is the same file, encrypted on the way.
MINI_MIAS_URLS = (
    "https://peipa.essex.ac.uk/pix/mias/all-mias.tar.gz",
    "http://peipa.essex.ac.uk/pix/mias/all-mias.tar.gz",
)
_MIAS_SIDE = 1024
_DX_SUBSETS = {"trainingdata": (1, 150), "test1data": (151, 300), "test2data": (301, 400)}

Facts = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Collection:
    """A public data set of films that are numbered from 1; pixels are uint8.

    Parameters
    ----------
    title, licence
        For the datalist.
    layout
        What its files are, for a hint.
    films
        Their number.
    shape
        (height, width) of each.
    kept
        Endings of the names, in small letters, of the files to unpack.
    number
        The number of the film that a path shows, or None.
    patient
        The patient of a film's number.
    facts
        From the folder and the films found (number -> path) to what more the datalist says of each film, and a
        sentence for each line of the source that cannot be understood.
    """

    title: str
    licence: str
    layout: str
    films: int
    shape: tuple[int, int]
    kept: tuple[str, ...]
    number: Callable[[Path], int | None]
    patient: Callable[[int], str]
    facts: Callable[[Path, Mapping[int, Path]], tuple[Facts, list[str]]]


def _mias_number(path: Path) -> int | None:
    match = re.fullmatch(r"mdb(\d{3})\.(pgm|png)", path.name.lower())
    return int(match[1]) if match else None


def _mias_facts(root: Path, films: Mapping[int, Path]) -> tuple[Facts, list[str]]:
    texts = sorted((p for p in root.rglob("*") if p.name.lower() == "info.txt"), key=lambda p: (len(p.parts), p))
    if not texts:
        _log.warning("no Info.txt: the datalist says nothing about lesions")
        return {}, []
    lesions, problems = parse_mias_info(texts[0].read_text(encoding="utf-8", errors="replace"))
    facts = {number: {"lesions": found} for number, found in lesions.items()}
    return facts, [f"{texts[0].name}: {problem}" for problem in problems]


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


def _dx_number(path: Path) -> int | None:
    match = re.fullmatch(r"(\d{1,3})\.(bmp|png)", path.name.lower())
    first, last = _DX_SUBSETS.get(path.parent.name.lower(), (1, 0))
    return int(match[1]) if match and first <= int(match[1]) <= last else None


def _dx_facts(root: Path, films: Mapping[int, Path]) -> tuple[Facts, list[str]]:
    return {number: {"subset": path.parent.name} for number, path in films.items()}, []


COLLECTIONS = {
    "mini_mias": Collection(
        title="mini-MIAS",
        licence="Research use only, under the licence agreement of the Mammographic Image Analysis Society "
        "(Licence.txt of the archive). Cite: J Suckling et al. (1994), The Mammographic Image Analysis Society Digital "
        "Mammogram Database, Exerpta Medica, International Congress Series 1069, pp. 375-378.",
        layout="expected are mdb001.pgm to mdb322.pgm (or .png), 1024x1024, with Info.txt beside them",
        films=322,
        shape=(_MIAS_SIDE, _MIAS_SIDE),
        kept=(".pgm", ".png", "info.txt", "licence.txt"),
        number=_mias_number,
        patient=lambda number: f"mias-{(number + 1) // 2:03d}",  # the films of one woman follow each other
        facts=_mias_facts,
    ),
    "dx": Collection(
        title="DX (ISBI 2015 cephalograms)",
        licence="Research use, under the terms of the ISBI 2015 Grand Challenge in Dental X-ray Image Analysis. Cite: "
        "C-W Wang et al. (2016), A benchmark for comparison of dental radiography analysis algorithms, "
        "Medical Image Analysis 31, pp. 63-76.",
        layout="expected are RawImage/TrainingData/001.bmp, Test1Data/151.bmp, Test2Data/301.bmp..., 1935x2400",
        films=400,
        shape=(2400, 1935),
        kept=(".bmp", ".png"),
        number=_dx_number,
        patient=lambda number: f"dx-{number:03d}",
        facts=_dx_facts,
    ),
}
