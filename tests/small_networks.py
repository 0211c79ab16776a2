"""Networks small enough for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from meddenoise_monai.networks import ResidualDenoisingAutoencoder


def trained(seed: int = 0, **options: Any) -> ResidualDenoisingAutoencoder:
    """A network that changes its input visibly, as after a training."""
    torch.manual_seed(seed)
    network = ResidualDenoisingAutoencoder(**{"widths": (4, 8), "blocks": 1, "stride": 1, **options})
    nn.init.normal_(network.tail.weight, std=0.1)
    return network.eval()


def exact(**options: Any) -> ResidualDenoisingAutoencoder:
    """A network of few whole numbers: on whole numbers no sum is rounded, in whatever order it is taken."""
    network = trained(**options)
    for weight in network.parameters():
        nn.init.uniform_(weight, -1.15, 1.15)
        weight.data.trunc_()
    kernels = network.head.weight.data
    kernels *= kernels[0, 0].numel()  # the mean, which it subtracts, is whole, too
    return network


def whole_numbers(*shape: int) -> Tensor:
    return torch.randint(1, 10, shape).float()


NETWORK = trained()
HALO = 16  # it sees 11 pixels to each side
