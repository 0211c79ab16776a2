"""What earns its place in the released weights' recipe: variants of `release.json`, trained for the same time.

Each variant is trained by `train_release.py` with its overrides for the same minutes of processor time on one thread,
with a tenth of its steps for the warm-up, then scored blind on validation windows (mini-MIAS' validation women and the
validation samples that ship in packages; neither test women nor X-rays are looked at) at σ = 15, 25 and 50 of 255.
Speed is that of inference on one image of 1 megapixel, variants in turn. Done variants are skipped, one that was cut
off goes on, and one that another process trains is left to it: so it can be started once a core (OMP_NUM_THREADS=1).

    python scripts/compare_recipes.py --mini_mias DIR --output OUT [--minutes 10] [--only "['reference']"]
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from peers import OURS, PEERS  # noqa: E402

SIGMAS = (15, 25, 50)  # of 255
STEPS = 20  # of an epoch
OVERHEAD = 0.027  # seconds of a step for its data, noise, optimiser and average, on the machine of docs/benchmarks.md
TAUGHT, TEACHING = "narrower, taught by the released weights", 1.6  # forward and backward with the teacher's answers
# Gradients of plain errors are some hundred times smaller than the logarithm's, and are cut accordingly.
L2: dict[str, Any] = {"loss": {"_target_": "torch.nn.MSELoss"}, "gradient_norm": 0.01}
NORMALISED = ("DnCNN-17", "FFDNet, blind", "BasicUNet")  # by batches: the logarithm's training gets nowhere with them


def network(widths: tuple[int, ...], blocks: int, stride: int) -> dict[str, Any]:
    return {"network_def": {"_target_": OURS, "widths": list(widths), "blocks": blocks, "stride": stride}}


# The overrides of each variant; "reference" is release.json with one cycle.
VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "narrower: 32, 64, 128": network((32, 64, 128), 2, 2),
    TAUGHT: network((32, 64, 128), 2, 2)
    | {
        "train::preprocessing::transforms::9": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "meddenoise_monai.noise.UnlessPairedd", "transform": "@noise"},
                {
                    "_target_": "recipe_parts.Taughtd",
                    "keys": "label",
                    "noisy": "image",
                    "weights": str(HERE.parent / "bundle" / "models" / "model.pt"),
                },
            ],
        }
    },
    "wider: 64, 64, 128": network((64, 64, 128), 2, 2),
    "full resolution: 16, 32, 64, 128": network((16, 32, 64, 128), 2, 1),
    "full resolution, 1 block": network((16, 32, 64, 128), 1, 1),
    "1 block": network((48, 64, 128), 1, 2),
    "3 blocks": network((48, 64, 128), 3, 2),
    "4 levels, 1 block": network((48, 64, 128, 192), 1, 2),
    "stride 3: 64, 96, 128": network((64, 96, 128), 2, 3),
    "with a map of σ": {
        "network_def": {"_target_": "recipe_parts.levelled", "widths": [48, 64, 128], "blocks": 2, "stride": 2}
    },
    "without faint lesions": {"lesion_probability": 0.0},
    "without texture": {"texture_probability": 0.0},
    "logarithm of L1": {"loss": {"_target_": "meddenoise_monai.losses.LogL1Loss"}},
    "L1": {"loss": {"_target_": "torch.nn.L1Loss"}, "gradient_norm": 0.1},
    "L2": L2,
    "L1 + 0.1 (1 - SSIM)": {
        "loss": {"_target_": "meddenoise_monai.losses.L1SSIMLoss", "weight": 0.1},
        "gradient_norm": 0.3,
    },
    "patches of 128": {"patch_size": 128, "batch_size": 4},
    "sigma up to 55": {"sigma_max": 55 / 255},
    "learning rate 0.0005": {"learning_rate": 0.0005},
    "learning rate 0.002": {"learning_rate": 0.002},
    **{name: {"network_def": definition} | (L2 if name in NORMALISED else {}) for name, definition in PEERS.items()},
}


def train(variant: str, mini_mias: str, folder: Path, minutes: float) -> None:
    """Train one variant in a process of its own, for the steps that fill the time: its schedule has to end with it."""
    overrides = {"baselines": ["gaussian"], **VARIANTS[variant]}
    plan = folder / "epochs.json"  # one that was cut off keeps its schedule
    if not plan.is_file():
        seconds = OVERHEAD + (TEACHING if variant == TAUGHT else 1) * step_seconds(overrides)
        steps = 60 * minutes / seconds
        plan.write_text(json.dumps(max(1, round(steps / STEPS))))
    epochs = json.loads(plan.read_text())
    overrides |= {"max_epochs": epochs, "steps_per_epoch": STEPS, "val_interval": epochs}
    overrides["cycles"] = 1  # variants get one short cycle each
    overrides |= {"warmup_steps": epochs * STEPS // 10}  # release.json's would outlast the slower networks' training
    command = [sys.executable, str(HERE / "train_release.py"), "--mini_mias", mini_mias, "--output", str(folder)]
    command += ["--images", str(folder.parent / "images")]
    command += [word for name, value in overrides.items() for word in (f"--{name}", repr(value))]
    before = children_seconds() - seconds_before_the_cut(folder)
    with (folder / "log.txt").open("a") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    (folder / "seconds.json").write_text(json.dumps(children_seconds() - before))


def seconds_before_the_cut(folder: Path) -> float:
    """What a training that was cut off had taken up to its checkpoint, by the clock: its processor time is lost."""
    import torch

    checkpoint = folder / "models" / "checkpoint_last.pt"
    return float(torch.load(checkpoint, weights_only=True)["seconds"]) if checkpoint.is_file() else 0.0


def children_seconds() -> float:
    """Processor time of all processes that this one has started and waited for."""
    spent = os.times()
    return spent.children_user + spent.children_system


def step_seconds(overrides: Mapping[str, Any], tries: int = 4) -> float:
    """Processor time of a step's forward and backward: other work on the machine does not change it much."""
    import torch
    from monai.bundle import ConfigParser

    from meddenoise_monai.inferers import AutocastInferer

    parser = ConfigParser()
    parser.read_config([str(HERE.parent / "bundle" / "configs" / name) for name in ("train.json", "release.json")])
    parser.update(dict(overrides))
    network, run = parser.get_parsed_content("network_def"), AutocastInferer()  # as train.json's
    network = network.to(memory_format=torch.channels_last)
    loss, batch, side = (parser.get_parsed_content(name) for name in ("loss", "batch_size", "patch_size"))
    image = torch.rand(batch, 1, side, side)
    times = []
    for _ in range(tries):
        started = time.process_time()
        loss(run(image, network), 0.9 * image).backward()
        times.append(time.process_time() - started)
    return min(times)


