"""Denoising networks: the autoencoder of Gondara (2016) and the default residual autoencoder.

Both take and return ``(batch, channels, *spatial)`` tensors of any spatial size, in 2D or 3D, and can be
scripted and exported. Nothing here knows about noise levels, files or training.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvDenoisingAutoencoder", "ResidualDenoisingAutoencoder"]

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


def _check_spatial_dims(spatial_dims: int) -> None:
    if spatial_dims not in _CONV:
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Mirror (B, C, *spatial) at its far borders until each spatial size is a multiple of `multiple`."""
    sizes = image.shape[2:]
    return _mirror(image, 0, [(multiple - size % multiple) % multiple for size in sizes])


def _mirror(image: Tensor, near: int, far: list[int]) -> Tensor:
    """Mirror (B, C, *spatial) at its near borders by `near` pixels and at each axis' far border by `far`.

    Mirrored noise still looks like noise; replicated noise is streaks, which no network was trained on.
    An axis too short to be mirrored is replicated all the same.
    """
    pads: list[int] = []
    mirror = True
    for axis in range(len(far) - 1, -1, -1):
        mirror = mirror and max(near, far[axis]) < image.shape[2 + axis]
        pads.append(near)
        pads.append(far[axis])
    if sum(pads) == 0:
        return image
    return F.pad(image, pads, mode="reflect" if mirror else "replicate")


def _crop_to(image: Tensor, like: Tensor) -> Tensor:
    for axis in range(2, image.dim()):
        image = image.narrow(axis, 0, like.shape[axis])
    return image


