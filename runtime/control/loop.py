"""The tick: bus, inbox, core, gate and port, telemetry. Everything that judges is in the pure core."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace

from ...drivers.arm import Arm
from ...drivers.errors import BusError, Disconnected
from ...drivers.types import JointState
from ..channel import Channel
from ..messages import Phase
from ..recorder.in_control import ControlRecorder
from .arming import RELEASE_TRIES, Options, Refused, Torque
from .clock import Grid, Wake
from .core import ControlCore
from .deadlines import stops
from .gate import FeetechGate, GateDenied
from .inbox import Inboxes
from .latch import UNFINISHED, LatchFile
from .state import Condition, CoreState, Finish, Inbox, Note
from .stop_inputs import StopInputs
from .telemetry import Telemetry
from .watchdog import Watchdog, WatchdogError

ARMING_READS = 20
MAX_FAILED_WRITES = 3
"""So many setpoints in a row that could not be sent are a stop; the motors hold the last one meanwhile."""
RELEASE_AGAIN_NS = 100_000_000
"""A release that failed is tried again after this time, for as long as control runs."""
MAX_ERRORS = 3
"""So many ticks in a row that fail by an error of our own end the process; the motors hold."""


class ControlLoop:
    """Owns the arm, the gate and both channels until the run is over."""

    def __init__(
        self,
        core: ControlCore,
        arm: Arm,
        gate: FeetechGate,
        supervisor: Channel,
        policy: Channel,
        latch: LatchFile,
        options: Options,
        clock: Callable[[], int] = time.monotonic_ns,
        flight: ControlRecorder | None = None,
        stop_inputs: StopInputs | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.core = core
        self.arm = arm
        self.gate = gate
        self.latch = latch
        self.options = options
        self.state = CoreState()
        self.telemetry = Telemetry(supervisor, policy, clock, options.budgets)
        self.torque = Torque(arm, gate, latch, options, core.config)
        self.stop_inputs = stop_inputs or StopInputs()
        self.watchdog = watchdog
        self.crashed = False
        """Whether an error of our own ended the run."""
        self.release_failed = False
        """Whether motors may hold torque although they should not."""
        self._inboxes = Inboxes(supervisor, policy, self.telemetry.closed, options.parent)
        self._clock = clock
        self.flight = flight or ControlRecorder()
        self._grid = Grid(core.config.dt_ns, clock)
        self._measured: JointState | None = None
        self._pending: list[Condition] = []
        self._failed_writes = 0
        self._errors = 0
        self._stepped = False
        """Whether the core has made its step of this tick."""
        self._terminated = False
        self._letting_go = False
        """Whether the core has asked for torque off, and some motors may still hold it."""
        self._release_tried_ns = 0

    def terminate(self) -> None:
        """For the signal handler: stop, then leave the arm as after a fault."""
        self._terminated = True

    def run(self) -> Finish:
        """Ticks until the run is over; says how the arm was left. Raises `Refused` before any torque."""
        self.flight.state(self.state, self._clock())
        self._grid.restart()
        while True:
            wake = self._grid.wait()
            try:
                finish = self._tick(wake)
                self._errors = 0
            except Refused:
                raise
            except Exception as error:  # noqa: BLE001 - the last resort: whatever it is, the arm must stop
                finish = self._survive(error)
            if finish is not None:
                return self._leave(finish)

    def _tick(self, wake: Wake) -> Finish | None:
        telemetry = self.telemetry
        self._stepped = False
        telemetry.stages.add("wake_late", wake.late_ns)
        telemetry.rates.tick(wake.wake_ns)
        joint = self._read()
        polled = self.stop_inputs.poll()
        pending, terminated = tuple(self._pending), self._terminated
        inbox = self._inboxes.collect(wake, pending, terminated, polled)
        if self._may_arm(inbox):
            self._energise(joint)
            # The slots that passed meanwhile, and before, are no misses of this run.
            inbox = replace(inbox, slots_run=0, slots_late=0, slots_overrun=0)
            joint = self._read()
        before, seen = self._clock(), self._core_joint(joint)
        self.state, output = self.core.step(self.state, before, seen, inbox)
        self._stepped = True
        # Only what the core has seen may be forgotten: a signal may come, and a read fail, at any time.
        del self._pending[: len(pending)]
        self._terminated = self._terminated and not terminated
        telemetry.stages.add("step", self._clock() - before)
        self.flight.tick(wake, before, seen, inbox, self.state, output)
        if output.setpoint is not None and self.torque.on:
            self._write(output.setpoint)
        # Before anything that may take time: letting go may be what the arm needs most.
        released = self._let_go(output.release)
        now = self._clock()
        if output.new_chunk_id and inbox.chunk is not None:
            telemetry.chunk_used(inbox.chunk, self._inboxes.chunk_sent_ns, wake, now)
        self._tell((*polled.notes, *output.notes, *released))
        self._feed(now)
        self._pending += telemetry.tick_done(self.state, self._measured, now)
        self.flight.keyframe(self.state, now)
        problem = self.flight.take_problem()
        if problem:
            telemetry.report(Note("recorder", problem))
        telemetry.stages.add("tick", self._clock() - wake.wake_ns)
        if inbox.reset and self.state.phase in (Phase.STOPPED, Phase.HOLD):
            self._tell(self.stop_inputs.reopen())
        return output.finish

    def _may_arm(self, inbox: Inbox) -> bool:
        """Torque is given to nobody who asks for an end, or while something is wrong, in the same breath."""
        return (
            inbox.arm is not None
            and self.state.motion is None
            and inbox.quit is None
            and not any(stops(condition.code, self.core.config.reactions) for condition in inbox.conditions)
        )

    def _read(self) -> JointState | None:
        start = self._clock()
        try:
            joint = self.arm.read()
        except Disconnected as error:
            self._pending.append(Condition("bus_lost", str(error)))
            return None
        except BusError as error:
            self._bus_error(error)
            return None
        end = self._clock()
        self.telemetry.stages.add("bus_read", end - start)
        self.telemetry.stages.add("joint_age", end - joint.stamp_ns)
        self._measured = joint
        return joint

    def _bus_error(self, error: Exception) -> None:
        self.telemetry.bus_errors += 1
        self.telemetry.report(Note("bus_error", str(error)))

    def _core_joint(self, joint: JointState | None) -> JointState | None:
        """In a dry run the arm does not follow, so the core sees the commanded position as reached."""
        if joint is None or not self.options.dry_run or self.state.motion is None:
            return joint
        motion = self.state.motion
        return replace(joint, position=motion.position, velocity=motion.velocity)

    def _write(self, setpoint: tuple[float, ...]) -> None:
        start = self._clock()
        try:
            self.arm.command(setpoint)
            self._failed_writes = 0
        except GateDenied as error:
            self._pending.append(Condition("gate_denied", str(error)))
        except Disconnected as error:
            self._pending.append(Condition("bus_lost", str(error)))
        except (BusError, ValueError) as error:
            self._failed_writes += 1
            self._bus_error(error)
            if self._failed_writes >= MAX_FAILED_WRITES:
                self._pending.append(Condition("bus_write_failed", str(error)))
        self.telemetry.stages.add("bus_write", self._clock() - start)

    def _energise(self, joint: JointState | None) -> None:
        for _ in range(ARMING_READS):
            # One lost answer must not end a run before it began; the arm has no torque of ours yet.
            joint = joint or self._read()
        if joint is None:
            raise Refused("no complete joint state at the moment of arming; try again")
        self._start_watchdog()
        joint = self.torque.switch_on(joint)
        self.state = self.core.energised(self.state, joint, self._clock())
        self.flight.state(self.state, self._clock())
        text = "dry run: no torque is given" if self.options.dry_run else "torque is on"
        self.telemetry.report(Note("armed", text))
        self._grid.restart()
        self.telemetry.armed(self._clock())

    def _let_go(self, asked: bool, tries: int = 1) -> list[Note]:
        """Torque off where the core asks for it; tried again until every motor has answered. What is to be
        said about it."""
        self._letting_go |= asked
        now = self._clock()
        if not self._letting_go or (not asked and now - self._release_tried_ns < RELEASE_AGAIN_NS):
            return []
        problem = self.torque.switch_off(tries)
        self._release_tried_ns = self._clock()
        if problem is None:
            self._letting_go = False
            if not self.release_failed:
                return []
            self.release_failed = False
            return [Note("released", "torque is off, after all")]
        if self.release_failed:
            return []
        self.release_failed = True
        return [Note("release_failed", f"some motors may still hold torque: {problem}")]

    def _feed(self, now_ns: int) -> None:
        if self.watchdog is None:
            return
        try:
            self.watchdog.feed(now_ns)
        except OSError as error:
            # The computer is about to be reset: better at rest.
            text = f"the watchdog {self.watchdog.path} cannot be fed: {error.strerror}"
            self._pending.append(Condition("internal", text))

    def _tell(self, notes: Iterable[Note]) -> None:
        for note in notes:
            self.telemetry.report(note)
            self._remember(note)

    def _remember(self, note: Note) -> None:
        """Keeps the stop's reason in the latch file, once the arm is at rest: storage may be slow. That the
        run has not ended well stands there since arming."""
        stop = self.state.stop
        accepted = note.code == "reset" and stop is None
        if note.code == "release_failed":
            self._keep(note.code, note.text)
        elif note.code in ("stopped", "released") or accepted:
            self._keep(*((stop.code, stop.text) if stop else UNFINISHED))

    def _keep(self, code: str, text: str) -> None:
        if self.options.dry_run:
            # Nothing has moved: the next start has nothing to ask about.
            return
        try:
            self.latch.note(code, text, self.options.arm_url)
        except OSError as error:
            self.telemetry.report(Note("latch_failed", f"the reason could not be kept: {error}"))

    def _survive(self, error: Exception) -> Finish | None:
        """An error of our own: the arm brakes all the same; once at rest, if it goes on, the motors hold and
        the process ends."""
        traceback.print_exception(error, file=sys.stderr)
        self._errors += 1
        if self.state.motion is None:
            self._release()
            raise error
        text = f"{type(error).__name__}: {error}"
        self._pending.append(Condition("internal", text))
        try:
            if not self._stepped:
                # Else this slot has its setpoint: a second one would be motion at twice the speed.
                self._step_blindly()
            going_on = self._errors < MAX_ERRORS or self.state.phase == Phase.STOPPING
        except Exception:  # noqa: BLE001 - nothing is left that could bring the arm to rest
            traceback.print_exc(file=sys.stderr)
            going_on = False
        if going_on:
            return None
        self.crashed = True
        self._keep("internal", text)
        return "hold"

    def _step_blindly(self) -> None:
        """The core's step of a tick that failed on its way to it: without a sample, with what is pending."""
        inbox = Inbox(conditions=tuple(self._pending), slots_run=0)
        now = self._clock()
        self.state, output = self.core.step(self.state, now, None, inbox)
        self._pending = []
        if output.setpoint is not None and self.torque.on:
            self._write(output.setpoint)
        released = self._let_go(output.release)
        with contextlib.suppress(Exception):
            self.flight.tick(None, now, None, inbox, self.state, output)
            self._tell((*output.notes, *released))

    def _release(self) -> None:
        self._tell(self._let_go(True, RELEASE_TRIES))

    def _leave(self, finish: Finish) -> Finish:
        report = self.telemetry.report
        if self.state.motion is not None and self.options.dry_run:
            report(Note("released", "dry run: torque was not touched"))
        elif self.state.motion is not None or self.torque.on:
            if finish == "release" or self._letting_go:
                self._release()
            if self.torque.on or self.release_failed:
                unknown = "whether the motors hold is not known: they were silent or could not be released"
                doubtful = self.state.silent or self.release_failed
                report(Note("held", unknown if doubtful else "motors hold their last goal with torque on"))
            else:
                report(Note("released", "torque is off"))
            if not (self.state.latched or self.crashed or self.release_failed):
                with contextlib.suppress(OSError):
                    # If it stays, the next start asks for --reset: the safe side.
                    self.latch.clear()
        self._stop_watchdog()
        self.telemetry.last_words(self.state, self._measured)
        return finish

    def _start_watchdog(self) -> None:
        if self.watchdog is None or self.options.dry_run:
            return
        try:
            text = self.watchdog.open(self._clock())
        except WatchdogError as error:
            raise Refused(str(error)) from error
        self.telemetry.report(Note("guard", f"watchdog: {text}"))

    def _stop_watchdog(self) -> None:
        if self.watchdog is None:
            return
        try:
            self.watchdog.close(orderly=not self.crashed)
        except OSError as error:
            self.telemetry.report(Note("watchdog", f"it could not be stopped: {error.strerror}"))
