"""Megapixels per second and peak memory of our network, the classical baselines and other networks.

All methods denoise the same noisy image of SIZE x SIZE pixels in turn, ROUNDS times, in one process; the best time of
each counts. BM3D, which is the slowest by far, gets a window of 256 x 256. Peak memory is what a process of its own for
each method needs beyond the libraries and the image. The networks' weights do not matter for their speed, so the other
networks are untrained.

On a GPU (`--device cuda`) the networks run in batches of BATCH images, and the arithmetic and the memory traffic of our
network are compared with what a large matrix product and a large copy reach on the same device.

    python scripts/benchmark_speed.py [--size 1024] [--rounds 3] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

SIGMA = 25 / 255
# The issue of this benchmark names this NL-means; the others as they come, which is about as fast as tuned.
PARAMETERS: dict[str, dict[str, Any]] = {"nlm": {"patch_size": 5, "patch_distance": 8, "h": 0.8}}
SMALL = 256

Method = Callable[[Any], Any]


def picture(size: int, bits: int = 0) -> Any:
    """A noisy image (size, size), float32, or unsigned integers of `bits`.

    Beyond 1024 pixels it repeats itself, so that making it costs nothing.
    """
    import torch

    from meddenoise_monai.noise import GaussianNoise
    from meddenoise_monai.synthetic import synthetic_image

    clean = torch.from_numpy(np.float32(synthetic_image(min(size, 1024), 0)))
    noisy = GaussianNoise(SIGMA).apply(clean, 0).numpy()
    if bits:
        noisy = np.clip(noisy * 2**bits, 0, 2**bits - 1).astype(f"uint{bits}")
    times = -(-size // 1024)
    return np.tile(noisy, (times, times))[:size, :size] if size > 1024 else noisy


def our_network(weights: str) -> Any:
    from meddenoise_monai.inference import load_denoiser

    return load_denoiser(weights or None, "cpu").network


def networks(weights: str) -> dict[str, Any]:
    from peers import PEERS, build

    return {"ours": our_network(weights), **{name: build(definition) for name, definition in PEERS.items()}}


def methods(weights: str, device: str) -> dict[str, Method]:
    """Everything that can be timed, by name."""
    from meddenoise_monai.baselines import available_baselines, make_baseline
    from meddenoise_monai.inference import Denoiser, load_denoiser

    ours = load_denoiser(weights or None, device)
    found: dict[str, Method] = {}
    for name, network in networks(weights).items():
        denoise = Denoiser(network, device=device)
        found[name] = lambda image, denoise=denoise: denoise(image, noise="gaussian")
        if name == "ours":
            found["ours, noise auto"] = ours
            found["ours, noise correlated"] = lambda image: ours(image, noise="correlated")
    for name in available_baselines():
        baseline = make_baseline(name, **PARAMETERS.get(name, {}))
        found[name] = lambda image, baseline=baseline: baseline(image, SIGMA)
    return found


def peak_memory(name: str, size: int, weights: str, threads: int) -> float:
    """Bytes a pixel that a process which runs one method once needs beyond what it needed before."""
    command = [sys.executable, __file__, "--memory_of", name, "--size", str(size), "--weights", weights,
               "--threads", str(threads)]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(shown.stdout.split()[-1])


def print_memory(name: str, size: int, weights: str, bits: int) -> None:
    """What `peak_memory` asks for."""
    method = methods(weights, "cpu")[name]
    method(picture(64))
    image = picture(size, bits)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    method(image)
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{whole / 2**20:.2f} GiB in all, with the libraries and the image; bytes a pixel beyond these:",
          (whole - before) * 1024 / image.size)  # fmt: skip


def ceilings(device: str) -> tuple[float, float]:
    """Multiply-adds and bytes a second that a matrix product in the network's precision and a copy reach."""
    import torch

    from meddenoise_monai.inferers import automatic_precision

    precision = torch.bfloat16 if automatic_precision(torch.device(device)) == "bf16" else torch.float32
    side = 8192 if device == "cuda" else 2048
    left = torch.randn(side, side, device=device, dtype=precision)
    large = torch.empty(2**29 if device == "cuda" else 2**27, dtype=torch.uint8, device=device)

    def fastest(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            synchronise(device)
            started = time.perf_counter()
            work()
            synchronise(device)
            times.append(time.perf_counter() - started)
        return min(times)

    return side**3 / fastest(lambda: left @ left), 2 * large.numel() / fastest(large.clone)


def synchronise(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def on_gpu(weights: str, size: int, batch: int, rounds: int) -> None:
    """Print megapixels per second of each network in batches, and how near ours is to the ceilings."""
    import torch
    from peers import bytes_moved, multiplications

    from meddenoise_monai.inference import channels_last
    from meddenoise_monai.inferers import AutocastInferer

    run = AutocastInferer()
    images = torch.rand(batch, 1, size, size, device="cuda")
    speeds = {}
    arithmetic, traffic = ceilings("cuda")
    for name, network in networks(weights).items():
        network = channels_last(network.cuda())
        with torch.inference_mode():
            run(images[:1], network)
            best = float("inf")
            for _ in range(rounds):
                synchronise("cuda")
                started = time.perf_counter()
                run(images, network)
                synchronise("cuda")
                best = min(best, time.perf_counter() - started)
        speeds[name] = images.numel() / best
        mac = 1000 * multiplications(network) * speeds[name] / arithmetic
        moved = bytes_moved(network) * speeds[name] / traffic
        print(f"{name:24} {speeds[name] / 1e6:8.1f} MP/s  {100 * mac:5.1f} % of a matrix product's multiply-adds, "
              f"{100 * moved:5.1f} % of a copy's bytes")  # fmt: skip
        network.cpu()


def on_cpu(weights: str, size: int, rounds: int, threads: int, memory: bool) -> None:
    """Print the table of all methods."""
    from peers import multiplications

    found = methods(weights, "cpu")
    cost = {name: multiplications(network) for name, network in networks(weights).items()}
    large, small = picture(size), picture(SMALL)
    best = dict.fromkeys(found, float("inf"))
    for _ in range(rounds):
        for name, method in found.items():
            image = small if name == "bm3d" else large
            started = time.perf_counter()
            method(image)
            best[name] = min(best[name], (time.perf_counter() - started) / image.size)
    print("| method | kMAC/pixel | MP/s | ours / it | peak memory, bytes/pixel |\n|---|---|---|---|---|")
    for name, seconds in best.items():
        side = SMALL if name == "bm3d" else size
        need = f"{peak_memory(name, side, weights, threads):.0f}" if memory else "–"
        macs = f"{cost[name]:.0f}" if name in cost else "–"
        print(f"| {name} | {macs} | {1e-6 / seconds:.3g} | {seconds / best['ours']:.3g} | {need} |")


def main(
    size: int = 1024,
    rounds: int = 3,
    threads: int = 0,
    device: str = "cpu",
    batch: int = 16,
    weights: str = "",
    memory: bool = True,
    memory_of: str = "",
    bits: int = 0,
) -> None:
    """Print the table.

    Args:
        size: side of the image, pixels.
        rounds: how often each method runs.
        threads: torch's; 0 leaves it at the number of cores.
        device: cpu or cuda.
        batch: images at a time, on a GPU.
        weights: of our network; by default the released ones.
        memory: measure the peak memory, too.
        memory_of: print what this method needs for an image of `size`, and nothing else.
        bits: 8 or 16 for an image of integers there.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    if memory_of:
        return print_memory(memory_of, size, weights, bits)
    if device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {batch} x {size} x {size}\n")
        return on_gpu(weights, size, batch, rounds)
    print(f"{size} x {size}, {torch.get_num_threads()} thread(s), {platform.machine()}, torch {torch.__version__}\n")
    return on_cpu(weights, size, rounds, threads, memory)


if __name__ == "__main__":
    from launching import launch

    launch(main)
