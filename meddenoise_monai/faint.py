"""Faint lesions for the training: without them a network learns that what is faint and round is noise."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable
from numpy.typing import NDArray
from torch import Tensor

from .errors import UsageError

__all__ = ["RandFaintLesionsd"]


class RandFaintLesionsd(Randomizable, MapTransform):
    """Add discs and ellipses of little contrast at random places, to all keys the same.

    Natural images, radiographs and synthetic leaves show few objects that are small, isolated and fainter than the
    noise; mass-like lesions are just that. A denoiser that has not seen them takes them for noise and removes them
    wholly, where one that has keeps of each what the noise leaves likely (the posterior mean).

    Each lesion has a radius of 1 to 16 pixels and a contrast of 1/255 to `contrast`, both log-uniform, either sign, an
    aspect of 0.6 to 1 in any direction, and a rim from one pixel wide to as wide as the radius.

    Parameters
    ----------
    keys
        Tensors (1, H, W) on [0, 1], of one shape; the results are clipped to [0, 1].
    prob
        Probability that an image gets lesions, on [0, 1].
    most
        It then gets 1 to so many.
    contrast
        The largest, on the [0, 1] scale.

    Raises
    ------
    UsageError
        If a parameter is out of bounds.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, most: int = 4, contrast: float = 0.25,
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not (0 <= prob <= 1 and most >= 1 and 1 / 255 < contrast <= 1):
            raise UsageError(
                f"no lesions with probability {prob}, {most} at most, of contrast {contrast}",
                "the probability is on [0, 1], the number at least 1, the contrast above 1/255 and at most 1",
            )
        self.prob, self.most, self.contrast = prob, most, contrast

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        if self.R.random_sample() >= self.prob:
            return item
        first: Tensor = item[self.first_key(item)]
        lesions = torch.from_numpy(self._draw(first.shape[-2], first.shape[-1]))
        for key in self.key_iterator(item):
            item[key] = (item[key] + lesions).clamp_(0, 1)
        return item

    def _draw(self, height: int, width: int) -> NDArray[np.float32]:
        """(H, W), what the lesions add."""
        total = np.zeros((height, width), np.float32)
        rows, columns = np.ogrid[:height, :width]
        for _ in range(self.R.randint(1, self.most + 1)):
            down, right = rows - self.R.uniform(0, height), columns - self.R.uniform(0, width)
            angle, aspect = self.R.uniform(0, np.pi), self.R.uniform(0.6, 1)
            along = np.cos(angle) * right + np.sin(angle) * down
            across = (np.cos(angle) * down - np.sin(angle) * right) / aspect
            radius = 16 ** self.R.uniform(0, 1)
            rim = max(1.0, radius * self.R.uniform(0, 1))
            contrast = np.exp(self.R.uniform(np.log(1 / 255), np.log(self.contrast))) * self.R.choice([-1, 1])
            cover = np.clip((radius - np.hypot(along, across)) / rim + 0.5, 0, 1)
            total += (contrast * cover * cover * (3 - 2 * cover)).astype(np.float32)
        return total
