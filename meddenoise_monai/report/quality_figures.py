"""Figures of fidelity, of invented structure, and of what the error is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..evaluation.methods import NOISY
from .drawing import Drawn, finish, levels_axis, names_of, points, slug, style_of
from .findings import Content
from .naming import condition_title
from .styles import new_figure

__all__ = ["bias_and_variance", "by_level"]

GREY = 255
_METRICS = (("psnr", "PSNR [dB]", 1), ("ssim", "SSIM", 1))


def by_level(results: Content) -> Iterator[Drawn]:
    """PSNR, SSIM and invented structure by noise level: a figure for each data set and noise."""
    groups: dict[tuple[str, str], list[Content]] = {}
    for entry in results["conditions"]:
        groups.setdefault((entry["data"], entry["noise"]), []).append(entry)
    for (data, noise), entries in groups.items():
        yield _quality(results, data, noise, entries)
    for (data, noise), entries in groups.items():
        yield _invented(results, data, noise, entries)


def _spread(count: int) -> list[float]:
    """Where methods stand beside each other, so that their intervals do not lie on each other."""
    width = min(0.6, 0.09 * count)
    return [width * (place / (count - 1) - 0.5) if count > 1 else 0.0 for place in range(count)]


def _title(data: str, entries: list[Content]) -> str:
    return condition_title({**entries[0], "data": data, "level": 0})


def _quality(results: Content, data: str, noise: str, entries: list[Content]) -> Drawn:
    names, ours = names_of(results)
    looks = style_of(results)
    levels = [entry["level"] for entry in entries]
    figure, axes = new_figure(2, 2, 2.1)
    # Beside the gain over the noisy image, which stands above, all differences of interest would be flat.
    others = [name for name in names if name not in (ours, NOISY)] or [NOISY]
    for column, (metric, unit, _) in enumerate(_METRICS):
        rivals = [name for name in names if name != NOISY]
        for name, offset in zip(rivals, _spread(len(rivals)), strict=True):
            gains = [_gain(entry, name, metric) for entry in entries]
            x = [place + offset for place in range(len(levels))]
            points(axes[0, column], x, gains, looks[name], name)
        for name, offset in zip(others, _spread(len(others)), strict=True):
            x = [place + offset for place in range(len(levels))]
            points(axes[1, column], x, [_against(entry, name, metric) for entry in entries], looks[name], name)
        axes[0, column].set(title=f"gain over the noisy image, {unit}", ylabel=unit)
        axes[1, column].set(title=f"{ours} less each other method, {unit}", ylabel=unit)
        for axis in axes[:, column]:
            axis.axhline(0, color="black", linewidth=0.8)
            levels_axis(axis, levels)
    caption = (
        f"{_title(data, entries)}: likeness to the clean image by noise level. Above: the mean gain over the noisy "
        f"image. Below: {ours} less each other method on the same images, with 95 % intervals over patients; above "
        f"zero, {ours} is nearer to the clean image."
    )
    alt = f"Gains in PSNR and SSIM by noise level for {len(names)} methods on {data}; the numbers are in the tables."
    return finish(figure, axes, slug("quality", data, noise), "How like the clean image", caption, alt)


def _gain(entry: Content, name: str, metric: str) -> Content:
    methods = entry["methods"]
    return {"mean": methods[name][metric]["mean"] - methods[NOISY][metric]["mean"]}


def _against(entry: Content, other: str, metric: str) -> Content | None:
    for verdict in entry["verdicts"]:
        if (verdict["other"], verdict["metric"]) == (other, metric):
            return {"mean": verdict["difference"], "ci95": verdict["interval"]}
    return None


def _invented(results: Content, data: str, noise: str, entries: list[Content]) -> Drawn:
    names, _ = names_of(results)
    looks = style_of(results)
    levels = [entry["level"] for entry in entries]
    figure, axes = new_figure(1, 2, 2.2)
    titles = ("patches with structure that the clean image lacks", "noise removed: correlation with the image")
    for axis, metric, factor, title in zip(
        axes[0], ("hallucination_rate", "residual_values"), (100, 1), titles, strict=True
    ):
        for name, offset in zip(names, _spread(len(names)), strict=True):
            values = [_scaled(entry["methods"][name][metric], factor) for entry in entries]
            points(axis, [place + offset for place in range(len(levels))], values, looks[name], name)
        axis.set(title=title, ylabel="share [%]" if factor == 100 else "correlation")
        levels_axis(axis, levels)
    axes[0, 1].axhline(0, color="black", linewidth=0.8)
    caption = (
        f"{_title(data, entries)}: structure in the result that the clean image lacks (left; lower is better), and "
        "how far what was removed resembles the image (right; 0 is best). Means with 95 % intervals over patients."
    )
    alt = f"Invented structure and removed structure by noise level on {data}; the numbers are in the tables."
    topic = "What was removed, what was invented"
    return finish(figure, axes, slug("invented", data, noise), topic, caption, alt)


def _scaled(value: Content | None, factor: float) -> Content | None:
    if value is None:
        return None
    ends = value["ci95"]
    return {"mean": factor * value["mean"], "ci95": None if ends is None else [factor * end for end in ends]}


def bias_and_variance(results: Content) -> Iterator[Drawn]:
    """Bars of squared bias and variance, a panel for each data set and condition that was repeated."""
    entries = [entry for entry in results["conditions"] if entry["repeats"]["methods"]]
    if not entries:
        return
    columns = min(3, len(entries))
    rows = -(-len(entries) // columns)
    names = [name for name in names_of(results)[0] if name != NOISY]
    figure, axes = new_figure(rows, columns, 0.7 + 0.2 * len(names))
    for axis in axes.flat[len(entries) :]:
        axis.set_visible(False)
    for number, (axis, entry) in enumerate(zip(axes.flat, entries, strict=False)):
        split = entry["repeats"]["methods"]
        bias = [GREY**2 * max(0.0, split[name]["bias2"]) for name in names]
        variance = [GREY**2 * split[name]["variance"] for name in names]
        places: Any = range(len(names))
        axis.barh(places, bias, 0.65, color="#0072b2", edgecolor="black", linewidth=0.5, label="bias²")
        axis.barh(places, variance, 0.65, bias, color="#f0e442", edgecolor="black", linewidth=0.5, hatch="////",
                  label="variance")  # fmt: skip
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_yticks(places, names if number % columns == 0 else [""] * len(names))
        axis.set(title=_wrapped(condition_title(entry)), xlabel="(1/255)²")
    caption = (
        "The mean squared error over repeated draws of the noise: bias² (what is always wrong, such as blurred detail) "
        "and variance (noise that is left), in (1/255)². The noisy images are left out: theirs is variance alone, and "
        "many times as large."
    )
    alt = "Bars of squared bias and variance for each method; the numbers are in the tables."
    yield finish(figure, axes, "bias_variance", "Bias and variance", caption, alt)


def _wrapped(title: str) -> str:
    return title.replace(", ", "\n", 1) if len(title) > 24 else title
