"""The job behind `meddenoise compare`: read, tune, measure, sum up, and write it down for people and for MLflow."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import reprlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import __version__
from .errors import InputError, UsageError
from .evaluation.conditions import ACQUIRED, Condition, read_conditions
from .evaluation.methods import NOISY, OURS, Method, read_methods
from .evaluation.scenes import Scene, annotated_windows, check_window, read_scenes
from .evaluation.sources import Sources, read_sources
from .evaluation.study import Outcome, Plan, carry_out, plan_tasks, tune_methods
from .evaluation.summary import METRICS, per_image_rows, seconds_per_megapixel, summarise_study
from .evaluation.tasks import Workers, workers_here
from .identity import count_known, data_fingerprint
from .report import write_report
from .spreadsheets import as_cell
from .tracking import environment_versions, open_run
from .whole_files import read_json, replace_whole

__all__ = ["Comparison", "compare"]

_log = logging.getLogger(__name__)

EXPERIMENT = "meddenoise comparison"
WRITTEN = ("results.json", "per_image.csv", "case_files.csv", "table.md", "timings.json", "report.html", "mlflow.db")


@dataclass(frozen=True)
class Comparison:
    """What a comparison wrote: its folder, the content of ``results.json``, and why files were left out."""

    folder: Path
    results: dict[str, Any]
    left_out: dict[str, str]
    look: str


def compare(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    methods: str | Sequence[str] | None = None,
    noise: str | Sequence[str] = "gaussian",
    levels: float | Sequence[float] = (15, 25, 50),
    realisations: int = 5,
    images: int = 64,
    window: int = 256,
    tissue: float | None = None,
    repeats: bool = False,
    model: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    protocol: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    run_name: str | None = None,
    log_pictures: bool = False,
) -> Comparison:
    """Compare denoisers on a data set: fidelity, statistics, image physics, detection of lesions, hallucination.

    What is measured is kept in ``output/cache``: the same call, after an interruption, goes on, and after its end only
    writes the results again. Two calls with the same arguments, data and machine write the same ``results.json``.

    Parameters
    ----------
    data
        As `evaluation.sources.read_sources` takes it.
    output
        Folder for ``results.json``, ``per_image.csv``, ``case_files.csv``, ``table.md``, ``timings.json``, figures and
        ``report.html``.
    methods, model
        As `evaluation.methods.read_methods` takes them.
    noise, levels
        As `evaluation.conditions.read_conditions` takes them; images that come with noise keep theirs.
    realisations
        Draws of the noise on some scenes, for bias, variance and noise power; 1 is none.
    images
        At most so many scenes of each data set; 0 is all.
    window, tissue
        As `evaluation.scenes.read_scenes` takes them.
    repeats
        Whether each folder of `data` holds repeats of one scene.
    seed
        Of the noise, the choice of tuning images and the bootstraps.
    workers
        Processes; by default one for each core, eight at most.
    protocol
        ``protocol.json`` of an earlier comparison, or its ``results.json``: takes `methods` to `seed` from it, but for
        paths, and refuses data or weights other than those it was made with.
    tracking_uri, run_name
        Of MLflow, see `tracking.open_run`; by default a database in `output`.
    log_pictures
        Whether the report that goes to MLflow holds windows of the data's images, as the one in `output` does.

    Raises
    ------
    UsageError, InputError
        What the parts named above raise.
    """
    folder = Path(output)
    settings: dict[str, Any] = {
        "methods": methods, "noise": noise, "levels": levels, "realisations": realisations, "images": images,
        "window": window, "tissue": tissue, "repeats": repeats, "seed": seed,
    }  # fmt: skip
    earlier = None if protocol is None else _read_protocol(Path(protocol))
    if earlier is not None:
        settings = {**settings, **earlier["settings"], "methods": _with_files(earlier["settings"]["methods"], methods)}
    for name, least in (("realisations", 1), ("images", 0), ("window", 0), ("seed", 0), ("workers", 1)):
        _check_number(name, settings[name] if name != "workers" else 1 if workers is None else workers, least)
    seed = settings["seed"]
    check_window(settings["window"], settings["tissue"])
    chosen = read_methods(settings["methods"], model)
    settings["methods"] = [method.name for method in chosen]
    if Path(data).is_dir() and folder.resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(f"the output {output} lies inside the data {data}", "choose a folder outside of it")
    sources = read_sources(Path(data), settings["repeats"], seed)
    _check_apart(Path(data), (*sources.test, *sources.tuning), folder)
    how = (settings["window"], settings["tissue"])
    scenes, left_out = read_scenes(sources.test, *how, settings["images"] or None, "reading")
    tuning, unread = read_scenes(sources.tuning, *how, None, "reading for tuning")
    left_out |= unread
    came_noisy = bool(scenes[0].acquired)
    if any(bool(scene.acquired) != came_noisy for scene in (*scenes, *tuning)):
        raise InputError(f"{data} mixes clean images with noisy ones", "compare on them one after the other")
    conditions = [Condition(ACQUIRED)] if came_noisy else read_conditions(settings["noise"], settings["levels"])
    for file, reason in left_out.items():
        _log.warning("left out: %s", reason if file in reason else f"{file}: {reason}")
    _say_what(scenes, conditions, chosen)
    record = _protocol(sources, scenes, chosen, settings)
    judged_in_training = {
        method.name: count
        for method in chosen
        if method.kind == "network" and (count := count_known(method.weights, sources.test))
    }
    if judged_in_training:
        record["judged_in_training"] = judged_in_training
    if earlier is not None:
        _check_same(earlier, record)
    cache = folder / "cache"
    with Workers(workers or workers_here()) as at_work:
        with _bar("tuning") as told:
            by_condition, tuned = tune_methods(chosen, tuning, conditions, seed, cache, at_work, told)
        record["tuned"] = {f"{group}, {condition}": found for (group, condition), found in tuned.items()}
        plan = Plan(scenes, annotated_windows(sources.test), conditions, by_condition, seed, settings["realisations"])
        with _bar("measuring") as told:
            outcomes = carry_out(plan_tasks(plan), cache, at_work, told)
    ours = OURS if any(method.name == OURS for method in chosen) else chosen[-1].name
    results = {"protocol": record, **summarise_study(outcomes, chosen, ours, seed)}
    for method in chosen:
        if method.size is not None:
            results["methods"][method.name]["parameters"] = method.size
    report = write_report(folder, results, outcomes)  # first: if it cannot be drawn, nothing is written
    _write(folder, results, outcomes, scenes)
    page = (folder / "report.html").read_text(encoding="utf-8") if log_pictures else report.without_pictures()
    figures = [folder / "figures" / f"{figure.name}.png" for figure in report.figures]
    look = _record(folder, results, page, figures, tracking_uri, run_name)
    return Comparison(folder, results, left_out, look)


def _with_files(names: Sequence[str], methods: str | Sequence[str] | None) -> list[str]:
    """The methods of a protocol, which knows no files, with those files that are given for them now."""
    given = [methods] if isinstance(methods, str) else list(methods or ())
    files = {name.partition("=")[0]: name for name in map(str, given) if "=" in name}
    return [files.get(name, name) for name in names]


def _check_apart(data: Path, items: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Refuse a comparison that would overwrite or remove what it reads."""
    folder = folder.resolve()
    read = [
        data,
        data / "datalist.json",
        *(Path(item[key]) for item in items for key in ("image", "label") if key in item),
    ]
    for path in map(Path.resolve, read):
        within = any(path.is_relative_to(folder / part) for part in ("figures", "cache", "mlruns"))
        if within or (path.parent == folder and path.name in WRITTEN):
            raise UsageError(f"{path} would be overwritten or removed by results", "choose another --output")


