"""What an archive costs over a plain loop, and what is left of it when its processes are killed.

It writes COUNT slices of SIDE x SIDE as in benchmark_folder.py, of which BROKEN (a share) are cut off, and denoises
them: by as many processes of `meddenoise denoise` side by side as there are workers (the plain loop), and by
`meddenoise archive` with either engine. All processes have one thread. The rate is that between the first fifth of the
results and the last tenth, where everything runs; the overhead is what an archive is slower by. Then Ray's job is done
once more, a worker of it is killed at a quarter, the job itself at the half, and it is started again. All results are
compared byte by byte with those of the plain loop.

    python scripts/benchmark_archive.py [--count 2000] [--side 512] [--broken 0.01] [--workers 1,2] [--kills True] \
        [--flags=WORDS]
"""

from __future__ import annotations

import filecmp
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark_folder import SIDE, slices, write_series

VERB = [sys.executable, "-m", "meddenoise_monai.cli"]


def results(target: Path) -> list[Path]:
    return [path for path in target.rglob("*.dcm") if not path.name.startswith(".")]


def run(
    commands: Sequence[Sequence[str]], target: Path, expected: int, at: Callable[[int, int], None] | None = None
) -> tuple[float, float]:
    """Seconds in all, and results a second once everything runs; `at` is called with the count and the process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started, seen = time.perf_counter(), [(0.0, 0)]
    processes = [subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                 for words in commands]  # fmt: skip
    while any(process.poll() is None for process in processes):
        done = len(results(target)) if target.is_dir() else 0
        if done != seen[-1][1]:
            seen.append((time.perf_counter() - started, done))
        if at is not None:
            at(done, processes[0].pid)
        time.sleep(0.1)
    inner = [(when, done) for when, done in seen if 0.2 * expected <= done <= 0.9 * expected]
    (first, low), (last, high) = (inner[0], inner[-1]) if len(inner) > 1 else (seen[0], seen[-1])
    return time.perf_counter() - started, (high - low) / max(last - first, 1e-9)


def plain(
    source: Path, scratch: Path, processes: int, expected: int, flags: Sequence[str]
) -> tuple[Path, float, float]:
    """The plain loop: each process has its share of the files."""
    target = scratch / f"plain{processes}"
    commands = []
    for number in range(processes):
        part = scratch / f"part{processes}-{number}"
        part.mkdir()
        for path in sorted(source.iterdir())[number::processes]:
            os.link(path, part / path.name)
        commands.append([*VERB, "denoise", str(part), str(target / str(number)), "--device", "cpu", *flags])
    return target, *run(commands, target, expected)


def killer(expected: int) -> Callable[[int, int], None]:
    """Kills a worker at a quarter, and the job at the half."""
    import psutil

    left = [0.25, 0.5]

    def at(done: int, job: int) -> None:
        if left and done >= left[0] * expected:
            share = left.pop(0)
            if share == 0.5:
                os.kill(job, signal.SIGKILL)
                return
            workers = (child for child in psutil.Process(job).children(recursive=True)
                       if "(Denoise)" in " ".join(child.cmdline()))  # fmt: skip
            next(workers).kill()

    return at


def verdict(target: Path, reference: dict[str, Path], broken: int) -> str:
    """Whether all is there, once, with the right bytes, and all that is broken is reported."""
    from pyarrow import parquet

    made = {path.name: path for path in results(target)}
    equal = made.keys() == reference.keys() and all(filecmp.cmp(made[n], reference[n], shallow=False) for n in made)
    rows = parquet.read_table(target / "manifest.parquet", columns=["source", "status"]).to_pylist()
    once = len({row["source"] for row in rows}) == len(rows) == len(reference) + broken
    failed = sum(row["status"] == "failed" for row in rows)
    return f"{'equal' if equal else 'DIFFERENT'}, {'once' if once else 'NOT ONCE'}, {failed} of {broken} reported"


def main(count: int = 2000, broken: float = 0.01, workers: Sequence[int] = (1, 2), kills: bool = True,
         side: int = SIDE, flags: str = "") -> None:  # fmt: skip
    """Print the table.

    Args:
        count: how many files.
        broken: the share of them that is cut off.
        workers: how many processes; several numbers.
        kills: whether Ray's job is killed and started again, too.
        side: of the slices, in pixels.
        flags: of `meddenoise denoise` and `archive` alike, with an equals sign: "--flags=--noise gaussian".
    """
    counts = [workers] if isinstance(workers, int) else list(workers)
    with tempfile.TemporaryDirectory() as folder:
        scratch, source = Path(folder), Path(folder, "in")
        source.mkdir()
        write_series(source, slices(side), count)
        cut = sorted(source.iterdir())[:: max(1, round(1 / broken))] if broken else []
        for path in cut:
            os.truncate(path, path.stat().st_size // 2)
        good = count - len(cut)
        print(f"{count} slices of {side} x {side}, {len(cut)} broken; {platform.machine()}, {os.cpu_count()} cores")
        print("| job | processes | all [s] | a second, once running | overhead | results |")
        print("|---|---|---|---|---|---|")
        reference: dict[str, Path] = {}
        for number in counts:
            target, seconds, loop = plain(source, scratch, number, good, flags.split())
            reference = reference or {path.name: path for path in results(target)}
            print(f"| denoise | {number} | {seconds:.1f} | {loop:.2f} | | {len(results(target))} |", flush=True)
            for engine in ("local", "ray") if number == 1 else ("ray",):
                target = scratch / f"{engine}{number}"
                words = [*VERB, "archive", str(source), str(target), "--device", "cpu", "--engine", engine]
                words += ["--workers", str(number), *flags.split()]
                seconds, rate = run([words], target, good)
                told = verdict(target, reference, len(cut))
                print(
                    f"| {engine} | {number} | {seconds:.1f} | {rate:.2f} | {1 - rate / loop:.0%} | {told} |", flush=True
                )
        if kills:
            target = scratch / "killed"
            words = [*VERB, "archive", str(source), str(target), "--device", "cpu", "--engine", "ray"]
            words += ["--workers", str(counts[-1]), *flags.split()]
            before, _ = run([words], target, good, killer(good))
            seconds, _ = run([words], target, good)
            told = verdict(target, reference, len(cut))
            print(f"| ray, killed and again | {counts[-1]} | {before:.1f} + {seconds:.1f} | | | {told} |")


if __name__ == "__main__":
    from launching import launch

    launch(main)
