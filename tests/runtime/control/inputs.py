"""Stop and reset inputs in use, for tests."""

from __future__ import annotations

from holdfast.runtime.control.state import Note
from holdfast.runtime.control.stop_inputs import StopInputs

from ...processes import wait_for

SPACE, ENTER = 57, 28


def opened(*stops: str, resets: tuple[str, ...] = ()) -> StopInputs:
    inputs = StopInputs(stops, resets)
    inputs.open()
    return inputs


def codes(inputs: StopInputs) -> list[str]:
    return [condition.code for condition in inputs.poll().conditions]


def reopened(inputs: StopInputs) -> list[Note]:
    """What is said about those that are gone, once it has been tried."""
    notes = inputs.reopen()
    wait_for(lambda: notes.extend(inputs.poll().notes) or notes, "an answer", 10.0)
    return notes
