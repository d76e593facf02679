"""Calibrations of servo arms in LeRobot's format: reading, finding, and refusing the implausible ones.

A file is `{joint: {id, drive_mode, homing_offset, range_min, range_max}}`, in ticks of the servo's encoder
after its homing offset. No torque without one: a percentage or an angle means nothing before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from .errors import ConfigError
from .robots.schema import FOLDER, Joint, Robot

TICKS_PER_TURN = 4096
MAX_HOMING_OFFSET = 2047
"""Sign-magnitude with the sign in bit 11 (register 31 of an STS3215)."""
MIN_SPAN_TICKS = 256
"""A narrower range (22 degrees) is a joint that was not moved while calibrating."""
SEAM_SPAN_TICKS = 4000
"""A range as wide as this has crossed the seam between tick 4095 and 0 (lerobot#3586, #3587), except for a
joint that may really turn that far."""
FULL_TURN_RAD = 5.0
"""A joint whose limits span more than this may have a calibrated range of a whole turn (wrist roll)."""


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """One joint of the file; ranges in ticks as the servo reports them."""

    id: int
    drive_mode: int
    """1: percentages run against the ticks. LeRobot ignores it for degrees; so do we for rad."""
    homing_offset: int
    """present = actual - homing_offset."""
    range_min: int
    range_max: int

    @property
    def middle(self) -> float:
        """The tick that degrees and rad call zero."""
        return (self.range_min + self.range_max) / 2

    @property
    def span(self) -> int:
        return self.range_max - self.range_min


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of one arm, in robot joint order."""

    path: Path
    joints: tuple[JointCalibration, ...]


def load_calibration(path: Path, robot: Robot) -> Calibration:
    """Reads and checks the calibration of `robot`; raises `ConfigError` naming file, joint and value."""
    try:
        document = json.loads(path.read_text(), object_pairs_hook=_no_duplicates)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"calibration {path} cannot be read: {error}") from error
    if not isinstance(document, dict) or set(document) != set(robot.joint_names):
        got = ", ".join(document) if isinstance(document, dict) else type(document).__name__
        raise ConfigError(
            f"calibration {path} has the joints {got}; robot {robot.name} has {', '.join(robot.joint_names)}"
        )
    return Calibration(path, tuple(_joint(path, joint, document[joint.name]) for joint in robot.joints))


def find_calibration(
    robot: Robot,
    explicit: Path | str | None = None,
    robot_id: str | None = None,
    environ: Mapping[str, str] = os.environ,
    robot_folder: Path = FOLDER,
) -> Calibration:
    """The calibration to use: the given file, else the robot file's own, else LeRobot's for its types.

    `robot_id` narrows LeRobot's files to `<id>.json`; `robot_folder` is where the robot file lies (its own
    `calibration` is relative to it). Raises `ConfigError` when none or several fit.
    """
    if explicit is not None:
        path = Path(explicit).expanduser()
        if not path.is_file():
            raise ConfigError(f"calibration {path} does not exist; expected a LeRobot calibration JSON")
        return load_calibration(path, robot)
    if robot.calibration is not None:
        return load_calibration(robot_folder / robot.calibration, robot)
    root = lerobot_folder(environ)
    folders = [root / "robots" / kind for kind in robot.robot_types]
    if robot_id and Path(robot_id).name != robot_id:
        raise ConfigError(f"robot id {robot_id!r} is not a plain name; a path belongs to --calibration")
    name = f"{robot_id}.json" if robot_id else "*.json"
    found = sorted(
        {path for folder in folders for path in folder.glob("*.json") if name in ("*.json", path.name)}
    )
    if len(found) == 1:
        return load_calibration(found[0], robot)
    if found:
        rows = "\n  ".join(str(path) for path in found)
        raise ConfigError(
            f"several calibrations fit robot {robot.name}; choose with --robot-id or --calibration:\n  {rows}"
        )
    places = ", ".join(str(folder / name) for folder in folders)
    raise ConfigError(
        f"no calibration for robot {robot.name}: looked for {places}. Without one no torque is given. Make "
        f"one with `lerobot-calibrate --robot.type={robot.robot_types[0]} --robot.port=... --robot.id=...`, "
        "or name a file with --calibration FILE"
    )


def lerobot_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where LeRobot keeps its calibrations, by its own rules."""
    if own := environ.get("HF_LEROBOT_CALIBRATION"):
        return Path(own).expanduser()
    if hf_home := environ.get("HF_HOME"):
        return Path(hf_home).expanduser() / "lerobot" / "calibration"
    home = environ.get("HOME")
    base = Path(home) if home else Path.home()
    return base / ".cache" / "huggingface" / "lerobot" / "calibration"


def _joint(path: Path, joint: Joint, row: object) -> JointCalibration:
    where = f"calibration {path}, joint {joint.name}"
    keys = {field.name for field in fields(JointCalibration)}
    if not isinstance(row, dict) or set(row) != keys:
        raise ConfigError(f"{where}: expected exactly the keys {', '.join(sorted(keys))}, got {row!r}")
    for key, value in row.items():
        if type(value) is not int:
            raise ConfigError(f"{where}: {key} must be a whole number of ticks, got {value!r}")
    result = JointCalibration(**row)
    _check_plausible(where, joint, result)
    return result


def _check_plausible(where: str, joint: Joint, row: JointCalibration) -> None:
    if row.id != joint.motor.id:
        raise ConfigError(
            f"{where}: motor id {row.id}, but the robot file says {joint.motor.id}: another robot?"
        )
    if row.drive_mode not in (0, 1):
        raise ConfigError(f"{where}: drive_mode must be 0 or 1, got {row.drive_mode}")
    if abs(row.homing_offset) > MAX_HOMING_OFFSET:
        raise ConfigError(f"{where}: homing_offset {row.homing_offset} is beyond +-{MAX_HOMING_OFFSET}")
    if not 0 <= row.range_min < row.range_max < TICKS_PER_TURN:
        raise ConfigError(
            f"{where}: the range [{row.range_min}, {row.range_max}] does not rise within 0..4095: it wraps "
            "the seam of the encoder; calibrate again with the joint in the middle of its range at the start"
        )
    if row.span < MIN_SPAN_TICKS:
        raise ConfigError(
            f"{where}: the range [{row.range_min}, {row.range_max}] spans only {row.span} ticks, expected at "
            f"least {MIN_SPAN_TICKS}: the joint was not moved through its range; calibrate again"
        )
    low, high = joint.limits.position
    may_turn_fully = not joint.gripper and high - low >= FULL_TURN_RAD
    if row.span >= SEAM_SPAN_TICKS and not may_turn_fully:
        raise ConfigError(
            f"{where}: the range [{row.range_min}, {row.range_max}] is a whole turn, which this joint cannot "
            "do: it crossed the encoder's seam; calibrate again with the joint in the middle at the start"
        )


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"a key appears twice among {[key for key, _ in pairs]}")
    return result
