"""Tables, figures and pictures: the same results give the same bytes, and only what was measured is drawn."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from meddenoise_monai.evaluation.measures import as_image
from meddenoise_monai.evaluation.study import Outcome
from meddenoise_monai.report import Report, write_report
from meddenoise_monai.report import panels as panels_of
from meddenoise_monai.report.figures import KINDS, make_figures
from meddenoise_monai.report.naming import number, percent, with_interval
from meddenoise_monai.report.panels import make_panels
from meddenoise_monai.report.plain import _markdown_table, as_markdown, in_short
from meddenoise_monai.report.styles import as_png, logarithmic, look, new_figure, styles
from meddenoise_monai.report.tables import make_tables
from tests.small_study import OURS


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.e2e
def test_same_results_same_bytes(
    written: tuple[Path, Report], results: dict[str, Any], outcomes: list[Outcome], tmp_path: Path
) -> None:
    write_report(tmp_path, results, outcomes)
    first = files(written[0])
    assert first == files(tmp_path)
    assert {"report.html", "table.md"} < set(first)
    assert sum(name.startswith("figures/") for name in first) == len(written[1].figures)


def test_only_own_old_figures_are_removed(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meddenoise_monai.report.make_figures", lambda results: [])
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("transfer-rician.png", "holiday.png"):
        (figures / name).write_bytes(b"old")
    write_report(tmp_path, results, [])
    assert not (figures / "transfer-rician.png").exists()
    assert (figures / "holiday.png").read_bytes() == b"old"


@pytest.mark.e2e
def test_figures_of_everything_that_was_measured(written: tuple[Path, Report]) -> None:
    drawn = written[1].figures
    names = [figure.name for figure in drawn]
    assert all(name.startswith(KINDS) for name in names)
    assert len(set(names)) == len(names)
    assert {name.split("-")[0] for name in names} == {
        "quality", "invented", "maps", "bias_variance", "noise", "transfer", "contrast", "observers",
        "contrast_annotated", "contrast_inserted",
    }  # fmt: skip
    for figure in drawn:
        picture = Image.open(io.BytesIO(figure.png))
        assert picture.width == 1080
        assert set(picture.info) <= {"dpi"}
        assert len(picture.convert("L").getcolors()) > 20
        assert figure.caption.endswith(".")
        assert figure.alt


@pytest.mark.e2e
def test_no_words_in_figures_are_markup(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def read(figure: Figure) -> bytes:
        png = as_png(figure)
        seen.extend(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]
        return png

    monkeypatch.setattr("meddenoise_monai.report.drawing.as_png", read)
    make_figures(results)
    assert {"0.001", "10", "100"} <= set(seen)  # of logarithmic axes
    assert not [text for text in seen if "$" in text or "\\" in text]


def test_powers_that_would_be_long_numbers() -> None:
    with look():
        figure, axes = new_figure(1, 1, 2.0)
        axes[0, 0].plot([0, 1], [1e-5, 1e5])
        logarithmic(axes[0, 0])
        as_png(figure)
        labels = [label.get_text() for label in axes[0, 0].get_yticklabels()]
    assert {"10⁻⁵", "0.001", "0.1", "10", "1000", "10⁵"} <= set(labels)


def test_an_axis_without_a_power_of_ten_has_labels() -> None:
    with look():
        figure, axes = new_figure(1, 1, 2.0)
        axes[0, 0].plot([0, 1], [2.2, 8.3])
        logarithmic(axes[0, 0])
        as_png(figure)
        labels = [label.get_text() for label in axes[0, 0].get_yticklabels(which="both")]
    assert {"3", "6"} <= set(labels)


def test_figures_without_phantoms_lesions_and_repeats(results: dict[str, Any]) -> None:
    bare = {**results, "phantoms": [], "observers": [], "lesions": [], "hallucination_maps": []}
    for entry in bare["conditions"]:
        entry["repeats"] = {"scenes": 0, "methods": {}}
    assert {figure.name.split("-")[0] for figure in make_figures(bare)} == {"quality", "invented"}


@pytest.mark.e2e
def test_one_patient_has_no_intervals_and_is_drawn(results: dict[str, Any]) -> None:
    def strip(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: None if key.endswith("ci95") or key == "interval" else strip(v) for key, v in content.items()}
        return [strip(value) for value in content] if isinstance(content, list) else content

    bare = strip(results)
    for entry in bare["observers"]:
        entry["methods"] = dict.fromkeys(entry["methods"])
        entry["differences"] = {}
    bare["phantoms"] = []
    assert "quality-films-gaussian" in [figure.name for figure in make_figures(bare)]
    assert "too few images" in as_markdown(bare)


def test_a_method_looks_alike_in_all_figures_and_ours_stands_out() -> None:
    found = styles(["noisy", "a", "b", "c", "d", "e", "f", "g", "dae"], "dae")
    looks = {(style.color, style.marker, str(style.linestyle)) for style in found.values()}
    assert len(looks) == len(found)
    assert len({style.marker for style in found.values()}) == len(found)
    assert found["dae"].linewidth > max(style.linewidth for name, style in found.items() if name != "dae")


def test_every_method_keeps_its_colour_in_the_file() -> None:
    looks = styles(["noisy", *"abcdefg", "dae"], "dae")
    with look():
        figure, axes = new_figure(1, 1, 2.0)
        for height, (name, style) in enumerate(looks.items()):
            axes[0, 0].plot([0, 1 if name != "a" else 0.01], [height] * 2, color=style.color, label=name)
        picture = Image.open(io.BytesIO(as_png(figure))).convert("RGB")
    colours = np.array([colour for _, colour in picture.getcolors(2**16)])
    for style in looks.values():
        wanted = [int(style.color[place : place + 2], 16) for place in (1, 3, 5)]
        assert np.linalg.norm(colours - wanted, axis=1).min() < 20


def test_tables_hold_the_numbers(results: dict[str, Any]) -> None:
    text = as_markdown(results)
    psnr = results["conditions"][1]["methods"]["gaussian"]["psnr"]
    assert with_interval(psnr["mean"], psnr["ci95"]) in text
    kept = results["lesions"][0]["kept"][OURS]
    assert f"{with_interval(kept['mean'], kept['ci95'], 1, factor=100)} %" in text
    for table in make_tables(results):
        assert len(table.rows) > 1
        assert {len(row) for row in table.rows} == {len(table.rows[0])}
        assert table.caption in text


def test_short_form_is_the_answer_and_the_fidelity(results: dict[str, Any]) -> None:
    short = in_short(results)
    assert short.startswith("**")
    assert short.count("\n## ") == 1
    assert set(short.splitlines()) < set(as_markdown(results).splitlines())


def test_every_table_has_a_heading_of_its_own(results: dict[str, Any]) -> None:
    headings = [line for line in as_markdown(results).splitlines() if line.startswith("### ")]
    assert len(headings) == len(set(headings)) == len(make_tables(results))
    assert any(line.startswith("### Fidelity: ") for line in headings)


def test_markdown_columns_are_aligned_and_bars_escaped() -> None:
    lines = _markdown_table((("a", "b"), ("one|two", "3"))).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2] == r"| one\|two | 3 |"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(-1234.5, 1), "−1,234.5"), (number(-0.001, 2, True), "0.00"), (number(0.5, 1, True), "+0.5"),
        (number(None), "–"), (number(float("nan")), "–"), (percent(0.125, 1), "12.5 %"),
        (with_interval(0.5, (-0.1, 0.9), 1), "0.5 [−0.1, 0.9]"), (with_interval(0.5, None, 1), "0.5"),
    ],
)  # fmt: skip
def test_numbers(written: str, expected: str) -> None:
    assert written == expected


# ------------------------------------------------------------------------------------------------------------- pictures


def test_pictures_hold_the_images_to_8_bits(outcomes: list[Outcome]) -> None:
    panels = make_panels(outcomes, OURS)
    assert len(panels) == 2
    shown = [o for o in outcomes if o.measure == "fidelity" and "picture" in o.values[OURS]]
    for panel, outcome in zip(panels, shown, strict=True):
        assert [picture.name for picture in panel.pictures] == ["clean", "noisy", OURS, "gaussian"]
        clean = outcome.about["scene"].clean
        assert panel.window == pytest.approx(np.quantile(clean, (0.005, 0.995)))
        assert panel.sigma == pytest.approx(25 / 255, rel=0.05)
        assert not panel.cut
        wanted = {"clean": clean, OURS: as_image(outcome.values[OURS]["picture"], clean.shape)}
        for picture in panel.pictures:
            grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.address.partition(",")[2]))), np.float64)
            values = picture.low + grey / 255 * (picture.high - picture.low)
            if picture.name in wanted:
                error = np.abs(values - wanted[picture.name]).max()
                assert error <= (picture.high - picture.low) / 255 / 2 + 1e-6


def test_pictures_shrink_to_their_middle_where_they_are_too_many(
    outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sum(len(picture.png) for panel in make_panels(outcomes, OURS) for picture in panel.pictures)
    monkeypatch.setattr(panels_of, "_MOST", whole - 1)
    panels = make_panels(outcomes, OURS)
    assert [panel.shape for panel in panels] == [(128, 128)] * 2
    assert all(panel.cut for panel in panels)


@pytest.mark.e2e
def test_names_are_no_formulas(results: dict[str, Any]) -> None:
    """matplotlib would take what stands between dollars for one, and fail on most."""
    text = json.dumps(results).replace('"films"', json.dumps("$\\foo$ " + "long " * 100))
    figures = make_figures(json.loads(text))
    assert len({figure.name for figure in figures}) == len(figures)
    assert max(len(figure.name) for figure in figures) < 200


def test_names_are_no_tags_in_markdown_either(results: dict[str, Any]) -> None:
    text = json.dumps(results).replace('"films"', json.dumps("<script>alert(1)</script>"))
    for words in (as_markdown(json.loads(text)), in_short(json.loads(text))):
        assert words.count("<script>") == words.count(r"\<script>") > 0
