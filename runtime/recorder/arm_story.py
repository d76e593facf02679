"""What the arm did, or was left doing, in words that say no more than is known."""

from __future__ import annotations

from collections.abc import Iterator

from ..messages import Phase
from .account import Account, at
from .facts import STOOD, STOOD_NS, Braking, unit
from .motors import armed
from .words import number


def tell(account: Account) -> Iterator[str]:
    """Lines; none where the account is about neither a stop nor the death of control."""
    if account.braking is not None:
        yield from _braked(account, account.braking)
    elif account.control_died:
        yield from _last_goal(account)


def without_control(account: Account) -> str:
    """What the motors were left with when control died, in a sentence."""
    motors, phase = account.motors, account.last.phase
    if account.recording.dry_run:
        return "A dry run: no torque was given, the arm was not moved."
    if phase is Phase.CONNECT:
        if motors.torque is None:
            return "This run had not given torque, and had commanded nothing."
        return "It was about to take the arm over: motors may hold where they were."
    if motors.lost:
        return f"What the motors do is not known: {motors.lost}."
    if phase is Phase.RELEASED:
        if motors.torque is False:
            return "The motors had been told to let go."
        return "Whether all motors were told to let go is not in the recording."
    if motors.last_goal() is None:
        return "No goal that was sent to the motors is in the recording: what they do is not known."
    return "Without control nothing in software brakes the arm: its motors go to the last goal and hold."


def next_start(account: Account) -> str:
    """Whether it needs --reset, in a sentence. For a stop that was not reset, or a death of control."""
    recording = account.recording
    if recording.dry_run:
        return "It was a dry run: it leaves nothing that the next start needs --reset for."
    if not armed(recording, account.motors):
        return "This run had not given torque: it leaves nothing that the next start needs --reset for."
    return "The next start needs --reset."


def _braked(account: Account, braking: Braking) -> Iterator[str]:
    dry = account.recording.dry_run
    yield from _command(account, braking)
    if dry:
        yield (
            "A dry run: no torque was given and the arm was not moved. Below is what the core was told: in "
            "place of measured positions the commanded ones."
        )
    else:
        yield from _stood(braking)
    if braking.eased_s is not None:
        yield f"Control called the stop complete after {number(1e3 * braking.eased_s, 'ms')}."
    told = ("told", "told to move", "told last") if dry else ("measured", "arm moved", "measured last")
    # Goals that left for motors without power have braked nothing.
    braked_over = "goals sent on" if dry or account.motors.lost else "braked over"
    titles = ("commanded", told[0], "speed", braked_over, told[1], told[2], "to its limit")
    yield f"{'joint':<15}" + "".join(f"{title:>14}" for title in titles)
    for row in braking.joints:
        braked = "not sent" if row.braked is None else number(row.braked, row.unit)
        cells = (
            number(row.commanded, row.unit),
            _known(row.measured, row.unit),
            number(row.velocity, row.unit + "/s"),
            braked,
            *(_known(value, row.unit) for value in (row.moved, row.last, row.to_limit)),
        )
        yield f"{row.name:<15}" + "".join(f"{cell:>14}" for cell in cells)
    outside = [row for row in braking.joints if row.to_limit is not None and row.to_limit < 0 and not dry]
    for row in outside:
        yield f"{row.name} was last outside its limits of {row.low:.3f} .. {row.high:.3f} {row.unit}."
    measured_ns = account.evidence.bus.last_complete_ns
    if measured_ns is not None and not dry:
        when = at(account, measured_ns)
        yield f"(commanded and speed: just before the stop; measured: the joint state of {when})"


def _known(value: float | None, in_unit: str) -> str:
    return "-" if value is None else number(value, in_unit)


def _command(account: Account, braking: Braking) -> Iterator[str]:
    rest, sent = braking.command_rest_s, braking.last_sent_s
    if rest is None:
        yield "The recording ends before the command was at rest."
    else:
        yield f"The command was at rest {number(1e3 * rest, 'ms')} after the stop."
    if account.recording.dry_run:
        return
    if sent is None:
        yield "None of it was sent to the motors after the stop."
    elif account.motors.lost:
        when = number(1e3 * sent, "ms")
        yield f"The last goal sent is of {when} after the stop; whether the motors took it is not known."


def _stood(braking: Braking) -> Iterator[str]:
    stood, measured = braking.arm_stood_s, braking.measured_for_s
    if stood is not None:
        yield (
            f"The arm itself stood {number(1e3 * stood, 'ms')} after the stop (no joint moved more than "
            f"{STOOD:g} rad in the {STOOD_NS / 1e6:g} ms from then on)."
        )
    elif measured is None:
        yield "There is no joint state after the stop: what the arm itself did is not in this recording."
    else:
        yield (
            f"The last joint state is of {number(1e3 * measured, 'ms')} after the stop: too early to say "
            "that the arm itself stood."
        )


def _last_goal(account: Account) -> Iterator[str]:
    """Where control fell silent: how far the motors still had to go."""
    recording, sent = account.recording, account.motors.last_goal()
    goal = recording.ticks[sent].output.setpoint if sent is not None else None
    joint = next((t.joint for t in reversed(recording.ticks) if t.joint is not None), None)
    if sent is None or goal is None or joint is None or account.last.phase in (Phase.CONNECT, Phase.RELEASED):
        return
    titles = ("last goal", "measured last", "left to go", "cap of the lead")
    yield f"{'joint':<15}" + "".join(f"{title:>16}" for title in titles)
    for i, name in enumerate(recording.config.joint_names):
        position, lead = joint.position[i], recording.config.lead[i]
        cells = (goal[i], position, abs(goal[i] - position), lead)
        yield f"{name:<15}" + "".join(f"{number(value, unit(recording, i)):>16}" for value in cells)
    at_goal, at_joint = at(account, recording.ticks[sent].now_ns), at(account, joint.stamp_ns)
    yield f"(the last goal that was sent: of {at_goal}; the last joint state: of {at_joint})"
