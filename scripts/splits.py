"""The images of the data sets that our experiments use, with their patients, and their split into parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Items = list[dict[str, Any]]


def mini_mias_items(folder: Path) -> Items:
    """The films of mini-MIAS as items of a datalist; films 2n - 1 and 2n are the breasts of one woman."""
    from meddenoise_monai.images import find_images
    from meddenoise_monai.public_data import COLLECTIONS

    collection = COLLECTIONS["mini_mias"]
    return [
        {"image": str(path.resolve()), "patient": collection.patient(number)}
        for path in find_images(folder)
        if (number := collection.number(path)) is not None
    ]


def xray_items(folder: Path) -> Items:
    """X-rays, one a patient."""
    from meddenoise_monai.images import find_images

    return [{"image": str(path.resolve()), "patient": f"xray-{path.stem}"} for path in find_images(folder)]


def split_items(items: Items, seed: int, fractions: Sequence[float]) -> dict[str, Items]:
    """The parts of a datalist, split by patient: training, validation, test."""
    from meddenoise_monai.datasets import SPLITS, split_patients

    split = split_patients((item["patient"] for item in items), seed, fractions)
    return {part: [item for item in items if split[item["patient"]] == part] for part in SPLITS}


def with_lesions(folder: Path, items: Sequence[dict[str, Any]]) -> Items:
    """Items of mini-MIAS with what Info.txt marks on each film, as ``lesions`` (see `public_data.parse_mias_info`)."""
    from meddenoise_monai.public_data import COLLECTIONS, parse_mias_info

    known, _ = parse_mias_info((folder / "Info.txt").read_text(encoding="utf-8", errors="replace"))
    number = COLLECTIONS["mini_mias"].number
    return [{**item, "lesions": known.get(number(Path(item["image"])) or 0, [])} for item in items]
