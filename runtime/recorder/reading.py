"""A recording from its file, or from the rings of a run that died."""

from __future__ import annotations

from pathlib import Path

from .records import Recording


def read_recording(path: Path) -> Recording:
    """Reads a written `.flight` file, or the folder of rings that a dead run has left.

    Damage costs what is damaged and is said in `notes`. Raises `RecordingError` for what is no recording, or
    has no ring of control that can be read.
    """
    raise NotImplementedError
