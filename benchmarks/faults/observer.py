"""The independent observer: what was commanded on the simulated wire, and what the shafts really did.

It knows the bytes of the wire log, the robot file and the calibration, and nothing else: no code of the
driver, the control process, the gate or the simulator. It follows a log while it is written (`read`) and
answers questions about any stretch of it.

Resolution. Stamps of commands say when the simulator took the bytes from the port: later than they were sent,
by tens of microseconds as a rule, by 100 ms and more where the kernel's worker that serves a pty is kept
waiting (a socket has none). Positions are whole ticks (1.5 mrad of the shaft) every 5 ms, stamped when the
physics step was computed; `lag` says how late that was. Angles are those of the servo's shaft, a gripper's,
too. Joints are in the robot file's order.
"""

from __future__ import annotations

import itertools
import json
import struct
import time
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from .goals import TICKS_PER_RAD, Escape, Joint, joint_of
from .wire import BROADCAST, FROM_HOST, TRUTH, HostFrames, LogReader, Record, Strange, Write

TORQUE_ENABLE, GOAL_POSITION, LOCK = 40, 42, 55
RAM_START = 40
MINUS = 0x8000
"""The sign of a position in the register."""
STAMP_JITTER_S = 0.15
"""How much later one command may be seen than another, against the times at which they were sent."""
STILL_RAD = 0.005
"""Three ticks."""
POLL_S = 0.005

PHYSICS_S = 0.005
"""Step of the simulator's physics: one truth record each."""
TORQUE_ON, DRIVEN = 1, 2
"""Bits of a truth record."""

AnObserver = TypeVar("AnObserver", bound="Observer")


class NotObserved(Exception):
    """The log does not reach so far, or says nothing of what is asked."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How far the joints went in a stretch of time: for each, its highest less its lowest position, rad."""

    commanded: tuple[float, ...]
    """Of the goals, beginning with the one in force at the start, whether torque was on or not."""
    true: tuple[float, ...]
    """Of the shafts; a tick is 1.5 mrad, so a joint that stands between two may seem to move so much."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What the simulator owes to a stretch of time."""

    worst_s: float
    """A physics step was at the most so late, or so long in coming."""
    skipped_s: float
    """So much time was given up: the arm stood still where it should have moved."""


