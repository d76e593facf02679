"""The simulated table-top in MuJoCo: six servo motors, three cubes, a judge. It knows ticks, not protocols.

Positions of motors are ticks as an STS3215 reports them (4096 per revolution; present = actual - homing
offset), in robot joint order, by the calibration `robots/calibrations/sim_arm.json`: the middle of an arm
joint's range is 0 rad; the gripper's range goes linearly from closed to open.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import scene
from .eye import Eye
from .judge import Episode, Progress, Sight, Verdict, advance
from .physics import mujoco
from .tasks import draw_cubes, draw_episode

__all__ = ["Eye", "World"]

CALIBRATION = Path(__file__).parents[1] / "robots" / "calibrations" / "sim_arm.json"
START = (0.0, -0.75, 0.75, 1.40, 0.0, 0.0)
"""Where a reset puts the joints: the start pose of sim_arm.yaml (rad; gripper jaw in m)."""
START_NOISE = (0.15, 0.08, 0.08, 0.10, 0.02, 0.0)
TICKS_PER_REV = 4096
MOTOR_LAG_S = 0.015
"""Time constant of the motor's answer to its goal, before the mechanics."""
MOTOR_SPEED_TICKS_S = 3400
"""An STS3215's top speed at 12 V: about 50 rpm."""
CAROUSEL_RAD_S = 0.15
"""Angular rate of the moving-target task: a cube 20 cm away goes at 3 cm/s."""
_RIDES_BELOW_M = scene.CUBE_HALF_M + 0.003
"""A cube rides on the carousel while its centre is lower: once lifted it is the gripper's."""
_LIMP_DAMPING = 0.4
_JAM_DAMPING = 4000.0


