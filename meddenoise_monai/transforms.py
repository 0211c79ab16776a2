"""MONAI dictionary transforms around image files: read, scale to [0, 1], pick windows and patches, write back."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable
from numpy.typing import NDArray
from torch import Tensor

from . import __version__
from .dicom import Derivation
from .errors import InputError, UsageError
from .images import TISSUE_THRESHOLD, IntensityScale, read_image
from .results import output_path, write_result

__all__ = ["MostTissued", "PadToSized", "RandPatchesd", "ReadImaged", "ScaleToUnitd", "WriteImaged"]

_log = logging.getLogger(__name__)


class ReadImaged(MapTransform):
    """Replace paths by arrays (1, H, W) or (1, D, H, W) in the image's own units, and note their scale.

    ``data["scale"]`` becomes the scale of the clean image (the numbers of an `IntensityScale`): of ``label`` where
    there is one, else of ``image``, so that a noisy/clean pair keeps its common contrast. ``data["source"]`` becomes
    the path of ``image``.

    MONAI's LoadImaged is not used: it swallows the reason why a file cannot be read, its readers disagree on the
    shape of a single-slice file, and none keeps 16-bit colour PNG, padding values or MONOCHROME1 apart.

    Raises
    ------
    InputError
        If a file cannot be used (see `read_image`), or the two of a pair differ in shape.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        item["source"] = str(item["image"])
        for key in self.key_iterator(item):
            image = read_image(item[key])
            item[key] = image.array[None]
            if key == "label" or "label" not in item:
                item["scale"] = torch.tensor(image.scale.as_numbers(), dtype=torch.float64)
        if "label" in item and item["label"].shape != item["image"].shape:
            noisy, clean = item["image"].shape[1:], item["label"].shape[1:]
            raise InputError(
                f"{item['source']}: noisy {noisy} and clean {clean} differ in shape", "a pair must show the same pixels"
            )
        return item


