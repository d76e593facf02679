"""What was seen, inferred, said on the motor bus and missed in the seconds up to one moment of a recording.

Nothing here is guessed: numbers of what the recording holds, up to the moment that is asked about. All stamps
are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from ...drivers.feetech import codec
from ...drivers.types import Direction
from ..messages import Phase
from .observed import FrameRecord
from .records import Recording, Tick

WINDOW_NS = 10_000_000_000
"""How far back counts go."""
_BUS_WINDOW_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """What a camera had given by then: the pictures of inferences, of which some are kept."""

    name: str
    pictures: int
    """Kept in the recording (at most `FRAMES_PER_S`)."""
    last_ns: int
    """Stamp of the newest of them."""
    stamp_source: str
    same_since_ns: int | None
    """Stamp of the oldest of those that are, byte for byte, the newest one; None where that is alone."""


@dataclass(frozen=True, slots=True)
class InferenceFacts:
    """The policy's work; durations in ms."""

    count: int
    last_chunk: int
    last_end_ns: int
    last_observation_ns: int
    last_ms: float
    """From start to end of the last one, session.run and all."""
    median_ms: float
    worst_ms: float
    worst_end_ns: int
    last_picture_ms: float
    """Age of the oldest picture when the last one started."""
    picture_limit_ms: float | None
    """How old that may be."""
    largest_gap_ms: float
    """Between two chunks sent while chunks were followed."""


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """The newest chunk that was begun."""

    chunk_id: int
    first_used_ns: int
    observation_ns: int
    lasts_until_ns: int | None
    """Its last action; None where no replay says so."""


@dataclass(frozen=True, slots=True)
class BusFacts:
    """The motor bus as control saw it."""

    reads: int
    """Ticks within `WINDOW_NS`."""
    failed: int
    """Those without a complete joint state."""
    failed_in_a_row: int
    """At the end."""
    last_complete_ns: int | None
    """Stamp of the newest complete joint state."""
    silent: tuple[tuple[str, int, int], ...]
    """(joint, requests that it did not answer, requests) of the last second, where some were not answered."""
    last_error: str
    """The newest bus error that control reported in the recording."""
    last_error_ns: int
    faults: tuple[tuple[str, str], ...]
    """(joint, what its motor reports) in the newest joint state."""


