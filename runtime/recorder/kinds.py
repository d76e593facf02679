"""What is in the rings: the number of every kind of record, and the version of their contents."""

from __future__ import annotations

from enum import IntEnum

FORMAT = 1
"""Raised when records of an older Holdfast can no longer be read."""


SPAN_S = 30.0
"""How far back the rings reach, at the least."""


REASON_FILE = "reason"
"""A member of a written file: the code of what it was written for."""
REQUEST, KILLED = "request", "killed"
"""Reasons beside the codes of stops: a person asked; found at a later start, when all processes were gone."""


class Kind(IntEnum):
    """Each kind is in one ring only: below 16 control's, below 32 the policy's, then the supervisor's."""

    TICK = 1
    CHUNK = 2
    STATE = 3
    BUS = 4
    FRAME = 16
    INFERENCE = 17
    FAULT = 18
    TASK = 19
    EVENT = 32
    STAGE = 33
    SNAPSHOT = 34


class RecordingError(ValueError):
    """Not a recording, or one that cannot be read; the text says what to do."""
