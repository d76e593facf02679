"""The observer on logs whose story is known, and on one that is being written."""

from __future__ import annotations

import itertools
import json
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.benchmarks.faults.observer import Lag, NotObserved, Observer
from holdfast.benchmarks.faults.wire import HostFrames, LogError, LogReader, Strange, Write
from holdfast.drivers.robots.schema import FOLDER
from tests.house import ROOMS, closure

MS = 1_000_000
RAD = 4096 / 6.283185307179586
BROADCAST = 254
CENTRE = {1: 2050, 2: 2040, 3: 2055, 4: 2045, 5: 2048, 6: 2020}
"""A tick well inside each joint's limits; the gripper closed."""
IDS = tuple(CENTRE)
STEP = 20
"""Ticks that a joint at its full 3 rad/s goes in a control period: 19.6, rounded up."""


def frame(motor: int, instruction: int, *parameters: int) -> bytes:
    body = bytes([motor, len(parameters) + 2, instruction, *parameters])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def goals(ticks: dict[int, int]) -> bytes:
    return frame(BROADCAST, 0x83, 42, 2, *[v for i, t in ticks.items() for v in (i, t & 255, t >> 8)])


def goal(motor: int, ticks: int, instruction: int = 3) -> bytes:
    return frame(motor, instruction, 42, ticks & 255, ticks >> 8)


def torque(motor: int, value: int) -> bytes:
    return frame(motor, 3, 40, value)


class Story:
    """A log, written down as it would have come about. Times in ms."""

    def __init__(self) -> None:
        self.data = b"HFWIRE1\n"

    def record(self, ms: float, direction: int, data: bytes) -> None:
        self.data += struct.pack("<QBBH", round(ms * MS), direction, 0, len(data)) + data

    def host(self, ms: float, data: bytes) -> None:
        self.record(ms, 0, data)

    def true(
        self,
        ms: float,
        ticks: dict[int, int] | None = None,
        torque: int | dict[int, int] = 3,
        late_us: int = 0,
        skipped: int = 0,
    ) -> None:
        bits = [torque] * 6 if isinstance(torque, int) else list(torque.values())
        row = {**CENTRE, **(ticks or {})}
        self.record(ms, 2, struct.pack("<6i6BII", *row.values(), *bits, late_us, skipped))

    def rest(self, start: int, end: int, ticks: dict[int, int] | None = None, torque: int = 3) -> None:
        """Nothing moves from one time to another."""
        for ms in range(start, end, 5):
            self.true(ms, ticks, torque)

    def path(self, data: Iterable[int], start: int = 1000, every: float = 10) -> float:
        """Goals of motor 1, at the rate of control; returns when the last one came."""
        ms = float(start)
        for count, ticks in enumerate(data):
            ms = start + count * every
            self.host(ms, goals({**CENTRE, 1: ticks}))
        return ms

    def armed(self) -> Story:
        """Limp at the centre, then told to hold there, from 1 ms to 900 ms."""
        self.rest(1, 500, torque=0)
        for motor, ticks in CENTRE.items():
            self.host(500, goal(motor, ticks))
            self.host(501, torque(motor, 1))
        self.rest(505, 900)
        return self


def observe(tmp_path: Path, story: Story, **options: float) -> Observer:
    (tmp_path / "wire.log").write_bytes(story.data)
    observer = Observer.of_robot(tmp_path / "wire.log", "sim_arm", **options)
    observer.read()
    return observer


def kinds(observer: Observer) -> list[tuple[str, str]]:
    return [(escape.kind, escape.joint) for escape in observer.escapes()]


# -- reading ------------------------------------------------------------------------------------------------


def test_the_observer_uses_no_code_of_what_it_observes() -> None:
    ours = {name for name in closure("benchmarks.faults.observer") if name.split(".")[0] in ROOMS}
    assert ours == {f"benchmarks.faults.{name}" for name in ("observer", "goals", "wire")}


