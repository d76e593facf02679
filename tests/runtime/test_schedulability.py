"""The arithmetic of the start-up check, against a plain simulation of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.smoother import KinematicLimits
from holdfast.runtime.control.state import Inbox
from holdfast.runtime.control.strategies import STRATEGIES
from holdfast.runtime.schedulability import (
    DECLARED_FRAME_PERIOD_S,
    SETTLE_S,
    Schedule,
    Timing,
    latest_first_use_s,
    schedule,
)

from .control.test_core import ramp
from .control.world import MS, Bench, chunk, config
from .pipeline import Pipeline

NS = 1e-9
ASYNCHRONOUS = sorted(name for name, strategy in STRATEGIES.items() if strategy.asynchronous)


@dataclass(frozen=True)
class Set:
    """A configuration in whole nanoseconds."""

    steps: int
    dt: int
    tick: int
    inference: int
    period: int
    latency: int
    cameras: int

    @property
    def busy(self) -> int:
        """The longest legal inference with its hand-over."""
        return self.inference + self.tick // 2

    def judged(self) -> Schedule:
        timing = Timing(
            steps=self.steps,
            dt_s=self.dt * NS,
            control_period_s=self.tick * NS,
            frame_age_limit_s=10.0,
            inference_s=self.inference * NS,
            frame_period_s=self.period * NS,
            frame_latency_s=self.latency * NS,
            cameras=self.cameras,
            measured=True,
        )
        return schedule(timing, "newest")

    def pipeline(self, phases: tuple[int, ...], tick_phase: int) -> Pipeline:
        path = max(1, self.steps - 1) * self.dt
        return Pipeline(self.period, self.latency, phases, self.tick, tick_phase, path)


HALF_IS_LEFT_OUT = [HealthCheck.filter_too_much]
"""`sets` draws on both sides of the boundary; each test takes one of them."""


@st.composite
def sets(draw: st.DrawFn) -> Set:
    """Around the boundary as often as not: the path is drawn near what is needed."""
    tick = 2 * draw(st.integers(MS // 2, 10 * MS))
    inference, period = draw(st.integers(1, 300 * MS)), draw(st.integers(MS, 120 * MS))
    latency, cameras = draw(st.integers(0, 80 * MS)), draw(st.integers(1, 3))
    needed = round(Set(2, 1, tick, inference, period, latency, cameras).judged().oldest_s / NS)
    steps = draw(st.integers(1, 40))
    path = draw(st.one_of(st.integers(needed - 3 * MS, needed + 3 * MS), st.integers(1, 2 * needed)))
    dt = max(1, path // max(1, steps - 1))
    return Set(steps, dt, tick, inference, period, latency, cameras)


@settings(max_examples=400, deadline=None, suppress_health_check=HALF_IS_LEFT_OUT)
@given(sets(), st.data())
def test_what_is_accepted_never_starves_whatever_the_latencies_up_to_p99(found: Set, data: st.DataObject):
    verdict = found.judged()
    assume(verdict.ok)
    worst, chunks = worst_pattern(found)
    assert not worst.starves(chunks)
    phases = tuple(data.draw(st.integers(0, found.period - 1)) for _ in range(found.cameras))
    pipeline = found.pipeline(phases, data.draw(st.integers(0, found.tick - 1)))
    longest = st.one_of(st.just(found.busy), st.integers(1, found.busy))
    busy = data.draw(st.lists(longest, min_size=2, max_size=30))
    chunks = pipeline.chunks(found.latency + data.draw(st.integers(0, found.period)), busy)
    assert not pipeline.starves(chunks)
    for age, first in pipeline.ages_at_ticks(chunks):
        assert age * NS <= verdict.oldest_s
        assert not first or age * NS <= verdict.first_use_s
        assert age * NS <= verdict.chunk_age_limit_s or not first, "what may happen is never called stale"


@settings(max_examples=400, deadline=None, suppress_health_check=HALF_IS_LEFT_OUT)
@given(sets())
def test_the_bound_is_reached_by_the_first_two_chunks_of_a_run_if_their_paths_begin_at_the_observation(
    found: Set,
):
    """For longer than a frame's period, every later pair may be like them; shorter inferences catch up."""
    verdict = found.judged()
    # The worst case is a supremum: two strict inequalities, a nanosecond each.
    assume(verdict.spare_s < -2.5 * NS)
    pipeline, chunks = worst_pattern(found)
    assert pipeline.starves(chunks)


def worst_pattern(found: Set) -> tuple[Pipeline, list[tuple[int, int]]]:
    """Inference starts a nanosecond before the next picture of the first camera, just as those of the others
    have come; everything takes as long as it may; a tick falls just before the second chunk arrives."""
    start = found.latency + found.period
    phases = (1, *[0] * (found.cameras - 1))
    pipeline = found.pipeline(phases, 0)
    chunks = pipeline.chunks(start, [found.busy, found.busy])
    return replace(pipeline, tick_phase_ns=(chunks[1][1] - 1) % found.tick), chunks


