"""Rings of these tests lie in memory, but never among those of real runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.runtime.recorder import folder


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place in memory of this test alone; processes that it starts use it too."""
    place = Path("/dev/shm") / f"holdfast-test-{os.getpid()}-{tmp_path.name}"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setattr(folder, "_SHARED_MEMORY", place / "none")
    yield place / "holdfast"
    shutil.rmtree(place)
