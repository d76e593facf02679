"""What time and the arm's own reports make of a state: conditions of the deadline table. Pure."""

from __future__ import annotations

from ...drivers.types import JointState
from ..messages import Phase
from . import chain
from .config import CoreConfig
from .deadlines import SUPERVISOR_SILENCE_NS, WINDOW_NS
from .state import Condition, CoreState


def watch(state: CoreState, config: CoreConfig, now_ns: int, joint: JointState | None) -> list[Condition]:
    """Missed slots, ages, silence, and what `joint` (a sample of this tick, if any) says about the arm."""
    found: list[Condition] = []
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
    found += _starvation(state, config, now_ns)
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
        n = len(config.joint_names)
        load_ns, current_ns = (config.load_ns,) * n, (config.current_ns,) * n
        grips = any(state.gripping_since_ns)
        grip_ns = [row[1] if row is not None else 0 for row in config.grip] if grips else load_ns
        for violation in (
            chain.check_health(joint, config),
            chain.check_since("load", state.overload_since_ns, load_ns, config, now_ns),
            chain.check_since("stalled", state.stalled_since_ns, load_ns, config, now_ns),
            chain.check_since("current", state.overcurrent_since_ns, current_ns, config, now_ns),
            chain.check_since("gripper_force", state.gripping_since_ns, grip_ns, config, now_ns),
            chain.check_following(joint, state.motion.position, config),
        ):
            if violation is not None:
                found.append(Condition(violation.code, violation.text))
    return found


def _starvation(state: CoreState, config: CoreConfig, now_ns: int) -> list[Condition]:
    """Noticed once per time that a chunk runs out."""
    account = state.starvation
    if account.since_ns != now_ns or state.phase != Phase.RUN:
        return []
    chunk = f"chunk {state.execution.chunk_id}" if state.execution is not None else "the chunk"
    found = [Condition("starved", f"{chunk} ran out")]
    times, lasted_ns = account.in_window(now_ns)
    if times >= config.max_starved:
        found.append(
            Condition(
                "starving",
                f"{times} times in {WINDOW_NS / 1e9:g} s, for {lasted_ns / 1e6:.0f} ms altogether; below "
                f"{config.max_starved} are tolerated",
            )
        )
    return found
