"""Re-create the experiments of Gondara (2016) and of the Torch7 project behind this one, at 64 x 64 pixels.

What it does, cell by cell (a cell is one training: data x noise x network x seed):

1. splits mini-MIAS by woman and the X-rays by patient: 70 % training, 10 % validation, 20 % test, anew for each seed;
2. trains with the bundle's own `train.json` + `paper.json`, whole images shrunk to 64 x 64 and min-max normalised,
   noise clipped to [0, 1] as the paper's and the ancestor's programs did;
3. tunes every classical baseline for SSIM on (up to 24) validation images and scores all on the unseen test patients;
4. writes `docs/reproduction.md` and its figure from the results of all cells.

Done cells are skipped, so it can be stopped and started again. It raises an InputError where the data are missing.

    python scripts/reproduce_paper.py --mini_mias DIR --xray DIR --output OUT

The default protocol takes some hours on 2 cores; `--epochs 4 --seeds 1` gives a first impression in half an hour.
"""

from __future__ import annotations

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


def cells(epochs: int, long_epochs: int, seeds: int) -> Iterator[Cell]:
    """All cells: the long training, the ancestor's noise on every data set and seed, the paper's grid pooled."""
    yield Cell("pooled", "v = 0.1 var", "ours", 0, long_epochs)
    for seed in range(seeds):
        for data in DATA:
            for network in NETWORKS:
                yield Cell(data, "v = 0.1 var", network, seed, epochs)
    for noise in list(NOISES)[1:]:
        for network in ("paper's network", "ours"):
            yield Cell("pooled", noise, network, 0, epochs)


def items_of(mini_mias: Path, xray: Path) -> dict[str, list[dict[str, str]]]:
    """Images with their patients: films 2n - 1 and 2n of mini-MIAS are the breasts of one woman."""
    from meddenoise_monai.images import find_images

    def number(path: Path) -> int:
        return int(re.sub(r"\D", "", path.stem))

    return {
        "mini-MIAS": [
            {"image": str(path.resolve()), "patient": f"mias-{(number(path) + 1) // 2:03d}"}
            for path in find_images(mini_mias)
        ],
        "X-ray": [{"image": str(path.resolve()), "patient": f"xray-{path.stem}"} for path in find_images(xray)],
    }


def write_datalist(items: list[dict[str, str]], seed: int, path: Path) -> None:
    from meddenoise_monai.datasets import SPLITS, split_patients

    split = split_patients((item["patient"] for item in items), seed, FRACTIONS)
    content = {part: [item for item in items if split[item["patient"]] == part] for part in SPLITS}
    path.write_text(json.dumps(content, indent=1))


def train(cell: Cell, datalist: Path, output: Path) -> None:
    """One training by the bundle's configuration; leaves `results.json` and `per_image.csv`."""
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
        network_def=NETWORKS[cell.network],
        seed=cell.seed,
        max_epochs=cell.epochs,
        val_interval=max(1, cell.epochs // 10),
        **{"validate::handlers::0::cache_dir": str(output / "tuning")},
    )
    workflow.initialize()
    workflow.run()
    results = json.loads((working / "eval" / "results.json").read_text())
    results["cell"] = asdict(cell)
    results["minutes"] = (time.monotonic() - started) / 60
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


def methods_of(result: dict[str, Any]) -> list[str]:
    return [name for name in result["methods"] if name != "dae"]


def ancestor_table(finished: list[dict[str, Any]], sources: dict[str, str], epochs: int) -> tuple[str, dict[str, Any]]:
    """v = 0.1 var: rows are methods and networks, columns the test data; and the SSIM means behind the figure."""
    chosen = [r for r in finished if r["cell"].noise == "v = 0.1 var" and r["cell"].epochs == epochs]
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

    pooled = [r for r in chosen if r["cell"].data == "pooled" and r["cell"].network == "ours"]
    for data in DATA[:2]:
        for method in methods_of(pooled[0]) if pooled else []:
            add(method, "", data, pooled, method)
        for network in NETWORKS:
            for trained in (data, "pooled"):
                results = [r for r in chosen if (r["cell"].network, r["cell"].data) == (network, trained)]
                if results:
                    add(network, trained, data, results, "dae")
    return "\n".join(lines), bars


def grid_table(finished: list[dict[str, Any]]) -> str:
    """The paper's grid, pooled: SSIM of noisy, the best baseline, the paper's network and ours."""
    lines = [
        "| noise | noisy | best tuned baseline | paper's network | ours |",
        "|---|---|---|---|---|",
    ]
    for noise in list(NOISES)[1:]:
        both = {r["cell"].network: r for r in finished if r["cell"].noise == noise}
        if not both:
            continue
        one = next(iter(both.values()))
        ssim = {name: values["ssim"]["mean"] for name, values in one["methods"].items()}
        best = max((name for name in ssim if name not in ("noisy", "dae")), key=lambda name: ssim[name])
        ours = [
            f"{both[name]['methods']['dae']['ssim']['mean']:.3f}" if name in both else "–"
            for name in ("paper's network", "ours")
        ]
        lines.append(f"| {noise} | {ssim['noisy']:.3f} | {ssim[best]:.3f} ({best}) | {' | '.join(ours)} |")
    return "\n".join(lines)