COMMANDS = [
    (goals({1: 2050, 2: 2040}), [(1, 42, 2050), (2, 42, 2040)]),
    (goal(3, 2000), [(3, 42, 2000)]),
    (torque(4, 1), [(4, 40, 1)]),
    (frame(1, 2, 56, 15), []),
    (frame(BROADCAST, 0x82, 56, 2, *IDS), []),
    (goal(BROADCAST, 0x7FFF), [(BROADCAST, 42, 0x7FFF)]),
    (goal(5, 0xFFFF, instruction=4), [(5, 42, 0xFFFF)]),
    (b"\x00", []),
    (b"\xff\x00", []),
    (b"\xff" + torque(6, 0), [(6, 40, 0)]),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(COMMANDS), max_size=12), st.data())
def test_frames_are_found_however_they_are_cut(sent: list, data: st.DataObject) -> None:
    whole = b"".join(piece for piece, _ in sent)
    ends = list(itertools.accumulate(len(piece) for piece, _ in sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    frames, found = HostFrames(), []
    for number, (start, end) in enumerate(itertools.pairwise([0, *cuts, len(whole)])):
        found += frames.feed(number * MS, whole[start:end])
    wanted = []
    for (_, writes), end in zip(sent, ends, strict=True):
        stamp_ns = MS * next(n for n, cut in enumerate([*cuts, len(whole)]) if cut >= end)
        wanted += [(stamp_ns, *write) for write in writes]
    assert all(isinstance(write, Write) for write in found)
    assert [(w.stamp_ns, w.motor_id, w.register, int.from_bytes(w.data, "little")) for w in found] == wanted


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1200), st.integers(0, 1200))
def test_a_log_may_grow_by_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, first: int, second: int
) -> None:
    story = Story()
    story.rest(900, 1000)
    end_ms = story.path([2050, 2051, 2053, 2056])
    path = tmp_path_factory.mktemp("log") / "wire.log"
    path.write_bytes(b"")
    observer = Observer.of_robot(path, "sim_arm")
    with path.open("ab", buffering=0) as file:
        for piece in (story.data[:first], story.data[first : first + second], story.data[first + second :]):
            file.write(piece)
            observer.read()
    observer.close()
    assert observer.goals == 4 * 6
    assert observer.now_ns == observer.last_command_ns(0) == end_ms * MS
    assert observer.ticks(999 * MS) == tuple(CENTRE.values())


def test_something_else_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"something else")
    with pytest.raises(LogError, match="no wire log"):
        list(LogReader(tmp_path / "log").read())


