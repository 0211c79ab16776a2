"""What `compare_recipes.py` tries and the released recipe does without: a map of noise levels, and a teacher.

The configurations find them as ``recipe_parts.…`` because Python puts a script's folder on the module path.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor, nn

from meddenoise_monai.inference import load_denoiser
from meddenoise_monai.networks import ResidualDenoisingAutoencoder


class LevelledHead(nn.Module):
    """The first convolution of the default network with a map of the noise level beside the image.

    The map is constant, so what a convolution makes of it is a multiple of the level in each channel. The level is
    estimated from the image (blind, as all others), as the median size of its finest diagonal details over 0.6745
    (Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994).
    """

    def __init__(self, head: nn.Module, channels: int) -> None:
        super().__init__()
        self.head = head
        self.level = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.head(x)
        return features + self.level * noise_level(x)


def noise_level(image: Tensor) -> Tensor:
    """(B, 1, H, W) to (B, 1, 1, 1): the standard deviation of white noise."""
    even = image[..., : image.shape[-2] // 2 * 2, : image.shape[-1] // 2 * 2].float()
    first, right, below, last = nn.functional.pixel_unshuffle(even, 2).unbind(1)
    details = ((first - right - below + last) / 2).flatten(1)
    return details.abs().median(1).values.reshape(-1, 1, 1, 1) / 0.6745


def levelled(**definition: Any) -> ResidualDenoisingAutoencoder:
    """The default network that is shown the noise level."""
    network = ResidualDenoisingAutoencoder(**definition)
    network.head = LevelledHead(network.head, network.head.weight.shape[0])  # type: ignore[assignment]
    return network


class Taughtd(MapTransform):
    """The target, mixed with what trained weights make of the noisy image.

    For the square error that is distillation: the gradient of a mean of two square errors is that of the square error
    to the mean of the two targets.

    Parameters
    ----------
    keys
        Of the targets, (1, H, W).
    noisy
        Key of the network's input, (1, H, W).
    weights
        Path of the teacher.
    share
        Of the teacher in the target, 0 to 1.
    """

    def __init__(self, keys: KeysCollection, noisy: str, weights: str, share: float = 0.5) -> None:
        super().__init__(keys)
        self.noisy, self.share = noisy, share
        self.teacher = load_denoiser(weights, "cpu").network.eval()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        with torch.inference_mode():
            taught = self.teacher(torch.as_tensor(result[self.noisy])[None])[0].clone()
        for key in self.keys:
            result[key] = (1 - self.share) * result[key] + self.share * taught
        return result