def _check_number(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"--{name} {value!r} is no whole number from {least} up", f"give --{name} {max(least, 1)}")


def _read_protocol(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        found = content.get("protocol", content) if isinstance(content, dict) else None
        settings = found.get("settings") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(settings, dict):
            raise ValueError("it has no settings")
        for key, (fits, what) in _SETTINGS.items():
            if key not in settings:
                raise ValueError(f"the setting {key!r} is missing")
            if not fits(settings[key]):
                raise ValueError(f"the setting {key!r} is {reprlib.repr(settings[key])}, and not {what}")
        if unknown := sorted(settings.keys() - _SETTINGS):
            raise ValueError(f"there is no setting {reprlib.repr(unknown[0])}")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is no protocol of a comparison: {error}", "take protocol.json from MLflow, or a results.json"
        ) from None
    return found


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_real(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_real(value)


# What a protocol's settings may be; whoever sends one must not make this machine open files: methods have no paths.
_SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "methods": (lambda value: _is_names(value) and not any("=" in name for name in value), "names without files"),
    "noise": (lambda value: isinstance(value, str) or _is_names(value), "a name or names"),
    "levels": (
        lambda value: _is_real(value) or (isinstance(value, list) and bool(value) and all(map(_is_real, value))),
        "a number or numbers",
    ),
    "realisations": (_is_whole, "a whole number"),
    "images": (_is_whole, "a whole number"),
    "window": (_is_whole, "a whole number"),
    "tissue": (lambda value: value is None or (_is_real(value) and 0 <= value <= 1), "a share from 0 to 1, or null"),
    "repeats": (lambda value: isinstance(value, bool), "true or false"),
    "seed": (_is_whole, "a whole number"),
}


