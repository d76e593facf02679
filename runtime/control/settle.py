"""What follows once the commanded motion is at rest: a pose reached, a stop completed, the end. Pure."""

from __future__ import annotations

from ..messages import Phase
from .config import CoreConfig
from .deadlines import ARRIVAL_NS, EASE_WAIT_NS, SETTLED_NS
from .quick import replace
from .requests import begin_return
from .smoother import Motion
from .state import Condition, CoreState, Finish, Note

_REST = 1e-6
"""Velocities and accelerations below this count as rest."""
_AT_GOAL = 1e-3
_ARRIVED = 0.5
"""A joint has arrived when it is nearer to its goal than this share of `lead`: a servo droops."""
_STANDS = 0.05
"""Share of its velocity limit below which a joint stands."""
_DROOP = 0.25
"""Share of `lead` that stays between command and arm after easing: what holding it up may need."""


def at_rest(motion: Motion) -> bool:
    """Whether a commanded motion has come to rest."""
    return all(abs(v) < _REST for v in (*motion.velocity, *motion.acceleration))


def settle(
    state: CoreState, config: CoreConfig, now_ns: int, notes: list[Note]
) -> tuple[CoreState, Finish | None, Condition | None]:
    """The next state; how the run ends, if it does; a condition."""
    assert state.motion is not None
    if not at_rest(state.motion):
        if state.at_goal_ns or state.settled_ns:
            state = replace(state, at_goal_ns=0, settled_ns=0)
        return state, None, None
    if state.phase == Phase.RETURN:
        state, there = _arrival(state, config, now_ns)
        if state.at_goal_ns and not there and now_ns - state.at_goal_ns > ARRIVAL_NS:
            return state, None, Condition("not_reached", _distance(state, config))
        if there:
            notes.append(Note(state.goal_event, "the pose is reached"))
            parked = state.goal_event == "parked"
            state = replace(state, phase=Phase.HOLD, goal=None, goal_event="")
            if parked:
                return state, "release", None
    if state.phase == Phase.STOPPING:
        if state.latched:
            return _stopped(state, config, now_ns, notes)
        notes.append(Note("holding", state.stop.text if state.stop else "stopped"))
        state = replace(state, phase=Phase.HOLD, stop=None)
    if state.phase == Phase.STOPPED:
        was_done = state.stop_complete
        state = _ease(state, config, now_ns)
        if not state.stop_complete:
            return state, None, None
        if not was_done and state.latched:
            notes.append(_at_rest(state))
        return state, _end_after_fault(state, config) if state.latched else "hold", None
    if state.quitting is None:
        return state, None, None
    if state.latched:
        return state, _end_after_fault(state, config), None
    if state.phase != Phase.HOLD:
        return state, None, None
    state, finish = _leave(state, config, notes)
    if finish == "hold":
        # An arm that is left holding must not be left pressing either.
        return replace(state, phase=Phase.STOPPED, goal=None, eased=False, rest_ns=now_ns), None, None
    return state, finish, None


def _stopped(
    state: CoreState, config: CoreConfig, now_ns: int, notes: list[Note]
) -> tuple[CoreState, Finish | None, Condition | None]:
    assert state.stop is not None
    if state.stop.category == 1:
        notes.append(_at_rest(state))
        state = replace(state, phase=Phase.RELEASED)
        return state, _end_after_fault(state, config), None
    state = replace(state, phase=Phase.STOPPED, goal=None, goal_event="", eased=False, rest_ns=now_ns)
    return state, None, None


def _at_rest(state: CoreState) -> Note:
    return Note("stopped", f"at rest; {state.stop.code if state.stop else ''}")


def _ease(state: CoreState, config: CoreConfig, now_ns: int) -> CoreState:
    """Once the arm stands after a stop, takes the command to where no joint presses more than it may need
    to hold itself up: somebody may have stopped the arm because it pressed on them. A gripper keeps its grip.
    """
    assert state.motion is not None
    if state.silent or state.joint is None:
        return replace(state, eased=True, goal=None)
    if state.eased:
        # At rest with a goal: it has been reached.
        return replace(state, goal=None)
    stands = all(
        gripper or abs(velocity) <= _STANDS * limit
        for gripper, velocity, limit in zip(
            config.gripper, state.joint.velocity, config.kinematic.velocity, strict=True
        )
    )
    if not stands and now_ns - state.rest_ns < EASE_WAIT_NS:
        return state
    goal = tuple(
        commanded
        if config.gripper[i]
        else _toward(
            commanded, state.joint.position[i], _DROOP * config.lead[i], config.low[i], config.high[i]
        )
        for i, commanded in enumerate(state.motion.position)
    )
    return replace(state, eased=True, goal=None if goal == state.motion.position else goal)


def _toward(commanded: float, measured: float, droop: float, low: float, high: float) -> float:
    """`commanded`, or the nearest value that is at most `droop` from `measured`, never further outside the
    limits than it was."""
    near = max(measured - droop, min(measured + droop, commanded))
    return max(min(low, commanded), min(max(high, commanded), near))


def _arrival(state: CoreState, config: CoreConfig, now_ns: int) -> tuple[CoreState, bool]:
    """Whether the arm itself stands at the goal, for a while, not only the command: as seen once the command
    was there, since a sample from before says nothing of motors that have fallen silent."""
    assert state.motion is not None
    if state.goal is None or state.joint is None:
        return state, False
    commanded = all(abs(p - g) < _AT_GOAL for p, g in zip(state.motion.position, state.goal, strict=True))
    if not commanded:
        return replace(state, at_goal_ns=0, settled_ns=0), False
    at_goal_ns = state.at_goal_ns or now_ns
    stands = state.joint.stamp_ns >= at_goal_ns and all(
        config.gripper[i]
        or (
            abs(state.joint.position[i] - state.goal[i]) <= _ARRIVED * config.lead[i]
            and abs(state.joint.velocity[i]) <= _STANDS * config.kinematic.velocity[i]
        )
        for i in range(len(state.goal))
    )
    settled = (state.settled_ns or now_ns) if stands else 0
    state = replace(state, at_goal_ns=at_goal_ns, settled_ns=settled)
    return state, bool(settled) and now_ns - settled >= SETTLED_NS


def _distance(state: CoreState, config: CoreConfig) -> str:
    assert state.joint is not None
    assert state.goal is not None
    far = [
        f"{name} at {p:.3f} of {g:.3f}"
        for name, p, g, lead, gripper in zip(
            config.joint_names, state.joint.position, state.goal, config.lead, config.gripper, strict=True
        )
        if not gripper and abs(p - g) > _ARRIVED * lead
    ]
    return ", ".join(far) or "the arm does not come to rest"


def _leave(state: CoreState, config: CoreConfig, notes: list[Note]) -> tuple[CoreState, Finish | None]:
    """A normal end: park and release, release here, or stay energised, as the robot file says."""
    if config.at_exit == "hold_energised":
        return state, "hold"
    if state.quitting == "here":
        return state, "release" if config.after_fault == "release_here" else "hold"
    if config.at_exit == "release_here":
        return state, "release"
    notes.append(Note("parking", "moving to the park pose"))
    return begin_return(state, config, config.park_pose, "parked"), None


def _end_after_fault(state: CoreState, config: CoreConfig) -> Finish | None:
    if state.quitting is None:
        return None
    return "release" if config.after_fault == "release_here" else "hold"
