"""The messages between the three processes, as fixed little-endian structs (`envelope` puts the header on).

Nothing here is pickled, and nothing depends on numpy or any process: this module is the wire contract.

All stamps are CLOCK_MONOTONIC nanoseconds. Positions are in robot joint order, in rad; a gripper is in the
unit that its robot file declares.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, TypeAlias

from .packing import MessageError, exact, floats, pack_text, read_text


class Type(IntEnum):
    CHUNK = 1
    FAULT = 2
    HEARTBEAT = 3
    STATE = 4
    ARM = 5
    STOP = 6
    RESET = 7
    QUIT = 8
    EVENT = 9
    SNAPSHOT = 10
    TASK = 11
    HISTOGRAM = 12


class Phase(IntEnum):
    """What control is doing; the gate's tables are keyed by the same phases."""

    CONNECT = 0
    """Torque off or unknown; reading only."""
    HOLD = 1
    """Energised and holding the commanded position."""
    RETURN = 2
    """Jerk-limited move to the start or park pose."""
    RUN = 3
    """Following chunks."""
    STOPPING = 4
    """Braking along the stop trajectory."""
    STOPPED = 5
    """Latched after a protective stop; holding until a reset."""
    RELEASED = 6
    """Torque switched off by control."""


class StampSource(IntEnum):
    """Where a frame's stamp comes from; recorded, never invented."""

    KERNEL = 0
    HEADER = 1
    ARRIVAL = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Absolute joint targets: `actions[i]` is commanded at `origin + i * dt_ns` (the executor's origin)."""

    TYPE: ClassVar[Type] = Type.CHUNK
    _FIXED: ClassVar[struct.Struct] = struct.Struct("<IIqqqqqqBqHH")

    chunk_id: int
    task_id: int
    observation_ns: int
    """Stamp of the oldest frame of the observation."""
    frame_arrival_ns: int
    """When that frame had arrived in the policy process."""
    inference_start_ns: int
    inference_end_ns: int
    session_run_ns: int
    """Time inside the backend alone (a duration)."""
    frame_period_ns: int
    """Measured period of the slowest camera (a duration)."""
    stamp_source: StampSource
    dt_ns: int
    actions: tuple[tuple[float, ...], ...]
    """[n_steps][n_joints]"""

    def pack(self) -> bytes:
        n_joints = len(self.actions[0]) if self.actions else 0
        flat = [value for row in self.actions for value in row]
        if len(flat) != len(self.actions) * n_joints:
            raise MessageError("the rows of a chunk have different lengths")
        fixed = self._FIXED.pack(
            self.chunk_id, self.task_id, self.observation_ns, self.frame_arrival_ns,
            self.inference_start_ns, self.inference_end_ns, self.session_run_ns, self.frame_period_ns,
            self.stamp_source, self.dt_ns, len(self.actions), n_joints,
        )  # fmt: skip
        return fixed + struct.pack(f"<{len(flat)}d", *flat)

    @classmethod
    def unpack(cls, body: bytes) -> Chunk:
        *head, source, dt_ns, n_steps, n_joints = cls._FIXED.unpack_from(body)
        flat = floats(body, cls._FIXED.size, n_steps * n_joints)
        rows = tuple(flat[i * n_joints : (i + 1) * n_joints] for i in range(n_steps))
        values: tuple[Any, ...] = (*head, StampSource(source), dt_ns, rows)
        return cls(*values)


@dataclass(frozen=True, slots=True)
class State:
    """What control measured and commands; sent to the policy at every tick."""

    TYPE: ClassVar[Type] = Type.STATE
    _FIXED: ClassVar[struct.Struct] = struct.Struct("<BIIqqqqqH")

    phase: Phase
    task_id: int
    chunk_id: int
    """The chunk being executed, 0 for none."""
    origin_ns: int
    """The time of its action 0; 0 for none."""
    end_ns: int
    """The time of its last action."""
    first_used_ns: int
    """When it began to be executed."""
    joint_ns: int
    """Stamp of the joint sample."""
    still_since_ns: int
    """Since when the commanded position has not changed; 0 while it moves."""
    position: tuple[float, ...]
    velocity: tuple[float, ...]
    commanded: tuple[float, ...]

    def pack(self) -> bytes:
        n = len(self.position)
        fixed = self._FIXED.pack(
            self.phase, self.task_id, self.chunk_id, self.origin_ns, self.end_ns, self.first_used_ns,
            self.joint_ns, self.still_since_ns, n,
        )  # fmt: skip
        return fixed + struct.pack(f"<{3 * n}d", *self.position, *self.velocity, *self.commanded)

    @classmethod
    def unpack(cls, body: bytes) -> State:
        phase, *head, n = cls._FIXED.unpack_from(body)
        flat = floats(body, cls._FIXED.size, 3 * n)
        values: tuple[Any, ...] = (Phase(phase), *head, flat[:n], flat[n : 2 * n], flat[2 * n :])
        return cls(*values)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent by the loop itself, so that a hung loop falls silent."""

    TYPE: ClassVar[Type] = Type.HEARTBEAT

    def pack(self) -> bytes:
        return b""

    @classmethod
    def unpack(cls, body: bytes) -> Heartbeat:
        exact(body, 0)
        return cls()


@dataclass(frozen=True, slots=True)
class Reset:
    """A person's acknowledgement of a latched stop; never moves the arm."""

    TYPE: ClassVar[Type] = Type.RESET

    def pack(self) -> bytes:
        return b""

    @classmethod
    def unpack(cls, body: bytes) -> Reset:
        exact(body, 0)
        return cls()


@dataclass(frozen=True, slots=True)
class Quit:
    """End of the run. Control stops, parks where `park` and no fault is latched, then exits."""

    TYPE: ClassVar[Type] = Type.QUIT

    park: bool = True

    def pack(self) -> bytes:
        return struct.pack("<B", self.park)

    @classmethod
    def unpack(cls, body: bytes) -> Quit:
        exact(body, 1)
        return cls(bool(body[0]))


@dataclass(frozen=True, slots=True)
class Arm:
    """Leave hold for the given task: first return to the start pose where asked, then follow its chunks."""

    TYPE: ClassVar[Type] = Type.ARM
    _FIXED: ClassVar[struct.Struct] = struct.Struct("<IBBqq")

    task_id: int
    return_to_start: bool
    follow: bool
    """False: only return and hold; True: follow chunks of `task_id`."""
    chunk_age_limit_ns: int
    """Oldest observation that an arriving chunk may rest on; derived from the measured inference time."""
    silence_limit_ns: int
    """Longest time without a chunk or heartbeat of the policy."""

    def pack(self) -> bytes:
        flags = (self.return_to_start, self.follow)
        return self._FIXED.pack(self.task_id, *flags, self.chunk_age_limit_ns, self.silence_limit_ns)

    @classmethod
    def unpack(cls, body: bytes) -> Arm:
        exact(body, cls._FIXED.size)
        task_id, back, follow, age, silence = cls._FIXED.unpack(body)
        return cls(task_id, bool(back), bool(follow), age, silence)


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop asked for by the supervisor. Not latched: end of a task. Latched: protective.

    Of which category, the robot file says (`exit.stop_category`).
    """

    TYPE: ClassVar[Type] = Type.STOP

    latched: bool
    reason: str

    def pack(self) -> bytes:
        return struct.pack("<B", self.latched) + pack_text(self.reason)

    @classmethod
    def unpack(cls, body: bytes) -> Stop:
        (latched,) = struct.unpack_from("<B", body)
        return cls(bool(latched), read_text(body, 1))


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that the policy process noticed; `code` is a row of the deadline table."""

    TYPE: ClassVar[Type] = Type.FAULT

    code: str
    text: str

    def pack(self) -> bytes:
        return pack_text(self.code) + pack_text(self.text)

    @classmethod
    def unpack(cls, body: bytes) -> Fault:
        code = read_text(body, 0, whole=False)
        return cls(code, read_text(body, 2 + len(code.encode())))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a report shows: a change of phase, a stop, a clamp, readiness. Codes are stable."""

    TYPE: ClassVar[Type] = Type.EVENT

    at_ns: int
    code: str
    text: str
    value: float = 0.0

    def pack(self) -> bytes:
        return struct.pack("<qd", self.at_ns, self.value) + pack_text(self.code) + pack_text(self.text)

    @classmethod
    def unpack(cls, body: bytes) -> Event:
        at_ns, value = struct.unpack_from("<qd", body)
        code = read_text(body, 16, whole=False)
        return cls(at_ns, code, read_text(body, 18 + len(code.encode())), value)


@dataclass(frozen=True, slots=True)
class Task:
    """The instruction that the policy process follows from now on. An empty text: pause."""

    TYPE: ClassVar[Type] = Type.TASK

    task_id: int
    text: str

    def pack(self) -> bytes:
        return struct.pack("<I", self.task_id) + pack_text(self.text)

    @classmethod
    def unpack(cls, body: bytes) -> Task:
        (task_id,) = struct.unpack_from("<I", body)
        return cls(task_id, read_text(body, 4))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Control's counters for the live view, ten times a second and once at the end. Durations in ns."""

    TYPE: ClassVar[Type] = Type.SNAPSHOT
    _FIXED: ClassVar[struct.Struct] = struct.Struct("<BIIdddQQQQQQQQqqqqqQqH")

    phase: Phase
    task_id: int
    chunk_id: int
    rate_now_hz: float
    rate_average_hz: float
    rate_worst_second_hz: float
    ticks: int
    missed_late: int
    """Slots missed because control woke late."""
    missed_overrun: int
    """Slots missed because the tick before ran over."""
    starved: int
    """Times that a chunk ran out."""
    clamped: int
    """Ticks in which a target was clamped."""
    rejected_chunks: int
    bus_errors: int
    skipped_chunks: int
    """Chunks superseded before a tick could use them."""
    frame_age_ns: int
    chunk_age_ns: int
    joint_age_ns: int
    position: tuple[float, ...] = ()
    commanded: tuple[float, ...] = ()
    worst_second_ns: int = 0
    """When the worst second began; 0 before the first was over."""
    starved_ns: int = 0
    starved_recently: int = 0
    starved_recently_ns: int = 0
    """Times, and for how long, within the last 10 s."""

    @property
    def missed(self) -> int:
        return self.missed_late + self.missed_overrun

    def pack(self) -> bytes:
        n = len(self.position)
        fixed = self._FIXED.pack(
            self.phase, self.task_id, self.chunk_id,
            self.rate_now_hz, self.rate_average_hz, self.rate_worst_second_hz,
            self.ticks, self.missed_late, self.missed_overrun, self.starved, self.clamped,
            self.rejected_chunks, self.bus_errors, self.skipped_chunks,
            self.frame_age_ns, self.chunk_age_ns, self.joint_age_ns,
            self.worst_second_ns, self.starved_ns, self.starved_recently, self.starved_recently_ns, n,
        )  # fmt: skip
        return fixed + struct.pack(f"<{2 * n}d", *self.position, *self.commanded)

    @classmethod
    def unpack(cls, body: bytes) -> Snapshot:
        phase, *rest, worst_ns, starved_ns, recently, recently_ns, n = cls._FIXED.unpack_from(body)
        flat = floats(body, cls._FIXED.size, 2 * n)
        last = (worst_ns, starved_ns, recently, recently_ns)
        values: tuple[Any, ...] = (Phase(phase), *rest, flat[:n], flat[n:], *last)
        return cls(*values)


@dataclass(frozen=True, slots=True)
class Histogram:
    """One stage's cumulative histogram (`runtime.histogram` gives the bucket edges)."""

    TYPE: ClassVar[Type] = Type.HISTOGRAM
    _FIXED: ClassVar[struct.Struct] = struct.Struct("<QqqqqQQQH")

    stage: str
    count: int
    sum_ns: int
    min_ns: int
    max_ns: int
    buckets: tuple[int, ...] = field(repr=False, default=())
    budget_ns: int = 0
    """What the stage may take; 0 for no budget."""
    over: int = 0
    """How often it took longer."""
    window_count: int = 0
    window_over: int = 0
    """Durations within the last 10 s, and those of them above the budget."""

    def pack(self) -> bytes:
        fixed = self._FIXED.pack(
            self.count, self.sum_ns, self.min_ns, self.max_ns,
            self.budget_ns, self.over, self.window_count, self.window_over, len(self.buckets),
        )  # fmt: skip
        return fixed + struct.pack(f"<{len(self.buckets)}I", *self.buckets) + pack_text(self.stage)

    @classmethod
    def unpack(cls, body: bytes) -> Histogram:
        count, sum_ns, min_ns, max_ns, *budget, n = cls._FIXED.unpack_from(body)
        end = cls._FIXED.size + 4 * n
        buckets = struct.unpack_from(f"<{n}I", body, cls._FIXED.size)
        return cls(read_text(body, end), count, sum_ns, min_ns, max_ns, buckets, *budget)


Message: TypeAlias = (
    Chunk | State | Heartbeat | Reset | Quit | Arm | Stop | Fault | Event | Task | Snapshot | Histogram
)
