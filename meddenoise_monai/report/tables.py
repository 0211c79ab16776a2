"""The tables of a comparison: rows of text, with captions that explain the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..evaluation.methods import NOISY
from ..evaluation.study import PHANTOM_DRAWS
from .findings import MEASURES, Content, Finding, find
from .naming import CHANNELS, SIGNALS, condition_title, counted, method_title, number, percent, with_interval

__all__ = ["Table", "behind_tables", "fidelity_tables", "make_tables"]

GREY = 255  # grey levels of the [0, 1] scale


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    topic
        Under which heading it stands.
    title
        Its own heading where it has one: of no other table of a comparison.
    caption
        What it shows, with units.
    rows
        The first holds the titles; of the others the first cell names the row.
    """

    topic: str
    title: str
    caption: str
    rows: tuple[tuple[str, ...], ...]


def make_tables(results: Content) -> list[Table]:
    """All tables of ``results.json``, topic by topic."""
    makers: tuple[Callable[[Content], Iterator[Table]], ...] = (
        _methods, _tuned, _fidelity, _verdicts, _removed, _split, _annotated, _inserted, _observed,
        _observed_differences, _phantoms, _details, _fields, _uncertainty,
    )  # fmt: skip
    return [table for make in makers for table in make(results)]


def fidelity_tables(results: Content) -> list[Table]:
    """How like the clean image the results are: means, then differences with a verdict."""
    return [*_fidelity(results), *_verdicts(results)]


def behind_tables(results: Content) -> Iterator[Table]:
    """Every single place where ours is behind, shown or not: a table for each measure."""
    ours = results["conditions"][0]["ours"]
    behind = [each for each in find(results) if each.behind or each.word == "worse"]
    for measure in dict.fromkeys(each.measure for each in behind):
        head = ("Where", "Other method", ours, "Other", "Difference", "Verdict")
        rows = [_behind_row(each) for each in behind if each.measure == measure]
        what = MEASURES[measure]
        better = "nearer to 100 %" if measure == "recovery" else "higher" if what.higher else "lower"
        intervals = any(each.interval for each in behind if each.measure == measure)
        known = ", with 95 % intervals" if intervals else "; there are no intervals"
        caption = f"{what.phrase}: every place where {ours} is behind ({better} is better){known}."
        yield Table("Where it is behind", what.phrase, caption, (head, *rows))


def _behind_row(each: Finding) -> tuple[str, ...]:
    shown = MEASURES[each.measure]

    def written(value: float) -> str:
        return number(shown.factor * value, shown.digits) + shown.unit

    difference = with_interval(each.ours - each.theirs, each.interval, shown.digits, True, shown.factor)
    return (each.where, each.other or "asked for", written(each.ours), written(each.theirs), difference, each.word)


def _methods(results: Content) -> Iterator[Table]:
    known = results["protocol"]["methods"]
    rows = [("Method", "What it is", "Told the noise level", "PSNR [dB]", "SSIM", "Weights")]
    for name, means in results["methods"].items():
        about = known.get(name, {})
        told = "–" if name == NOISY else "yes" if about.get("told_noise_level") else "no"
        size = about.get("parameters", means.get("parameters"))
        what = method_title(name, about.get("kind", "baseline"))
        psnr, ssim = (_mean(means[key], digits) for key, digits in (("psnr", 2), ("ssim", 4)))
        rows.append((name, what, told, psnr, ssim, number(size, 0)))
    caption = (
        "The methods, with their means over all images and noise levels and 95 % intervals. "
        "Weights: how many numbers a network has learned."
    )
    yield Table("The methods", "Methods", caption, tuple(rows))


