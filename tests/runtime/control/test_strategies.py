"""Every strategy on the time axis: what it aims at, and that it goes on without a jump where it promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.runtime.bundle.schema import ExecutionHint
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.executor import Execution, Path, position_at
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.spline import bridge_at, spline_at, total
from holdfast.runtime.control.state import Inbox
from holdfast.runtime.control.strategies import (
    ENSEMBLE_M,
    FADE_NS,
    FUSION_NS,
    STRATEGIES,
    Strategy,
    allowed,
)

from .world import MS, Bench, chunk, config

DT = 50 * MS
LOOKAHEAD = 100 * MS
REST = Motion.at_rest((0.0,))
OVERLAPPING = [name for name, strategy in STRATEGIES.items() if strategy.asynchronous]


def path(values: list[float], origin_ns: int = 0, chunk_id: int = 1) -> Path:
    return Path(chunk_id, origin_ns, origin_ns, DT, tuple((value,) for value in values))


def line(slope: float, offset: float = 0.0, origin_ns: int = 0, steps: int = 16) -> Path:
    """Where a straight motion is at each step, on the common time axis."""
    return path([offset + slope * (origin_ns + i * DT) * 1e-9 for i in range(steps)], origin_ns)


def run(
    strategy: Strategy,
    arrivals: dict[int, Path],
    until_ns: int,
    tick_ns: int = 10 * MS,
    commanded: Callable[[int], Motion] = lambda now_ns: REST,
) -> list[tuple]:
    """(time, position, velocity) of the target in every tick; `arrivals`: when each path comes."""
    execution: Execution | None = None
    seen = []
    for now_ns in range(0, until_ns, tick_ns):
        if now_ns in arrivals:
            execution = strategy.begin(execution, arrivals[now_ns], now_ns, LOOKAHEAD, commanded(now_ns))
        if execution is not None and now_ns <= execution.end_ns:
            target = strategy.target(execution, now_ns, LOOKAHEAD)
            seen.append((now_ns, target.position[0], target.velocity[0]))
    return seen


@pytest.mark.parametrize("name", STRATEGIES)
def test_chunks_that_agree_are_followed_exactly(name: str):
    """Predictions of the same straight motion: whatever is blended, it comes out, a lookahead ahead."""
    arrivals = {k * 60 * MS: line(0.5, origin_ns=k * 60 * MS) for k in range(40)}
    lag_s = 2 * DT * 1e-9 if name == "average" else 0.0

    def moving(now_ns: int) -> Motion:
        return Motion((0.5 * now_ns * 1e-9,), (0.5,), (0.0,))

    rows = run(STRATEGIES[name], arrivals, 2400 * MS, commanded=moving)
    settled = [row for row in rows if row[0] > 2200 * MS]
    assert len(settled) == 19
    for now_ns, position, velocity in settled:
        assert position == pytest.approx(0.5 * ((now_ns + LOOKAHEAD) * 1e-9 - lag_s), abs=1e-6)
        assert velocity == pytest.approx(0.5, abs=1e-5)


def test_newest_jumps_to_the_new_chunk_at_once():
    arrivals = {0: path([0.0] * 16), 200 * MS: path([1.0] * 16, 150 * MS)}
    rows = {now: position for now, position, _ in run(STRATEGIES["newest"], arrivals, 300 * MS)}
    assert (rows[190 * MS], rows[200 * MS]) == (0.0, 1.0)


def test_crossfade_goes_evenly_from_one_chunk_to_the_next():
    arrivals = {0: path([0.0] * 16), 200 * MS: path([1.0] * 16, 150 * MS)}
    rows = run(STRATEGIES["crossfade"], arrivals, 500 * MS, tick_ns=5 * MS)
    values = [position for now, position, _ in rows if 200 * MS <= now <= 200 * MS + FADE_NS]
    assert values[0] == 0.0
    assert values[len(values) // 2] == pytest.approx(0.5)
    assert values[-1] == 1.0
    assert all(b > a for a, b in pairwise(values))


def test_a_fade_that_is_interrupted_goes_on_from_where_it_is():
    arrivals = {
        0: path([0.0] * 16),
        100 * MS: path([1.0] * 16, 100 * MS),
        130 * MS: path([0.0] * 16, 130 * MS),
    }
    rows = run(STRATEGIES["crossfade"], arrivals, 600 * MS, tick_ns=2 * MS)
    values = [position for _, position, _ in rows]
    assert max(abs(b - a) for a, b in pairwise(values)) < 0.06
    assert 0.5 < max(values) < 0.75
    assert values[-1] == 0.0


def test_the_ensemble_weighs_the_oldest_prediction_most():
    """Three predictions for the same times: w = exp(-m i), the oldest first."""
    arrivals = {0: path([0.0] * 16), 50 * MS: path([0.3] * 16, 50 * MS), 100 * MS: path([0.9] * 16, 100 * MS)}
    target = run(STRATEGIES["ensemble"], arrivals, 110 * MS)[-1][1]
    weights = [math.exp(-ENSEMBLE_M * i) for i in range(3)]
    assert target == pytest.approx((0.0 * weights[0] + 0.3 * weights[1] + 0.9 * weights[2]) / sum(weights))


def test_beyond_the_older_chunks_the_ensemble_has_fewer_predictions():
    strategy = STRATEGIES["ensemble"]
    first = strategy.begin(None, path([0.0] * 4), 0, LOOKAHEAD, REST)
    both = strategy.begin(first, path([1.0] * 4, 100 * MS), 100 * MS, LOOKAHEAD, REST)
    assert both.counts == (2.0, 2.0, 1.0, 1.0)
    assert [row[0] for row in both.newest.actions][2:] == [1.0, 1.0]


def test_the_average_is_that_of_the_last_five_actions():
    values = [0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0, 64.0, 81.0]
    execution = STRATEGIES["average"].begin(None, path(values), 0, LOOKAHEAD, REST)
    target = STRATEGIES["average"].target(execution, 5 * DT, LOOKAHEAD)
    assert target.position[0] == pytest.approx(sum(values[3:8]) / 5)


def test_the_average_reaches_back_into_the_chunk_that_was_followed_then():
    arrivals = {0: path([0.0] * 16), 300 * MS: path([1.0] * 16, 250 * MS)}
    rows = {now: position for now, position, _ in run(STRATEGIES["average"], arrivals, 700 * MS)}
    # Of the five actions up to 400 ms, those at 300, 350 and 400 ms are the new chunk's.
    assert rows[300 * MS] == pytest.approx(3 / 5)
    assert rows[400 * MS] == pytest.approx(1.0)


@given(
    st.lists(st.floats(-1, 1), min_size=16, max_size=16),
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.integers(0, 60),
)
def test_fusion_goes_on_from_the_commanded_motion_without_a_jump(
    values: list[float], commanded: tuple[float, float, float], age: int
):
    """Position, velocity and acceleration of the curve begin as commanded; after the fusion time the new
    chunk's own curve is left. The same whatever was executed before."""
    now_ns, strategy = 10_000 * MS, STRATEGIES["fusion"]
    newer = path(values, now_ns - age * 10 * MS)
    motion = Motion(*((value,) for value in commanded))
    after = strategy.begin(None, newer, now_ns, LOOKAHEAD, motion)
    assert after == strategy.begin(after, newer, now_ns, LOOKAHEAD, motion)
    assert after.bridge is not None
    curve = total(spline_at(newer, now_ns), bridge_at(after.bridge, now_ns))
    assert curve[0] == pytest.approx(commanded, abs=1e-7)
    for time_ns in range(now_ns + FUSION_NS, newer.end_ns, 50 * MS):
        assert strategy.target(after, time_ns - LOOKAHEAD, LOOKAHEAD).position[0] == pytest.approx(
            spline_at(newer, time_ns)[0][0], abs=1e-9
        )


