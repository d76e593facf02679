"""The checks of the body at their bounds: what just counts as nearer, unseen, fine, still the setpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdfast.runtime.control.body import Body, Near
from holdfast.runtime.control.body_checks import check_body, check_tool_speed
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.tools import Violation

from .shapes import FORE_M, JOINTS, SHAPE, links
from .test_body_checks_exact import (
    CONFIG,
    DT_S,
    FLOOR,
    FLOOR_TOOLS,
    IN_BOX,
    STRAIGHT,
    TOOLS,
    TOOLS_IN_BOX,
    TURNING,
    Blind,
    Way,
    place,
    walked,
)

FIRST = 1 - math.sqrt(0.5)
"""From one pose at rest to the next: the share of the way at which it is looked at first."""


class Told(Body):
    """What is told about distances, before and after."""

    was = 1.0
    nears: list[Near]
    sides: dict[tuple[float, ...], tuple[float, ...]]

    def near(self, position: Sequence[float], more_m: Any = 0.0) -> list[Near]:
        return self.nears

    def distances(self, position: Sequence[float]) -> tuple[float, ...]:
        return (self.was,) * len(self.pairs)

    def rooms(self, position: Sequence[float]) -> tuple[float, ...]:
        return self.sides[tuple(position)]


def refusal(
    distance_m: float | None = None,
    was_m: float = 1.0,
    room_m: float = 9.0,
    had_m: float = 9.0,
    time_s: float = 0.1,
) -> Violation | None:
    """Of a pose at which one pair is `distance_m` apart, and the tip `room_m` from one side."""
    shape = replace(SHAPE, low=(-9.0,) * 3, high=(9.0,) * 3)
    body = Told(shape, JOINTS, CONFIG.low, CONFIG.high)
    here = (0.5, 0.5, 5.0)
    body.was = was_m
    body.nears = [] if distance_m is None else [Near(0, distance_m, (0.0, 0.0, 0.0))]
    body.sides = {STRAIGHT[0].position: (9.0, had_m), here: (9.0, room_m)}
    way = Way(body, TOOLS.smoother, *STRAIGHT, DT_S)
    return way._refusal(here, time_s, [0.001] * len(body.pairs) + [0.25])


@pytest.mark.parametrize(
    ("distance_m", "refused"), [(0.005 - 1e-9, False), (0.005 - 1.001e-9, True), (0.005, False)]
)
def test_a_nanometre_is_no_nearer_and_more_is(distance_m: float, refused: bool) -> None:
    assert (refusal(distance_m, was_m=0.005) is not None) is refused


@pytest.mark.parametrize(("room_m", "refused"), [(0.1 - 1e-9, False), (0.1 - 1.001e-9, True), (0.1, False)])
def test_a_nanometre_is_no_further_out_of_the_workspace_and_more_is(room_m: float, refused: bool) -> None:
    violation = refusal(room_m=room_m, had_m=0.1)
    assert (violation.code if violation is not None else None) == ("workspace" if refused else None)


@pytest.mark.parametrize(("room_m", "refused"), [(0.25, False), (0.2499, True)])
def test_as_much_room_as_the_stretch_may_take_is_enough(room_m: float, refused: bool) -> None:
    assert (refusal(room_m=room_m) is not None) is refused


@pytest.mark.parametrize(("distance_m", "unseen"), [(0.0099, False), (0.01, True), (0.0101, True)])
def test_what_keeps_its_clearance_here_may_not_keep_it_in_between(distance_m: float, unseen: bool) -> None:
    violation = refusal(distance_m)
    assert violation is not None
    assert ("what lies between" in violation.text) is unseen


@pytest.mark.parametrize(
    ("time_s", "words"),
    [
        (-0.001, "at the setpoint"),
        (0.0, "at the setpoint"),
        (0.002, "2 ms into braking from the setpoint"),
    ],
)
def test_the_time_of_the_setpoint_is_no_braking(time_s: float, words: str) -> None:
    for violation in (refusal(0.001, time_s=time_s), refusal(room_m=0.1, time_s=time_s)):
        assert violation is not None
        assert violation.text.endswith(f", {words}")


@pytest.mark.parametrize(("nearer_m", "refused"), [(0.6e-9, False), (1.5e-9, True)])
def test_a_nanometre_on_the_real_arm(nearer_m: float, refused: bool) -> None:
    """Towards the floor, and out of the workspace, by so much at the pose that is looked at first."""
    lift = -0.6
    down = nearer_m / FIRST / (FORE_M * math.cos(lift))
    before, after = Motion.at_rest((0.0, lift, 0.0)), Motion.at_rest((0.0, lift - down, 0.0))
    assert (check_body(before, after, FLOOR, FLOOR_TOOLS) is not None) is refused
    pan = -1.0
    out = nearer_m / FIRST / (0.55 * math.cos(pan))
    before, after = Motion.at_rest((pan, 0.0, 0.0)), Motion.at_rest((pan - out, 0.0, 0.0))
    assert (check_body(before, after, IN_BOX, TOOLS_IN_BOX) is not None) is refused


def test_a_turn_a_microsecond_beyond_the_edge_still_belongs_to_a_stretch() -> None:
    way = Way(Blind(SHAPE, JOINTS, CONFIG.low, CONFIG.high), TOOLS.smoother, *TURNING, DT_S)
    ((joint, when, far),) = TOOLS.smoother.turning_back(TURNING[1])
    middle = list(TURNING[1].position)
    for start_s, end_s, inside in (
        (when - 0.002, when - 1e-6, True),
        (when + 1e-6, when + 0.002, True),
        (when - 0.002, when - 1.1e-6, False),
        (when + 1.1e-6, when + 0.002, False),
    ):
        away = way._away(middle, start_s, middle, end_s, middle)
        assert away[joint] == (far if inside else 0.0)


@pytest.mark.parametrize(("change_m", "stretches"), [(0.0005, 1), (0.000501, 63)])
def test_a_stretch_that_changes_distances_by_half_a_millimetre_is_fine(
    change_m: float, stretches: int
) -> None:
    class Even(Blind):
        def change(self, away: Sequence[float]) -> tuple[float, ...]:
            return (0.0,) * len(self.pairs) + (change_m,)

    body = Even(SHAPE, JOINTS, CONFIG.low, CONFIG.high)
    body.asked = []
    way = Way(body, TOOLS.smoother, *STRAIGHT, DT_S)
    way.stretches = []
    assert way.judge() is None
    assert len(way.stretches) == stretches


def test_the_way_begins_a_tick_before_the_setpoint() -> None:
    _, expected = walked(*STRAIGHT)
    body = Blind(SHAPE, JOINTS, CONFIG.low, CONFIG.high)
    body.asked = []
    assert check_body(*STRAIGHT, CONFIG, replace(TOOLS, body=body)) is None
    assert body.asked == expected.asked
    end_s = TOOLS.smoother.braking_s(STRAIGHT[1])
    half = math.sqrt(((end_s + 0.01) ** 2) / 2)
    assert body.asked[0][0] == pytest.approx(place(*STRAIGHT, end_s - half), abs=1e-12)


def test_the_stated_velocity_is_judged_a_tenth_of_a_millisecond_ahead() -> None:
    """Of an arm that unfolds while it turns, the tip is faster there than at the setpoint, and than further
    behind."""
    here, velocity = (0.1, -1.2, 0.0), (1.0, 2.0, 0.0)
    ahead = [p + 1e-4 * v for p, v in zip(here, velocity, strict=True)]
    stated = float(np.linalg.norm(links(ahead)["fore"][1] - links(here)["fore"][1])) / 1e-4
    after = Motion(here, velocity, (0.0, 0.0, 0.0))
    for limit, refused in ((stated, False), (stated - 4e-6, True)):
        violation = check_tool_speed(
            Motion.at_rest(here), after, replace(CONFIG, tool_speed_m_s=limit), TOOLS
        )
        assert (violation is not None) is refused