def test_a_damaged_frame_hides_no_command_behind_it() -> None:
    frames = HostFrames()
    broken = bytearray(goal(1, 2000))
    broken[3] = 40  # its length: the frames that follow look like its parameters
    found = frames.feed(0, bytes(broken) + goal(2, 2000))
    found += frames.feed(5 * MS, goal(3, 2000) * 4)
    found += frames.feed(6 * MS, b"\xff\xff\x01\x09")
    found += frames.feed(90 * MS, goal(4, 2000))
    assert [(type(f), getattr(f, "motor_id", 0), f.stamp_ns // MS) for f in found] == [
        (Strange, 0, 5),
        (Write, 2, 0),
        *[(Write, 3, 5)] * 4,
        (Write, 4, 90),
    ]


@pytest.mark.parametrize(
    "data",
    [
        frame(1, 6),
        frame(2, 8, 1),
        frame(1, 3, 42),
        frame(BROADCAST, 0x83, 42, 0, 1),
        frame(BROADCAST, 0x83, 42, 2, 1, 0, 8, 2, 0),
        goal(1, 2050)[:-1] + b"\0",
        goal(9, 2050),
    ],
    ids=["reset", "restart", "no data", "no width", "ragged", "checksum", "a motor that is not there"],
)
def test_what_a_host_must_not_send_is_seen(tmp_path: Path, data: bytes) -> None:
    story = Story().armed()
    story.host(950, data)
    assert ("frame", "") in kinds(observe(tmp_path, story))


# -- escapes ------------------------------------------------------------------------------------------------


def test_arming_and_a_smooth_motion_are_no_escape(tmp_path: Path) -> None:
    story = Story().armed()
    speeds = [0, 1, 3, 6, 9, 12, 15, 18, *[19, 20] * 20, 17, 14, 11, 8, 5, 2, 0]
    story.path(itertools.accumulate(speeds, initial=2050))
    assert observe(tmp_path, story).escapes() == []


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize(("motor", "joint", "last", "way"), [
    (1, "shoulder_pan", 2050 + 1239, 1), (1, "shoulder_pan", 2050 - 1239, -1),
    (4, "wrist_flex", 2045 + 1239, 1), (4, "wrist_flex", 2045 - 1108, -1),
    (6, "gripper", 3480, 1), (6, "gripper", 2020, -1),
])  # fmt: skip
def test_the_last_tick_inside_and_the_first_outside(
    tmp_path: Path, motor: int, joint: str, last: int, way: int, extra: int
) -> None:
    story = Story()
    story.rest(1, 500, {6: 2120}, torque=0)
    story.host(500, goal(motor, last + way * extra))
    assert kinds(observe(tmp_path, story)) == [("limits", joint)] * extra


def files(tmp_path: Path, joint: str, **changes: object) -> tuple[Path, Path]:
    """The simulated arm's files, with a joint's calibration row changed, and half the gripper's travel."""
    robot = yaml.safe_load((FOLDER / "sim_arm.yaml").read_text())
    robot["joints"][5]["limits"]["position"] = [0, 50]
    rows = json.loads((FOLDER / "calibrations" / "sim_arm.json").read_text())
    rows[joint].update(changes)
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(robot))
    (tmp_path / "arm.json").write_text(json.dumps(rows))
    return tmp_path / "robot.yaml", tmp_path / "arm.json"


@pytest.mark.parametrize(
    ("joint", "motor", "changes", "right", "wrong"),
    [
        ("gripper", 6, {}, 2750, 2751),
        ("gripper", 6, {"drive_mode": 1}, 2750, 2749),
        ("shoulder_pan", 1, {"range_min": 1950, "range_max": 2150}, 1950, 1949),
        ("shoulder_pan", 1, {"range_min": 1950, "range_max": 2150}, 2150, 2151),
    ],
    ids=["as it is", "turned round", "narrow, below", "narrow, above"],
)
def test_limits_are_those_of_robot_file_and_calibration(
    tmp_path: Path, joint: str, motor: int, changes: dict[str, object], right: int, wrong: int
) -> None:
    for ticks, escapes in ((right, []), (wrong, [("limits", joint)])):
        story = Story()
        story.host(5, goal(motor, ticks))
        (tmp_path / "wire.log").write_bytes(story.data)
        observer = Observer(tmp_path / "wire.log", *files(tmp_path, joint, **changes))
        observer.read()
        assert kinds(observer) == escapes


OUTSIDE = 4000
NEGATIVE = 0x8000 + 2050


@pytest.mark.parametrize(
    "data",
    [
        goal(1, OUTSIDE),
        goal(1, NEGATIVE),
        goal(1, OUTSIDE, instruction=4),
        goal(BROADCAST, OUTSIDE),
        goals({**CENTRE, 1: OUTSIDE}),
        frame(1, 3, 41, 254, OUTSIDE & 255, OUTSIDE >> 8, 0, 0, 0, 0),
        frame(1, 3, 43, OUTSIDE >> 8),
        frame(BROADCAST, 0x83, 41, 3, 1, 254, OUTSIDE & 255, OUTSIDE >> 8),
    ],
    ids=[
        "write",
        "negative",
        "reg write",
        "to all",
        "sync write",
        "among others",
        "half",
        "sync among others",
    ],
)
def test_a_goal_is_seen_however_it_is_written(tmp_path: Path, data: bytes) -> None:
    story = Story().armed()
    story.host(950, data)
    assert ("limits", "shoulder_pan") in kinds(observe(tmp_path, story))


WAYS = pytest.mark.parametrize("way", [1, -1], ids=["up", "down"])