@cache
def windows(mini_mias: Path) -> dict[str, list[dict[str, Any]]]:
    from benchmark_quality import windows_of
    from train_release import mini_mias_split

    from meddenoise_monai.datasets import sample_datalist
    from meddenoise_monai.transforms import MostTissued, ReadImaged, ScaleToUnitd

    samples = []
    for item in sample_datalist()["validation"]:
        window = MostTissued("image", (256, 256))(ScaleToUnitd("image")(ReadImaged("image")(dict(item))))["image"]
        samples.append({"clean": window[0].numpy(), "patient": item["patient"], "file": item["image"]})
    return {"mini-MIAS": windows_of(mini_mias_split(mini_mias)["validation"], 30), "samples": samples}


def trained(variant: str, weights: Path) -> Any:
    """The network of a variant, laid out as `Denoiser` has it."""
    from peers import build

    from meddenoise_monai.inference import channels_last, load_denoiser, load_weights

    if "network_def" not in VARIANTS[variant]:
        return load_denoiser(weights, "cpu").network
    network = build(VARIANTS[variant]["network_def"])
    network.load_state_dict(load_weights(weights))
    return channels_last(network)


def score(network: Any, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, tuple[float, float]]:
    """PSNR and SSIM by data and σ."""
    from benchmark_quality import noisy_cases

    from meddenoise_monai.evaluation import evaluate
    from meddenoise_monai.inference import Denoiser

    denoise = Denoiser(network)
    found = {}
    for name, chosen in data.items():
        for sigma in SIGMAS:
            scores = evaluate(
                noisy_cases(chosen, sigma / 255), {"dae": lambda noisy, _: denoise(noisy, noise="gaussian")}
            )
            ours = [(entry.psnr, entry.ssim) for entry in scores if entry.method == "dae"]
            psnr, ssim = np.mean(ours, axis=0)
            found[f"{name}, {sigma}"] = float(psnr), float(ssim)
    return found


def speeds(networks: Mapping[str, Any], rounds: int = 3) -> dict[str, float]:
    """Megapixels a second of each network on 1024 x 1024 pixels, the best of `rounds`, taken in turn."""
    import torch

    from meddenoise_monai.inferers import AutocastInferer

    image, run = torch.rand(1, 1, 1024, 1024), AutocastInferer()
    best = dict.fromkeys(networks, float("inf"))
    with torch.inference_mode():
        for _ in range(rounds):
            for name, net in networks.items():
                started = time.perf_counter()
                run(image, net)
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: image.numel() / 1e6 / seconds for name, seconds in best.items()}