def _tuned(results: Content) -> Iterator[Table]:
    rows = [
        (
            "For",
            "Baseline",
            "Tuned on",
            "Parameters",
            "PSNR [dB]",
            "PSNR of the defaults [dB]",
            "At the edge of what was tried",
        )
    ]
    for where, found in results["protocol"].get("tuned", {}).items():
        for name, entry in found.items():
            values = ", ".join(f"{key} {_short(value)}" for key, value in entry["parameters"].items())
            edges = ", ".join(entry["on_grid_edge"]) or "–"
            tuned_on = f"{entry['images']} of {entry['side']} × {entry['side']}"
            rows.append((where, name, tuned_on, values, number(entry["psnr"]), number(entry["default_psnr"]), edges))
    caption = (
        "What the baselines were tuned to: of all combinations tried, the best mean PSNR on the tuning images, of "
        "which the middle was taken (pixels). What is 1 dB behind on the first images is not tried on the others."
    )
    if len(rows) > 1:
        yield Table("The methods", "Tuning", caption, tuple(rows))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fidelity(results: Content) -> Iterator[Table]:
    shown = (("psnr", "PSNR [dB]", 2, 1), ("ssim", "SSIM", 4, 1), ("ms_ssim", "MS-SSIM", 4, 1),
             ("rmse", "RMSE [1/255]", 2, GREY))  # fmt: skip
    for entry in results["conditions"]:
        columns = [column for column in shown if entry["methods"][entry["ours"]][column[0]] is not None]
        rows = [("Method", *(title for _, title, _, _ in columns))]
        for method, means in entry["methods"].items():
            rows.append((method, *(_mean(means[key], digits, factor) for key, _, digits, factor in columns)))
        caption = f"{condition_title(entry)}. {_counts(entry)}; means with 95 % intervals over patients."
        yield Table("How like the clean image", f"Fidelity: {condition_title(entry)}", caption, tuple(rows))


def _verdicts(results: Content) -> Iterator[Table]:
    digits = {"psnr": ("PSNR [dB]", 2), "ssim": ("SSIM", 4), "ms_ssim": ("MS-SSIM", 4)}
    for entry in results["conditions"]:
        metrics = [key for key in digits if any(v["metric"] == key for v in entry["verdicts"])]
        titles = [title for key in metrics for title in (digits[key][0], "p", "verdict")]
        rows = [("Other method", *titles)]
        for other in dict.fromkeys(verdict["other"] for verdict in entry["verdicts"]):
            found = {v["metric"]: v for v in entry["verdicts"] if v["other"] == other}
            cells = []
            for key in metrics:
                verdict = found[key]
                cells += [with_interval(verdict["difference"], verdict["interval"], digits[key][1], True),
                          _probability(verdict["adjusted_p"]), verdict["word"]]  # fmt: skip
            rows.append((other, *cells))
        caption = (
            f"{condition_title(entry)}: {entry['ours']} less each other method on the same images, with 95 % "
            "intervals. p is adjusted for all rows and measures of this table."
        )
        if len(rows) > 1:
            yield Table(
                "How like the clean image", f"Differences in fidelity: {condition_title(entry)}", caption, tuple(rows)
            )


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else number(value, 3)


def _removed(results: Content) -> Iterator[Table]:
    for entry in results["conditions"]:
        rows = [("Method", "Removed: correlation with the image", "Removed: correlation with edges",
                 "Removed: correlation of neighbours", "Patches with structure that the clean image lacks",
                 "Agrees with the clean image up to [cycles/pixel]")]  # fmt: skip
        for method, means in entry["methods"].items():
            structure = (_mean(means[f"residual_{part}"], 3) for part in ("values", "edges", "correlation"))
            rate = _mean(means["hallucination_rate"], 2, 100, " %")
            rows.append((method, *structure, rate, _mean(means["agreement_cutoff"], 3)))
        caption = (
            f"{condition_title(entry)}: what was removed and what was invented; means with 95 % intervals. What is "
            "removed from an image should be noise alone: with the image and its edges it then has a correlation of 0."
        )
        yield Table(
            "What was removed, what was invented",
            f"Removed and invented: {condition_title(entry)}",
            caption,
            tuple(rows),
        )


def _split(results: Content) -> Iterator[Table]:
    for entry in results["conditions"]:
        if not entry["repeats"]["methods"]:
            continue
        rows = [
            ("Method", "Mean squared error", "Bias²", "Variance", "Mean frequency of the noise left [cycles/pixel]")
        ]
        for method, found in entry["repeats"]["methods"].items():
            parts = (number(GREY**2 * found[part], 1) for part in ("mse", "bias2", "variance"))
            rows.append((method, *parts, number(found["noise_power"]["mean_frequency"], 3)))
        caption = (
            f"{condition_title(entry)}: what the error is made of, in (1/255)², over repeated draws of the noise in "
            f"{counted(entry['repeats']['scenes'], 'scene')}. Bias is what is always wrong, such as lost detail; "
            "variance is the noise that is left."
        )
        yield Table("Bias and variance", f"Bias and variance: {condition_title(entry)}", caption, tuple(rows))


