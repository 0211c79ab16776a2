"""Train the weights that ship, from scratch, by `bundle/configs/train.json` and its overlay `release.json`.

`--correlated` trains the partner for correlated noise, by `release_correlated.json` on top of both.

What it does:

1. splits mini-MIAS by woman (70 % training, 10 % validation, 20 % test), adds real images that ship inside our
   dependencies (`package_images.py` makes coloured ones grey), both also shrunk by 2 and by 4 for sharper detail, and
   enlarged again for softer one, and synthetic ones, made here (`meddenoise_monai.synthetic`), and writes
   OUTPUT/datalist.json;
2. trains by the bundle's configurations; killed or stopped by `--minutes`, the same command goes on;
3. writes OUTPUT/release.json: the fingerprint of the data, seed, steps, duration, machine, and the curve.

With `--install` the best weights replace `bundle/models/model.pt`, or `model_correlated.pt`. It raises an InputError
where the data are missing.

    python scripts/train_release.py --mini_mias DIR --output OUT [--correlated] [--minutes 150] [--install]
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from splits import mini_mias_items, split_items

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "bundle" / "configs"
FRACTIONS = (0.7, 0.1, 0.2)
SPLIT_SEED = 0
# How often each source is drawn, whatever its number of images.
SHARES = {
    "mini-MIAS": 0.36,
    "mini-MIAS, shrunk": 0.06,
    "packages": 0.22,
    "packages, shrunk": 0.13,
    "softened": 0.08,
    "synthetic": 0.15,
}
FACTORS, LEAST_SIDE = (2, 4), 64


def mini_mias_split(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The films as items of a datalist, split by woman."""
    return split_items(mini_mias_items(folder), SPLIT_SEED, FRACTIONS)


def write_synthetic(folder: Path, count: int, size: int) -> list[dict[str, Any]]:
    """Synthetic images as 16-bit PNG files; those that are there already are not made again."""
    from tqdm import tqdm

    from meddenoise_monai.synthetic import synthetic_image

    items = []
    for number in tqdm(range(count), "synthetic images", leave=False, disable=None):
        path = folder / f"synthetic-{size}-{number:04d}.png"
        if not path.is_file():
            write_png(path, synthetic_image(size, number))
        items.append({"image": str(path.resolve()), "patient": path.stem})
    return items


def write_grey(folder: Path) -> list[dict[str, Any]]:
    """The pictures of `package_images`, made grey, as 16-bit PNG files."""
    from package_images import package_images

    items = []
    for name, image in package_images():
        path = folder / f"{name}.png"
        if not path.is_file():
            write_png(path, image)
        items.append({"image": str(path.resolve()), "patient": name})
    return items


