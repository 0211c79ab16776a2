"""The documents: every relative link leads somewhere, every configuration and verb they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bundle" / "docs" / "README.md"])


def test_documents_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS}
    assert names >= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/architecture.md", "bundle/docs/README.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def sections(document: Path) -> dict[str, str]:
    """The text below each heading, by what links name the heading: small letters, no marks, hyphens for spaces."""
    _, *parts = re.split(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.M)
    names = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in parts[::2]]
    return dict(zip(names, parts[1::2], strict=True))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_to_one(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert anchor in sections(document.parent / target if target else document), f"{target}#{anchor}"


CLAIM = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\(([^)#]*(?:evidence|benchmarks)\.md)#([^)]+)\)")


@pytest.mark.parametrize("name", ["README.md", "bundle/docs/README.md"])
def test_numbers_of_claims_stand_where_their_links_lead(name: str) -> None:
    document = ROOT / name
    claims = [claim for claim in CLAIM.findall(document.read_text(encoding="utf-8")) if re.search(r"\d", claim[0])]
    assert len(claims) > 5
    for words, target, anchor in claims:
        section = re.findall(r"\d+(?:\.\d+)?", sections(document.parent / target)[anchor])
        for number in re.findall(r"\d+(?:\.\d+)?", words.replace("BM3D", "")):
            assert number in section, f"{number} of {words!r} is not in {target}#{anchor}"


def test_readme_names_verbs_and_files_that_exist() -> None:
    from meddenoise_monai import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^meddenoise (\w+)", text, re.M))
    assert verbs
    assert verbs <= set(cli._VERBS)
    for path in re.findall(r"bundle/configs/\w+\.json", text):
        assert (ROOT / path).is_file(), path
