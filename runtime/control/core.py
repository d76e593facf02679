"""The pure control core: `step(state, now, joint state, inbox) -> (state, output)`.

No I/O and no clock. The control process, the tests, the replay and the stepped-time benchmarks all run this
same function. The order of a tick is the order of `step`: what arrived, the health of the arm, the chunk,
the target and its clamps, the smoother, the checks. Whatever refuses, the answer is the stop trajectory,
which continues the commanded state of the tick before: a state from which braking had been accepted.
"""

from __future__ import annotations

from dataclasses import replace

from ...drivers.types import JointState
from ..messages import Phase
from . import chain, executor
from .config import CoreConfig
from .deadlines import SUPERVISOR_SILENCE_NS, SlotAccount, stops
from .smoother import LOOKAHEAD_S, Motion, Smoother, SmootherError
from .state import Condition, CoreState, Finish, Inbox, Note, Output, StopRecord

_REST = 1e-6
"""Velocities and accelerations below this count as rest."""
_LOOKAHEAD_NS = round(LOOKAHEAD_S * 1e9)
_STILL = 1e-5
"""Steps below this (0.001 rad/s at 100 Hz) count as standing still."""
_POLICY_CONDITIONS = frozenset(
    {
        "policy_lost",
        "policy_silent",
        "policy_error",
        "frame_age",
        "frozen_camera",
        "camera_lost",
        "non_finite",
    }
)
"""Irrelevant once the run is ending: parking follows no policy."""
_MOVING = (Phase.RETURN, Phase.RUN, Phase.STOPPING)


