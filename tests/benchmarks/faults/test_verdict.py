"""The verdict on logs whose story is known: a good trial of each outcome passes, every escape shows."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.benchmarks.faults.bounds import BOUNDS, MS
from holdfast.benchmarks.faults.classes import BY_NAME
from holdfast.benchmarks.faults.listing import example
from holdfast.benchmarks.faults.verdict import Stop, Timeline, Verdict, judge
from holdfast.benchmarks.faults.watch import says_control_is_gone
from holdfast.benchmarks.faults.witness import Witness
from holdfast.drivers.robots.schema import FOLDER
from tests.benchmarks.faults.test_observer import CENTRE, Story, goals, torque

C = example()
CALIBRATION = FOLDER / "calibrations" / "sim_arm.json"
FAULT, NOTICED, REST, WATCHED, RESET, NEXT, END = 1500, 1510, 1620, 2000, 2010, 2110, 2800
"""ms"""
SPEED, BRAKE = 10, 1
"""Ticks in 10 ms, and by how much that changes in each."""
SWING = 300
"""Joint 1 goes back and forth about so far."""


def at_the_centre(folder: Path) -> Path:
    """The robot file of sim_arm, but its arm is parked where these tales begin."""
    document = yaml.safe_load((FOLDER / "sim_arm.yaml").read_text())
    for joint in document["joints"]:
        joint["park"] = 0.0
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


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
    on_ms: int = 10**6
    """From here on it is on again."""
    limp: tuple[int, ...] = ()
    """Motors that do not drive from 1520 ms on, their registers on."""
    others: dict[int, int] = field(default_factory=dict)
    """Where other joints are all the time."""
    home: bool = False
    """Joint 1 does not brake at `brake_ms`, but goes to the centre and stays there."""
    missed: Container[int] = ()
    """ms in which no goals are sent."""
    line: dict[str, Any] = field(default_factory=dict)

    def verdict(self, folder: Path) -> Verdict:
        story = Story().armed()
        at, speed, way, push = CENTRE[1], 0, SPEED, 0
        for ms in range(910, END, 10):
            if abs(at - CENTRE[1]) > SWING:
                way = SPEED if at < CENTRE[1] else -SPEED
            wanted = way if ms < self.brake_ms else 0
            if self.home and ms >= self.brake_ms:
                left = CENTRE[1] - at
                wanted = max(-SPEED, min(SPEED, round(left / 8) or (left > 0) - (left < 0)))
            speed += max(-BRAKE, min(BRAKE, wanted - speed)) if ms not in self.missed else 0
            if ms < self.silent_ms and ms not in self.missed:
                at = self.goals.get(ms, at + speed)
                story.host(ms, goals({**CENTRE, 1: at}))
            if ms == self.off_ms:
                for motor in CENTRE:
                    story.host(ms, torque(motor, 0))
            if ms == self.on_ms:
                for motor in CENTRE:
                    story.host(ms, torque(motor, 1))
            for part in (1, 6):
                push = self.pushed.get(ms, push)
                on = not self.off_ms <= ms < self.on_ms
                bits = {
                    motor: 0 if not on else 1 if motor in self.limp and ms >= 1520 else 3 for motor in CENTRE
                }
                story.true(ms + part, {**self.others, 1: at + push}, torque=bits)
        (folder / "wire.log").write_bytes(story.data)
        observer = Witness(folder / "wire.log", at_the_centre(folder), CALIBRATION)
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
        "released_ns": 2201 * MS, "exited_ns": 2400 * MS, "watched_ns": 2500 * MS, "exit_code": 143,
    }  # fmt: skip
    return Tale(
        "sigterm", line={**line, **changes.pop("line", {})}, **{"off_ms": 2200, "home": True, **changes}
    )


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
SILENT = Stop("policy_silent", NOTICED * MS)


def overloaded(**changes: Any) -> Tale:
    line = {"stop": replace(STOP, code="motor_fault"), "motor": 3, **changes.pop("line", {})}
    return Tale("motor_overload", limp=changes.pop("limp", (3,)), line=line, **changes)


def contained(**changes: Any) -> Tale:
    line = {"stop": None, "rest_ns": 0, "reset_ns": 0, "next_ns": 0, **changes.pop("line", {})}
    return Tale("chunk_sign_flip", line=line, brake_ms=10**6, **changes)


HOLES: dict[str, tuple[Tale, str]] = {
    "latched, and driving on until the bound": (
        Tale("policy_stopped", brake_ms=1880, line={"stop": SILENT, "rest_ns": 2000 * MS}),
        "was told to go on",
    ),
    "latched, and driving on a little longer than it brakes": (stopped(brake_ms=1780), "was told to go on"),
    "noticed within the slots that nobody missed": (
        stopped(brake_ms=1620, line={"stop": replace(STOP, at_ns=1600 * MS), "rest_ns": 1760 * MS}),
        "noticed 80 ms after the bound of 20 ms",
    ),
    "the arm goes on although its goals do not": (
        stopped(pushed={ms: ms - 1530 for ms in range(1530, 2600, 10)}), "went on for",
    ),
    "park: torque is cut on the way, and the run says later that it is": (
        parked(off_ms=1600), "from its park pose",
    ),
    "park: the arm is let go in motion": (parked(pushed={2180: 20, 2190: 40}), "let go in motion"),
    "torque is off for a moment, and on again": (stopped(off_ms=1700, on_ms=1740), "switched off"),
    "one more motor than the fault's lets go": (overloaded(limp=(3, 4)), "motors [3, 4] let go"),
    "all motors are switched off, not one": (overloaded(off_ms=1700), "switched off"),
    "it is sent on without a reset": (stopped(line={"obeyed": ("next",)}), "'next' was obeyed"),
    "it moves after the fault was mended": (
        Tale("supervisor_stopped", goals={2450: CENTRE[1]}, line={
            "stop": replace(STOP, code="supervisor_silent"), "reset_ns": 0, "next_ns": 0, "end_ns": 2600 * MS,
        }),
        "while latched",
    ),
    "it moves while a reset is refused": (
        stopped(goals={2450: CENTRE[1]}, line={"reset_ns": 0, "next_ns": 0, "end_ns": 2600 * MS}),
        "while latched",
    ),
    "contained: it lies on the table": (contained(others={2: 2040 + 1000}), "table touch"),
    "contained: it is bent into itself": (contained(others={3: 2055 + 1040}), "touch"),
    "contained: truly outside the limits": (contained(pushed={1600: 1400}), "was truly at"),
    "contained: truly too fast": (contained(pushed={1600: 150, 1610: 300, 1620: 450}), "truly went"),
    "contained: limp for a moment": (contained(off_ms=1700, on_ms=1740), "switched off"),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(HOLES))
def test_what_a_review_found_unseen_shows_now(what: str, tmp_path: Path):
    tale, text = HOLES[what]
    escapes = tale.verdict(tmp_path).escapes
    assert any(text in escape for escape in escapes), escapes


@pytest.mark.parametrize("tale", [overloaded(), contained()], ids=["overloaded", "contained"])
def test_the_same_without_what_is_wrong_is_no_escape(tale: Tale, tmp_path: Path):
    verdict = tale.verdict(tmp_path)
    assert verdict.escapes == ()
    assert verdict.failure == ""


def test_slots_that_were_seen_to_be_missed_are_added_to_the_bound(tmp_path: Path):
    """Nobody sends a goal for 90 ms, then the stop comes: control was kept waiting, which it may be."""
    late = stopped(line={"stop": replace(STOP, at_ns=1590 * MS), "rest_ns": 1760 * MS}, brake_ms=1600)
    late.missed = range(1510, 1600)
    verdict = late.verdict(tmp_path)
    assert verdict.escapes == ()
    assert verdict.missed_ms == 90
    assert verdict.bound_ms == 110
    late.line["stop"] = replace(STOP, at_ns=1615 * MS)
    assert any("noticed 5 ms after" in text for text in late.verdict(tmp_path).escapes)


def test_braking_takes_longer_by_the_slots_that_were_missed_meanwhile(tmp_path: Path):
    """As while a motor is silent, and every cycle of the bus waits for it."""
    line = {"rest_ns": 1900 * MS, "watched_ns": 2000 * MS}
    missed = frozenset(range(1520, 1730, 30))
    assert stopped(line=line, brake_ms=1730, missed=missed).verdict(tmp_path).escapes == ()
    for tale in (stopped(line=line, brake_ms=1730), stopped(line=line, brake_ms=1830, missed=missed)):
        assert any("after the braking time" in escape for escape in tale.verdict(tmp_path).escapes)


def test_a_stop_of_which_only_the_latch_file_tells_is_judged_by_the_wire(tmp_path: Path):
    """The last change of a goal stands for it, braking is added to the bound; the category is the wire's."""
    told = replace(STOP, code="policy_silent", at_ns=0, category=None)
    good = Tale("policy_stopped", line={"stop": told, "rest_ns": 0, "reset_ns": 0, "next_ns": 0})
    verdict = good.verdict(tmp_path)
    assert verdict.escapes == ()
    assert verdict.detect_ms == verdict.last_command_ms
    assert verdict.bound_ms == (BOUNDS["policy silence"].of(C) + C.stopping_ns) / 1e6
    good.off_ms = 1900
    assert any("switched off" in text for text in good.verdict(tmp_path).escapes)


