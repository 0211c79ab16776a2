"""Image panels: what a scene looks like clean, noisy and after each method, as pictures inside the page.

These are windows of the data's own images: a page that holds them has to be handled as the data is.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.measures import as_image
from ..evaluation.methods import NOISY
from ..evaluation.study import Outcome
from .naming import condition_title

__all__ = ["CLEAN", "Panel", "Picture", "make_panels"]

CLEAN = "clean"
_SIDES = (256, 192, 128, 96)  # pixels, at most, of a picture: the middle of larger windows
_MOST = 3_300_000  # bytes of all pictures: with figures, a page below 6 MB
_QUANTILES = (0.005, 0.995)

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A picture of 8 bits; black is `low` and white is `high` on the [0, 1] scale of the image."""

    name: str
    png: bytes
    low: float
    high: float

    @property
    def address(self) -> str:
        """As a page holds it."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Panel:
    """One scene.

    Attributes
    ----------
    title
        Data set and noise.
    pictures
        The clean image, the noisy one, then the methods; each over its own range.
    window
        What is shown as black and as white: the 0.5 % and 99.5 % quantiles of the clean image.
    sigma
        Standard deviation of the noise in the picture.
    shape
        Height and width, pixels.
    cut
        Whether the window that was judged is larger.
    """

    title: str
    pictures: tuple[Picture, ...]
    window: tuple[float, float]
    sigma: float
    shape: tuple[int, int]
    cut: bool


def make_panels(outcomes: Sequence[Outcome], ours: str) -> list[Panel]:
    """A panel for each scene that was kept as a picture; smaller pictures where there would be too many bytes."""
    shown = [
        outcome
        for outcome in outcomes
        if outcome.measure == "fidelity" and all("picture" in values for values in outcome.values.values())
    ]
    panels: list[Panel] = []
    for side in _SIDES:
        panels = [_panel(outcome, side, ours) for outcome in shown]
        if sum(len(picture.png) for panel in panels for picture in panel.pictures) <= _MOST:
            break
    return panels


def _panel(outcome: Outcome, side: int, ours: str) -> Panel:
    scene, condition = outcome.about["scene"], outcome.about["condition"]
    whole = scene.clean.shape
    images = {CLEAN: scene.clean}
    images |= {name: as_image(values["picture"], whole) for name, values in outcome.values.items()}
    top, left = (max(0, (length - side) // 2) for length in whole)
    parts = {name: image[top : top + side, left : left + side] for name, image in images.items()}
    # Ours is what the page opens with.
    order = [CLEAN, NOISY, ours, *(name for name in parts if name not in (CLEAN, NOISY, ours))]
    low, high = (float(value) for value in np.quantile(parts[CLEAN], _QUANTILES))
    clean = parts[CLEAN]
    return Panel(
        title=condition_title({"data": scene.data, "noise": condition.noise, "level": condition.level}),
        pictures=tuple(_picture(name, parts[name]) for name in dict.fromkeys(order) if name in parts),
        window=(low, high if high > low else low + 1 / 255),
        sigma=float(np.std(parts[NOISY] - clean)) if NOISY in parts else 0.0,
        shape=(clean.shape[0], clean.shape[1]),
        cut=clean.shape != whole,
    )


def _picture(name: str, image: Image) -> Picture:
    from PIL import Image as Pictures

    low, high = float(image.min()), float(image.max())
    high = high if high > low else low + 1 / 255
    grey = np.rint((image - low) / (high - low) * 255).astype(np.uint8)
    packed = io.BytesIO()
    Pictures.fromarray(grey).save(packed, "png", optimize=True)
    return Picture(name, packed.getvalue(), low, high)
