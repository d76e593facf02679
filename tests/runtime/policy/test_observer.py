"""The joint state at a picture's stamp."""

from __future__ import annotations

import pytest

from holdfast.runtime.messages import Phase, State
from holdfast.runtime.policy.observer import KEPT_NS, JointHistory

PERIOD = 10_000_000


def state(joint_ns: int, *position: float) -> State:
    zeros = (0.0,) * len(position)
    return State(Phase.RUN, 1, 0, 0, 0, 0, joint_ns, 0, position, zeros, position)


def history(*samples: tuple[int, float]) -> JointHistory:
    out = JointHistory(PERIOD)
    for at, value in samples:
        out.add(state(at, value, 2 * value))
    return out


def test_nothing_is_known_without_two_samples():
    assert JointHistory(PERIOD).at(0) is None
    assert history((PERIOD, 1.0)).at(PERIOD + 1) is None


def test_a_sample_at_the_stamp_is_taken_as_it_is():
    assert history((PERIOD, 1.0), (2 * PERIOD, 2.0)).at(PERIOD) == (1.0, 2.0)


def test_between_two_samples_it_is_linear():
    assert history((PERIOD, 1.0), (2 * PERIOD, 2.0)).at(PERIOD * 5 // 4) == pytest.approx((1.25, 2.5))


def test_it_is_carried_forward_by_one_period_and_no_more():
    known = history((PERIOD, 1.0), (2 * PERIOD, 2.0))
    assert known.at(3 * PERIOD) == pytest.approx((3.0, 6.0))
    assert known.at(3 * PERIOD + 1) is None


def test_nothing_is_made_up_before_the_oldest_sample_or_across_a_long_gap():
    known = history((PERIOD, 1.0), (2 * PERIOD, 2.0), (20 * PERIOD, 3.0))
    assert known.at(PERIOD - 1) is None
    assert known.at(10 * PERIOD) is None


def test_a_repeated_or_older_sample_is_not_a_new_one():
    known = history((PERIOD, 1.0), (2 * PERIOD, 2.0), (2 * PERIOD, 9.0), (PERIOD, 9.0))
    assert known.at(2 * PERIOD) == (2.0, 4.0)
    assert known.newest_ns == 2 * PERIOD


def test_old_samples_are_forgotten():
    known = history((PERIOD, 1.0), (2 * PERIOD, 2.0), (2 * PERIOD + KEPT_NS + 1, 3.0))
    assert known.oldest_ns == 2 * PERIOD + KEPT_NS + 1