class Observer:
    """Follows one wire log. Ask after `read`; what is asked about must be in the log by then."""

    def __init__(
        self,
        path: Path,
        robot: Path,
        calibration: Path,
        *,
        hz: float | None = None,
        stamp_jitter_s: float = STAMP_JITTER_S,
    ) -> None:
        """`robot` is a robot file, `calibration` a LeRobot calibration; `hz`: the rate of control where it is
        not the robot file's. Raises `OSError` where there is no log (yet)."""
        document = yaml.safe_load(robot.read_text())
        rows = json.loads(calibration.read_text())
        period_s = 1 / (hz or document["control"]["hz"])
        self._joints = [joint_of(joint, rows[joint["name"]], period_s) for joint in document["joints"]]
        self._of_id = {joint.motor_id: joint for joint in self._joints}
        self._grace_s = period_s + stamp_jitter_s
        n = len(self._joints)
        self._truth = struct.Struct(f"<{n}i{n}BII")
        self._log = LogReader(path)
        self._frames = HostFrames()
        self._escapes: list[Escape] = []
        self._frame_ns = array("q")
        """When goals came for all motors at once, changed or not."""
        self._first_ns = 0
        self.now_ns = 0
        """Stamp of the last record: so far the log has been read."""
        self.goals = 0
        """Goals seen, each motor's counted."""
        self._true_ns = array("q")
        self._ticks = array("i")
        """Of all joints, record after record."""
        self._torque = bytearray()
        self._late_us = array("I")
        self._skipped = array("I")

    @classmethod
    def of_robot(cls: type[AnObserver], path: Path, name: str, **options: Any) -> AnObserver:
        """For a robot that comes with Holdfast and has a calibration of its own."""
        folder = Path(__file__).parents[2] / "drivers" / "robots"
        robot = folder / f"{name}.yaml"
        calibration = yaml.safe_load(robot.read_text())["calibration"]
        return cls(path, robot, folder / calibration, **options)

    def close(self) -> None:
        self._log.close()

    @property
    def joints(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self._joints)

    def read(self) -> int:
        """Takes in what the log has got since the last call; returns how many records."""
        count = 0
        for record in self._log.read():
            count += 1
            self._take(record)
        return count

    def read_until(self, t_ns: int, timeout_s: float = 2.0) -> None:
        """Reads until the log has reached a time. Raises `NotObserved` if it does not come to that."""
        deadline = time.monotonic() + timeout_s
        while self._behind(t_ns):
            if time.monotonic() > deadline:
                raise NotObserved(f"after {timeout_s:g} s the log reaches to {self.now_ns}, wanted {t_ns}")
            time.sleep(POLL_S)

    @property
    def first_true_ns(self) -> int:
        """From here on true positions are known; 0 for nowhere."""
        return self._true_ns[0] if self._true_ns else 0

    # -- questions ------------------------------------------------------------------------------------------

    def escapes(self, since_ns: int = 0, until_ns: int | None = None) -> list[Escape]:
        """What must never have been on the wire, from one time to another (both inclusive)."""
        end_ns = self._end(until_ns)
        return [escape for escape in self._escapes if since_ns <= escape.stamp_ns <= end_ns]

    def moving(self, t0_ns: int, t1_ns: int) -> Moved:
        """Commanded and true motion between two times. Raises `NotObserved`."""
        rows = self._rows(t0_ns, t1_ns)
        commanded = []
        for joint in self._joints:
            first = max(0, bisect_right(joint.goal_ns, t0_ns) - 1)
            goals = joint.goal_ticks[first : bisect_right(joint.goal_ns, t1_ns)]
            commanded.append((max(goals) - min(goals)) / TICKS_PER_RAD if goals else 0.0)
        true = (rows.max(axis=0) - rows.min(axis=0)) / TICKS_PER_RAD
        return Moved(tuple(commanded), tuple(true.tolist()))

    def last_command_ns(self, after_ns: int, until_ns: int | None = None) -> int | None:
        """When a goal was last changed, at `after_ns` or later; None if none was. Goals that are only
        repeated do not count: a stopped arm is held by them."""
        end_ns = self._end(until_ns)
        newest = max(_change_before(joint, end_ns) for joint in self._joints)
        return newest if newest >= max(after_ns, 1) else None

    def standstill_ns(
        self,
        after_ns: int,
        until_ns: int | None = None,
        still_rad: float = STILL_RAD,
        for_s: float = 0.1,
        grippers: bool = True,
    ) -> int | None:
        """The first time, not before `after_ns`, from which on to `until_ns` no joint's true position leaves
        a band of `still_rad`; `after_ns` itself if the arm was at rest already.

        None if it has not been so for `for_s`: then the arm cannot be said to stand. What moves by less than
        `still_rad` in the rest of the stretch counts as standing. Without `grippers` only the arm is asked
        about. Raises `NotObserved`.
        """
        end_ns = self._end(until_ns)
        _, last = self._stretch(after_ns, end_ns)
        rows = self._rows(after_ns, end_ns)[::-1]
        if not grippers:
            # One that closes on something, or slowly, says nothing about where the arm is.
            rows = rows[:, [not joint.gripper for joint in self._joints]]
        band = np.maximum.accumulate(rows) - np.minimum.accumulate(rows)
        still = np.all(band <= still_rad * TICKS_PER_RAD, axis=1)
        count = len(still) if still.all() else int(np.argmin(still))
        stamp_ns = max(after_ns, self._true_ns[last - count])
        return stamp_ns if end_ns - stamp_ns >= for_s * 1e9 else None

    def ticks(self, t_ns: int) -> tuple[int, ...]:
        """Where the joints truly were, as the last physics step before has it. Raises `NotObserved`."""
        return tuple(self._rows(t_ns, t_ns)[0].tolist())

    def travel_rad(self, t0_ns: int, t1_ns: int | None = None) -> tuple[float, ...]:
        """How far each joint got, at the most, from where it truly was at `t0_ns`. Raises `NotObserved`."""
        rows = self._rows(t0_ns, self._end(t1_ns))
        return tuple((np.abs(rows - rows[0]).max(axis=0) / TICKS_PER_RAD).tolist())

    def overshoot_rad(self, t_detect_ns: int, until_ns: int | None = None) -> float:
        """How far the arm went on after a fault was detected: the largest `travel_rad` of its joints, without
        the gripper, which a stop holds where it is and an object may still be pushing."""
        travel = self.travel_rad(t_detect_ns, until_ns)
        arm = [way for way, joint in zip(travel, self._joints, strict=True) if not joint.gripper]
        return max(arm, default=0.0)

    def torque(self, t_ns: int) -> tuple[bool, ...]:
        """Which motors truly drove at a time: powered, switched on, and let go by no protection. As of the
        last physics step before. Raises `NotObserved`."""
        return tuple(bool(bits & DRIVEN) for bits in self._torque_bits(t_ns))

    def torque_register(self, t_ns: int) -> tuple[bool, ...]:
        """Which torque registers were on, whether or not the motor then drove. As `torque`."""
        return tuple(bool(bits & TORQUE_ON) for bits in self._torque_bits(t_ns))

    def lag(self, t0_ns: int, t1_ns: int) -> Lag:
        """How far the simulator's physics fell behind between two times: where that is not small against
        what is measured, nothing was measured. Raises `NotObserved`."""
        first, last = self._stretch(t0_ns, t1_ns)
        stamps = [*self._true_ns[first:last], t1_ns]
        gaps_s = [(after - before) * 1e-9 - PHYSICS_S for before, after in itertools.pairwise(stamps)]
        late_s = [late_us * 1e-6 for late_us in self._late_us[first:last]]
        skipped = self._skipped[last - 1] - self._skipped[first]
        return Lag(max(*gaps_s, *late_s), skipped * PHYSICS_S)

    # -- taking in ------------------------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        self._first_ns = self._first_ns or record.stamp_ns
        self.now_ns = record.stamp_ns
        if record.direction == FROM_HOST:
            for found in self._frames.feed(record.stamp_ns, record.data):
                if isinstance(found, Strange):
                    self._escapes.append(Escape(found.stamp_ns, "", "frame", found.text))
                else:
                    self._written(found)
        elif record.direction == TRUTH:
            self._true(record.stamp_ns, record.data)

    def _true(self, stamp_ns: int, data: bytes) -> None:
        *row, late_us, skipped = self._truth.unpack(data)
        n = len(self._joints)
        self._true_ns.append(stamp_ns)
        self._ticks.extend(row[:n])
        self._torque += bytes(row[n:])
        self._late_us.append(late_us)
        self._skipped.append(skipped)
        for joint, ticks, bits in zip(self._joints, row[:n], row[n:], strict=True):
            on = bool(bits & TORQUE_ON)
            if joint.is_on and not on:
                joint.told_on = False
            joint.is_on = on
            joint.recent.append(ticks)

    def _written(self, write: Write) -> None:
        if write.motor_id == BROADCAST:
            joints = self._joints
        else:
            joint = self._of_id.get(write.motor_id)
            joints = [joint] if joint else []
        name = joints[0].name if len(joints) == 1 else ""
        if not joints:
            text = f"register {write.register} of motor {write.motor_id}, which the robot has not"
            self._escapes.append(Escape(write.stamp_ns, "", "frame", text))
        if write.register < RAM_START or write.covers(LOCK) is not None:
            text = f"registers from {write.register} := {write.data.hex(' ')}"
            self._escapes.append(Escape(write.stamp_ns, name, "memory", text))
        torque = write.covers(TORQUE_ENABLE)
        together = not write.alone and write.covers(GOAL_POSITION) is not None
        if together and (not self._frame_ns or self._frame_ns[-1] != write.stamp_ns):
            self._frame_ns.append(write.stamp_ns)
        if torque is not None and torque not in (0, 1):
            self._escapes.append(Escape(write.stamp_ns, name, "torque", f"torque register := {torque}"))
        low, high = write.covers(GOAL_POSITION), write.covers(GOAL_POSITION + 1)
        for joint in joints:
            if low is not None or high is not None:
                # Half a goal keeps the other half.
                old = joint.goal_ticks[-1] if joint.goal_ticks else 0
                raw = abs(old) | MINUS * (old < 0)
                raw = (raw & 0xFF if low is None else low) | (raw & 0xFF00 if high is None else high << 8)
                self._goal(joint, write, raw if raw < MINUS else MINUS - raw)
            if torque is not None:
                wrong = joint.switched_on() if torque else ""
                if wrong:
                    self._escapes.append(Escape(write.stamp_ns, joint.name, "arming", wrong))
                joint.told_on = torque != 0

    def _goal(self, joint: Joint, write: Write, goal: int) -> None:
        self.goals += 1
        t_s = (write.stamp_ns - self._first_ns) * 1e-9
        off = not joint.told_on and not joint.is_on
        # Control's goals come for all motors at once, each a step from the last; arming writes one by one.
        if (off or write.alone) and joint.rests_at(goal):
            joint.begin(goal, resting=True)
        elif off or joint.basis is None:
            joint.begin(goal, resting=False)
        wrong = joint.judge(goal, t_s, self._grace_s)
        if wrong is not None:
            self._escapes.append(Escape(write.stamp_ns, joint.name, *wrong))
        joint.took(goal, t_s, escaped=wrong is not None)
        if not joint.goal_ticks or joint.goal_ticks[-1] != goal:
            joint.goal_ns.append(write.stamp_ns)
            joint.goal_ticks.append(goal)

    # -- looking up -----------------------------------------------------------------------------------------

    def _behind(self, t_ns: int) -> bool:
        self.read()
        return self.now_ns < t_ns

    def _end(self, until_ns: int | None) -> int:
        return self.now_ns if until_ns is None else until_ns

    def _stretch(self, t0_ns: int, t1_ns: int) -> tuple[int, int]:
        """The truth records from the one in force at `t0_ns` to the last one at `t1_ns` (exclusive end)."""
        if t0_ns > t1_ns:
            raise ValueError(f"the stretch ends at {t1_ns}, before it begins at {t0_ns}")
        if t1_ns > self.now_ns:
            raise NotObserved(f"the log reaches to {self.now_ns}, asked was {t1_ns}: read on")
        first = bisect_right(self._true_ns, t0_ns) - 1
        if first < 0:
            raise NotObserved(f"the log has no true positions at {t0_ns}")
        return first, bisect_right(self._true_ns, t1_ns)

    def _rows(self, t0_ns: int, t1_ns: int) -> NDArray[np.int32]:
        """True positions [records, joints] of a stretch, ticks."""
        first, last = self._stretch(t0_ns, t1_ns)
        n = len(self._joints)
        return np.array(self._ticks[first * n : last * n], np.int32).reshape(-1, n)

    def _torque_bits(self, t_ns: int) -> bytearray:
        at = self._stretch(t_ns, t_ns)[0] * len(self._joints)
        return self._torque[at : at + len(self._joints)]


def _change_before(joint: Joint, until_ns: int) -> int:
    """When the goal was last changed, at `until_ns` or before; 0 if never."""
    count = bisect_right(joint.goal_ns, until_ns)
    return joint.goal_ns[count - 1] if count else 0
