"""Whatever arrives, in whatever order: every setpoint stays within every limit."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.runtime.control.state import Condition, Inbox

from .world import MS, Bench, arm, chunk, config

LIMITS = config()

values = st.one_of(
    st.floats(-2.0, 2.0), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([-1e9, 0.0, 1e9])
)
sane = st.floats(-1.6, 1.6)
rows = st.lists(st.tuples(sane, sane, st.floats(-20, 120)), min_size=8, max_size=8)
wild_rows = st.lists(st.tuples(values, values, values), min_size=0, max_size=9)
inputs = st.one_of(
    st.tuples(st.just("chunk"), rows, st.integers(-10, 310)),
    st.tuples(st.just("wild"), wild_rows, st.integers(-10, 310)),
    st.tuples(st.just("nothing"), st.integers(1, 40), st.booleans()),
    st.tuples(st.sampled_from(["arm", "back", "stop", "reset", "park", "here"]), st.none(), st.none()),
    st.tuples(st.just("condition"), st.sampled_from(["policy_lost", "bus_error", "gate_denied"]), st.none()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(inputs, max_size=25))
def test_every_setpoint_stays_within_every_limit(sequence: list) -> None:
    bench = Bench()
    bench.start()
    for number, (kind, first, second) in enumerate(sequence, start=1):
        inbox = Inbox()
        if kind in ("chunk", "wild"):
            observation = bench.now_ns - second * MS
            inbox = Inbox(chunk=chunk(first, chunk_id=number, observation_ns=observation))
        elif kind == "arm":
            inbox = Inbox(arm=arm())
        elif kind == "back":
            inbox = Inbox(arm=arm(back=True, follow=False))
        elif kind == "stop":
            inbox = Inbox(stop=Condition("requested", "x"))
        elif kind == "reset":
            inbox = Inbox(reset=True)
        elif kind in ("park", "here"):
            inbox = Inbox(quit=kind)
        elif kind == "condition":
            inbox = Inbox(conditions=(Condition(first, "x"),))
        if kind == "nothing":
            for _ in range(first):
                bench.tick(bus=second)
        else:
            bench.tick(inbox)
            bench.run(6)
    check_limits(bench.setpoints)


def check_limits(points: list[tuple[float, ...]]) -> None:
    """By finite differences of what was sent, independent of the smoother's own state."""
    dt = LIMITS.dt_ns * 1e-9
    for axis in range(3):
        path = [point[axis] for point in points]
        assert all(math.isfinite(p) for p in path)
        assert min(path) >= LIMITS.low[axis] - 1e-4
        assert max(path) <= LIMITS.high[axis] + 1e-4
        speed = [(b - a) / dt for a, b in pairwise(path)]
        # Mean values over a tick can never exceed a bound that holds at every instant.
        rise = [(b - a) / dt for a, b in pairwise(speed)]
        jerk = [(b - a) / dt for a, b in pairwise(rise)]
        for series, limit in (
            (speed, LIMITS.kinematic.velocity[axis]),
            (rise, LIMITS.kinematic.acceleration[axis]),
            (jerk, LIMITS.kinematic.jerk[axis]),
        ):
            assert max(map(abs, series), default=0.0) <= limit * 1.001 + 1e-6
