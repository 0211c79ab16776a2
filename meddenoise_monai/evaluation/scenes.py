"""What methods are compared on: windows of images, with their patients; clean ones, pairs, or repeats of one scene."""

from __future__ import annotations

import hashlib
import logging
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets import evenly
from ..errors import InputError, UsageError
from ..images import TISSUE_THRESHOLD, read_image
from ..noise import image_seed
from ..records import spelt

__all__ = [
    "LEAST_SIDE",
    "Annotation",
    "Scene",
    "annotated_windows",
    "check_window",
    "printable",
    "read_lesions",
    "read_scenes",
]

_log = logging.getLogger(__name__)

LEAST_SIDE = 32  # pixels: below, the measures by patches have no patch
TRIES = 200
LARGEST = 400  # pixels, of the window around an annotated lesion of a radius of 79
LONGEST = 80  # characters of a name in tables and figures
_RING = 2.5  # radii, that far the contrast of a lesion is measured
_AS_LESIONS = 'in pixels, with a radius above 0: "lesions": [{"x": 80, "y": 70, "radius": 9}], or leave it out'

Image: TypeAlias = NDArray[np.float32]
Items: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Annotation:
    """A lesion that a data set marks in a window: its middle and radius in pixels, and what kind it is."""

    row: float
    column: float
    radius: float
    kind: str


@dataclass(frozen=True)
class Scene:
    """A window of an image, on the [0, 1] scale of the whole image.

    Attributes
    ----------
    data
        Name of the data set.
    patient
        Whom it shows. Stays on this machine.
    file
        Which file it is from. Stays on this machine.
    clean
        (H, W). With repeats the mean of the second half of them: as good as the truth gets, and its noise is not that
        of those which are judged.
    acquired
        (H, W) each: the scene as it was acquired, with noise (of repeats the first half); none where noise is to be
        drawn.
    annotations
        What is marked in it.
    """

    data: str
    patient: str
    file: str
    clean: Image
    acquired: tuple[Image, ...] = ()
    annotations: tuple[Annotation, ...] = field(default=())

    @cached_property
    def name(self) -> str:
        """A hash of the pixels: says nothing of the patient and may be sent anywhere."""
        digest = hashlib.sha256(repr(self.clean.shape).encode())
        for image in (self.clean, *self.acquired):
            digest.update(np.ascontiguousarray(image, "<f4").tobytes())
        return digest.hexdigest()[:16]


def read_scenes(
    items: Items, window: int = 256, tissue: float | None = None, count: int | None = None, title: str = "reading"
) -> tuple[list[Scene], dict[str, str]]:
    """One window of each image, at full resolution.

    The window is a function of the image's content: of 200 places drawn at random (one place, for images no larger
    than the window) the first with enough tissue, that is pixels above 0.1 of the image's range. Of a volume it is the
    slice in the middle.

    Parameters
    ----------
    items
        Of a datalist: ``image``; also ``label`` (the clean image of a noisy one), ``scene`` (items of one name are
        repeats of one scene), ``patient``, ``source`` (the name of the data set).
    window
        Side in pixels; 0 is the whole image.
    tissue
        Least share of the window that has to be tissue; images without such a window are left out. None leaves none
        out: the window with the most tissue is taken.
    count
        At most so many scenes, evenly spread; None is all.
    title
        Of the progress bar.

    Returns
    -------
    tuple
        The scenes, and why each file that was left out was: nobody knows what noise has a file that cannot be read.

    Raises
    ------
    InputError
        No image can be used.
    UsageError
        As `check_window`.
    """
    check_window(window, tissue)
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for number, item in enumerate(items):
        groups.setdefault((item.get("source"), item["scene"]) if "scene" in item else number, []).append(item)
    scenes: list[Scene] = []
    left_out: dict[str, str] = {}
    for group in tqdm(list(groups.values()), title, leave=False, disable=None):
        try:
            scenes.append(_scene(group, window, tissue))
        except InputError as error:
            left_out[str(group[0]["image"])] = error.message
    if not scenes:
        reason = next(iter(left_out.values()), "there are none")
        raise InputError(
            f"none of {len(groups)} image(s) can be compared on: {reason}", "give other images or --tissue 0"
        )
    return (scenes if count is None else evenly_by_data(scenes, count)), left_out


