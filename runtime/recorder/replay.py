"""Replay: what control was given in a recording goes through the core again, and must decide the same.

Compared bit for bit: after every tick the phase and the whole output (setpoint, target, notes, how the run
ends), and at every recorded state all that the core remembers. The core has no clock and no I/O, so a
difference means another version of the code, another arithmetic (libm, Ruckig), or an altered recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass

from ..control.core import ControlCore
from ..control.state import CoreState, Output
from .records import Recording, Tick


@dataclass(frozen=True, slots=True)
class Step:
    """One tick carried out again."""

    index: int
    """Into `Recording.ticks`."""
    tick: Tick
    before: CoreState
    after: CoreState
    output: Output


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the replay first departs from the recording."""

    index: int
    """Into `Recording.ticks`; their number for a state after the last."""
    at_ns: int
    what: str
    """As in `setpoint[2]`, or `state.motion.position[0] before it`."""
    recorded: str
    replayed: str


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What the replay came to. `steps` ends before the first difference."""

    steps: tuple[Step, ...]
    states: int
    """Recorded states that the replay reached by itself, and that were equal."""
    skipped: int
    """Ticks without a recorded state to start from: at the head of the ring, and after missing records."""
    difference: Difference | None

    @property
    def identical(self) -> bool:
        return self.difference is None and bool(self.steps)


def replay(recording: Recording) -> ReplayResult:
    """Carries out every tick of the recording again, up to the first difference."""
    core = ControlCore(recording.config)
    recorded_states: dict[int, list[CoreState]] = {}
    for index, recorded in recording.states:
        recorded_states.setdefault(index, []).append(recorded)
    state: CoreState | None = None
    steps: list[Step] = []
    states = skipped = 0

    for index in range(len(recording.ticks) + 1):
        if index in recording.gaps:
            state = None
        for recorded in recorded_states.get(index, ()):
            if state is not None:
                difference = _compare_states(core, recording, index, state, recorded)
                if difference is not None:
                    return ReplayResult(tuple(steps), states, skipped, difference)
                states += 1
            state = recorded
        if index == len(recording.ticks):
            break
        tick = recording.ticks[index]
        if state is None:
            skipped += 1
            continue
        before = state
        try:
            state, output = core.step(before, tick.now_ns, tick.joint, tick.inbox)
        except Exception as error:  # noqa: BLE001 - an altered recording may hold anything; the core once went on
            raised = f"{type(error).__name__}: {error}"
            difference = Difference(index, tick.now_ns, "the core", "went on", raised)
            return ReplayResult(tuple(steps), states, skipped, difference)
        difference = _compare_tick(index, tick, state, output)
        if difference is not None:
            return ReplayResult(tuple(steps), states, skipped, difference)
        steps.append(Step(index, tick, before, state, output))
    return ReplayResult(tuple(steps), states, skipped, None)


def _compare_tick(index: int, tick: Tick, state: CoreState, output: Output) -> Difference | None:
    found = first_difference(tick.phase, state.phase, "phase")
    for field in fields(Output):
        found = found or first_difference(
            getattr(tick.output, field.name), getattr(output, field.name), field.name
        )
    return Difference(index, tick.now_ns, *found) if found else None


def _compare_states(
    core: ControlCore, recording: Recording, index: int, reached: CoreState, recorded: CoreState
) -> Difference | None:
    """A recorded state must be the one reached; or follow from it by switching torque on, which is the one
    change that control makes outside the core's step."""
    if reached.motion is None and recorded.motion is not None and recorded.joint is not None:
        reached = core.energised(reached, recorded.joint, recorded.still_since_ns)
    found = first_difference(recorded, reached, "state")
    if found is None:
        return None
    what, old, new = found
    last = min(index, len(recording.ticks) - 1)
    at_ns = recording.ticks[last].now_ns if recording.ticks else 0
    return Difference(index, at_ns, f"{what} before it", old, new)


def first_difference(recorded: object, replayed: object, where: str) -> tuple[str, str, str] | None:
    """The first place where two values are not the same bits: its name and both sides in words.

    Goes into dataclasses and tuples; NaN is the same as NaN, and -0.0 is not 0.0.
    """
    if type(recorded) is not type(replayed):
        return where, repr(recorded), repr(replayed)
    if isinstance(recorded, float) and isinstance(replayed, float):
        same = recorded == replayed and math.copysign(1, recorded) == math.copysign(1, replayed)
        both_nan = math.isnan(recorded) and math.isnan(replayed)
        return None if same or both_nan else (where, repr(recorded), repr(replayed))
    if isinstance(recorded, tuple) and isinstance(replayed, tuple):
        if len(recorded) != len(replayed):
            return where, repr(recorded), repr(replayed)
        parts = [
            (old, new, f"{where}[{i}]") for i, (old, new) in enumerate(zip(recorded, replayed, strict=True))
        ]
    elif is_dataclass(recorded) and not isinstance(recorded, type):
        parts = [
            (getattr(recorded, field.name), getattr(replayed, field.name), f"{where}.{field.name}")
            for field in fields(recorded)
        ]
    else:
        return None if recorded == replayed else (where, repr(recorded), repr(replayed))
    for old, new, name in parts:
        found = first_difference(old, new, name)
        if found is not None:
            return found
    return None