def _annotated(results: Content) -> Iterator[Table]:
    for entry in results["lesions"]:
        if not entry["lesions"]:
            continue
        rows = [("Method", "Contrast kept", f"{entry['ours']} less this method", "verdict")]
        for method, found in entry["kept"].items():
            difference = entry.get("differences", {}).get(method)
            rows.append((method, _mean(found, 1, 100, " %"), *_difference(difference, 1, 100, " points")))
        kinds = ", ".join(f"{kind} {count}" for kind, count in entry["kinds"].items())
        caption = (
            f"{condition_title(entry)}: the share of the clean image’s contrast that is kept of "
            f"{counted(entry['lesions'], 'annotated lesion')} ({kinds}), with 95 % intervals over patients. "
            f"{entry['faint']} more {'has' if entry['faint'] == 1 else 'have'} so little contrast that a share of it "
            "means nothing; those of more than 79 pixels in radius, which no filter of some pixels changes, are left "
            "out. The noisy image keeps all of it but for chance."
        )
        yield Table(
            "Lesions that the data sets mark", f"Annotated lesions: {condition_title(entry)}", caption, tuple(rows)
        )


def _inserted(results: Content) -> Iterator[Table]:
    for entry in results["observers"]:
        if "fate" not in entry:
            continue
        rows = [("Method", "Contrast kept", f"{entry['ours']} less this method", "verdict", "Lost", "Found",
                 "Errors like a disc, in an image")]  # fmt: skip
        differences = entry.get("fate_differences", {}).get("kept_contrast", {})
        for method, fate in entry["fate"].items():
            cells = (_mean(fate[key], 1, 100, " %") for key in ("kept_contrast", "removed", "true_positive_rate"))
            kept, lost, found = cells
            difference = _difference(differences.get(method), 1, 100, " points")
            rows.append((method, kept, *difference, lost, found, _mean(fate["invented"], 1)))
        caption = (
            f"{condition_title(entry)}: discs of 8 pixels across put into the noisy images, with 95 % "
            "intervals. Lost are those that keep less than half of their contrast; found are those that a matched "
            "filter, which knows the clean image, sees at a rate of 5 % false alarms. The last column counts places "
            "where the error looks like such a disc though none is there: what was lost does so, too, not only what "
            "was invented."
        )
        yield Table("Lesions put into the images", f"Inserted discs: {condition_title(entry)}", caption, tuple(rows))


def _by_place(results: Content) -> dict[str, list[Content]]:
    places: dict[str, list[Content]] = {}
    for entry in results["observers"]:
        places.setdefault(condition_title(entry), []).append(entry)
    return places


def _observed(results: Content) -> Iterator[Table]:
    for place, entries in _by_place(results).items():
        rows = [("Method", *(_observer(entry) for entry in entries))]
        for method in entries[0]["methods"]:
            rows.append((method, *(_detected(entry["methods"][method]) for entry in entries)))
        seen = next((m["images"] for e in entries for m in e["methods"].values() if m is not None), 0)
        caption = (
            f"{place}: how well a linear model observer tells places with a lesion from the same places without, as "
            "the area under the ROC curve (AUC: 0.5 is guessing, 1 is always right) with 95 % intervals, and d′ "
            "(0 is guessing): the distance of the mean answers in standard deviations, which goes with the AUC where "
            f"answers are distributed normally. {seen} places each with and without; an observer learns from four "
            "fifths of them, and with less than about ten for each of its channels "
            f"({CHANNELS['laguerre_gauss']} 5, {CHANNELS['difference_of_gaussians']} 3) comes out too low. The "
            "intervals leave out its training, and other draws of the noise."
        )
        yield Table("How well a model observer finds lesions", f"Observers: {place}", caption, tuple(rows))


def _observed_differences(results: Content) -> Iterator[Table]:
    for place, entries in _by_place(results).items():
        rows = [("Other method", *(title for entry in entries for title in (f"{_observer(entry)}, AUC", "verdict")))]
        for method in entries[0]["methods"]:
            if method == entries[0]["ours"] or not any(method in entry["differences"] for entry in entries):
                continue
            cells: list[str] = []
            for entry in entries:
                found = entry["differences"].get(method)
                cells += (
                    ("–", "–")
                    if found is None
                    else (with_interval(found["auc"], found["auc_ci95"], 3, True), found["word"])
                )
            rows.append((method, *cells))
        caption = f"{place}: AUC of {entries[0]['ours']} less that of each other method, with 95 % intervals."
        if len(rows) > 1:
            yield Table(
                "How well a model observer finds lesions", f"Differences of observers: {place}", caption, tuple(rows)
            )


