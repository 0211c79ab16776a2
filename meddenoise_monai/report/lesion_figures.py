"""Figures of lesions: how well they are found, and what of their contrast is kept."""

from __future__ import annotations

from collections.abc import Iterator

from .drawing import Drawn, finish, forest, names_of, slug, style_of
from .findings import Content
from .naming import CHANNELS, SIGNALS, condition_title
from .styles import new_figure

__all__ = ["contrast_kept", "observers"]


def observers(results: Content) -> Iterator[Drawn]:
    """AUC and d′ of the model observers: a figure for each place, a row for each figure of merit."""
    places: dict[str, list[Content]] = {}
    for entry in results["observers"]:
        places.setdefault(condition_title(entry), []).append(entry)
    names, _ = names_of(results)
    looks = style_of(results)
    for place, entries in places.items():
        if not any(found is not None for entry in entries for found in entry["methods"].values()):
            continue
        figure, axes = new_figure(2, len(entries), 0.7 + 0.17 * len(names), sharex="row")
        for column, entry in enumerate(entries):
            for row, measure in enumerate(("auc", "dprime")):
                values = {
                    name: None if found is None else {"mean": found[measure], "ci95": found[f"{measure}_ci95"]}
                    for name, found in entry["methods"].items()
                }
                forest(axes[row, column], values, looks, names=column == 0)
                axes[row, column].set_xlabel("AUC" if measure == "auc" else "d′")
            axes[0, column].axvline(0.5, color="black", linewidth=0.8, linestyle=":")
            axes[1, column].axvline(0, color="black", linewidth=0.8, linestyle=":")
            axes[0, column].set_title(f"{SIGNALS[entry['signal']]}\n{CHANNELS[entry['channels']]}")
        caption = (
            f"{place}: how well a linear model observer finds lesions put into the images: area under the ROC curve "
            "and d′ with 95 % intervals; further right is better, the dotted line is guessing. Two kinds of lesion, "
            "each seen through two sets of channels."
        )
        alt = f"Detection of inserted lesions by method, {place}; the numbers are in the tables."
        topic = "How well a model observer finds lesions"
        name = slug("observers", entries[0]["data"], entries[0]["noise"], f"{entries[0]['level']:g}")
        yield finish(figure, axes, name, topic, caption, alt, legend=False)


def contrast_kept(results: Content) -> Iterator[Drawn]:
    """The share of contrast that annotated and inserted lesions keep: a panel for each place."""
    names, _ = names_of(results)
    annotated = [(condition_title(e), e["kept"]) for e in results["lesions"] if e["lesions"]]
    inserted = [
        (condition_title(entry), {name: fate["kept_contrast"] for name, fate in entry["fate"].items()})
        for entry in results["observers"]
        if "fate" in entry
    ]
    kinds = (
        ("annotated", "Lesions that the data sets mark", "annotated lesions", annotated),
        ("inserted", "Lesions put into the images", "discs put into the images", inserted),
    )
    for kind, topic, words, panels in kinds:
        if not panels:
            continue
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure, axes = new_figure(rows, columns, 0.7 + 0.17 * len(names), sharex=True)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for number, (axis, (title, values)) in enumerate(zip(axes.flat, panels, strict=False)):
            forest(axis, values, style_of(results), 100, number % columns == 0)
            axis.axvline(100, color="black", linewidth=0.8, linestyle=":")
            axis.set_title(title.replace(", ", "\n", 1))
            axis.set_xlabel("contrast kept [%]")
            axis.tick_params(labelbottom=True)
        caption = (
            f"Contrast that {words} keep, in percent of what they have without noise, with 95 % intervals; the dotted "
            "line is all of it. The noisy image keeps it, but under noise."
        )
        yield finish(figure, axes, f"contrast_{kind}", topic, caption, f"Contrast kept by method: {words}.", False)
