"""What the supervisor asked for within one tick: its order counts."""

from __future__ import annotations

import pytest

from holdfast.runtime.control.inbox import Requests
from holdfast.runtime.envelope import Envelope
from holdfast.runtime.messages import Arm, Event, Heartbeat, Message, Quit, Reset, Stop

from .world import MS

ARM = Arm(1, False, True, 300 * MS, 300 * MS)


def taken(*messages: Message) -> Requests:
    requests = Requests()
    requests.take([Envelope(1, number, 0, message) for number, message in enumerate(messages)])
    return requests


def test_a_reset_and_then_an_arm_are_both_taken() -> None:
    requests = taken(Reset(), ARM)
    assert requests.reset
    assert requests.arm == ARM


def test_an_arm_before_a_reset_was_asked_of_a_stopped_arm_and_is_void() -> None:
    """It must not move as soon as somebody resets it."""
    requests = taken(ARM, Reset())
    assert requests.reset
    assert requests.arm is None


def test_a_run_that_is_to_end_is_not_reset_any_more() -> None:
    """It would park, where it was to stay as it is after a fault."""
    assert not taken(Quit(park=True), Reset()).reset
    requests = taken(Reset(), Quit(park=True))
    assert requests.reset
    assert requests.quit == "park"


def test_the_last_word_of_arm_and_stop_counts() -> None:
    assert taken(ARM, Stop(False, "end of the task")).arm is None
    assert taken(Stop(False, "end of the task"), ARM).stop is None


@pytest.mark.parametrize("messages", [(Quit(True), Quit(False)), (Quit(False), Quit(True))])
def test_stay_here_overrides_park(messages: tuple[Quit, Quit]) -> None:
    assert taken(*messages).quit == "here"


def test_a_latched_stop_is_a_condition_and_nothing_undoes_it() -> None:
    requests = taken(Stop(True, "space"), ARM, Reset(), Heartbeat())
    assert [condition.code for condition in requests.conditions] == ["requested"]


def test_what_the_supervisor_never_sends_is_a_breach_of_protocol() -> None:
    assert [condition.code for condition in taken(Stop(True, "x"), Event(0, "x", "x")).conditions][
        -1
    ] == "protocol"