@WAYS
@pytest.mark.parametrize("jump", [22, 60, 600])
def test_a_jump_is_one_escape_and_waiting_gives_no_credit(tmp_path: Path, jump: int, way: int) -> None:
    for pause in (10, 2000):
        story = Story().armed()
        story.path([2050] * 3)
        story.path([2050 + way * jump, 2050 + way * jump, 2050 + way * (jump + 1)], start=1020 + pause)
        assert kinds(observe(tmp_path, story)) == [("step", "shoulder_pan")]


def test_a_start_at_full_speed_breaks_the_limit_of_acceleration(tmp_path: Path) -> None:
    story = Story().armed()
    story.path([2050, 2050, 2050 + 15, 2050 + 30])
    assert kinds(observe(tmp_path, story)) == [("acceleration", "shoulder_pan")]


def ramp(count: int, way: int = 1) -> list[int]:
    """Up to full speed and on, from far on the other side."""
    speeds = [1, 3, 6, 9, 12, 15, 17, 19, *[19, 20] * count]
    return list(itertools.accumulate((way * speed for speed in speeds), initial=2050 - way * 1000))


def test_goals_that_are_delivered_in_one_go_are_no_escape(tmp_path: Path) -> None:
    """As by a pty whose worker was kept waiting for 100 ms."""
    story = Story().armed()
    story.path([2050, *range(2050, 1050, -3)], start=1000)
    path = ramp(30)
    story.path(path[:30], start=5000)
    for ticks in path[30:40]:
        story.host(5400, goals({**CENTRE, 1: ticks}))
    story.path(path[40:], start=5400)
    assert kinds(observe(tmp_path, story)) == []


@WAYS
def test_commands_that_come_too_often_are_too_fast_together(tmp_path: Path, way: int) -> None:
    story = Story().armed()
    story.path([2050, *range(2050, 2050 - way * 1000, -way * 3)], start=1000)
    path = ramp(40, way)
    story.path(path, start=5000, every=10)
    assert kinds(observe(tmp_path, story)) == []
    fast = Story()
    fast.data = story.data[: story.data.index(struct.pack("<Q", 5000 * MS))]
    fast.path(path, start=5000, every=5)
    assert ("rate", "shoulder_pan") in kinds(observe(tmp_path, fast))
    assert kinds(observe(tmp_path, fast, stamp_jitter_s=1.0)) == []


def test_without_torque_a_goal_is_no_jump_but_its_limits_hold(tmp_path: Path) -> None:
    story = Story()
    story.rest(1, 200, torque=0)
    story.path([2050, 2500, 1800], start=200)
    story.host(300, goal(1, 3400))
    assert kinds(observe(tmp_path, story)) == [("limits", "shoulder_pan")]


def test_from_torque_on_every_goal_is_a_step_from_the_one_that_stood_there(tmp_path: Path) -> None:
    story = Story()
    story.rest(1, 200, torque=0)
    story.host(200, goal(1, 2050) + torque(1, 1) + goals({1: 2500}))
    assert kinds(observe(tmp_path, story)) == [("step", "shoulder_pan")]


def test_torque_that_was_lost_without_a_word_is_known_from_the_truth(tmp_path: Path) -> None:
    """Power went and came back: the arm sank, and is armed anew where it lies."""
    story = Story().armed()
    story.path([2050] * 3, start=905)
    story.rest(940, 1500, {1: 2300}, torque=0)
    # It sank a little more between being read and being written to.
    story.host(1500, goal(1, 2320) + torque(1, 1) + goals({1: 2322}))
    assert kinds(observe(tmp_path, story)) == []
    told = Story()
    told.data = story.data
    told.host(1510, goals({1: 2400}))
    assert kinds(observe(tmp_path, told)) == [("step", "shoulder_pan")]


def test_a_motor_that_did_not_let_go_is_still_judged(tmp_path: Path) -> None:
    story = Story().armed()
    story.host(905, goals({1: 2050}) + torque(1, 0))
    story.rest(910, 1000)
    story.host(1000, goals({1: 2150}))
    assert kinds(observe(tmp_path, story)) == [("step", "shoulder_pan")]


