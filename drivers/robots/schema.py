"""The robot file: joints, motors, limits and what a safe exit means, as data.

A robot file is YAML with exactly these keys; unknown keys are refused. Units: rad, rad/s, rad/s^2, rad/s^3;
a gripper's are those of its own `unit`. `load_robot` takes a name (`so101`) or a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import ConfigError

FOLDER = Path(__file__).parent

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Limits(_Strict):
    """Limits of one joint. Nothing has a default: an unlimited joint cannot be described."""

    position: tuple[Finite, Finite]
    velocity: Positive
    acceleration: Positive
    jerk: Positive
    lead: Positive
    """Soft cap: how far the commanded target may lead the measured position."""
    following_error: Positive
    """Hard: a larger distance between commanded and measured is a protective stop. Above `lead`."""

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        low, high = self.position
        if not low < high:
            raise ValueError(f"limits.position must rise, got [{low}, {high}]")
        if self.following_error <= self.lead:
            raise ValueError(
                f"following_error ({self.following_error}) must be above lead ({self.lead}): the cap has to "
                "act before the stop"
            )
        return self


class Motor(_Strict):
    """The motor behind a joint and what must stand in its registers before torque."""

    id: Annotated[int, Field(ge=0, le=253)]
    model: str
    gains: Annotated[dict[Literal["p", "i", "d"], Annotated[int, Field(ge=0, le=254)]], Field(min_length=3)]
    acceleration: Annotated[int, Field(ge=0, le=254)]
    """The motor's own acceleration register (its units: 100 ticks/s^2), written while arming."""
    torque_limit: Annotated[float, Field(gt=0, le=1)]
    """Fraction of full torque, written while arming."""


class Joint(_Strict):
    name: str
    unit: Literal["rad", "0_100_of_range"]
    """`rad`, or for grippers the percentage of the calibrated range (0 closed, 100 open)."""
    gripper: bool = False
    motor: Motor
    limits: Limits
    start: Finite
    park: Finite

    @model_validator(mode="after")
    def _poses_inside(self) -> Joint:
        low, high = self.limits.position
        for key, value in (("start", self.start), ("park", self.park)):
            if not low <= value <= high:
                raise ValueError(f"joint {self.name}: {key} {value} lies outside its limits [{low}, {high}]")
        if (self.unit == "0_100_of_range") != self.gripper:
            raise ValueError(f"joint {self.name}: unit 0_100_of_range is for grippers, and only for them")
        return self


class Bus(_Strict):
    protocol: Literal["feetech"]
    baud: Annotated[int, Field(gt=0)]
    reply_timeout_ms: Positive
    watchdog: Literal["none", "motor"]
    """Whether the motors stop by themselves when commands stay away. Feetech: none."""


class Health(_Strict):
    """Hard limits on what the motors report: beyond them, a protective stop."""

    voltage_v: tuple[Positive, Positive]
    temperature_c: Positive
    load: Annotated[float, Field(gt=0, le=1)]
    load_ms: Positive
    """How long a joint other than a gripper may stay above `load`."""


class Control(_Strict):
    hz: Annotated[float, Field(ge=10, le=1000)]
    joint_state_max_age_ms: Positive
    max_missed_in_a_row: Annotated[int, Field(ge=1)]
    """That many missed slots in a row are a protective stop."""
    max_missed_fraction: Annotated[float, Field(gt=0, le=1)]
    """A larger share of missed slots in a window of 10 s is a protective stop."""
    max_starved: Annotated[int, Field(ge=1)] = 3
    """Chunks that ran out that often in a window of 10 s are the condition `starving`."""
    max_over_budget_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """A stage that is above its budget more often, in a window of 10 s, is the condition `over_budget`."""
    position_margin: Annotated[float, Field(ge=0, lt=0.5)]
    """Targets are clamped to the position limits less this margin (rad; grippers have none)."""


class Exit(_Strict):
    at_exit: Literal["park_release", "release_here", "hold_energised"]
    after_fault: Literal["release_here", "hold_energised"]
    """What quitting after a protective stop does; it never moves the arm."""
    stop_category: Literal[1, 2]
    """IEC 60204-1. 2: after a protective stop the arm holds with torque on. 1: it is released once at rest;
    only for an arm that may go limp wherever it is."""


ControlStage = Literal["wake_late", "bus_read", "step", "bus_write", "tick", "joint_age"]
ReactionName = Literal["count", "hold", "stop", "stop_1", "stop_2"]


class Robot(_Strict):
    name: str
    description: str
    robot_types: Annotated[list[str], Field(min_length=1)]
    """Names under which bundles and LeRobot calibrations know this robot."""
    calibration: str | None = None
    """A calibration that comes with the robot file (simulated arms, whose servos are all alike)."""
    bus: Bus
    control: Control
    health: Health
    exit: Exit
    reactions: dict[str, ReactionName] = {}
    """Condition -> reaction, where it shall differ from control's table (which says what may be chosen).
    `stop_1`, `stop_2`: a stop of that category; `stop`: of `exit.stop_category`."""
    budgets_ms: dict[ControlStage, Milliseconds] = {}
    """Stage of a control tick -> what it may take. Stages that are not listed have derived ones."""
    joints: Annotated[list[Joint], Field(min_length=1, max_length=32)]

    @model_validator(mode="after")
    def _unique(self) -> Robot:
        names = [joint.name for joint in self.joints]
        ids = [joint.motor.id for joint in self.joints]
        if len(set(names)) != len(names) or len(set(ids)) != len(ids):
            raise ValueError("two joints share a name or a motor id")
        if self.exit.at_exit == "hold_energised" and self.bus.watchdog == "motor":
            raise ValueError("hold_energised is impossible here: the motors' watchdog would trip")
        limp = [code for code, reaction in self.reactions.items() if reaction == "stop_1"]
        if limp and self.exit.stop_category != 1:
            raise ValueError(
                f"reactions: {', '.join(limp)}: stop_1 releases the arm, but exit.stop_category "
                f"{self.exit.stop_category} says that it must not go limp"
            )
        return self

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def motor_ids(self) -> tuple[int, ...]:
        return tuple(joint.motor.id for joint in self.joints)


def robot_names() -> list[str]:
    """Names of the robots that come with Holdfast."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def robot_path(name_or_path: str) -> Path:
    """The file of a robot given by name or path; raises `ConfigError` with the list of known names."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"robot file {path} does not exist")
    if name_or_path not in robot_names():
        raise ConfigError(
            f"unknown robot {name_or_path!r}; known: {', '.join(robot_names())}, or the path of a .yaml file"
        )
    return FOLDER / f"{name_or_path}.yaml"


def load_robot(name_or_path: str) -> Robot:
    """Reads and validates a robot file; raises `ConfigError` naming the key at fault."""
    path = robot_path(name_or_path)
    try:
        return Robot.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"robot file {path} cannot be read: {error}") from error
    except ValidationError as error:
        rows = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"robot file {path} is not valid: {rows}") from error