def check_window(window: int, tissue: float | None = None) -> None:
    """Refuse a window in which nothing can be measured, and a share of tissue that is none.

    Raises
    ------
    UsageError
        The side is neither 0 nor `LEAST_SIDE` or more, or the share not from 0 to 1.
    """
    if window < 0 or 0 < window < LEAST_SIDE:
        raise UsageError(
            f"a window of {window} pixels holds too little",
            f"give --window {LEAST_SIDE} or more, or 0 for whole images",
        )
    if tissue is None:
        return
    if isinstance(tissue, bool) or not isinstance(tissue, int | float) or not 0 <= tissue <= 1:
        raise UsageError(
            f"--tissue {reprlib.repr(tissue)} is no share from 0 to 1", "give --tissue 0.95, or leave it out"
        )


def printable(name: object) -> str:
    """A name as tables, figures and terminals can show it: one line of at most 80 characters, all of them visible."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(name)).strip()
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def evenly_by_data(scenes: Sequence[Scene], count: int) -> list[Scene]:
    """At most `count` scenes of each data set, evenly spread."""
    of: dict[str, list[Scene]] = {}
    for scene in scenes:
        of.setdefault(scene.data, []).append(scene)
    return [scene for part in of.values() for scene in evenly(part, count)]


def annotated_windows(items: Items, least: int = 128, most: int = LARGEST) -> list[Scene]:
    """A window around each lesion that items mark (``lesions``, as `meddenoise prepare mini_mias` writes them).

    Square, of at least `least` pixels and large enough for the ring around the lesion that its contrast is measured
    against; lesions without a place or radius, and those that reach too near the border, are left out, and so are
    images that cannot be read. Those whose window would be larger than `most` are left out, too: what reaches some
    pixels far does not change the contrast of what is so large, and a few of them would take longer than all others.
    """
    found = []
    for item in items:
        marked = read_lesions(item)
        if not marked:
            continue
        try:
            image = _unit(str(item["image"]))
        except InputError:
            continue
        for lesion in marked:
            row, column, radius = lesion.row, lesion.column, max(2.0, lesion.radius)
            if min(image.shape) <= 2 * _RING * radius:  # also where it is too large for an integer
                continue
            half = max(least // 2, int(np.ceil(_RING * radius)) + 1)
            if not 2 * half <= min(most, *image.shape):
                continue
            top, left = (
                min(max(round(middle) - half, 0), size - 2 * half)
                for middle, size in zip((row, column), image.shape, strict=True)
            )
            clean = image[top : top + 2 * half, left : left + 2 * half].copy()
            place = Annotation(row - top, column - left, radius, lesion.kind)
            if 0 <= place.row < 2 * half and 0 <= place.column < 2 * half:
                found.append(
                    Scene(_data_of(item), _patient_of(item), spelt(str(item["image"])), clean, annotations=(place,))
                )
    return found


def read_lesions(item: Mapping[str, Any]) -> list[Annotation]:
    """The lesions that an item marks and whose place is known, in pixels of its whole image.

    Those without ``x`` or ``radius`` are left out: mini-MIAS has some that are nowhere in particular.

    Raises
    ------
    InputError
        ``lesions`` is no list of objects, or x, y or radius no number.
    """
    listed = item.get("lesions")
    if listed is None:
        return []
    file = spelt(str(item["image"]))
    if not isinstance(listed, list | tuple):
        raise InputError(f'{file}: its "lesions" are no list: {reprlib.repr(listed)}', _AS_LESIONS)
    found = []
    for count, lesion in enumerate(listed, 1):
        entry = f'{file}: entry {count} of its "lesions"'
        if not isinstance(lesion, Mapping):
            raise InputError(f"{entry} is no object: {reprlib.repr(lesion)}", _AS_LESIONS)
        if lesion.get("x") is None or lesion.get("radius") is None:
            continue
        row, column, radius = (_real(lesion, key, entry) for key in ("y", "x", "radius"))
        if radius <= 0:
            raise InputError(f"{entry} has the radius {radius:g}", _AS_LESIONS)
        kind = lesion.get("class")
        found.append(Annotation(row, column, radius, "lesion" if kind is None else printable(kind)))
    return found


def _real(lesion: Mapping[str, Any], key: str, entry: str) -> float:
    value = lesion.get(key)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise InputError(f"{entry} has {key} {reprlib.repr(value)}, which is no finite number", _AS_LESIONS)


def _scene(group: Sequence[Mapping[str, Any]], window: int, tissue: float | None) -> Scene:
    first = group[0]
    if len(group) == 1 and "scene" in first:
        raise InputError(f"the scene {first['scene']} has one image", "repeats are two or more images of one scene")
    if "label" in first:
        label = read_image(first["label"])
        clean = label.scale.to_unit(_plane(label.array))
        acquired = [label.scale.to_unit(_plane(read_image(first["image"]).array))]
    elif "scene" in first:
        scale = read_image(first["image"]).scale
        acquired = [scale.to_unit(_plane(read_image(item["image"]).array)) for item in group]
    else:
        clean, acquired = _unit(str(first["image"])), []
    shapes = {image.shape for image in ([clean] if "scene" not in first else []) + acquired}
    if len(shapes) > 1:
        raise InputError(f"{first['image']} and its partner differ in shape", "give images of one shape")
    if "scene" in first:
        judged = max(1, len(acquired) // 2)
        clean = np.stack(acquired[judged:]).mean(axis=0, dtype=np.float64).astype(np.float32)
        acquired = acquired[:judged]
    place = _window(clean, window, tissue, str(first["image"]))
    cut = [np.ascontiguousarray(image[place]) for image in (clean, *acquired)]
    if float(np.ptp(cut[0])) == 0:
        raise InputError(f"{first['image']}: the window is constant", "leave this image out")
    return Scene(_data_of(first), _patient_of(first), spelt(str(first["image"])), cut[0], tuple(cut[1:]))


def _unit(path: str) -> Image:
    image = read_image(path)
    return image.scale.to_unit(_plane(image.array))


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.ndim == 2 else array[len(array) // 2]


def _data_of(item: Mapping[str, Any]) -> str:
    return printable(item.get("source") or "") or "images"


def _patient_of(item: Mapping[str, Any]) -> str:
    return spelt(str(item.get("patient") or item["image"]))


def _window(image: Image, side: int, tissue: float | None, file: str) -> tuple[slice, slice]:
    if min(image.shape) < LEAST_SIDE:
        raise InputError(
            f"{file}: {image.shape[0]}x{image.shape[1]} pixels, less than {LEAST_SIDE}x{LEAST_SIDE}", "leave it out"
        )
    sides = [min(side, length) if side else length for length in image.shape]
    room = [length - size + 1 for length, size in zip(image.shape, sides, strict=True)]
    rng = np.random.default_rng(image_seed(torch.from_numpy(image[None]), 0))
    best, place = -1.0, (0, 0)
    for _ in range(TRIES if max(room) > 1 else 1):
        top, left = (int(start) for start in rng.integers(room))
        share = float((image[top : top + sides[0], left : left + sides[1]] > TISSUE_THRESHOLD).mean())
        if share > best:
            best, place = share, (top, left)
        if tissue is not None and share >= tissue:
            break
    if tissue is not None and best < tissue:
        raise InputError(f"{file}: no window of it is {tissue:.0%} tissue", "leave it out, or lower --tissue")
    return slice(place[0], place[0] + sides[0]), slice(place[1], place[1] + sides[1])
