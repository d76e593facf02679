"""What must hold in every tick of the core, whatever came before: each a function that yields objections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.settle import at_rest
from holdfast.runtime.control.smoother import KinematicLimits, Motion, Smoother
from holdfast.runtime.control.state import CoreState
from holdfast.runtime.messages import Phase

from .stop_events import AT_ONCE, STRAIN_NS, STRAINS
from .stop_model import MOVING, OF_THE_POLICY, SILENCE, Step
from .world import MS

STOPS = (Phase.STOPPING, Phase.STOPPED, Phase.RELEASED)
_EXACT = 1e-9
_NEAR = 1e-6


def on_a_latched_stop_nothing_is_followed(core: ControlCore, step: Step) -> Iterator[str]:
    """Latched means stopping, stopped or released."""
    after = step.after.state
    if after.latched and after.phase not in STOPS:
        yield f"latched in {after.phase.name}"


def every_stop_row_stops_in_the_same_tick(core: ControlCore, step: Step) -> Iterator[str]:
    before, after = step.before.state, step.after.state
    if after.motion is None or before.phase == Phase.RELEASED:
        return
    codes = step.event.stop_codes
    if step.event.sample in AT_ONCE:
        codes.append(AT_ONCE[step.event.sample])
    for code in codes:
        if after.quitting is not None and code in OF_THE_POLICY:
            if not before.latched and after.stop is not None and after.stop.code == code:
                yield f"{code} stops an arm that is to be parked"
            continue
        if not after.latched or after.phase not in STOPS:
            yield f"{code} does not stop"


def a_strain_that_lasts_stops(core: ControlCore, step: Step) -> Iterator[str]:
    """Load, current, the force of a gripper: for longer than allowed."""
    before, after, strain = step.before.state, step.after.state, step.after.strain
    if after.motion is None or before.phase == Phase.RELEASED or step.event.sample not in STRAINS:
        return
    assert strain is not None
    # Noticed before torque it counts as well; a reset begins anew.
    if step.after.now_ns - strain[1] > STRAIN_NS and not (after.latched and after.phase in STOPS):
        yield f"{STRAINS[step.event.sample]} for too long does not stop"


def who_falls_silent_stops_the_arm(core: ControlCore, step: Step) -> Iterator[str]:
    """The supervisor at any time, and then the run ends; the policy while its chunks are followed. Each by
    itself: hearing the other one does not help."""
    before, after, now_ns = step.before.state, step.after.state, step.after.now_ns
    if after.motion is None or before.phase == Phase.RELEASED:
        return
    if now_ns - step.after.supervisor_ns > 1_000 * MS:
        if not after.latched or after.phase not in STOPS:
            yield "the supervisor is silent and nothing stops"
        if after.quitting != "here":
            yield "the supervisor is silent and the run goes on"
    if after.phase == Phase.RUN and now_ns - step.after.policy_ns > SILENCE:
        yield "the policy is silent and its chunks are followed"


def a_bad_chunk_stops_where_chunks_are_followed(core: ControlCore, step: Step) -> Iterator[str]:
    # In the tick in which it begins to follow, too.
    if step.event.rows in ("nan", "stale", "again") and step.after.state.phase == Phase.RUN:
        # An old chunk is judged by its age only where there is none before it to be older than.
        yield f"a chunk ({step.event.rows}) was received in RUN and nothing stopped"


def a_latch_opens_only_by_a_reset_at_rest(core: ControlCore, step: Step) -> Iterator[str]:
    before, after, inbox = step.before.state, step.after.state, step.event.inbox
    if not before.latched or _same_stop(before, after):
        return
    if not inbox.reset:
        yield "the latch opened without a reset"
    elif before.phase != Phase.STOPPED or not before.stop_complete:
        yield "a reset was accepted before the arm had come to rest"
    elif before.silent:
        yield "a reset was accepted although the motors were silent"


def _same_stop(before: CoreState, after: CoreState) -> bool:
    """Its category may have become a lower one."""
    if before.stop is None or after.stop is None:
        return False
    return after.latched and (after.stop.code, after.stop.at_ns) == (before.stop.code, before.stop.at_ns)


def a_reset_is_refused_while_the_fault_stands(core: ControlCore, step: Step) -> Iterator[str]:
    before, after = step.before.state, step.after.state
    if before.latched and not after.latched:
        joint = after.joint
        if joint is None or any(joint.faults):
            yield "a reset was accepted while a motor reports a fault"
        elif step.event.sample in ("hot", "sagging"):
            yield f"a reset was accepted in a tick whose sample is {step.event.sample}"
        elif after.now_ns - joint.stamp_ns > core.config.joint_state_max_age_ns:
            yield "a reset was accepted without a fresh sample"
        elif after.now_ns - step.after.pressed_ns < 200 * MS:
            yield "a reset was accepted while a stop input was pressed, or just released"


def motion_begins_only_where_it_was_asked_for(core: ControlCore, step: Step) -> Iterator[str]:
    """RUN by an `Arm` to follow; RETURN by an `Arm` to return, or by a normal end to the park pose. After a
    stop only in a later tick than the reset, which the claims on the latch demand."""
    before, after, inbox = step.before.state, step.after.state, step.event.inbox
    if before.phase == after.phase:
        return
    asked = inbox.arm
    if after.phase == Phase.RUN and (asked is None or not asked.follow):
        yield "RUN without an Arm"
    if after.phase == Phase.RETURN:
        to_start = asked is not None and asked.return_to_start
        if after.goal_event == "at_start" and not to_start:
            yield "a move to the start pose that nobody asked for"
        if after.goal_event == "parked" and after.quitting != "park":
            yield "a move to the park pose that nobody asked for"
    if after.phase in MOVING and (before.latched or before.phase in (Phase.STOPPED, Phase.RELEASED)):
        yield "from a stop into motion: a reset, and what comes with it, moves nothing"


def the_end_is_final(core: ControlCore, step: Step) -> Iterator[str]:
    before, after = step.before.state, step.after.state
    if before.quitting is None:
        return
    if after.phase == Phase.RUN:
        yield "an ending run follows chunks"
    if after.quitting is None or (before.quitting == "here" and after.quitting != "here"):
        yield f"the wish to end became {after.quitting}"
    if after.phase == Phase.RETURN and (after.goal_event != "parked" or after.quitting != "park"):
        yield "an ending run moves elsewhere than to its park pose"


def released_is_for_good(core: ControlCore, step: Step) -> Iterator[str]:
    before, after, output = step.before.state, step.after.state, step.output
    cut = after.stop is not None and after.stop.category == 0
    if cut and after.phase != Phase.RELEASED:
        yield f"a stop of category 0 in {after.phase.name}"
    if before.phase == Phase.RELEASED and (after.phase != Phase.RELEASED or not after.latched):
        yield f"released motors came to {after.phase.name}"
    if after.phase == Phase.RELEASED and output.setpoint is not None:
        yield "a setpoint for released motors"
    if output.release != (after.phase == Phase.RELEASED and before.phase != Phase.RELEASED):
        yield "torque is not switched off exactly when the phase says so"


def before_torque_and_after_silence_nothing_is_commanded(core: ControlCore, step: Step) -> Iterator[str]:
    after = step.after.state
    if after.motion is None:
        if step.output.setpoint is not None:
            yield "a setpoint before torque"
    elif after.silent and at_rest(after.motion) and step.output.setpoint is not None:
        yield "a setpoint for motors that were silent"


def a_stop_brakes_and_then_only_eases(core: ControlCore, step: Step) -> Iterator[str]:
    """While a stop is latched the command brakes; at rest it may be taken once towards where the arm is."""
    before, after = step.before.state, step.after.state
    if not after.latched or before.motion is None or after.motion is None or step.event.inbox.reset:
        return
    if after.phase == Phase.RELEASED and after.stop is not None and after.stop.category == 0:
        return  # nothing is commanded any more
    if before.phase != Phase.STOPPED or after.silent or before.goal is None:
        braked = _braked(core, before.motion)
        if _distance(braked.position, after.motion.position) > _NEAR:
            yield f"{before.phase.name}: commanded {after.motion.position}, braking leads to {braked}"
    if before.phase != Phase.STOPPED or after.silent:
        return
    yield from _easing(core, before, after)


def _easing(core: ControlCore, before: CoreState, after: CoreState) -> Iterator[str]:
    assert before.motion is not None
    assert after.motion is not None
    assert after.joint is not None
    for i, (old, new) in enumerate(zip(before.motion.position, after.motion.position, strict=True)):
        if core.config.gripper[i] and abs(new - old) > _EXACT:
            yield "a gripper changed its grip while stopped"
        if abs(new - old) <= _EXACT:
            continue
        if before.goal is not None and abs(new - before.goal[i]) > abs(old - before.goal[i]) + _NEAR:
            yield "a stopped arm moved away from where it is eased to"
    if after.goal is None:
        return
    if before.goal is not None:
        if after.goal != before.goal:
            yield "where a stopped arm is eased to changed"
        return
    if before.eased:
        yield "a stopped arm was eased twice"
    for old, goal, measured in zip(after.motion.position, after.goal, after.joint.position, strict=True):
        if (goal - old) * (measured - old) < 0 or abs(goal - old) > abs(measured - old):
            yield f"eased from {old} to {goal}, the arm is at {measured}"


def a_reset_never_moves_the_arm(core: ControlCore, step: Step) -> Iterator[str]:
    """What is commanded stays, or, where the arm was pushed away, becomes where it is."""
    before, after = step.before.state, step.after.state
    accepted = any(n.code == "reset" and not n.text.startswith("refused") for n in step.output.notes)
    if not accepted or after.phase in MOVING:
        return
    if not before.latched or before.motion is None:
        yield "a reset was accepted of what is not latched"
        return
    assert after.motion is not None
    assert after.joint is not None
    for i, (old, new) in enumerate(zip(before.motion.position, after.motion.position, strict=True)):
        measured = after.joint.position[i]
        pushed_away = abs(measured - old) > core.config.lead[i]
        if abs(new - old) > _EXACT and not (pushed_away and abs(new - measured) < _EXACT):
            yield f"a reset took joint {i} from {old} to {new}, the arm is at {measured}"


def holding_holds(core: ControlCore, step: Step) -> Iterator[str]:
    before, after = step.before.state, step.after.state
    if before.phase != Phase.HOLD or after.phase != Phase.HOLD:
        return
    assert before.motion is not None
    assert after.motion is not None
    if before.motion.position != after.motion.position:
        yield "the arm was moved while it should hold"


def every_setpoint_is_within_limits(core: ControlCore, step: Step) -> Iterator[str]:
    settings, before, setpoint = core.config, step.before.state, step.output.setpoint
    if setpoint is None:
        return
    dt_s = settings.dt_ns * 1e-9
    for i, value in enumerate(setpoint):
        old = before.motion.position[i] if before.motion is not None else value
        low, high = min(settings.low[i], old), max(settings.high[i], old)
        if not (math.isfinite(value) and low - 1e-4 <= value <= high + 1e-4) and not step.event.inbox.reset:
            yield f"setpoint {value} of joint {i}"
        jump = abs(value - old) > settings.kinematic.velocity[i] * dt_s * 1.001
        if jump and not step.event.inbox.reset:
            yield f"joint {i} jumps from {old} to {value}"


def a_run_ends_at_rest_and_as_the_robot_file_says(core: ControlCore, step: Step) -> Iterator[str]:
    after, finish = step.after.state, step.output.finish
    if finish is None or after.motion is None:
        return
    if after.quitting is None:
        yield "the run ended although nobody asked for it"
    if not at_rest(after.motion):
        yield "the run ended in motion"
    if after.latched and finish == "release" and core.config.after_fault != "release_here":
        yield "an arm was released after a fault"


CLAIMS: tuple[Callable[[ControlCore, Step], Iterator[str]], ...] = (
    on_a_latched_stop_nothing_is_followed,
    every_stop_row_stops_in_the_same_tick,
    a_strain_that_lasts_stops,
    who_falls_silent_stops_the_arm,
    a_bad_chunk_stops_where_chunks_are_followed,
    a_latch_opens_only_by_a_reset_at_rest,
    a_reset_is_refused_while_the_fault_stands,
    motion_begins_only_where_it_was_asked_for,
    the_end_is_final,
    released_is_for_good,
    before_torque_and_after_silence_nothing_is_commanded,
    a_stop_brakes_and_then_only_eases,
    a_reset_never_moves_the_arm,
    holding_holds,
    every_setpoint_is_within_limits,
    a_run_ends_at_rest_and_as_the_robot_file_says,
)


def check(core: ControlCore, step: Step) -> Iterator[str]:
    for claim in CLAIMS:
        for objection in claim(core, step):
            yield f"{claim.__name__}: {objection}"


def _braked(core: ControlCore, motion: Motion) -> Motion:
    """One tick of braking, by a smoother of the model's own."""
    if at_rest(motion):
        return motion
    return _smoother(core.config.kinematic, core.config.dt_ns).brake(motion)


@cache
def _smoother(limits: KinematicLimits, dt_ns: int) -> Smoother:
    return Smoother(limits, dt_ns * 1e-9)


def _distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))
