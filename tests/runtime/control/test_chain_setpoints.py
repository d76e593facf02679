"""The safety chain: what refuses a setpoint, each check at its limit and a hair beyond it."""

from __future__ import annotations

import contextlib
import math

import pytest

from holdfast.runtime.control import chain
from holdfast.runtime.control.smoother import Motion, SmootherError
from holdfast.runtime.control.tools import Tools

from .world import config

CONFIG = config()
HERE = (0.2, -0.3, 10.0)
TOOLS = Tools.of(CONFIG)
DT_S = 0.01
SLACK = 1e-6
"""Relative to the range of a joint."""


def motion(
    position: tuple[float, ...] = HERE,
    velocity: tuple[float, ...] = (0.0, 0.0, 0.0),
    acceleration: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> Motion:
    return Motion(position, velocity, acceleration)


def refusal(before: Motion, after: Motion) -> str | None:
    violation = chain.check_setpoint(before, after, CONFIG, TOOLS)
    return violation.code if violation else None


def around(limit: float, code: str) -> list[tuple[float, str | None]]:
    """The limit, and a hair to both sides of what rounding may add to it."""
    last = most(limit)
    return [(limit, None), (last * (1 - 1e-10), None), (last * (1 + 1e-10), code), (limit * 1.5, code)]


def most(limit: float) -> float:
    """With what rounding may add."""
    return limit * (1 + SLACK) + SLACK


def test_standing_still_is_allowed() -> None:
    assert refusal(motion(), motion()) is None


@pytest.mark.parametrize("joint", range(3))
@pytest.mark.parametrize("side", ["low", "high"])
def test_a_setpoint_may_be_at_its_limit_and_not_beyond(joint: int, side: str) -> None:
    outwards = 1 if side == "high" else -1
    span = CONFIG.high[joint] - CONFIG.low[joint]
    for share, code in ((0.0, None), (0.9, None), (1.1, "position_limit"), (1e5, "position_limit")):
        point = list(HERE)
        point[joint] = getattr(CONFIG, side)[joint] + outwards * share * SLACK * span
        inside = list(HERE)
        inside[joint] = getattr(CONFIG, side)[joint]
        before, after = motion(tuple(inside)), motion(tuple(point))
        violation = chain.check_position(before, after, CONFIG, TOOLS)
        assert (violation.code if violation else None) == code


@pytest.mark.parametrize("side", [-1, 1])
def test_a_joint_that_rests_outside_may_stay_or_come_in_but_go_no_further(side: int) -> None:
    def code(position: float) -> str | None:
        after = motion((side * position, *HERE[1:]))
        violation = chain.check_position(motion((side * 1.04, *HERE[1:])), after, CONFIG, TOOLS)
        return violation.code if violation else None

    assert [code(1.04), code(1.03), code(0.0), code(1.0401)] == [None, None, None, "position_limit"]
    assert code(-1.0001) == "position_limit", "the other limit is none the wider"


def test_a_position_that_is_not_a_number_is_no_position() -> None:
    violation = chain.check_position(motion(), motion((math.nan, 0.0, 0.0)), CONFIG, TOOLS)
    assert violation is not None
    assert violation.code == "position_limit"


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
def test_neither_the_step_nor_the_stated_velocity_exceeds_the_limit(joint: int, side: int) -> None:
    limit = CONFIG.kinematic.velocity[joint]
    for value, code in around(limit, "velocity_limit"):
        value *= side
        stated = tuple(value if i == joint else 0.0 for i in range(3))
        stepped = tuple(p + (value * DT_S if i == joint else 0.0) for i, p in enumerate(HERE))
        for after in (motion(velocity=stated), motion(stepped)):
            violation = chain.check_velocity(motion(), after, CONFIG, TOOLS)
            assert (violation.code if violation else None) == code
            said = f"{CONFIG.joint_names[joint]} at {abs(value):.3f}/s, limit {limit:.3f}/s"
            assert violation is None or violation.text == said
        exact = tuple(side * most(limit) if i == joint else 0.0 for i in range(3))
        assert chain.check_velocity(motion(), motion(velocity=exact), CONFIG, TOOLS) is None


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
def test_neither_the_change_of_velocity_nor_the_stated_acceleration_exceeds_the_limit(
    joint: int, side: int
) -> None:
    limit = CONFIG.kinematic.acceleration[joint]
    begun = (0.5, -0.5, 5.0)
    for value, code in around(limit, "acceleration_limit"):
        value *= side
        stated = tuple(value if i == joint else 0.0 for i in range(3))
        changed = tuple(v + (value * DT_S if i == joint else 0.0) for i, v in enumerate(begun))
        for after in (motion(velocity=begun, acceleration=stated), motion(velocity=changed)):
            violation = chain.check_acceleration(motion(velocity=begun), after, CONFIG, TOOLS)
            assert (violation.code if violation else None) == code
            said = f"{CONFIG.joint_names[joint]} at {abs(value):.2f}/s2, limit {limit:.2f}/s2"
            assert violation is None or violation.text == said
        exact = tuple(side * most(limit) if i == joint else 0.0 for i in range(3))
        assert chain.check_acceleration(motion(), motion(acceleration=exact), CONFIG, TOOLS) is None


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(3))
def test_the_change_of_acceleration_does_not_exceed_the_limit(joint: int, side: int) -> None:
    limit = CONFIG.kinematic.jerk[joint]
    begun = (1.0, -1.0, 10.0)
    for value, code in around(limit, "jerk_limit"):
        value *= side
        change = value * DT_S
        after = motion(acceleration=tuple(a + (change if i == joint else 0.0) for i, a in enumerate(begun)))
        violation = chain.check_jerk(motion(acceleration=begun), after, CONFIG, TOOLS)
        assert (violation.code if violation else None) == code
        said = f"{CONFIG.joint_names[joint]} at {abs(value):.1f}/s3, limit {limit:.1f}/s3"
        assert violation is None or violation.text == said


