"""The robot file: joints, motors, limits and what a safe exit means, as data.

A robot file is YAML with exactly these keys; unknown keys are refused. Units: rad, rad/s, rad/s^2, rad/s^3;
a gripper's are those of its own `unit`. `load_robot` takes a name (`so101`) or a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..errors import ConfigError

FOLDER = Path(__file__).parent

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Metres = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
Point = tuple[Finite, Finite, Finite]


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
    first_step: Positive | None = None
    """How far from the commanded pose the first chunk of a task may begin; by default `lead`. Not for
    grippers."""

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


class Grip(_Strict):
    """How hard a gripper may hold: more load for longer is a protective stop."""

    load: Annotated[float, Field(gt=0, le=1)]
    """Fraction of the motor's full load."""
    ms: Milliseconds


class Joint(_Strict):
    name: str
    unit: Literal["rad", "0_100_of_range"]
    """`rad`, or for grippers the percentage of the calibrated range (0 closed, 100 open)."""
    gripper: bool = False
    motor: Motor
    limits: Limits
    start: Finite
    park: Finite
    grip: Grip | None = None
    """Only for grippers; absent: not checked (they stall by design)."""

    @model_validator(mode="after")
    def _poses_inside(self) -> Joint:
        low, high = self.limits.position
        for key, value in (("start", self.start), ("park", self.park)):
            if not low <= value <= high:
                raise ValueError(f"joint {self.name}: {key} {value} lies outside its limits [{low}, {high}]")
        if (self.unit == "0_100_of_range") != self.gripper:
            raise ValueError(f"joint {self.name}: unit 0_100_of_range is for grippers, and only for them")
        if self.grip is not None and not self.gripper:
            raise ValueError(f"joint {self.name}: grip is for grippers; an arm joint has health.load")
        if self.limits.first_step is not None and self.gripper:
            raise ValueError(f"joint {self.name}: limits.first_step is not for grippers")
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
    current_a: Positive | None = None
    """A larger current of a joint other than a gripper, for longer than `current_ms`; absent: not checked."""
    current_ms: Milliseconds | None = None
    """By default `load_ms`."""

    @model_validator(mode="after")
    def _current(self) -> Health:
        if self.current_ms is not None and self.current_a is None:
            raise ValueError("health.current_ms without current_a limits nothing")
        return self


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
    tool_speed_m_s: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    """The tip is never faster: velocities are scaled for the worst pose, and every setpoint is checked. Needs
    a body. 0.25 is the 250 mm/s of ISO 10218-1."""


class Exit(_Strict):
    at_exit: Literal["park_release", "release_here", "hold_energised"]
    after_fault: Literal["release_here", "hold_energised"]
    """What quitting after a protective stop does; it never moves the arm."""
    stop_category: Literal[0, 1, 2]
    """IEC 60204-1. 2: after a protective stop the arm holds with torque on. 1: it is released once at rest;
    only for an arm that may go limp wherever it is. 0: released at once, out of any motion."""


class ModelJoint(_Strict):
    """What a joint of the robot moves in the model: model = scale * robot + offset."""

    joint: str | None = None
    """The model's name for it; by default the robot's. `none` in `Body.joints` for a gripper without one."""
    scale: Finite = 1.0
    offset: Finite = 0.0

    @field_validator("scale")
    @classmethod
    def _moves(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("a scale of 0 moves nothing")
        return scale


class Workspace(_Strict):
    """A box for the tip, in the model's base frame (m)."""

    low: Point
    high: Point

    @model_validator(mode="after")
    def _ordered(self) -> Workspace:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"workspace: low {self.low} must be below high {self.high} on every axis")
        return self


class Body(_Strict):
    """The arm's shape, for the distances to itself and to the table, the workspace and the tool speed."""

    model: str
    """MJCF or URDF, a file beside the robot file or one of Holdfast's, complete in itself (no meshes, no
    includes). Geoms that collide must be capsules, spheres, boxes or planes."""
    joints: dict[str, ModelJoint | None] = {}
    """Robot joint -> the model's; those not listed have the same name and scale 1."""
    tip: str
    """A site of the model, else a body (a URDF has no sites)."""
    self_clearance_m: Metres | None = None
    """Parts of the arm come no nearer to each other; absent: not checked."""
    ignore: list[tuple[str, str]] = []
    """Pairs of bodies that are not compared (MJCF can say so itself: `exclude`)."""
    table: list[str] = []
    """Geoms of the model that stand for the surroundings; fixed to the base."""
    table_clearance_m: Metres | None = None
    """Moving parts come no nearer to `table`."""
    workspace: Workspace | None = None

    @field_validator("model")
    @classmethod
    def _beside(cls, model: str, info: ValidationInfo) -> str:
        """The full path: a model lies beside its robot file, or comes with Holdfast."""
        beside = (info.context or {}).get("folder", FOLDER) / model
        shipped = FOLDER / model
        return str(shipped if shipped.is_file() and not beside.is_file() else beside)

    @model_validator(mode="after")
    def _table(self) -> Body:
        if bool(self.table) != (self.table_clearance_m is not None):
            raise ValueError("body: table and table_clearance_m go together")
        return self

    def text(self) -> str:
        """The model file's content. Raises `ConfigError`."""
        try:
            return Path(self.model).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the robot file's body: {self.model} cannot be read: {error}") from error


ControlStage = Literal["wake_late", "bus_read", "step", "bus_write", "tick", "joint_age"]
ReactionName = Literal["count", "hold", "stop", "stop_0", "stop_1", "stop_2"]


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
    `stop_0`, `stop_1`, `stop_2`: a stop of that category, which must not be below `exit.stop_category`;
    `stop`: of that one."""
    budgets_ms: dict[ControlStage, Milliseconds] = {}
    """Stage of a control tick -> what it may take. Stages that are not listed have derived ones."""
    body: Body | None = None
    """Absent: neither distances nor a workspace are checked."""
    joints: Annotated[list[Joint], Field(min_length=1, max_length=32)]

    @model_validator(mode="after")
    def _unique(self) -> Robot:
        names = [joint.name for joint in self.joints]
        ids = [joint.motor.id for joint in self.joints]
        if len(set(names)) != len(names) or len(set(ids)) != len(ids):
            raise ValueError("two joints share a name or a motor id")
        if self.exit.at_exit == "hold_energised" and self.bus.watchdog == "motor":
            raise ValueError("hold_energised is impossible here: the motors' watchdog would trip")
        for code, reaction in self.reactions.items():
            kind, _, category = reaction.partition("_")
            if category and int(category) < self.exit.stop_category:
                how = " in motion" if self.exit.stop_category == 1 else ""
                raise ValueError(
                    f"reactions: {code}: {kind}_{category} releases the arm, but exit.stop_category "
                    f"{self.exit.stop_category} says that it must not go limp{how}"
                )
        if self.body is not None:
            for name, joint in self.body.joints.items():
                row = next((joint for joint in self.joints if joint.name == name), None)
                if row is None:
                    raise ValueError(f"body.joints: the robot has no joint {name}; it has {', '.join(names)}")
                if joint is None and not row.gripper:
                    raise ValueError(
                        f"body.joints: {name} must be in the model; only a gripper may be left out"
                    )
        elif self.control.tool_speed_m_s is not None:
            raise ValueError("control.tool_speed_m_s needs body: without a tip there is no speed of one")
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
        content = yaml.safe_load(path.read_text())
        return Robot.model_validate(content, context={"folder": path.resolve().parent})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"robot file {path} cannot be read: {error}") from error
    except ValidationError as error:
        rows = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"robot file {path} is not valid: {rows}") from error