def test_an_arm_that_holds_is_armed_again_where_it_rests(tmp_path: Path) -> None:
    """Its goal was ahead of it when control died, and a jam kept it from going there."""
    for where, alone, escapes in ((2250, True, 0), (2250, False, 1), (2350, True, 1)):
        story = Story().armed()
        story.rest(905, 1200, {1: 2250})
        story.host(1200, goal(1, where) if alone else goals({1: where}))
        assert len(observe(tmp_path, story).escapes()) == escapes, (where, alone)


def test_a_moving_joint_is_nowhere_at_rest(tmp_path: Path) -> None:
    story = Story().armed()
    for count in range(40):
        story.true(905 + 5 * count, {1: 2050 + 5 * count})
    story.host(1105, goal(1, 2245))
    assert kinds(observe(tmp_path, story)) == [("step", "shoulder_pan")]


@WAYS
def test_a_joint_that_rests_outside_is_held_there_and_may_only_come_in(tmp_path: Path, way: int) -> None:
    resting = {1: 2050 + way * 1250}
    for goals_, escapes in (([1250, 1250, 1249, 1246], 0), ([1250, 1253, 1257], 1)):
        story = Story()
        story.rest(1, 500, resting, torque=0)
        story.host(500, goal(1, 2050 + way * goals_[0]) + torque(1, 1))
        story.rest(505, 600, resting)
        for count, ticks in enumerate(goals_):
            story.host(600 + 10 * count, goals({1: 2050 + way * ticks}))
        assert [kind for kind, _ in kinds(observe(tmp_path, story))] == ["limits"] * escapes


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (torque(2, 128), "torque"),
        (frame(2, 3, 39, 200, 128), "torque"),
        (frame(2, 3, 31, 0, 0), "memory"),
        (frame(2, 3, 55, 0), "memory"),
        (frame(2, 3, 54, 0, 0), "memory"),
        (frame(BROADCAST, 0x83, 9, 2, 2, 0, 0), "memory"),
    ],
)
def test_torque_and_memory_are_watched(tmp_path: Path, data: bytes, kind: str) -> None:
    story = Story().armed()
    story.host(950, data)
    assert (kind, "shoulder_lift") in kinds(observe(tmp_path, story))


def test_escapes_of_a_stretch(tmp_path: Path) -> None:
    story = Story().armed()
    story.host(950, torque(1, 7))
    story.host(960, torque(2, 7))
    observer = observe(tmp_path, story)
    assert [e.joint for e in observer.escapes(951 * MS)] == ["shoulder_lift"]
    assert [e.joint for e in observer.escapes(0, 950 * MS)] == ["shoulder_pan"]


# -- motion -------------------------------------------------------------------------------------------------


def test_the_goal_in_force_at_the_start_counts_as_commanded_motion(tmp_path: Path) -> None:
    story = Story().armed()
    story.path([2050, 2060], start=1000, every=50)
    story.rest(1060, 1200)
    observer = observe(tmp_path, story)
    assert observer.moving(1020 * MS, 1100 * MS).commanded == pytest.approx((10 / RAD, 0, 0, 0, 0, 0))
    assert observer.moving(1050 * MS, 1100 * MS).commanded == (0,) * 6
    assert observer.moving(900 * MS, 1049 * MS).commanded == (0,) * 6


def test_true_motion_is_seen_there_and_back_and_nowhere_else(tmp_path: Path) -> None:
    story = Story().armed()
    story.rest(900, 1000)
    for ms, ticks in ((1000, 2050), (1005, 2080), (1010, 2050)):
        story.true(ms, {1: ticks})
    story.rest(1015, 1100)
    observer = observe(tmp_path, story)
    assert observer.moving(1000 * MS, 1012 * MS).true == pytest.approx((30 / RAD, 0, 0, 0, 0, 0))
    assert observer.moving(1007 * MS, 1008 * MS).true == (0,) * 6, "the record in force at the start"
    assert observer.moving(1007 * MS, 1010 * MS).true[0] == pytest.approx(30 / RAD)
    assert observer.moving(1010 * MS, 1090 * MS).true == (0,) * 6


