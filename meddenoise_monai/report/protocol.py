"""What was asked, on what, and how: the part of a report that stands before its numbers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ..evaluation.conditions import ACQUIRED
from ..evaluation.measures import FLOOR
from ..evaluation.methods import NOISY, OURS
from ..evaluation.study import PHANTOM_DRAWS
from ..public_data import COLLECTIONS
from .findings import Content
from .naming import condition_title, counted, joined, method_title

__all__ = ["command", "data_sentences", "fingerprints", "protocol_sections", "question", "title"]


def title(results: Content) -> str:
    """The heading of the report."""
    return f"Denoisers compared on {joined(results['protocol']['data'])}"


def question(results: Content) -> list[str]:
    """What the report answers, for somebody who does not know the program."""
    ours = results["conditions"][0]["ours"]
    others = [name for name in results["methods"] if name not in (ours, NOISY)]
    against = f"{joined(others)}, and with doing nothing" if others else "doing nothing"
    kind = results["protocol"]["methods"].get(ours, {}).get("kind", "network")
    return [
        "Medical images are noisy, and noise can be removed by calculation. But what removes noise may also blur "
        "edges, wipe out faint lesions, or make up structure that is not there.",
        f"This report asks how {ours} ({method_title(ours, kind)}) compares with {against}: how near its results are "
        "to images without noise, what it takes away, what it invents, and whether lesions can still be found.",
    ]


def data_sentences(results: Content) -> list[str]:
    """Which data sets, how many images of how many patients."""
    found = []
    for name, entry in results["protocol"]["data"].items():
        words = f"{name}: {counted(entry['images'], 'image')} of {counted(entry['patients'], 'patient')}."
        known = COLLECTIONS.get(name.lower().replace("-", "_"))
        found.append(f"{words} {known.title}. {known.licence}" if known is not None else words)
    settings = results["protocol"]["settings"]
    if settings.get("window"):
        tissue = settings.get("tissue")
        which = "the window with the most tissue" if tissue is None else f"a window of at least {tissue:.0%} tissue"
        found.append(
            f"Of each image one window of at most {settings['window']} × {settings['window']} pixels is judged, "
            f"{which} among 200 places drawn at random (tissue: brighter than a tenth of the image’s range)."
        )
    else:
        found.append("Whole images are judged.")
    lesions = {entry["data"]: entry for entry in results["lesions"]}
    for name, entry in lesions.items():
        found.append(f"{name}: {counted(entry['lesions'] + entry['faint'], 'annotated lesion')}.")
    found.append("Where nothing tells patients apart, each file counts as a patient of its own.")
    return found


def protocol_sections(results: Content) -> list[tuple[str, list[str]]]:
    """Headings, each with its sentences."""
    return [
        ("Noise", _noise(results)),
        ("Methods", _methods(results)),
        ("Measures", _measures(results)),
        ("Statistics", _statistics(results)),
    ]


def _noise(results: Content) -> list[str]:
    settings = results["protocol"]["settings"]
    named = [condition_title(entry, data=False) for entry in results["conditions"]]
    levels = joined(dict.fromkeys(named))
    words = [f"{levels[:1].upper()}{levels[1:]}."]
    if all(entry["noise"] == ACQUIRED for entry in results["conditions"]):
        if settings.get("repeats"):
            words.append("Each scene was acquired several times; the mean of all stands for the clean image.")
        else:
            words.append("The images come in pairs, each noisy one with its clean one.")
        return words
    words.append(
        "A level is the standard deviation of the noise at mid-grey, in 1/255 of the image’s range of values (0 to 1). "
        "Noisy values below 0 and above 1 are kept, not clipped."
    )
    words.append(
        f"The noise is a function of the image and of the seed, {settings['seed']}: every method gets the same noisy "
        "images."
    )
    if settings["realisations"] > 1:
        words.append(
            f"On some scenes it is drawn {settings['realisations']} times, to part what is always wrong (bias) from "
            "what changes with the noise (variance)."
        )
    return words


def _methods(results: Content) -> list[str]:
    protocol = results["protocol"]
    told = [name for name, entry in protocol["methods"].items() if entry["told_noise_level"]]
    blind = [name for name, entry in protocol["methods"].items() if not entry["told_noise_level"]]
    words = []
    if told:
        words.append(f"The true noise level is told to {joined(told)}.")
    if blind:
        words.append(f"It is not told to {joined(blind)}.")
    if told:
        whom = "other patients than" if protocol["tuned_on_other_patients"] else "some of the very patients"
        words.append(
            f"The baselines’ parameters are those with the best {protocol['tuned_for'].upper()} on images of {whom} "
            "those that are judged, for each data set and noise level anew."
        )
    words.append("“noisy” is the input as it is: what doing nothing gives.")
    return words


def _measures(results: Content) -> list[str]:
    words = [
        "PSNR: how large the error is beside the range of values, in decibels; higher is better, and 1 dB is a fifth "
        "less error power. SSIM and MS-SSIM: likeness of structure, 1 for the same image. RMSE: the root mean "
        "square error.",
        "Invented structure: the share of patches of 32 × 32 pixels in which more than half of the result’s structure "
        "is not in the clean image, neither weakened nor strengthened. Noise that was left in counts, too. Patches of "
        f"less structure than {255 * FLOOR:.0f}/255 (root mean square) count as empty; with another floor the shares "
        "would be others.",
    ]
    if results["observers"]:
        words.append(
            "Inserted lesions: discs of 8 pixels across and clusters of six specks, as strong as an ideal observer "
            "needs for d′ = 3 in white noise of that level. A channelised Hotelling observer, trained on other "
            "patients, has to tell which places have one. It sees the image through two sets of channels, "
            "Laguerre-Gauss and differences of Gaussians; the latter resemble those of the eye."
        )
    if results["lesions"]:
        words.append(
            "Annotated lesions: the mean grey level inside less that of the ring around, beside the same of the clean "
            "image."
        )
    if results["phantoms"]:
        words.append(
            f"Phantom: discs of known contrast on a uniform background, {PHANTOM_DRAWS} draws of the noise; and a "
            "uniform field. Baselines have the parameters they were tuned to for the first data set."
        )
    return words


def _statistics(results: Content) -> list[str]:
    return [
        "Intervals are 95 % percentile intervals of the cluster bootstrap: patients are drawn with replacement, 10,000 "
        "times, each with all of her images. (Of model observers: over the patients’ scores.)",
        "Methods are compared on the same images. Wilcoxon’s signed-rank test sees one number a patient; its p-values "
        "are corrected by Holm’s method for all methods and measures of a data set and noise level.",
        "“Better” and “worse” of PSNR, SSIM and MS-SSIM need all three: a corrected p below 0.05, an interval of the "
        "difference without 0, and ranks that point the same way. Of the other measures they need the interval alone.",
        "“No difference shown” is everything else. It is not “equal”.",
    ]


def command(results: Content) -> str:
    """What to type to repeat it, with ``DATA`` in place of the data."""
    settings: Mapping[str, Any] = results["protocol"]["settings"]
    networks = [name for name, entry in results["protocol"]["methods"].items() if entry["kind"] == "network"]
    words = ["meddenoise", "compare", "DATA", "--output", "DIR"]
    acquired = all(entry["noise"] == ACQUIRED for entry in results["conditions"])
    for name, value in settings.items():
        if value is None or value is False or (acquired and name in ("noise", "levels")):
            continue
        if name == "methods":
            value = [f"{each}=FILE" if each in networks and each != OURS else each for each in value if each != NOISY]
        many = isinstance(value, list | tuple)
        written = ",".join(map(_written, value)) if many else _written(value)
        words += [f"--{name}"] if value is True else [f"--{name}", written]
    return shlex.join(words)


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def fingerprints(results: Content) -> list[tuple[str, str]]:
    """What tells these data, weights and versions from others."""
    protocol = results["protocol"]
    found = [("Program", protocol["program"]), ("Judged data", protocol["test_data"]),
             ("Tuning data", protocol["tuning_data"])]  # fmt: skip
    for name, entry in protocol["methods"].items():
        if entry.get("weights"):
            found.append((f"Weights of {name}", entry["weights"]))
    return [*found, *((name, version) for name, version in protocol["versions"].items() if name != "meddenoise_monai")]