@pytest.mark.parametrize("strategy", ASYNCHRONOUS)
@pytest.mark.parametrize(("inference_ms", "starves"), [(120, False), (170, True)])
def test_the_verdict_is_what_the_real_core_makes_of_the_worst_pattern(
    strategy: str, inference_ms: int, starves: bool
):
    """Path 350 ms, frame 33 + 10 ms, control 10 ms: two inferences of 148 ms and their hand-over fit."""
    found = Set(8, 50 * MS, 10 * MS, inference_ms * MS, 33 * MS, 10 * MS, 1)
    assert found.judged().ok != starves
    pipeline, _ = worst_pattern(found)
    chunks = pipeline.chunks(found.latency + found.period, [found.busy] * 20)
    bench = Bench(core=ControlCore(config(strategy=strategy)))
    bench.start()
    zero = bench.now_ns
    rows = [(0.2 + 0.02 * step, -0.3, 10.0) for step in range(8)]
    number = 0
    while number < len(chunks):
        fresh = None
        if chunks[number][1] <= bench.now_ns + 10 * MS - zero:
            fresh = chunk(rows, chunk_id=number + 1, observation_ns=zero + chunks[number][0])
            number += 1
        bench.tick(Inbox(chunk=fresh))
        assert not bench.state.latched
    assert (bench.state.starvation.times > 0) == starves


# The limits


def timing(**changes: object) -> Timing:
    base = Timing(
        steps=16,
        dt_s=0.05,
        control_period_s=0.01,
        frame_age_limit_s=0.4,
        inference_s=0.08,
        frame_period_s=1 / 30,
        frame_latency_s=0.012,
        measured=True,
    )
    return replace(base, **changes)  # pyright: ignore[reportArgumentType]


def test_the_limits_follow_from_the_same_times():
    found = schedule(timing(), "newest")
    assert found.chunk_age_limit_s == pytest.approx(0.4 + 2 * 0.08 + 0.015)
    assert found.silence_limit_s == pytest.approx(0.5)
    slow = schedule(timing(steps=200, inference_s=0.5), "newest")
    assert slow.chunk_age_limit_s == pytest.approx(0.4 + 2 * 0.5 + 0.015)
    assert slow.silence_limit_s == pytest.approx(0.2 + 2 * 0.5)


def test_how_long_a_chunk_lasts_makes_none_stale():
    """One that has ended when it comes is dropped; only what nobody expected is a stop."""
    for steps in (8, 16, 200):
        found = schedule(timing(inference_s=0.3, steps=steps), "newest")
        assert found.chunk_age_limit_s == pytest.approx(0.4 + 2 * 0.3 + 0.015)


@given(
    st.integers(2, 100), st.floats(0.001, 0.5), st.floats(0.0, 0.3), st.floats(0.001, 1.0), st.floats(0, 2)
)
def test_no_schedule_that_is_ok_uses_a_chunk_later_than_its_budget(
    steps: int, period_s: float, latency_s: float, tick_s: float, inference_s: float
):
    times = timing(
        steps=steps,
        frame_period_s=period_s,
        frame_latency_s=latency_s,
        control_period_s=tick_s,
        inference_s=inference_s,
    )
    found = schedule(times, "newest")
    assume(found.ok)
    assert found.first_use_s <= latest_first_use_s(times) + 1e-9


def test_states_that_are_lost_while_the_policy_computes_cost_a_picture():
    kept = schedule(timing(inference_s=0.2, backlog_s=0.3), "newest")
    lost = schedule(timing(inference_s=0.2, backlog_s=0.15), "newest")
    assert lost.oldest_s - kept.oldest_s == pytest.approx(kept.frame_s + 0.01)
    assert "of it 55 ms for a picture whose joint state is lost meanwhile" in lost.lines[2]
    assert "lost" not in kept.lines[2]


def test_a_sequential_policy_is_bounded_by_its_inference_and_not_by_its_chunk():
    found = schedule(timing(steps=1, inference_s=2.8), "sequential")
    assert found.ok
    assert found.chunk_age_limit_s == pytest.approx(0.4 + 2 * 2.8 + 0.015)
    assert found.silence_limit_s == pytest.approx(0.2 + 2 * 2.8)


@given(st.floats(0, 100), st.floats(0.001, 0.35), st.integers(1, 100))
def test_a_sequential_policy_is_never_too_slow(inference_s: float, period_s: float, steps: int):
    found = schedule(timing(inference_s=inference_s, frame_period_s=period_s, steps=steps), "sequential")
    assert found.ok
    assert found.problem == ""


