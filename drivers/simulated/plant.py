"""Servos and physics tied together: what the servos command goes into the world, what it feels comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .faults import Faults
from .servos import Drive, Servo
from .wire_log import DRIVEN, TORQUE_ON
from .world import World


class Plant:
    """Six servos moving one `World`. The world counts positions with the calibration's homing offsets, a
    servo's registers with its own, which a host may change: the encoder's own ticks mediate."""

    def __init__(self, world: World, servos: Sequence[Servo], offsets: Sequence[int], faults: Faults) -> None:
        self.world = world
        self.servos = servos
        self.faults = faults
        self._offsets = offsets
        self.torque = [0] * len(servos)
        """What a truth record says of each motor's torque."""
        self._driven: list[tuple[Drive, bool] | None] = [None] * len(servos)
        """What the world was last told of each motor."""
        self._powered = True
        self._jammed: frozenset[int] = frozenset()
        self._feel(0.0)
        for servo in servos:
            servo.power_up()

    def step(self) -> None:
        """One physics step: drives in, physics, feedback out."""
        self.follow_faults()
        for index, servo in enumerate(self.servos):
            drive = servo.drive(World.STEP_S)
            driven = drive.torque and self._powered
            if (drive, driven) != self._driven[index]:
                self._driven[index] = drive, driven
                self.world.set_torque_limit(index, drive.torque_limit)
                self.world.set_torque(index, driven)
                self.world.set_goal(index, drive.goal_actual - self._offsets[index])
            self.torque[index] = TORQUE_ON * servo.torque_register | DRIVEN * driven
        self.world.step()
        self._feel(World.STEP_S)

    def follow_faults(self) -> None:
        """Makes servos and joints as sound or broken as `faults` says; a step does so anyway."""
        self._follow_power()
        self._follow_jams()
        for servo in self.servos:
            servo.suffer(self.faults.ailment(servo.id))

    @property
    def ticks(self) -> list[int]:
        """True shaft positions by the calibration's homing offsets, whatever the servos say of them."""
        return [servo.actual - offset for servo, offset in zip(self.servos, self._offsets, strict=True)]

    def settle_goals(self) -> None:
        """Sends every motor to where it is: after the arm was put elsewhere by hand (a reset)."""
        self._feel(0.0)
        for servo in self.servos:
            servo.put("goal_position", servo.get("present_position"))

    def _feel(self, dt_s: float) -> None:
        world = self.world
        rows = zip(
            world.present_ticks(), world.present_velocity_ticks(), world.load(), self._offsets, strict=True
        )
        for servo, (ticks, velocity, load, offset) in zip(self.servos, rows, strict=True):
            servo.feel(ticks + offset, velocity, load, dt_s)

    def _follow_power(self) -> None:
        if self.faults.power_lost == self._powered:
            self._powered = not self.faults.power_lost
            for servo in self.servos:
                servo.power_up()

    def _follow_jams(self) -> None:
        jammed = frozenset(self.faults.jammed)
        if jammed != self._jammed:
            for index, servo in enumerate(self.servos):
                self.world.set_jam(index, servo.id in jammed)
            self._jammed = jammed


def calibrated_servos(
    names: Sequence[str], calibration: Mapping[str, Mapping[str, int]]
) -> tuple[list[Servo], list[int]]:
    """Servos as they stand after calibrating, and their homing offsets (ticks), in the order of `names`."""
    servos = [
        Servo(row["id"], offset=row["homing_offset"], limits=(row["range_min"], row["range_max"]))
        for row in (calibration[name] for name in names)
    ]
    return servos, [calibration[name]["homing_offset"] for name in names]