def test_an_arm_that_stood_before_the_fault_proves_nothing(tmp_path: Path):
    verdict = stopped(brake_ms=1100).verdict(tmp_path)
    assert "nothing was tried" in verdict.failure
    assert stopped().verdict(tmp_path).speed_rad_s == pytest.approx(1.5, abs=0.4)


@pytest.mark.parametrize(
    ("code", "text", "gone"),
    [
        ("late", "internal: the control process has been silent for 5.0 s and was killed", True),
        ("ended", "control process: killed by SIGKILL", True),
        ("late", "policy does not read: a heartbeat was lost", False),
        ("late", "no answer within 5 s while starting", False),
        ("ended", "policy process: exit code 1", False),
    ],
)
def test_only_the_decision_about_control_counts_as_noticed(code: str, text: str, gone: bool):
    assert says_control_is_gone({"code": code, "text": text}) == gone


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
    "park: a goal after the release": (parked(goals={2350: CENTRE[1] + 9}), "a goal after the release"),
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


def lying(motor: int, **changes: Any) -> Tale:
    """Joint 1 does not brake where it was stopped: it goes back, 0.3 rad in 0.4 s, and stands."""
    line = {
        "stop": replace(STOP, code="stalled"), "motor": motor, "rest_ns": 1900 * MS,
        "watched_ns": 2050 * MS, "reset_ns": 2060 * MS,
    }  # fmt: skip
    return Tale("motor_stuck_encoder", line=line, **{"home": True, "brake_ms": 1520, **changes})


def test_a_joint_that_lies_is_eased_towards_the_lie_by_its_lead_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert lying(1).verdict(tmp_path).escapes == ()
    assert any("was told to go on" in escape for escape in lying(2).verdict(tmp_path).escapes)
    monkeypatch.setitem(globals(), "C", replace(C, lead=tuple(lead / 50 for lead in C.lead)))
    assert any("was told to go on" in escape for escape in lying(1).verdict(tmp_path).escapes)
