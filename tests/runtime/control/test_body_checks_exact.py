"""The checks of the body without luck: what a stretch of the way is judged by, bounds, words. Quick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdfast.runtime.control import body_checks
from holdfast.runtime.control.body import Body, Near
from holdfast.runtime.control.body_checks import check_body, check_tool_speed, describe_body
from holdfast.runtime.control.smoother import KinematicLimits, Motion
from holdfast.runtime.control.tools import Tools, Violation

from .shapes import FORE_M, JOINTS, SHAPE, UPPER_M, shaped, with_body

WIDE = {
    "low": (-3.0, -3.0, 0.0),
    "high": (3.0, 3.0, 100.0),
    "kinematic": KinematicLimits((2.0, 2.0, 300.0), (15.0, 15.0, 2000.0), (300.0, 300.0, 40000.0)),
}
CONFIG = with_body(**WIDE)
TOOLS = Tools.of(CONFIG)
BOX = {"low": (-0.3, -0.3, -0.15), "high": (0.6, 0.35, 0.2)}
IN_BOX = with_body(shaped(**BOX), **WIDE)
TOOLS_IN_BOX = Tools.of(IN_BOX)
DT_S = 0.01


def moving(
    velocity: Sequence[float], acceleration: Sequence[float] = (0.0, 0.0, 0.0)
) -> tuple[Motion, Motion]:
    after = Motion((0.1, 0.2, 5.0), tuple(velocity), tuple(acceleration))
    return replace(
        after, position=tuple(p - DT_S * v for p, v in zip(after.position, velocity, strict=True))
    ), after


STRAIGHT = moving((1.5, -0.8, 0.0))
TURNING = moving((0.05, -1.0, 0.0), (-10.0, 0.0, 0.0))
"""Its pan decelerates by more than it needs, and turns back after 5 ms."""


class Blind(Body):
    """Sees nothing and is never content: every stretch is halved to the end."""

    asked: list[tuple[list[float], list[float]]]

    def clear(self, position: Sequence[float], away: Sequence[float]) -> bool:
        self.asked.append((list(position), list(away)))
        return False

    def near(self, position: Sequence[float], more_m: Any = 0.0) -> list[Near]:
        return []

    def distances(self, position: Sequence[float]) -> tuple[float, ...]:
        return ()


class Way(body_checks._Way):
    stretches: list[tuple[float, Sequence[float], float, Sequence[float], int]]

    def _stretch(
        self, start_s: float, start: Sequence[float], end_s: float, end: Sequence[float], halvings: int
    ) -> Violation | None:
        self.stretches.append((start_s, list(start), end_s, list(end), halvings))
        return super()._stretch(start_s, start, end_s, end, halvings)


def walked(before: Motion, after: Motion) -> tuple[Way, Blind]:
    body = Blind(SHAPE, JOINTS, CONFIG.low, CONFIG.high)
    body.asked = []
    way = Way(body, TOOLS.smoother, before, after, DT_S)
    way.stretches = []
    assert way.judge() is None
    return way, body


def place(before: Motion, after: Motion, time_s: float) -> list[float]:
    """Where the joints are on the way, by the smoother and by hand."""
    if time_s >= 0:
        return list(TOOLS.smoother.braking_at(after, time_s))
    return [b + (b - a) * time_s / DT_S for a, b in zip(before.position, after.position, strict=True)]


@pytest.mark.parametrize(("before", "after"), [STRAIGHT, TURNING], ids=["straight", "turning"])
def test_every_stretch_is_judged_by_its_middle_and_by_how_far_it_gets_from_there(
    before: Motion, after: Motion
) -> None:
    way, body = walked(before, after)
    end_s = TOOLS.smoother.braking_s(after)
    turns = {joint: (when, far) for joint, when, far in TOOLS.smoother.turning_back(after)}
    assert set(turns) == ({0} if after is TURNING[1] else set())
    assert way.stretches[0][0] == -DT_S
    assert way.stretches[0][2] == end_s
    assert way.stretches[0][4] == 5
    for (start_s, start, to_s, to, _), (middle, away) in zip(way.stretches, body.asked, strict=True):
        assert start == pytest.approx(place(before, after, start_s), abs=1e-12)
        assert to == pytest.approx(place(before, after, to_s), abs=1e-12)
        half = math.sqrt(((end_s - start_s) ** 2 + (end_s - to_s) ** 2) / 2)
        assert middle == pytest.approx(place(before, after, end_s - half), abs=1e-12)
        times = np.linspace(start_s, to_s, 200)
        if start_s < 0 < to_s:
            times = np.append(times, 0.0)
        true = np.abs(np.array([place(before, after, t) for t in times]) - middle).max(axis=0)
        for joint in range(3):
            when, far = turns.get(joint, (math.inf, 0.0))
            turned = far if start_s <= when <= to_s else 0.0
            assert true[joint] - 1e-12 <= away[joint] <= true[joint] + turned + 1e-12
            ends = max(abs(start[joint] - middle[joint]), abs(to[joint] - middle[joint]))
            assert away[joint] >= ends + turned - 1e-12


@pytest.mark.parametrize(("before", "after"), [STRAIGHT, TURNING], ids=["straight", "turning"])
def test_the_stretches_that_are_judged_in_the_end_are_the_whole_way_and_fine(
    before: Motion, after: Motion
) -> None:
    way, body = walked(before, after)
    split = {(start_s, halvings) for start_s, _, _, _, halvings in way.stretches}
    leaves = []
    for (start_s, _, to_s, _, halvings), (_, away) in zip(way.stretches, body.asked, strict=True):
        fine = max(body.change(away)) <= 0.0005
        assert ((start_s, halvings - 1) in split) is not (fine or halvings == 0)
        if fine or halvings == 0:
            leaves.append((start_s, to_s))
    leaves.sort()
    assert leaves[0][0] == -DT_S
    assert leaves[-1][1] == TOOLS.smoother.braking_s(after)
    assert [start_s for start_s, _ in leaves[1:]] == [to_s for _, to_s in leaves[:-1]]
    assert {halvings for *_, halvings in way.stretches} == set(range(6)), "some to the last, none further"


def test_a_turn_at_the_very_edge_of_a_stretch_belongs_to_it() -> None:
    """And to the other side of the edge, by a microsecond for rounding."""
    way = Way(Blind(SHAPE, JOINTS, CONFIG.low, CONFIG.high), TOOLS.smoother, *TURNING, DT_S)
    ((joint, when, far),) = TOOLS.smoother.turning_back(TURNING[1])
    middle = list(TURNING[1].position)
    for start_s, end_s, inside in (
        (when - 0.002, when, True),
        (when, when + 0.002, True),
        (when - 0.002, when - 0.9e-6, True),
        (when + 0.9e-6, when + 0.002, True),
        (when - 0.002, when - 2.1e-6, False),
        (when + 2.1e-6, when + 0.002, False),
        (when - 0.002, when + 0.002, True),
    ):
        away = way._away(middle, start_s, middle, end_s, middle)
        assert away == [far if inside and i == joint else 0.0 for i in range(3)]


def test_the_setpoint_counts_in_a_stretch_that_it_lies_within() -> None:
    way = Way(Blind(SHAPE, JOINTS, CONFIG.low, CONFIG.high), TOOLS.smoother, *STRAIGHT, DT_S)
    middle = [p - 0.25 for p in STRAIGHT[1].position]
    assert way._away(middle, -0.001, middle, 0.001, middle) == pytest.approx([0.25] * 3)
    for start_s, end_s in ((-0.002, -0.001), (0.001, 0.002)):
        assert way._away(middle, start_s, middle, end_s, middle) == [0.0] * 3
    high = [p + 0.25 for p in STRAIGHT[1].position]
    assert way._away(high, -0.001, high, 0.001, high) == pytest.approx([0.25] * 3)
    far = [p + 0.5 for p in high]
    assert way._away(high, -0.001, far, 0.001, high) == pytest.approx([0.5] * 3)


# What is refused


FLOOR = replace(CONFIG, body=shaped(table_clearance_m=0.05))
FLOOR_TOOLS = Tools.of(FLOOR)
NEAR_FLOOR = (0.0, -0.6, 0.0)
"""The hand points down, its end in the clearance of the floor."""


def stepped(to: float, lift: float = -0.6) -> Violation | None:
    before, after = Motion.at_rest((0.0, lift, 0.0)), Motion.at_rest((0.0, lift + to, 0.0))
    return check_body(before, after, FLOOR, FLOOR_TOOLS)


def test_what_is_too_near_may_move_away_or_stay_but_come_no_nearer() -> None:
    assert FLOOR_TOOLS.body is not None
    assert min(FLOOR_TOOLS.body.distances(NEAR_FLOOR)) < 0.05
    assert stepped(0.01) is None
    assert stepped(0.0) is None
    assert stepped(1e-8 / FORE_M) is None, "by a hundredth of a micrometre: away"
    assert stepped(-1e-10) is None, "rounding"
    violation = stepped(-0.01)
    assert violation is not None
    assert violation.code == "table_collision"
    assert violation.text.startswith("fore and floor would be ")
    assert violation.text.endswith(" mm, the clearance is 50 mm, at the setpoint")
    assert stepped(-1e-7) is not None


def test_what_comes_too_near_between_two_poses_is_refused_with_how_much_is_unseen() -> None:
    """At every pose that is looked at the distance is kept, but not by what lies between them."""
    assert FLOOR_TOOLS.body is not None
    lift = -math.asin((0.2 - 0.02 - 0.05) / FORE_M)  # the clearance, exactly
    violation = stepped(-0.001, lift + 0.0011)
    assert violation is not None
    assert "(and 0.2 mm for what lies between the poses looked at), at the setpoint" in violation.text
    assert stepped(-0.001, lift + 0.01) is None


def test_how_long_into_braking_is_said_and_a_setpoint_is_no_braking() -> None:
    lift = -math.asin((0.2 - 0.02 - 0.01) / FORE_M)
    after = Motion((0.0, lift + 0.05, 0.0), (0.0, -1.9, 0.0), (0.0, 0.0, 0.0))
    before = replace(after, position=(0.0, lift + 0.069, 0.0))
    violation = check_body(before, after, CONFIG, TOOLS)
    assert violation is not None
    assert violation.code == "table_collision"
    words = violation.text.split(", ")[-1]
    milliseconds = int(words.removesuffix(" ms into braking from the setpoint"))
    assert 10 <= milliseconds <= 1e3 * TOOLS.smoother.braking_s(after)
    at_rest = check_body(Motion.at_rest(before.position), Motion.at_rest(after.position), CONFIG, TOOLS)
    assert at_rest is None, "at rest it is far enough"


def test_the_workspace() -> None:
    def step(pan: float, to: float) -> Violation | None:
        before, after = (Motion.at_rest((x, 0.0, 0.0)) for x in (pan, to))
        return check_body(before, after, IN_BOX, TOOLS_IN_BOX)

    low = -math.asin(0.3 / (UPPER_M + FORE_M))
    assert step(0.0, -0.1) is None
    assert step(low + 0.02, low + 0.01) is None
    violation = step(0.0, -1.0)
    assert violation is not None
    assert violation.code == "workspace"
    assert step(-1.0, -0.98) is None, "back in"
    assert step(-1.0, -1.0) is None
    further = step(-1.0, -1.02)
    assert further is not None
    assert further.code == "workspace"
    assert "the tip would be at y = " in further.text
    assert further.text.endswith("the workspace is -300 .. 350 mm, at the setpoint")
    unseen = step(low + 0.002, low + 0.0001)
    assert unseen is not None
    assert "mm for what lies between the poses looked at), at the setpoint" in unseen.text
    assert step(-1.0, -1.0 - 1e-10) is None, "rounding"
    assert step(-1.0, -1.0 - 1e-7) is not None


def test_without_a_body_there_is_nothing_to_check() -> None:
    far = Motion.at_rest((0.0, 0.0, 0.0)), Motion.at_rest((3.0, 3.0, 3.0))
    tools = replace(TOOLS, body=None)
    assert check_body(*far, CONFIG, tools) is None
    assert check_tool_speed(*far, replace(CONFIG, tool_speed_m_s=0.25), tools) is None
    assert check_tool_speed(*far, CONFIG, TOOLS) is None


# Tool speed


SLOW = replace(CONFIG, tool_speed_m_s=0.25)
REACH_M = UPPER_M + FORE_M


def speed_check(moved_m_s: float, stated_m_s: float, share: float = 1.0) -> Violation | None:
    """The stretched arm turned about its base."""
    step = 2 * math.asin(moved_m_s * DT_S / 2 / REACH_M)
    stated = 2 * math.asin(stated_m_s * 1e-4 / 2 / REACH_M) / 1e-4
    after = Motion((step, 0.0, 0.0), (stated, 0.0, 0.0), (0.0, 0.0, 0.0))
    return check_tool_speed(Motion.at_rest((0.0, 0.0, 0.0)), after, SLOW, TOOLS)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_tip_by_its_step_and_by_what_is_stated(sign: int) -> None:
    for moved, stated, refused in (
        (0.25, 0.25, False),
        (0.2500010, 0.0, False),
        (0.0, 0.2500010, False),
        (0.2500014, 0.0, True),
        (0.0, 0.2500014, True),
        (0.4, 0.1, True),
        (0.1, 0.4, True),
    ):
        violation = speed_check(sign * moved, sign * stated)
        assert (violation is not None) is refused, (moved, stated)
        if moved + stated == 0.5 and refused:
            assert violation == Violation("tool_speed", "the tip at 0.400 m/s, limit 0.25 m/s")


def test_the_stated_velocity_is_judged_just_ahead_of_the_setpoint() -> None:
    """Not behind it: a folded arm that unfolds is faster at its tip a moment later."""
    lift = -1.2
    after = Motion((0.0, lift, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    pan = 0.25 / (UPPER_M + FORE_M * math.cos(lift))
    still = replace(after, velocity=(pan * 0.9999, 0.0, 0.0))
    assert check_tool_speed(after, still, SLOW, TOOLS) is None


# Words


def test_what_is_armed_is_said() -> None:
    assert describe_body(replace(IN_BOX, tool_speed_m_s=0.25), TOOLS_IN_BOX.body) == [
        "distance to itself: at least 10 mm (1 pairs), also while braking",
        "distance to floor: at least 10 mm (2 pairs), also while braking",
        "workspace: tip in x -300 .. 600, y -300 .. 350, z -150 .. 200 mm, also while braking",
        "tool speed: at most 250 mm/s",
    ]
    assert describe_body(CONFIG, None) == [
        "distances, workspace, tool speed: NOT checked (the robot file has no body)"
    ]


@pytest.mark.parametrize("box", [{}, {"low": (0.0, 0.0, 0.0)}, {"high": (1.0, 1.0, 1.0)}])
def test_what_is_not_armed_is_said(box: dict[str, Any]) -> None:
    bare = shaped(self_clearance_m=None, table=(), table_clearance_m=None, **box)
    body = Body(bare, JOINTS, CONFIG.low, CONFIG.high)
    assert describe_body(with_body(bare), body) == [
        "distance to itself: NOT checked",
        "distance to a table: NOT checked",
        "workspace: NOT checked",
        "tool speed: no limit of its own",
    ]