def long_table(finished: list[dict[str, Any]], sources: dict[str, str], long_epochs: int) -> str:
    found = [r for r in finished if r["cell"].epochs == long_epochs and r["cell"].noise == "v = 0.1 var"]
    lines = [
        "| tested on | SSIM | SSIM (MATLAB) | PSNR [dB] | best baseline's SSIM | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for result in found:
        for data in DATA[:2]:
            best = max(methods_of(result), key=lambda m: mean_score(result, m, "ssim", sources, data))
            ssim, matlab, psnr = (
                mean_score(result, "dae", metric, sources, data) for metric in ("ssim", "ssim_matlab", "psnr")
            )
            lines.append(
                f"| {data} | {ssim:.4f} | {matlab:.4f} | {psnr:.2f} | "
                f"{mean_score(result, best, 'ssim', sources, data):.4f} ({best}) | {result['minutes']:.0f} |"
            )
    return "\n".join(lines)


def draw(bars: dict[str, Any], path: Path) -> None:
    """Horizontal bars of SSIM by method, one panel a data set, seeds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), sharex=True, layout="constrained")
    for axis, data in zip(axes, DATA[:2], strict=True):
        entries = sorted(((label, v) for (label, d), v in bars.items() if d == data), key=lambda e: np.mean(e[1]))
        for row, (label, values) in enumerate(entries):
            colour = "tab:blue" if label.startswith("ours") else "tab:orange" if "," in label else "0.7"
            axis.barh(row, np.mean(values), color=colour)
            axis.plot(values, [row] * len(values), "k.", markersize=4)
            axis.text(0.01, row, f"{np.mean(values):.3f}", va="center", fontsize=8)
        axis.set_yticks(range(len(entries)), [label for label, _ in entries], fontsize=8)
        axis.set(title=f"{data}, unseen patients", xlabel="SSIM (Wang et al. 2004), 64 × 64, v = 0.1·var", xlim=(0, 1))
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

on {protocol["machine"]}; {len(finished)} trainings, {minutes:.0f} minutes in all. Nothing here was edited by hand.

**Data.** mini-MIAS: {protocol["mini-MIAS"]} films, split by woman. X-ray: {protocol["X-ray"]} lateral cephalograms
of the ISBI 2015 challenge, one a patient: a stand-in for the ancestor's DX set, of the same modality and view but of
another source, so its numbers do not compare with DX numbers. Split 70 / 10 / 20 % into training, validation and test
by patient, anew for each seed.

**Protocol.** Whole images, background included, shrunk to 64 × 64 (bicubic, anti-aliased) and min-max normalised.
Noise is clipped to [0, 1], as the paper and the ancestor did. Each network trains for {steps["epochs"]} steps of 10
images ({steps["long_epochs"]} where it says so), L1 + 0.2 (1 − SSIM), Adam, cosine schedule, averaged weights, random
parts of 75 to 100 % of the image, mirrored. Baselines are tuned for SSIM on up to 24 validation images and told the
true noise level of every image; the networks are blind. SSIM is that of Wang et al. 2004 with an 11 × 11 Gaussian
window; "MATLAB" averages over replicated borders, as `ssim_score.m` did. ± is the standard deviation over seeds; this
run had {protocol["seeds"]}.

## v = 0.1 · var: the ancestor's experiment

{table}

![SSIM by method]({figure.relative_to(report.parent).as_posix()})

"Ancestor as found" is the paper's network without any activation, as the Torch7 program had it, but trained with our
loss: the ancestor's classification loss, its split by film and its normalisation of the noisy image alone are not
repeated. Numbers of the ancestor's own report are therefore not comparable.

### Trained longer: {steps["long_epochs"]} steps, pooled, seed 0

{long_table(finished, sources, protocol["long_epochs"])}

## The paper's grid p · N(μ, s²) and p · Poisson(λ), pooled, seed 0

{grid_table(finished)}
"""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(text, encoding="utf-8")
    print(text)


def main(
    mini_mias: str,
    xray: str,
    output: str,
    epochs: int = 20,
    long_epochs: int = 60,
    seeds: int = 3,
    report: str = str(ROOT / "docs" / "reproduction.md"),
    max_minutes: float = 0.0,
) -> None:
    """Run the missing cells and write the report.

    Args:
        mini_mias: folder of mini-MIAS films, ``mdb001.pgm`` or ``.png`` and so on.
        xray: folder of X-rays, one a patient.
        output: where results, checkpoints and the MLflow database go.
        epochs: of 100 steps, for every cell but the long one.
        long_epochs: of the one long training.
        seeds: trainings and splits of the ancestor's experiment.
        report: the Markdown file to write.
        max_minutes: start no cell after this time; 0 runs all.
    """
    from meddenoise_monai.tracking import environment_versions

    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    items = items_of(Path(mini_mias), Path(xray))
    wanted = list(cells(epochs, long_epochs, seeds))
    started = time.monotonic()
    for index, cell in enumerate(wanted):
        if (target / "cells" / cell.folder / "results.json").is_file():
            continue
        if max_minutes and time.monotonic() - started > 60 * max_minutes:
            print(f"stopped before cell {index + 1} of {len(wanted)}; run the same command again", file=sys.stderr)
            break
        print(f"--- cell {index + 1} of {len(wanted)}: {cell}", file=sys.stderr, flush=True)
        datalist = target / f"datalist-{cell.data}-{cell.seed}.json"
        chosen = [item for name, part in items.items() if cell.data in (name, "pooled") for item in part]
        write_datalist(chosen, cell.seed, datalist)
        train(cell, datalist, target)
    protocol = {
        "epochs": epochs,
        "long_epochs": long_epochs,
        "seeds": seeds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {environment_versions()['torch']}",
        **{name: len(entries) for name, entries in items.items()},
    }
    command = (
        "python scripts/reproduce_paper.py --mini_mias MINI_MIAS --xray XRAY --output OUT "
        f"--epochs {epochs} --long_epochs {long_epochs} --seeds {seeds}"
    )
    write_report(read_results(target, wanted), case_sources(items), Path(report), protocol, command)


if __name__ == "__main__":
    import fire

    fire.Fire(main)
