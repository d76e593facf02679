"""Torque on and off: the only places where the gate changes its phase."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...drivers.arm import Arm
from ...drivers.errors import BusError, Disconnected, DriverError
from ...drivers.types import JointState
from ..budgets import Budgets
from .config import CoreConfig
from .gate import FeetechGate, GateDenied, GatePhase, GateTable
from .latch import UNFINISHED, LatchFile

RELEASE_TRIES = 3
"""Where nothing comes after it: at the end of a run and after a failed arming."""


class Refused(Exception):
    """The arm may not be energised; nothing has moved."""


@dataclass(frozen=True, slots=True)
class Options:
    """How this run is to be done, besides the core's configuration."""

    arm_url: str
    dry_run: bool
    write_gains: bool
    start_tolerance: tuple[float, ...]
    """How far outside its limits each joint may rest when torque is switched on."""
    table: Callable[[Sequence[float]], GateTable]
    """The gate's table for the measured resting position."""
    budgets: Budgets = field(default_factory=Budgets)
    parent: int = 0
    """The process of the supervisor, whose death is watched; 0: it is not."""


class Torque:
    """Knows whether this run has switched the motors on."""

    def __init__(
        self, arm: Arm, gate: FeetechGate, latch: LatchFile, options: Options, config: CoreConfig
    ) -> None:
        self._arm = arm
        self._gate = gate
        self._latch = latch
        self._options = options
        self._config = config
        self.on = False
        self.doubtful = False
        """Whether motors may hold torque that this run gave them and could not take back."""

    def switch_on(self, joint: JointState) -> JointState:
        """Goal := measured, read back, then torque; returns the sample that is held.

        Before that the latch is set: should control end without a word, the next start must not move. Raises
        `Refused` where the arm rests outside its limits or does not take its settings.
        """
        self._check_inside(joint)
        if self._options.dry_run:
            return joint
        latched = self._latch.reason()
        try:
            self._latch.set(*UNFINISHED, self._options.arm_url)
        except OSError as error:
            raise Refused(
                f"the file that remembers a stop cannot be written ({error}); make room or give another "
                "XDG_STATE_HOME"
            ) from error
        held_before: tuple[bool, ...] = ()
        try:
            self._gate.load(self._options.table(joint.position))
            self._gate.phase = GatePhase.ARM
            held_before = self._arm.torque()
            joint = self._arm.prepare(write_gains=self._options.write_gains)
            self.on = True
            self._arm.energise()
        except (DriverError, GateDenied, ValueError) as error:
            after = self._after_failure(any(held_before))
            if not self.doubtful:
                self._restore_latch(latched)
            raise Refused(f"arming failed, {after}: {error}") from error
        self._gate.phase = GatePhase.RUN
        return joint

    def switch_off(self, tries: int = 1) -> str | None:
        """Torque off for every motor; None, or why some may still hold (then it may be tried again). A lost
        answer makes it another of `tries`."""
        if not self.on:
            return None
        self._gate.phase = GatePhase.STOP
        try:
            self._arm.release()
        except (BusError, GateDenied) as error:
            if tries > 1 and not isinstance(error, Disconnected):
                return self.switch_off(tries - 1)
            self.doubtful = True
            return str(error)
        self.on = self.doubtful = False
        return None

    def _after_failure(self, held_before: bool) -> str:
        if not self.on:
            return "no torque was given"
        if held_before:
            # Letting go of an arm that a former run left holding would drop it.
            self.doubtful = True
            return "torque is left as it is, because the arm was being held"
        problem = self.switch_off(RELEASE_TRIES)
        return "torque is off again" if problem is None else f"some motors may hold torque ({problem})"

    def _restore_latch(self, reason: str | None) -> None:
        """Nothing has moved: what stood in the file before stands there again."""
        with contextlib.suppress(OSError):
            if reason is None:
                self._latch.clear()
            else:
                code, _, text = reason.partition(": ")
                self._latch.note(code, text, self._options.arm_url)

    def _check_inside(self, joint: JointState) -> None:
        config = self._config
        for i, name in enumerate(config.joint_names):
            slack = self._options.start_tolerance[i]
            if not config.low[i] - slack <= joint.position[i] <= config.high[i] + slack:
                raise Refused(
                    f"{name} rests at {joint.position[i]:.3f}, outside its limits {config.low[i]:.3f} .. "
                    f"{config.high[i]:.3f}; move it inside by hand, with the torque off, and start again"
                )
