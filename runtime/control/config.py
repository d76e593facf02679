"""What the pure core needs to know, as plain tuples in robot joint order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ...drivers.errors import ConfigError
from ...drivers.robots.schema import Robot
from ...drivers.units import JointUnits
from .body import Body
from .body_model import BodyConfig, body_config
from .deadlines import check_reactions
from .smoother import KinematicLimits
from .strategies import DEFAULT

GRIPPER_MARGIN = 0.5
"""Percent of its range that a gripper keeps from either end: a command that came to rest at the very end
would swing over it by a few hundredths, which is a protective stop."""
_BELOW = 0.999
"""Share of the tool speed that is aimed at: rounding must not look like speeding."""


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """Limits are in rad (grippers: their declared unit) and seconds; durations in ns."""

    joint_names: tuple[str, ...]
    gripper: tuple[bool, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    margin: tuple[float, ...]
    """Targets are clamped to `low + margin .. high - margin`."""
    kinematic: KinematicLimits
    lead: tuple[float, ...]
    first_step: tuple[float, ...]
    """How far from the commanded pose the first chunk of a task may begin."""
    following_error: tuple[float, ...]
    start_pose: tuple[float, ...]
    park_pose: tuple[float, ...]
    dt_ns: int
    chunk_steps: int
    chunk_dt_ns: int
    strategy: str
    """How chunks are executed: a key of `strategies.STRATEGIES`."""
    ema_s: float
    """Time constant of a moving average over the targets; 0 for none."""
    joint_state_max_age_ns: int
    max_missed_in_a_row: int
    max_missed_fraction: float
    voltage_v: tuple[float, float]
    temperature_c: float
    load: float
    load_ns: int
    current_a: float | None
    """Most current of a motor that moves a joint; None: not checked."""
    current_ns: int
    grip: tuple[tuple[float, int] | None, ...]
    """Per joint: load that a gripper may not exceed for longer than so many ns; None: not checked."""
    at_exit: str
    after_fault: str
    stop_category: Literal[0, 1, 2]
    """What a stop does, unless its row says otherwise. 0: it releases the arm at once; 1: once it is at rest;
    2: the arm holds."""
    max_starved: int
    reactions: dict[str, str] = field(default_factory=dict)
    """The robot file's choices; see `deadlines.reaction_to`."""
    body: BodyConfig | None = None
    """The arm's shape; None: distances and workspace are not checked."""
    tool_speed_m_s: float | None = None
    """Most speed of the tip, for which `kinematic.velocity` is already scaled; None: no limit of its own."""

    def __post_init__(self) -> None:
        n = len(self.joint_names)
        if n == 0 or any(
            len(row) != n
            for row in (self.gripper, self.low, self.high, self.margin, self.lead, self.first_step,
                        self.following_error, self.start_pose, self.park_pose, self.kinematic.velocity,
                        self.grip)
        ):  # fmt: skip
            raise ValueError("empty limits: every joint needs every limit")


def core_config(
    robot: Robot,
    units: JointUnits,
    *,
    control_hz: float | None,
    chunk_steps: int,
    chunk_dt_ns: int,
    strategy: str = DEFAULT,
    ema_s: float = 0.0,
    tool_speed_m_s: float | None = None,
) -> CoreConfig:
    """Turns a robot file, its calibration and the bundle's chunk shape into the core's configuration.

    The position limits are the robot file's, cut to the calibrated range: beyond that the servo itself
    would clamp, and the arm would silently not follow. With a tool speed the velocities of all joints that
    move the tip are scaled by the same factor; of `tool_speed_m_s` and the robot file's the smaller counts.
    Raises `ConfigError` for reactions that the table does not offer, for a body that cannot be read, and for
    a tool speed of a robot without one.
    """
    check_reactions(robot.reactions)
    reachable = [units.reachable(i) for i in range(len(robot.joints))]
    joints = robot.joints
    dt_ns = round(1e9 / (control_hz or robot.control.hz))
    margin = robot.control.position_margin
    load_ns, current_ms = round(robot.health.load_ms * 1e6), robot.health.current_ms
    config = CoreConfig(
        joint_names=robot.joint_names,
        gripper=tuple(joint.gripper for joint in joints),
        low=tuple(low for low, _ in reachable),
        high=tuple(high for _, high in reachable),
        margin=tuple(GRIPPER_MARGIN if joint.gripper else margin for joint in joints),
        kinematic=KinematicLimits(
            tuple(joint.limits.velocity for joint in joints),
            tuple(joint.limits.acceleration for joint in joints),
            tuple(joint.limits.jerk for joint in joints),
        ),
        lead=tuple(joint.limits.lead for joint in joints),
        first_step=tuple(joint.limits.first_step or joint.limits.lead for joint in joints),
        following_error=tuple(joint.limits.following_error for joint in joints),
        start_pose=tuple(joint.start for joint in joints),
        park_pose=tuple(joint.park for joint in joints),
        dt_ns=dt_ns,
        chunk_steps=chunk_steps,
        chunk_dt_ns=chunk_dt_ns,
        strategy=strategy,
        ema_s=ema_s,
        # At a low rate a single lost answer must not be a stop.
        joint_state_max_age_ns=max(3 * dt_ns, round(robot.control.joint_state_max_age_ms * 1e6)),
        max_missed_in_a_row=robot.control.max_missed_in_a_row,
        max_missed_fraction=robot.control.max_missed_fraction,
        voltage_v=robot.health.voltage_v,
        temperature_c=robot.health.temperature_c,
        load=robot.health.load,
        load_ns=load_ns,
        current_a=robot.health.current_a,
        current_ns=load_ns if current_ms is None else round(current_ms * 1e6),
        grip=tuple(None if j.grip is None else (j.grip.load, round(j.grip.ms * 1e6)) for j in joints),
        at_exit=robot.exit.at_exit,
        after_fault=robot.exit.after_fault,
        stop_category=robot.exit.stop_category,
        max_starved=robot.control.max_starved,
        reactions=dict(robot.reactions),
        body=body_config(robot),
        tool_speed_m_s=_tool_speed(robot, tool_speed_m_s),
    )
    return config if config.tool_speed_m_s is None else _at_tool_speed(config, config.tool_speed_m_s)


def _tool_speed(robot: Robot, wanted: float | None) -> float | None:
    limits = [limit for limit in (robot.control.tool_speed_m_s, wanted) if limit is not None]
    if limits and robot.body is None:
        raise ConfigError(
            f"a tool speed of {min(limits):g} m/s was asked for, but robot {robot.name} has no body: without "
            "a tip there is no speed of one"
        )
    return min(limits, default=None)


def _at_tool_speed(config: CoreConfig, limit_m_s: float) -> CoreConfig:
    """With velocities at which the tip is never faster, whatever the pose: a joint at the velocity v moves
    it by at most v times its the last row of `Body.reach`, and in the worst case these add up."""
    assert config.body is not None
    weights = Body(config.body, config.joint_names, config.low, config.high).reach[-1].tolist()
    worst = sum(v * weight for v, weight in zip(config.kinematic.velocity, weights, strict=True))
    share = min(1.0, _BELOW * limit_m_s / worst) if worst > 0 else 1.0
    velocity = tuple(
        v * share if weight > 0 else v for v, weight in zip(config.kinematic.velocity, weights, strict=True)
    )
    return replace(config, kinematic=replace(config.kinematic, velocity=velocity))
