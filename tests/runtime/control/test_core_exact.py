"""The core to the last number: times at their bound, each code of each set, what a stop leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import HOLD_NS, REACTIONS, SUPERVISOR_SILENCE_NS
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.state import Condition, CoreState, Inbox, Note, Output, StopRecord
from holdfast.runtime.messages import Phase

from .test_core import HERE, ramp
from .world import MS, Bench, arm, chunk, config, joint_state

OF_THE_POLICY = {
    "policy_lost",
    "policy_silent",
    "policy_error",
    "frame_age",
    "frozen_camera",
    "black_camera",
    "camera_lost",
    "non_finite",
}
STOPS = [code for code, row in REACTIONS.items() if row.kind == "stop"]


def bench_with(**changes: object) -> Bench:
    return Bench(core=ControlCore(config(**changes)))


def following(bench: Bench | None = None, to: float = 0.9) -> Bench:
    """In motion, after a chunk."""
    bench = bench or Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(to), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(10)
    assert bench.state.motion is not None
    assert bench.state.motion.velocity[0] > 0.1
    return bench


def hit(bench: Bench, *codes: str, **inbox: Any) -> Output:
    return bench.tick(Inbox(conditions=tuple(Condition(code, "x") for code in codes), **inbox))


def until(bench: Bench, reached: Callable[[CoreState], bool]) -> None:
    """Ticks of at most two seconds."""
    for _ in range(200):
        if reached(bench.state):
            return
        bench.tick()
    raise AssertionError("this state was not reached")


# A stop


@pytest.mark.parametrize("code", [*STOPS, "unknown"])
def test_what_a_stop_leaves_behind(code: str) -> None:
    bench = following()
    hit(bench, code)
    assert bench.state.stop == StopRecord(code, "x", bench.now_ns, latched=True, category=2)
    assert bench.state.phase == Phase.STOPPING
    assert (bench.state.execution, bench.state.goal, bench.state.seen) == (None, None, {code})
    assert bench.notes[-1] == Note("stop", f"{code}: x", 2.0)
    assert bench.state.silent is (code in ("bus_lost", "bus_write_failed"))
    assert bench.state.quitting == ("here" if code in ("supervisor_lost", "supervisor_silent") else None)
    assert bench.state.stop_input_ns == (bench.now_ns if code.startswith("stop_input") else 0)


@pytest.mark.parametrize("code", [*STOPS, "unknown"])
def test_once_the_run_is_ending_the_policy_is_no_reason_to_stop_and_all_else_is(code: str) -> None:
    bench = following()
    bench.tick(Inbox(quit="park"))
    hit(bench, code)
    assert bench.state.latched is (code not in OF_THE_POLICY)


@pytest.mark.parametrize("declared", [0, 1, 2])
@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_the_category_is_the_one_that_is_chosen_but_no_lower_than_the_robots(
    declared: int, chosen: int
) -> None:
    bench = following(bench_with(stop_category=declared, reactions={"voltage": f"stop_{chosen}"}))
    hit(bench, "voltage")
    assert bench.state.stop is not None
    assert bench.state.stop.category == max(declared, chosen)
    assert bench.notes[-1].code == ("stopped" if bench.state.stop.category == 0 else "stop")
    assert (bench.state.phase == Phase.RELEASED) is (bench.state.stop.category == 0)


def test_a_worse_fault_lowers_the_category_and_changes_nothing_else_of_the_record() -> None:
    chosen = {"camera_lost": "stop_2", "voltage": "stop_1", "load": "stop_1"}
    bench = following(bench_with(stop_category=0, reactions=chosen))
    hit(bench, "camera_lost")
    first = bench.now_ns
    hit(bench, "voltage")
    assert bench.state.stop == StopRecord("camera_lost", "x", first, latched=True, category=1)
    hit(bench, "load")
    hit(bench, "voltage")
    assert bench.state.stop == StopRecord("camera_lost", "x", first, latched=True, category=1)
    assert bench.state.seen == {"camera_lost", "voltage", "load"}
    told = [note.text for note in bench.notes if note.code == "also"]
    assert told == ["voltage: x", "load: x"], "each once"
    output = hit(bench, "motor_fault")
    assert bench.state.stop == StopRecord("camera_lost", "x", first, latched=True, category=0)
    assert (output.release, output.setpoint) == (True, None)
    output = hit(bench, "temperature")
    assert (output.release, bench.codes().count("stopped")) == (False, 1), "released once"


def test_what_was_commanded_means_nothing_after_the_torque_was_cut() -> None:
    bench = following(bench_with(stop_category=0))
    here = (0.25, -0.2, 11.0)
    bench.tick(Inbox(conditions=(Condition("voltage", "x"),)), position=here)
    assert bench.state.motion == Motion.at_rest(here)
    assert bench.state.goal_event == ""


def test_lower_than_category_1_is_a_stop_of_category_1_while_the_command_is_eased() -> None:
    """It brakes the easing, and lets go."""
    chosen = {"camera_lost": "stop_2", "voltage": "stop_1"}
    bench = bench_with(stop_category=1, reactions=chosen)
    bench.arm_follows = False
    bench.start()
    for i in range(1, 40):
        bench.tick(Inbox(chunk=chunk([(0.9, -0.3, 60.0)] * 8, chunk_id=i, observation_ns=bench.now_ns)))
    hit(bench, "camera_lost")
    until(bench, lambda state: state.goal is not None)
    bench.run(3)
    before = bench.state.motion
    assert before is not None
    output = hit(bench, "voltage")
    assert (bench.state.phase, bench.state.goal) == (Phase.STOPPING, None)
    assert bench.state.motion == bench.core.smoother.brake(before)
    assert not output.release
    assert sum(bench.tick().release for _ in range(30)) == 1


# Silence, age, time


@pytest.mark.parametrize(("late_ns", "silent"), [(0, False), (1, True)])
def test_motors_that_were_silent_for_longer_than_allowed_may_have_lost_their_power(
    late_ns: int, silent: bool
) -> None:
    """Whatever the stop is for: what counts is how old the last sample is."""
    bench = following()
    assert bench.state.joint is not None
    now_ns = bench.state.joint.stamp_ns + 80 * MS + late_ns
    inbox = Inbox(conditions=(Condition("requested", "x"),), heard_policy=True, heard_supervisor=True)
    state, output = bench.core.step(bench.state, now_ns, None, inbox)
    assert state.silent is silent
    assert output.setpoint is not None, "it brakes"


def test_without_any_sample_the_motors_count_as_silent() -> None:
    bench = following()
    state = replace(bench.state, joint=None)
    inbox = Inbox(conditions=(Condition("requested", "x"),), heard_policy=True, heard_supervisor=True)
    state, output = bench.core.step(state, bench.now_ns + 10 * MS, None, inbox)
    assert state.silent
    assert output.setpoint is not None
    state, _ = ControlCore(config(stop_category=0)).step(
        replace(bench.state, joint=None), bench.now_ns + 10 * MS, None, inbox
    )
    assert state.phase == Phase.RELEASED


def test_motors_that_fall_silent_keep_braking_and_get_nothing_at_rest() -> None:
    bench = following()
    hit(bench, "bus_lost")
    outputs = [bench.tick() for _ in range(60)]
    braking = [output for output in outputs if output.setpoint is not None]
    assert len(braking) > 3
    assert outputs[: len(braking)] == braking
    assert outputs[-1].setpoint is None


def test_motors_that_fall_silent_in_a_move_to_a_pose_keep_their_goal_until_the_stop() -> None:
    bench = bench_with()
    bench.tick(Inbox(arm=arm(back=True, follow=False)))
    bench.run(5)
    hit(bench, "bus_lost")
    assert bench.state.goal is None


def test_the_goal_of_easing_is_dropped_when_the_motors_fall_silent() -> None:
    bench = Bench(arm_follows=False)
    bench.start()
    for i in range(1, 40):
        bench.tick(Inbox(chunk=chunk([(0.9, -0.3, 60.0)] * 8, chunk_id=i, observation_ns=bench.now_ns)))
    hit(bench, "requested")
    until(bench, lambda state: state.goal is not None)
    hit(bench, "voltage")
    assert bench.state.goal is not None, "another fault changes nothing of it"
    hit(bench, "bus_lost")
    assert (bench.state.goal, bench.state.silent) == (None, True)


def test_time_never_runs_backwards() -> None:
    bench = following()
    state, _ = bench.core.step(bench.state, bench.now_ns - 500 * MS, None, Inbox())
    assert state.now_ns == bench.now_ns
    state, _ = bench.core.step(bench.state, bench.now_ns + 7, None, Inbox())
    assert state.now_ns == bench.now_ns + 7


def test_torque_is_held_where_the_arm_was_measured_and_everybody_counts_as_just_heard() -> None:
    core, sample = ControlCore(config()), joint_state(HERE, 5)
    state = core.energised(CoreState(still_since_ns=3), sample, 7)
    assert (state.phase, state.motion, state.joint) == (Phase.HOLD, Motion.at_rest(HERE), sample)
    assert (state.still_since_ns, state.supervisor_heard_ns, state.policy_heard_ns) == (7, 7, 7)


@pytest.mark.parametrize(
    ("inbox", "policy", "supervisor"),
    [
        (Inbox(), False, False),
        (Inbox(heard_policy=True), True, False),
        (Inbox(heard_supervisor=True), False, True),
        (Inbox(chunk=chunk(ramp(0.4), chunk_id=1, observation_ns=1)), True, False),
    ],
)
def test_who_was_heard(inbox: Inbox, policy: bool, supervisor: bool) -> None:
    bench = Bench(beats=False)
    begun = bench.now_ns
    bench.tick(inbox)
    assert bench.state.policy_heard_ns == (bench.now_ns if policy else begun)
    assert bench.state.supervisor_heard_ns == (bench.now_ns if supervisor else begun)


def test_a_silent_supervisor_stops_at_its_time_and_ends_the_run() -> None:
    bench = Bench(beats=False)
    ticks = SUPERVISOR_SILENCE_NS // (10 * MS)
    bench.run(ticks)
    assert not bench.state.latched
    bench.tick()
    assert bench.stop_code() == "supervisor_silent"
    assert bench.state.quitting == "here"


def test_what_began_before_the_first_sample_is_not_held_against_a_joint() -> None:
    bench = bench_with(current_a=1.0, grip=(None, None, (0.6, 300 * MS)))
    bench.tick(bus=False)
    bench.tick(load=(1.0, 1.0, 1.0), current_a=(9.0, 9.0, 9.0))
    assert not bench.state.latched
    assert bench.state.overload_since_ns == (bench.now_ns, bench.now_ns, 0)
    assert bench.state.overcurrent_since_ns == (bench.now_ns, bench.now_ns, 0)
    assert bench.state.gripping_since_ns == (0, 0, bench.now_ns)
    began = bench.now_ns
    bench.tick(bus=False)
    bench.tick(load=(1.0, 1.0, 1.0), current_a=(9.0, 9.0, 9.0))
    assert bench.state.overload_since_ns == bench.state.overcurrent_since_ns == (began, began, 0)
    assert bench.state.gripping_since_ns == (0, 0, began)


def test_starvation_ends_with_the_stop() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.4), chunk_id=1, observation_ns=bench.now_ns)))
    until(bench, lambda state: state.starvation.since_ns > 0)
    assert bench.state.starved
    bench.tick()
    hit(bench, "requested")
    bench.run(3)
    assert bench.state.starvation.since_ns == 0
    assert bench.state.starvation.times == 1


def test_a_stop_input_among_others_is_seen() -> None:
    bench = Bench()
    hit(bench, "bus_error", "stop_input")
    assert bench.state.stop_input_ns == bench.now_ns
    pressed = bench.now_ns
    hit(bench, "bus_error")
    assert bench.state.stop_input_ns == pressed


# Holding


def test_a_hold_ends_when_its_condition_was_not_noticed_for_as_long_as_is_said() -> None:
    bench = following(bench_with(reactions={"over_budget": "hold"}))
    hit(bench, "over_budget")
    assert bench.notes[-1] == Note("over_budget", "x; the arm holds")
    noticed = bench.now_ns
    assert bench.state.held_until_ns == noticed + HOLD_NS
    assert (bench.state.execution, bench.state.starved, bench.state.held_by) == (
        None,
        False,
        ("over_budget",),
    )
    assert HOLD_NS % (10 * MS) == 0
    while bench.now_ns + 10 * MS < noticed + HOLD_NS:
        bench.tick()
        assert bench.state.held_by
    bench.tick()
    assert (bench.state.held_by, bench.state.held_until_ns) == ((), 0)
    assert bench.notes[-1] == Note("resumed", "not noticed any more: over_budget")


def test_a_hold_ends_with_the_stop_and_without_a_word() -> None:
    bench = following(bench_with(reactions={"over_budget": "hold"}))
    hit(bench, "over_budget")
    hit(bench, "requested")
    assert bench.state.held_by == ()
    assert "resumed" not in bench.codes()


def test_a_hold_is_said_once_and_only_counted_where_nothing_is_followed() -> None:
    bench = bench_with(reactions={"over_budget": "hold"})
    hit(bench, "over_budget")
    assert (bench.notes[-1], bench.state.held_by) == (Note("over_budget", "x"), ())
    bench = following(bench)
    for _ in range(3):
        hit(bench, "over_budget")
    assert sum("the arm holds" in note.text for note in bench.notes) == 1


def test_a_chunk_that_comes_while_the_arm_holds_is_of_no_use_any_more() -> None:
    bench = following(bench_with(reactions={"over_budget": "hold"}))
    hit(bench, "over_budget")
    output = bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=2, observation_ns=bench.now_ns)))
    counters = bench.state.counters
    assert (counters.superseded_chunks, counters.chunks, bench.state.last_chunk_id) == (1, 1, 2)
    assert (bench.state.execution, output.new_chunk_id) == (None, 0)