def _observer(entry: Content) -> str:
    return f"{SIGNALS[entry['signal']]}, {CHANNELS[entry['channels']]}"


def _detected(found: Content | None) -> str:
    if found is None:
        return "too few images"
    return f"{with_interval(found['auc'], found['auc_ci95'], 3)}; d′ {number(found['dprime'])}"


def _phantoms(results: Content) -> Iterator[Table]:
    for entry in results["phantoms"]:
        titles = [
            f"{title}, contrast {GREY * edge['contrast']:.0f}/255"
            for edge in entry["edges"]
            for title in ("contrast recovered", "CNR", "f50")
        ]
        rows = [("Method", *titles)]
        for method in entry["noise_power"]:
            cells: list[str] = []
            for edge in entry["edges"]:
                found = edge["methods"][method]
                cells += [percent(found["recovery"], 1), number(found["cnr"], 1), number(found["f50"], 3)]
            rows.append((method, *cells))
        caption = (
            f"{condition_title(entry)}: a disc of 71 pixels on a uniform background. Contrast recovered: 100 % is "
            "right. CNR: contrast over the standard deviation of the background; after a denoiser, which is not "
            "linear, no measure of what can be seen. f50: the frequency in cycles/pixel at which the edge's "
            "transfer function falls to a half; higher is sharper; a dash is an edge that was lost "
            f"or a function that never falls so far. Means of {PHANTOM_DRAWS} draws of the noise, without intervals: "
            "f50 in strong noise varies by a fifth and more."
        )
        yield Table("Contrast and sharpness of a phantom", f"Edges: {condition_title(entry)}", caption, tuple(rows))


def _details(results: Content) -> Iterator[Table]:
    for entry in results["phantoms"]:
        grid = entry["details"]
        rows = [("Method", *(f"{c:g} σ, {d} px" for c in grid["contrasts"] for d in grid["diameters"]))]
        for method, kept in grid["kept"].items():
            rows.append((method, *(percent(share) for line in kept for share in line)))
        caption = (
            f"{condition_title(entry)}: contrast that discs in a uniform field keep, by their contrast in units of the "
            "noise σ and by their diameter; 100 % is all of it."
        )
        yield Table(
            "Small and faint discs in a phantom", f"Faint discs: {condition_title(entry)}", caption, tuple(rows)
        )


def _fields(results: Content) -> Iterator[Table]:
    entries = results["phantoms"]
    if not entries:
        return
    titles = [f"{condition_title(e)}: {what}" for e in entries for what in ("noise left [1/255]", "mean frequency")]
    rows = [("Method", *titles)]
    for method in entries[0]["noise_power"]:
        cells: list[str] = []
        for entry in entries:
            found = entry["noise_power"][method]
            cells += [number(GREY * found["variance"] ** 0.5), number(found["mean_frequency"], 3)]
        rows.append((method, *cells))
    caption = (
        "Noise that is left in a uniform field: its standard deviation, and the mean frequency of its power spectrum "
        "in cycles/pixel (0.25 is white noise; lower is blotchy)."
    )
    yield Table("Noise in a uniform field", "Uniform field", caption, tuple(rows))


def _uncertainty(results: Content) -> Iterator[Table]:
    entries = results.get("uncertainty", ())
    if not entries:
        return
    rows = [("Data and noise", "Asked for", "Covered", "Width [1/255]")]
    for entry in entries:
        width = entry.get("width")
        rows.append((condition_title(entry), percent(entry["asked"]), _mean(entry["coverage"], 1, 100, " %"),
                     _mean(width, 1, GREY) if isinstance(width, Mapping) and "mean" in width else "–"))  # fmt: skip
    caption = (
        "How often the true value lies inside the interval that is stated for a pixel, beside how often it should, "
        "with 95 % intervals over patients, and how wide those intervals are."
    )
    yield Table("Stated uncertainty", "Coverage", caption, tuple(rows))


def _mean(value: Content | None, digits: int, factor: float = 1.0, unit: str = "") -> str:
    return "–" if value is None else with_interval(value["mean"], value.get("ci95"), digits, factor=factor) + unit


def _difference(value: Content | None, digits: int, factor: float, unit: str) -> tuple[str, str]:
    if value is None:
        return "", ""
    return with_interval(value["difference"], value["ci95"], digits, True, factor) + unit, value["word"]


def _counts(entry: Content) -> str:
    return f"{counted(entry['images'], 'image')} of {counted(entry['patients'], 'patient')}"
