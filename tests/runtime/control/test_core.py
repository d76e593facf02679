"""The pure core as a specification: given a state, when something arrives, then this setpoint or stop."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import Condition, CoreState, Inbox
from holdfast.runtime.messages import Phase

from .world import MS, Bench, chunk, config

HERE = (0.2, -0.3, 10.0)


def ramp(to: float) -> list[tuple[float, ...]]:
    return [(0.2 + (to - 0.2) * i / 7, -0.3, 10.0) for i in range(8)]


def test_without_torque_nothing_is_commanded() -> None:
    core = ControlCore(config())
    state, output = core.step(CoreState(), 1, None, Inbox())
    assert output.setpoint is None
    assert state.phase == Phase.CONNECT


def test_holding_commands_the_measured_position_of_arming() -> None:
    bench = Bench()
    bench.run(5)
    assert bench.setpoints == [HERE] * 5


def test_a_chunk_is_followed_and_then_held_as_starvation() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.4), chunk_id=1, observation_ns=bench.now_ns - 20 * MS)))
    bench.run(100)
    assert bench.state.phase == Phase.RUN
    assert bench.setpoints[-1] == pytest.approx((0.4, -0.3, 10.0), abs=0.03)
    assert bench.state.starvation.times == 1
    assert bench.codes().count("starved") == 1
    assert not bench.state.latched


def test_the_first_chunk_of_a_still_arm_starts_at_its_index_0() -> None:
    """Skipping what is stale would make the first command jump while the arm is at rest."""
    bench = Bench()
    bench.start()
    bench.run(20)
    late = chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns - 150 * MS)
    bench.tick(Inbox(chunk=late))
    assert bench.state.execution is not None
    assert bench.state.execution.origin_ns == bench.now_ns


def test_a_chunk_for_a_moving_arm_is_indexed_by_its_observation() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(10)
    second = chunk(ramp(0.9), chunk_id=2, observation_ns=bench.now_ns - 60 * MS)
    bench.tick(Inbox(chunk=second))
    assert bench.state.execution is not None
    assert bench.state.execution.origin_ns == second.observation_ns


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 7])
def test_a_value_that_is_not_finite_refuses_the_whole_chunk(value: float, step: int) -> None:
    bench = Bench()
    bench.start()
    rows = ramp(0.4)
    rows[step] = (0.2, value, 10.0)
    bench.tick(Inbox(chunk=chunk(rows, chunk_id=1, observation_ns=bench.now_ns)))
    assert bench.stop_code() == "chunk_bad"
    assert bench.setpoints[-1] == HERE
    assert bench.state.counters.rejected_chunks == 1


def test_a_chunk_id_that_does_not_rise_is_refused() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.4), chunk_id=5, observation_ns=bench.now_ns)))
    bench.tick(Inbox(chunk=chunk(ramp(0.4), chunk_id=5, observation_ns=bench.now_ns)))
    assert bench.stop_code() == "chunk_bad"


def test_a_chunk_of_another_task_is_dropped() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns, task_id=7)))
    bench.run(20)
    assert bench.setpoints[-1] == HERE
    assert not bench.state.latched


def test_targets_beyond_the_limits_are_clamped_and_counted() -> None:
    bench = Bench()
    bench.start()
    for i in range(1, 120):
        bench.tick(Inbox(chunk=chunk([(3.0, -0.3, 500.0)] * 8, chunk_id=i, observation_ns=bench.now_ns)))
    assert not bench.state.latched
    assert bench.setpoints[-1][0] == pytest.approx(0.99, abs=1e-3)
    assert bench.setpoints[-1][2] == pytest.approx(99.5, abs=1e-3)
    assert bench.state.counters.clamped > 0
    assert "clamped" in bench.codes()


def test_the_end_of_a_task_brakes_and_holds_without_latching() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(10)
    bench.tick(Inbox(stop=Condition("requested", "task finished")))
    bench.run(100)
    assert bench.state.phase == Phase.HOLD
    assert not bench.state.latched
    assert "holding" in bench.codes()


def test_equal_inputs_give_equal_outputs() -> None:
    runs = []
    for _ in range(2):
        bench = Bench()
        bench.start()
        bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
        bench.run(80)
        runs.append(bench.setpoints)
    assert runs[0] == runs[1]


def test_a_pose_inside_the_margin_is_reached_at_the_margin() -> None:
    bench = Bench(core=ControlCore(config(park_pose=(1.0, -1.5, 0.0))))
    finish = bench.tick(Inbox(quit="park")).finish
    for _ in range(800):
        finish = finish or bench.tick().finish
    assert finish == "release"
    assert bench.setpoints[-1][0] == pytest.approx(0.99, abs=1e-3)


@pytest.mark.parametrize(
    "stamps",
    [
        {"inference_end_ns": 2**62},
        {"frame_arrival_ns": -5},
        {"session_run_ns": -(2**63)},
        {"inference_end_ns": 0},
    ],
)
def test_stamps_that_cannot_be_are_refused(stamps: dict[str, int]) -> None:
    bench = Bench()
    bench.start()
    message = replace(chunk(ramp(0.4), chunk_id=1, observation_ns=bench.now_ns), **stamps)
    bench.tick(Inbox(chunk=message))
    assert bench.stop_code() == "chunk_bad"
