"""Pictures to judge a result by at a glance: before, after, and what was removed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .images import ImageData
from .whole_files import replace_whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["display_window", "draw_preview", "write_preview"]

_LARGEST = 1024  # pixels a side of a panel
_GAP, _LABEL = 4, 16
_DEVIATIONS = 4.0  # of what was removed, from grey to white, but no less than a grey level of the panels before it


def display_window(image: ImageData) -> tuple[float, float]:
    """The values to show as black and as white: the DICOM file's own window, else the 0.5 % and 99.5 % quantiles.

    Returns
    -------
    tuple[float, float]
        Low and high, in the image's units; high is above low.
    """
    if image.dicom is not None:
        center, width = (_first(image.dicom.dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
        if center is not None and width is not None and width > 1:
            # PS3.3, C.11.2.1.2.1: the linear function
            return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    step = max(1, image.array.size // 2**20)
    low, high = np.quantile(image.array.reshape(-1)[::step].astype(np.float64), (0.005, 0.995))
    return (float(low), float(high)) if high > low else (image.scale.low, image.scale.high)


def _first(value: Any) -> float | None:
    try:
        return float(value if isinstance(value, str | int | float) else value[0])
    except (TypeError, ValueError, IndexError):
        return None


def draw_preview(image: ImageData, values: NDArray[Any]) -> Image:
    """Three panels: the source, the result at the same window, and what was removed, grey being nothing.

    Parameters
    ----------
    image
        The source; of a volume the middle slice is shown.
    values
        The result, of the same shape and units.
    """
    from PIL import Image, ImageDraw

    before, after = (_slice(array).astype(np.float64) for array in (image.array, values))
    low, high = display_window(image)
    removed = before - after
    deviation = float(removed.std())
    span = max(_DEVIATIONS * deviation, (high - low) / 255)
    panels = [
        ("before", _grey((before - low) / (high - low), image.scale.inverted)),
        ("after", _grey((after - low) / (high - low), image.scale.inverted)),
        (f"removed, std {deviation:.3g}, shown +-{span:.3g}", _grey(0.5 + removed / (2 * span), False)),
    ]
    pictures = [(label, _fitted(Image.fromarray(panel))) for label, panel in panels]
    width, height = pictures[0][1].size
    canvas = Image.new("L", (3 * width + 2 * _GAP, height + _LABEL), 0)
    pen = ImageDraw.Draw(canvas)
    for number, (label, picture) in enumerate(pictures):
        canvas.paste(picture, (number * (width + _GAP), _LABEL))
        pen.text((number * (width + _GAP) + 2, 2), label, fill=255)
    return canvas


def _slice(array: NDArray[Any]) -> NDArray[Any]:
    return array[len(array) // 2] if array.ndim == 3 else array


def _grey(unit: NDArray[np.float64], inverted: bool) -> NDArray[np.uint8]:
    shown = np.clip(1 - unit if inverted else unit, 0, 1)
    return np.rint(shown * 255).astype(np.uint8)


def _fitted(picture: Image) -> Image:
    """Large ones shrunk, so that the noise is averaged as a screen would; tiny ones magnified by whole pixels."""
    from PIL import Image as Images

    longest = max(picture.size)
    if longest > _LARGEST:
        size = tuple(max(1, round(side * _LARGEST / longest)) for side in picture.size)
        return picture.resize(size, Images.Resampling.BOX)  # type: ignore[arg-type]
    times = max(1, 192 // longest)
    return picture.resize((picture.width * times, picture.height * times), Images.Resampling.NEAREST)


def write_preview(path: str | os.PathLike[str], image: ImageData, values: NDArray[Any]) -> Path:
    """Write `draw_preview` as PNG, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    path = Path(path)
    with replace_whole(path) as temporary:
        draw_preview(image, values).save(temporary, "PNG")
    return path
