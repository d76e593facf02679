"""What happened, in order: the notes, faults, tasks and events of a recording as one list of entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..messages import Phase
from .motors import goals_sent
from .records import EventRecord, Recording, Tick

_REPEAT_NS = 1_000_000_000
"""The same entry within this time of its last occurrence is counted, not listed again."""
_NUMBERED = frozenset({"missed", "starved", "resumed"})
"""Codes that repeat although no text does: the texts have numbers in them."""
_FREQUENT = _NUMBERED | {"over_budget", "clamped", "bus_error", "late", "also", "refused"}
"""Only these are merged: of everything else each time counts."""
_MISSED_TO_SHOW = 2
"""So many slots missed at once are worth an entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at_ns: int
    source: str
    """control, policy or supervisor."""
    code: str
    text: str
    count: int = 1
    """How often, from `at_ns` to `last_ns`."""
    last_ns: int = 0


def timeline(recording: Recording) -> tuple[Entry, ...]:
    """Every entry of the recording, oldest first; repeated ones are merged."""
    sent = frozenset(goals_sent(recording))
    notes = [entry for i, tick in enumerate(recording.ticks) for entry in _of_tick(recording, sent, i, tick)]
    told = {(entry.code, entry.text) for entry in notes}
    entries = [*notes, *_of_policy(recording)]
    for event in recording.events:
        # What control's ticks say has its exact time there, and the policy's faults have theirs.
        of_tick = (event.code, event.text) in told
        of_policy = (event.source, event.code) == ("policy", "fault") and bool(recording.faults)
        if not (of_tick or of_policy or _is_aside(event)):
            entries.append(Entry(event.t_ns, event.source, event.code, _short(event)))
    return tuple(_merged(sorted(entries, key=lambda entry: entry.at_ns)))


def _is_aside(event: EventRecord) -> bool:
    """What is armed and the steps of the real-time set-up that went well, which the report lists; and what is
    said of recordings."""
    return event.code in ("guard", "recording") or (event.code == "rt" and bool(event.value))


def _short(event: EventRecord) -> str:
    """The event's text; what the policy measured before it was ready is JSON for the report."""
    return "" if event.code == "ready" and event.text.startswith("{") else event.text


def _of_tick(recording: Recording, sent: frozenset[int], index: int, tick: Tick) -> Iterator[Entry]:
    before = recording.ticks[index - 1].phase if index and index not in recording.gaps else None
    inbox = tick.inbox
    missed = inbox.slots_late + inbox.slots_overrun
    if missed >= _MISSED_TO_SHOW:
        why = f"{inbox.slots_late} woke late, {inbox.slots_overrun} after a tick that ran over"
        yield Entry(tick.now_ns, "control", "missed", f"{missed} slots: {why}")
    if inbox.quit is not None:
        yield Entry(tick.now_ns, "control", "quit", _asked_to_end(recording, index))
    for note in tick.output.notes:
        yield Entry(tick.now_ns, "control", note.code, note.text)
    if index in recording.gaps:
        yield Entry(tick.now_ns, "recorder", "gap", "records before this tick are missing")
    if before is Phase.STOPPING and tick.phase in (Phase.STOPPED, Phase.RELEASED, Phase.HOLD):
        # At rest nothing is sent to motors that were silent.
        carried_out = index in sent or index - 1 in sent
        text = "the commanded motion is at rest" + ("" if carried_out else ", as computed: no goal was sent")
        yield Entry(tick.now_ns, "control", "at_rest", text)
    if tick.output.finish is not None:
        yield Entry(tick.now_ns, "control", "finish", _FINISH[tick.output.finish])


_AT_EXIT = {
    "park_release": "to park and release the arm",
    "hold_energised": "to leave the arm holding where it is",
    "release_here": "to release the arm where it is",
}
_FINISH = {
    "release": "the run is over: release the motors",
    "hold": "the run is over: the motors are not to be released",
}


def _asked_to_end(recording: Recording, index: int) -> str:
    """What a request to end leads to there."""
    tick = recording.ticks[index]
    if tick.phase is Phase.CONNECT:
        return "asked to end, before torque was given"
    if _is_latched(recording, index):
        return "asked to end; after a stop the arm is not moved to a pose"
    wish = _AT_EXIT[recording.config.at_exit] if tick.inbox.quit == "park" else "where the arm is"
    return f"asked to end, {wish}"


def _is_latched(recording: Recording, index: int) -> bool:
    """Whether a stop stands after this tick, as far as the recording reaches back."""
    if recording.ticks[index].phase in (Phase.STOPPED, Phase.RELEASED):
        return True
    for tick in reversed(recording.ticks[: index + 1]):
        for note in reversed(tick.output.notes):
            if note.code == "stop":
                return True
            if note.code == "reset" and not note.text.startswith("refused"):
                return False
    return False


def _of_policy(recording: Recording) -> Iterator[Entry]:
    for fault in recording.faults:
        yield Entry(fault.at_ns, "policy", "fault", f"{fault.code}: {fault.text}")
    for task in recording.tasks:
        text = f"task {task.task_id}: {task.text!r}" if task.text else f"task {task.task_id}: pause"
        yield Entry(task.at_ns, "policy", "task", text)


def _what(entry: Entry) -> str:
    """The part of its text that is the same when it happens again."""
    if entry.code == "over_budget":
        return entry.text.partition(":")[0]
    return "" if entry.code in _NUMBERED else entry.text


def _merged(entries: list[Entry]) -> Iterator[Entry]:
    kept: list[Entry] = []
    newest: dict[tuple[str, str, str], int] = {}
    for entry in entries:
        key = (entry.source, entry.code, _what(entry))
        at = newest.get(key) if entry.code in _FREQUENT else None
        if at is not None and entry.at_ns - (kept[at].last_ns or kept[at].at_ns) <= _REPEAT_NS:
            kept[at] = replace(kept[at], count=kept[at].count + 1, last_ns=entry.at_ns)
            continue
        newest[key] = len(kept)
        kept.append(entry)
    yield from kept
