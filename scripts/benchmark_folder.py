"""What a folder of CT slices costs: time, share of reading and writing, peak memory, time to the first result.

It writes COUNT slices of 512 x 512 (synthetic anatomy between -1000 and 1500 HU, noise of 15 HU with the correlation
and the ramp of CT) as explicit little endian DICOM files of one series into a temporary folder, and runs `meddenoise
denoise` over it in a process of its own. Then the same slices, in memory, go through the same denoiser: what the
command took longer, from its first result to its last, is reading, checking and writing.

    python scripts/benchmark_folder.py [--count 1000] [--threads 2]
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE, SIGMA, PICTURES = 512, 15.0, 16


def slices(side: int = SIDE) -> list[Any]:
    """Different pictures in HU, int16."""
    import torch

    from meddenoise_monai.noise import CorrelatedGaussianNoise
    from meddenoise_monai.synthetic import synthetic_image

    found = []
    for number in range(PICTURES):
        clean = torch.from_numpy(np.float32(synthetic_image(side, number))) * 2500 - 1000
        noisy = CorrelatedGaussianNoise(SIGMA, fwhm=1.5, ramp=1.0).apply(clean, number).numpy()
        found.append(np.rint(noisy).astype(np.int16))
    return found


def write_series(folder: Path, pictures: list[Any], count: int) -> None:
    import pydicom
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    first, (x, y, z) = dataset.SOPInstanceUID, dataset.ImagePositionPatient
    dataset.Rows, dataset.Columns = pictures[0].shape
    del dataset.DataSetTrailingPadding
    for number in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{first}.{number}"
        dataset.InstanceNumber, dataset.ImagePositionPatient = number + 1, [x, y, z + number]
        stored = pictures[number % len(pictures)] - np.int16(dataset.RescaleIntercept)
        dataset.PixelData = stored.astype("<i2").tobytes()
        dataset.save_as(folder / f"{number:05d}.dcm")


def run_command(source: Path, output: Path, threads: int) -> tuple[float, float, float]:
    """Seconds to the first result, seconds to the last, and peak bytes."""
    command = [sys.executable, "-m", "meddenoise_monai.cli", "denoise", str(source), str(output), "--device", "cpu"]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stderr=subprocess.DEVNULL)
    first = 0.0
    while process.poll() is None and not first:
        if output.is_dir() and any(path.suffix == ".dcm" and path.name[0] != "." for path in output.iterdir()):
            first = time.perf_counter() - started
        time.sleep(0.02)
    _, status, usage = os.wait4(process.pid, 0) if process.returncode is None else (0, process.returncode, None)
    if status or usage is None:
        raise SystemExit(f"the command failed: {status}")
    return first, time.perf_counter() - started, usage.ru_maxrss * 1024.0


def in_memory(pictures: list[Any], count: int, threads: int) -> float:
    """Seconds that the denoiser alone takes for so many slices."""
    import torch

    from meddenoise_monai import load_denoiser

    logging.disable()  # it would name the correlation of every slice
    torch.set_num_threads(threads)
    denoise = load_denoiser(device="cpu")
    for picture in pictures[:2]:
        denoise(picture)
    started = time.perf_counter()
    for number in range(count):
        denoise(pictures[number % len(pictures)])
    return time.perf_counter() - started


def main(count: int = 1000, threads: int = 2) -> None:
    """Print the table.

    Args:
        count: how many files.
        threads: of the network.
    """
    pictures = slices()
    with tempfile.TemporaryDirectory() as scratch:
        source, output = Path(scratch, "in"), Path(scratch, "out")
        source.mkdir()
        write_series(source, pictures, count)
        first, total, memory = run_command(source, output, threads)
        done = len(list(output.glob("*.dcm")))
    alone = in_memory(pictures, count, threads)
    work = total - first
    print(f"{done} slices of {SIDE} x {SIDE}, {threads} threads, {platform.machine()}, {os.cpu_count()} cores")
    print("| first result [s] | all [s] | slices a second | reading, checking and writing | peak memory [GiB] |")
    print("|---|---|---|---|---|")
    share = 1 - alone * (done - 1) / count / work
    print(f"| {first:.1f} | {total:.1f} | {done / total:.2f} | {share:.0%} | {memory / 2**30:.2f} |")


if __name__ == "__main__":
    from launching import launch

    launch(main)
