"""The core to the last number: which chunk is followed until when, what is clamped, what counts as still."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.smoother import LOOKAHEAD_S, Motion
from holdfast.runtime.control.state import Condition, Inbox, Note
from holdfast.runtime.messages import Phase

from .test_core import HERE, ramp
from .test_core_exact import bench_with, following, hit
from .world import MS, Bench, arm, chunk

# Chunks


def test_a_tick_says_which_chunk_it_followed_for_the_first_time() -> None:
    bench = Bench()
    bench.start()
    output = bench.tick(Inbox(chunk=chunk(ramp(0.4), chunk_id=7, observation_ns=bench.now_ns)))
    assert (output.new_chunk_id, bench.state.last_chunk_id, bench.state.followed) == (7, 7, True)
    assert bench.state.counters.chunks == 1
    assert bench.tick().new_chunk_id == 0
    assert "resumed" not in bench.codes()


def test_a_chunk_that_leads_to_a_stop_in_its_tick_was_not_followed() -> None:
    """What is commanded is too fast already: the check of the setpoint refuses."""
    bench = following()
    bench.state = replace(bench.state, motion=Motion(HERE, (2.5, 0.0, 0.0), (0.0, 0.0, 0.0)))
    new = chunk(ramp(0.9), chunk_id=2, observation_ns=bench.now_ns)
    output = bench.tick(Inbox(chunk=new), position=HERE)
    assert bench.stop_code() == "velocity_limit"
    assert output.new_chunk_id == 0


@pytest.mark.parametrize(
    ("changed", "counter"),
    [({"task_id": 9}, "other_task_chunks"), ({"rows": ramp(0.4)[:3]}, "rejected_chunks")],
)
def test_a_chunk_that_is_not_followed_is_counted_and_not_named(changed: dict, counter: str) -> None:
    bench = Bench()
    bench.start()
    rows = changed.pop("rows", ramp(0.4))
    new = chunk(rows, chunk_id=1, observation_ns=bench.now_ns, **changed)
    assert bench.tick(Inbox(chunk=new)).new_chunk_id == 0
    assert getattr(bench.state.counters, counter) == 1
    assert (bench.state.counters.chunks, bench.state.last_chunk_id) == (0, 0)
    assert bench.codes().count("chunk_rejected") == (counter == "rejected_chunks")


def test_outside_of_a_task_chunks_are_nothing() -> None:
    bench = Bench()
    new = chunk(ramp(0.4), chunk_id=1, observation_ns=bench.now_ns)
    assert bench.tick(Inbox(chunk=new)).new_chunk_id == 0
    assert (bench.state.counters.chunks, bench.state.execution) == (0, None)


@pytest.mark.parametrize(("late_ns", "followed"), [(0, True), (1, False)])
def test_a_chunk_is_of_use_until_its_very_end(late_ns: int, followed: bool) -> None:
    bench = _short()
    seen = bench.now_ns + 10 * MS - 7 * 20 * MS - late_ns
    output = bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=2, observation_ns=seen, dt_ns=20 * MS)))
    assert output.new_chunk_id == (2 if followed else 0)
    assert bench.state.counters.superseded_chunks == (not followed)
    assert bench.state.last_chunk_id == 2


def _short() -> Bench:
    """Chunks of 140 ms, so that one can end before it is too old; in motion."""
    bench = bench_with(chunk_dt_ns=20 * MS)
    bench.start()
    early = bench.now_ns - 150 * MS
    bench.state = replace(bench.state, still_since_ns=0)
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=early + 30 * MS, dt_ns=20 * MS)))
    bench.state = replace(bench.state, still_since_ns=0, execution=None)
    return bench


def test_a_path_is_followed_up_to_its_last_moment() -> None:
    bench = following()
    execution = bench.state.execution
    assert execution is not None
    while bench.now_ns + 10 * MS < execution.end_ns:
        bench.tick()
    now_ns = execution.end_ns
    spy = Spy(bench.core)
    for late_ns, asked, starved in ((0, True, False), (1, False, True)):
        sample = replace_stamp(bench, now_ns)
        inbox = Inbox(heard_policy=True, heard_supervisor=True)
        state, output = bench.core.step(bench.state, now_ns + late_ns, sample, inbox)
        assert (output.target is not None, state.starved) == (asked, starved)
        assert [duration for _, duration in spy.asked] == ([LOOKAHEAD_S] if asked else [])
        spy.asked.clear()


def replace_stamp(bench: Bench, now_ns: int) -> Any:
    assert bench.state.joint is not None
    return dataclasses.replace(bench.state.joint, stamp_ns=now_ns - MS)


def test_a_sequential_chunk_is_approached_at_its_end_in_the_shortest_time() -> None:
    bench = bench_with(strategy="sequential", chunk_steps=1)
    bench.start()
    bench.tick(Inbox(chunk=chunk([(0.3, -0.3, 10.0)], chunk_id=1, observation_ns=bench.now_ns)))
    execution = bench.state.execution
    assert execution is not None
    spy = Spy(bench.core)
    inbox = Inbox(heard_policy=True, heard_supervisor=True)
    for late_ns in (0, 1):
        now_ns = execution.end_ns + late_ns
        bench.core.step(bench.state, now_ns, replace_stamp(bench, now_ns), inbox)
    assert [duration for _, duration in spy.asked] == [LOOKAHEAD_S, 0.0]


@pytest.mark.parametrize(("early_ns", "followed"), [(0, True), (1, False)])
def test_a_sequential_policy_must_have_seen_the_end_of_its_chunk(early_ns: int, followed: bool) -> None:
    bench = bench_with(strategy="sequential", chunk_steps=1)
    bench.start()
    bench.tick(Inbox(chunk=chunk([(0.3, -0.3, 10.0)], chunk_id=1, observation_ns=bench.now_ns)))
    execution = bench.state.execution
    assert execution is not None
    bench.run(10)
    seen = execution.end_ns - early_ns
    output = bench.tick(Inbox(chunk=chunk([(0.4, -0.3, 10.0)], chunk_id=2, observation_ns=seen)))
    assert output.new_chunk_id == (2 if followed else 0)
    assert bench.state.counters.superseded_chunks == (not followed)


def test_an_old_chunk_out_of_order_is_told_as_out_of_order() -> None:
    bench = following()
    old = chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns - 400 * MS)
    bench.tick(Inbox(chunk=old))
    assert bench.stop_code() == "chunk_bad"
    assert bench.state.counters.rejected_chunks == 1
    assert Note("chunk_rejected", "chunk 1 came after chunk 1") in bench.notes


def test_a_moving_average_goes_on_from_itself() -> None:
    bench = bench_with(ema_s=0.1)
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    first = bench.state.ema
    assert first is not None
    bench.tick()
    second = bench.state.ema
    assert second is not None
    share = 1 - math.exp(-0.1)
    ahead = 0.2 + 0.7 / 7 * 2.2  # 110 ms further along the path
    assert second.position[0] == pytest.approx(first.position[0] + share * (ahead - first.position[0]))
    assert second.velocity[0] == pytest.approx(first.velocity[0] + share * (2.0 - first.velocity[0]))


# Clamps and stillness


def test_each_tick_with_a_clamp_counts_once_and_each_clamp_is_said_when_it_begins() -> None:
    bench = Bench(arm_follows=False)
    bench.start()
    for i in range(1, 6):
        bench.tick(Inbox(chunk=chunk([(3.0, -3.0, 10.0)] * 8, chunk_id=i, observation_ns=bench.now_ns)))
    assert bench.state.counters.clamped == 5
    both = (("pan", "position"), ("pan", "lead"), ("lift", "position"), ("lift", "lead"))
    assert bench.state.clamped == both
    told = [note.text for note in bench.notes if note.code == "clamped"]
    assert told == [f"{joint}: {reason}" for joint, reason in both]
    bench.tick(Inbox(chunk=chunk([(3.0, -0.3, 10.0)] * 8, chunk_id=6, observation_ns=bench.now_ns)))
    assert bench.state.clamped == both[:2]
    bench.tick(Inbox(chunk=chunk([(0.2, -0.3, 10.0)] * 8, chunk_id=7, observation_ns=bench.now_ns)))
    assert (bench.state.clamped, bench.state.counters.clamped) == ((), 6)
    bench.tick(Inbox(chunk=chunk([(3.0, -0.3, 10.0)] * 8, chunk_id=8, observation_ns=bench.now_ns)))
    assert bench.codes().count("clamped") == 6, "it is said again when it begins again"
    hit(bench, "requested")
    assert bench.state.clamped == ()


@pytest.mark.parametrize(
    ("velocity", "still"),
    [
        ((0.001, 0.0, 0.0), True),
        ((0.0, -0.001, 0.0), True),
        ((0.0, 0.0, 0.1), True),
        ((0.00101, 0.0, 0.0), False),
        ((-0.00101, 0.0, 0.0), False),
        ((0.0, 0.0, -0.101), False),
    ],
)
def test_what_counts_as_standing_still(velocity: tuple[float, ...], still: bool) -> None:
    """A milliradian per second, of a gripper a tenth of a percent; one joint that moves is enough."""
    bench = Bench(arm_at=(0.0, 0.0, 0.0))
    since = bench.state.still_since_ns
    assert since > 0
    position = tuple(v * 10 * MS * 1e-9 for v in velocity)
    bench.core._brake = lambda before: Motion.at_rest(position)
    bench.tick()
    assert bench.state.still_since_ns == (since if still else 0)
    bench.core._brake = lambda before: before
    bench.tick(position=position)
    assert bench.state.still_since_ns == (since if still else bench.now_ns)


# Trajectories


class Spy:
    """A smoother that says what it was asked for."""

    def __init__(self, core: ControlCore) -> None:
        self._real, core.smoother = core.smoother, self  # pyright: ignore[reportAttributeAccessIssue]
        self.asked: list[tuple[tuple[float, ...], float]] = []

    def toward(self, before: Motion, position: Any, velocity: Any, duration_s: float) -> Motion:
        self.asked.append((tuple(velocity), duration_s))
        return self._real.toward(before, position, velocity, duration_s)

    def brake(self, before: Motion) -> Motion:
        return self._real.brake(before)


def test_a_path_is_followed_at_a_constant_lookahead_and_a_pose_in_the_shortest_time() -> None:
    bench = Bench()
    spy = Spy(bench.core)
    following(bench)
    assert {duration for _, duration in spy.asked} == {LOOKAHEAD_S}
    assert spy.asked[0][0] == pytest.approx((2.0, 0.0, 0.0))
    bench.tick(Inbox(stop=Condition("requested", "done")))
    bench.run(60)
    spy.asked.clear()
    bench.tick(Inbox(arm=arm(back=True, follow=False)))
    bench.run(5)
    assert spy.asked == [((0.0, 0.0, 0.0), 0.0)] * 6


def test_a_move_to_a_pose_is_not_hurried_by_a_chunk_that_is_left_over() -> None:
    bench = following()
    spy = Spy(bench.core)
    assert bench.state.execution is not None
    bench.state = replace(bench.state, phase=Phase.RETURN, goal=(0.0, 0.0, 10.0))
    bench.tick()
    assert spy.asked == [((0.0, 0.0, 0.0), 0.0)]
