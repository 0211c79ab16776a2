"""The handler that logs pictures of the same validation images after every validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .. import distributed
from .comparison import BaselineComparison
from .run import RunTracker

__all__ = ["ImagePanels", "panel"]

COLUMNS, GAP, HEAD = 3, 4, 16  # tiles in a row; pixels between them, and above each for its title


class ImagePanels:
    """Handler of the validation engine: logs pictures of the first images, the same ones each time.

    A panel (see `panel`) shows the clean image, the noisy one, the best baseline's result, ours, and what ours removed
    and left. MLflow shows a slider over the steps, which begins at 0: validate once before the training starts, or the
    slider opens on nothing. Volumes show their middle slice. Of several processes the first shows images of its share.

    Parameters
    ----------
    tracker
        Whose run is logged to.
    comparison
        Knows the best baseline; must be attached before.
    count
        Number of images.
    interval
        Epochs between two panels; the first validation always gives one.
    residual_gain
        Factor on what ours left.
    """

    def __init__(
        self,
        tracker: RunTracker,
        comparison: BaselineComparison,
        count: int = 3,
        interval: int = 1,
        residual_gain: float = 5.0,
    ) -> None:
        self.tracker, self.comparison = tracker, comparison
        self.count, self.interval, self.residual_gain = count, max(1, interval), residual_gain
        self._baseline: dict[int, NDArray[np.float32]] = {}
        self._shown = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _end(self, engine: Engine) -> None:
        self._shown = True

    def __call__(self, engine: Engine) -> None:
        index = (engine.state.iteration or 0) - 1
        if not distributed.leads():
            return
        if index >= self.count or (self._shown and engine.state.epoch % self.interval):
            return
        output: Any = engine.state.output
        output = output[0] if isinstance(output, list) else output

        def picture(key: str) -> NDArray[np.float32]:
            array: NDArray[np.float32] = output[key].detach().float().cpu().numpy()
            slices = array.reshape(-1, *array.shape[-2:])
            middle: NDArray[np.float32] = slices[len(slices) // 2]
            return middle

        clean, noisy, ours = picture(Keys.LABEL), picture(Keys.IMAGE), picture(Keys.PRED)
        if index not in self._baseline:
            self._baseline[index] = self.comparison.best(noisy, float(np.std(noisy - clean)))
        # No "/" in the key, as metrics have: MLflow 3.17 shows no card for such images.
        self.tracker.run.log_image(
            f"panel_{index + 1}", panel(clean, noisy, self._baseline[index], ours, self.residual_gain),
            step=engine.state.epoch,
        )  # fmt: skip


def panel(
    clean: NDArray[np.float32],
    noisy: NDArray[np.float32],
    baseline: NDArray[np.float32],
    ours: NDArray[np.float32],
    residual_gain: float,
) -> NDArray[np.uint8]:
    """One picture, uint8, of six tiles in two rows; the five images are (H, W) on [0, 1].

    Above: clean, noisy, best baseline. Below: ours, then ``ours - clean`` times `residual_gain` and ``noisy - ours``
    divided by six standard deviations of the noise, both around mid-grey: structure in either was harmed. The images
    share the clean one's window. Two rows of three, because MLflow fits a picture into a square.
    """
    low, high = float(clean.min()), float(clean.max())
    sigma = max(float((noisy - clean).std()), 1e-6)

    def windowed(image: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = (image - low) / max(high - low, 1e-6)
        return scaled

    tiles = {
        "clean": windowed(clean),
        "noisy": windowed(noisy),
        "best baseline": windowed(baseline),
        "ours": windowed(ours),
        f"(ours - clean) x {residual_gain:g}": 0.5 + residual_gain * (ours - clean),
        "noisy - ours, +-3 sigma": 0.5 + (noisy - ours) / (6 * sigma),
    }
    zoom = max(1, -(-192 // clean.shape[1]))  # titles need some 190 pixels of width
    width, height = clean.shape[1] * zoom + GAP, clean.shape[0] * zoom + HEAD
    canvas = Image.new("L", (COLUMNS * width - GAP, len(tiles) // COLUMNS * height), 255)
    for index, (title, tile) in enumerate(tiles.items()):
        grey = np.kron((np.clip(tile, 0, 1) * 255 + 0.5).astype(np.uint8), np.ones((zoom, zoom), np.uint8))
        left, top = index % COLUMNS * width, index // COLUMNS * height
        canvas.paste(Image.fromarray(grey), (left, top + HEAD))
        ImageDraw.Draw(canvas).text((left + 2, top + 2), title, fill=0)
    return np.asarray(canvas)
