"""Between the policy's numbers and the robot's: normalisation, relative actions, units. Pure.

The policy speaks normalised values of the units in its bundle; the robot speaks rad (grippers: percent of
the calibrated range) in robot joint order. Everything here is decided once, from bundle, robot file and
calibration, before any torque; what cannot be converted refuses then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...drivers.robots.schema import Joint
from ...drivers.units import JointUnits
from ..bundle.schema import Bundle, Unit
from .errors import NonFiniteAction

_SPACES = ("joint_position", "joint_delta")
_RANGES: dict[str, tuple[float, float]] = {"pm100_of_range": (-100.0, 100.0), "0_100_of_range": (0.0, 100.0)}
"""Units that end where the calibrated range ends; LeRobot clamps them, so the policy never saw more."""
_GRIPPER_SCALE = 100.0
"""`normalised_gripper` is the share of the calibrated range, 0 closed and 1 open."""


class ActionSpaceError(ValueError):
    """The bundle's state or actions cannot be converted for this robot; refused before torque."""


class ActionSpace:
    """The conversions of one bundle on one calibrated robot.

    Raises `ActionSpaceError` for joints in another order, and for spaces and units without a conversion.
    """

    def __init__(self, spec: Bundle, units: JointUnits) -> None:
        action = spec.action
        state = [] if spec.state is None else spec.state.elements
        if action.space not in _SPACES:
            raise ActionSpaceError(
                f"action space {action.space} is not run by this version; it runs: {', '.join(_SPACES)}"
            )
        names = list(units.robot.joint_names)
        for what, elements in (("action", action.elements), ("state", state)):
            if elements and [element.name for element in elements] != names:
                raise ActionSpaceError(
                    f"the {what} of the bundle is {[e.name for e in elements]}, the robot's joints are "
                    f"{names}; export the policy with the robot's joints in the robot's order"
                )
        self._units = units
        self._state_units: list[Unit] = [element.unit for element in state]
        if spec.state is not None:
            self._state_offset = np.asarray(spec.state.normalisation.offset, np.float64)
            self._state_scale = np.asarray(spec.state.normalisation.scale, np.float64)
        self._action_units: list[Unit] = [element.unit for element in action.elements]
        self._relative = np.asarray([element.relative for element in action.elements])
        self._action_offset = np.asarray([row.offset for row in action.normalisation], np.float64)
        self._action_scale = np.asarray([row.scale for row in action.normalisation], np.float64)
        self._shape = (action.steps, len(action.elements))
        rows = [self._affine(index, unit) for index, unit in enumerate(self._action_units)]
        self._offset, self._factor, self._low, self._high = np.asarray(rows, np.float64).T
        for index, unit in enumerate(self._state_units):
            self._affine(index, unit)

    @property
    def joints(self) -> Sequence[Joint]:
        """The robot's joints, in robot order."""
        return self._units.robot.joints

    @property
    def has_state(self) -> bool:
        """Whether the policy sees the joints."""
        return bool(self._state_units)

    def observe(self, position: Sequence[float]) -> NDArray[np.float32]:
        """Joint positions (robot units) -> the policy's state, [joints] float32, normalised."""
        raw = np.array([self._to_policy(i, value, self._state_units[i]) for i, value in enumerate(position)])
        return ((raw - self._state_offset) / self._state_scale).astype(np.float32)

    def normalised(self, targets: NDArray[np.float64], position: Sequence[float]) -> NDArray[np.float32]:
        """Inverse of `targets`: absolute joint targets [k, joints] in robot units, of the first k steps of a
        chunk (k at most its steps) -> what the policy would have to say, [k, joints] float32."""
        base = [self._to_policy(i, value, self._action_units[i]) for i, value in enumerate(position)]
        raw = (targets - self._offset) / self._factor - np.where(self._relative, base, 0.0)
        rows = slice(None) if len(self._action_offset) == 1 else slice(0, len(targets))
        return ((raw - self._action_offset[rows]) / self._action_scale[rows]).astype(np.float32)

    def targets(self, output: NDArray[np.floating], position: Sequence[float]) -> NDArray[np.float64]:
        """The graph's output -> absolute joint targets, [steps, joints] in robot units.

        `position`: the observation's own joint position (robot units), to which relative elements are added.
        Raises `NonFiniteAction`; `ActionSpaceError` when the output has another shape than declared.
        """
        if output.shape not in (self._shape, (1, *self._shape)):
            raise ActionSpaceError(f"the graph returned {list(output.shape)}, the bundle says {self._shape}")
        raw = output.reshape(self._shape).astype(np.float64) * self._action_scale + self._action_offset
        if not np.isfinite(raw).all():
            bad = int(np.count_nonzero(~np.isfinite(raw)))
            raise NonFiniteAction(f"{bad} of the {raw.size} action values are not finite")
        base = [self._to_policy(i, value, self._action_units[i]) for i, value in enumerate(position)]
        absolute = raw + np.where(self._relative, base, 0.0)
        return np.clip(absolute, self._low, self._high) * self._factor + self._offset

    def _affine(self, index: int, unit: Unit) -> tuple[float, float, float, float]:
        """(offset, factor, low, high): robot = clip(value, low, high) * factor + offset."""
        joint = self._units.robot.joints[index]
        scale, base = (_GRIPPER_SCALE, "0_100_of_range") if unit == "normalised_gripper" else (1.0, unit)
        if base == "m" or joint.gripper != (base == "0_100_of_range"):
            raise ActionSpaceError(
                f"joint {joint.name}: the bundle's unit {unit} cannot be converted to the robot's unit "
                f"{joint.unit}"
            )
        low, high = _RANGES.get(base, (-np.inf, np.inf))
        # Two points inside every range define the line.
        at_0, at_1 = (self._units.from_policy(index, value, base) for value in (0.0, 1.0))
        return at_0, (at_1 - at_0) * scale, low / scale, high / scale

    def _to_policy(self, index: int, value: float, unit: Unit) -> float:
        if unit == "normalised_gripper":
            return self._units.to_policy(index, value, "0_100_of_range") / _GRIPPER_SCALE
        return self._units.to_policy(index, value, unit)
