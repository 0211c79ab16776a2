"""Re-create the experiments of Gondara (2016) and of the Torch7 project behind this one, at 64 x 64 pixels.

What it does, cell by cell (a cell is one training: data x noise x network x seed):

1. splits mini-MIAS by woman and the X-rays by patient: 70 % training, 10 % validation, 20 % test, anew for each seed;
2. trains with the bundle's own `train.json` + `paper.json`, whole images shrunk to 64 x 64 and min-max normalised,
   noise clipped to [0, 1] as the paper's and the ancestor's programs did;
3. once for each data, noise and seed, tunes every classical baseline for SSIM on (up to 24) validation images of the
   same data, and scores all on the unseen test patients;
4. writes `docs/reproduction.md` and its figure from the results of all cells.

Done cells are skipped and a cell that was cut off is resumed, so it can be stopped and started again. Start it once for
each core, with OMP_NUM_THREADS=1: a cell that another process works on is left to it. The last one to end writes the
whole report. It raises an InputError where the data are missing.

    python scripts/reproduce_paper.py --mini_mias DIR --xray DIR --output OUT

The default protocol takes some three hours of one core; `--epochs 2 --long_epochs 4 --seeds 1` gives a first idea.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from splits import mini_mias_items, split_items, xray_items

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = [str(ROOT / "bundle" / "configs" / name) for name in ("train.json", "paper.json")]
FRACTIONS = (0.7, 0.1, 0.2)

NOISES: dict[str, dict[str, Any]] = {
    "v = 0.1 var": {"model": "variance_gaussian", "factor": 0.1},
    "0.1 N(0, 1)": {"model": "paper_gaussian", "p": 0.1, "mean": 0.0, "std": 1.0},
    "0.5 N(0, 1)": {"model": "paper_gaussian", "p": 0.5, "mean": 0.0, "std": 1.0},
    "0.2 N(0, 2)": {"model": "paper_gaussian", "p": 0.2, "mean": 0.0, "std": 2.0},
    "0.2 N(0, 5)": {"model": "paper_gaussian", "p": 0.2, "mean": 0.0, "std": 5.0},
    "0.2 Poisson(1)": {"model": "paper_poisson", "p": 0.2, "rate": 1.0},
    "0.2 Poisson(5)": {"model": "paper_poisson", "p": 0.2, "rate": 5.0},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "ancestor as found": {
        "_target_": "meddenoise_monai.networks.ConvDenoisingAutoencoder", "activation": "none"
    },
    "paper's network": {"_target_": "meddenoise_monai.networks.ConvDenoisingAutoencoder", "activation": "relu"},
    "ours": {"_target_": "meddenoise_monai.networks.ResidualDenoisingAutoencoder"},
}  # fmt: skip
# Shrunk to 64 pixels, an image has detail at every pixel, which a network that begins at half the resolution may miss.
LONG_NETWORKS: dict[str, dict[str, Any]] = {
    "ours": NETWORKS["ours"],
    "ours, full resolution": {**NETWORKS["ours"], "widths": [16, 32, 64, 128], "stride": 1},
}
ANCESTOR = "v = 0.1 var"
DATA = ("mini-MIAS", "X-ray", "pooled")


@dataclass(frozen=True)
class Cell:
    """One training."""

    data: str
    noise: str
    network: str
    seed: int
    epochs: int

    @property
    def folder(self) -> str:
        words = (self.data, self.noise, self.network, f"seed {self.seed}", f"{self.epochs} epochs")
        return re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-")


def cells(epochs: int, long_epochs: int, seeds: int, grid_seeds: int) -> Iterator[Cell]:
    """All cells, seed by seed: the long trainings, the ancestor's noise on every data set, the paper's grid pooled."""
    for seed in range(seeds):
        for network in LONG_NETWORKS:
            yield Cell("pooled", ANCESTOR, network, seed, long_epochs)
        for data in DATA[:2]:
            yield Cell(data, ANCESTOR, "ours", seed, long_epochs)
        for data in DATA:
            for network in NETWORKS:
                yield Cell(data, ANCESTOR, network, seed, epochs)
    for seed in range(grid_seeds):
        for noise in list(NOISES)[1:]:
            for network in NETWORKS:
                yield Cell("pooled", noise, network, seed, epochs)


def scores_baselines(cell: Cell, epochs: int) -> bool:
    """Whether this cell of those with the same data, noise and seed tunes and scores all the baselines.

    For the ancestor's noise they are tuned on the very data set they are tested on, which serves them best.
    """
    return cell.network == "ours" and cell.epochs == epochs and (cell.noise != ANCESTOR or cell.data != "pooled")


def items_of(mini_mias: Path, xray: Path) -> dict[str, list[dict[str, str]]]:
    """Images with their patients."""
    return {"mini-MIAS": mini_mias_items(mini_mias), "X-ray": xray_items(xray)}


def write_datalist(items: list[dict[str, str]], seed: int, path: Path) -> None:
    path.write_text(json.dumps(split_items(items, seed, FRACTIONS), indent=1))


@contextlib.contextmanager
def claim(cell: Cell, output: Path) -> Iterator[bool]:
    """Whether this cell is ours to do: not done, and no other process is at it. The claim dies with the process."""
    path = output / "cells" / f"{cell.folder}.claim"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield not (path.with_suffix("") / "results.json").is_file()


def train(cell: Cell, datalist: Path, output: Path, all_baselines: bool) -> None:
    """One training by the bundle's configuration; leaves `results.json` and `per_image.csv`."""
    import torch
    from monai.bundle import ConfigWorkflow

    folder = output / "cells" / cell.folder
    working = folder.with_name(f".{folder.name}")
    started = time.monotonic()
    workflow = ConfigWorkflow(
        CONFIGS,
        workflow_type="train",
        bundle_root=str(ROOT / "bundle"),
        datalist=str(datalist),
        ckpt_dir=str(working),
        output_dir=str(working / "eval"),
        resume=(working / "checkpoint_last.pt").is_file(),
        tracking_uri=f"sqlite:///{(output / 'mlflow.db').resolve()}",
        run_name=cell.folder,
        noise_model=NOISES[cell.noise],
        network_def={**NETWORKS, **LONG_NETWORKS}[cell.network],
        seed=cell.seed,
        max_epochs=cell.epochs,
        val_interval=max(1, cell.epochs // 10),
        baselines=None if all_baselines else ["gaussian"],  # the quickest: the comparison wants at least one
        **{"validate::handlers::0::cache_dir": str(output / "tuning")},
    )
    workflow.initialize()
    workflow.run()
    results = json.loads((working / "eval" / "results.json").read_text())
    results["cell"] = asdict(cell)
    results["minutes"] = (time.monotonic() - started) / 60
    results["training_minutes"] = torch.load(working / "checkpoint_last.pt", weights_only=True)["seconds"] / 60
    (working / "eval" / "results.json").write_text(json.dumps(results, indent=2))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(working / "eval" / "per_image.csv", folder)
    shutil.copy(working / "eval" / "results.json", folder)  # last: its presence says that the cell is done
    shutil.rmtree(working)


def read_results(output: Path, wanted: list[Cell]) -> list[dict[str, Any]]:
    """Per finished cell: the cell, and SSIM (both), PSNR of every method, by data set of the test image."""
    import csv

    finished = []
    for cell in wanted:
        folder = output / "cells" / cell.folder
        if (folder / "results.json").is_file():
            with (folder / "per_image.csv").open(newline="") as stream:
                rows = list(csv.DictReader(stream))
            finished.append({**json.loads((folder / "results.json").read_text()), "cell": cell, "rows": rows})
    return finished


def case_sources(items: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """Which data set a hashed case belongs to."""
    from meddenoise_monai.tracking import case_id

    return {case_id(item["image"]): name for name, entries in items.items() for item in entries}


def mean_score(result: dict[str, Any], method: str, metric: str, sources: dict[str, str], data: str) -> float:
    values = [float(row[metric]) for row in result["rows"] if row["method"] == method and sources[row["case"]] == data]
    return float(np.mean(values)) if values else float("nan")


def spread(values: list[float], digits: int) -> str:
    """``mean ± standard deviation`` over the seeds."""
    text = f"{np.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def chosen(finished: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """The finished cells with these attributes, one a seed."""
    return [r for r in finished if all(getattr(r["cell"], name) == value for name, value in wanted.items())]


def baseline_cells(finished: list[dict[str, Any]], epochs: int, noise: str, data: str) -> list[dict[str, Any]]:
    """The cells whose baselines were tuned for this noise and for the test data `data`."""
    found = chosen(finished, noise=noise, network="ours", epochs=epochs)
    return [r for r in found if scores_baselines(r["cell"], epochs) and r["cell"].data in (data, "pooled")]


def best_baseline(results: list[dict[str, Any]], sources: dict[str, str], data: str) -> tuple[str, list[float]]:
    """Name and SSIM by seed of the baseline with the best mean SSIM."""
    names = [name for name in results[0]["methods"] if name not in ("noisy", "dae")]
    scores = {name: [mean_score(r, name, "ssim", sources, data) for r in results] for name in names}
    best = max(scores, key=lambda name: float(np.mean(scores[name])))
    return best, scores[best]


def ancestor_table(finished: list[dict[str, Any]], sources: dict[str, str], epochs: int) -> tuple[str, dict[str, Any]]:
    """v = 0.1 var: rows are methods and networks, columns the test data; and the SSIM means behind the figure."""
    lines = [
        "| method | trained on | tested on | SSIM | SSIM (MATLAB) | PSNR [dB] |",
        "|---|---|---|---|---|---|",
    ]
    bars: dict[str, Any] = {}

    def add(label: str, trained: str, data: str, results: list[dict[str, Any]], method: str) -> None:
        columns = {
            metric: [mean_score(r, method, metric, sources, data) for r in results]
            for metric in ("ssim", "ssim_matlab", "psnr")
        }
        bars[f"{label}, {trained}" if trained else label, data] = columns["ssim"]
        lines.append(
            f"| {label} | {trained or '–'} | {data} | {spread(columns['ssim'], 3)} | "
            f"{spread(columns['ssim_matlab'], 3)} | {spread(columns['psnr'], 2)} |"
        )

    for data in DATA[:2]:
        classical = baseline_cells(finished, epochs, ANCESTOR, data)
        for method in [name for name in classical[0]["methods"] if name != "dae"] if classical else []:
            add(method, "", data, classical, method)
        for network in NETWORKS:
            for trained in (data, "pooled"):
                results = chosen(finished, noise=ANCESTOR, network=network, data=trained, epochs=epochs)
                if results:
                    add(network, trained, data, results, "dae")
    return "\n".join(lines), bars


def grid_table(finished: list[dict[str, Any]], sources: dict[str, str], epochs: int) -> str:
    """The paper's grid, pooled: SSIM of noisy, the best baseline, and the networks."""
    lines = [
        f"| noise | tested on | noisy | best tuned baseline | {' | '.join(NETWORKS)} |",
        f"|---|---|---|---|{'---|' * len(NETWORKS)}",
    ]
    for noise in list(NOISES)[1:]:
        for data in DATA[:2]:
            classical = baseline_cells(finished, epochs, noise, data)
            if not classical:
                continue
            name, best = best_baseline(classical, sources, data)
            cells = [
                spread([mean_score(r, "noisy", "ssim", sources, data) for r in classical], 3),
                f"{spread(best, 3)} ({name})",
            ]
            for network in NETWORKS:
                results = chosen(finished, noise=noise, network=network, epochs=epochs)
                scores = [mean_score(r, "dae", "ssim", sources, data) for r in results]
                cells.append(spread(scores, 3) if scores else "–")
            lines.append(f"| {noise} | {data} | {' | '.join(cells)} |")
    return "\n".join(lines)


def long_table(finished: list[dict[str, Any]], sources: dict[str, str], epochs: int, long_epochs: int) -> str:
    """The long trainings: one row a network, training set, seed and test set, and the means over the seeds."""
    lines = [
        "| network | trained on | seed | tested on | SSIM | SSIM (MATLAB) | PSNR [dB] | best tuned baseline's SSIM "
        "| minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for trained in reversed(DATA):
        for network in LONG_NETWORKS:
            results = chosen(finished, noise=ANCESTOR, network=network, epochs=long_epochs, data=trained)
            lines += long_rows(results, f"{network} | {trained}", finished, sources, epochs)
    return "\n".join(lines)


def long_rows(
    results: list[dict[str, Any]], label: str, finished: list[dict[str, Any]], sources: dict[str, str], epochs: int
) -> list[str]:
    """Those of one network on one training set, tested on every data set that it was trained on."""
    lines = []
    tested = [data for data in DATA[:2] if results and results[0]["cell"].data in (data, "pooled")]
    for result in results:
        seed = result["cell"].seed
        for data in tested:
            classical = [r for r in baseline_cells(finished, epochs, ANCESTOR, data) if r["cell"].seed == seed]
            best = "{1[0]:.4f} ({0})".format(*best_baseline(classical, sources, data)) if classical else "–"
            ssim, matlab, psnr = (
                mean_score(result, "dae", metric, sources, data) for metric in ("ssim", "ssim_matlab", "psnr")
            )
            minutes = result["training_minutes"]
            scores = f"{ssim:.4f} | {matlab:.4f} | {psnr:.2f}"
            lines.append(f"| {label} | {seed} | {data} | {scores} | {best} | {minutes:.0f} |")
    for data in tested:
        means = [
            spread([mean_score(result, "dae", metric, sources, data) for result in results], digits)
            for metric, digits in (("ssim", 4), ("ssim_matlab", 4), ("psnr", 2))
        ]
        lines.append(f"| {label} | all | {data} | {' | '.join(means)} | | |")
    return lines


def draw(bars: dict[str, Any], path: Path) -> None:
    """Horizontal bars of SSIM by method, one panel a data set, seeds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure, axes = plt.subplots(1, 2, figsize=(11, 5.6), sharex=True, layout="constrained")
    for axis, data in zip(axes, DATA[:2], strict=True):
        entries = sorted(((label, v) for (label, d), v in bars.items() if d == data), key=lambda e: np.mean(e[1]))
        for row, (label, values) in enumerate(entries):
            colour = "tab:blue" if label.startswith("ours") else "tab:orange" if "," in label else "0.7"
            axis.barh(row, np.mean(values), color=colour)
            axis.plot(values, [row] * len(values), "k.", markersize=4)
            axis.text(0.01, row, f"{np.mean(values):.3f}", va="center", fontsize=8)
        axis.set_yticks(range(len(entries)), [label for label, _ in entries], fontsize=8)
        axis.set(title=f"{data}, test patients", xlabel="SSIM (Wang et al. 2004), 64 × 64, v = 0.1·var", xlim=(0, 1))
    kinds = {"ours": "tab:blue", "networks re-created": "tab:orange", "classical, tuned": "0.7"}
    marks = [Patch(color=colour, label=name) for name, colour in kinds.items()]
    figure.legend(
        handles=[*marks, Line2D([], [], color="k", marker=".", linestyle="", label="one seed")],
        title="after the comma: trained on",
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        title_fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_report(
    finished: list[dict[str, Any]], sources: dict[str, str], report: Path, protocol: dict[str, Any], command: str
) -> None:
    table, bars = ancestor_table(finished, sources, protocol["epochs"])
    figure = report.with_name("figures") / "reproduction.png"
    draw(bars, figure)
    steps = {name: protocol[name] * 100 for name in ("epochs", "long_epochs")}
    minutes = sum(result["minutes"] for result in finished)
    text = f"""# Reproduction of the paper and of the Torch7 ancestor at 64 × 64

Printed by

    {command}

on {protocol["machine"]}, one thread a training; {len(finished)} of {protocol["cells"]} trainings, {minutes:.0f} minutes
of one core in all, tuning and scoring of the baselines included. Nothing here was edited by hand.

**Data.** mini-MIAS: {protocol["mini-MIAS"]} films, split by woman. X-ray: {protocol["X-ray"]} lateral cephalograms,
one a patient: a stand-in for the ancestor's DX set (the ISBI 2015 challenge), of the same modality and view but of
another source, so its numbers do not compare with DX numbers. Split 70 / 10 / 20 % into training, validation and test
by patient, anew for each seed.

**Protocol.** Whole images, background included, shrunk to 64 × 64 (bicubic, anti-aliased) and min-max normalised.
Noise is clipped to [0, 1], as the paper and the ancestor did. Each network trains for {steps["epochs"]} steps of 10
images ({steps["long_epochs"]} where it says so), L1 + 0.2 (1 − SSIM), Adam, cosine schedule, averaged weights, random
parts of 75 to 100 % of the image, mirrored. Baselines are tuned for SSIM on up to 24 validation images and told the
true noise level of every image; the networks are blind. SSIM is that of Wang et al. 2004 with an 11 × 11 Gaussian
window; "MATLAB" averages over replicated borders, as `ssim_score.m` did. ± is the standard deviation over seeds, of
which this run had {protocol["seeds"]}, and {protocol["grid_seeds"]} for the grid; a seed draws the split, the initial
weights and the noise of the training.

**How far it can be trusted.** Loss, learning rate and augmentation were settled in earlier trainings (five, in the
project's first days) that were scored on a fifth of the same patients. The splits here are others, but not of patients
never used before.

## v = 0.1 · var: the ancestor's experiment

The baselines are tuned on validation images of the data set that they are tested on.

{table}

![SSIM by method]({figure.relative_to(report.parent).as_posix()})

"Ancestor as found" is the paper's network without any activation, as the Torch7 program had it, but trained with our
loss: the ancestor's classification loss, its split by film and its normalisation of the noisy image alone are not
repeated. Numbers of the ancestor's own report are therefore not comparable.

### Trained longer: {steps["long_epochs"]} steps

{long_table(finished, sources, protocol["epochs"], protocol["long_epochs"])}

The minutes are those of the training and its validations. "Ours" is the default network, which begins at half the
resolution; "ours, full resolution" the same class with `widths` 16, 32, 64, 128 and `stride` 1.

## The paper's grid p · N(μ, s) and p · Poisson(λ): SSIM, trained and tuned on both data sets pooled

s is the standard deviation. p · Poisson(λ) also brightens by its mean, p · λ, before it is clipped: ours passes offsets
through by construction, which costs it there.

{grid_table(finished, sources, protocol["epochs"])}
"""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(text, encoding="utf-8")
    print(text)


def main(
    mini_mias: str,
    xray: str,
    output: str,
    epochs: int = 10,
    long_epochs: int = 60,
    seeds: int = 3,
    grid_seeds: int = 2,
    report: str = str(ROOT / "docs" / "reproduction.md"),
    max_minutes: float = 0.0,
) -> None:
    """Run the missing cells and write the report.

    Args:
        mini_mias: folder of mini-MIAS films, ``mdb001.pgm`` or ``.png`` and so on.
        xray: folder of X-rays, one a patient.
        output: where results, checkpoints and the MLflow database go.
        epochs: of 100 steps, for every cell but the long ones.
        long_epochs: of the long trainings.
        seeds: trainings and splits of the ancestor's experiment.
        grid_seeds: of the paper's grid.
        report: the Markdown file to write.
        max_minutes: start no cell after this time; 0 runs all.
    """
    from meddenoise_monai.tracking import environment_versions

    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    items = items_of(Path(mini_mias), Path(xray))
    wanted = list(cells(epochs, long_epochs, seeds, grid_seeds))
    started = time.monotonic()
    for index, cell in enumerate(wanted):
        if max_minutes and time.monotonic() - started > 60 * max_minutes:
            print(f"stopped before cell {index + 1} of {len(wanted)}; run the same command again", file=sys.stderr)
            break
        with claim(cell, target) as ours:
            if not ours:
                continue
            print(f"--- cell {index + 1} of {len(wanted)}: {cell}", file=sys.stderr, flush=True)
            datalist = target / f"datalist-{cell.folder}.json"
            listed = [item for name, part in items.items() if cell.data in (name, "pooled") for item in part]
            write_datalist(listed, cell.seed, datalist)
            train(cell, datalist, target, scores_baselines(cell, epochs))
            datalist.unlink()
    protocol = {
        "epochs": epochs,
        "long_epochs": long_epochs,
        "seeds": seeds,
        "grid_seeds": grid_seeds,
        "cells": len(wanted),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {environment_versions()['torch']}",
        **{name: len(entries) for name, entries in items.items()},
    }
    command = (
        "python scripts/reproduce_paper.py --mini_mias MINI_MIAS --xray XRAY --output OUT "
        f"--epochs {epochs} --long_epochs {long_epochs} --seeds {seeds} --grid_seeds {grid_seeds}"
    )
    write_report(read_results(target, wanted), case_sources(items), Path(report), protocol, command)


if __name__ == "__main__":
    from launching import launch

    launch(main)
