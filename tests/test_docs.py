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


def anchors(document: Path) -> set[str]:
    """What its headings can be linked by: small letters, no marks, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_to_one(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert anchor in anchors(document.parent / target if target else document), f"{target}#{anchor}"


def test_readme_names_verbs_and_files_that_exist() -> None:
    from meddenoise_monai import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^meddenoise (\w+)", text, re.M))
    assert verbs
    assert verbs <= set(cli._VERBS)
    for path in re.findall(r"bundle/configs/\w+\.json", text):
        assert (ROOT / path).is_file(), path
