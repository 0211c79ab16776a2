"""The page is whole and well-formed, loads nothing, shows data as text, and says what is missing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from meddenoise_monai.evaluation.study import Outcome
from meddenoise_monai.report import Report, write_report
from meddenoise_monai.report.page import make_page
from meddenoise_monai.report.panels import make_panels
from tests.small_study import OURS

VOID = {"meta", "img", "input", "br"}
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags that are closed in order; the words of each; addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def first_box(page: str) -> str:
    """What comes first after the title."""
    found = re.search(r'<main>\s*<div class="answer">.*?</div>', page, re.S)
    assert found is not None
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", "", found[0])).strip()


@pytest.fixture
def page(results: dict[str, Any], outcomes: list[Outcome]) -> str:
    return make_page(results, [], make_panels(outcomes, OURS))


def test_page_is_well_formed(page: str) -> None:
    found = Page(page)
    assert found.open == []
    assert found.of("html") == [{"lang": "en"}]
    assert len(found.of("h1")) == 1
    assert len(found.of("table")) == len(found.of("caption")) >= 10
    assert all(title.get("scope") in ("col", "row") for title in found.of("th"))
    assert all(image.get("alt") for image in found.of("img"))
    places = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(places) == len(set(places))
    assert {link["href"] for link in found.of("a")} <= {f"#{place}" for place in places}


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    found = Page(page)
    addresses = [value for _, attrs in found.tags for key, value in attrs.items() if key in ("src", "href", "srcset")]
    assert len(addresses) > 5
    assert all(address and address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not re.search(r"https?://|@import|url\(|\beval\(|<link|<iframe|fetch\(", page)


def test_policy_allows_this_script_and_style_and_nothing_else(page: str) -> None:
    policy = next(meta["content"] for meta in Page(page).of("meta") if "http-equiv" in meta)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r'<[^>]+ (style|on\w+)="', page)


def renamed(results: Any, old: str, new: str) -> Any:
    if isinstance(results, dict):
        return {renamed(key, old, new): renamed(value, old, new) for key, value in results.items()}
    if isinstance(results, list):
        return [renamed(value, old, new) for value in results]
    return results.replace(old, new) if isinstance(results, str) else results


@pytest.mark.parametrize("name", ["films", OURS])
def test_names_are_shown_as_text(results: dict[str, Any], name: str) -> None:
    page = make_page(renamed(results, name, EVIL), [], None)
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert len(Page(page).of("script")) == 1


def test_neither_patients_nor_files_are_named(page: str) -> None:
    assert not re.search(r"patient \d|film\d", page)


def test_the_first_box_says_where_it_is_worse(results: dict[str, Any]) -> None:
    entry = results["lesions"][0]
    entry["kept"]["gaussian"]["mean"], entry["kept"][OURS]["mean"] = 0.875, 0.25
    entry["differences"]["gaussian"] = {"difference": -0.625, "ci95": [-0.7, -0.5], "word": "worse"}
    words = first_box(make_page(results, [], None))
    assert words.startswith(f"{OURS} (median filter) is worse than at least one other method by ")
    assert "With so few patients for so many comparisons the tests of PSNR" in words
    assert "Contrast kept of annotated lesions: 25.0 % against 87.5 % of gaussian" in words


def test_what_this_run_lacks_is_said(results: dict[str, Any]) -> None:
    whole = make_page(results, [], None)
    assert "3 patients of films: with fewer than 10, intervals are too narrow" in whole
    assert "cannot come out below p = 0.05" in whole
    assert "None of the images has annotated lesions" not in whole
    bare = make_page({**results, "lesions": [], "observers": [], "phantoms": []}, [], None)
    for words in ("None of the images has annotated lesions", "No lesions were inserted", "No phantom was measured"):
        assert words in bare


def test_a_stated_uncertainty_has_its_table(results: dict[str, Any]) -> None:
    entry = {"data": "films", "noise": "gaussian", "level": 25.0, "asked": 0.9, "patients": 12,
             "coverage": {"mean": 0.875, "ci95": [0.8, 0.95]}, "width": {"mean": 0.1, "ci95": None}}  # fmt: skip
    page = make_page({**results, "uncertainty": [entry]}, [], None)
    assert "<h3>Stated uncertainty</h3>" in page
    assert "<td>87.5 <span>[80.0,&nbsp;95.0]&nbsp;%</span></td>" in page
    assert "Stated uncertainty" not in make_page(results, [], None)


@pytest.mark.e2e
def test_pictures_can_be_left_out(
    written: tuple[Path, Report],
    results: dict[str, Any],
    outcomes: list[Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, report = written
    monkeypatch.setattr("meddenoise_monai.report.make_figures", lambda results: report.figures)
    write_report(tmp_path, results, outcomes, pictures=False)
    with_pictures, without = ((place / "report.html").read_text("utf-8") for place in (folder, tmp_path))
    assert with_pictures.count('data-name="clean"') == 2
    assert 'data-name="' not in without.partition("<script>")[0]
    assert "without pictures of the data" in without
    assert report.without_pictures() == without


def test_a_command_to_repeat_it(page: str) -> None:
    command = re.search(r"<pre><code>(.*?)</code></pre>", page)
    assert command is not None
    assert command[1] == (
        "meddenoise compare DATA --output DIR --methods gaussian,median --noise gaussian --levels 15,25 "
        "--realisations 2 --images 64 --window 192 --seed 0"
    )
