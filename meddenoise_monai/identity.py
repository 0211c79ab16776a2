"""Which image files are the same by content: fingerprints of data, copies, and images that weights were trained on."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import InputError
from .whole_files import read_json

__all__ = ["content_digest", "count_known", "data_fingerprint", "image_digests", "known_images", "without_copies"]

_log = logging.getLogger(__name__)

Item = dict[str, Any]


def content_digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits; a file that did not change is read once a process."""
    facts = os.stat(path)
    return _digest(os.fspath(path), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=2**18)
def _digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def image_digests(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """The first 16 digits of the digest of each item's ``image``, sorted."""
    return sorted(content_digest(item["image"])[:16] for item in items)


def data_fingerprint(items: Iterable[Mapping[str, Any]]) -> str:
    """A hash of the contents of all files that the items name, independent of their order and paths."""
    digests = []
    for item in items:
        digest = hashlib.sha256()
        for key in ("image", "label"):
            if isinstance(item.get(key), (str, os.PathLike)):
                digest.update(bytes.fromhex(content_digest(item[key])))
        digests.append(digest.hexdigest())
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()[:16]


def without_copies(datalist: Mapping[str, Sequence[Item]]) -> dict[str, list[Item]]:
    """The datalist without validation and test images that are copies of an earlier image, with a warning.

    The same file under two names would let a test score what was trained on, or count one image twice. The first place
    of an image counts, in the order of the splits; copies within the first split (training) do no harm and stay. Files
    are compared by content; only those of one size are read.

    Raises
    ------
    InputError
        If a split holds nothing but copies.
    """
    sizes = Counter(_size(item) for items in datalist.values() for item in items)
    seen: dict[str, Item] = {}
    kept: dict[str, list[Item]] = {}
    for index, (part, items) in enumerate(datalist.items()):
        kept[part] = []
        copies: list[tuple[Item, Item]] = []
        for item in items:
            size = _size(item)
            if size >= 0 and sizes[size] > 1:
                first = seen.setdefault(content_digest(item["image"]), item)
                if first is not item and index:
                    copies.append((item, first))
                    continue
            kept[part].append(item)
        if copies:
            copy, first = copies[0]
            message = (
                f"{len(copies)} {part} image(s) are copies of others, first {copy['image']}, the same file as "
                f"{first['image']}"
            )
            if not kept[part]:
                raise InputError(message, f"give {part} images of their own")
            _log.warning("%s: left out", message)
    return kept


def _size(item: Mapping[str, Any]) -> int:
    try:
        return os.path.getsize(item["image"])
    except OSError:
        return -1  # reading it will say what is wrong; a missing file is no copy


def known_images(weights: str | os.PathLike[str]) -> frozenset[str]:
    """The digests (see `image_digests`) of the images that a training noted beside its weights; empty if it did not.

    The note of ``model_best.pt`` is ``model_best.json`` beside it.
    """
    try:
        content = read_json(Path(weights).with_suffix(".json"))
        return frozenset(map(str, content["training_images"]))
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()


def count_known(weights: str | os.PathLike[str], items: Sequence[Mapping[str, Any]]) -> int:
    """How many of the items' images the weights were trained on; a warning says so if there are any."""
    known = known_images(weights)
    count = sum(digest in known for digest in image_digests(items)) if known else 0
    if count:
        _log.warning(
            "%d of %d test images are among those that %s was trained on: their scores say nothing about new images "
            "(repeat the training's --dataset_dir, --datalist and --seed)",
            count,
            len(items),
            weights,
        )
    return count
