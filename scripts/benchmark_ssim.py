"""Our SSIM loss against MONAI's, forward and backward, interleaved on one batch of training patches; and our MS-SSIM.

python scripts/benchmark_ssim.py [--threads 1]
"""

from __future__ import annotations

import platform
import statistics
import time

import torch


def main(batch: int = 16, size: int = 64, threads: int = 1, runs: int = 15) -> None:
    """Print the median time of each, their ratio, and the largest difference of their values.

    Args:
        batch: images.
        size: pixels a side.
        threads: torch's threads.
        runs: timed runs of each, taken in turn.
    """
    from monai.losses import SSIMLoss

    from meddenoise_monai.losses import batch_ssim

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    second = torch.rand(batch, 1, size, size)
    monai_loss = SSIMLoss(spatial_dims=2)

    def seconds(name: str) -> float:
        first = torch.rand_like(second, requires_grad=True)
        start = time.perf_counter()
        value = 1 - batch_ssim(first, second).mean() if name == "ours" else monai_loss(first, second)
        value.backward()
        return time.perf_counter() - start

    for name in ("ours", "MONAI"):
        seconds(name)
    times: dict[str, list[float]] = {"ours": [], "MONAI": []}
    for _ in range(runs):
        for name in times:
            times[name].append(seconds(name))
    first = torch.rand_like(second)
    difference = abs(float(1 - batch_ssim(first, second).mean() - monai_loss(first, second)))
    print(f"{batch} x {size} x {size}, {threads} thread(s), {platform.machine()}, torch {torch.__version__}")
    for name, values in times.items():
        print(f"{name:6} {1000 * statistics.median(values):8.2f} ms")
    ratios = [a / b for a, b in zip(times["MONAI"], times["ours"], strict=True)]
    print(f"MONAI / ours {statistics.median(ratios):.1f} (from {min(ratios):.1f} to {max(ratios):.1f})")
    print(f"difference of the values {difference:.1e}")
    multi_scale(runs)


def multi_scale(runs: int) -> None:
    """The same for MS-SSIM, of one pair of images of 256 x 256 pixels."""
    import numpy as np
    from monai.metrics.regression import compute_ms_ssim

    from meddenoise_monai.metrics import ms_ssim

    rng = np.random.default_rng(0)
    first = rng.random((256, 256))
    second = first + rng.normal(0, 0.1, first.shape)
    a, b = (torch.from_numpy(image.astype(np.float32))[None, None] for image in (first, second))
    times: dict[str, list[float]] = {"ours": [], "MONAI": []}
    values = {}
    for _ in range(runs + 1):
        for name in times:
            start = time.perf_counter()
            ours = name == "ours"
            values[name] = ms_ssim(first, second, 1) if ours else float(compute_ms_ssim(b, a, 2, data_range=1.0))
            times[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(spent[1:]) for name, spent in times.items()}
    print(f"MS-SSIM: ours {medians['ours']:.1f} ms, MONAI {medians['MONAI']:.1f} ms, ", end="")
    print(f"difference of the values {abs(values['ours'] - values['MONAI']):.1e}")


if __name__ == "__main__":
    from launching import launch

    launch(main)
