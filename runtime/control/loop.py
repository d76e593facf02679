"""The tick: bus, inbox, core, gate and port, messages out. Everything that judges is in the pure core."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...drivers.arm import Arm
from ...drivers.errors import BusError, Disconnected, DriverError
from ...drivers.types import JointState
from ..channel import Channel, ChannelClosed
from ..envelope import Envelope
from ..messages import (
    Arm as ArmMessage,
)
from ..messages import (
    Chunk,
    Event,
    Fault,
    Heartbeat,
    Message,
    MessageError,
    Quit,
    Reset,
    Snapshot,
    State,
    Stop,
)
from .clock import Grid, Wake
from .core import ControlCore
from .gate import FeetechGate, GateDenied, GatePhase, GateTable
from .latch import LatchFile
from .measure import Rates, Recorders
from .state import Condition, CoreState, Finish, Inbox, Note

MAX_FAILED_WRITES = 3
"""So many setpoints in a row that could not be sent are a stop; the motors hold the last one meanwhile."""
_SNAPSHOT_NS = 100_000_000
_HISTOGRAM_NS = 1_000_000_000
_REPEAT_NS = 200_000_000
ARMING_READS = 5
_FREQUENT = frozenset({"clamped", "bus_error", "starved", "resumed", "gate_denied"})
"""Events that may come at every tick: reported at most five times a second, counted always."""


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
    ) -> None:
        self.core = core
        self.arm = arm
        self.gate = gate
        self.supervisor = supervisor
        self.policy = policy
        self.latch = latch
        self.options = options
        self.state = CoreState()
        self.refused = ""
        self._clock = clock
        self._grid = Grid(core.config.dt_ns, clock)
        self._rates = Rates()
        self._stages = Recorders()
        self._torque = False
        self._measured: JointState | None = None
        self._bus_errors = 0
        self._failed_writes = 0
        self._pending: list[Condition] = []
        self._closed: set[str] = set()
        self._reported_ns: dict[str, int] = {}
        self._next_snapshot_ns = 0
        self._next_histogram_ns = 0
        self._chunk: Chunk | None = None
        self._chunk_sent_ns = 0
        self._frame_age_ns = 0
        self._terminated = False

    def terminate(self) -> None:
        """For the signal handler: stop, then leave the arm as after a fault."""
        self._terminated = True

    def run(self) -> Finish:
        """Ticks until the run is over; says how the arm was left. Raises `Refused` before any torque."""
        self._grid.restart()
        while True:
            finish = self._tick(self._grid.wait())
            if finish is not None:
                return self._leave(finish)

    def _tick(self, wake: Wake) -> Finish | None:
        self._stages.add("wake_late", wake.late_ns)
        joint = self._read()
        inbox = self._collect(wake)
        if inbox.arm is not None and self.state.motion is None:
            for _ in range(ARMING_READS):
                # One lost answer must not end a run before it began; the arm has no torque yet.
                joint = joint or self._read()
            self._energise(joint)
            # The slots that passed meanwhile, and before, are no misses of this run.
            inbox = replace(inbox, slots_run=0, slots_missed=0)
            joint = self._read()
        before = self._clock()
        self._rates.tick(wake.wake_ns)
        was_latched = self.state.latched
        self.state, output = self.core.step(self.state, before, self._core_joint(joint), inbox)
        self._stages.add("step", self._clock() - before)
        if output.setpoint is not None and self._torque:
            self._write(output.setpoint)
        now = self._clock()
        if output.new_chunk_id and self._chunk is not None:
            self._measure_chunk(self._chunk, wake, now)
        if output.release:
            self._release()
        for note in output.notes:
            self.report(note)
        if self.state.latched and not was_latched and not self.options.dry_run and self.state.stop:
            self.latch.set(self.state.stop.code, self.state.stop.text, self.options.arm_url)
        elif was_latched and not self.state.latched:
            self.latch.clear()
        self._send_state(now)
        self._stages.add("tick", self._clock() - wake.wake_ns)
        return output.finish

    def _read(self) -> JointState | None:
        start = self._clock()
        try:
            joint = self.arm.read()
        except Disconnected as error:
            self._pending.append(Condition("bus_lost", str(error)))
            return None
        except BusError as error:
            self._bus_errors += 1
            self.report(Note("bus_error", str(error)))
            return None
        end = self._clock()
        self._stages.add("bus_read", end - start)
        self._stages.add("joint_age", end - joint.stamp_ns)
        self._measured = joint
        return joint

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
            self._bus_errors += 1
            self.report(Note("bus_error", str(error)))
            if self._failed_writes >= MAX_FAILED_WRITES:
                self._pending.append(Condition("bus_write_failed", str(error)))
        self._stages.add("bus_write", self._clock() - start)

    def _receive(self, name: str, channel: Channel) -> tuple[list[Envelope], list[Condition]]:
        if name in self._closed:
            return [], []
        try:
            return channel.receive_all(), []
        except ChannelClosed:
            self._closed.add(name)
            return [], [Condition(f"{name}_lost", f"the {name} process has ended")]
        except MessageError as error:
            return [], [Condition("protocol", f"from the {name}: {error}")]

    def _collect(self, wake: Wake) -> Inbox:
        """Drains both channels; of several chunks the newest counts."""
        from_policy, conditions = self._receive("policy", self.policy)
        from_supervisor, more = self._receive("supervisor", self.supervisor)
        conditions = [*self._pending, *conditions, *more]
        self._pending = []
        chunk: Chunk | None = None
        superseded = 0
        for envelope in from_policy:
            match envelope.message:
                case Chunk() as message:
                    superseded += chunk is not None
                    chunk, self._chunk_sent_ns = message, envelope.stamp_ns
                case Fault(code=code, text=text):
                    conditions.append(Condition(code, text))
                case Heartbeat():
                    pass
                case other:
                    conditions.append(Condition("protocol", f"a {other.TYPE.name} from the policy"))
        self._chunk = chunk
        if chunk is not None:
            self._frame_age_ns = chunk.inference_start_ns - chunk.observation_ns
        arm, stop, reset, quit_ = None, None, False, None
        for envelope in from_supervisor:
            match envelope.message:
                case ArmMessage() as message:
                    arm = message
                case Stop(latched=True, reason=reason):
                    conditions.append(Condition("requested", reason))
                case Stop(reason=reason):
                    stop = Condition("requested", reason)
                case Reset():
                    reset = True
                case Quit(park=park):
                    quit_ = "park" if park and quit_ != "here" else "here"
                case Heartbeat():
                    pass
                case other:
                    conditions.append(Condition("protocol", f"a {other.TYPE.name} from the supervisor"))
        if self._terminated:
            self._terminated = False
            conditions.append(Condition("requested", "control received a signal to end"))
            quit_ = "here"
        return Inbox(
            chunk=chunk,
            superseded=superseded,
            arm=arm,
            stop=stop,
            reset=reset,
            quit=quit_,
            heard_policy=bool(from_policy),
            heard_supervisor=bool(from_supervisor),
            conditions=tuple(conditions),
            slots_run=wake.run,
            slots_missed=wake.missed,
        )

    def _energise(self, joint: JointState | None) -> None:
        """Goal := measured, read back, then torque; refuses where the arm rests outside its limits."""
        if joint is None:
            raise Refused("no complete joint state at the moment of arming; try again")
        config = self.core.config
        for i, name in enumerate(config.joint_names):
            slack = self.options.start_tolerance[i]
            if not config.low[i] - slack <= joint.position[i] <= config.high[i] + slack:
                raise Refused(
                    f"{name} rests at {joint.position[i]:.3f}, outside its limits {config.low[i]:.3f} .. "
                    f"{config.high[i]:.3f}; move it inside by hand (torque is off) and start again"
                )
        if not self.options.dry_run:
            try:
                self.gate.load(self.options.table(joint.position))
                self.gate.phase = GatePhase.ARM
                joint = self.arm.prepare(write_gains=self.options.write_gains)
                self._torque = True
                self.arm.energise()
            except (DriverError, GateDenied, ValueError) as error:
                after = "torque is off again" if self._torque else "no torque was given"
                self._release()
                raise Refused(f"arming failed, {after}: {error}") from error
            self.gate.phase = GatePhase.RUN
        self.state = self.core.energised(self.state, joint, self._clock())
        self.report(Note("armed", "dry run: no torque" if self.options.dry_run else "torque is on"))
        self._grid.restart()
        self._rates.restart(self._clock())

    def _release(self) -> None:
        if not self._torque:
            return
        self.gate.phase = GatePhase.STOP
        self._torque = False
        try:
            self.arm.release()
        except (BusError, GateDenied) as error:
            self.report(Note("release_failed", f"some motors may still hold torque: {error}"))

    def _leave(self, finish: Finish) -> Finish:
        if self.state.motion is not None:
            if finish == "release":
                self._release()
                self.report(Note("released", "torque is off"))
            else:
                self.report(Note("held", "the motors hold their last goal with torque on"))
        self._send_snapshot(self._clock())
        self._send_histograms()
        return finish

    def _measure_chunk(self, chunk: Chunk, wake: Wake, now_ns: int) -> None:
        total = now_ns - chunk.frame_arrival_ns
        waited = max(0, wake.wake_ns - self._chunk_sent_ns)
        self._stages.add("camera_to_wire", total)
        self._stages.add("camera_to_wire_own", total - chunk.session_run_ns - waited)
        self._stages.add("chunk_age", now_ns - chunk.observation_ns)

    def report(self, note: Note) -> None:
        now = self._clock()
        if note.code == "refused":
            self.refused = note.text
        if note.code in _FREQUENT:
            if now - self._reported_ns.get(note.code, -_REPEAT_NS) < _REPEAT_NS:
                return
            self._reported_ns[note.code] = now
        self._send("supervisor", self.supervisor, Event(now, note.code, note.text, note.value))

    def _send(self, name: str, channel: Channel, message: Message) -> None:
        """A full buffer drops the message; a lost peer is noticed by the inbox of the next tick."""
        if name not in self._closed:
            with contextlib.suppress(ChannelClosed):
                channel.send(message)

    def _send_state(self, now_ns: int) -> None:
        state = self.state
        if state.execution is not None:
            self._stages.add("action_age", now_ns - state.execution.observation_ns)
        measured = self._measured
        if measured is not None:
            message = State(
                state.phase,
                state.task_id,
                state.execution.chunk_id if state.execution else 0,
                measured.stamp_ns,
                state.still_since_ns,
                measured.position,
                measured.velocity,
                state.motion.position if state.motion else measured.position,
            )
            self._send("policy", self.policy, message)
        if now_ns >= self._next_snapshot_ns:
            self._next_snapshot_ns = now_ns + _SNAPSHOT_NS
            self._send_snapshot(now_ns)
        if now_ns >= self._next_histogram_ns:
            self._next_histogram_ns = now_ns + _HISTOGRAM_NS
            self._send_histograms()

    def _send_histograms(self) -> None:
        for recorder in self._stages.all.values():
            if recorder.count:
                self._send("supervisor", self.supervisor, recorder.message())

    def _send_snapshot(self, now_ns: int) -> None:
        state, counters = self.state, self.state.counters
        execution, measured = state.execution, self._measured
        position = measured.position if measured else ()
        self._send(
            "supervisor",
            self.supervisor,
            Snapshot(
                phase=state.phase,
                task_id=state.task_id,
                chunk_id=execution.chunk_id if execution else 0,
                rate_now_hz=self._rates.now_hz,
                rate_average_hz=self._rates.average_hz,
                rate_worst_second_hz=self._rates.worst_hz,
                ticks=state.slots.total,
                missed=state.slots.missed,
                starved=counters.starved,
                clamped=counters.clamped,
                rejected_chunks=counters.rejected_chunks,
                bus_errors=self._bus_errors,
                skipped_chunks=counters.superseded_chunks,
                frame_age_ns=self._frame_age_ns,
                chunk_age_ns=now_ns - execution.observation_ns if execution else 0,
                joint_age_ns=now_ns - measured.stamp_ns if measured else 0,
                position=position,
                commanded=state.motion.position if state.motion else position,
            ),
        )