def _check_same(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse what would be another comparison; other versions may well give the same numbers."""
    for key in ("test_data", "tuning_data", "methods"):
        if earlier.get(key) != now[key]:
            raise InputError(
                f"{key.replace('_', ' ')} differ from those of the protocol: {now[key]}, not {earlier.get(key)}",
                "give the same data and --model, or leave --protocol out",
            )
    if earlier.get("versions") != now["versions"]:
        _log.warning("other versions are installed than when the protocol was made: numbers may differ")


def _say_what(scenes: Sequence[Scene], conditions: Sequence[Condition], methods: Sequence[Method]) -> None:
    sizes: dict[str, set[str]] = {}
    for scene in scenes:
        sizes.setdefault(scene.data, set()).add(scene.patient)
    for name, patients in sizes.items():
        count = sum(scene.data == name for scene in scenes)
        _log.info("%s: %d image(s) of %d patient(s)", name, count, len(patients))
    _log.info("noise: %s", ", ".join(map(str, conditions)))
    _log.info("methods: %s", ", ".join(method.name for method in methods))


def _protocol(
    sources: Sources, scenes: Sequence[Scene], methods: Sequence[Method], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All that is needed to repeat the comparison, and nothing that names a patient or a file."""
    names = dict.fromkeys(scene.data for scene in scenes)
    data = {
        name: {
            "images": sum(scene.data == name for scene in scenes),
            "patients": len({scene.patient for scene in scenes if scene.data == name}),
        }
        for name in names
    }
    return {
        "program": f"meddenoise_monai {__version__}",
        "versions": environment_versions(),
        "settings": dict(settings),
        "data": data,
        "test_data": data_fingerprint(sources.test),
        "tuning_data": data_fingerprint(sources.tuning),
        "tuned_on_other_patients": sources.apart,
        "tuned_for": "psnr",
        "noise_clipped": False,
        "methods": {
            method.name: {"kind": method.kind, "told_noise_level": method.told}
            | ({"weights": method.fingerprint, "parameters": method.size} if method.kind == "network" else {})
            for method in methods
            if method.name != NOISY
        },
    }


def _write(folder: Path, results: Mapping[str, Any], outcomes: Sequence[Outcome], scenes: Sequence[Scene]) -> None:
    rows = per_image_rows(outcomes)
    with replace_whole(folder / "per_image.csv") as path, path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["case", "data", "noise", "level", "method", "sigma", *METRICS])
        writer.writeheader()
        writer.writerows({**row, "data": as_cell(row["data"])} for row in rows)
    with replace_whole(folder / "case_files.csv") as path, path.open("w", newline="", encoding="utf-8") as stream:
        named = dict.fromkeys((scene.name, *map(as_cell, (scene.data, scene.patient, scene.file))) for scene in scenes)
        csv.writer(stream).writerows([("case", "data", "patient", "file"), *named])
    _write_json(folder / "results.json", results)
    timings = {"seconds_per_megapixel": seconds_per_megapixel(outcomes), "threads": 1}
    _write_json(folder / "timings.json", timings)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with replace_whole(file) as path:
        path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _record(
    folder: Path,
    results: Mapping[str, Any],
    page: str,
    figures: Sequence[Path],
    tracking_uri: str | None,
    run_name: str | None,
) -> str:
    """One run in MLflow: parameters to search by, the means as metrics, tables, figures and the report."""
    protocol = results["protocol"]
    data = ", ".join(f"{name} ({entry['images']})" for name, entry in protocol["data"].items())
    noise = ", ".join(dict.fromkeys(condition["noise"] for condition in results["conditions"]))
    tags = {"job": "comparison", "weights": protocol["methods"].get(OURS, {}).get("weights", "")}
    with open_run(EXPERIMENT, run_name or f"{data}: {noise}", tracking_uri, folder, tags) as run:
        fingerprints = {key: protocol[key] for key in ("program", "test_data", "tuning_data")}
        run.log_params({**protocol["settings"], **fingerprints, "data": data})
        run.log_dict(protocol["versions"], "environment/versions.json")
        run.log_dict(protocol, "protocol.json")
        means = results["methods"].items()
        run.log_metrics({f"{m}/{key}": values[key]["mean"] for m, values in means for key in ("psnr", "ssim")}, step=0)
        run.log_metrics(_of_lesions(results), step=0)
        run.log_table("comparison.json", _columns(results))
        for file in ("results.json", "per_image.csv", "table.md", "timings.json"):
            run.log_file(folder / file)
        for figure in figures:
            run.log_file(figure, "figures")
        run.log_text(page, "report.html")
        return run.url_hint