@pytest.mark.parametrize("joint", range(3))
@pytest.mark.parametrize("side", ["low", "high"])
def test_braking_ends_inside_the_limits(joint: int, side: str) -> None:
    """At rest braking ends where it begins, so the check's own limit shows."""
    outwards = 1 if side == "high" else -1
    span = CONFIG.high[joint] - CONFIG.low[joint]
    edge = list(HERE)
    edge[joint] = getattr(CONFIG, side)[joint]
    for share, code in ((0.0, None), (0.9, None), (1.2, "stopping_distance")):
        point = list(edge)
        point[joint] += outwards * share * SLACK * span
        violation = chain.check_stopping_distance(motion(tuple(edge)), motion(tuple(point)), CONFIG, TOOLS)
        assert (violation.code if violation else None) == code


@pytest.mark.parametrize("side", [-1, 1])
def test_a_joint_outside_may_brake_to_where_it_came_from(side: int) -> None:
    before = motion((side * 1.04, *HERE[1:]))
    for rest, code in (
        (1.04, None),
        (1.0, None),
        (1.0401, "stopping_distance"),
        (-1.01, "stopping_distance"),
    ):
        after = motion((side * rest, *HERE[1:]))
        violation = chain.check_stopping_distance(before, after, CONFIG, TOOLS)
        assert (violation.code if violation else None) == code


@pytest.mark.parametrize("side", [-1, 1])
def test_who_is_too_fast_for_the_room_that_is_left_is_refused(side: int) -> None:
    for at, code in ((0.7, None), (0.99, "stopping_distance")):
        moving = motion((side * at, *HERE[1:]), (side * 1.0, 0.0, 0.0))
        assert refusal(moving, moving) == code


@pytest.mark.parametrize(
    ("after", "code"),
    [
        (motion((1.2, -0.3, 10.0)), "position_limit"),
        (motion((0.4, -0.3, 10.0)), "velocity_limit"),
        (motion(velocity=(1.9, 0.0, 0.0)), "acceleration_limit"),
        (motion(acceleration=(14.0, 0.0, 0.0)), "jerk_limit"),
    ],
)
def test_a_setpoint_is_refused_by_the_first_check_that_it_fails(after: Motion, code: str) -> None:
    assert refusal(motion(), after) == code


def test_the_checks_are_named_in_the_order_in_which_they_are_made() -> None:
    names = [name for name, _ in chain.SETPOINT_CHECKS]
    assert names[:5] == ["position", "velocity", "acceleration", "jerk", "stopping distance"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["position", "velocity", "acceleration"])
def test_a_setpoint_that_is_not_finite_is_refused_in_one_way_or_another(what: str, value: float) -> None:
    after = motion(**{what: (value, *getattr(motion(), what)[1:])})
    with contextlib.suppress(SmootherError):  # which the core turns into `no_trajectory`
        assert refusal(motion(), after) is not None
