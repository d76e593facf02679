"""What the checks of a setpoint work with (scratch memory, no state), and what they find. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...drivers.errors import ConfigError
from .body import Body
from .config import CoreConfig
from .smoother import KinematicLimits, Smoother

TOLERANCE = 1e-6
"""Relative slack of the kinematic checks, for rounding in the trajectory generator."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A condition of the deadline table, with the numbers a person needs."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Tools:
    """Made once from the configuration."""

    smoother: Smoother
    body: Body | None
    """None: the robot file has none, and nothing of it is checked."""
    most: KinematicLimits
    """The kinematic limits with what rounding may add: what the checks compare with."""

    @classmethod
    def of(cls, config: CoreConfig) -> Tools:
        """Raises `ConfigError` for a body that does not load or does not fit the robot, and for a start or
        park pose that its checks would not let the arm reach."""
        smoother = Smoother(config.kinematic, config.dt_ns * 1e-9)
        body = None
        if config.body is not None:
            body = Body(config.body, config.joint_names, config.low, config.high)
            for name, pose in (("start", config.start_pose), ("park", config.park_pose)):
                _check_pose(name, pose, body)
        limits = config.kinematic
        most = KinematicLimits(*map(_most, (limits.velocity, limits.acceleration, limits.jerk)))
        return cls(smoother, body, most)


def _most(limits: Sequence[float]) -> tuple[float, ...]:
    return tuple(limit * (1 + TOLERANCE) + TOLERANCE for limit in limits)


def _check_pose(name: str, position: Sequence[float], body: Body) -> None:
    bad = [body.describe(near) for near in body.near(position)]
    rooms = enumerate(body.rooms(position))
    bad += [body.describe_side(position, side) for side, room in rooms if room < 0]
    if bad:
        raise ConfigError(
            f"at the {name} pose of the robot file {'; '.join(bad)}. Change the pose, or the robot file's "
            f"body ({body.config.source})"
        )
