"""Other people's denoising networks, for comparison: same data, same training, same measure.

`PEERS` gives each as a `network_def` that train.json takes; `multiplications` counts what a network costs. The classes
are found by the configurations as ``peers.…`` because Python puts a script's folder on the module path.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OURS = "meddenoise_monai.networks.ResidualDenoisingAutoencoder"


def convolutions(ends: int, depth: int, channels: int) -> nn.Sequential:
    """`depth` of 3 x 3 with ReLU between and batch normalisation inside, from and to `ends` channels."""
    layers: list[nn.Module] = [nn.Conv2d(ends, channels, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(depth - 2):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(channels, ends, 3, padding=1))


class DnCNN(nn.Module):
    """Zhang et al., "Beyond a Gaussian denoiser", TIP 2017: `depth` convolutions, batch normalisation, a residual."""

    def __init__(self, depth: int = 17, channels: int = 64) -> None:
        super().__init__()
        self.body = convolutions(1, depth, channels)

    def forward(self, x: Tensor) -> Tensor:
        noise: Tensor = self.body(x)
        return x - noise


class FFDNet(nn.Module):
    """Zhang et al., "FFDNet", TIP 2018, for grey images: convolutions over the four interleaved parts of an image.

    Blind, as all that it is compared with here: without the map of noise levels that the original is given.
    """

    def __init__(self, depth: int = 15, channels: int = 64) -> None:
        super().__init__()
        self.body = convolutions(4, depth, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        even = nn.functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        answer = nn.functional.pixel_shuffle(self.body(nn.functional.pixel_unshuffle(even, 2)), 2)
        return answer[..., :height, :width]


PEERS: dict[str, dict[str, Any]] = {
    "DnCNN-17": {"_target_": "peers.DnCNN"},
    "FFDNet, blind": {"_target_": "peers.FFDNet"},
    # DRUNet (Zhang et al., TPAMI 2021) has four levels of 64 to 512 channels and four blocks each, 32 million weights.
    "DRUNet, half as wide": {"_target_": OURS, "widths": [32, 64, 128, 256], "blocks": 4, "stride": 1},
    "DRUNet, three quarters as wide": {"_target_": OURS, "widths": [48, 96, 192, 384], "blocks": 4, "stride": 1},
    "BasicUNet": {
        "_target_": "monai.networks.nets.BasicUNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 1,
        "norm": ["batch", {"affine": True}],
    },
    "Gondara 2016": {"_target_": "meddenoise_monai.networks.ConvDenoisingAutoencoder"},
}


def build(network_def: dict[str, Any]) -> nn.Module:
    """The network that a configuration would make."""
    from monai.bundle import ConfigParser

    network: nn.Module = ConfigParser({"net": network_def}).get_parsed_content("net")
    return network.eval()


def multiplications(network: nn.Module) -> float:
    """Thousands of multiply-adds a pixel, counted on a run: each weight of a convolution, once for each output pixel
    (for each input pixel, if it is transposed)."""
    side, total = 64, 0
    transposed = (nn.ConvTranspose2d, nn.ConvTranspose3d)

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        places = inputs[0] if isinstance(layer, transposed) else output
        weight = layer.weight
        assert isinstance(weight, Tensor)
        total += weight.numel() * places.shape[-1] * places.shape[-2]

    layers = [
        layer for layer in network.modules() if getattr(layer, "weight", None) is not None and layer.weight.ndim > 1
    ]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    device = next(network.parameters()).device
    with torch.no_grad():
        network(torch.rand(1, 1, side, side, device=device))
    for hook in hooks:
        hook.remove()
    return total / side**2 / 1000


def bytes_moved(network: nn.Module, side: int = 512, element: int = 2) -> float:
    """Bytes a pixel that all layers together read and write, if each reads its input and writes its output once."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += element * (inputs[0].numel() + output.numel())

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if not list(layer.children())]
    device = next(network.parameters()).device
    with torch.no_grad():
        network(torch.rand(1, 1, side, side, device=device))
    for hook in hooks:
        hook.remove()
    return total / side**2
