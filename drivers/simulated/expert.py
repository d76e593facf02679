"""A scripted expert with privileged knowledge of the scene: demonstrations for the demo policy.

It moves the COMMANDED tip at an even speed along a path to the cube, and lets the measured state decide only
when to close the jaws and when to lift. Steering by the measured tip would swing: command, smoother, bus and
motor together answer some 130 ms late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .physics import mujoco
from .scene import CUBE_HALF_M, JAW_OPENING_M, JOINTS, RANGES
from .world import World

STEP_M = 0.009
"""How far one decision moves the tip: 0.18 m/s at 20 Hz."""
JOINT_STEP_RAD = 0.06
"""How far one decision moves any joint: 1.2 rad/s at 20 Hz, so that the motors' lag stays well under the soft
cap of the lead in sim_arm.yaml."""
WINDUP_RAD = 0.25
"""The commanded pose is taken to lead the measured one by no more, else an arm held up would wind it away."""
STOP_MARGIN_RAD = 0.10
"""Kept from the hard stops, so that demonstrations stay clear of the limits of sim_arm.yaml."""
JAW_BELOW_TIP_M = 0.011
"""The jaws reach that far beyond the tip site."""
PRESS_M = 0.003
TOUCH_HOVER_M = 0.065
PICK_HOVER_M = 0.075
LIFT_M = 0.14
JAW_OPEN_M = 0.024
JAW_CLOSED_M = 0.0012
"""4 %: clear of the end of the range, where a moving target would make the stop checks bite."""
JAW_HELD_M = 0.0142
"""Jaws narrower than this around a cube hold it (half a cube is 12.5 mm)."""
_ORIENTATION_WEIGHT = 0.1
_DAMPING = 1e-2


class Expert:
    """Decides joint targets for the episode of `world`."""

    def __init__(self, world: World) -> None:
        self._world = world
        model = world.model
        self._scratch = mujoco.MjData(model)
        self._q = np.array([model.joint(name).qposadr[0] for name in JOINTS[:5]])
        self._v = np.array([model.joint(name).dofadr[0] for name in JOINTS[:5]])
        self._tip = model.site("tip").id
        self._low = np.array([RANGES[name][0] for name in JOINTS[:5]]) + STOP_MARGIN_RAD
        self._high = np.array([RANGES[name][1] for name in JOINTS[:5]]) - STOP_MARGIN_RAD

    def decide(self, commanded: Sequence[float]) -> NDArray[np.float64]:
        """The next absolute joint targets [6] after `commanded` [6]: rad; gripper in percent of its range."""
        joints = self._world.joints()
        before = joints[:5] + np.clip(np.array(commanded[:5]) - joints[:5], -WINDUP_RAD, WINDUP_RAD)
        sight = self._world.sight()
        cube = sight.cubes[self._world.episode.colour]
        tip = self.tip(before)
        if self._world.episode.task == "touch":
            goal, jaw = _touch(tip, cube)
        else:
            goal, jaw = _pick(tip, sight.tip, cube, float(joints[5]))
        way = goal - tip
        waypoint = tip + way * min(1.0, STEP_M / max(float(np.linalg.norm(way)), 1e-9))
        arm = self.inverse(before, waypoint)
        step = arm - before
        step *= min(1.0, JOINT_STEP_RAD / max(float(np.abs(step).max()), 1e-9))
        return np.append(before + step, 100.0 * jaw / JAW_OPENING_M)

    def tip(self, arm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Position of the tip [3] (m) at arm joints [5]."""
        self._scratch.qpos[self._q] = arm
        mujoco.mj_kinematics(self._world.model, self._scratch)
        return self._scratch.site_xpos[self._tip].copy()

    def inverse(
        self, start: NDArray[np.float64], point: NDArray[np.float64], iterations: int = 12
    ) -> NDArray[np.float64]:
        """Arm joints [5] that bring the tip to `point` (m), hand pointing down and not rolled.

        Damped least squares (Nakamura and Hanafusa 1986) on MuJoCo's Jacobian, from `start`.
        """
        model, data = self._world.model, self._scratch
        q = start.copy()
        jacobian = np.zeros((3, model.nv))
        rows = np.zeros((5, 5))
        rows[3, 1:4] = _ORIENTATION_WEIGHT
        rows[4, 4] = _ORIENTATION_WEIGHT
        for _ in range(iterations):
            data.qpos[self._q] = q
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            pitch = _ORIENTATION_WEIGHT * (math.pi / 2 - q[1:4].sum())
            error = np.append(point - data.site_xpos[self._tip], [pitch, -_ORIENTATION_WEIGHT * q[4]])
            if np.abs(error).max() < 2e-4:
                break
            mujoco.mj_jacSite(model, data, jacobian, None, self._tip)
            rows[:3] = jacobian[:, self._v]
            step = rows.T @ np.linalg.solve(rows @ rows.T + _DAMPING**2 * np.eye(5), error)
            q = np.clip(q + np.clip(step, -0.3, 0.3), self._low, self._high)
        return q


def _touch(tip: NDArray[np.float64], cube: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Where the tip should go and how far the jaws should open (m): over the cube, then down onto it."""
    contact = 2 * CUBE_HALF_M + JAW_BELOW_TIP_M - PRESS_M
    return _over_and_down(tip, cube, near=0.008, low=contact, brink=0.05, high=TOUCH_HOVER_M), JAW_CLOSED_M


def _pick(
    tip: NDArray[np.float64], measured: NDArray[np.float64], cube: NDArray[np.float64], jaw: float
) -> tuple[NDArray[np.float64], float]:
    """Over the cube with open jaws, down, close, and up where they hold something.

    `tip` is the commanded one, `measured` the true one, `jaw` the true opening (m).
    """
    grasp = float(cube[2]) + 0.002
    around = float(np.hypot(*(cube[:2] - measured[:2]))) < 0.008 and abs(measured[2] - grasp) < 0.008
    if around and jaw < JAW_HELD_M:
        return np.array([tip[0], tip[1], LIFT_M]), JAW_CLOSED_M
    if around:
        return np.array([cube[0], cube[1], grasp]), JAW_CLOSED_M
    return _over_and_down(tip, cube, near=0.008, low=grasp, brink=0.042, high=PICK_HOVER_M), JAW_OPEN_M


def _over_and_down(
    tip: NDArray[np.float64], cube: NDArray[np.float64], *, near: float, low: float, brink: float, high: float
) -> NDArray[np.float64]:
    """The tip's goal (m): at height `high` while more than 3 cm aside, sinking to `brink` until `near`, then
    straight down to `low`. A tip that is low but aside rises first, or it would push cubes about."""
    aside = float(np.hypot(*(cube[:2] - tip[:2])))
    if aside < near:
        return np.array([cube[0], cube[1], low])
    height = high - (high - brink) * min(1.0, max(0.0, (0.03 - aside) / (0.03 - near)))
    goal = np.array([cube[0], cube[1], height])
    if tip[2] < brink - 0.004 and aside > 0.015:
        goal[:2] = tip[:2] + 0.2 * (cube[:2] - tip[:2])
    return goal
