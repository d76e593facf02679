"""What the recorder of a run would come to, as `--check` tells it, and as the run then does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime import check
from holdfast.runtime.recorder import begin, folder
from holdfast.runtime.recorder.begin import foresee

RESOLVED: Any = None
ROOM = 5_000_000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder; the rings of both children take 5 MB."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(begin, "ring_bytes", lambda resolved: ROOM)
    return tmp_path / "state" / "holdfast"


def args(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"no_record": False, "record": None, "rt": "warn", **changes})


def test_it_says_where_the_rings_and_the_files_would_lie_and_leaves_none(place: Path, memory: Path):
    row = check._recorder_row(args(), RESOLVED)
    assert row.ok
    assert row.actual == f"rings of 6.0 MB in {memory}; files in {place / 'recordings'}"
    assert not list(memory.iterdir())
    assert not place.exists()


def test_a_folder_that_the_run_refuses_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    row = check._recorder_row(args(record=tmp_path / "file" / "recordings"), RESOLVED)
    assert not row.ok
    assert "--record" in row.fix


def test_rings_on_a_disk_are_said(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "_in_memory", list)
    row = check._recorder_row(args(), RESOLVED)
    assert row.ok
    assert f"{place / 'rings'}, on a disk" in row.actual


def test_with_rt_strict_there_are_none_on_a_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "_in_memory", list)
    row = check._recorder_row(args(rt="strict"), RESOLVED)
    assert row.ok, "the run goes on without"
    assert row.actual.startswith("off: there is no place for the rings")


def test_files_that_could_not_be_written_are_said(place: Path):
    place.parent.touch()
    assert "NOT WRITABLE" in foresee(args(), RESOLVED).text


def test_no_recorder_needs_no_place():
    assert foresee(args(no_record=True), RESOLVED).text == "off (--no-record)"
