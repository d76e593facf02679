"""Replay: the same decisions bit for bit, and what was altered is found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from holdfast.runtime.control.state import CoreState, Note
from holdfast.runtime.messages import Phase
from holdfast.runtime.recorder.records import Recording, Tick
from holdfast.runtime.recorder.replay import first_difference, replay

from ..control.world import MS, joint_state
from .flight import Flight


def with_tick(recording: Recording, index: int, tick: Tick) -> Recording:
    ticks = list(recording.ticks)
    ticks[index] = tick
    return replace(recording, ticks=tuple(ticks))


@pytest.mark.parametrize("strategy", ["sequential", "newest", "crossfade", "ensemble", "average", "fusion"])
def test_a_run_with_a_stop_is_replayed_bit_for_bit(strategy: str) -> None:
    recording = Flight({"strategy": strategy, "ema_s": 0.05}).go(120).stop().rest().recording()
    result = replay(recording)
    assert result.identical
    assert len(result.steps) == len(recording.ticks)
    assert result.states == len(recording.states) - 1, "all but the first, which it starts from"
    assert result.steps[-1].after.phase == recording.ticks[-1].phase


def test_a_setpoint_altered_in_its_last_bit_is_found_at_its_tick() -> None:
    recording = Flight().go(120).recording()
    tick = recording.ticks[77]
    assert tick.output.setpoint is not None
    first, *others = tick.output.setpoint
    output = replace(tick.output, setpoint=(math.nextafter(first, math.inf), *others))
    result = replay(with_tick(recording, 77, replace(tick, output=output)))
    assert not result.identical
    assert result.difference is not None
    assert (result.difference.index, result.difference.what) == (77, "setpoint[0]")
    assert result.difference.replayed == repr(first)
    assert len(result.steps) == 77


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", None),
        ("notes", (Note("clamped", "pan: lead"),)),
        ("finish", "hold"),
        ("release", True),
        ("new_chunk_id", 99),
    ],
)
def test_every_part_of_an_output_is_compared(field: str, value: object) -> None:
    recording = Flight().go(60).recording()
    tick = recording.ticks[40]
    output = replace(tick.output, **{field: value})  # pyright: ignore[reportArgumentType]
    result = replay(with_tick(recording, 40, replace(tick, output=output)))
    assert result.difference is not None
    assert (result.difference.index, result.difference.what.split("[")[0]) == (40, field)


def test_the_phase_is_compared() -> None:
    recording = Flight().go(60).recording()
    altered = replace(recording.ticks[40], phase=Phase.HOLD)
    result = replay(with_tick(recording, 40, altered))
    assert result.difference is not None
    assert (result.difference.index, result.difference.what) == (40, "phase")


def test_an_altered_measurement_changes_what_follows() -> None:
    recording = Flight(goal=0.9).go(120).recording()
    tick = recording.ticks[60]
    assert tick.joint is not None
    joint = replace(tick.joint, position=(0.0, *tick.joint.position[1:]))
    result = replay(with_tick(recording, 60, replace(tick, joint=joint)))
    assert result.difference is not None
    assert result.difference.index == 60


def test_a_state_that_is_not_reached_is_found() -> None:
    recording = Flight().go(120).recording()
    index, state = recording.states[1]
    altered = replace(state, last_chunk_id=state.last_chunk_id + 1)
    states = (recording.states[0], (index, altered), *recording.states[2:])
    result = replay(replace(recording, states=states))
    assert result.difference is not None
    assert result.difference.what == "state.last_chunk_id before it"
    assert result.difference.index == index


def test_the_state_after_the_last_tick_is_compared_too() -> None:
    flight = Flight().go(120)
    last = (len(flight.tape.ticks), flight.bench.state)
    recording = flight.recording(states=(*flight.tape.states, last))
    assert replay(recording).identical
    wrong = (last[0], replace(last[1], task_id=7))
    assert not replay(flight.recording(states=(*flight.tape.states, wrong))).identical


def test_switching_torque_on_is_followed_and_checked() -> None:
    """The one change outside `step`: before it there is no torque, after it the arm is held."""
    flight = Flight()
    sample = joint_state(flight.bench.arm_at, flight.bench.now_ns)
    before = CoreState()
    flight.bench.state = before
    flight.bench.run(5)
    flight.bench.state = flight.tape.energised(flight.bench.state, sample, flight.bench.now_ns)
    armed = (5, flight.bench.state)
    flight.go(30)
    states = ((0, before), armed)
    assert replay(flight.recording(states=states)).states == 1
    assert replay(flight.recording(states=states)).identical
    wrong = replace(armed[1], policy_heard_ns=1)
    assert not replay(flight.recording(states=((0, before), (5, wrong)))).identical


def test_after_missing_records_replay_starts_at_the_next_state() -> None:
    recording = Flight().go(180).recording()
    ticks = (*recording.ticks[:70], *recording.ticks[75:])
    states = tuple((i if i <= 70 else i - 5, state) for i, state in recording.states)
    result = replay(replace(recording, ticks=ticks, states=states, gaps=frozenset({70})))
    assert result.identical
    assert result.skipped == 25
    assert len(result.steps) == len(ticks) - 25


def test_without_a_state_nothing_is_identical() -> None:
    recording = Flight().go(20).recording(states=())
    result = replay(recording)
    assert not result.identical
    assert result.skipped == len(recording.ticks)


def test_values_that_the_core_cannot_carry_are_a_difference_not_a_crash() -> None:
    recording = Flight().go(60).recording()
    tick = recording.ticks[30]
    assert tick.joint is not None
    result = replay(with_tick(recording, 30, replace(tick, joint=replace(tick.joint, position=(0.1,)))))
    assert result.difference is not None
    assert result.difference.index == 30


def test_bits_count_not_equality() -> None:
    sample = joint_state((0.1, 0.2, float("nan")), 5 * MS)
    assert first_difference(sample, replace(sample), "joint") is None
    assert first_difference(0.0, -0.0, "x") == ("x", "0.0", "-0.0")
    assert first_difference(1, 1.0, "x") is not None
    assert first_difference((1.0, 2.0), (1.0,), "x") is not None
    other = replace(sample, position=(0.1, 0.3, 1.0))
    assert first_difference(sample, other, "joint")[0].startswith("joint.position[1]")  # pyright: ignore
