"""What is asked for, from every phase in which it may be asked."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import SlotAccount, StarvationAccount
from holdfast.runtime.control.executor import Execution, Path
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.requests import begin_return, take_requests
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.state import Condition, CoreState, Inbox, Note, StopRecord
from holdfast.runtime.messages import Arm, Phase

from .world import MS, config, joint_state

CONFIG = config()
NOW = 1_000_000 * MS
HERE = (0.2, -0.3, 10.0)
PATH = Path(7, NOW, NOW, 50 * MS, (HERE,) * 8)
FOLLOWED = Execution((PATH,), (NOW,))
LATCHED = StopRecord("load", "lift", NOW - 900 * MS, latched=True)
END = Condition("requested", "end of the task")
FOLLOW = Arm(9, False, True, 400 * MS, 300 * MS)
RETURN = Arm(9, True, False, 400 * MS, 300 * MS)
ONLY_HOLD = Arm(9, False, False, 400 * MS, 300 * MS)
ENERGISED = [phase for phase in Phase if phase != Phase.CONNECT]


def energised(phase: Phase = Phase.HOLD, **changes: Any) -> CoreState:
    state = ControlCore(CONFIG).energised(CoreState(), joint_state(HERE, NOW), NOW)
    latched = LATCHED if phase in (Phase.STOPPED, Phase.RELEASED) else None
    return replace(state, phase=phase, **{"stop": latched, "execution": FOLLOWED, **changes})


def asked(state: CoreState, now_ns: int = NOW, **inbox: Any) -> tuple[CoreState, list[tuple[str, str]]]:
    notes: list[Note] = []
    after = take_requests(state, CONFIG, now_ns, Inbox(**inbox), notes)
    return after, [(note.code, note.text) for note in notes]


@pytest.mark.parametrize("phase", ENERGISED)
def test_who_asks_for_nothing_changes_nothing(phase: Phase) -> None:
    state = energised(phase)
    after, notes = asked(state)
    assert after is state
    assert notes == []


# Arm


@pytest.mark.parametrize("phase", [Phase.HOLD, Phase.RUN])
def test_an_arm_that_holds_follows(phase: Phase) -> None:
    record = StopRecord("requested", "end", NOW, latched=False)
    state = energised(phase, stop=record, starved=True, followed=True, policy_heard_ns=1)
    after, notes = asked(state, arm=FOLLOW)
    assert after.phase == Phase.RUN
    assert (after.task_id, after.chunk_age_limit_ns, after.silence_limit_ns) == (9, 400 * MS, 300 * MS)
    assert (after.execution, after.starved, after.followed, after.stop) == (None, False, False, None)
    assert after.policy_heard_ns == NOW
    assert notes == [("running", "task 9; chunks at most 400 ms old, silence at most 300 ms")]


def test_an_arm_may_return_first_or_only_be_told_its_task() -> None:
    after, notes = asked(energised(), arm=RETURN)
    assert (after.phase, after.goal, after.goal_event) == (Phase.RETURN, (0.0, 0.0, 0.5), "at_start")
    assert (after.task_id, notes) == (9, [("arming", "moving to the start pose")])
    after, notes = asked(energised(), arm=ONLY_HOLD)
    assert (after.phase, after.task_id, notes) == (Phase.HOLD, 9, [])


@pytest.mark.parametrize("arm", [FOLLOW, RETURN])
@pytest.mark.parametrize("phase", [Phase.RETURN, Phase.STOPPING, Phase.STOPPED, Phase.RELEASED])
def test_elsewhere_an_arm_request_is_not_obeyed(phase: Phase, arm: Arm) -> None:
    state = energised(phase)
    after, notes = asked(state, arm=arm)
    assert after is state
    assert notes == []


@pytest.mark.parametrize("quitting", ["park", "here"])
def test_an_ending_run_does_not_begin_anything(quitting: Any) -> None:
    state = energised(quitting=quitting)
    assert asked(state, arm=FOLLOW)[0] is state
    after, _ = asked(energised(), arm=FOLLOW, quit=quitting)
    assert (after.phase, after.quitting) == (Phase.HOLD, quitting)


def test_a_pose_is_approached_within_the_limits_less_their_margin() -> None:
    for pose, goal in (
        ((9.0, 9.0, 900.0), (0.99, 1.49, 99.5)),
        ((-9.0, -9.0, -9.0), (-0.99, -1.49, 0.5)),
        ((0.5, -0.5, 50.0), (0.5, -0.5, 50.0)),
    ):
        state = begin_return(energised(at_goal_ns=5, settled_ns=6), CONFIG, pose, "parked")
        assert state.goal == pytest.approx(goal)
        assert (state.phase, state.goal_event) == (Phase.RETURN, "parked")
        assert (state.at_goal_ns, state.settled_ns) == (0, 0)


# Stop: the end of a task


@pytest.mark.parametrize("phase", [Phase.RETURN, Phase.RUN, Phase.STOPPING])
def test_what_moves_is_stopped(phase: Phase) -> None:
    after, notes = asked(energised(phase), stop=END)
    assert (after.phase, after.execution) == (Phase.STOPPING, None)
    assert after.stop == StopRecord("requested", "end of the task", NOW, latched=False)
    assert notes == [("stopping", "end of the task")]


def test_what_holds_goes_on_holding_and_says_so() -> None:
    state = energised(Phase.HOLD)
    after, notes = asked(state, stop=END)
    assert after is state
    assert notes == [("holding", "end of the task")]


@pytest.mark.parametrize("phase", [Phase.STOPPING, Phase.STOPPED, Phase.RELEASED])
def test_a_latched_stop_is_not_replaced_by_the_end_of_a_task(phase: Phase) -> None:
    state = energised(phase, stop=LATCHED)
    after, notes = asked(state, stop=END)
    assert after is state
    assert notes == []


# Quit


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [(None, "park", "park"), (None, "here", "here"), ("park", "park", "park"), ("park", "here", "here"),
     ("here", "park", "here"), ("here", "here", "here")],
)  # fmt: skip
def test_to_stay_here_overrides_to_park(before: Any, wish: Any, after: str) -> None:
    assert asked(energised(quitting=before), quit=wish)[0].quitting == after


@pytest.mark.parametrize("wish", ["park", "here"])
@pytest.mark.parametrize("phase", ENERGISED)
def test_what_moves_is_stopped_before_a_run_ends(phase: Phase, wish: Any) -> None:
    after, notes = asked(energised(phase), quit=wish)
    assert after.phase == (Phase.STOPPING if phase in (Phase.RUN, Phase.RETURN) else phase)
    assert (after.execution, notes) == (None, [])


@pytest.mark.parametrize(
    ("event", "wish", "phase"),
    [
        ("parked", "park", Phase.RETURN),
        ("parked", "here", Phase.STOPPING),
        ("at_start", "park", Phase.STOPPING),
    ],
)
def test_an_arm_on_its_way_to_its_park_pose_goes_on_unless_it_is_to_stay(
    event: str, wish: Any, phase: Phase
) -> None:
    state = energised(Phase.RETURN, goal=HERE, goal_event=event, quitting="park")
    assert asked(state, quit=wish)[0].phase == phase


def test_a_pose_of_before_is_no_way_to_the_park_pose() -> None:
    assert asked(energised(Phase.RUN, goal_event="parked"), quit="park")[0].phase == Phase.STOPPING


# Reset


def stopped(**changes: Any) -> CoreState:
    """As long as it takes: at rest, eased, nothing wrong."""
    return energised(Phase.STOPPED, **{"eased": True, **changes})


def test_a_reset_begins_anew_where_the_arm_is_commanded_to_be() -> None:
    state = stopped(
        motion=Motion(HERE, (1e-7, 0.0, 0.0), (0.0, 0.0, 0.0)),
        seen=frozenset({"load"}),
        slots=SlotAccount(total=9, late=4, in_a_row=4),
        starvation=StarvationAccount(2, 0, 5, ((1, 2),)),
        overload_since_ns=(1, 0, 0),
        overcurrent_since_ns=(1, 0, 0),
        gripping_since_ns=(0, 0, 1),
        stalled_since_ns=(0, 1, 0),
        clamped=(("pan", "lead"),),
        policy_heard_ns=1,
    )
    after, notes = asked(state, reset=True)
    assert (after.phase, after.stop, after.goal, after.eased) == (Phase.HOLD, None, None, False)
    assert after.motion == Motion.at_rest(HERE)
    assert (after.seen, after.clamped, after.policy_heard_ns) == (frozenset(), (), NOW)
    assert after.slots == SlotAccount(total=9, late=4)
    assert after.starvation == StarvationAccount(2, 0, 5)
    for since in (
        after.overload_since_ns,
        after.overcurrent_since_ns,
        after.gripping_since_ns,
        after.stalled_since_ns,
    ):
        assert since == (0, 0, 0)
    assert notes == [("reset", "the latched stop was reset; the arm holds")]


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(2))
def test_a_joint_that_was_pushed_away_is_commanded_to_where_it_is(joint: int, side: int) -> None:
    start = (0.0, 0.0, 0.0)
    for away, is_taken in ((0.2, False), (0.3, False), (0.31, True)):
        at = tuple(side * away if i == joint else 0.0 for i in range(3))
        state = stopped(motion=Motion.at_rest(start), joint=joint_state(at, NOW))
        after, _ = asked(state, reset=True)
        assert after.motion == Motion.at_rest(at if is_taken else start)


REFUSED: list[tuple[CoreState, str]] = [
    (energised(Phase.RELEASED), "the stop released the motors"),
    (energised(Phase.HOLD), "nothing is latched"),
    (energised(Phase.RUN), "nothing is latched"),
    (energised(Phase.STOPPING, stop=LATCHED), "still moving"),
    (stopped(joint=None), "nothing is latched, or the arm is still moving"),
    (stopped(silent=True), "may have lost power"),
    (stopped(eased=False), "still coming to rest"),
    (stopped(goal=HERE), "still coming to rest"),
    (stopped(joint=joint_state(HERE, NOW - 80 * MS - 1)), "the joint state is 80 ms old"),
    (stopped(joint=joint_state(HERE, NOW - 120 * MS)), "the joint state is 120 ms old"),
    (stopped(stop_input_ns=NOW), "a stop input is pressed"),
    (stopped(stop_input_ns=NOW - 199 * MS), "a stop input is pressed"),
    (stopped(joint=changed(joint_state(HERE, NOW), faults=(0, 32, 0))), "lift reports fault bits 0x20"),
    (stopped(joint=changed(joint_state(HERE, NOW), voltage_v=(7.4, 7.4, 2.0))), "grip at 2.0 V"),
]


@pytest.mark.parametrize(("state", "why"), REFUSED)
def test_a_reset_is_refused_with_the_reason(state: CoreState, why: str) -> None:
    after, notes = asked(state, reset=True)
    assert after is state
    assert [code for code, _ in notes] == ["reset"]
    assert notes[0][1].startswith("refused: ")
    assert why in notes[0][1]


@pytest.mark.parametrize(
    "state",
    [
        stopped(joint=joint_state(HERE, NOW - 80 * MS)),
        stopped(stop_input_ns=NOW - 200 * MS),
        stopped(stop_input_ns=0),
    ],
)
def test_at_the_edge_of_what_is_refused_a_reset_is_accepted(state: CoreState) -> None:
    assert asked(state, reset=True)[0].phase == Phase.HOLD


def test_a_stop_input_in_the_first_moments_of_a_clock_counts() -> None:
    state = stopped(joint=joint_state(HERE, 0), stop_input_ns=1)
    assert asked(state, reset=True, now_ns=5)[0] is state
    assert asked(replace(state, stop_input_ns=0), reset=True, now_ns=5)[0].phase == Phase.HOLD


# Several at once


def test_what_comes_with_a_reset_moves_nothing() -> None:
    assert asked(stopped(), reset=True, arm=FOLLOW)[0].phase == Phase.HOLD
    assert asked(stopped(), reset=True, quit="park")[0].quitting == "here"


def test_a_stop_and_then_the_end_are_both_taken() -> None:
    after, _ = asked(energised(Phase.RUN), stop=END, quit="here")
    assert (after.phase, after.quitting) == (Phase.STOPPING, "here")
    assert after.stop is not None
    assert not after.stop.latched


# A reset input, of which the supervisor does not know yet


DONE = {"eased": True, "goal": None, "execution": None}
VOID = ("void", "an order to move from before the reset")


@pytest.mark.parametrize("line", [False, True])
def test_after_a_reset_input_an_order_to_move_may_be_from_before_the_stop(line: bool) -> None:
    after, notes = asked(energised(Phase.STOPPED, **DONE), reset=True, reset_line=line)
    assert (after.phase, after.unacknowledged) == (Phase.HOLD, line)
    assert notes == [("reset", "the latched stop was reset; the arm holds")]
    for order in (FOLLOW, RETURN):
        ordered, notes = asked(after, arm=order)
        assert (ordered.phase != Phase.HOLD) is not line
        assert (notes == [VOID]) is line
        assert (ordered is after) is line


def test_the_supervisors_own_reset_says_that_it_knows() -> None:
    waiting = energised(unacknowledged=True)
    after, notes = asked(waiting, reset=True)
    assert (after.unacknowledged, after.phase, notes) == (False, Phase.HOLD, [])
    assert asked(after, arm=FOLLOW)[0].phase == Phase.RUN


def test_nothing_else_says_that_the_supervisor_knows() -> None:
    waiting = energised(unacknowledged=True)
    again, notes = asked(waiting, reset=True, reset_line=True)
    assert again.unacknowledged
    assert [code for code, _ in notes] == ["reset"], "refused: nothing is latched"
    assert asked(waiting)[0] is waiting
    stopped = asked(waiting, stop=END)[0]
    assert stopped.unacknowledged


@pytest.mark.parametrize("line", [False, True])
def test_a_later_stop_needs_its_own_reset(line: bool) -> None:
    """What is said about the reset before counts no more, whoever resets this one."""
    again = energised(Phase.STOPPED, unacknowledged=True, **DONE)
    after, notes = asked(again, reset=True, reset_line=line)
    assert (after.phase, after.unacknowledged) == (Phase.HOLD, line)
    assert notes == [("reset", "the latched stop was reset; the arm holds")]
    moving = energised(Phase.STOPPING, stop=LATCHED, unacknowledged=True)
    refused, notes = asked(moving, reset=True, reset_line=line)
    assert (refused.latched, refused.unacknowledged, notes[0][0]) == (True, True, "reset")