def test_fusion_reaches_a_chunk_that_ends_soon():
    newest = path([0.0] * 15 + [0.5], 0)
    now_ns = newest.end_ns - 40 * MS
    execution = STRATEGIES["fusion"].begin(None, newest, now_ns, LOOKAHEAD, Motion.at_rest((0.4,)))
    assert STRATEGIES["fusion"].target(execution, now_ns, LOOKAHEAD).position == (0.5,)


@pytest.mark.parametrize(("age_ms", "fades"), [(0, True), (140, True), (200, False), (400, False)])
def test_what_is_already_old_is_not_faded_in(age_ms: int, fades: bool):
    strategy = STRATEGIES["crossfade"]
    before = strategy.begin(None, path([0.0] * 16), 0, LOOKAHEAD, REST)
    now_ns = 450 * MS
    after = strategy.begin(before, path([1.0] * 16, now_ns - age_ms * MS), now_ns, LOOKAHEAD, REST)
    assert strategy.target(after, now_ns, LOOKAHEAD).position == ((0.0,) if fades else (1.0,))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.floats(0.001, 0.999))
def test_the_spline_stays_among_its_actions_and_ends_at_them(values: list[float], share: float):
    made = path(values)
    assert spline_at(made, 0)[0][0] == pytest.approx(values[0], abs=1e-9)
    assert spline_at(made, made.end_ns - 1)[0][0] == pytest.approx(values[-1], abs=1e-6)
    time_ns = round(share * made.end_ns)
    i = min(time_ns // DT, len(values) - 2)
    near = values[max(0, i - 1) : i + 3]
    position, velocity, acceleration = spline_at(made, time_ns)[0]
    reach = max(near) - min(near)
    assert min(near) - reach / 2 - 1e-9 <= position <= max(near) + reach / 2 + 1e-9
    h = 1000
    (p0, v0, _), (p1, v1, _) = spline_at(made, time_ns - h)[0], spline_at(made, time_ns + h)[0]
    if time_ns - h >= 0 and time_ns + h < made.end_ns:
        assert velocity == pytest.approx((p1 - p0) / (2 * h * 1e-9), abs=1e-2)
        assert acceleration == pytest.approx((v1 - v0) / (2 * h * 1e-9), abs=20)


@given(st.tuples(*[st.floats(-5, 5)] * 3), st.integers(1, 2000))
def test_a_bridge_begins_with_the_whole_difference_and_ends_with_none(error: tuple, duration_ms: int):
    from holdfast.runtime.control.executor import Bridge

    bridge = Bridge(0, duration_ms * MS, (error,))
    assert bridge_at(bridge, 0)[0] == pytest.approx(error, abs=1e-9)
    for value, unit in zip(bridge_at(bridge, duration_ms * MS - 1)[0], (1e-6, 1e-3, 1.0), strict=True):
        assert abs(value) <= unit * max(1.0, max(map(abs, error)) * 1e6 / duration_ms**2)
    assert bridge_at(bridge, duration_ms * MS) == ((0.0, 0.0, 0.0),)


@pytest.mark.parametrize("name", OVERLAPPING)
def test_after_a_pause_nothing_of_the_old_chunks_is_left(name: str):
    """Where the chunks ran out, the next one starts by itself: what lies between is not blended."""
    strategy = STRATEGIES[name]
    before = strategy.begin(None, path([0.0] * 4), 0, LOOKAHEAD, REST)
    now_ns = before.end_ns + 500 * MS
    newest = path([1.0] * 16, now_ns)
    execution = strategy.begin(before, newest, now_ns, LOOKAHEAD, Motion.at_rest((1.0,)))
    assert execution.paths == (newest,)
    assert strategy.target(execution, now_ns, LOOKAHEAD).position == pytest.approx((1.0,))


@pytest.mark.parametrize("name", OVERLAPPING)
@pytest.mark.parametrize("interval", [60, 120])
def test_agreeing_chunks_are_one_even_motion_of_the_arm(name: str, interval: int):
    """Through the whole core: as long as a chunk outlasts the lookahead, the command moves on evenly."""
    bench = Bench(ControlCore(config(strategy=name)), arm_at=(-0.9, -0.3, 10.0))
    bench.start()
    origin_ns, observed, speeds = bench.now_ns, 0, []
    for tick in range(1, 150):
        inbox = Inbox()
        if tick * 10 % interval == 0:
            observed = max(observed, bench.now_ns - 90 * MS, origin_ns + interval * MS)
            rows = [(-0.9 + 0.8 * (observed - origin_ns + i * DT) * 1e-9, -0.3, 10.0) for i in range(8)]
            inbox = Inbox(chunk=chunk(rows, chunk_id=tick, observation_ns=observed))
        bench.tick(inbox)
        assert bench.state.motion is not None
        speeds.append(bench.state.motion.velocity[0])
    assert not bench.state.latched
    assert speeds[100:] == pytest.approx([0.8] * len(speeds[100:]), abs=0.05)


@pytest.mark.parametrize("name", OVERLAPPING)
def test_what_is_kept_stays_bounded(name: str):
    strategy, execution = STRATEGIES[name], None
    for k in range(400):
        execution = strategy.begin(execution, line(0.1, origin_ns=k * MS), k * MS, LOOKAHEAD, REST)
        assert len(execution.paths) <= 32
        assert execution.chunk_id == 1


def test_a_bundle_may_name_every_strategy_and_no_other():
    (hint,) = ExecutionHint.model_fields.values()
    assert get_args(hint.annotation) == tuple(STRATEGIES)


def test_one_step_policies_run_sequentially_only():
    assert allowed(1) == ["sequential"]
    assert allowed(2) == list(STRATEGIES)


def test_position_at_is_what_the_time_axis_says():
    assert position_at(path([0.0, 1.0]), 25 * MS) == (0.5,)
