"""The handler that logs pictures of the same validation images after every validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from numpy.typing import NDArray

from .comparison import BaselineComparison
from .run import RunTracker

__all__ = ["ImagePanels", "panel"]


class ImagePanels:
    """Handler of the validation engine: logs pictures of the first images, the same ones each time.

    A panel shows, side by side, the clean image, the noisy one, the best baseline's result, ours, and what ours
    leaves of the difference to the clean image, times `residual_gain` around mid-grey. MLflow shows a slider over the
    steps. Volumes show their middle slice.

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
        Factor on the residual.
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
    """One picture (H + title, 5 W + gaps), uint8, of five images (H, W) on [0, 1], all in the clean image's window."""
    from PIL import Image, ImageDraw

    low, high = float(clean.min()), float(clean.max())
    tiles = [(image - low) / max(high - low, 1e-6) for image in (clean, noisy, baseline, ours)]
    tiles.append(0.5 + residual_gain * (ours - clean))
    titles = ["clean", "noisy", "best baseline", "ours", f"(ours - clean) x {residual_gain:g}"]
    zoom = max(1, -(-192 // clean.shape[1]))  # titles need some 190 pixels of width
    gap, head = 4, 16
    height, width = clean.shape[0] * zoom, clean.shape[1] * zoom
    canvas = Image.new("L", (5 * width + 4 * gap, height + head), 255)
    for column, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
        grey = np.kron((np.clip(tile, 0, 1) * 255 + 0.5).astype(np.uint8), np.ones((zoom, zoom), np.uint8))
        canvas.paste(Image.fromarray(grey), (column * (width + gap), head))
        ImageDraw.Draw(canvas).text((column * (width + gap) + 2, 2), title, fill=0)
    return np.asarray(canvas)
