"""Is our network ever below the best tuned baseline, whatever the kind of image? And does it leave clean images alone?

The images are those that ship inside packages and that the released weights were not trained on: head CT, abdominal CT,
MR, EPI and a fundus photograph (of volumes the middle slice; of large images the 256 x 256 with the most tissue). Where
pydicom-data is installed (it belongs to the dev extra), seven more come in as "unseen": two radiographs, two CT, two MR
and an ultrasound. Noise is additive, Gaussian, not clipped; scores are means over DRAWS of it. The baselines are told σ
and were tuned for PSNR at that σ on other images: those for the validation images on the test images, all others on the
validation images. The validation images have chosen among the checkpoints of the training, the others have not.

The second table is for σ = 0: PSNR between output and input, and by how much the mean moved, in % of the range.
Results of the baselines are kept in OUTPUT and not computed again.

    python scripts/benchmark_kinds.py --output OUT [--weights model.pt] [--draws 5]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmark_quality import SIGMAS, WINDOW, classical, noisy_cases, read_scores, write_rows

UNSEEN = (
    *("RG1_UNCR.dcm", "RG3_UNCR.dcm", "bad_sequence.dcm", "eCT_Supplemental.dcm", "MR2_UNCR.dcm", "emri_small.dcm"),
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
)


def unseen_items() -> list[dict[str, str]]:
    """Files of pydicom-data; none where it is not installed."""
    spec = find_spec("data_store")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent / "data"
    return [{"image": str(folder / name), "patient": f"pydicom-data/{name}"} for name in UNSEEN]


def pictures(part: str) -> list[dict[str, Any]]:
    """The sample images of one part, or the unseen ones: float32 on [0, 1], at most 256 x 256."""
    from meddenoise_monai.datasets import sample_datalist
    from meddenoise_monai.transforms import MostTissued, ReadImaged, ScaleToUnitd

    found = []
    for item in unseen_items() if part == "unseen" else sample_datalist()[part]:
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


def classical_scores(cases: Sequence[Any], names: Sequence[str], tuned: Callable[[], Any], path: Path) -> list[Any]:
    """Scores of the noisy image and of the named baselines, read from `path`, or computed and kept there."""
    from meddenoise_monai.evaluation import evaluate

    known = read_scores(path)
    if not {"noisy", *names} <= {score.method for score in known}:
        known = evaluate(cases, tuned())
        write_rows(path, known)
    return [score for score in known if score.method in ("noisy", *names)]


def row(image: Mapping[str, Any], sigma: int, means: Mapping[str, float]) -> str:
    """The row of the table for one image, from the mean PSNR of each method."""
    best = max((name for name in means if name not in ("noisy", "ours")), key=lambda name: means[name])
    shape = "x".join(map(str, image["clean"].shape))
    return (
        f"| {image['file']}, {shape} ({image['part']}) | {sigma} | {means['noisy']:.2f} | {best} {means[best]:.2f} "
        f"| {means['ours']:.2f} | {means['ours'] - means[best]:+.2f} |"
    )


def main(
    output: str,
    weights: str = "",
    draws: int = 5,
    sigmas: tuple[int, ...] = SIGMAS,
    baselines: tuple[str, ...] = ("gaussian", "median", "wavelet", "tv", "nlm", "bm3d"),
) -> None:
    """Print the tables.

    Args:
        output: where the tuned baselines and their results are kept.
        weights: of the default network; by default the released ones.
        draws: of the noise, for each image and σ.
        sigmas: noise levels, of 255.
        baselines: names; those that are not installed are left out.
    """
    from meddenoise_monai.baselines import available_baselines
    from meddenoise_monai.evaluation import evaluate
    from meddenoise_monai.inference import load_denoiser
    from meddenoise_monai.metrics import psnr

    denoise = load_denoiser(weights or None)
    names = [name for name in baselines if name in available_baselines()]
    parts = {"test": "validation", "validation": "test", "unseen": "validation"}
    images = {part: pictures(part) for part in parts}
    print("| image | σ (/255) | noisy | best tuned baseline | ours | gain [dB] |\n|---|---|---|---|---|---|")
    folder = Path(output)
    for sigma in sigmas:
        for part, other in parts.items():

            @cache
            def tuned(part: str = other, level: float = sigma / 255) -> Any:
                return classical(noisy_cases(images[part], level), level, names, folder / "tuning")

            for image in images[part]:
                cases = [case for seed in range(draws) for case in noisy_cases([image], sigma / 255, seed)]
                scores = classical_scores(cases, names, tuned, folder / f"{image['file']}-{sigma}-{draws}.csv")
                blind = evaluate(cases, {"ours": lambda noisy, _: denoise(noisy)})
                print(row(image, sigma, mean_psnr([*scores, *blind])), flush=True)
    print("\n| clean image | PSNR of output to input [dB] | shift of the mean [% of the range] |\n|---|---|---|")
    for image in (image for part in images.values() for image in part):
        result = denoise(image["clean"])
        shift = 100 * abs(float(result.mean(dtype=np.float64)) - float(image["clean"].mean(dtype=np.float64)))
        print(f"| {image['file']} | {psnr(image['clean'], result, 1.0):.1f} | {shift:.4f} |")


if __name__ == "__main__":
    from launching import launch

    launch(main)
