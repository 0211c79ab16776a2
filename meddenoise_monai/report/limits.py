"""What a comparison did not show: what is true of the method, and what one run lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..evaluation.conditions import ACQUIRED
from ..intervals import FEWEST_PATIENTS
from .findings import Content
from .naming import condition_title, counted

__all__ = ["few_patients", "limits", "undecidable", "undecidable_words"]


def limits(results: Content) -> list[str]:
    """Sentences, those that hold of every comparison first."""
    return [*_of_the_method(results), *_of_this_run(results)]


def few_patients(results: Content) -> list[Content]:
    """Conditions of fewer patients than intervals need."""
    return [entry for entry in results["conditions"] if entry["patients"] < FEWEST_PATIENTS]


def undecidable(entry: Content) -> bool:
    """Whether Holm's correction of the least p-value that so many patients can give is not below 0.05."""
    return any(verdict["word"] == "too few patients" for verdict in entry["verdicts"])


def undecidable_words(entries: Sequence[Content]) -> str:
    """That no test could have shown anything there."""
    places = "; ".join(condition_title(entry) for entry in entries)
    return (
        "With so few patients for so many comparisons the tests of PSNR, SSIM and MS-SSIM cannot come out below p = "
        f"0.05, whatever the images ({places})."
    )


def _of_the_method(results: Content) -> Iterator[str]:
    ours = results["conditions"][0]["ours"]
    window = results["protocol"]["settings"].get("window", 0)
    acquired = any(entry["noise"] == ACQUIRED for entry in results["conditions"])
    if window:
        yield f"One window of at most {window} × {window} pixels of each image was judged, not the whole image."
    if acquired:
        yield "The noise is that of the images. What stands for the clean image is itself not free of noise."
    else:
        yield "The noise was drawn by a model and added to images. Noise of a real device may behave otherwise."
        yield "The images that count as clean have noise of their own; a denoiser that removes it is blamed for that."
    yield "All images are two-dimensional; of a volume, one slice was taken. Nothing is said of volumes or films."
    yield "No human reader took part."
    if results["observers"]:
        yield (
            "The model observers are linear, know the lesion’s shape, size and place exactly, and look for two kinds "
            "of lesion only. Radiologists do not."
        )
        yield (
            "The inserted lesions are drawn, and added to the noisy image: noise that depends on the signal does not "
            "change with them. Whether a disc is found is told by a filter that knows the clean image, as no reader "
            "does."
        )
    if results["phantoms"]:
        yield (
            "The phantom has one round edge on a uniform background, which is easier than anatomy. A denoiser is not "
            "linear, so its transfer functions and spectra hold for that edge, that contrast and that noise alone."
        )
    yield (
        "Intervals say how the numbers would vary with other patients. They leave out that the baselines might have "
        "been tuned on other images, that a network might have been trained again, and other draws of the noise."
    )
    yield (
        "Only PSNR, SSIM and MS-SSIM are tested with a correction for the number of tests. Other verdicts go by one "
        "interval each: of twenty such verdicts one may be wrong by chance. Verdicts of different tables are not "
        "corrected for each other."
    )
    yield "“No difference shown” is not “equal”: there may be none, or this comparison is too small to show it."
    told = results["protocol"]["methods"].get(ours, {}).get("told_noise_level", False)
    level = "is told it, too" if told else "is not"
    yield f"Baselines are told the true noise level, which nobody knows in practice; {ours} {level}."
    yield "Baselines were tuned for PSNR. Tuned for lesions, they might do better there."
    yield "Lengths are in pixels and noise in grey levels: neither was tied to millimetres or to a dose."
    yield "Speed, memory and use in a clinic were not judged. No statement about diagnosis follows from this report."


def _of_this_run(results: Content) -> Iterator[str]:
    for name, count in results["protocol"].get("judged_in_training", {}).items():
        yield (
            f"{counted(count, 'judged image')} {'is' if count == 1 else 'are'} among those that {name} was trained on: "
            "its numbers say little about new images."
        )
    for entry in few_patients(results):
        if entry["level"] == min(e["level"] for e in results["conditions"] if e["data"] == entry["data"]):
            yield (
                f"{counted(entry['patients'], 'patient')} of {entry['data']}: with fewer than {FEWEST_PATIENTS}, "
                "intervals are too narrow and only say that little is known."
            )
    blocked = [entry for entry in results["conditions"] if undecidable(entry)]
    if blocked:
        yield undecidable_words(blocked)
    if not results["protocol"].get("tuned_on_other_patients", True):
        yield (
            "Some baselines were tuned on images of the very patients they are judged on, for want of others. That "
            "favours them."
        )
    if not results["lesions"]:
        yield "None of the images has annotated lesions: what becomes of real lesions was not measured."
    if not results["observers"]:
        yield "No lesions were inserted: this takes clean images of 128 pixels or more a side."
    if not results["phantoms"]:
        yield "No phantom was measured: the images come with their noise, which cannot be put on a phantom."
    if not any(entry["repeats"]["methods"] for entry in results["conditions"]):
        yield "Bias, variance and noise power in images were not measured: there was one draw of the noise only."
    if any(means["ms_ssim"] is None for entry in results["conditions"] for means in entry["methods"].values()):
        yield "MS-SSIM is missing where windows are too small for it."
    if "uncertainty" not in results:
        yield "Whether a stated uncertainty of the result holds was not measured."
    observed = {(entry["noise"], entry["level"]) for entry in results["observers"]}
    missing = {(entry["noise"], entry["level"]) for entry in results["conditions"]} - observed
    if observed and missing:
        levels = ", ".join(
            condition_title({"noise": noise, "level": level}, data=False) for noise, level in sorted(missing)
        )
        yield f"Lesions were looked for at one level of each noise; not under {levels}."
