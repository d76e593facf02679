"""The contract check: does this bundle fit this robot, these cameras and this rate? Before any torque."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...drivers.robots.schema import Robot
from .errors import BundleMismatch
from .schema import ActionElement, Bundle, Element

CONVERTIBLE: dict[str, frozenset[str]] = {
    "rad": frozenset({"rad", "deg", "pm100_of_range"}),
    "0_100_of_range": frozenset({"0_100_of_range", "normalised_gripper"}),
}
"""Robot unit -> bundle units that can be converted to it (those `of_range` through the calibration)."""

SPACES = ("joint_position", "joint_delta")
"""The action spaces that this version runs; the end-effector spaces need inverse kinematics."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the check: what the bundle has, what the robot has, and what to do when they differ."""

    what: str
    bundle: str
    robot: str
    ok: bool
    fix: str = ""


def check_contract(
    spec: Bundle,
    robot: Robot,
    camera_names: Sequence[str | None],
    *,
    control_hz: float | None = None,
) -> list[Row]:
    """Every row of the contract, met or not, in the order in which a person would look.

    `camera_names`: as given by the user, None or "" for a camera without a name. `control_hz`: the rate that
    will be used (default: the robot file's).
    """
    period_s = 1.0 / (control_hz or robot.control.hz)
    types = robot.robot_types
    # Those of end-effector spaces are no joints.
    action = spec.action.elements if spec.action.space in SPACES else None
    state = spec.state.elements if spec.state is not None else None
    return [
        Row("robot type", spec.robot_type, " or ".join(types), spec.robot_type in types,
            "use --robot with the robot that the policy was trained on, or another bundle"),
        Row("action space", spec.action.space, " or ".join(SPACES), spec.action.space in SPACES,
            "export a joint-space policy; end-effector spaces are not run by this version"),
        *([] if action is None else [_joints("joints of the action", [e.name for e in action], robot)]),
        *([] if state is None else [_joints("joints of the state", [e.name for e in state], robot)]),
        *([] if action is None else [_units("units of the action", action, robot)]),
        *([] if state is None else [_units("units of the state", state, robot)]),
        _rate(spec, period_s),
        _cameras(spec, camera_names),
    ]  # fmt: skip


def require_contract(spec: Bundle, rows: Iterable[Row]) -> None:
    """Raises `BundleMismatch`, showing both sides of every row that is not met."""
    rows = list(rows)
    if not all(row.ok for row in rows):
        raise BundleMismatch(spec.name, rows)


def match_cameras(spec: Bundle, camera_names: Sequence[str | None]) -> dict[str, int] | None:
    """The bundle's camera names -> index into `camera_names`; None where they do not fit.

    Names must be the same set. One camera without a name serves a bundle with one camera: there is nothing
    to confuse. With several cameras each needs its name, since swapped pictures look like a working policy.
    """
    wanted = [camera.name for camera in spec.cameras]
    if len(wanted) == 1 and len(camera_names) == 1 and not camera_names[0]:
        return {wanted[0]: 0}
    given = [name or "" for name in camera_names]
    if sorted(given) != sorted(wanted):
        return None
    return {name: given.index(name) for name in wanted}


def _joints(what: str, names: list[str], robot: Robot) -> Row:
    wanted = list(robot.joint_names)
    same_set = sorted(names) == sorted(wanted)
    fix = (
        "the same joints in another order would move the wrong joints: export with the robot's order"
        if same_set
        else "use the robot that the policy was trained on, or another bundle"
    )
    return Row(what, ", ".join(names), ", ".join(wanted), names == wanted, fix)


def _units(what: str, elements: Sequence[Element | ActionElement], robot: Robot) -> Row:
    wanted = {joint.name: joint.unit for joint in robot.joints}
    bad = [e for e in elements if e.name in wanted and e.unit not in CONVERTIBLE[wanted[e.name]]]
    shown = bad or elements
    return Row(
        what,
        ", ".join(dict.fromkeys(f"{e.name} {e.unit}" if bad else e.unit for e in shown)),
        ", ".join(
            dict.fromkeys(f"{e.name} {wanted[e.name]}" if bad else wanted.get(e.name, "?") for e in shown)
        ),
        not bad,
        "export with the units that the policy was trained in; these cannot be converted",
    )


def _rate(spec: Bundle, period_s: float) -> Row:
    dt_s = spec.action.dt_s
    return Row(
        "rate",
        f"one action every {dt_s * 1e3:g} ms ({1 / dt_s:g} Hz)",
        f"control every {period_s * 1e3:g} ms ({1 / period_s:g} Hz)",
        # 1e-6 forgives 1/hz in binary, not a real difference.
        period_s <= dt_s * (1 + 1e-6),
        f"control would skip actions: use --control-hz {1 / dt_s:g} or more",
    )


def _cameras(spec: Bundle, camera_names: Sequence[str | None]) -> Row:
    wanted = [camera.name for camera in spec.cameras]
    fix = "pass " + " ".join(f"--camera {name}=SOURCE" for name in wanted)
    return Row(
        "cameras",
        ", ".join(wanted),
        ", ".join(name or "(without a name)" for name in camera_names) or "none",
        match_cameras(spec, camera_names) is not None,
        fix,
    )