def scored(variant: str, folder: Path, mini_mias: str) -> dict[str, tuple[float, float]]:
    """The scores of a variant that is done, kept beside its weights."""
    kept = folder / "scores.json"
    if not kept.is_file():
        found = score(trained(variant, folder / "models" / "model_best.pt"), windows(Path(mini_mias)))
        kept.write_text(json.dumps(found, indent=1))
    return {name: (psnr, ssim) for name, (psnr, ssim) in json.loads(kept.read_text()).items()}


def measured(output: Path, mini_mias: str) -> dict[str, dict[str, Any]]:
    """Of each variant that is done: its cost, its training, and its scores."""
    from peers import multiplications

    rows: dict[str, dict[str, Any]] = {}
    networks = {}
    for variant in VARIANTS:
        folder = output / variant
        if not (folder / "seconds.json").is_file():
            continue
        networks[variant] = trained(variant, folder / "models" / "model_best.pt")
        record = json.loads((folder / "release.json").read_text())
        rows[variant] = {
            "parameters [M]": sum(weight.numel() for weight in networks[variant].parameters()) / 1e6,
            "kMAC/pixel": multiplications(networks[variant]),
            "minutes": json.loads((folder / "seconds.json").read_text()) / 60,
            "steps": record["epochs"] * STEPS,
            **scored(variant, folder, mini_mias),
        }
    for variant, speed in speeds(networks).items():
        rows[variant]["MP/s"] = speed
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows are variants, in the order of `VARIANTS`."""
    formats = {"parameters [M]": ".2f", "kMAC/pixel": ".0f", "MP/s": ".2g", "minutes": ".1f", "steps": ".0f"}
    scores = [name for name in next(iter(rows.values()), {}) if name not in formats]
    columns = [*formats, *scores]
    lines = [f"| variant | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for variant, row in rows.items():
        cells = [format(row[name], form) for name, form in formats.items()]
        cells += ["{:.2f} / {:.3f}".format(*row[name]) for name in scores]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Mapping[str, Mapping[str, Any]], path: Path, sigma: int = 25) -> None:
    """Quality against cost, one panel a data set: the networks; variants of the training only are left out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    networks = [name for name in rows if name == "reference" or ("network_def" in VARIANTS[name] and name != TAUGHT)]
    ours = [name for name in networks if name not in PEERS]
    markers = dict(zip(ours, cycle("*osD^v<>pd"), strict=False)) | dict(zip(PEERS, cycle("osD^PX"), strict=False))
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for axis, data in zip(axes, ("mini-MIAS", "samples"), strict=True):
        for name in networks:
            peer = name in PEERS
            axis.plot(
                rows[name]["kMAC/pixel"],
                rows[name][f"{data}, {sigma}"][0],
                markers[name],
                markersize=12 if name == "reference" else 8,
                color="tab:orange" if peer else "tab:red" if name == "reference" else "tab:blue",
                label="ours, the released layout" if name == "reference" else name if peer else f"ours, {name}",
            )
        axis.set(xscale="log", xlabel="thousand multiply-adds a pixel", ylabel="PSNR [dB]")
        axis.set_title(f"{data}, validation, σ = {sigma}/255")
        axis.margins(0.1)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(mini_mias: str, output: str, minutes: float = 10.0, only: tuple[str, ...] = (), figure: str = "") -> None:
    """Train what is missing, and print the table.

    Args:
        mini_mias: folder of mini-MIAS films.
        output: a folder for each variant goes there.
        minutes: of training, for each: processor time.
        only: these variants; by default all.
        figure: a PNG to draw, of quality against cost.
    """
    import torch
    from train_release import mini_mias_split

    from meddenoise_monai.errors import UsageError, nearest

    chosen = [only] if isinstance(only, str) else list(only or VARIANTS)
    for variant in chosen:
        if variant not in VARIANTS:
            raise UsageError(f"there is no variant {variant!r}", nearest(variant, VARIANTS))
    if minutes <= 0:
        raise UsageError(f"--minutes must be positive, got {minutes}", "for example --minutes 10")
    if not all((Path(output) / variant / "seconds.json").is_file() for variant in chosen):
        mini_mias_split(Path(mini_mias))  # films that are not there shall be told before anything is made
    for variant in chosen:
        folder = Path(output) / variant
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "claim").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not (folder / "seconds.json").is_file():  # written last
                print(f"--- {variant}", file=sys.stderr, flush=True)
                train(variant, mini_mias, folder, minutes)
            scored(variant, folder, mini_mias)
    rows = measured(Path(output), mini_mias)
    print(table(rows))
    threads = torch.get_num_threads()
    print(
        f"\n{threads} thread(s); minutes of processor time; PSNR in dB and SSIM on validation windows, blind; σ of 255."
    )
    if figure:
        draw(rows, Path(figure))


if __name__ == "__main__":
    from launching import launch

    launch(main)