class ScaleToUnitd(MapTransform):
    """Scale the arrays to [0, 1] float32 tensors by ``data["scale"]`` (the rule is `IntensityScale.of`)."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        scale = IntensityScale.from_numbers(item["scale"].tolist())
        for key in self.key_iterator(item):
            item[key] = torch.from_numpy(scale.to_unit(item[key]))
        return item


class PadToSized(MapTransform):
    """Mirror the last axes of tensors (1, …, H, W) that are smaller than `size`, with a warning.

    Parameters
    ----------
    keys
        Tensors of one shape.
    size
        Least size of the last ``len(size)`` axes.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = tuple(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image: Tensor = item[key]
            _check_axes(image, self.size, item.get("source"))
            have = image.shape[-len(self.size) :]
            missing = [max(0, want - got) for want, got in zip(self.size, have, strict=True)]
            if any(missing):
                _log.warning("%s: %s is smaller than a patch %s: mirrored", item.get("source"), tuple(have), self.size)
                pads = [(0, 0)] * (image.ndim - len(missing)) + [(m // 2, m - m // 2) for m in missing]
                item[key] = torch.from_numpy(np.pad(image.numpy(), pads, mode="symmetric"))
        return item


def _check_axes(image: Tensor, size: Sequence[int], source: object) -> None:
    if image.ndim <= len(size):
        raise InputError(
            f"{source}: a 2D image cannot be cut into patches of {len(size)} dimensions",
            "train the 2D network, or give volumes",
        )


class MostTissued(MapTransform):
    """Cut the window that shows the most tissue: the same one for the same image, always.

    A volume gives its slice with the most tissue when `size` has two axes. Windows lie on a grid of an eighth of their
    size; the tissue is what lies above 0.1 on the [0, 1] scale of the first key; the first of equals wins. Images
    smaller than the window stay whole along that axis.

    Parameters
    ----------
    keys
        Tensors (1, H, W) or (1, D, H, W) of one shape; the first one decides.
    size
        Of the window: (H, W), or (D, H, W) for 3D networks.
    least
        Least size along each axis, of the window and of the images: what the metrics need.

    Raises
    ------
    UsageError
        If `size` is smaller than `least`.
    InputError
        If the image has fewer axes than the window, or is smaller than `least`.
    """

    def __init__(
        self, keys: KeysCollection, size: Sequence[int], least: int = 1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.least = tuple(size), least
        if min(self.size) < least:
            raise UsageError(f"the window {self.size} is smaller than {least}, the least size", "give a larger window")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        first: Tensor = item[self.first_key(item)]
        _check_axes(first, self.size, item.get("source"))
        shape = tuple(first.shape[-len(self.size) :])
        if min(shape) < self.least:
            raise InputError(
                f"{item.get('source')}: the image {shape} is too small for SSIM's window of {self.least} pixels",
                "leave this image out",
            )
        window = self._window(first)
        for key in self.key_iterator(item):
            cut = item[key][window]
            item[key] = cut.reshape(1, *cut.shape[-len(self.size) :]).clone()
        return item

    def _window(self, image: Tensor) -> tuple[slice, ...]:
        sizes = (1,) * (image.ndim - 1 - len(self.size)) + self.size
        counts = np.pad((image[0] > TISSUE_THRESHOLD).numpy().astype(np.int64), [(1, 0)] * (image.ndim - 1))
        for axis in range(counts.ndim):
            counts = counts.cumsum(axis)  # the integral image: any window's sum in 2**ndim look-ups
        grid: list[tuple[NDArray[Any], int]] = []
        for axis, size in enumerate(sizes):
            length = counts.shape[axis] - 1
            size = min(size, length)
            starts = np.unique(np.append(np.arange(0, length - size, max(1, size // 8)), length - size))
            counts = np.take(counts, starts + size, axis) - np.take(counts, starts, axis)
            grid.append((starts, size))
        best = np.unravel_index(int(counts.argmax()), counts.shape)
        return slice(None), *(slice(int(s[i]), int(s[i]) + n) for (s, n), i in zip(grid, best, strict=True))


class RandPatchesd(Randomizable, MapTransform):
    """Cut random patches that show something: a list of items with the patches of all keys at the same places.

    MONAI's RandSpatialCropSamplesd takes flat background as readily as tissue (two thirds of a mammogram film) and no
    2D patch from a volume. Here a patch is drawn again, up to 4 times, while its standard deviation is below `min_std`.

    Parameters
    ----------
    keys
        Tensors (1, H, W) or (1, D, H, W), at least as large as `size`, on [0, 1].
    size
        Of the patch; two axes take a patch from a random slice of a volume.
    num_samples
        Patches per call.
    min_std
        On the [0, 1] scale.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        num_samples: int = 1,
        min_std: float = 0.01,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.size = tuple(size)
        self.num_samples = num_samples
        self.min_std = min_std

    def _draw(self, shape: Sequence[int]) -> tuple[slice, ...]:
        sizes = (1,) * (len(shape) - 1 - len(self.size)) + self.size
        starts = [int(self.R.randint(0, length - n + 1)) for length, n in zip(shape[1:], sizes, strict=True)]
        return (slice(None), *(slice(s, s + n) for s, n in zip(starts, sizes, strict=True)))

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        first: Tensor = data[self.first_key(dict(data))]
        patches = []
        for _ in range(self.num_samples):
            for _ in range(5):
                window = self._draw(first.shape)
                if float(first[window].std()) >= self.min_std:
                    break
            patch = {key: data[key][window].reshape(1, *self.size).clone() for key in self.key_iterator(dict(data))}
            patches.append({**patch, "paired": data.get("paired", False)})
        return patches


class WriteImaged(MapTransform):
    """Write tensors on [0, 1] back in the units of their source, below `output_dir` (see `results`).

    Parameters
    ----------
    keys
        One key: tensors (1, H, W) or (1, D, H, W), with ``scale`` and ``source`` beside them.
    output_dir
        Is made if need be; must not be, nor lie in, the folder of the input.
    root
        The input folder whose tree is mirrored; without one, results lie directly in `output_dir`.
    weights
        A digest of the network's weights, for the description of DICOM results and for their UIDs.

    Raises
    ------
    UsageError
        If `output_dir` lies inside `root` or is it, or a result would replace its source.
    """

    def __init__(self, keys: KeysCollection, output_dir: str, root: str | None = None, weights: str = "") -> None:
        super().__init__(keys)
        self.derivation = Derivation(__version__, weights, "the network alone")
        self.folder = Path(output_dir)
        self.root = root
        if root and self.folder.resolve().is_relative_to(Path(root).resolve()):
            raise UsageError(f"the output {output_dir} lies inside the input {root}", "choose another output_dir")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        source = item["source"]
        original = read_image(source)
        scale = IntensityScale.from_numbers(item["scale"].tolist())
        for key in self.key_iterator(item):
            unit: NDArray[Any] = item[key].detach().float().cpu().numpy()[0]
            values: NDArray[Any] = scale.from_unit(unit).reshape(original.array.shape)
            path = output_path(source, self.root, self.folder)
            if path.resolve() == Path(source).resolve():
                raise UsageError(f"the result of {source} would replace it", "choose another output_dir")
            item["written"] = str(write_result(path, values, original, self.derivation))
        return item
