"""Corners of the core that a run seldom meets."""

from __future__ import annotations

import math

import pytest

from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.state import Condition, CoreState, Inbox
from holdfast.runtime.messages import Phase

from .test_core import HERE, ramp
from .world import MS, Bench, chunk, config


def test_before_torque_a_fault_refuses_and_a_request_to_end_ends() -> None:
    core = ControlCore(config())
    state, output = core.step(CoreState(), 1, None, Inbox(conditions=(Condition("bus_lost", "gone"),)))
    assert (output.finish, output.setpoint, state.motion) == ("release", None, None)
    assert [(note.code, note.text) for note in output.notes] == [("refused", "bus_lost: gone")]
    _, output = core.step(CoreState(), 1, None, Inbox(conditions=(Condition("bus_error", "once"),)))
    assert (output.finish, output.notes) == (None, ())
    _, output = core.step(CoreState(), 1, None, Inbox(quit="park"))
    assert (output.finish, output.notes) == ("release", ())


def test_chunks_that_came_too_late_for_a_tick_are_counted() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(superseded=2))
    bench.tick(Inbox(superseded=1))
    assert bench.state.counters.superseded_chunks == 3


def followed(motion: Motion) -> Bench:
    """The next setpoint of an arm that follows a chunk, had it come to be commanded like this."""
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.state = replace(bench.state, motion=motion)
    bench.tick(position=motion.position)
    return bench


@pytest.mark.parametrize(
    ("motion", "code"),
    [
        (Motion((0.99, -0.3, 10.0), (1.9, 0.0, 0.0), (0.0, 0.0, 0.0)), "position_limit"),
        (Motion((0.95, -0.3, 10.0), (1.2, 0.0, 0.0), (0.0, 0.0, 0.0)), "stopping_distance"),
        (Motion((0.2, -0.3, 10.0), (2.5, 0.0, 0.0), (0.0, 0.0, 0.0)), "velocity_limit"),
    ],
)
def test_a_setpoint_that_a_check_refuses_is_a_stop_which_brakes(motion: Motion, code: str) -> None:
    bench = followed(motion)
    assert bench.stop_code() == code
    assert bench.state.phase == Phase.STOPPING
    assert bench.state.motion == bench.core.smoother.brake(motion)


def test_where_no_trajectory_goes_on_the_last_setpoint_is_held() -> None:
    bench = followed(Motion(HERE, (math.inf, 0.0, 0.0), (0.0, 0.0, 0.0)))
    assert bench.stop_code() == "no_trajectory"
    assert bench.state.motion == Motion.at_rest(HERE)
    assert bench.state.phase == Phase.STOPPED


def test_empty_limits_are_no_configuration() -> None:
    for changes in ({"lead": (0.3, 0.3)}, {"joint_names": ()}, {"grip": ()}):
        with pytest.raises(ValueError, match="empty limits"):
            config(**changes)
    assert isinstance(config(), CoreConfig)


def test_a_state_has_no_other_fields_than_its_own() -> None:
    with pytest.raises(TypeError, match="CoreState has no phaze"):
        replace(CoreState(), phaze=Phase.RUN)


def test_a_chunk_of_another_task_that_is_too_old_is_only_counted() -> None:
    bench = Bench()
    bench.start()
    old = chunk(ramp(0.4), chunk_id=1, observation_ns=bench.now_ns - 900 * MS, task_id=7)
    bench.tick(Inbox(chunk=old))
    assert bench.state.counters.other_task_chunks == 1
    assert not bench.state.latched


def test_a_moving_average_begins_where_the_arm_is_and_ends_with_the_chunk() -> None:
    bench = Bench(ControlCore(config(ema_s=0.1)))
    bench.start()
    assert bench.state.ema is None
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    first = bench.state.ema
    assert first is not None
    share = 1 - math.exp(-0.1)
    ahead = 0.2 + 0.7 / 7 * 2  # 100 ms further along the path
    assert first.position == pytest.approx((0.2 + share * (ahead - 0.2), -0.3, 10.0))
    assert first.velocity == pytest.approx((share * 2.0, 0.0, 0.0))
    assert bench.last_target == first.position
    bench.run(60)
    assert (bench.state.starved, bench.state.ema) == (True, None)


def test_a_sequential_policy_is_not_heard_before_its_chunk_has_been_carried_out() -> None:
    bench = Bench(ControlCore(config(strategy="sequential", chunk_steps=1)))
    bench.start()
    bench.tick(Inbox(chunk=chunk([(0.3, -0.3, 10.0)], chunk_id=1, observation_ns=bench.now_ns)))
    execution = bench.state.execution
    assert execution is not None
    assert execution.end_ns > bench.now_ns + 10 * MS
    bench.tick(Inbox(chunk=chunk([(0.9, -0.3, 10.0)], chunk_id=2, observation_ns=bench.now_ns)))
    assert (bench.state.counters.superseded_chunks, bench.state.last_chunk_id) == (1, 1)
    bench.run(100)
    assert bench.setpoints[-1][0] == pytest.approx(0.3)
    assert not bench.state.starved, "the end of a sequential chunk is held, not starved of"
    bench.tick(Inbox(chunk=chunk([(0.4, -0.3, 10.0)], chunk_id=2, observation_ns=bench.now_ns - 200 * MS)))
    newest = bench.state.execution
    assert newest is not None
    assert newest.origin_ns == bench.now_ns, "it begins when it comes"


def test_a_chunk_that_has_wholly_expired_is_not_followed() -> None:
    bench = Bench(ControlCore(config(chunk_dt_ns=20 * MS)))
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns, dt_ns=20 * MS)))
    bench.run(20)
    expired = chunk(ramp(0.9), chunk_id=2, observation_ns=bench.now_ns - 160 * MS, dt_ns=20 * MS)
    bench.tick(Inbox(chunk=expired))
    assert (bench.state.counters.superseded_chunks, bench.state.last_chunk_id) == (1, 2)
    execution = bench.state.execution
    assert execution is not None
    assert execution.chunk_id == 1
