"""Our SSIM loss against MONAI's, forward and backward, interleaved on one batch of training patches.

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


if __name__ == "__main__":
    import fire

    fire.Fire(main)
