"""The last exported bundle: remembered by vla-export, used by vla-run when none is named."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import BundleError


def state_folder() -> Path:
    """$XDG_STATE_HOME/holdfast, by the XDG base directory specification ~/.local/state/holdfast."""
    home = os.environ.get("XDG_STATE_HOME", "")
    # The specification: a relative path is invalid and must be ignored.
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "holdfast"


def remember_bundle(path: Path) -> Path:
    """Notes the bundle; returns the note's path. Raises `BundleError` when the note cannot be written."""
    note = state_folder() / "last-bundle"
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_name(f".last-bundle.{os.getpid()}")
        fresh.write_text(f"{path.resolve()}\n")
        fresh.replace(note)
    except OSError as error:
        raise BundleError(
            f"the last bundle cannot be noted in {note}: {error.strerror}; check XDG_STATE_HOME, "
            f"or name the bundle: vla-run {path}"
        ) from error
    return note


def last_bundle() -> Path | None:
    """The bundle noted last, or None when there is no note or the bundle is gone."""
    try:
        text = (state_folder() / "last-bundle").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    path = Path(text)
    return path if text and "\0" not in text and path.is_dir() else None
