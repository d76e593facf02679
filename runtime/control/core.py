"""The pure control core: `step(state, now, joint state, inbox) -> (state, output)`.

No I/O and no clock. The control process, the tests, the replay and the stepped-time benchmarks all run this
same function. The order of a tick is the order of `step`: what arrived, the health of the arm, the chunk,
the target and its clamps, the smoother, the checks. Whatever refuses, the answer is the stop trajectory,
which continues the commanded state of the tick before: a state from which braking had been accepted.
"""

from __future__ import annotations

import math

from ...drivers.types import JointState
from ..messages import Chunk, Phase
from . import chain
from .config import CoreConfig
from .deadlines import HOLD_NS, POLICY_FAULTS, SlotAccount, reaction_to, stops
from .executor import Path, Target, path_of, position_at
from .quick import replace
from .requests import take_requests
from .settle import at_rest, settle
from .smoother import LOOKAHEAD_S, Motion, SmootherError
from .state import Condition, CoreState, Inbox, Note, Output, StopCategory, StopRecord
from .strategies import STRATEGIES
from .watch import watch

_LOOKAHEAD_NS = round(LOOKAHEAD_S * 1e9)
_STILL = {False: 0.001, True: 0.1}
"""Commanded velocities below this count as standing still: of a joint (rad/s), of a gripper (percent/s)."""
_POLICY_CONDITIONS = (POLICY_FAULTS - {"joint_state_stale"}) | {"policy_lost", "policy_silent"}
"""Irrelevant once the run is ending: parking follows no policy. It does need the motors' answers."""
_BUS_LOST = frozenset({"bus_lost", "bus_write_failed"})
"""After these, as after a long silence, nobody knows what the motors do, or whether they kept their
settings."""
_STOP_INPUT = frozenset({"stop_input", "stop_input_lost"})
_CATEGORIES: dict[str, StopCategory] = {"stop_0": 0, "stop_1": 1, "stop_2": 2}


