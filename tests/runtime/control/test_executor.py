"""Reading a chunk in time: `a[i]` at `origin + i dt`, linear between, nothing after its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.runtime.control.executor import Path, path_of, position_at, target_at

from .world import MS, chunk

DT = 50 * MS
LOOKAHEAD = 100 * MS
values = st.floats(-10, 10)
paths = st.lists(st.tuples(values, values), min_size=2, max_size=20)


def path(rows: list[tuple[float, ...]], origin_ns: int = 0) -> Path:
    return Path(1, origin_ns, origin_ns, DT, tuple(rows))


@given(paths, st.integers(0, 10**12))
def test_every_action_is_commanded_at_its_own_time(rows: list[tuple[float, ...]], origin_ns: int) -> None:
    made = path(rows, origin_ns)
    for i, row in enumerate(rows):
        assert position_at(made, origin_ns + i * DT) == pytest.approx(row, abs=1e-9)


@given(paths, st.floats(-1, 25))
def test_between_two_actions_lies_their_line_and_outside_the_nearest_end(
    rows: list[tuple[float, ...]], steps: float
) -> None:
    made = path(rows)
    got = position_at(made, round(steps * DT))
    if steps <= 0:
        wanted = rows[0]
    elif steps >= len(rows) - 1:
        wanted = rows[-1]
    else:
        i, share = int(steps), steps - int(steps)
        wanted = tuple(a + (b - a) * share for a, b in zip(rows[i], rows[i + 1], strict=True))
    assert got == pytest.approx(wanted, abs=1e-5)


@given(paths, st.integers(0, 25 * DT))
def test_the_target_is_where_the_path_will_be_and_how_fast_it_gets_there(
    rows: list[tuple[float, ...]], now_ns: int
) -> None:
    made = path(rows)
    target = target_at(made, now_ns, LOOKAHEAD)
    ahead, now = position_at(made, now_ns + LOOKAHEAD), position_at(made, now_ns)
    assert target.position == ahead
    assert target.velocity == pytest.approx([(b - a) / 0.1 for a, b in zip(now, ahead, strict=True)])


def test_a_single_action_lasts_one_step() -> None:
    made = path([(0.5, 0.5)])
    assert made.end_ns == DT
    assert target_at(made, DT // 2, LOOKAHEAD).position == (0.5, 0.5)


@pytest.mark.parametrize(
    ("still_since", "origin"),
    [(0, "observation"), (500 * MS, "now"), (1000 * MS, "now"), (1001 * MS, "observation")],
)
def test_the_origin_is_now_only_where_the_arm_stood_still_since_the_observation(
    still_since: int, origin: str
) -> None:
    message = chunk([(0.0, 0.0, 0.0)] * 8, chunk_id=1, observation_ns=1000 * MS)
    made = path_of(message, 1100 * MS, still_since)
    assert made.origin_ns == (1100 * MS if origin == "now" else 1000 * MS)
