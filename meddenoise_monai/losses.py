"""Losses that MONAI lacks, or has too slowly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["L1SSIMLoss", "LogL1Loss", "LogL2Loss", "batch_ssim"]

_WINDOW, _SIGMA = 11, 1.5


def _valid_filter(length: int, device: torch.device) -> Tensor:
    """The (length - 10, length) matrix that filters an axis with the Gaussian window where it fits whole."""
    taps = torch.exp(-((torch.arange(_WINDOW, device=device) - _WINDOW // 2) ** 2) / (2 * _SIGMA**2))
    rows = length - _WINDOW + 1
    matrix = torch.zeros(rows, length, device=device)
    index = torch.arange(rows, device=device)
    for offset, tap in enumerate(taps / taps.sum()):
        matrix[index, index + offset] = tap
    return matrix


def batch_ssim(first: Tensor, second: Tensor, data_range: float = 1.0) -> Tensor:
    """SSIM (Wang et al. 2004: Gaussian window of 11, standard deviation 1.5) of each image of a batch, differentiable.

    The same number as `monai.metrics.SSIMMetric` with its defaults, computed with two small matrix products instead of
    convolutions of one channel, which `scripts/benchmark_ssim.py` times side by side.

    Parameters
    ----------
    first, second
        (B, C, H, W) or (B, C, D, H, W), every spatial size at least 11; any real dtype, computed in float32.
    data_range
        Width of the range of values.

    Returns
    -------
    Tensor
        (B,)

    Raises
    ------
    ValueError
        If a spatial size is below 11 or the shapes differ.
    """
    if first.shape != second.shape or min(first.shape[2:]) < _WINDOW:
        raise ValueError(f"need equal shapes of at least {_WINDOW} pixels, got {first.shape} and {second.shape}")
    a, b = first.float(), second.float()
    maps = torch.stack([a, b, a * a, b * b, a * b])
    for axis in range(3, maps.ndim):
        filtered = maps.movedim(axis, -1) @ _valid_filter(maps.shape[axis], maps.device).T
        maps = filtered.movedim(-1, axis)
    mean_a, mean_b, square_a, square_b, product = maps
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    means: Tensor = similarity.flatten(1).mean(1)
    return means


class L1SSIMLoss(nn.Module):
    """Mean absolute error plus ``weight * (1 - SSIM)``.

    Zhao et al., *Loss functions for image restoration with neural networks*, IEEE TCI 2017, combine the two likewise.

    Parameters
    ----------
    weight
        Of the structural term; 0 is plain L1.
    data_range
        Of the images.
    """

    def __init__(self, weight: float = 0.2, data_range: float = 1.0) -> None:
        super().__init__()
        self.weight, self.data_range = weight, data_range

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, …) images."""
        structure = 1.0 - batch_ssim(prediction, target, self.data_range).mean()
        return nn.functional.l1_loss(prediction.float(), target.float()) + self.weight * structure


class LogL1Loss(nn.Module):
    """Mean over the images of a batch of ``log(floor + mean absolute error)``.

    PSNR is a logarithm, too, and is averaged over images: with this loss a per cent less error counts the same in a
    smooth film at low noise as in a rough texture at high noise, whose errors are ten times as large and rule a plain
    mean. (PSNR itself as a loss: Chen et al., *HINet*, CVPR workshops 2021; this is its counterpart for L1.)

    Parameters
    ----------
    floor
        Added to every error, in the images' units, so that noise-free images do not rule instead.
    """

    def __init__(self, floor: float = 0.002) -> None:
        super().__init__()
        if not floor > 0:
            raise ValueError(f"floor must be positive, got {floor}")
        self.floor = floor

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, …) images."""
        errors = (prediction.float() - target.float()).abs().flatten(1).mean(1)
        return (self.floor + errors).log().mean()


class LogL2Loss(nn.Module):
    """Mean over the images of a batch of ``log(floor^2 + mean squared error) / 2``: the counterpart of `LogL1Loss`.

    What is likely but not sure, such as a faint disc in strong noise, is kept in part by the mean of what is likely,
    and lost by its median, which L1 asks for.

    Parameters
    ----------
    floor
        Added to every error, in the images' units, so that noise-free images do not rule instead.
    """

    def __init__(self, floor: float = 0.002) -> None:
        super().__init__()
        if not floor > 0:
            raise ValueError(f"floor must be positive, got {floor}")
        self.floor = floor

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, …) images."""
        errors = (prediction.float() - target.float()).square().flatten(1).mean(1)
        return (self.floor**2 + errors).log().mean() / 2
