"""The story of a recording in words: sections of lines, every one of them read off the account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..messages import Phase
from . import advice, arm_story
from .account import Account, at, offset
from .kinds import KILLED, REQUEST
from .timeline import Entry
from .words import duration, number, time_of_day

BEFORE_NS = 10_000_000_000
"""How much of what came before the moment is told; what matters for the whole run is told from the start."""
_ALWAYS = frozenset({"connected", "armed", "running", "task_start", "stop", "reset", "gap"})
_MOST_ENTRIES = 60
_NOISE = frozenset({"clamped", "resumed", "starved", "bus_error", "missed", "over_budget"})
"""Left out first where there is too much to tell; their numbers stand under the evidence."""
_LONGEST_LINE = 160
_PHASES = {
    Phase.CONNECT: "without torque of ours",
    Phase.HOLD: "holding",
    Phase.RETURN: "moving to a pose",
    Phase.RUN: "following chunks",
    Phase.STOPPING: "braking",
    Phase.STOPPED: "stopped, latched",
    Phase.RELEASED: "released",
}
_HELD = {Phase.STOPPED: ", holding with torque on", Phase.RELEASED: ", its torque off"}
"""Where the motors answered."""
_REASONS = {
    KILLED: "found at a later start: all processes of the run had ended, and none of them had written it",
    REQUEST: "a person asked for it",
}
_LOGS = (
    "Logs: control-PID.log and policy-PID.log (PID of vla-run) in ~/.local/state/holdfast/logs, or in "
    "$XDG_STATE_HOME/holdfast/logs where that is set; there is none of a process that printed nothing."
)


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    lines: tuple[str, ...]
    hang: int = 8
    """Where a line goes on that is too long."""


def tell(account: Account) -> list[Section]:
    """The whole story; sections without anything to say are left out."""
    sections = [
        Section("What happened", tuple(_headline(account))),
        Section("What ran", tuple(_run(account.recording.run, account))),
        Section(f"In order, in seconds from {moment(account)}", tuple(_order(account)), 25),
        Section("What control watched at that moment", tuple(_margins(account))),
        Section("What the arm did", tuple(arm_story.tell(account))),
        Section("Evidence up to that moment", tuple(_evidence(account))),
        Section("Check next", tuple(_next(account))),
        Section("This recording", tuple(_recording(account))),
    ]
    return [section for section in sections if section.lines]


def moment(account: Account) -> str:
    """What the account is about, as a noun."""
    if account.stop is not None:
        return "the stop"
    if account.requested:
        return "the request for this recording"
    if account.quit_ns == account.at_ns and not account.control_died:
        return "the request to end"
    return "control's last tick"


def _headline(account: Account) -> Iterator[str]:
    stop = account.stop
    when = time_of_day(account.recording.run, account.at_ns)
    doing = f"{_phase(account, account.phase_before, account.at_ns)}{_task(account)}"
    if stop is not None:
        yield f"Protective stop {stop.code}: {stop.meaning}."
        yield f"  {stop.text}"
        yield f"  At {when}; the arm was {doing}."
        yield f"  Noticed by {stop.noticed_by}."
        chosen = "the robot file's choice" if stop.tuned else "control's table"
        then = "hold with torque on" if stop.category == 2 else "release it once it is at rest"
        yield f"  Reaction, by {chosen}: brake the arm, then {then} (category {stop.category}); latched."
        if account.recording.dry_run:
            yield "  A dry run: no torque was given, the arm was not moved, and none of this reached a motor."
        elif account.motors.lost:
            yield f"  How the arm took it is not known: {account.motors.lost}."
    elif account.control_died:
        yield f"Control ended without a stop ({account.control_died})."
        yield f"  Its last tick is of {when}; the arm was {doing}."
        yield f"  {arm_story.without_control(account)}"
    elif account.requested:
        yield f"A person asked for this recording at {when}; the arm was {doing}."
    elif account.quit_ns is not None:
        yield f"No protective stop. Control was asked to end at {when}; the arm was {doing}."
    else:
        seconds = (account.last.now_ns - account.recording.ticks[0].now_ns) / 1e9
        yield f"No protective stop in the {seconds:.1f} s up to {when}; the arm was {doing}."
    for earlier in account.earlier:
        reset = f", reset at {at(account, earlier.reset_ns)}" if earlier.reset_ns else ""
        yield f"A stop earlier: {earlier.code} ({earlier.text}) at {at(account, earlier.at_ns)}{reset}."
    yield from _ending(account)


def _ending(account: Account) -> Iterator[str]:
    stop, last = account.stop, account.last
    if stop is not None and stop.reset_ns is not None:
        yield f"A person reset it at {at(account, stop.reset_ns)}."
    if stop is not None and account.control_died:
        yield f"Control then ended as it should not: {account.control_died}."
    left = next((e for e in reversed(account.entries) if e.code in ("released", "held", "refused")), None)
    if left is not None and left.at_ns >= account.at_ns:
        yield f"In the end: {left.text}."
    elif last.now_ns > account.at_ns:
        later = duration(last.now_ns - account.at_ns)
        yield f"The recording ends {later} later, the arm {_phase(account, last.phase, last.now_ns)}."


def _phase(account: Account, phase: Phase, at_ns: int) -> str:
    """What the arm was doing, as far as that is known."""
    if account.recording.dry_run:
        # Without torque there is nothing to hold, or to switch off.
        return "connected" if phase is Phase.CONNECT else _PHASES[phase] + ", as computed"
    if account.motors.lost and phase in _HELD and at_ns == account.last.now_ns:
        return _PHASES[phase] + "; what its motors do is not known"
    return _PHASES[phase] + _HELD.get(phase, "")


def _task(account: Account) -> str:
    starts = [e for e in account.entries if e.code == "task_start" and e.at_ns <= account.at_ns]
    if not starts or account.phase_before is not Phase.RUN:
        return ""
    return (
        f", {(account.at_ns - starts[-1].at_ns) / 1e9:.2f} s after the start of the task {starts[-1].text!r}"
    )


def _run(run: Mapping[str, Any], account: Account) -> Iterator[str]:
    if not run:
        return
    bundle, robot = run.get("bundle", {}), run.get("robot", {})
    yield f"{bundle.get('name')} (sha256 {str(bundle.get('sha256'))[:12]}...), {bundle.get('path')}"
    config = account.recording.config
    average = f", targets averaged over {config.ema_s:g} s" if config.ema_s else ""
    yield (
        f"on {robot.get('name')} at {robot.get('arm')}, control at {1e9 / config.dt_ns:g} Hz, chunks of "
        f"{config.chunk_steps} x {config.chunk_dt_ns / 1e6:g} ms, strategy {config.strategy}{average}"
    )
    for name, source in run.get("cameras", {}).items():
        yield f"camera {name}: {source}"
    started = time_of_day(run, run["started_ns"]) if "started_ns" in run else run.get("started")
    dry = "; a dry run: no torque was given" if run.get("options", {}).get("dry_run") else ""
    yield f"started {started}{dry}"


def _order(account: Account) -> Iterator[str]:
    since_ns = account.at_ns - BEFORE_NS
    entries = [e for e in account.entries if (e.last_ns or e.at_ns) >= since_ns or e.code in _ALWAYS]
    if len(entries) > _MOST_ENTRIES:
        entries = [entry for entry in entries if entry.code not in _NOISE]
    left_out = max(0, len(entries) - _MOST_ENTRIES)
    if left_out:
        yield f"({left_out} older ones are left out; --json has them all)"
    for entry in entries[left_out:]:
        yield f"{offset(account, entry.at_ns):>9}  {entry.source:<10}  {_said(account, entry)}"


def _said(account: Account, entry: Entry) -> str:
    text = f"{entry.code}: {entry.text}" if entry.text else entry.code
    if len(text) > _LONGEST_LINE:
        text = text[: _LONGEST_LINE - 3] + "..."
    return f"{text} (x{entry.count}, until {offset(account, entry.last_ns)})" if entry.count > 1 else text


def _margins(account: Account) -> Iterator[str]:
    if not account.margins and account.result.difference is not None:
        yield "Not known: the replay departs from the recording before it (see below)."
    if account.recording.dry_run and account.margins:
        yield "(a dry run: the core was told that the arm follows, so a following error is no measurement)"
    words = {"below": "at least", "above": "at most", "from": "below"}
    for margin in account.margins:
        what = f"{margin.name} ({margin.where})" if margin.where else margin.name
        value, limit = number(margin.value, margin.unit), number(margin.limit, margin.unit)
        # The order of the columns: what, how much, what is allowed.
        beyond = "   <-- beyond its limit" if margin.exceeded else ""
        yield f"{what:<44}{value:>12}   {words[margin.stops]} {limit}{beyond}"


def _evidence(account: Account) -> Iterator[str]:
    evidence = account.evidence
    for camera in evidence.cameras:
        same = ""
        if camera.same_since_ns is not None:
            same = f"; those kept since {at(account, camera.same_since_ns)} are the same, byte for byte"
        yield (
            f"camera {camera.name}: the newest picture kept is of {at(account, camera.last_ns)} (stamp: "
            f"{camera.stamp_source}){same}"
        )
    inferences = evidence.inferences
    if inferences is not None:
        limit = inferences.picture_limit_ms
        allowed = f" (allowed: {limit:.0f} ms)" if limit is not None else ""
        yield (
            f"inference: the last one (chunk {inferences.last_chunk}) ended at "
            f"{at(account, inferences.last_end_ns)}, took {inferences.last_ms:.1f} ms and began with a "
            f"picture {inferences.last_picture_ms:.1f} ms old{allowed}"
        )
        yield (
            f"  of {inferences.count} the median took {inferences.median_ms:.1f} ms, the longest "
            f"{inferences.worst_ms:.1f} ms, at {at(account, inferences.worst_end_ns)}; the longest time "
            f"between two chunks was {number(inferences.largest_gap_ms, 'ms')}"
        )
    chunk = evidence.chunk
    if chunk is not None:
        lasts = ""
        if chunk.lasts_until_ns is not None:
            lasts = f", its last action at {at(account, chunk.lasts_until_ns)}"
        yield (
            f"chunk {chunk.chunk_id} is the newest begun, at {at(account, chunk.first_used_ns)}: its "
            f"observation is of {at(account, chunk.observation_ns)}{lasts}"
        )
    yield from _bus(account)
    timing = evidence.timing
    missed = timing.missed_late + timing.missed_overrun
    yield (
        f"timing: {missed} of {timing.slots} slots missed in the last 10 s ({timing.missed_late} woke late, "
        f"{timing.missed_overrun} after a tick that ran over); the latest wake-up that still ran was "
        f"{timing.worst_late_ms:.2f} ms late"
    )
    if evidence.starved:
        total = sum(end - begin for begin, end in evidence.starved)
        times = len(evidence.starved)
        yield f"chunks ran out {times} times in the last 10 s, for {duration(total)} altogether"
    if evidence.clamped:
        shown = ", ".join(f"{text} (x{count})" for text, count in evidence.clamped[:4])
        yield f"targets were clamped in the last 10 s: {shown}"


def _bus(account: Account) -> Iterator[str]:
    bus = account.evidence.bus
    text = f"motor bus: {bus.failed} of {bus.reads} ticks of the last 10 s without a complete joint state"
    if bus.failed_in_a_row:
        text += f", {bus.failed_in_a_row} of them in a row at the end"
    if bus.last_complete_ns is not None:
        text += f"; the last complete one is of {at(account, bus.last_complete_ns)}"
    yield text
    if bus.silent:
        shown = ", ".join(f"{joint} {unanswered}" for joint, unanswered, _ in bus.silent)
        yield f"  of {bus.silent[0][2]} requests in the last second these were left unanswered: {shown}"
    for joint, faults in bus.faults:
        yield f"  the motor of {joint} reports: {faults}"
    if bus.last_error:
        yield f"  the last error, at {at(account, bus.last_error_ns)}: {bus.last_error}"


def _next(account: Account) -> Iterator[str]:
    stop = account.stop
    if stop is None:
        if account.control_died:
            yield f"{advice.CONTROL_DIED}."
            yield _LOGS
            yield arm_story.next_start(account)
        return
    text = advice.look_at(stop.code)
    if text:
        yield f"{text}."
    if "log" in text:
        yield _LOGS
    also = [entry.text for entry in account.entries if entry.code == "also" and entry.at_ns >= stop.at_ns]
    if also:
        yield f"After the stop control also noticed: {'; '.join(also[:4])}."
    if account.control_died:
        yield f"{advice.CONTROL_DIED}."
    if stop.reset_ns is None:
        latched = "" if account.recording.dry_run else "The stop is latched: look at the arm. "
        yield f"{latched}Remove the cause. {arm_story.next_start(account)}"


def _recording(account: Account) -> Iterator[str]:
    recording = account.recording
    seconds = (account.last.now_ns - recording.ticks[0].now_ns) / 1e9
    yield recording.path
    if recording.reason:
        yield f"written for: {_REASONS.get(recording.reason, recording.reason)}"
    yield (
        f"{seconds:.1f} s: {len(recording.ticks)} ticks, {len(recording.chunks)} chunks, "
        f"{len(recording.inferences)} inferences, {len(recording.frames)} pictures, {len(recording.bus)} "
        "transmissions on the motor bus"
    )
    for note in recording.notes:
        yield f"damaged or missing: {note}"
    yield from verdict(account)


def verdict(account: Account) -> Iterator[str]:
    """What the replay of the recording came to."""
    result, run = account.result, account.recording.run
    difference = result.difference
    if difference is not None:
        yield f"Replay: DIFFERENT at tick {difference.index}, {time_of_day(run, difference.at_ns)}"
        yield f"  {difference.what}: recorded {difference.recorded}, replayed {difference.replayed}"
        yield from (f"  {line}" for line in account.other_versions)
    elif not result.steps:
        yield "Replay: not possible, there is no recorded state to start from"
    else:
        yield (
            f"Replay: the same decisions, bit for bit, in all {len(result.steps)} ticks (states compared: "
            f"{result.states})"
        )
    if result.skipped:
        yield f"  {result.skipped} ticks have no recorded state before them and were not replayed"
