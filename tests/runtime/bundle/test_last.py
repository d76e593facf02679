"""The note of the last bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.last import last_bundle, remember_bundle, state_folder


def test_the_last_bundle_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert last_bundle() is None
    bundle = tmp_path / "a.vla"
    bundle.mkdir()
    remember_bundle(bundle)
    assert last_bundle() == bundle
    bundle.rmdir()
    assert last_bundle() is None


def test_a_relative_state_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert state_folder() == Path.home() / ".local" / "state" / "holdfast"


def test_a_note_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("a file in the way")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(BundleError, match="vla-run"):
        remember_bundle(tmp_path)
