"""Figures of image physics: noise power, transfer functions, sharpness, contrast."""

from __future__ import annotations

from collections.abc import Iterator

from .drawing import Drawn, finish, names_of, slug, style_of
from .findings import Content
from .naming import condition_title
from .styles import logarithmic, new_figure

__all__ = ["contrast", "noise_power", "transfer"]

GREY = 255
_ANATOMY, _UNIFORM = "anatomical background", "uniform field"


def noise_power(results: Content) -> Iterator[Drawn]:
    """Noise power spectra in images and in a uniform field: a figure for each noise, a row for each level."""
    spectra: dict[str, dict[float, dict[str, Content]]] = {}
    for entry in results["conditions"]:
        if entry["repeats"]["methods"]:
            found = {name: part["noise_power"] for name, part in entry["repeats"]["methods"].items()}
            _place(spectra, entry)[f"{entry['data']}\n{_ANATOMY}"] = found
    for entry in results["phantoms"]:
        _place(spectra, entry)[_UNIFORM] = entry["noise_power"]
    names, _ = names_of(results)
    looks = style_of(results)
    for noise, levels in spectra.items():
        columns = list(dict.fromkeys(column for found in levels.values() for column in found))
        figure, axes = new_figure(len(levels), len(columns), 2.0, sharex=True, sharey="row")
        for row, (level, found) in zip(axes, levels.items(), strict=True):
            for axis, column in zip(row, columns, strict=True):
                for name in names if column in found else ():
                    spectrum = found[column][name]
                    power = [GREY**2 * max(value, 1e-12) for value in spectrum["radial"]]
                    style = looks[name]
                    axis.plot(spectrum["frequencies"], power, color=style.color, linestyle=style.linestyle,
                              linewidth=style.linewidth, zorder=style.zorder, marker=style.marker, markersize=3.5,
                              markevery=6, label=name)  # fmt: skip
                logarithmic(axis)
                axis.set_ylim(bottom=1e-3)
            row[0].set_ylabel(f"{f'noise {level:g}/255' if level else 'as acquired'}\npower [(1/255)² pixel²]")
        for axis, column in zip(axes[0], columns, strict=True):
            axis.set_title(column)
        for axis in axes[-1]:
            axis.set_xlabel("frequency [cycles/pixel]")
        caption = (
            f"{condition_title({'noise': noise, 'level': 0}, data=False)}. Noise power spectra of what changes in the "
            "result from one draw of the noise to the next, over rings of frequency; logarithmic. White noise is flat; "
            "a curve that falls to the right is blotchy noise. Values below 0.001 (1/255)² pixel² are not drawn."
        )
        alt = f"Noise power by spatial frequency for {len(names)} methods; mean frequencies are in the tables."
        yield finish(figure, axes, slug("noise-power", noise), "Noise power", caption, alt)


def _place(spectra: dict[str, dict[float, dict[str, Content]]], entry: Content) -> dict[str, Content]:
    return spectra.setdefault(entry["noise"], {}).setdefault(entry["level"], {})


def transfer(results: Content) -> Iterator[Drawn]:
    """Task transfer functions, a row for each level and a column for each contrast; a figure for each noise."""
    names, _ = names_of(results)
    looks = style_of(results)
    for noise, entries in _by_noise(results).items():
        contrasts = [edge["contrast"] for edge in entries[0]["edges"]]
        figure, axes = new_figure(len(entries), len(contrasts), 1.75, sharex=True, sharey=True)
        for row, entry in zip(axes, entries, strict=True):
            for axis, edge in zip(row, entry["edges"], strict=True):
                for name in names:
                    mtf, style = edge["methods"][name]["mtf"], looks[name]
                    if mtf is not None and len(mtf) == len(entry["mtf_frequencies"]):
                        axis.plot(entry["mtf_frequencies"], mtf, color=style.color, linestyle=style.linestyle,
                                  linewidth=style.linewidth, zorder=style.zorder, marker=style.marker, markersize=3.5,
                                  markevery=5, label=name)  # fmt: skip
                axis.axhline(0.5, color="black", linewidth=0.6, linestyle=":")
                axis.set_ylim(0, 1.4)
                level = f"noise {entry['level']:g}/255"
                axis.set_title(f"{level}, contrast {GREY * edge['contrast']:.0f}/255")
            row[0].set_ylabel("transfer")
        for axis in axes[-1]:
            axis.set_xlabel("frequency [cycles/pixel]")
        caption = (
            f"{condition_title({'noise': noise, 'level': 0}, data=False)}: task transfer functions of a disc's edge on "
            "a uniform background. 1 is a perfect edge; the phantom's own, drawn on pixels, has 0.76 at 0.4 "
            "cycles/pixel; where a curve crosses 0.5 is f50; above 1 the edge "
            "is made sharper than it was, or noise was left on it. A denoiser is not linear, so each contrast has its "
            "own curve; a missing one is an edge that was lost."
        )
        alt = "Transfer functions by frequency, contrast and noise level; f50 is in the tables."
        yield finish(figure, axes, slug("transfer", noise), "Contrast and sharpness of a phantom", caption, alt)


def contrast(results: Content) -> Iterator[Drawn]:
    """f50, contrast recovery and contrast-to-noise ratio by the phantom's contrast, a column for each level."""
    names, _ = names_of(results)
    looks = style_of(results)
    shown = (("f50", "f50 [cycles/pixel]", 1), ("recovery", "contrast recovered [%]", 100), ("cnr", "CNR", 1))
    for noise, entries in _by_noise(results).items():
        figure, axes = new_figure(len(shown), len(entries), 1.6, sharex=True, sharey="row")
        for column, entry in enumerate(entries):
            for row, (measure, label, factor) in enumerate(shown):
                axis = axes[row, column]
                for name in names:
                    known = [
                        (GREY * edge["contrast"], factor * edge["methods"][name][measure])
                        for edge in entry["edges"]
                        if edge["methods"][name][measure] is not None
                    ]
                    style = looks[name]
                    axis.plot([x for x, _ in known], [y for _, y in known], color=style.color, marker=style.marker,
                              markersize=4.5, linestyle=style.linestyle, linewidth=style.linewidth,
                              zorder=style.zorder, label=name)  # fmt: skip
                if column == 0:
                    axis.set_ylabel(label)
                if measure == "cnr":
                    logarithmic(axis)
            axes[0, column].set_title(f"noise {entry['level']:g}/255")
            axes[-1, column].set_xlabel("contrast of the disc [1/255]")
        caption = (
            f"{condition_title({'noise': noise, 'level': 0}, data=False)}: sharpness (f50), contrast recovered (100 % "
            "is right) and contrast-to-noise ratio (logarithmic) of a phantom's disc by its contrast, without "
            "intervals. After a denoiser, which is not linear, a high ratio does not say that things are seen better."
        )
        alt = "Sharpness, contrast recovery and contrast-to-noise ratio by contrast; the numbers are in the tables."
        yield finish(figure, axes, slug("contrast", noise), "Contrast and sharpness of a phantom", caption, alt)


def _by_noise(results: Content) -> dict[str, list[Content]]:
    found: dict[str, list[Content]] = {}
    for entry in results["phantoms"]:
        if entry["edges"]:
            found.setdefault(entry["noise"], []).append(entry)
    return found
