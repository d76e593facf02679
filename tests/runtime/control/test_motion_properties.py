"""Whatever the timing of the chunks: commands within every limit, continuous, and nothing stale executed."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import CoreState, Inbox
from holdfast.runtime.control.strategies import AVERAGE, FADE_NS, STRATEGIES
from holdfast.runtime.messages import Chunk, Phase

from .test_core_properties import check_limits
from .world import MS, Bench, arm, chunk, config, joint_state

AGE_LIMIT = 300 * MS
DT = 50 * MS
waypoint = st.tuples(st.floats(-1.6, 1.6), st.floats(-1.6, 1.6), st.floats(-20, 120))
arrivals = st.lists(
    st.tuples(
        st.integers(1, 60),  # ticks until the chunk comes
        st.integers(0, 29),  # ticks between its observation and its arrival
        st.booleans(),  # whether it is lost
        waypoint,
        waypoint,
    ),
    min_size=1,
    max_size=12,
)
LINGERS = {"crossfade": FADE_NS, "average": (AVERAGE - 1) * DT}
"""How long an older chunk may have a share in the target once it has been replaced."""


def rows(start: tuple[float, ...], end: tuple[float, ...]) -> list[tuple[float, ...]]:
    return [tuple(a + (b - a) * i / 7 for a, b in zip(start, end, strict=True)) for i in range(8)]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Shrinking replays hundreds of ticks a thousand times: a longer example in seconds is worth more.
    phases=[Stage.explicit, Stage.reuse, Stage.generate],
)
@pytest.mark.parametrize("ema_s", [0.0, 0.15])
@pytest.mark.parametrize("name", STRATEGIES)
@given(arrivals)
def test_any_latency_pattern_stays_within_every_limit(name: str, ema_s: float, pattern: list) -> None:
    bench = Bench(ControlCore(config(strategy=name, ema_s=ema_s)))
    bench.start()
    observed = 0
    for number, (wait, latency, lost, start, end) in enumerate(pattern, start=1):
        for _ in range(wait):
            bench.tick()
            check_ages(bench, name)
        if not lost:
            observed = max(observed, bench.now_ns + 10 * MS - latency * 10 * MS)
            bench.tick(Inbox(chunk=chunk(rows(start, end), chunk_id=number, observation_ns=observed)))
            check_ages(bench, name)
    for _ in range(300):
        bench.tick()
        check_ages(bench, name)
    assert bench.state.phase == Phase.RUN, bench.notes[-3:]
    check_limits(bench.setpoints)
    assert bench.state.motion is not None
    assert max(map(abs, bench.state.motion.velocity)) < 1e-3, "at rest once the chunks have run out"


def check_ages(bench: Bench, name: str) -> None:
    """No path is executed whose observation was older than allowed on arrival, nor after its end."""
    execution = bench.state.execution
    if execution is None:
        return
    for path, since_ns in zip(execution.paths, execution.since_ns, strict=True):
        assert since_ns - path.observation_ns <= AGE_LIMIT
    if bench.last_target is None or not STRATEGIES[name].asynchronous:
        return
    assert bench.now_ns <= execution.end_ns
    for path, replaced_ns in zip(execution.paths[:-1], execution.since_ns[1:], strict=True):
        # Whenever a chunk begins, older ones are kept only where the strategy lets them linger.
        assert execution.first_used_ns < bench.now_ns or bench.now_ns - replaced_ns <= LINGERS[name]
        assert replaced_ns <= path.end_ns


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_chunk_beyond_its_age_stops_and_is_never_executed(name: str) -> None:
    bench = Bench(ControlCore(config(strategy=name)))
    bench.start()
    bench.run(5)
    stale = chunk(rows((0.2, -0.3, 10.0), (1.0, 1.0, 50.0)), chunk_id=1,
                  observation_ns=bench.now_ns + 10 * MS - AGE_LIMIT - 1)  # fmt: skip
    bench.tick(Inbox(chunk=stale))
    assert bench.stop_code() == "chunk_stale"
    bench.run(50)
    assert set(bench.setpoints) == {(0.2, -0.3, 10.0)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3_600_000, 2_000), min_size=1, max_size=30))
def test_time_never_runs_backwards(steps_ms: list[int]) -> None:
    """CLOCK_MONOTONIC cannot step; if what stands for it did, the core would not go back with it."""
    bench = Bench(ControlCore(config()))
    bench.start()
    path = rows((0.2, -0.3, 10.0), (0.8, 0.2, 60.0))
    bench.tick(Inbox(chunk=chunk(path, chunk_id=1, observation_ns=bench.now_ns)))
    seen = [bench.state.now_ns]
    for step_ms in steps_ms:
        bench.now_ns += step_ms * MS
        bench.tick()
        seen.append(bench.state.now_ns)
    assert seen == sorted(seen)
    check_limits(bench.setpoints)


def test_a_moving_average_over_the_targets_lags_and_arrives() -> None:
    far = (0.6, 0.3, 60.0)
    reached = {}
    for ema_s in (0.0, 0.2):
        bench = Bench(ControlCore(config(ema_s=ema_s)))
        bench.start()
        for number in range(1, 9):
            bench.tick(Inbox(chunk=chunk([far] * 8, chunk_id=number, observation_ns=bench.now_ns)))
            bench.run(19)
            reached.setdefault(ema_s, []).append(bench.setpoints[-1][0])
    assert reached[0.0][0] > reached[0.2][0] + 0.02
    assert reached[0.2][-1] == pytest.approx(0.6, abs=1e-3)


def test_a_sequential_policy_holds_between_chunks_and_is_not_starved() -> None:
    """One action at a time: carried out, held, then the next; what was observed on the way is not used."""
    bench = Bench(ControlCore(config(strategy="sequential", chunk_steps=1)))
    bench.start()
    for number, goal in enumerate([(0.5, 0.0, 30.0), (-0.2, 0.4, 80.0)], start=1):
        bench.tick(Inbox(chunk=chunk([goal], chunk_id=number, observation_ns=bench.now_ns)))
        bench.run(1)
        too_soon = chunk([(0.9, 0.9, 0.0)], chunk_id=100 + number, observation_ns=bench.now_ns)
        bench.tick(Inbox(chunk=too_soon))
        bench.run(150)
        assert bench.setpoints[-1] == pytest.approx(goal, abs=1e-6)
        assert bench.state.last_chunk_id == number
    assert bench.state.counters.superseded_chunks == 2
    assert bench.state.starvation.times == 0
    assert bench.state.phase == Phase.RUN
    check_limits(bench.setpoints)


def test_the_policy_is_told_nothing_else_than_what_is_executed() -> None:
    """Origin, end and first use of the newest chunk, as they go to the policy process."""
    bench = Bench()
    bench.start()
    path = rows((0.2, -0.3, 10.0), (0.8, 0.2, 60.0))
    bench.run(3)
    moving = chunk(path, chunk_id=1, observation_ns=bench.now_ns)
    bench.tick(Inbox(chunk=moving))
    execution = bench.state.execution
    assert execution is not None
    assert execution.first_used_ns == execution.origin_ns == bench.now_ns, "still: the origin is now"
    assert execution.end_ns == bench.now_ns + 7 * DT
    bench.run(10)
    observed = bench.now_ns - 40 * MS
    bench.tick(Inbox(chunk=chunk(path, chunk_id=2, observation_ns=observed)))
    execution = bench.state.execution
    assert execution is not None
    assert (execution.origin_ns, execution.first_used_ns) == (observed, bench.now_ns)


def stopped_by(bench: Bench, made: Chunk) -> str:
    bench.tick(Inbox(chunk=made))
    return bench.stop_code() if bench.state.latched else ""


def test_a_bad_chunk_stops_also_where_it_would_not_be_used() -> None:
    """Of another task, or too soon for a sequential policy: the policy is broken all the same."""
    nan = [(math.nan, 0.0, 0.0)] * 8
    bench = Bench(ControlCore(config(strategy="sequential")))
    bench.start()
    good = chunk(rows((0.2, -0.3, 10.0), (0.5, 0.0, 20.0)), chunk_id=1, observation_ns=bench.now_ns)
    assert stopped_by(bench, good) == ""
    bench.run(3)
    assert stopped_by(bench, chunk(nan, chunk_id=2, observation_ns=bench.now_ns)) == "chunk_bad"
    bench = Bench()
    bench.start()
    other = chunk(nan, chunk_id=1, observation_ns=bench.now_ns, task_id=7)
    assert stopped_by(bench, other) == "chunk_bad"


def test_a_chunk_of_another_task_is_not_followed_however_old() -> None:
    bench = Bench()
    bench.start()
    other = chunk(
        rows((0.2, -0.3, 10.0), (0.5, 0.0, 20.0)),
        chunk_id=1,
        observation_ns=bench.now_ns - 5000 * MS,
        task_id=7,
    )
    assert stopped_by(bench, other) == ""
    assert bench.state.counters.other_task_chunks == 1
    assert bench.state.execution is None


def test_observations_do_not_go_back() -> None:
    bench = Bench()
    bench.start()
    path = rows((0.2, -0.3, 10.0), (0.5, 0.0, 20.0))
    assert stopped_by(bench, chunk(path, chunk_id=1, observation_ns=bench.now_ns)) == ""
    older = chunk(path, chunk_id=2, observation_ns=bench.now_ns - 50 * MS)
    assert stopped_by(bench, older) == "chunk_bad"


def test_a_chunk_that_has_wholly_expired_is_dropped_and_counted() -> None:
    """Longer under way than it lasts, but younger than the age limit: the arm is starved, not stopped."""
    bench = Bench(ControlCore(config(chunk_dt_ns=20 * MS)))
    bench.start()
    path = rows((0.2, -0.3, 10.0), (0.5, 0.0, 20.0))
    first = chunk(path, chunk_id=1, observation_ns=bench.now_ns, dt_ns=20 * MS)
    assert stopped_by(bench, first) == ""
    bench.run(22)
    expired = chunk(path, chunk_id=2, observation_ns=first.observation_ns, dt_ns=20 * MS)
    assert stopped_by(bench, expired) == ""
    assert bench.state.counters.superseded_chunks == 1
    assert bench.state.last_chunk_id == 2


@pytest.mark.parametrize("hz", [100, 500, 1000])
def test_a_slow_motion_is_no_standing_still_at_any_rate(hz: int) -> None:
    """Two thousandths of a rad a second: a chunk that is taken for one of a still arm would begin anew."""
    dt_ns = 1_000_000_000 // hz
    core = ControlCore(config(dt_ns=dt_ns))
    sample = joint_state((0.2, -0.3, 10.0), 1000 * MS)
    state, now_ns, number = core.energised(CoreState(), sample, 1000 * MS), 1000 * MS, 0
    state, _ = core.step(state, now_ns, sample, Inbox(arm=arm(), heard_policy=True, heard_supervisor=True))
    for tick in range(2 * hz):
        now_ns += dt_ns
        made = None
        if tick % (hz // 10) == 0:
            number += 1
            slow = [(0.2 + 0.002 * ((now_ns + i * DT) * 1e-9 - 1.0), -0.3, 10.0) for i in range(8)]
            made = chunk(slow, chunk_id=number, observation_ns=now_ns)
        assert state.motion is not None
        joint = joint_state(state.motion.position, now_ns)
        inbox = Inbox(chunk=made, heard_policy=True, heard_supervisor=True)
        state, _ = core.step(state, now_ns, joint, inbox)
        if tick > hz:
            assert state.still_since_ns == 0