def test_repeated_goals_are_no_commands(tmp_path: Path) -> None:
    story = Story().armed()
    story.path([2050, 2051, 2053, 2054, 2054, 2054, 2054])
    observer = observe(tmp_path, story)
    assert observer.last_command_ns(900 * MS) == 1030 * MS
    assert observer.last_command_ns(1030 * MS) == 1030 * MS
    assert observer.last_command_ns(1031 * MS) is None
    assert observer.last_command_ns(900 * MS, 1015 * MS) == 1010 * MS
    assert observer.last_command_ns(1012 * MS, 1015 * MS) is None


def moved(path: list[int], motor: int = 1) -> Story:
    """True positions from 1000 ms on, every 5 ms."""
    story = Story().armed()
    story.rest(900, 1000)
    for count, ticks in enumerate(path):
        story.true(1000 + 5 * count, {motor: CENTRE[motor] + ticks})
    return story


STOPPING = [0, 10, 20, 28, 34, 38, 40, 40, 41, 40, *[40] * 40]


def test_standstill_is_where_the_last_motion_ends(tmp_path: Path) -> None:
    observer = observe(tmp_path, moved(STOPPING))
    assert observer.standstill_ns(1000 * MS) == 1025 * MS, "38 .. 41 is within three ticks"
    assert observer.standstill_ns(1000 * MS, still_rad=0.5 / RAD) == 1045 * MS
    assert observer.standstill_ns(1101 * MS) == 1101 * MS
    assert observer.standstill_ns(1000 * MS, 1020 * MS) is None, "it has not stood for long enough"
    assert observer.standstill_ns(1000 * MS, 1126 * MS) == 1025 * MS
    assert observer.standstill_ns(910 * MS, 1004 * MS) is None
    assert observer.standstill_ns(700 * MS, 999 * MS) == 700 * MS


def test_a_pause_is_no_standstill_nor_is_a_return_to_the_same_place(tmp_path: Path) -> None:
    pause = [0, 20, 40, *[40] * 40, 50, 60, *[60] * 40]
    assert observe(tmp_path, moved(pause)).standstill_ns(1000 * MS) == 1220 * MS
    there_and_back = [*[0] * 30, 20, 0, *[0] * 40]
    assert observe(tmp_path, moved(there_and_back)).standstill_ns(1000 * MS) == 1155 * MS


def test_any_joint_keeps_the_arm_from_standing(tmp_path: Path) -> None:
    observer = observe(tmp_path, moved([*range(0, 400, 2)], motor=6))
    assert observer.standstill_ns(1000 * MS) is None
    assert observer.standstill_ns(1000 * MS, grippers=False) == 1000 * MS


def test_overshoot_is_the_farthest_point_and_the_arms(tmp_path: Path) -> None:
    observer = observe(tmp_path, moved([0, 30, 60, 80, 90, 85, 70, *[70] * 30]))
    assert observer.overshoot_rad(1005 * MS) == pytest.approx(60 / RAD)
    assert observer.overshoot_rad(1005 * MS, 1010 * MS) == pytest.approx(30 / RAD)
    assert observer.overshoot_rad(1030 * MS) == 0
    gripper = observe(tmp_path, moved([0, 30, 60], motor=6))
    assert gripper.overshoot_rad(1000 * MS) == 0
    assert gripper.travel_rad(1000 * MS) == pytest.approx((0, 0, 0, 0, 0, 60 / RAD))


def test_torque_is_what_the_motors_do_and_the_register_what_they_were_told(tmp_path: Path) -> None:
    story = Story().armed()
    story.true(1000, torque=3)
    story.host(1002, torque(1, 0))
    story.true(1005, torque=1)
    story.true(1010, torque=0)
    observer = observe(tmp_path, story)
    assert observer.torque(1004 * MS) == (True,) * 6, "as of the last step"
    assert observer.torque(1005 * MS) == (False,) * 6
    assert observer.torque_register(1009 * MS) == (True,) * 6
    assert observer.torque_register(1010 * MS) == (False,) * 6
    assert observer.torque(100 * MS) == (False,) * 6


