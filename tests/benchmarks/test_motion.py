"""Jerk and jumps, on motions of which they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.benchmarks.motion import Floats, Recorder, Trace, command_jumps, jerk, target_jumps
from holdfast.runtime.control.smoother import Motion

DT = 0.01
TICKS = 40
BOUNDARY = 20


def trace(target: np.ndarray, began: tuple[int, ...] = (0, BOUNDARY)) -> Trace:
    """One joint that is commanded to be exactly where the target is, with derivatives by differences."""
    position = target[:, None]
    velocity = np.gradient(position, DT, axis=0)
    starts = np.zeros(len(target), bool)
    starts[list(began)] = True
    acceleration = np.gradient(velocity, DT, axis=0)
    return Trace(DT, position, position, velocity, acceleration, starts, np.zeros(len(target)))


def ticks_s() -> Floats:
    return np.arange(TICKS, dtype=np.float64)[:, None] * np.float64(DT)


def after(jump) -> np.ndarray:
    """A parabola, to which `jump(t)` is added from the boundary's tick on."""
    t = (np.arange(TICKS) - BOUNDARY) * DT
    return 0.3 + 0.2 * t + 0.5 * t**2 + np.where(t >= 0, jump(t), 0.0)


def test_a_smooth_target_has_no_jump():
    assert target_jumps(trace(after(lambda t: 0 * t))) == pytest.approx(np.zeros((1, 3)), abs=1e-8)


def test_a_jump_of_the_position_is_no_jump_of_the_velocity():
    position, velocity, acceleration = target_jumps(trace(after(lambda t: 0.02 + 0 * t)))[0]
    assert position == pytest.approx(0.02)
    assert velocity == pytest.approx(0.0, abs=1e-8)
    assert acceleration == pytest.approx(0.02 / DT**2), "what following it in one tick would take"


def test_a_corner_is_a_jump_of_the_velocity():
    position, velocity, acceleration = target_jumps(trace(after(lambda t: 0.4 * t)))[0]
    assert position == pytest.approx(0.0, abs=1e-9)
    assert velocity == pytest.approx(0.4)
    assert acceleration == pytest.approx(0.4 / DT)


def test_a_change_of_the_acceleration_alone():
    position, velocity, acceleration = target_jumps(trace(after(lambda t: 0.5 * 3.0 * t**2)))[0]
    assert position == pytest.approx(0.0, abs=1e-9)
    assert velocity == pytest.approx(0.0, abs=1e-8)
    assert acceleration == pytest.approx(3.0 / 2), "its first tick sees half of it"


def test_the_largest_joint_counts_and_the_first_chunk_is_no_boundary():
    one = trace(after(lambda t: 0.02 + 0 * t))
    target = np.hstack([one.target, -2 * one.target])
    both = Trace(DT, target, target, 0 * target, 0 * target, one.began, one.age_s)
    assert target_jumps(both)[:, 0] == pytest.approx([0.04])


def test_boundaries_without_enough_ticks_around_them_are_left_out():
    flat = after(lambda t: 0 * t)
    assert list(trace(flat, (0, 2, BOUNDARY, TICKS - 3, TICKS - 2)).boundaries) == [BOUNDARY, TICKS - 3]
    assert target_jumps(trace(flat, (0,))).shape == (0, 3)


def test_a_command_that_keeps_its_acceleration_has_no_jump():
    t = ticks_s()
    motion = (0.5 * 2.0 * t**2, 2.0 * t, 2.0 + 0 * t)
    began = np.isin(np.arange(TICKS), (0, BOUNDARY))
    even = Trace(DT, t, *motion, began, t[:, 0])
    assert command_jumps(even) == pytest.approx(np.zeros((1, 3)), abs=1e-12)
    motion[2][BOUNDARY:] += 4.0
    assert command_jumps(even)[0] == pytest.approx([0.0, 0.0, 4.0], abs=1e-12)


def test_jerk_counts_from_rest_on():
    t = ticks_s()
    ramp = Trace(DT, t, t, t, 50 * (t + DT), np.zeros(TICKS, bool), t[:, 0])
    assert jerk(ramp) == pytest.approx(np.full((TICKS, 1), 50.0))


def test_what_is_recorded():
    recorder = Recorder(DT, joints=(0, 2))
    held = Motion.at_rest((1.0, 2.0, 3.0))
    recorder.add(None, held, False, math.nan)
    recorder.add((4.0, 5.0, 6.0), held, True, 0.1)
    recorder.add(None, held, False, math.nan)
    seen = recorder.trace()
    assert seen.target.tolist() == [[1.0, 3.0], [4.0, 6.0], [1.0, 3.0]], "held where nothing was asked for"
    assert seen.waiting.tolist() == [False, False, True], (
        "before the first chunk there is nothing to wait for"
    )
    assert len(Recorder(DT, joints=(0,)).trace().began) == 0
