"""The verdict on logs whose story is known: a good trial of each outcome passes, every escape shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.benchmarks.faults.bounds import BOUNDS, MS
from holdfast.benchmarks.faults.classes import BY_NAME
from holdfast.benchmarks.faults.listing import example
from holdfast.benchmarks.faults.observer import Observer
from holdfast.benchmarks.faults.verdict import Stop, Timeline, Verdict, judge
from tests.benchmarks.faults.test_observer import CENTRE, Story, goals, torque

C = example()
FAULT, NOTICED, REST, WATCHED, RESET, NEXT, END = 1500, 1510, 1620, 2000, 2010, 2110, 2800
"""ms"""
SPEED, BRAKE = 10, 1
"""Ticks in 10 ms, and by how much that changes in each."""
SWING = 300
"""Joint 1 goes back and forth about so far."""


@dataclass
class Tale:
    """A trial as it should be; a test bends one thing."""

    name: str
    brake_ms: int = 1520
    """When the goals begin to slow down; later than the log: never."""
    silent_ms: int = 10**6
    """From here on nobody sends goals."""
    goals: dict[int, int] = field(default_factory=dict)
    """ms -> what joint 1 is told then instead."""
    pushed: dict[int, int] = field(default_factory=dict)
    """ms -> by how much joint 1 truly is elsewhere from then on."""
    off_ms: int = 10**6
    """From here on torque is off."""
    line: dict[str, Any] = field(default_factory=dict)

    def verdict(self, folder: Path) -> Verdict:
        story = Story().armed()
        at, speed, way, push = CENTRE[1], 0, SPEED, 0
        for ms in range(910, END, 10):
            if abs(at - CENTRE[1]) > SWING:
                way = SPEED if at < CENTRE[1] else -SPEED
            wanted = way if ms < self.brake_ms else 0
            speed += max(-BRAKE, min(BRAKE, wanted - speed))
            if ms < self.silent_ms:
                at = self.goals.get(ms, at + speed)
                story.host(ms, goals({**CENTRE, 1: at}))
            if ms == self.off_ms:
                for motor in CENTRE:
                    story.host(ms, torque(motor, 0))
            for part in (1, 6):
                push = self.pushed.get(ms, push)
                bits = 3 if ms < self.off_ms else 0
                story.true(ms + part, {1: at + push}, torque=bits)
        (folder / "wire.log").write_bytes(story.data)
        observer = Observer.of_robot(folder / "wire.log", "sim_arm")
        observer.read()
        stop = Stop("chunk_bad", NOTICED * MS)
        line = Timeline(
            begin_ns=905 * MS,
            fault_ns=FAULT * MS,
            watched_ns=WATCHED * MS,
            stop=stop,
            rest_ns=REST * MS,
            reset_ns=RESET * MS,
            next_ns=NEXT * MS,
        )
        return judge(BY_NAME[self.name], C, replace(line, **self.line), observer)


def stopped(**changes: Any) -> Tale:
    return Tale("chunk_nan", **changes)


def coasted(**changes: Any) -> Tale:
    line = {"stop": None, "rest_ns": 0, "reset_ns": 0, "next_ns": 0, "noticed_ns": 1530 * MS, "exit_code": 5}
    return Tale("control_killed", silent_ms=1505, line={**line, **changes.pop("line", {})}, **changes)


def parked(**changes: Any) -> Tale:
    line = {
        "stop": None, "rest_ns": 0, "reset_ns": 0, "next_ns": 0, "noticed_ns": 1530 * MS,
        "released_ns": 1801 * MS, "exited_ns": 1900 * MS, "exit_code": 143,
    }  # fmt: skip
    return Tale("sigterm", line={**line, **changes.pop("line", {})}, **{"off_ms": 1800, **changes})


def ridden(**changes: Any) -> Tale:
    line = {"stop": None, "rest_ns": 0, "reset_ns": 0, "next_ns": 0, "watched_ns": 1600 * MS}
    return Tale("cpu_hog", line={**line, **changes.pop("line", {})}, **{"brake_ms": 5000, **changes})


@pytest.mark.parametrize("tale", [stopped, coasted, parked, ridden])
def test_a_good_trial_is_no_escape(tale: Callable[[], Tale], tmp_path: Path):
    verdict = tale().verdict(tmp_path)
    assert verdict.escapes == ()
    assert not verdict.false_stop


def test_what_is_measured(tmp_path: Path):
    verdict = stopped().verdict(tmp_path)
    assert verdict.detect_ms == 10
    assert verdict.bound_ms == BOUNDS["next tick"].of(C) / 1e6
    assert verdict.last_command_ms == pytest.approx(100, abs=15)
    assert verdict.standstill_ms is not None
    assert 80 <= verdict.standstill_ms <= 130
    # 9 + 8 + ... ticks of braking, and what came before it.
    assert verdict.overshoot_rad == pytest.approx(55 * 6.2832 / 4096, abs=0.01)


STOP = Stop("chunk_bad", NOTICED * MS)
LATE = FAULT + round(BOUNDS["next tick"].of(C) / MS)

ESCAPES: dict[str, tuple[Tale, str]] = {
    "a goal outside the limits": (stopped(goals={1550: 200}), "limits"),
    "a goal too far from the last": (stopped(goals={1550: CENTRE[1] + 700}), "step"),
    "a goal outside the limits before the fault": (stopped(goals={1200: 4090}), "limits"),
    "no stop": (stopped(line={"stop": None}), "no stop"),
    "noticed too late": (
        stopped(line={"stop": replace(STOP, at_ns=(LATE + 1) * MS)}),
        "noticed 1 ms after the bound",
    ),
    "a wrong reason": (stopped(line={"stop": replace(STOP, code="load")}), "wrong reason: load"),
    "a wrong category": (stopped(line={"stop": replace(STOP, category=1)}), "category 1"),
    "motion after the bound and the stopping time": (
        stopped(brake_ms=2500, line={"rest_ns": 0, "watched_ns": 2790 * MS, "next_ns": 0}),
        "motion after the bound and the stopping time",
    ),
    "a goal changes while latched": (stopped(goals={1850: CENTRE[1]}), "while latched"),
    "it moves while latched, without a goal": (stopped(pushed={1850: 9}), "moved 0.0138 rad while latched"),
    "a goal changes after the reset": (stopped(goals={2050: CENTRE[1]}), "while latched"),
    "it moves after the reset": (stopped(pushed={2050: 9}), "while latched"),
    "limp in the end": (stopped(off_ms=1900), "should be held"),
    "coast: too far": (coasted(pushed={1600: 300}), "went on for"),
    "coast: not reported": (coasted(line={"noticed_ns": 0}), "not reported"),
    "coast: reported too late": (coasted(line={"noticed_ns": 2501 * MS}), "not reported"),
    "coast: a wrong exit code": (coasted(line={"exit_code": 0}), "exit code 0, not 5"),
    "coast: limp": (coasted(off_ms=1700), "should be held"),
    "coast: it goes on moving": (coasted(pushed={ms: ms // 10 % 7 for ms in range(1510, 2000, 10)}), "stand"),
    "park: nothing is done": (parked(line={"noticed_ns": 0}), "nothing was done"),
    "park: not released": (parked(line={"released_ns": 0}), "not parked and released"),
    "park: torque on": (parked(off_ms=10**6), "should be off"),
    "park: a goal after the release": (parked(goals={1950: CENTRE[1]}), "a goal after the release"),
    "park: does not end": (parked(line={"exited_ns": 0, "exit_code": None}), "had not ended"),
    "park: a wrong exit code": (parked(line={"exit_code": 0}), "exit code 0, not 143"),
    "park: a protective stop": (parked(line={"stop": STOP}), "wrong reason: chunk_bad, not none at all"),
    "ride through: it holds and says nothing": (ridden(brake_ms=1000), "does not move any more"),
}


@pytest.mark.parametrize("what", sorted(ESCAPES))
def test_every_kind_of_escape_shows(what: str, tmp_path: Path):
    tale, text = ESCAPES[what]
    escapes = tale.verdict(tmp_path).escapes
    assert any(text in escape for escape in escapes), escapes


def test_a_goal_of_a_control_that_should_be_dead_is_an_escape(tmp_path: Path):
    tale = coasted()
    tale.silent_ms, tale.brake_ms = 1600, 5000
    assert any("a goal" in escape for escape in tale.verdict(tmp_path).escapes)


def test_a_stop_where_none_should_be_is_a_false_stop_and_no_escape(tmp_path: Path):
    tale = ridden(brake_ms=1520, line={"stop": STOP, "rest_ns": REST * MS, "watched_ns": WATCHED * MS})
    verdict = tale.verdict(tmp_path)
    assert verdict.false_stop
    assert verdict.escapes == ()


def test_wrong_but_possible_values_may_lead_to_a_stop_for_a_right_reason_only(tmp_path: Path):
    right = Tale("chunk_sign_flip", line={"stop": replace(STOP, code="table_collision")})
    wrong = Tale("chunk_sign_flip", line={"stop": replace(STOP, code="internal")})
    assert right.verdict(tmp_path).escapes == ()
    assert any("wrong reason" in escape for escape in wrong.verdict(tmp_path).escapes)