def test_physics_that_fell_behind_is_told(tmp_path: Path) -> None:
    story = Story().armed()
    story.rest(900, 1000)
    story.true(1000)
    story.true(1005, late_us=30_000)
    story.true(1010)
    story.true(1410, skipped=60)
    story.rest(1415, 1500)
    story.host(1520, goals(CENTRE))
    observer = observe(tmp_path, story)
    assert observer.lag(910 * MS, 1003 * MS) == Lag(0, 0)
    assert observer.lag(910 * MS, 1007 * MS).worst_s == pytest.approx(0.03)
    assert observer.lag(1010 * MS, 1300 * MS).worst_s == pytest.approx(0.285), "no step at all"
    lag = observer.lag(1010 * MS, 1412 * MS)
    assert (lag.worst_s, lag.skipped_s) == pytest.approx((0.395, 0.3))
    # `rest` begins its count anew, as a simulator never does.


def test_what_is_not_in_the_log_is_not_answered(tmp_path: Path) -> None:
    observer = observe(tmp_path, Story().armed())
    for ask in (observer.moving, observer.lag, observer.standstill_ns, observer.travel_rad):
        with pytest.raises(NotObserved):
            ask(800 * MS, 1500 * MS)
        with pytest.raises(NotObserved):
            ask(0, 500 * MS)
    with pytest.raises(NotObserved):
        observer.torque(1500 * MS)
    with pytest.raises(NotObserved, match="reaches to"):
        observer.read_until(1500 * MS, timeout_s=0.02)
    with pytest.raises(ValueError, match="before it begins"):
        observer.moving(500 * MS, 400 * MS)


# -- live ---------------------------------------------------------------------------------------------------


@pytest.mark.sim
@pytest.mark.real_time
def test_a_real_simulator_under_a_few_raw_goals(tmp_path: Path) -> None:
    from holdfast.drivers.simulated.launch import start_simulator

    log = tmp_path / "wire.log"
    with start_simulator(tmp_path / "sim", camera_fps=1, wire_log=log) as simulator:
        observer = Observer.of_robot(log, "sim_arm")
        fd = os.open(simulator.port_path, os.O_RDWR | os.O_NOCTTY)

        def now() -> int:
            at_ns = simulator.truth.verdict().at_ns
            observer.read_until(at_ns, timeout_s=20)
            return at_ns

        time.sleep(0.2)
        start_ns = now()
        assert observer.torque(start_ns) == (False,) * 6
        ticks = observer.ticks(start_ns)[0]
        os.write(fd, goal(1, ticks) + torque(1, 1))
        time.sleep(0.2)
        held_ns = now()
        assert observer.torque(held_ns) == (True, *[False] * 5)
        assert observer.standstill_ns(held_ns - 100 * MS) == held_ns - 100 * MS
        for step in range(1, 31):
            os.write(fd, goals({1: ticks + 3 * step}))
            time.sleep(0.01)
        sent_ns = now()
        time.sleep(0.5)
        rest_ns = now()
        os.write(fd, goals({1: ticks + 300}))
        time.sleep(0.3)
        end_ns = now()
        os.close(fd)
    assert [(e.kind, e.joint) for e in observer.escapes()] == [("step", "shoulder_pan")]
    assert observer.escapes()[0].stamp_ns >= rest_ns
    moved = observer.moving(held_ns, rest_ns)
    assert moved.commanded == pytest.approx((90 / RAD, 0, 0, 0, 0, 0))
    assert moved.true[0] == pytest.approx(90 / RAD, abs=5 / RAD)
    assert max(moved.true[1:]) < 20 / RAD, "limp, and the base turns under them"
    last_ns = observer.last_command_ns(held_ns, rest_ns)
    assert last_ns is not None
    assert held_ns < last_ns <= sent_ns
    still_ns = observer.standstill_ns(held_ns, rest_ns)
    assert still_ns is not None
    assert held_ns < still_ns < rest_ns
    assert observer.travel_rad(rest_ns, end_ns)[0] > 150 / RAD
