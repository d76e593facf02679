"""Links in the documents lead somewhere, and no placeholder is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .house import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_placeholder_was_left(page: Path) -> None:
    assert not re.search(r"%[A-Z]{3,}%|\bTODO\b|\bFIXME\b|\bTBD\b", page.read_text())
