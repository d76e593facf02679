"""The smoother as a tracker: no lag, no run-up, exact limits, and braking that ends where it said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.runtime.control.smoother import (
    LOOKAHEAD_S,
    KinematicLimits,
    Motion,
    Smoother,
    SmootherError,
)

DT = 0.01
LIMITS = KinematicLimits((3.0,), (20.0,), (400.0,))


def smoother() -> Smoother:
    return Smoother(LIMITS, DT)


def track(path, seconds: float) -> list[tuple[float, Motion]]:
    made, motion, out = smoother(), Motion.at_rest((path(0.0),)), []
    for k in range(round(seconds / DT)):
        t = k * DT
        ahead, now = path(t + LOOKAHEAD_S), path(t)
        motion = made.toward(motion, (ahead,), ((ahead - now) / LOOKAHEAD_S,))
        out.append((t + DT, motion))
    return out


def test_a_slow_sine_is_followed_without_lag() -> None:
    def path(t: float) -> float:
        return 0.5 * math.sin(2.0 * t)

    errors = [abs(m.position[0] - path(t)) for t, m in track(path, 5.0) if t > 1.0]
    assert max(errors) < 0.01


def test_it_does_not_back_up_before_a_start() -> None:
    points = track(lambda t: max(0.0, t - 0.5), 1.5)
    assert min(m.position[0] for _, m in points) > -1e-9


def test_a_pose_is_reached_exactly_in_the_shortest_time() -> None:
    made, motion = smoother(), Motion.at_rest((0.0,))
    for _ in range(80):
        motion = made.toward(motion, (0.7,), (0.0,), 0.0)
    assert motion.position[0] == pytest.approx(0.7, abs=1e-9)
    assert motion.velocity[0] == pytest.approx(0.0, abs=1e-9)


def test_on_a_path_a_far_target_of_one_joint_does_not_slow_another() -> None:
    limits = KinematicLimits((3.0, 0.1), (20.0, 20.0), (400.0, 400.0))
    made, motion = Smoother(limits, DT), Motion.at_rest((0.0, 0.0))
    for _ in range(60):
        motion = made.toward(motion, (0.2, 5.0), (0.0, 0.0), 0.1)
    assert motion.position[0] == pytest.approx(0.2, abs=1e-6)


def test_a_pose_is_approached_by_all_joints_together() -> None:
    """Nearly straight: an arm whose joints arrive one after the other goes past things to either side."""
    limits = KinematicLimits((3.0, 3.0), (20.0, 20.0), (400.0, 400.0))
    made, motion = Smoother(limits, DT), Motion.at_rest((0.0, 0.0))
    worst = 0.0
    for _ in range(200):
        motion = made.toward(motion, (0.2, 1.0), (0.0, 0.0), 0.0)
        worst = max(worst, abs(motion.position[0] - 0.2 * motion.position[1]))
    assert motion.position == pytest.approx((0.2, 1.0), abs=1e-6)
    assert worst < 0.05


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(SmootherError):
        smoother().toward(Motion.at_rest((0.0,)), (bad,), (0.0,))
    with pytest.raises(SmootherError):
        smoother().toward(Motion.at_rest((0.0,)), (0.0,), (bad,))
    with pytest.raises(SmootherError):
        smoother().toward(Motion.at_rest((bad,)), (0.0,), (0.0,))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-5, 5)), min_size=1, max_size=40))
def test_any_sequence_of_targets_keeps_the_limits_and_braking_ends_where_it_said(
    targets: list[tuple[float, float]],
) -> None:
    made, motion = smoother(), Motion.at_rest((0.0,))
    for target, velocity in targets:
        before, motion = motion, made.toward(motion, (target,), (velocity,))
        assert abs(motion.velocity[0]) <= 3.0 + 1e-6
        assert abs(motion.acceleration[0]) <= 20.0 + 1e-6
        assert abs(motion.acceleration[0] - before.acceleration[0]) / DT <= 400.0 + 1e-3
    rest = made.stopping_position(motion)[0]
    for _ in range(100):
        motion = made.brake(motion)
    assert motion.position[0] == pytest.approx(rest, abs=1e-6)
    assert motion.velocity[0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("position", "velocity", "acceleration"),
    [((0.5151624290037654, -0.2751166666666665, 98.66666666666667), (1.6250000000000002, -1.9850000000000003,
      -50.00000000000014), (-15.0, -2.9999999999999627, -2000.0)),
     ((0.0, 0.0, 63.666666666666664), (0.0, 0.0, 150.0), (0.0, 0.0, -2000.0))],
)  # fmt: skip
def test_a_state_on_a_limit_to_the_last_bit_is_continued(
    position: tuple[float, ...], velocity: tuple[float, ...], acceleration: tuple[float, ...]
) -> None:
    """Found by playing random chunks: Ruckig refuses these states for a rounding error, which was a stop."""
    limits = KinematicLimits((2.0, 2.0, 300.0), (15.0, 15.0, 2000.0), (300.0, 300.0, 40000.0))
    smoother = Smoother(limits, 0.01)
    motion = Motion(position, velocity, acceleration)
    for after in (smoother.brake(motion), smoother.toward(motion, (0.6, -0.3, 99.5), (0.0, 0.0, 0.0))):
        for a, b, jerk in zip(after.acceleration, acceleration, limits.jerk, strict=True):
            assert abs(a - b) <= jerk * 0.01 * 1.0001