def _of_lesions(results: Mapping[str, Any]) -> dict[str, float]:
    """What to search runs by where fidelity says nothing: of each method, means over data sets and noise."""
    found: dict[str, list[float]] = {}
    for entry in results["lesions"]:
        for method, kept in entry["kept"].items():
            if kept is not None:
                found.setdefault(f"{method}/annotated_contrast_kept", []).append(kept["mean"])
    for entry in results["observers"]:
        for method, detected in entry["methods"].items():
            if detected is not None:
                found.setdefault(f"{method}/{entry['signal']}_auc", []).append(detected["auc"])
        for method, fate in entry.get("fate", {}).items():
            if fate["kept_contrast"] is not None:
                found.setdefault(f"{method}/inserted_contrast_kept", []).append(fate["kept_contrast"]["mean"])
    for entry in results["uncertainty"]:
        if entry["coverage"] is not None:
            found.setdefault(f"{entry['method']}/coverage", []).append(entry["coverage"]["mean"])
    return {name: sum(values) / len(values) for name, values in found.items()}


def _columns(results: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The comparison table: a row for each data set, noise and method."""
    columns: dict[str, list[Any]] = {}
    for condition in results["conditions"]:
        words = {(v["other"], v["metric"]): v["word"] for v in condition["verdicts"]}
        for method, values in condition["methods"].items():
            row = {
                "data": condition["data"],
                "noise": condition["noise"],
                "level": condition["level"],
                "method": method,
            }
            for metric in ("psnr", "ssim", "ms_ssim", "rmse", "hallucination_rate"):
                row[metric] = None if values[metric] is None else round(values[metric]["mean"], 4)
            row["ours against it, PSNR"] = words.get((method, "psnr"), "")
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
    return columns


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar in a terminal, and a line twice a minute anywhere else."""
    started = last = time.monotonic()
    before: int | None = None
    with tqdm(desc=title, unit="task", leave=False, disable=None, smoothing=0.05) as bar:

        def told(done: int, total: int) -> None:
            nonlocal last, before
            before = done if before is None else before  # what an earlier run did took no time now
            bar.total = total
            bar.update(done - bar.n)
            now = time.monotonic()
            if bar.disable and now - last > 30 and done > before:
                last = now
                left = (now - started) / (done - before) * (total - done) / 60
                _log.info("%s: %d of %d done, some %d minutes left", title, done, total, round(left))

        yield told
