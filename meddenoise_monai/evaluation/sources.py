"""From what a user names to the items that are judged and those that baselines are tuned on."""

from __future__ import annotations

import hashlib
import logging
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets import list_images, read_datalist, warn_of_guesses
from ..errors import InputError, UsageError
from ..identity import without_copies
from ..pairing import matched
from .scenes import printable, read_lesions

__all__ = ["Sources", "read_sources"]

_log = logging.getLogger(__name__)

SET_APART = 8  # patients of each data set

Item = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """Items of a datalist.

    Attributes
    ----------
    test
        What is judged.
    tuning
        What baselines are tuned on.
    apart
        Whether no patient of `tuning` is in `test`.
    """

    test: list[Item]
    tuning: list[Item]
    apart: bool


def read_sources(data: str | Path, repeats: bool = False, seed: int = 0) -> Sources:
    """What `data` holds.

    A datalist: its part ``test`` is judged, ``validation`` (else ``training``) is what baselines are tuned on. A folder
    with a ``datalist.json`` is read by that; one with ``original`` and ``noisy``, as `meddenoise corrupt` writes it,
    holds pairs. Any other folder or file holds clean images, or, with `repeats`, a folder for each scene with all
    images of it. From those, eight patients, but at most a third, are set apart for tuning by a hash of their names.
    With one patient alone there is no other to tune on. Images that are copies of others are left out.

    The ``source`` of each item names its data set in all that is written: as the datalist says, else the datalist's or
    the folder's name. That of a single image is ``images``: its name may be a patient's.

    Raises
    ------
    InputError
        There is no such file or folder, it holds nothing to judge, or an item of the datalist is wrong.
    UsageError
        Repeats are asked for where there are none.
    """
    path = Path(data)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}", "check the path")
    listed = path if path.suffix.lower() == ".json" else path / "datalist.json"
    if listed.is_file():
        return _of_datalist(listed)
    if path.is_file():
        items: list[Item] = [{"image": str(path), "patient": path.name}]
    elif (path / "original").is_dir() and (path / "noisy").is_dir():
        patients = {item["image"]: item["patient"] for item in list_images(path / "original")}
        items = [
            {"image": str(noisy), "label": str(clean), "patient": patients[str(clean)]}
            for _, clean, noisy in matched(path / "original", path / "noisy")
        ]
    else:
        items = list_images(path)
        warn_of_guesses(path, items)
    if repeats:
        items = [{**item, "scene": str(Path(item["image"]).parent)} for item in items]
        if path.is_file() or any(Path(item["scene"]) == path for item in items):
            raise UsageError(f"{path} is no folder of scenes", "put the repeats of each scene into a folder of its own")
    # The same image under two names would be tuned on and judged. Copies within the first part stay: so it is empty.
    items = without_copies({"training": [], "test": items})["test"]
    source = "images" if path.is_file() else _source(path.resolve().stem)
    return _set_apart([{**item, "source": source} for item in items], seed)


def _of_datalist(path: Path) -> Sources:
    parts = without_copies(read_datalist(path))
    test, others = parts["test"], parts["validation"] or parts["training"]
    if not test:
        raise InputError(f"{path} lists no test images", 'the part "test" of a datalist is what is judged')
    name = path.parent.resolve().name if path.name == "datalist.json" else path.stem
    test, others = ([_checked({"source": name, **item}, path) for item in part] for part in (test, others))
    tuning = []
    for source in dict.fromkeys(item["source"] for item in test):
        own = [item for item in others if item["source"] == source]
        if not own:
            return _set_apart(test, 0)
        tuning += own
    return Sources(test, tuning, True)


def _checked(item: Item, path: Path) -> Item:
    """The item with names that are text; what it marks is read now, not after the hours that tuning takes."""
    item = dict(item)
    for key in ("source", "scene", "patient"):
        value = item.get(key, "")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(
                f"{path}: {key!r} of {item['image']} is neither text nor a number: {reprlib.repr(value)}",
                f'write "{key}": "a name", or leave it out',
            )
        if key in item:
            item[key] = _source(str(value)) if key == "source" else str(value)
    read_lesions(item)
    return item


def _source(name: str) -> str:
    return printable(name) or "images"


def _set_apart(items: Sequence[Mapping[str, Any]], seed: int) -> Sources:
    test: list[Item] = []
    tuning: list[Item] = []
    apart = True
    for source in dict.fromkeys(item["source"] for item in items):
        own = [dict(item) for item in items if item["source"] == source]
        patients = sorted(
            {str(item.get("patient", item["image"])) for item in own},
            key=lambda name: hashlib.sha256(f"{seed}:{name}".encode(errors="surrogatepass")).digest(),
        )
        chosen = set(patients[: min(SET_APART, max(1, len(patients) // 3))])
        if len(patients) < 2:
            _log.warning("%s: one patient alone: baselines are tuned on the very images they are judged on", source)
            test, tuning, apart = test + own, tuning + own, False
            continue
        for item in own:
            (tuning if str(item.get("patient", item["image"])) in chosen else test).append(item)
    return Sources(test, tuning, apart)
