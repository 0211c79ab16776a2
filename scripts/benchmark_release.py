"""The evidence for the released weights, from one command: `meddenoise compare` on data they have never seen.

32 films of mini-MIAS (test women of `train_release.py`'s split) and 24 cephalograms (a source never trained on), one
256 x 256 window of at least 95 % tissue each, Gaussian noise of sigma 15, 25 and 50 of 255, not clipped, all methods
that are installed. Baselines are tuned on other patients of the same source. Lesions are those that mini-MIAS marks on
all films of the test women.

    python scripts/benchmark_release.py --mini_mias DIR --xray DIR --output DIR [--weights model.pt]

It can be interrupted and goes on; a datalist in OUTPUT keeps what is judged. `--document docs/evidence.md` writes
answer and tables there, and the answer between the marks in docs/benchmarks.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

WINDOW, TISSUE = 256, 0.95
BEGIN, END = "<!-- written by scripts/benchmark_release.py -->", "<!-- end -->"
HEAD = """# Evidence

Written by a command, not by hand:

    python scripts/benchmark_release.py --mini_mias DATA/mini_mias --xray DATA/ceph --output OUT \\
        --document docs/evidence.md

32 films of mini-MIAS and 24 cephalograms, neither seen by the weights {weights}, the latter of a source that was never
trained on; windows of 256 x 256 pixels with at least 95 % tissue; Gaussian noise, not clipped. What is measured,
and how: [comparing.md](comparing.md). Versions: {versions}.

"""
FILMS, RADIOGRAPHS, TUNED_ON = 32, 24, 8


def datalist_of(mini_mias: Path, xray: Path) -> dict[str, list[dict[str, Any]]]:
    from splits import with_lesions, xray_items
    from train_release import mini_mias_split

    from meddenoise_monai.datasets import evenly
    from meddenoise_monai.evaluation.scenes import read_scenes

    split = mini_mias_split(mini_mias)
    films = {part: with_lesions(mini_mias, split[part]) for part in ("validation", "test")}
    radiographs = xray_items(xray)
    usable = {scene.file for scene in read_scenes(radiographs, WINDOW, TISSUE, title="X-rays")[0]}
    radiographs = [item for item in radiographs if item["image"] in usable]
    judged = evenly(radiographs, RADIOGRAPHS)
    others = [item for item in radiographs if item not in judged]
    return {
        "validation": _named("mini-MIAS", films["validation"]) + _named("X-ray", evenly(others, TUNED_ON)),
        "test": _named("mini-MIAS", films["test"]) + _named("X-ray", judged),
    }


def _named(source: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**item, "source": source} for item in items]


def main(
    mini_mias: str,
    xray: str,
    output: str,
    weights: str = "",
    levels: tuple[int, ...] = (15, 25, 50),
    noise: tuple[str, ...] = ("gaussian",),
    methods: tuple[str, ...] = (),
    workers: int = 0,
    document: str = "",
) -> None:
    """Write the report, and print its table.

    Args:
        mini_mias: folder of mini-MIAS films, with Info.txt.
        xray: folder of X-rays, one a patient.
        output: gets datalist.json and all that `meddenoise compare` writes.
        weights: of the default network; by default the released ones.
        levels: noise levels, of 255.
        noise: names of noise models.
        methods: names; by default all that are installed.
        workers: processes; by default one for each core.
        document: the page of the documents that this comparison writes.
    """
    from meddenoise_monai.comparing import compare
    from meddenoise_monai.report import in_short

    folder = Path(output)
    listed = folder / "data" / "datalist.json"
    if not listed.is_file():
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(json.dumps(datalist_of(Path(mini_mias), Path(xray)), indent=1))
    found = compare(
        listed,
        folder,
        methods=list(methods) or None,
        noise=noise,
        levels=levels,
        images=FILMS,
        window=WINDOW,
        tissue=TISSUE,
        model=weights or None,
        workers=workers or None,
    )
    print(in_short(found.results))
    if document:
        write_document(Path(document), found.results)


def write_document(page: Path, results: dict[str, Any]) -> None:
    """Answer and tables as `page`; the answer also between the marks in ``benchmarks.md`` beside it."""
    from meddenoise_monai.report.plain import answer_as_markdown, as_markdown
    from meddenoise_monai.whole_files import replace_whole

    versions = ", ".join(f"{name} {value}" for name, value in results["protocol"]["versions"].items())
    weights = results["protocol"]["methods"]["dae"]["weights"]
    with replace_whole(page) as path:
        path.write_text(HEAD.format(weights=weights, versions=versions) + as_markdown(results), encoding="utf-8")
    benchmarks = page.with_name("benchmarks.md")
    before, _, rest = benchmarks.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{benchmarks} lacks the marks {BEGIN} and {END}")
    with replace_whole(benchmarks) as path:
        path.write_text(f"{before}{BEGIN}\n{answer_as_markdown(results)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    import logging

    from launching import launch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    launch(main)
