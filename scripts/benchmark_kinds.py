"""Is our network ever below the best tuned baseline, whatever the kind of image? And does it leave clean images alone?

The images are those that ship inside packages and that the released weights were not trained on: head CT, abdominal CT,
MR, EPI and a fundus photograph (of volumes the middle slice; of large images the 256 x 256 with the most tissue). Noise
is additive, Gaussian, not clipped; scores are means over DRAWS of it. The baselines are told σ and were tuned for
PSNR at that σ on the other part's images: those for the test images on the validation images, and the other way round.
The validation images have chosen among the checkpoints of the training, the test images have not.

The second table is for σ = 0: PSNR between output and input, and by how much the mean moved, in % of the range.

    python scripts/benchmark_kinds.py --output OUT [--weights model.pt] [--draws 5]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmark_quality import SIGMAS, WINDOW, classical, noisy_cases


def pictures(part: str) -> list[dict[str, Any]]:
    """The sample images of one part, float32 on [0, 1], at most 256 x 256."""
    from meddenoise_monai.datasets import sample_datalist
    from meddenoise_monai.transforms import MostTissued, ReadImaged, ScaleToUnitd

    found = []
    for item in sample_datalist()[part]:
        image = ScaleToUnitd("image")(ReadImaged("image")(dict(item)))["image"]
        if image.ndim == 4:
            image = image[:, image.shape[1] // 2]
        window = MostTissued("image", (WINDOW, WINDOW))({"image": image})["image"]
        name = Path(item["image"]).name
        found.append({"clean": window[0].numpy(), "patient": item["patient"], "file": name, "part": part})
    return found


def mean_psnr(scores: Sequence[Any]) -> dict[str, float]:
    methods = dict.fromkeys(score.method for score in scores)
    return {method: float(np.mean([s.psnr for s in scores if s.method == method])) for method in methods}


def rows(images: Sequence[Mapping[str, Any]], methods: Mapping[str, Any], sigma: int, draws: int) -> list[str]:
    """A row of the table for each image."""
    from meddenoise_monai.evaluation import evaluate

    found = []
    for image in images:
        cases = [case for seed in range(draws) for case in noisy_cases([image], sigma / 255, seed)]
        means = mean_psnr(evaluate(cases, methods))
        best = max((name for name in means if name not in ("noisy", "ours")), key=lambda name: means[name])
        shape = "x".join(map(str, image["clean"].shape))
        found.append(
            f"| {image['file']}, {shape} ({image['part']}) | {sigma} | {means['noisy']:.2f} | {best} {means[best]:.2f} "
            f"| {means['ours']:.2f} | {means['ours'] - means[best]:+.2f} |"
        )
    return found


def main(
    output: str,
    weights: str = "",
    draws: int = 5,
    sigmas: tuple[int, ...] = SIGMAS,
    baselines: tuple[str, ...] = ("gaussian", "median", "wavelet", "tv", "nlm", "bm3d"),
) -> None:
    """Print the tables.

    Args:
        output: where the tuned baselines are kept.
        weights: of the default network; by default the released ones.
        draws: of the noise, for each image and σ.
        sigmas: noise levels, of 255.
        baselines: names; those that are not installed are left out.
    """
    from meddenoise_monai.baselines import available_baselines
    from meddenoise_monai.inference import load_denoiser
    from meddenoise_monai.metrics import psnr

    denoise = load_denoiser(weights or None)
    names = [name for name in baselines if name in available_baselines()]
    parts = {"test": "validation", "validation": "test"}
    images = {part: pictures(part) for part in parts}
    print("| image | σ (/255) | noisy | best tuned baseline | ours | gain [dB] |\n|---|---|---|---|---|---|")
    for sigma in sigmas:
        for part, other in parts.items():
            tuned = classical(noisy_cases(images[other], sigma / 255), sigma / 255, names, Path(output) / "tuning")
            methods = {**tuned, "ours": lambda noisy, _: denoise(noisy)}
            print("\n".join(rows(images[part], methods, sigma, draws)), flush=True)
    print("\n| clean image | PSNR of output to input [dB] | shift of the mean [% of the range] |\n|---|---|---|")
    for image in (image for part in images.values() for image in part):
        result = denoise(image["clean"])
        shift = 100 * abs(float(result.mean(dtype=np.float64)) - float(image["clean"].mean(dtype=np.float64)))
        print(f"| {image['file']} | {psnr(image['clean'], result, 1.0):.1f} | {shift:.4f} |")


if __name__ == "__main__":
    import fire

    fire.Fire(main)