class World:
    """The physics. Not thread-safe. Starts with torque off, at the start pose."""

    STEP_S: float = scene.STEP_S

    def __init__(self, seed: int = 0) -> None:
        self.model = scene.build_model()
        self.data = mujoco.MjData(self.model)
        model = self.model
        calibration = json.loads(CALIBRATION.read_text())
        rows = [calibration[name] for name in scene.JOINTS]
        low = np.array([row["range_min"] for row in rows], float)
        high = np.array([row["range_max"] for row in rows], float)
        gripper = np.array([name == "gripper" for name in scene.JOINTS])
        self._zero_ticks = np.where(gripper, low, (low + high) / 2)
        self._ticks_per_unit = np.where(
            gripper, (high - low) / scene.JAW_OPENING_M, TICKS_PER_REV / (2 * math.pi)
        )
        self._joint_q = np.array([model.joint(name).qposadr[0] for name in scene.JOINTS])
        self._joint_v = np.array([model.joint(name).dofadr[0] for name in scene.JOINTS])
        self._mirror_q = int(model.joint("gripper_r").qposadr[0])
        self._mirror_v = int(model.joint("gripper_r").dofadr[0])
        self._cube_q = {c: int(model.joint(c).qposadr[0]) for c in scene.COLOURS}
        self._cube_v = {c: int(model.joint(c).dofadr[0]) for c in scene.COLOURS}
        self._tip = model.site("tip").id
        self._gain = model.actuator_gainprm[:, 0].copy()
        self._bias = model.actuator_biasprm[:, :3].copy()
        self._damping = model.dof_damping.copy()
        self._force_limit = model.actuator_forcerange[:, 1].copy()
        self._colour_of_geom = {int(model.geom(colour).id): colour for colour in scene.COLOURS}
        self._table_geom = int(model.geom("table").id)
        self._torque = [False] * len(rows)
        self._goal = np.zeros(len(rows))
        """Where each motor is sent, in joint units."""
        self._filtered = np.zeros(len(rows))
        """The goal after the motor's own lag."""
        for index in range(len(rows)):
            self._apply_torque(index)
        self.reset(seed)

    @property
    def time_s(self) -> float:
        """Simulated time."""
        return float(self.data.time)

    @property
    def goal_ticks(self) -> list[int | None]:
        """Goal of each motor; None while its torque is off (limp: damped, gravity compensated)."""
        ticks = self._to_ticks(self._goal)
        return [goal if on else None for goal, on in zip(ticks, self._torque, strict=True)]

    def reset(
        self, seed: int, task: str | None = None, colour: str | None = None, *, keep_arm: bool = False
    ) -> Episode:
        """Puts the cubes anew and starts an episode; `keep_arm` leaves joints, goals and torque alone.

        Without it the joints go to the start pose plus noise and the goals follow. Everything is drawn from
        `seed`. Raises `ValueError` for an unknown task or colour.
        """
        rng = np.random.default_rng(seed)
        episode = draw_episode(rng, seed, task, colour)
        for name, (point, yaw) in draw_cubes(rng).items():
            a, v = self._cube_q[name], self._cube_v[name]
            pose = [*point, scene.CUBE_HALF_M, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
            self.data.qpos[a : a + 7] = pose
            self.data.qvel[v : v + 6] = 0.0
        if not keep_arm:
            self.place_arm(np.array(START) + rng.normal(0.0, 1.0, len(START)) * np.array(START_NOISE))
        mujoco.mj_forward(self.model, self.data)
        self.episode = episode
        self._progress = Progress()
        self._carousel_rad_s = 0.0
        return episode

    def turn_carousel(self, rate_rad_s: float = CAROUSEL_RAD_S) -> None:
        """Sets the cubes going round the arm's base axis at `rate_rad_s`, until the next reset; 0 stops them.

        The direction is the one that brings the named cube towards the middle of the sector in which cubes
        are placed (`tasks.BEARING_RAD`): at the usual rate it stays inside for the 5 s of a touch. Cubes are
        moved along whatever holds them back, as by a table that turns under them; lifted ones are let go.
        Raises `ValueError` for a negative rate or one that is not finite.
        """
        if not 0 <= rate_rad_s < math.inf:
            raise ValueError(f"a carousel turns at 0 rad/s or more, got {rate_rad_s}")
        x, y = self.data.qpos[self._cube_q[self.episode.colour] :][:2]
        self._carousel_rad_s = -math.copysign(rate_rad_s, math.atan2(y, x))

    def place_arm(self, joints: NDArray[np.float64]) -> None:
        """Puts the arm at rest at `joints` (rad; jaw in m) with the goals there."""
        self.data.qpos[self._joint_q] = joints
        self.data.qpos[self._mirror_q] = joints[-1]
        self.data.qvel[self._joint_v] = 0.0
        self.data.qvel[self._mirror_v] = 0.0
        self.data.qacc_warmstart[:] = 0.0
        self._goal = np.array(joints, float)
        self._filtered = self._goal.copy()
        mujoco.mj_forward(self.model, self.data)

    def set_goal(self, motor_index: int, ticks: int) -> None:
        """Sends a motor to `ticks`; with torque off it goes there when torque comes on."""
        unit = (ticks - self._zero_ticks[motor_index]) / self._ticks_per_unit[motor_index]
        self._goal[motor_index] = unit

    def set_torque(self, motor_index: int, on: bool) -> None:
        """Switches a motor's torque; it then starts from where the joint is."""
        if on and not self._torque[motor_index]:
            self._filtered[motor_index] = self.data.qpos[self._joint_q[motor_index]]
        self._torque[motor_index] = on
        self._apply_torque(motor_index)

    def set_jam(self, motor_index: int, on: bool) -> None:
        """Blocks a joint mechanically (damping far above the motor's torque), or frees it."""
        v = self._joint_v[motor_index]
        self.model.dof_damping[v] = _JAM_DAMPING if on else self._damping[v]

    def set_torque_limit(self, motor_index: int, fraction: float) -> None:
        """Limits a motor's torque to a fraction (0..1) of its full torque."""
        limit = self._force_limit[motor_index] * fraction
        self.model.actuator_forcerange[motor_index] = (-limit, limit)

    def present_ticks(self) -> list[int]:
        """Measured position of each motor, in ticks."""
        return self._to_ticks(self.data.qpos[self._joint_q])

    def present_velocity_ticks(self) -> list[int]:
        """Measured velocity of each motor, in ticks/s."""
        return [round(v) for v in (self.data.qvel[self._joint_v] * self._ticks_per_unit).tolist()]

    def load(self) -> list[float]:
        """Drive of each motor as a fraction of its full torque, -1..1."""
        return np.clip(self.data.actuator_force / self._force_limit, -1.0, 1.0).tolist()

    def step(self, *, judged: bool = True) -> None:
        """One physics step of `STEP_S`; the judge need not watch a branch that will be thrown away."""
        reach = MOTOR_SPEED_TICKS_S / self._ticks_per_unit * self.STEP_S
        alpha = 1.0 - math.exp(-self.STEP_S / MOTOR_LAG_S)
        self._filtered += np.clip(alpha * (self._goal - self._filtered), -reach, reach)
        self.data.ctrl[:] = self._filtered
        if self._carousel_rad_s:
            self._turn(self._carousel_rad_s * self.STEP_S)
        mujoco.mj_step(self.model, self.data)
        if judged:
            self._progress = advance(self._progress, self.episode, self.sight(), self.STEP_S)

    def joints(self) -> NDArray[np.float64]:
        """True joint positions [6] (rad; jaw in m)."""
        return self.data.qpos[self._joint_q].copy()

    def sight(self) -> Sight:
        """What is true now, for the judge and the expert."""
        colour_of, table = self._colour_of_geom, self._table_geom
        touching: set[str] = set()
        for one, other in self.data.contact.geom.tolist():
            if (one in colour_of) != (other in colour_of) and table not in (one, other):
                touching.add(colour_of.get(one) or colour_of[other])
        qpos = self.data.qpos
        cubes = {c: qpos[a : a + 3].copy() for c, a in self._cube_q.items()}
        return Sight(frozenset(touching), self.data.site_xpos[self._tip].copy(), cubes)

    def judge(self) -> Verdict:
        """What has come of the episode since the last reset."""
        return self._progress.verdict

    def snapshot(self) -> NDArray[np.float64]:
        """The full integration state, for an `Eye`, perhaps in another process."""
        spec = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        out = np.empty(mujoco.mj_stateSize(self.model, spec))
        mujoco.mj_getState(self.model, self.data, out, spec)
        return out

    def save(self) -> tuple[object, ...]:
        """Everything that `restore` needs to branch a roll-out from here."""
        return self.snapshot(), self._goal.copy(), self._filtered.copy(), self._progress

    def restore(self, saved: tuple[object, ...]) -> None:
        """Back to a state given by `save` of the same episode."""
        state, goal, filtered, progress = saved
        assert isinstance(goal, np.ndarray)
        assert isinstance(filtered, np.ndarray)
        assert isinstance(progress, Progress)
        mujoco.mj_setState(self.model, self.data, state, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_forward(self.model, self.data)
        self._goal, self._filtered, self._progress = goal.copy(), filtered.copy(), progress

    def _turn(self, angle: float) -> None:
        """Turns every cube that stands on the table about the base axis, place and orientation."""
        c, s = math.cos(angle), math.sin(angle)
        half = np.array([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)])
        for a in self._cube_q.values():
            pose = self.data.qpos[a : a + 7]
            if pose[2] < _RIDES_BELOW_M:
                pose[:2] = c * pose[0] - s * pose[1], s * pose[0] + c * pose[1]
                mujoco.mju_mulQuat(pose[3:], half, pose[3:].copy())

    def _to_ticks(self, joints: NDArray[np.float64]) -> list[int]:
        return [round(v) for v in (self._zero_ticks + joints * self._ticks_per_unit).tolist()]

    def _apply_torque(self, index: int) -> None:
        model = self.model
        if self._torque[index]:
            model.actuator_gainprm[index, 0] = self._gain[index]
            model.actuator_biasprm[index, :3] = self._bias[index]
        else:
            model.actuator_gainprm[index, 0] = 0.0
            model.actuator_biasprm[index, :3] = (0.0, 0.0, -_LIMP_DAMPING)