def test_one_step_at_a_time_can_only_be_sequential():
    assert not schedule(timing(steps=1, inference_s=0.02), "newest").ok


@pytest.mark.parametrize("strategy", ["newest", "sequential"])
def test_pictures_that_are_too_old_are_refused(strategy: str):
    found = schedule(timing(frame_period_s=0.5, steps=100), strategy)
    assert not found.ok
    assert "pictures are up to 512 ms old when inference starts, allowed are 400 ms" in found.problem


def test_a_camera_too_slow_to_be_measured_is_refused_as_such():
    details = {"frame_period_ms": 1667.0, "frame_latency_ms": 20.0, "frame_period_at_least": True}
    found = schedule(timing(steps=1000).with_measured(0.08, details), "newest")
    assert "1667 ms period (at least: too few pictures came to measure it)" in found.lines[0]
    assert "pictures are at least 1687 ms old" in found.problem


SO101 = KinematicLimits((2.0, 2.0, 200.0), (10.0, 10.0, 1500.0), (200.0, 200.0, 30000.0))


@pytest.mark.parametrize("limits", [config().kinematic, SO101])
def test_a_sequential_arm_settles_as_soon_as_is_said(limits: KinematicLimits):
    for goal in (0.25, 0.4, 0.6, 0.9):
        assert settled_s(goal, strategy="sequential", kinematic=limits) <= SETTLE_S


@pytest.mark.parametrize("ema_s", [0.05, 0.1, 0.2, 0.5])
def test_with_a_moving_average_the_slowest_of_them_takes_about_what_is_said(ema_s: float):
    took_s = []
    for goal in (0.25, 0.4, 0.6, 0.9):
        for limits in (config().kinematic, SO101):
            took_s.append(settled_s(goal, strategy="sequential", kinematic=limits, ema_s=ema_s))
    found = schedule(timing(ema_s=ema_s), "sequential")
    assert max(took_s) == pytest.approx(found.holds_s - found.first_use_s, rel=0.25)


def settled_s(goal: float, **changes: object) -> float:
    """From the end of a chunk's path until the arm is commanded still."""
    bench = Bench(core=ControlCore(config(**changes)))
    bench.start()
    bench.run(3)
    bench.tick(Inbox(chunk=chunk(ramp(goal), chunk_id=1, observation_ns=bench.now_ns)))
    assert bench.state.execution is not None
    end_ns = bench.state.execution.end_ns
    while bench.now_ns < end_ns or bench.state.still_since_ns == 0:
        bench.tick()
    return (bench.state.still_since_ns - end_ns) * NS


# The arithmetic, shown


def test_the_arithmetic_can_be_followed():
    lines = schedule(timing(), "newest").lines
    assert lines[0] == (
        "frame: 12 ms on its way + 33 ms period (measured) = at most 45 ms old when inference starts"
    )
    assert (
        lines[1]
        == "frame 45 ms + inference p99 80 ms + send and tick 15 ms = 140 ms old at a chunk's first use"
    )
    assert lines[2] == (
        "frame 45 ms + this inference 85 ms + the next 85 ms, each with its hand-over = 215 ms until the "
        "next chunk is there; a chunk lasts 15 x 50 ms = 750 ms: ok, 535 ms to spare"
    )
    assert "a chunk at most 575 ms old on arrival, the policy silent for at most 500 ms" in lines[3]


@pytest.mark.parametrize(("inference_s", "warned"), [(0.295, False), (0.320, True)])
def test_a_chunk_that_ends_within_the_lookahead_slows_the_arm_down_and_it_is_said(
    inference_s: float, warned: bool
):
    found = schedule(timing(inference_s=inference_s), "newest")
    assert found.ok
    warning = "55 ms to spare, less than the 100 ms that the smoother looks ahead: the arm slows down"
    assert (warning in found.lines[2]) == (warning in found.verdict) == warned


def test_a_refusal_says_by_how_much_and_what_to_do():
    found = schedule(timing(inference_s=0.4), "crossfade")
    assert not found.ok
    assert "too short by 105 ms" in found.lines[2]
    assert found.verdict == "too short by 105 ms"
    for part in ("ends up to 105 ms before the next one is there", "must starve", "--strategy sequential"):
        assert part in found.problem


def test_a_sequential_policy_is_told_how_much_it_moves():
    found = schedule(timing(inference_s=2.0), "sequential")
    assert (
        "moves 0.75 s, then holds about 0.30 s to settle + at most 2.06 s = 2.36 s (24% of the time"
        in found.lines[2]
    )


def test_what_was_not_measured_says_so():
    found = schedule(timing(measured=False, frame_period_s=DECLARED_FRAME_PERIOD_S, cameras=2), "newest")
    assert (
        "33 ms period (declared: the cameras were not measured, the slowest of 2 cameras)" in found.lines[0]
    )