def write_shrunk(folder: Path, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The 2D images among `items`, each square of 2 x 2 and of 4 x 4 pixels replaced by its mean."""
    return write_resized(folder, items, {f"by-{factor}": factor for factor in FACTORS}, shrunk)


def write_softened(folder: Path, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The 2D images among `items`, shrunk by 4 and enlarged by 2: smooth, as interpolated images are, but clean."""
    return write_resized(folder, items, {"softened": 4}, softened)


def shrunk(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """(H, W) to (H / factor, W / factor): means of squares."""
    from skimage.transform import downscale_local_mean

    height, width = (size // factor * factor for size in image.shape)
    result: NDArray[Any] = downscale_local_mean(image[:height, :width], (factor, factor))
    return result


def softened(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Shrunk by `factor`, and enlarged again to half the size by cubic splines."""
    from scipy import ndimage

    return np.clip(ndimage.zoom(shrunk(image, factor), factor // 2, order=3, mode="mirror"), 0, 1)


def write_resized(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    factors: Mapping[str, int],
    resized: Callable[[NDArray[Any], int], NDArray[Any]],
) -> list[dict[str, Any]]:
    """What `resized` makes of the 2D images among `items`, by each of the named factors, as 16-bit PNG files."""
    from tqdm import tqdm

    from meddenoise_monai.transforms import ReadImaged, ScaleToUnitd

    found = []
    for item in tqdm(items, "resized images", leave=False, disable=None):
        image = ScaleToUnitd("image")(ReadImaged("image")(dict(item)))["image"][0].numpy()
        for name, factor in factors.items():
            if image.ndim != 2 or min(image.shape) < factor * LEAST_SIDE:
                continue
            path = folder / f"{Path(item['image']).stem}-{name}.png"
            if not path.is_file():
                write_png(path, resized(image, factor))
            found.append({"image": str(path.resolve()), "patient": item["patient"]})
    return found


def write_png(path: Path, image: NDArray[Any]) -> None:
    """Values on [0, 1] in 16 bits."""
    from PIL import Image

    from meddenoise_monai.whole_files import replace_whole

    with replace_whole(path) as temporary:
        Image.fromarray((image * 65535 + 0.5).astype(np.uint16)).save(temporary)


def release_datalist(mini_mias: Path, folder: Path, synthetic: int, size: int) -> dict[str, list[dict[str, Any]]]:
    """All images; those of the training with the weights that give each source its share."""
    from meddenoise_monai.datasets import SPLITS, sample_datalist

    films, samples = mini_mias_split(mini_mias), sample_datalist()
    packages = [*samples["training"], *write_grey(folder / "packages")]
    sources = {
        "mini-MIAS": films["training"],
        "mini-MIAS, shrunk": write_shrunk(folder / "shrunk", films["training"]),
        "packages": packages,
        "packages, shrunk": write_shrunk(folder / "shrunk", packages),
        "softened": write_softened(folder / "shrunk", [*films["training"], *packages]),
        "synthetic": write_synthetic(folder / "synthetic", synthetic, size),
    }
    datalist = {part: [*films[part], *samples[part]] for part in SPLITS}
    datalist["training"] = [
        {**item, "weight": SHARES[name] / len(items)} for name, items in sources.items() for item in items
    ]
    return datalist


def curve(database: Path) -> dict[str, dict[int, float]]:
    """Loss and validation by epoch, as the tracked run has them."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiments = client.search_experiments(filter_string="name LIKE 'meddenoise release%'")
    runs = client.search_runs([experiment.experiment_id for experiment in experiments]) if experiments else []
    names = (
        "train/loss",
        "train/steps_per_second",
        "validation/psnr",
        "validation/ssim",
        "validation/gain_over_best_baseline_psnr",
    )
    return {
        name: {entry.step: entry.value for entry in client.get_metric_history(runs[0].info.run_id, name)}
        for name in names
        if runs
    }


def report(record: Mapping[str, Any]) -> str:
    """What the docs say of a training: its circumstances, and some ten points of its curve."""
    curve = record["curve"]
    epochs = sorted(int(epoch) for epoch in curve["validation/psnr"])
    chosen = epochs[:: max(1, len(epochs) // 10)]
    versions = record["versions"]
    lines = [
        f"{record['training_images']['training']} training images, fingerprint {record['training_data']}, seed "
        f"{record['seed']}, {record['epochs']} epochs in {record['minutes']:.0f} minutes, best at "
        f"{record['best_epoch']}; {record['machine']}, torch {versions.get('torch')}, monai {versions.get('monai')}",
        "",
        "| epoch | loss | validation PSNR [dB] | validation SSIM |",
        "|---|---|---|---|",
    ]
    for epoch in chosen if chosen[-1] == epochs[-1] else [*chosen, epochs[-1]]:
        loss = curve["train/loss"].get(epoch)
        psnr, ssim = (curve[f"validation/{name}"][epoch] for name in ("psnr", "ssim"))
        lines.append(f"| {epoch} | {'' if loss is None else f'{loss:.5f}'} | {psnr:.2f} | {ssim:.4f} |")
    return "\n".join(lines)


def main(
    mini_mias: str,
    output: str,
    minutes: float = 0.0,
    synthetic: int = 300,
    synthetic_size: int = 384,
    seed: int = 0,
    correlated: bool = False,
    images: str = "",
    install: bool = False,
    **overrides: Any,
) -> None:
    """Train, or go on with the training in OUTPUT.

    Args:
        mini_mias: folder of mini-MIAS films, ``mdb001.pgm`` or ``.png`` and so on.
        output: where data, checkpoints, the MLflow database and the record go.
        minutes: stop before the epoch that would end later than this, earlier runs counted in; 0 never does.
        synthetic: how many synthetic images to make.
        synthetic_size: their side, pixels.
        seed: of the training.
        correlated: train the partner for correlated noise; give it an output of its own.
        images: where the synthetic, grey and resized images are made or lie already; by default in OUTPUT.
        install: copy the best weights to bundle/models/ when the training is done.
        overrides: of the configuration, such as --max_epochs 10.
    """
    import torch
    from monai.bundle import ConfigWorkflow

    from meddenoise_monai.identity import data_fingerprint
    from meddenoise_monai.runtime import check_options
    from meddenoise_monai.tracking import environment_versions
    from meddenoise_monai.whole_files import replace_whole

    folder = Path(output)
    overlays = ("release.json", *(["release_correlated.json"] if correlated else []))
    configs = [CONFIGS / name for name in ("train.json", *overlays)]
    check_options(configs, {"max_minutes": minutes, "seed": seed, **overrides})  # before the images are made
    content = release_datalist(Path(mini_mias), Path(images or output), synthetic, synthetic_size)
    datalist = folder / "datalist.json"
    with replace_whole(datalist) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    workflow = ConfigWorkflow(
        [str(path) for path in configs],
        workflow_type="train",
        bundle_root=str(ROOT / "bundle"),
        datalist=str(datalist),
        ckpt_dir=str(folder / "models"),
        output_dir=str(folder / "eval"),
        tracking_uri=f"sqlite:///{(folder / 'mlflow.db').resolve()}",
        resume=(folder / "models" / "checkpoint_last.pt").is_file(),
        max_minutes=minutes,
        seed=seed,
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    state: Mapping[str, Any] = torch.load(folder / "models" / "checkpoint_last.pt", weights_only=True)
    record = {
        "training_data": data_fingerprint(content["training"]),
        "training_images": {name: len(items) for name, items in content.items()},
        "seed": seed,
        "overrides": {name: str(value) for name, value in overrides.items()},
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "minutes": state["seconds"] / 60,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {workflow.parser.get_parsed_content('device')}",
        "versions": environment_versions(),
        "curve": curve(folder / "mlflow.db"),
    }
    with replace_whole(folder / "release.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if install:
        for suffix in (".json", ".pt"):  # which images they have seen, and the weights
            target = ROOT / "bundle" / "models" / f"model{'_correlated' if correlated else ''}{suffix}"
            with replace_whole(target) as temporary:
                shutil.copyfile((folder / "models" / "model_best").with_suffix(suffix), temporary)
        print(f"installed as {target}", file=sys.stderr)
    print(report(record))


if __name__ == "__main__":
    from launching import launch

    launch(main)