class ConvDenoisingAutoencoder(nn.Module):
    """The convolutional denoising autoencoder of Gondara, arXiv:1608.04667, figure 2.

    Two 5x5 convolutions of 64 channels with 2x2 max-pooling encode; two more with nearest-neighbour
    up-sampling decode; a last 5x5 convolution returns the image.

    Parameters
    ----------
    spatial_dims
        2 for images, 3 for volumes.
    in_channels, out_channels
        Channels of the input and of the output.
    channels
        Channels of every hidden layer; the paper has 64.
    kernel_size
        Odd width of the kernels; the paper has 5.
    activation
        After each hidden convolution: ``"relu"`` (the paper), ``"leakyrelu"``, ``"sigmoid"``, or ``"none"``,
        which makes the network linear but for the pooling, as the Torch7 ancestor was found to be.

    Notes
    -----
    Input and output are ``(B, C, H, W)`` or ``(B, C, D, H, W)``; images whose size is no multiple of 4 are padded by
    mirroring and cropped back. The network is not residual: it must learn to reproduce the image.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: int = 64,
        kernel_size: int = 5,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        _check_spatial_dims(spatial_dims)
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        conv, pool, act = _CONV[spatial_dims], _MAX_POOL[spatial_dims], _ACTIVATIONS[activation]

        def layer(inputs: int, outputs: int) -> list[nn.Module]:
            return [conv(inputs, outputs, kernel_size, padding=kernel_size // 2), act()]

        self.encoder = nn.Sequential(*layer(in_channels, channels), pool(2), *layer(channels, channels), pool(2))
        self.decoder = nn.Sequential(
            *layer(channels, channels),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            *layer(channels, channels),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            conv(channels, out_channels, kernel_size, padding=kernel_size // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(self.encoder(pad_to_multiple(x, 4)))
        return _crop_to(decoded, x)


class _ResidualBlock(nn.Module):
    def __init__(self, conv: type[nn.Module], channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            conv(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.body(x)
        return x + change


class _Differences(nn.Module):
    """A convolution whose kernels sum to zero, so that it sees nothing but differences of pixels.

    Always in float32: bfloat16 has 8 bits, too few for a small contrast on a large offset.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.axes = list(range(2, 2 + spatial_dims))
        layer: Any = _CONV[spatial_dims](in_channels, out_channels, 3 * stride, stride=stride, bias=False)
        self.weight = nn.Parameter(layer.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        # TorchScript wants a constant device and no return inside of `with`.
        if x.is_cuda:
            with torch.autocast("cuda", enabled=False):
                features = self._convolve(x.to(self.weight.dtype))
        else:
            with torch.autocast("cpu", enabled=False):
                features = self._convolve(x.to(self.weight.dtype))
        return features

    def _convolve(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(self.axes, keepdim=True)
        if weight.dim() == 5:
            return F.conv3d(x, weight, stride=self.stride)
        return F.conv2d(x, weight, stride=self.stride)


class ResidualDenoisingAutoencoder(nn.Module):
    """The default network: a residual, bias-free, U-shaped encoder-decoder with additive skips.

    No layer has an additive constant (no bias, no normalisation), so ``f(a * x) == a * f(x)`` for ``a > 0``: the
    network treats an image at twice the contrast and twice the noise alike, and generalises to noise levels it was
    not trained on (Mohan et al., *Robust and interpretable blind image denoising via bias-free convolutional neural
    networks*, ICLR 2020). The kernels of the first convolution sum to zero and borders are mirrored, so
    ``f(x + c) == f(x) + c``, too: no brightness or window level is out of its range (equivariance to both is the aim
    of Herbreteau et al., *Normalization-equivariant neural networks*, NeurIPS 2023, by other means).
    The last convolution starts at zero: an untrained network returns its input.
    The residual blocks and strided (de)convolutions follow DRUNet (Zhang et al., TPAMI 2021).

    Parameters
    ----------
    spatial_dims
        2 for images, 3 for volumes.
    in_channels, out_channels
        Channels of the input and of the output; the residual is added to the first `out_channels` of the input.
    widths
        Channels of each level, finest first; every level beyond the first halves the resolution.
    blocks
        Residual blocks at each level, on the way down and again on the way up.
    stride
        Of the first and the last convolution, whose kernels are three times as wide. With 2 the finest level works at
        half the resolution, as in FFDNet (Zhang et al., TIP 2018): at full resolution a CPU moves memory rather than
        computes. A kernel of 6 with stride 2 is one of 3 over the four images of every other row and column.

    Notes
    -----
    Input and output are ``(B, C, H, W)`` or ``(B, C, D, H, W)``, any size: images whose size is no multiple of
    ``stride * 2 ** (len(widths) - 1)`` are mirrored and cropped back.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: Sequence[int] = (48, 64, 128),
        blocks: int = 2,
        stride: int = 2,
    ) -> None:
        super().__init__()
        _check_spatial_dims(spatial_dims)
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must name at least one level of at least one channel, got {list(widths)}")
        if out_channels > in_channels:
            raise ValueError(f"out_channels ({out_channels}) must not exceed in_channels ({in_channels})")
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}")
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        conv, conv_transposed = _CONV[spatial_dims], _CONV_TRANSPOSED[spatial_dims]

        def stage(channels: int) -> nn.Module:
            return nn.Sequential(*(_ResidualBlock(conv, channels) for _ in range(blocks)))

        self.out_channels = out_channels
        self.multiple = stride * 2 ** (len(widths) - 1)
        self.stride = stride
        self.head = _Differences(spatial_dims, in_channels, widths[0], stride)
        self.encoder = nn.ModuleList(stage(width) for width in widths[:-1])
        self.down = nn.ModuleList(
            conv(fine, coarse, 2, stride=2, bias=False) for fine, coarse in itertools.pairwise(widths)
        )
        self.bottom = stage(widths[-1])
        self.up = nn.ModuleList(
            conv_transposed(coarse, fine, 2, stride=2, bias=False)
            for fine, coarse in reversed(list(itertools.pairwise(widths)))
        )
        self.decoder = nn.ModuleList(stage(width) for width in reversed(widths[:-1]))
        self.tail = conv_transposed(widths[0], out_channels, 3 * stride, stride=stride, padding=stride, bias=False)
        for weight in self.tail.parameters():
            nn.init.zeros_(weight)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> ResidualDenoisingAutoencoder:
        """The network that `state` was saved from, its size read off the shapes of the weights.

        Raises
        ------
        KeyError, IndexError, RuntimeError, ValueError
            If `state` belongs to another network.
        """
        head, tail = state["head.weight"], state["tail.weight"]
        levels = sum(name.startswith("down.") for name in state)
        network = cls(
            spatial_dims=head.ndim - 2,
            in_channels=head.shape[1],
            out_channels=tail.shape[1],
            widths=(head.shape[0], *(state[f"down.{level}.weight"].shape[0] for level in range(levels))),
            blocks=sum(name.startswith("bottom.") for name in state) // 2,
            stride=head.shape[-1] // 3,
        )
        network.load_state_dict(dict(state))
        return network

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_to_multiple(x, self.multiple)
        features = self.head(_mirror(padded, self.stride, [self.stride] * (x.dim() - 2)))
        skips: list[Tensor] = []
        for stage, down in zip(self.encoder, self.down):  # noqa: B905  # TorchScript knows no strict=
            features = stage(features)
            skips.append(features)
            features = down(features)
        features = self.bottom(features)
        for up, stage in zip(self.up, self.decoder):  # noqa: B905
            features = stage(up(features) + skips.pop())
        return x[:, : self.out_channels] + _crop_to(self.tail(features), x)
