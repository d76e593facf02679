"""Links in the documents lead somewhere, and no placeholder is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .documents import reaction_rows
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


def test_the_table_of_conditions_is_the_one_of_the_code() -> None:
    page = (ROOT / "docs" / "safety.md").read_text()
    table = "\n".join(reaction_rows())
    assert table in page, f"docs/safety.md, Conditions and reactions: the table should be\n{table}"
