"""The safety chain: first what may change a target, then checks that accept or refuse and never modify.

All functions are pure. A check returns a `Violation` or None; the core turns a violation into a stop along
the stop trajectory. The order of `SETPOINT_CHECKS` is the order of the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...drivers.types import JointState
from ..messages import Chunk
from .body_checks import check_body, check_tool_speed
from .config import CoreConfig
from .executor import Execution, Target
from .smoother import Motion
from .tools import TOLERANCE, Tools, Violation


@dataclass(frozen=True, slots=True)
class Clamped:
    """A target after clamping, and which joints were clamped by what."""

    target: Target
    reasons: tuple[tuple[str, str], ...]
    """(joint, `position` or `lead`)"""


def check_chunk(chunk: Chunk, config: CoreConfig, now_ns: int, age_limit_ns: int) -> Violation | None:
    """Header, shape, finiteness and age of a chunk. A bad chunk is refused whole."""
    n = len(config.joint_names)
    if len(chunk.actions) != config.chunk_steps or any(len(row) != n for row in chunk.actions):
        got = f"{len(chunk.actions)} x {len(chunk.actions[0]) if chunk.actions else 0}"
        return Violation("chunk_bad", f"chunk {chunk.chunk_id} is {got}, expected {config.chunk_steps} x {n}")
    if chunk.dt_ns != config.chunk_dt_ns:
        return Violation("chunk_bad", f"chunk {chunk.chunk_id} has a step of {chunk.dt_ns} ns, expected "
                         f"{config.chunk_dt_ns} ns")  # fmt: skip
    for step, row in enumerate(chunk.actions):
        for name, value in zip(config.joint_names, row, strict=True):
            if not math.isfinite(value):
                return Violation("chunk_bad", f"chunk {chunk.chunk_id}, step {step}, joint {name}: {value}")
    stamps = (0, chunk.observation_ns, chunk.frame_arrival_ns, chunk.inference_end_ns, now_ns)
    if list(stamps) != sorted(stamps) or not 0 <= chunk.session_run_ns <= now_ns:
        return Violation("chunk_bad", f"chunk {chunk.chunk_id} has stamps that cannot be: {stamps}")
    age = now_ns - chunk.observation_ns
    if age > age_limit_ns:
        return Violation(
            "chunk_stale",
            f"chunk {chunk.chunk_id} rests on an observation {age / 1e6:.0f} ms old, allowed are "
            f"{age_limit_ns / 1e6:.0f} ms",
        )
    return None


def check_order(chunk: Chunk, last_chunk_id: int, execution: Execution | None) -> Violation | None:
    """Chunks come in the order of their ids, and of their observations."""
    if chunk.chunk_id <= last_chunk_id:
        return Violation("chunk_bad", f"chunk {chunk.chunk_id} came after chunk {last_chunk_id}")
    if execution is not None and chunk.observation_ns < execution.observation_ns:
        older_ms = (execution.observation_ns - chunk.observation_ns) / 1e6
        return Violation(
            "chunk_bad",
            f"chunk {chunk.chunk_id} rests on an observation {older_ms:.0f} ms older than that of chunk "
            f"{execution.chunk_id}",
        )
    return None


def clamp_target(target: Target, measured: Sequence[float], config: CoreConfig) -> Clamped:
    """Clamps a target to the limits less the margin, then to at most `lead` ahead of the measured position.

    A clamped joint's target velocity is 0. Close to a limit the target velocity is bounded so that the
    joint could still brake: v <= sqrt(a d), half the kinetic energy that a constant deceleration takes.
    """
    positions, velocities, reasons = [], [], []
    for i, (wanted, velocity, here, lead, low, high, margin, acceleration) in enumerate(
        zip(
            target.position,
            target.velocity,
            measured,
            config.lead,
            config.low,
            config.high,
            config.margin,
            config.kinematic.acceleration,
            strict=True,
        )
    ):
        lowest, highest = low + margin, high - margin
        position = lowest if wanted < lowest else highest if wanted > highest else wanted
        if position != wanted and not (config.gripper[i] and low <= wanted <= high):
            # A gripper is often asked to close fully; the margin that it keeps is not worth a remark.
            reasons.append((config.joint_names[i], "position"))
        if position - here > lead or position - here < -lead:
            # The arm itself may rest outside the limits; the cap must not pull a target out after it.
            capped = here - lead if position < here else here + lead
            position = lowest if capped < lowest else highest if capped > highest else capped
            reasons.append((config.joint_names[i], "lead"))
        if position != wanted:
            velocity = 0.0
        elif velocity:
            room = highest - position if velocity > 0 else position - lowest
            bound = math.sqrt(acceleration * room)
            if velocity > bound:
                velocity = bound
            elif velocity < -bound:
                velocity = -bound
        positions.append(position)
        velocities.append(velocity)
    return Clamped(Target(tuple(positions), tuple(velocities)), tuple(reasons))


SetpointCheck = Callable[[Motion, Motion, CoreConfig, Tools], Violation | None]


def check_position(before: Motion, after: Motion, config: CoreConfig, _: Tools) -> Violation | None:
    """Inside the limits; a joint that starts outside (resting there at arming) may only move inwards."""
    for name, value, was, low, high in zip(
        config.joint_names, after.position, before.position, config.low, config.high, strict=True
    ):
        if not low <= value <= high and not _inwards(value, was, low, high):
            return Violation("position_limit", f"{name} at {value:.3f}, limits {low:.3f} .. {high:.3f}")
    return None


def _inwards(value: float, was: float, low: float, high: float) -> bool:
    """Whether a joint is no further outside its limits than it was, but for rounding."""
    slack = TOLERANCE * (high - low)
    return min(low, was) - slack <= value <= max(high, was) + slack


def check_velocity(before: Motion, after: Motion, config: CoreConfig, tools: Tools) -> Violation | None:
    """The step actually commanded, by finite difference, and the velocity that the smoother states."""
    dt_s = config.dt_ns * 1e-9
    for i, (value, was, stated, most) in enumerate(
        zip(after.position, before.position, after.velocity, tools.most.velocity, strict=True)
    ):
        step = (value - was) / dt_s
        if not (-most <= step <= most and -most <= stated <= most):
            name, limit = config.joint_names[i], config.kinematic.velocity[i]
            worst = max(abs(step), abs(stated))
            return Violation("velocity_limit", f"{name} at {worst:.3f}/s, limit {limit:.3f}/s")
    return None


def check_acceleration(before: Motion, after: Motion, config: CoreConfig, tools: Tools) -> Violation | None:
    dt_s = config.dt_ns * 1e-9
    for i, (value, was, stated, most) in enumerate(
        zip(after.velocity, before.velocity, after.acceleration, tools.most.acceleration, strict=True)
    ):
        step = (value - was) / dt_s
        if not (-most <= step <= most and -most <= stated <= most):
            name, limit = config.joint_names[i], config.kinematic.acceleration[i]
            worst = max(abs(step), abs(stated))
            return Violation("acceleration_limit", f"{name} at {worst:.2f}/s2, limit {limit:.2f}/s2")
    return None


def check_jerk(before: Motion, after: Motion, config: CoreConfig, tools: Tools) -> Violation | None:
    dt_s = config.dt_ns * 1e-9
    for i, (value, was, most) in enumerate(
        zip(after.acceleration, before.acceleration, tools.most.jerk, strict=True)
    ):
        jerk = (value - was) / dt_s
        if not -most <= jerk <= most:
            name, limit = config.joint_names[i], config.kinematic.jerk[i]
            return Violation("jerk_limit", f"{name} at {abs(jerk):.1f}/s3, limit {limit:.1f}/s3")
    return None


def check_stopping_distance(
    before: Motion, after: Motion, config: CoreConfig, tools: Tools
) -> Violation | None:
    """Braking from the setpoint must come to rest inside the limits (or no further out than it began)."""
    rests = tools.smoother.stopping_position(after)
    for name, rest, was, low, high in zip(
        config.joint_names, rests, before.position, config.low, config.high, strict=True
    ):
        if not low <= rest <= high and not _inwards(rest, was, low, high):
            return Violation(
                "stopping_distance",
                f"{name} would come to rest at {rest:.3f}, limits {low:.3f} .. {high:.3f}",
            )
    return None


SETPOINT_CHECKS: tuple[tuple[str, SetpointCheck], ...] = (
    ("position", check_position),
    ("velocity", check_velocity),
    ("acceleration", check_acceleration),
    ("jerk", check_jerk),
    ("stopping distance", check_stopping_distance),
    ("tool speed", check_tool_speed),
    ("distances and workspace", check_body),
)


def check_setpoint(before: Motion, after: Motion, config: CoreConfig, tools: Tools) -> Violation | None:
    """The first check that refuses the step from `before` to `after`."""
    for _, check in SETPOINT_CHECKS:
        violation = check(before, after, config, tools)
        if violation is not None:
            return violation
    return None


def check_following(joint: JointState, commanded: Sequence[float], config: CoreConfig) -> Violation | None:
    for i, name in enumerate(config.joint_names):
        error = abs(joint.position[i] - commanded[i])
        if not error <= config.following_error[i]:
            return Violation(
                "following_error",
                f"{name} is {error:.3f} away from its setpoint, allowed are {config.following_error[i]:.3f}",
            )
    return None


def check_health(joint: JointState, config: CoreConfig) -> Violation | None:
    """Fault bits, voltage and temperature of every motor."""
    low, high = config.voltage_v
    for i, name in enumerate(config.joint_names):
        if joint.faults[i]:
            return Violation("motor_fault", f"{name} reports fault bits 0x{joint.faults[i]:02x}")
        if not low <= joint.voltage_v[i] <= high:
            return Violation("voltage", f"{name} at {joint.voltage_v[i]:.1f} V, allowed {low} .. {high} V")
        if not joint.temperature_c[i] <= config.temperature_c:
            return Violation(
                "temperature", f"{name} at {joint.temperature_c[i]:.0f} C, limit {config.temperature_c:.0f} C"
            )
    return None


def overloaded_since(
    joint: JointState, since_ns: Sequence[int], config: CoreConfig, now_ns: int
) -> tuple[int, ...]:
    """Per joint: since when its load is above the limit, 0 if it is not. Grippers stall by design."""
    most = config.load
    if max(joint.load) <= most and min(joint.load) >= -most:
        return (0,) * len(since_ns)
    return tuple(
        (since or now_ns) if abs(load) > most and not gripper else 0
        for load, since, gripper in zip(joint.load, since_ns, config.gripper, strict=True)
    )


def stalled_since(
    joint: JointState,
    clamped: Sequence[tuple[str, str]],
    since_ns: Sequence[int],
    config: CoreConfig,
    now_ns: int,
) -> tuple[int, ...]:
    """Per joint: since when it stands still although its target is held back by the lead cap, else 0."""
    held = {name for name, reason in clamped if reason == "lead"} if clamped else None
    if not held:
        return (0,) * len(since_ns)
    return tuple(
        (since or now_ns) if name in held and abs(velocity) < 0.01 * limit else 0
        for name, velocity, limit, since in zip(
            config.joint_names, joint.velocity, config.kinematic.velocity, since_ns, strict=True
        )
    )


def overcurrent_since(
    joint: JointState, since_ns: Sequence[int], config: CoreConfig, now_ns: int
) -> tuple[int, ...]:
    """Per joint: since when its motor draws more current than it may, else 0. Grippers have their own."""
    most = config.current_a
    if most is None or max(map(abs, joint.current_a)) <= most:
        return (0,) * len(since_ns)
    return tuple(
        (since or now_ns) if abs(current) > most and not gripper else 0
        for current, since, gripper in zip(joint.current_a, since_ns, config.gripper, strict=True)
    )


def gripping_since(
    joint: JointState, since_ns: Sequence[int], config: CoreConfig, now_ns: int
) -> tuple[int, ...]:
    """Per joint: since when a gripper presses harder than it may, else 0."""
    if not any(config.grip):
        return (0,) * len(since_ns)
    return tuple(
        [
            (since or now_ns) if grip is not None and abs(load) > grip[0] else 0
            for load, since, grip in zip(joint.load, since_ns, config.grip, strict=True)
        ]
    )


def check_since(
    code: str, since_ns: Sequence[int], most_ns: Sequence[int], config: CoreConfig, now_ns: int
) -> Violation | None:
    """A joint of which something has been true for longer than it may."""
    if not any(since_ns):
        return None
    for name, since, most in zip(config.joint_names, since_ns, most_ns, strict=True):
        if since and now_ns - since > most:
            lasted = f"for {(now_ns - since) / 1e6:.0f} ms, allowed are {most / 1e6:.0f} ms"
            return Violation(code, f"{name} {lasted}")
    return None


def check_first(begins: Sequence[float], commanded: Sequence[float], config: CoreConfig) -> Violation | None:
    """The first chunk of a task begins near the commanded pose. Grippers may be anywhere."""
    for name, first, now, most, gripper in zip(
        config.joint_names, begins, commanded, config.first_step, config.gripper, strict=True
    ):
        if not gripper and not abs(first - now) <= most:
            return Violation(
                "chunk_far",
                f"the first chunk begins with {name} at {first:.3f}, {abs(first - now):.3f} from where it is "
                f"commanded to be; allowed are {most:.3f}",
            )
    return None