class ControlCore:
    """Holds the configuration and the smoother's scratch memory; all state is in `CoreState`."""

    def __init__(self, config: CoreConfig) -> None:
        self.config = config
        self.smoother = Smoother(config.kinematic, config.dt_ns * 1e-9)

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
        """One tick. `joint` is a sample taken since the last tick, or None where the bus had no answer."""
        notes: list[Note] = []
        state = self._heard(state, now_ns, joint, inbox)
        if state.motion is None:
            return self._without_torque(state, inbox)
        state = self._requests(state, now_ns, inbox, notes)
        for condition in (*inbox.conditions, *self._watch(state, now_ns, joint)):
            state = self._react(state, now_ns, condition, notes)
        state, new_chunk_id = self._take_chunk(state, now_ns, inbox, notes)
        state = self._move(state, now_ns, notes)
        state, finish, release = self._settle(state, now_ns, notes)
        setpoint = None if state.phase == Phase.RELEASED or state.motion is None else state.motion.position
        used = new_chunk_id if state.phase == Phase.RUN else 0
        return state, Output(setpoint, tuple(notes), finish, used, release)

    def _heard(self, state: CoreState, now_ns: int, joint: JointState | None, inbox: Inbox) -> CoreState:
        counters = state.counters
        if inbox.superseded:
            counters = replace(counters, superseded_chunks=counters.superseded_chunks + inbox.superseded)
        none = (0,) * len(self.config.joint_names)
        overload, stalled = state.overload_since_ns or none, state.stalled_since_ns or none
        if joint is not None:
            overload = chain.overloaded_since(joint, overload, self.config, now_ns)
            stalled = chain.stalled_since(joint, state.clamped, stalled, self.config, now_ns)
        return replace(
            state,
            joint=joint or state.joint,
            overload_since_ns=overload,
            stalled_since_ns=stalled,
            policy_heard_ns=now_ns if inbox.heard_policy or inbox.chunk else state.policy_heard_ns,
            supervisor_heard_ns=now_ns if inbox.heard_supervisor else state.supervisor_heard_ns,
            slots=state.slots.add(now_ns, inbox.slots_run, inbox.slots_missed),
            counters=counters,
        )

    def _without_torque(self, state: CoreState, inbox: Inbox) -> tuple[CoreState, Output]:
        """Before arming: nothing to command. Any stop condition or a request to quit ends the run."""
        bad = next((c for c in inbox.conditions if stops(c.code)), None)
        if bad is not None:
            return state, Output(None, (Note("refused", f"{bad.code}: {bad.text}"),), "release")
        return state, Output(None, (), "release" if inbox.quit else None)

    def _requests(self, state: CoreState, now_ns: int, inbox: Inbox, notes: list[Note]) -> CoreState:
        if inbox.reset:
            state = self._reset(state, now_ns, notes)
        if inbox.stop is not None and not state.latched and state.phase in _MOVING:
            notes.append(Note("stopping", inbox.stop.text))
            record = StopRecord(inbox.stop.code, inbox.stop.text, now_ns, latched=False)
            state = replace(state, phase=Phase.STOPPING, stop=record, execution=None)
        elif inbox.stop is not None and not state.latched:
            notes.append(Note("holding", inbox.stop.text))
        if inbox.quit is not None:
            # "here" overrides "park"; nothing turns a stop into a move.
            wanted = "here" if "here" in (inbox.quit, state.quitting) else "park"
            state = replace(state, quitting=wanted, execution=None)
            parking = state.phase == Phase.RETURN and state.goal_event == "parked"
            if state.phase in (Phase.RUN, Phase.RETURN) and not (parking and wanted == "park"):
                state = replace(state, phase=Phase.STOPPING)
        arm = inbox.arm
        if arm is not None and state.quitting is None and state.phase in (Phase.HOLD, Phase.RUN):
            state = replace(
                state,
                task_id=arm.task_id,
                chunk_age_limit_ns=arm.chunk_age_limit_ns,
                silence_limit_ns=arm.silence_limit_ns,
                policy_heard_ns=now_ns,
                execution=None,
                starved=False,
                stop=None,
            )
            if arm.return_to_start:
                state = replace(state, phase=Phase.RETURN, goal=self.config.start_pose, goal_event="at_start")
                notes.append(Note("arming", "moving to the start pose"))
            elif arm.follow:
                state = replace(state, phase=Phase.RUN)
                notes.append(Note("running", f"task {arm.task_id}"))
        return state

    def _reset(self, state: CoreState, now_ns: int, notes: list[Note]) -> CoreState:
        """A person's acknowledgement. It never moves the arm: where the arm is not where it was commanded
        to be, the commanded position becomes the measured one."""
        if state.phase != Phase.STOPPED or state.joint is None or state.motion is None:
            notes.append(Note("reset", "refused: nothing is latched, or the arm is still moving"))
            return state
        age = now_ns - state.joint.stamp_ns
        if age > self.config.joint_state_max_age_ns:
            notes.append(Note("reset", f"refused: the joint state is {age / 1e6:.0f} ms old"))
            return state
        health = chain.check_health(state.joint, self.config)
        if health is not None:
            notes.append(Note("reset", f"refused: {health.text}"))
            return state
        notes.append(Note("reset", "the latched stop was reset; the arm holds"))
        away = any(
            abs(p - c) > lead
            for p, c, lead in zip(state.joint.position, state.motion.position, self.config.lead, strict=True)
        )
        held = state.joint.position if away else state.motion.position
        return replace(
            state,
            phase=Phase.HOLD,
            motion=Motion.at_rest(held),
            stop=None,
            overload_since_ns=(0,) * len(self.config.joint_names),
            stalled_since_ns=(0,) * len(self.config.joint_names),
            clamped=(),
            policy_heard_ns=now_ns,
        )

    def _watch(self, state: CoreState, now_ns: int, joint: JointState | None) -> list[Condition]:
        """Ages, silence, missed slots and the arm's health, as conditions of the table."""
        found: list[Condition] = []
        config = self.config
        slots = state.slots
        if slots.in_a_row >= config.max_missed_in_a_row:
            found.append(Condition("missed_in_a_row", f"{slots.in_a_row} slots in a row"))
        if slots.window_fraction > config.max_missed_fraction:
            found.append(Condition("missed_fraction", f"{slots.window_fraction:.1%} of the slots"))
        age = now_ns - (state.joint.stamp_ns if state.joint else 0)
        if age > config.joint_state_max_age_ns:
            limit = config.joint_state_max_age_ns
            found.append(
                Condition(
                    "joint_state_stale",
                    f"the last complete joint state is {age / 1e6:.0f} ms old, allowed are {limit / 1e6:.0f}",
                )
            )
        silence = now_ns - state.supervisor_heard_ns
        if silence > SUPERVISOR_SILENCE_NS:
            found.append(Condition("supervisor_silent", f"for {silence / 1e6:.0f} ms"))
        silence = now_ns - state.policy_heard_ns
        if state.phase == Phase.RUN and silence > state.silence_limit_ns:
            found.append(
                Condition(
                    "policy_silent",
                    f"for {silence / 1e6:.0f} ms, allowed are {state.silence_limit_ns / 1e6:.0f} ms",
                )
            )
        if joint is not None and state.motion is not None:
            for violation in (
                chain.check_health(joint, config),
                chain.check_since("load", state.overload_since_ns, config, now_ns),
                chain.check_since("stalled", state.stalled_since_ns, config, now_ns),
                chain.check_following(joint, state.motion.position, config),
            ):
                if violation is not None:
                    found.append(Condition(violation.code, violation.text))
        return found

    def _react(self, state: CoreState, now_ns: int, condition: Condition, notes: list[Note]) -> CoreState:
        """Carries out the table's reaction. The first stop is the one on record."""
        if not stops(condition.code):
            notes.append(Note(condition.code, condition.text))
            return state
        if condition.code in ("supervisor_lost", "supervisor_silent"):
            # Nobody is left to ask for the end: brake, then leave the arm as its robot file says.
            state = replace(state, quitting="here")
        if state.latched or state.phase in (Phase.STOPPED, Phase.RELEASED):
            return state
        if state.quitting is not None and condition.code in _POLICY_CONDITIONS:
            return state
        notes.append(Note("stop", f"{condition.code}: {condition.text}"))
        record = StopRecord(condition.code, condition.text, now_ns, latched=True)
        return replace(state, phase=Phase.STOPPING, stop=record, execution=None)

    def _take_chunk(
        self, state: CoreState, now_ns: int, inbox: Inbox, notes: list[Note]
    ) -> tuple[CoreState, int]:
        chunk = inbox.chunk
        if chunk is None or state.phase != Phase.RUN:
            return state, 0
        if chunk.task_id != state.task_id:
            return state, 0
        violation = chain.check_chunk(chunk, self.config, now_ns, state.chunk_age_limit_ns)
        if violation is None and chunk.chunk_id <= state.last_chunk_id:
            violation = chain.Violation(
                "chunk_bad", f"chunk {chunk.chunk_id} came after chunk {state.last_chunk_id}"
            )
        if violation is not None:
            counters = replace(state.counters, rejected_chunks=state.counters.rejected_chunks + 1)
            notes.append(Note("chunk_rejected", violation.text))
            condition = Condition(violation.code, violation.text)
            return self._react(replace(state, counters=counters), now_ns, condition, notes), 0
        if state.starved:
            notes.append(Note("resumed", f"chunk {chunk.chunk_id}"))
        return replace(
            state,
            execution=executor.begin(chunk, now_ns, state.still_since_ns),
            last_chunk_id=chunk.chunk_id,
            starved=False,
            counters=replace(state.counters, chunks=state.counters.chunks + 1),
        ), chunk.chunk_id

    def _target(self, state: CoreState, now_ns: int) -> executor.Target | None:
        if state.phase == Phase.RETURN and state.goal is not None:
            return executor.Target(state.goal, (0.0,) * len(state.goal))
        if state.phase == Phase.RUN and state.execution is not None:
            return executor.target_at(state.execution, now_ns, _LOOKAHEAD_NS)
        return None

    def _move(self, state: CoreState, now_ns: int, notes: list[Note]) -> CoreState:
        """Target, clamps, smoother and checks; or one tick of braking."""
        assert state.motion is not None
        before = state.motion
        target = self._target(state, now_ns)
        if target is None and state.execution is not None and not state.starved:
            notes.append(Note("starved", f"chunk {state.execution.chunk_id} ran out"))
            counters = replace(state.counters, starved=state.counters.starved + 1)
            state = replace(state, starved=True, counters=counters)
        after: Motion | None = None
        if target is not None and state.joint is not None:
            clamped = chain.clamp_target(target, state.joint.position, self.config)
            state = self._count_clamps(state, clamped.reasons, notes)
            try:
                # A pose is approached in the shortest time, a path with a constant lookahead.
                duration_s = 0.0 if state.phase == Phase.RETURN else LOOKAHEAD_S
                wanted = clamped.target
                after = self.smoother.toward(before, wanted.position, wanted.velocity, duration_s)
                violation = chain.check_setpoint(before, after, self.config, self.smoother)
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
        moved = any(abs(a - b) > _STILL for a, b in zip(after.position, before.position, strict=True))
        since = 0 if moved else state.still_since_ns or now_ns
        return replace(state, motion=after, still_since_ns=since)

    def _brake(self, before: Motion) -> Motion:
        if self._at_rest(before):
            return Motion.at_rest(before.position)
        try:
            return self.smoother.brake(before)
        except SmootherError:
            # Cannot happen from an accepted state; holding the last setpoint is the one safe answer left.
            return Motion.at_rest(before.position)

    @staticmethod
    def _at_rest(motion: Motion) -> bool:
        return all(abs(v) < _REST for v in (*motion.velocity, *motion.acceleration))

    @staticmethod
    def _count_clamps(state: CoreState, reasons: tuple[tuple[str, str], ...], notes: list[Note]) -> CoreState:
        if reasons:
            for joint, reason in reasons:
                if (joint, reason) not in state.clamped:
                    notes.append(Note("clamped", f"{joint}: {reason}"))
            state = replace(state, counters=replace(state.counters, clamped=state.counters.clamped + 1))
        return replace(state, clamped=reasons)

    def _settle(
        self, state: CoreState, now_ns: int, notes: list[Note]
    ) -> tuple[CoreState, Finish | None, bool]:
        """What follows once the arm is at rest: a goal reached, a stop completed, the end of the run."""
        assert state.motion is not None
        if not self._at_rest(state.motion):
            return state, None, False
        if state.phase == Phase.RETURN and state.goal is not None and self._reached(state):
            notes.append(Note(state.goal_event, "the pose is reached"))
            state = replace(state, phase=Phase.HOLD, goal=None)
            if state.goal_event == "parked":
                return state, "release", False
        if state.phase == Phase.STOPPING:
            if state.latched:
                notes.append(Note("stopped", f"at rest; {state.stop.code if state.stop else ''}"))
                release = self.config.stop_category == 1
                state = replace(state, phase=Phase.RELEASED if release else Phase.STOPPED)
                return state, self._end_after_fault(state), release
            notes.append(Note("holding", state.stop.text if state.stop else "stopped"))
            state = replace(state, phase=Phase.HOLD, stop=None)
        if state.quitting is None:
            return state, None, False
        if state.latched:
            return state, self._end_after_fault(state), False
        if state.phase != Phase.HOLD:
            return state, None, False
        return self._leave(state, notes)

    def _leave(self, state: CoreState, notes: list[Note]) -> tuple[CoreState, Finish | None, bool]:
        """A normal end: park and release, release here, or stay energised, as the robot file says."""
        if self.config.at_exit == "hold_energised":
            return state, "hold", False
        if state.quitting == "here":
            return state, "release" if self.config.after_fault == "release_here" else "hold", False
        if self.config.at_exit == "release_here":
            return state, "release", False
        notes.append(Note("parking", "moving to the park pose"))
        goal = self.config.park_pose
        return replace(state, phase=Phase.RETURN, goal=goal, goal_event="parked"), None, False

    def _end_after_fault(self, state: CoreState) -> Finish | None:
        if state.quitting is None:
            return None
        return "release" if self.config.after_fault == "release_here" else "hold"

    @staticmethod
    def _reached(state: CoreState) -> bool:
        assert state.motion is not None
        assert state.goal is not None
        return all(abs(p - g) < 1e-3 for p, g in zip(state.motion.position, state.goal, strict=True))
