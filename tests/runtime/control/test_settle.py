"""What follows once the command is at rest, each comparison at its limit and a hair beyond it."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.settle import at_rest, settle
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.state import Condition, CoreState, Finish, Note, StopRecord
from holdfast.runtime.messages import Phase

from .world import MS, config, joint_state

CONFIG = config()
NOW = 1_000_000 * MS
HERE = (0.2, -0.3, 10.0)
STOP = StopRecord("load", "lift", NOW - 100 * MS, latched=True)


def energised(phase: Phase = Phase.HOLD, **changes: Any) -> CoreState:
    state = ControlCore(CONFIG).energised(CoreState(), joint_state(HERE, NOW), NOW)
    return replace(state, phase=phase, **changes)


def settled(
    state: CoreState, now_ns: int = NOW, **settings: Any
) -> tuple[CoreState, Finish | None, Condition | None, list[Note]]:
    notes: list[Note] = []
    after, finish, condition = settle(state, changed(CONFIG, **settings), now_ns, notes)
    return after, finish, condition, notes


def moving() -> Motion:
    return Motion(HERE, (0.0, 0.1, 0.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
@pytest.mark.parametrize("what", ["velocity", "acceleration"])
def test_rest_is_no_velocity_and_no_acceleration_in_any_joint(what: str, joint: int, side: int) -> None:
    for value, rests in ((0.0, True), (0.99e-6, True), (1e-6, False), (0.5, False)):
        values = tuple(side * value if i == joint else 0.0 for i in range(3))
        motion = Motion(HERE, **{"velocity": (0.0,) * 3, "acceleration": (0.0,) * 3, what: values})
        assert at_rest(motion) is rests


@pytest.mark.parametrize("phase", [Phase.RETURN, Phase.STOPPING, Phase.HOLD])
def test_while_the_command_moves_nothing_follows_and_nothing_has_settled(phase: Phase) -> None:
    state = energised(phase, motion=moving(), quitting="here", at_goal_ns=5, settled_ns=7)
    after, finish, condition, notes = settled(state)
    assert (after.at_goal_ns, after.settled_ns) == (0, 0)
    assert (after.phase, finish, condition, notes) == (phase, None, None, [])
    assert settled(replace(state, at_goal_ns=0))[0].settled_ns == 0
    assert settled(replace(state, settled_ns=0))[0].at_goal_ns == 0
    untouched = replace(state, at_goal_ns=0, settled_ns=0)
    assert settled(untouched)[0] is untouched


# A pose


def returning(**changes: Any) -> CoreState:
    return energised(Phase.RETURN, goal=HERE, goal_event="at_start", **changes)


def test_a_pose_is_reached_once_the_arm_has_stood_there_for_a_while() -> None:
    state = returning()
    after, _, _, notes = settled(state)
    assert (after.phase, after.at_goal_ns, after.settled_ns, notes) == (Phase.RETURN, NOW, NOW, [])
    later, _, _, notes = settled(after, NOW + 99 * MS)
    assert (later.phase, later.at_goal_ns, later.settled_ns, notes) == (Phase.RETURN, NOW, NOW, [])
    there, finish, condition, notes = settled(later, NOW + 100 * MS)
    assert (there.phase, there.goal, there.goal_event) == (Phase.HOLD, None, "")
    assert (finish, condition) == (None, None)
    assert [(note.code, note.text) for note in notes] == [("at_start", "the pose is reached")]


def test_a_pose_counts_as_reached_only_by_a_sample_from_after_it_was_commanded() -> None:
    """Motors that fell silent on the way are not known to be there, however near they were."""
    state = returning(joint=joint_state(HERE, NOW - 1))
    for now in (NOW, NOW + 100 * MS, NOW + 200 * MS):
        state, finish, condition, notes = settled(state, now)
        assert (state.phase, state.at_goal_ns, state.settled_ns) == (Phase.RETURN, NOW, 0)
        assert (finish, condition, notes) == (None, None, [])
    seen = settled(replace(state, joint=joint_state(HERE, NOW)), NOW + 200 * MS)[0]
    assert seen.settled_ns == NOW + 200 * MS


def test_a_pose_to_park_in_ends_the_run() -> None:
    state = replace(returning(), goal_event="parked", quitting="park", at_goal_ns=1, settled_ns=1)
    after, finish, condition, notes = settled(state)
    assert (after.phase, finish, condition) == (Phase.HOLD, "release", None)
    assert [note.code for note in notes] == ["parked"]


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
def test_a_pose_is_commanded_before_it_can_be_reached(joint: int, side: int) -> None:
    for away, commanded in ((0.0009, True), (0.001, False), (0.5, False)):
        goal = tuple(side * away if i == joint else 0.0 for i in range(3))
        zero = (0.0, 0.0, 0.0)
        state = replace(
            returning(at_goal_ns=5, settled_ns=6, joint=joint_state(zero, NOW)),
            goal=goal,
            motion=Motion.at_rest(zero),
        )
        after, finish, condition, notes = settled(state, 7)
        assert (after.at_goal_ns, after.settled_ns) == ((5, 6) if commanded else (0, 0))
        assert (after.phase, finish, condition, notes) == (Phase.RETURN, None, None, [])


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
def test_an_arm_that_is_not_near_its_pose_has_not_arrived_but_a_gripper_may_hold_something(
    joint: int, side: int
) -> None:
    lead = (0.5, 0.5, 101.0)
    for away, stands in ((0.25, True), (0.2501, False), (0.6, False)):
        at = tuple((side * away * (202 if i == 2 else 1) if i == joint else 0.0) for i in range(3))
        state = replace(
            returning(at_goal_ns=5, settled_ns=6, joint=joint_state(at, NOW)),
            goal=(0.0, 0.0, 0.0),
            motion=Motion.at_rest((0.0, 0.0, 0.0)),
        )
        after = settled(state, 7, lead=lead)[0]
        assert (after.at_goal_ns, after.settled_ns) == (5, 6 if stands or joint == 2 else 0)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
def test_an_arm_that_swings_has_not_arrived(joint: int, side: int) -> None:
    limit = CONFIG.kinematic.velocity[joint]
    for share, stands in ((0.05, True), (0.0505, False)):
        velocity = tuple((side * share * limit if i == joint else 0.0) for i in range(3))
        sample = changed(joint_state(HERE, NOW), velocity=velocity)
        after = settled(returning(at_goal_ns=5, settled_ns=6, joint=sample), 7)[0]
        assert after.settled_ns == (6 if stands or joint == 2 else 0)


def test_an_arm_that_does_not_arrive_in_time_is_a_condition_with_its_distance() -> None:
    sample = joint_state((0.2, 0.3, 50.0), NOW)
    state = returning(joint=sample, at_goal_ns=NOW)
    assert settled(state, NOW + 3000 * MS)[2] is None
    after, finish, condition, notes = settled(state, NOW + 3000 * MS + 1)
    assert condition == Condition("not_reached", "lift at 0.300 of -0.300")
    assert (after.phase, finish, notes) == (Phase.RETURN, None, [])


def test_the_distance_names_every_joint_that_is_away_and_never_a_gripper() -> None:
    sample = joint_state((-0.7, 0.3, 90.0), NOW)
    condition = settled(returning(joint=sample, at_goal_ns=1), NOW)[2]
    assert condition == Condition("not_reached", "pan at -0.700 of 0.200, lift at 0.300 of -0.300")
    at_the_edge = joint_state((0.0, 0.0, 0.0), NOW)
    state = replace(
        returning(at_goal_ns=1), goal=(0.25, -0.25, 0.0), motion=Motion.at_rest((0.25, -0.25, 0.0)),
        joint=changed(at_the_edge, velocity=(0.5, 0.0, 0.0)),
    )  # fmt: skip
    condition = settled(state, NOW, lead=(0.5, 0.5, 101.0))[2]
    assert condition == Condition("not_reached", "the arm does not come to rest")


def test_without_a_sample_or_a_goal_nothing_has_arrived() -> None:
    for missing in ({"joint": None}, {"goal": None}):
        state = replace(returning(at_goal_ns=0), **missing)
        after, finish, condition, _ = settled(state)
        assert (after.phase, finish, condition) == (Phase.RETURN, None, None)
        assert (after.at_goal_ns, after.settled_ns) == (0, 0)


# A stop


def test_a_stop_that_is_not_latched_ends_in_holding() -> None:
    record = StopRecord("requested", "end of the task", NOW, latched=False)
    after, finish, condition, notes = settled(energised(Phase.STOPPING, stop=record))
    assert (after.phase, after.stop, finish, condition) == (Phase.HOLD, None, None, None)
    assert [(note.code, note.text) for note in notes] == [("holding", "end of the task")]
    assert settled(energised(Phase.STOPPING))[3][0].text == "stopped"


def test_a_latched_stop_ends_in_holding_still() -> None:
    state = energised(Phase.STOPPING, stop=STOP, goal=HERE, goal_event="parked", eased=True)
    after, finish, condition, notes = settled(state)
    assert (after.phase, after.stop, after.goal, after.goal_event) == (Phase.STOPPED, STOP, None, "")
    assert (after.eased, after.rest_ns, finish, condition, notes) == (False, NOW, None, None, [])


@pytest.mark.parametrize(
    ("quitting", "after_fault", "ends"),
    [
        (None, "release_here", None),
        ("here", "release_here", "release"),
        ("park", "release_here", "release"),
        ("park", "hold_energised", "hold"),
    ],
)
def test_a_stop_of_category_1_releases_at_rest(quitting: Any, after_fault: str, ends: str | None) -> None:
    state = energised(Phase.STOPPING, stop=changed(STOP, category=1), quitting=quitting)
    after, finish, condition, notes = settled(state, after_fault=after_fault)
    assert (after.phase, finish, condition) == (Phase.RELEASED, ends, None)
    assert [(note.code, note.text) for note in notes] == [("stopped", "at rest; load")]


def stopped(**changes: Any) -> CoreState:
    return energised(Phase.STOPPED, **{"stop": STOP, "rest_ns": NOW, **changes})


def at(position: tuple[float, ...], **changes: Any) -> Any:
    return changed(joint_state(position, NOW), **changes)


def test_a_stopped_arm_that_presses_on_nothing_is_done_at_once() -> None:
    after, finish, condition, notes = settled(stopped())
    assert (after.phase, after.eased, after.goal, finish, condition) == (
        Phase.STOPPED,
        True,
        None,
        None,
        None,
    )
    assert [(note.code, note.text) for note in notes] == [("stopped", "at rest; load")]
    again = settled(after, NOW + 10 * MS)
    assert again[3] == [], "said once"


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(2))
def test_what_presses_is_eased_to_a_quarter_of_its_lead(joint: int, side: int) -> None:
    lead = (0.5, 0.5, 101.0)
    for off, goal_off in ((0.125, None), (0.2, 0.125), (0.5, 0.125)):
        measured = tuple(side * off if i == joint else 0.0 for i in range(3))
        state = stopped(motion=Motion.at_rest((0.0, 0.0, 0.0)), joint=at(measured))
        after, _, _, notes = settled(state, lead=lead)
        assert after.eased
        if goal_off is None:
            assert (after.goal, [note.code for note in notes]) == (None, ["stopped"])
            continue
        assert after.goal == tuple(side * (off - goal_off) if i == joint else 0.0 for i in range(3))
        assert notes == []


def test_a_gripper_keeps_its_grip() -> None:
    state = stopped(joint=at((0.2, -0.3, 90.0)))
    after = settled(state)[0]
    assert (after.eased, after.goal) == (True, None)


@pytest.mark.parametrize("side", [-1, 1])
def test_nothing_is_eased_further_outside_the_limits_than_it_was(side: int) -> None:
    for commanded, measured, goal in (
        (0.9, 1.4, 1.0),
        (1.02, 1.4, None),
        (1.02, 0.5, 0.5 + 0.3 * 0.25),
    ):
        state = stopped(
            motion=Motion.at_rest((side * commanded, 0.0, 10.0)), joint=at((side * measured, 0.0, 10.0))
        )
        after = settled(state)[0]
        assert after.goal == (None if goal is None else pytest.approx((side * goal, 0.0, 10.0)))


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
def test_an_arm_that_still_swings_is_waited_for_but_not_for_ever(joint: int, side: int) -> None:
    limit = CONFIG.kinematic.velocity[joint]
    for share, waits in ((0.05, False), (0.0505, True)):
        velocity = tuple(side * share * limit if i == joint else 0.0 for i in range(3))
        state = stopped(joint=at(HERE, velocity=velocity))
        after, finish, condition, notes = settled(state, NOW + 499 * MS)
        assert after.eased is not (waits and joint != 2)
        assert (finish, condition) == (None, None)
        assert bool(notes) is after.eased
        assert settled(state, NOW + 500 * MS)[0].eased


def test_an_arm_that_was_eased_is_not_eased_again() -> None:
    state = stopped(eased=True, goal=HERE, joint=at((-0.5, 0.5, 10.0)))
    after, _, _, notes = settled(state)
    assert (after.eased, after.goal) == (True, None)
    assert [note.code for note in notes] == ["stopped"]


@pytest.mark.parametrize("blind", [{"silent": True}, {"joint": None}])
def test_an_arm_that_cannot_be_seen_is_not_eased(blind: dict[str, Any]) -> None:
    state = stopped(**{"joint": at((0.9, -0.3, 10.0)), "goal": HERE, **blind})
    after = settled(state)[0]
    assert (after.eased, after.goal) == (True, None)


@pytest.mark.parametrize(
    ("quitting", "after_fault", "ends"),
    [
        (None, "hold_energised", None),
        (None, "release_here", None),
        ("here", "hold_energised", "hold"),
        ("park", "release_here", "release"),
    ],
)
def test_after_a_fault_the_run_ends_in_place_as_the_robot_file_says(
    quitting: Any, after_fault: str, ends: str | None
) -> None:
    assert settled(stopped(quitting=quitting), after_fault=after_fault)[1] == ends
    pressing = stopped(quitting=quitting, joint=at((0.5, -0.3, 10.0)))
    assert settled(pressing, after_fault=after_fault)[1] is None, "first it is eased"
    released = energised(Phase.RELEASED, stop=changed(STOP, category=1), quitting=quitting)
    assert settled(released, after_fault=after_fault)[1] == ends


# The end of a run


@pytest.mark.parametrize(
    ("at_exit", "after_fault", "quitting", "phase", "ends"),
    [
        ("park_release", "hold_energised", "park", Phase.RETURN, None),
        ("park_release", "hold_energised", "here", Phase.STOPPED, None),
        ("park_release", "release_here", "here", Phase.HOLD, "release"),
        ("release_here", "hold_energised", "park", Phase.HOLD, "release"),
        ("release_here", "hold_energised", "here", Phase.STOPPED, None),
        ("hold_energised", "release_here", "park", Phase.STOPPED, None),
        ("hold_energised", "release_here", "here", Phase.STOPPED, None),
    ],
)
def test_a_normal_end_is_as_the_robot_file_says(
    at_exit: str, after_fault: str, quitting: Any, phase: Phase, ends: str | None
) -> None:
    state = energised(quitting=quitting, eased=True, goal=HERE)
    after, finish, condition, notes = settled(state, at_exit=at_exit, after_fault=after_fault)
    assert (after.phase, finish, condition) == (phase, ends, None)
    if phase == Phase.RETURN:
        assert (after.goal, after.goal_event) == ((0.0, -0.5, 0.5), "parked")
        assert [(note.code, note.text) for note in notes] == [("parking", "moving to the park pose")]
    else:
        assert notes == []
    if phase == Phase.STOPPED:
        # Left holding, it must not be left pressing.
        assert (after.eased, after.goal, after.rest_ns) == (False, None, NOW)
        last, finish, condition, notes = settled(after, at_exit=at_exit, after_fault=after_fault)
        assert (last.phase, finish, condition, notes) == (Phase.STOPPED, "hold", None, [])


@pytest.mark.parametrize("phase", [Phase.HOLD, Phase.RUN, Phase.STOPPED])
def test_nobody_who_was_not_asked_ends_a_run(phase: Phase) -> None:
    assert settled(energised(phase, stop=STOP if phase == Phase.STOPPED else None))[1] is None


def test_a_run_that_ends_in_motion_of_the_arm_itself_comes_to_rest_first() -> None:
    """RETURN and RUN are left by the request to end; until then nothing is decided."""
    for phase in (Phase.RETURN, Phase.RUN):
        after, finish, condition, notes = settled(energised(phase, quitting="park"))
        assert (after.phase, finish, condition, notes) == (phase, None, None, [])
