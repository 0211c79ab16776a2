"""How a network is run: in which precision, and on images of any size in tiles that equal the whole.

`AutocastInferer` and `TiledInferer` are what the bundle's configurations name. They are called as MONAI's inferers are,
but do not derive from its abstract class: to import MONAI takes three times as long as all else that a denoising
command imports (docs/architecture.md).
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from .errors import UsageError
from .networks import pad_to_multiple

__all__ = ["AutocastInferer", "TiledInferer", "automatic_precision"]

_PRECISIONS: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def automatic_precision(device: torch.device) -> str:
    """``"bf16"`` where the device computes with it natively, else ``"fp32"``.

    CPUs with AVX512-BF16 or AMX run the default network 2 to 4 times faster in bf16; without these instructions
    bf16 is emulated and slower.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        capable = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16" if capable.get("avx512_bf16") or capable.get("amx_bf16") else "fp32"
    return "fp32"


class AutocastInferer:
    """Run the network on whole inputs in the fastest fitting precision and memory format; answer in float32.

    Parameters
    ----------
    precision
        ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``. An autocast that the caller has already entered (MONAI's
        ``amp=True`` on CUDA) is left as it is.
    """

    def __init__(self, precision: str = "auto") -> None:
        if precision not in ("auto", "fp32", *_PRECISIONS):
            raise UsageError(f"unknown precision {precision!r}", "known: auto, fp32, bf16, fp16")
        self.precision = precision

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        device = inputs.device
        precision = automatic_precision(device) if self.precision == "auto" else self.precision
        if precision == "fp32" or torch.is_autocast_enabled(device.type):
            context: Any = nullcontext()
        else:
            context = torch.autocast(device.type, _PRECISIONS[precision])
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with context:
            outputs: Tensor = network(inputs, *args, **kwargs)
        return outputs.float()


class TiledInferer(AutocastInferer):
    """Run the network on images of any size in tiles whose results equal the whole (padded) image's.

    Every tile is cut with a `halo` at least as wide as the network's receptive field, begins at a multiple of `align`
    and keeps only its core, so no pixel sees an edge that is not there. Unlike MONAI's SlidingWindowInferer nothing is
    blended: there is nothing to blend.

    Parameters
    ----------
    tile
        Core pixels along each axis; a multiple of `align`. Larger tiles waste less on halos and need more memory: the
        default network some 350 MB for each of the batch with 1024 on a CPU.
    halo
        Pixels around the core; a multiple of `align`. 96 covers the default network (receptive radius 91).
    align
        The product of the network's strides or a multiple of it; images are mirrored up to it and cropped
        back, so networks that accept only such sizes can be used.
    batch_size
        Tiles per forward pass. Of images or slices smaller than a tile as many go together as have its pixels.
    spatial_dims
        Of the network. A 2D network takes volumes (B, C, D, H, W) slice by slice.
    """

    def __init__(
        self,
        tile: int = 1024,
        halo: int = 96,
        align: int = 32,
        batch_size: int = 1,
        spatial_dims: int = 2,
        precision: str = "auto",
    ) -> None:
        super().__init__(precision)
        for name, value in (("tile", tile), ("halo", halo)):
            if value % align or value < 0 or (name == "tile" and value == 0):
                raise UsageError(f"{name} must be a multiple of {align}, got {value}", "take 1024 and 96")
        if batch_size < 1:
            raise UsageError(f"tiles per batch must be at least 1, got {batch_size}", "take 1")
        self.tile, self.halo, self.align, self.batch_size = tile, halo, align, batch_size
        self.spatial_dims = spatial_dims

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if inputs.ndim == self.spatial_dims + 3:  # a volume for a 2D network
            slices = inputs.movedim(2, 1).flatten(0, 1)
            outputs = self._images(slices, network, *args, **kwargs)
            return outputs.reshape(inputs.shape[0], inputs.shape[2], *outputs.shape[1:]).movedim(1, 2)
        if inputs.ndim != self.spatial_dims + 2:
            raise ValueError(f"expected (B, C, {'D, ' * (self.spatial_dims - 2)}H, W), got {tuple(inputs.shape)}")
        return self._images(inputs, network, *args, **kwargs)

    def _images(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        sizes = inputs.shape[2:]
        padded = pad_to_multiple(inputs, self.align)
        by_shape: dict[tuple[int, ...], list[tuple[int, tuple[tuple[int, int, int, int], ...]]]] = defaultdict(list)
        for spans in itertools.product(*(self.spans(size) for size in padded.shape[2:])):
            for image in range(len(inputs)):
                by_shape[tuple(end - start for start, end, _, _ in spans)].append((image, spans))
        output: Tensor | None = None
        for shape, tiles in by_shape.items():
            together = self._together(shape)
            for first in range(0, len(tiles), together):
                batch = tiles[first : first + together]
                cut = [padded[i][(slice(None), *(slice(s, e) for s, e, _, _ in spans))] for i, spans in batch]
                results = super().__call__(torch.stack(cut), network, *args, **kwargs)
                if output is None:
                    output = results.new_empty((len(inputs), results.shape[1], *padded.shape[2:]))
                for result, (image, spans) in zip(results, batch, strict=True):
                    core = (slice(None), *(slice(a, b) for _, _, a, b in spans))
                    inner = (slice(None), *(slice(a - s, b - s) for s, _, a, b in spans))
                    output[image][core] = result[inner]
        assert output is not None  # there is at least one tile
        return output[(slice(None), slice(None), *(slice(size) for size in sizes))]

    def run_untiled(self, inputs: Tensor, network: Callable[..., Tensor]) -> Tensor:
        """The network's answer to (B, C, H, W) no larger than a tile with its halo, mirrored up to `align`."""
        padded = pad_to_multiple(inputs, self.align)
        parts = torch.split(padded, self._together(padded.shape[2:]))
        outputs = torch.cat([super(TiledInferer, self).__call__(part, network) for part in parts])
        return outputs[..., : inputs.shape[-2], : inputs.shape[-1]]

    def _together(self, sizes: Sequence[int]) -> int:
        """How many inputs of these sizes go through the network at a time."""
        return self.batch_size * max(1, self.tile**2 // math.prod(sizes))

    def spans(self, length: int, share: int = 1) -> list[tuple[int, int, int, int]]:
        """(start, end, core start, core end) of each tile along an axis of `length`, a multiple of `align`.

        Tiles are a `share`-th as long as usual where so many of them go through the network together, but not so short
        that they were mostly halo.
        """
        tile = max(min(self.tile, self.halo * 2 + self.align * 2), self.tile // share // self.align * self.align)
        if length <= tile + self.halo:
            return [(0, length, 0, length)]
        return [
            (max(0, core - self.halo), min(length, core + tile + self.halo), core, min(length, core + tile))
            for core in range(0, length, tile)
        ]
