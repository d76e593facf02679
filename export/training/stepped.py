"""The control loop around the simulated arm in stepped time: what vla-run does, without clocks or processes.

One `tick` is one control period: measured ticks through the calibration, target through the runtime's own
clamp and smoother, setpoint rounded to ticks, one period of bus delay, then the physics with the motors' lag.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...drivers.calibration import load_calibration
from ...drivers.robots.schema import Robot, load_robot
from ...drivers.simulated.world import CALIBRATION, World
from ...drivers.units import JointUnits
from ...runtime.control.chain import clamp_target
from ...runtime.control.config import CoreConfig, core_config
from ...runtime.control.executor import Path, Target, target_at
from ...runtime.control.smoother import LOOKAHEAD_S, Motion, Smoother

CHUNK_STEPS = 16
DT_S = 0.05
"""Time between two actions of a chunk: 20 Hz."""
LOOKAHEAD_NS = round(LOOKAHEAD_S * 1e9)


@dataclass(frozen=True, slots=True)
class SavedArm:
    world: tuple[object, ...]
    motion: Motion
    pending: tuple[int, ...]


class SteppedArm:
    """A simulated arm under control. Torque is on from the start; the arm holds where it is."""

    def __init__(self, world: World, robot: Robot | None = None) -> None:
        robot = robot or load_robot("sim_arm")
        self.world = world
        self._units = JointUnits(robot, load_calibration(CALIBRATION, robot))
        self.config: CoreConfig = core_config(
            robot, self._units, control_hz=None, chunk_steps=CHUNK_STEPS, chunk_dt_ns=round(DT_S * 1e9)
        )
        self.tick_s = self.config.dt_ns * 1e-9
        self.ticks_per_action = round(DT_S / self.tick_s)
        self._physics_steps = round(self.tick_s / World.STEP_S)
        self._smoother = Smoother(self.config.kinematic, self.tick_s)
        for index, joint in enumerate(robot.joints):
            world.set_torque_limit(index, joint.motor.torque_limit)
        self.rest()

    def rest(self) -> None:
        """Arms anew where the joints are: goal := measured, torque on, commanded state at rest."""
        ticks = self.world.present_ticks()
        for index, value in enumerate(ticks):
            self.world.set_goal(index, value)
            self.world.set_torque(index, True)
        self._pending = tuple(ticks)
        self.motion = Motion.at_rest(self._units.to_positions(ticks))

    def measured(self) -> tuple[float, ...]:
        """Joint positions as the bus would report them: rad, gripper in percent."""
        return self._units.to_positions(self.world.present_ticks())

    def tick(self, target: Target | None, *, judged: bool = True) -> None:
        """One control period towards `target`; without one the arm brakes and holds."""
        if target is None:
            self.motion = self._smoother.brake(self.motion)
        else:
            target = clamp_target(target, self.measured(), self.config).target
            self.motion = self._smoother.toward(self.motion, target.position, target.velocity)
        for index, value in enumerate(self._pending):
            self.world.set_goal(index, value)
        self._pending = tuple(self._units.to_ticks(self.motion.position))
        for _ in range(self._physics_steps):
            self.world.step(judged=judged)

    def follow_line(self, start: tuple[float, ...], end: tuple[float, ...], *, judged: bool = True) -> None:
        """Executes one action: `start` to `end` in `DT_S`, as the executor reads a chunk that ends there."""
        path = Path(1, 0, 0, round(DT_S * 1e9), (start, end))
        for k in range(self.ticks_per_action):
            self.tick(target_at(path, k * self.config.dt_ns, LOOKAHEAD_NS), judged=judged)

    def save(self) -> SavedArm:
        """Everything to branch from here."""
        return SavedArm(self.world.save(), self.motion, self._pending)

    def restore(self, saved: SavedArm) -> None:
        self.world.restore(saved.world)
        self.motion, self._pending = saved.motion, saved.pending