class ControlCore:
    """Holds the configuration and the smoother's scratch memory; all state is in `CoreState`."""

    def __init__(self, config: CoreConfig) -> None:
        self.config = config
        self.tools = chain.Tools.of(config)
        self.smoother = self.tools.smoother
        self.strategy = STRATEGIES[config.strategy]
        self._still = tuple(_STILL[gripper] * config.dt_ns * 1e-9 for gripper in config.gripper)

    def energised(self, state: CoreState, joint: JointState, now_ns: int) -> CoreState:
        """The state after torque was switched on at the measured position: holding there."""
        return replace(
            state,
            phase=Phase.HOLD,
            motion=Motion.at_rest(joint.position),
            joint=joint,
            slots=SlotAccount(),
            still_since_ns=now_ns,
            supervisor_heard_ns=now_ns,
            policy_heard_ns=now_ns,
        )

    def step(
        self, state: CoreState, now_ns: int, joint: JointState | None, inbox: Inbox
    ) -> tuple[CoreState, Output]:
        """One tick. `joint` is a sample taken since the last tick, or None where the bus had no answer.

        A `now_ns` before that of the last tick counts as that: time never runs backwards.
        """
        notes: list[Note] = []
        now_ns = max(now_ns, state.now_ns)
        released = state.phase == Phase.RELEASED
        state = self._heard(state, now_ns, joint, inbox)
        if state.motion is None:
            return self._without_torque(state, inbox)
        state = take_requests(state, self.config, now_ns, inbox, notes)
        for condition in (*inbox.conditions, *watch(state, self.config, now_ns, joint)):
            state = self._react(state, now_ns, condition, notes)
        state = self._hold_ended(state, now_ns, notes)
        state, new_chunk_id = self._take_chunk(state, now_ns, inbox, notes)
        state, target = self._move(state, now_ns, notes)
        state, finish, condition = settle(state, self.config, now_ns, notes)
        if condition is not None:
            state = self._react(state, now_ns, condition, notes)
        used = new_chunk_id if state.phase == Phase.RUN else 0
        asked = target.position if target is not None else None
        release = state.phase == Phase.RELEASED and not released
        return state, Output(self._setpoint(state), tuple(notes), finish, used, release, asked)

    @staticmethod
    def _setpoint(state: CoreState) -> tuple[float, ...] | None:
        """What to write. Nothing to released motors; and nothing to motors that were silent, once at rest:
        they may come back from a loss of power anywhere, and must not be sent to where the arm was."""
        if state.motion is None or state.phase == Phase.RELEASED:
            return None
        if state.silent and at_rest(state.motion):
            return None
        return state.motion.position

    def _heard(self, state: CoreState, now_ns: int, joint: JointState | None, inbox: Inbox) -> CoreState:
        counters = state.counters
        if inbox.superseded:
            counters = replace(counters, superseded_chunks=counters.superseded_chunks + inbox.superseded)
        none = (0,) * len(self.config.joint_names)
        overload, stalled = state.overload_since_ns or none, state.stalled_since_ns or none
        current, gripping = state.overcurrent_since_ns or none, state.gripping_since_ns or none
        if joint is not None:
            overload = chain.overloaded_since(joint, overload, self.config, now_ns)
            stalled = chain.stalled_since(joint, state.clamped, stalled, self.config, now_ns)
            current = chain.overcurrent_since(joint, current, self.config, now_ns)
            gripping = chain.gripping_since(joint, gripping, self.config, now_ns)
        return replace(
            state,
            now_ns=now_ns,
            joint=joint or state.joint,
            overload_since_ns=overload,
            stalled_since_ns=stalled,
            overcurrent_since_ns=current,
            gripping_since_ns=gripping,
            policy_heard_ns=now_ns if inbox.heard_policy or inbox.chunk else state.policy_heard_ns,
            supervisor_heard_ns=now_ns if inbox.heard_supervisor else state.supervisor_heard_ns,
            slots=state.slots.add(now_ns, inbox.slots_run, inbox.slots_late, inbox.slots_overrun),
            starvation=state.starvation.at(now_ns, state.starved and state.phase == Phase.RUN),
            counters=counters,
            stop_input_ns=now_ns if _stop_input(inbox) else state.stop_input_ns,
        )

    def _without_torque(self, state: CoreState, inbox: Inbox) -> tuple[CoreState, Output]:
        """Before arming: nothing to command. Any stop condition or a request to quit ends the run."""
        bad = next((c for c in inbox.conditions if stops(c.code, self.config.reactions)), None)
        if bad is not None:
            return state, Output(None, (Note("refused", f"{bad.code}: {bad.text}"),), "release")
        return state, Output(None, (), "release" if inbox.quit else None)

    def _react(self, state: CoreState, now_ns: int, condition: Condition, notes: list[Note]) -> CoreState:
        """Carries out the table's reaction. The first stop is the one on record."""
        reaction = reaction_to(condition.code, self.config.reactions)
        if reaction == "hold" and state.phase == Phase.RUN:
            return self._hold(state, now_ns, condition, notes)
        if reaction in ("count", "hold"):
            notes.append(Note(condition.code, condition.text))
            return state
        if condition.code in ("supervisor_lost", "supervisor_silent"):
            # Nobody is left to ask for the end: brake, then leave the arm as its robot file says.
            state = replace(state, quitting="here")
        age = now_ns - (state.joint.stamp_ns if state.joint else 0)
        if condition.code in _BUS_LOST or age > self.config.joint_state_max_age_ns:
            state = replace(state, silent=True, goal=None if state.phase == Phase.STOPPED else state.goal)
        if state.quitting is not None and condition.code in _POLICY_CONDITIONS:
            return state
        # The torque is only cut where the robot file says that the arm may go limp.
        category: StopCategory = max(
            _CATEGORIES.get(reaction, self.config.stop_category), self.config.stop_category
        )
        if state.latched:
            if condition.code not in state.seen:
                notes.append(Note("also", f"{condition.code}: {condition.text}"))
            state = replace(state, seen=state.seen | {condition.code})
            return self._escalate(state, category, notes)
        notes.append(Note("stop", f"{condition.code}: {condition.text}", float(category)))
        record = StopRecord(condition.code, condition.text, now_ns, latched=True, category=category)
        seen = frozenset({condition.code})
        state = replace(state, phase=Phase.STOPPING, stop=record, execution=None, goal=None, seen=seen)
        return self._let_go(state, notes) if category == 0 else state

    def _escalate(self, state: CoreState, category: StopCategory, notes: list[Note]) -> CoreState:
        """What goes wrong during a stop may ask for a lower category; never for a higher one."""
        stop = state.stop
        if stop is None or category >= stop.category or state.phase == Phase.RELEASED:
            return state
        record = StopRecord(stop.code, stop.text, stop.at_ns, stop.latched, category)
        # Its easing may be under way: category 1 brakes that, too.
        state = replace(state, phase=Phase.STOPPING, goal=None, stop=record)
        return self._let_go(state, notes) if category == 0 else state

    @staticmethod
    def _let_go(state: CoreState, notes: list[Note]) -> CoreState:
        """No braking any more; the arm may fall, and what was commanded means nothing."""
        assert state.motion is not None
        notes.append(Note("stopped", "the torque is cut at once"))
        motion = Motion.at_rest(state.joint.position if state.joint else state.motion.position)
        return replace(state, phase=Phase.RELEASED, motion=motion, goal_event="")

    def _hold(self, state: CoreState, now_ns: int, condition: Condition, notes: list[Note]) -> CoreState:
        """Not latched: no chunk is followed until the condition has gone. Where chunks ran out, the arm
        decelerates for want of a target, and the next chunk is welcome at once."""
        if condition.code == "starved":
            notes.append(Note(condition.code, condition.text))
            return state
        held_by = state.held_by
        if condition.code not in held_by:
            notes.append(Note(condition.code, f"{condition.text}; the arm holds"))
            held_by = (*held_by, condition.code)
        # Chunks may well come meanwhile: holding is no starvation.
        until_ns = now_ns + HOLD_NS
        return replace(state, execution=None, starved=False, held_by=held_by, held_until_ns=until_ns)

    @staticmethod
    def _hold_ended(state: CoreState, now_ns: int, notes: list[Note]) -> CoreState:
        if not state.held_by or (state.phase == Phase.RUN and now_ns < state.held_until_ns):
            return state
        if state.phase == Phase.RUN:
            notes.append(Note("resumed", f"not noticed any more: {', '.join(state.held_by)}"))
        return replace(state, held_by=(), held_until_ns=0)

    def _take_chunk(
        self, state: CoreState, now_ns: int, inbox: Inbox, notes: list[Note]
    ) -> tuple[CoreState, int]:
        chunk = inbox.chunk
        if chunk is None or state.phase != Phase.RUN:
            return state, 0
        violation = chain.check_chunk(chunk, self.config, now_ns, state.chunk_age_limit_ns)
        if violation is None or violation.code != "chunk_bad":
            # Whatever is wrong with the policy is a stop, also in a chunk that would not be used.
            if chunk.task_id != state.task_id:
                count = state.counters.other_task_chunks + 1
                return replace(state, counters=replace(state.counters, other_task_chunks=count)), 0
            if self._too_soon(state, chunk):
                return _superseded(state), 0
            violation = chain.check_order(chunk, state.last_chunk_id, state.execution) or violation
            if violation is None and not state.followed:
                violation = self._check_first(state, chunk, now_ns)
        if violation is not None:
            counters = replace(state.counters, rejected_chunks=state.counters.rejected_chunks + 1)
            notes.append(Note("chunk_rejected", violation.text))
            condition = Condition(violation.code, violation.text)
            return self._react(replace(state, counters=counters), now_ns, condition, notes), 0
        path = self._path(state, chunk, now_ns)
        if state.held_by or path.end_ns < now_ns:
            return replace(_superseded(state), last_chunk_id=chunk.chunk_id), 0
        if state.starved:
            notes.append(Note("resumed", f"chunk {chunk.chunk_id}"))
        assert state.motion is not None
        return replace(
            state,
            execution=self.strategy.begin(state.execution, path, now_ns, _LOOKAHEAD_NS, state.motion),
            last_chunk_id=chunk.chunk_id,
            followed=True,
            starved=False,
            counters=replace(state.counters, chunks=state.counters.chunks + 1),
        ), chunk.chunk_id

    def _path(self, state: CoreState, chunk: Chunk, now_ns: int) -> Path:
        # A sequential chunk begins when it comes, since nothing has happened to its observation meanwhile.
        still_since_ns = state.still_since_ns if self.strategy.asynchronous else chunk.observation_ns
        return path_of(chunk, now_ns, still_since_ns)

    def _check_first(self, state: CoreState, chunk: Chunk, now_ns: int) -> chain.Violation | None:
        """A policy that begins far from the arm means another arm, other units or another moment."""
        assert state.motion is not None
        begins = position_at(self._path(state, chunk, now_ns), now_ns)
        return chain.check_first(begins, state.motion.position, self.config)

    def _too_soon(self, state: CoreState, chunk: Chunk) -> bool:
        """Whether a sequential policy has not seen what became of the chunk before."""
        before = state.execution
        return not self.strategy.asynchronous and before is not None and chunk.observation_ns < before.end_ns

    def _target(self, state: CoreState, now_ns: int) -> tuple[CoreState, Target | None]:
        """What is asked for in this tick, before any limit; None for nothing."""
        if state.phase in (Phase.RETURN, Phase.STOPPED) and state.goal is not None:
            return state, Target(state.goal, (0.0,) * len(state.goal))
        execution = state.execution
        ended = execution is None or (self.strategy.asynchronous and now_ns > execution.end_ns)
        if state.phase != Phase.RUN or execution is None or ended:
            return (replace(state, ema=None) if state.ema is not None else state), None
        target = self.strategy.target(execution, now_ns, _LOOKAHEAD_NS)
        if self.config.ema_s == 0:
            return state, target
        assert state.motion is not None
        before = state.ema or Target(state.motion.position, state.motion.velocity)
        share = -math.expm1(-self.config.dt_ns * 1e-9 / self.config.ema_s)
        target = Target(
            tuple([a + (b - a) * share for a, b in zip(before.position, target.position, strict=True)]),
            tuple([a + (b - a) * share for a, b in zip(before.velocity, target.velocity, strict=True)]),
        )
        return replace(state, ema=target), target

    def _move(self, state: CoreState, now_ns: int, notes: list[Note]) -> tuple[CoreState, Target | None]:
        """Target, clamps, smoother and checks; or one tick of braking. Also says what was asked for."""
        assert state.motion is not None
        before = state.motion
        state, target = self._target(state, now_ns)
        asked = target
        if target is None and state.execution is not None and not state.starved:
            # A condition of the table, found by `watch` in the next tick.
            state = replace(state, starved=True)
        after: Motion | None = None
        if target is not None and state.joint is not None:
            if state.phase != Phase.STOPPED:
                clamped = chain.clamp_target(target, state.joint.position, self.config)
                state = self._count_clamps(state, clamped.reasons, notes)
                target = clamped.target
            try:
                # A pose is approached by all joints together, as soon as the slowest can; so is the end of a
                # sequential chunk: the policy waits for the arm to stand. A path is followed with a constant
                # lookahead.
                on_path = state.execution is not None and now_ns <= state.execution.end_ns
                duration_s = LOOKAHEAD_S if state.phase == Phase.RUN and on_path else 0.0
                after = self.smoother.toward(before, target.position, target.velocity, duration_s)
                violation = chain.check_setpoint(before, after, self.config, self.tools)
                refused = Condition(violation.code, violation.text) if violation else None
            except SmootherError as error:
                refused = Condition("no_trajectory", str(error))
            if refused is not None:
                state = self._react(state, now_ns, refused, notes)
                after = None
        else:
            state = replace(state, clamped=())
        if after is None:
            after = self._brake(before)
        steps = zip(after.position, before.position, self._still, strict=True)
        moved = any(abs(a - b) > still for a, b, still in steps)
        since = 0 if moved else state.still_since_ns or now_ns
        return replace(state, motion=after, still_since_ns=since), asked

    def _brake(self, before: Motion) -> Motion:
        if at_rest(before):
            return Motion.at_rest(before.position)
        try:
            return self.smoother.brake(before)
        except SmootherError:
            # Cannot happen from an accepted state; holding the last setpoint is the one safe answer left.
            return Motion.at_rest(before.position)

    @staticmethod
    def _count_clamps(state: CoreState, reasons: tuple[tuple[str, str], ...], notes: list[Note]) -> CoreState:
        if not reasons and not state.clamped:
            return state
        if reasons:
            for joint, reason in reasons:
                if (joint, reason) not in state.clamped:
                    notes.append(Note("clamped", f"{joint}: {reason}"))
            state = replace(state, counters=replace(state.counters, clamped=state.counters.clamped + 1))
        return replace(state, clamped=reasons)


def _stop_input(inbox: Inbox) -> bool:
    """Whether a stop input is pressed or missing."""
    return bool(inbox.conditions) and any(c.code in _STOP_INPUT for c in inbox.conditions)


def _superseded(state: CoreState) -> CoreState:
    """The state after a chunk that is of no use any more."""
    count = state.counters.superseded_chunks + 1
    return replace(state, counters=replace(state.counters, superseded_chunks=count))