@dataclass(frozen=True, slots=True)
class TimingFacts:
    """Control's own time."""

    slots: int
    missed_late: int
    missed_overrun: int
    worst_late_ms: float
    worst_late_ns: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Up to `at_ns`; None where the recording has nothing of it."""

    at_ns: int
    cameras: tuple[CameraFacts, ...]
    inferences: InferenceFacts | None
    chunk: ChunkFacts | None
    bus: BusFacts
    timing: TimingFacts
    starved: tuple[tuple[int, int], ...]
    """(from, to) of every time without a chunk to follow."""
    clamped: tuple[tuple[str, int], ...]
    """(joint and reason, how often reported anew), most often first."""


def evidence_at(recording: Recording, at_ns: int, chunk_ends_ns: int | None = None) -> Evidence:
    """`chunk_ends_ns`: the end of the chunk under execution, which only a replay knows."""
    ticks = [tick for tick in recording.ticks if tick.now_ns <= at_ns]
    recent = [tick for tick in ticks if tick.now_ns > at_ns - WINDOW_NS]
    clamped = Counter(n.text for tick in recent for n in tick.output.notes if n.code == "clamped")
    return Evidence(
        at_ns=at_ns,
        cameras=_cameras(recording, at_ns),
        inferences=_inferences(recording, at_ns),
        chunk=_chunk(recording, ticks, chunk_ends_ns),
        bus=_bus(recording, recent, at_ns),
        timing=_timing(recent),
        starved=_starved(recent, at_ns),
        clamped=tuple(clamped.most_common()),
    )


def _cameras(recording: Recording, at_ns: int) -> tuple[CameraFacts, ...]:
    by_name: dict[str, list[FrameRecord]] = {}
    for frame in recording.frames:
        if frame.arrival_ns <= at_ns:
            by_name.setdefault(frame.camera, []).append(frame)
    found = []
    for name, frames in sorted(by_name.items()):
        last = frames[-1]
        same = last
        for frame in reversed(frames[:-1]):
            if frame.jpeg != last.jpeg or not frame.jpeg:
                break
            same = frame
        since = same.stamp_ns if same is not last else None
        found.append(CameraFacts(name, len(frames), last.stamp_ns, last.stamp_source.value, since))
    return tuple(found)


def _inferences(recording: Recording, at_ns: int) -> InferenceFacts | None:
    done = [inference for inference in recording.inferences if inference.end_ns <= at_ns]
    if not done:
        return None
    last = done[-1]
    took = [(i.end_ns - i.start_ns) / 1e6 for i in done]
    worst = max(done, key=lambda i: i.end_ns - i.start_ns)
    limit_ns = recording.run.get("policy_limits", {}).get("frame_age_ns")
    gaps = [b.sent_ns - a.sent_ns for a, b in pairwise(done) if a.task_id == b.task_id]
    return InferenceFacts(
        count=len(done),
        last_chunk=last.chunk_id,
        last_end_ns=last.end_ns,
        last_observation_ns=last.observation_ns,
        last_ms=took[-1],
        median_ms=median(took),
        worst_ms=max(took),
        worst_end_ns=worst.end_ns,
        last_picture_ms=(last.start_ns - last.observation_ns) / 1e6,
        picture_limit_ms=limit_ns / 1e6 if isinstance(limit_ns, int) else None,
        largest_gap_ms=max(gaps, default=0) / 1e6,
    )


def _chunk(recording: Recording, ticks: Sequence[Tick], ends_ns: int | None) -> ChunkFacts | None:
    used = next((tick for tick in reversed(ticks) if tick.output.new_chunk_id), None)
    chunk = recording.chunks.get(used.output.new_chunk_id) if used is not None else None
    if used is None or chunk is None:
        return None
    return ChunkFacts(chunk.chunk_id, used.now_ns, chunk.observation_ns, ends_ns)


def _bus(recording: Recording, recent: Sequence[Tick], at_ns: int) -> BusFacts:
    in_a_row = 0
    for tick in reversed(recent):
        if tick.joint is not None:
            break
        in_a_row += 1
    newest = next((t.joint for t in reversed(recording.ticks) if t.joint and t.now_ns <= at_ns), None)
    errors = [e for e in recording.events if e.code == "bus_error" and e.t_ns <= at_ns]
    return BusFacts(
        reads=len(recent),
        failed=sum(tick.joint is None for tick in recent),
        failed_in_a_row=in_a_row,
        last_complete_ns=newest.stamp_ns if newest else None,
        silent=_silent(recording, at_ns),
        last_error=errors[-1].text if errors else "",
        last_error_ns=errors[-1].t_ns if errors else 0,
        faults=tuple(
            (name, f"{codec.fault_names(bits)} (0x{bits:02x})")
            for name, bits in zip(recording.config.joint_names, newest.faults if newest else (), strict=False)
            if bits
        ),
    )


def _silent(recording: Recording, at_ns: int) -> tuple[tuple[str, int, int], ...]:
    """Which motors left requests for everybody's state unanswered, from the bytes on the bus."""
    asked = 0
    unanswered: Counter[int] = Counter()
    order: tuple[int, ...] = ()
    open_request: tuple[tuple[int, ...], int] | None = None
    heard = b""

    def close() -> None:
        nonlocal asked
        if open_request is not None:
            asked += 1
            ids, length = open_request
            unanswered.update(set(ids) - codec.answering(heard, ids, length))

    for record in recording.bus:
        if not at_ns - _BUS_WINDOW_NS < record.stamp_ns <= at_ns:
            continue
        if record.direction != Direction.SENT:
            # What was discarded as late still shows that a motor lives, but not that it answered in time.
            heard += record.data if record.direction == Direction.RECEIVED else b""
            continue
        close()
        open_request, heard = _sync_read(record.data), b""
        order = _goal_order(record.data) or order
    close()
    names = dict(zip(order, recording.config.joint_names, strict=False))
    return tuple(
        (names.get(motor, f"motor {motor}"), count, asked) for motor, count in sorted(unanswered.items())
    )


def _sync_read(frame: bytes) -> tuple[tuple[int, ...], int] | None:
    """The motors and the number of bytes asked of each, if a request is such."""
    if not _is(frame, codec.Instruction.SYNC_READ):
        return None
    return tuple(frame[7:-1]), frame[6]


def _goal_order(frame: bytes) -> tuple[int, ...]:
    """The motors in joint order: that of the goals."""
    if not _is(frame, codec.Instruction.SYNC_WRITE) or frame[5] != codec.GOAL_ADDRESS:
        return ()
    return tuple(frame[7 : -1 : frame[6] + 1])


def _is(frame: bytes, instruction: int) -> bool:
    return len(frame) >= codec.OVERHEAD + 2 and frame.startswith(codec.HEADER) and frame[4] == instruction


def _timing(recent: Sequence[Tick]) -> TimingFacts:
    on_grid = [tick for tick in recent if tick.slot_ns]
    worst = max(on_grid, key=lambda tick: tick.late_ns, default=None)
    inboxes = [tick.inbox for tick in recent]
    return TimingFacts(
        slots=sum(inbox.slots_run + inbox.slots_late + inbox.slots_overrun for inbox in inboxes),
        missed_late=sum(inbox.slots_late for inbox in inboxes),
        missed_overrun=sum(inbox.slots_overrun for inbox in inboxes),
        worst_late_ms=worst.late_ns / 1e6 if worst else 0.0,
        worst_late_ns=worst.now_ns if worst else 0,
    )


def _starved(recent: Sequence[Tick], at_ns: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    since: int | None = None
    for tick in recent:
        codes = {note.code for note in tick.output.notes}
        if "starved" in codes:
            since = tick.now_ns
        if since is not None and ("resumed" in codes or tick.phase != Phase.RUN):
            found.append((since, tick.now_ns))
            since = None
    return tuple(found) if since is None else (*found, (since, at_ns))
