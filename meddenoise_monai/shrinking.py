"""Transforms that shrink whole images, for the 64 x 64 protocol of the paper."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable
from torch import Tensor
from torch.nn import functional as F

__all__ = ["RandShrinkd", "Shrinkd"]


def _shrink(image: Tensor, size: Sequence[int]) -> Tensor:
    """(1, H, W) to (1, *size) as MATLAB's imresize does it: bicubic, with the kernel widened against aliasing."""
    return F.interpolate(image[None], tuple(size), mode="bicubic", antialias=True, align_corners=False)[0]


class Shrinkd(MapTransform):
    """Resize whole 2D images (1, H, W) to one size, whatever their aspect; volumes give their middle slice.

    MONAI's Resized has no anti-aliased bicubic mode: it blurs with a Gaussian first, which makes denoising look easier
    than the paper's images are.

    Parameters
    ----------
    keys
        Tensors of one shape.
    size
        (H, W) of the result.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = tuple(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image: Tensor = item[key]
            item[key] = _shrink(image if image.ndim == 3 else image[:, image.shape[1] // 2], self.size)
        return item


class RandShrinkd(Randomizable, MapTransform):
    """Cut a random large part of the image, resize it to one size, mirror it left to right in half of the cases.

    Parameters
    ----------
    keys
        Tensors (1, H, W) of one shape.
    size
        (H, W) of the result.
    scale
        Least and greatest side of the part, as a share of the image's side; (1, 1) takes the whole image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        scale: tuple[float, float] = (0.75, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.size, self.scale = tuple(size), (float(scale[0]), float(scale[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        height, width = item[self.first_key(item)].shape[-2:]
        side = self.R.uniform(*self.scale)
        rows, columns = max(1, round(height * side)), max(1, round(width * side))
        top, left = (int(self.R.randint(0, whole - part + 1)) for whole, part in ((height, rows), (width, columns)))
        mirror = self.R.random_sample() < 0.5
        for key in self.key_iterator(item):
            part = _shrink(item[key][:, top : top + rows, left : left + columns], self.size)
            item[key] = torch.flip(part, (-1,)) if mirror else part
        return item
