"""The policy process's loop: the newest pictures in, a chunk out, a heartbeat whatever happens."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping

from ...drivers.errors import CameraError
from ...drivers.types import Frame
from ...drivers.types import StampSource as FrameStamp
from ..backends.types import BackendError
from ..budgets import Budgets, overrun
from ..channel import Channel, ChannelClosed
from ..histogram import Recorder
from ..messages import Chunk, Event, Fault, Heartbeat, Quit, Reset, StampSource, State, Task
from ..recorder.in_policy import PolicyRecorder
from .cameras_in import Cameras, FrameFault
from .errors import InstructionError, NonFiniteAction
from .execution import ExecutionView
from .inputs import Instruction
from .observer import JointHistory
from .program import Inference, Observation, Program

HEARTBEAT_NS = 40_000_000
"""At most this long without a message to control, as long as the loop turns."""
WAIT_S = 0.02
REPORT_NS = 1_000_000_000

STAGES = (
    "frame_age",
    "wait_frame",
    "pickup",
    "preprocess",
    "session_run",
    "postprocess",
    "send",
    "camera_to_chunk",
)
"""frame_age: stamp of the oldest picture to start of inference. wait_frame: end of the last chunk to new
pictures. pickup: last byte of a picture to the loop having it (decoding included). camera_to_chunk: last byte
of the oldest picture to the chunk sent."""

_STAMPS = {
    FrameStamp.KERNEL: StampSource.KERNEL,
    FrameStamp.HEADER: StampSource.HEADER,
    FrameStamp.ARRIVAL: StampSource.ARRIVAL,
}


class _Finished(Exception):
    """The supervisor asked to quit, or a peer is gone: nothing is left to do."""


class PolicyLoop:
    """Runs until `Quit`, or until a peer is gone.

    A fault is told once to control and to the supervisor; then nothing is inferred until a person's reset,
    upon which the cameras are opened anew.
    """

    def __init__(
        self,
        program: Program,
        cameras: Cameras,
        control: Channel,
        supervisor: Channel,
        history: JointHistory,
        joint_gap_ns: int,
        sequential: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
        flight: PolicyRecorder | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self._program = program
        self._cameras = cameras
        self._control = control
        self._supervisor = supervisor
        self._history = history
        self._joint_gap_ns = joint_gap_ns
        self._sequential = sequential
        self._execution = ExecutionView()
        self._dt_ns = round(program.spec.action.dt_s * 1e9)
        self._clock = clock
        self._flight = flight or PolicyRecorder()
        budgets = budgets or Budgets()
        self._max_over = budgets.max_fraction
        self._recorders = {stage: Recorder(stage, budgets.limits_ns.get(stage, 0)) for stage in STAGES}
        self._poll = select.poll()
        for channel in (control, supervisor):
            self._poll.register(channel, select.POLLIN)
        self._task = Task(0, "")
        self._instruction: Instruction | None = None
        self._fault: FrameFault | None = None
        self._chunk_id = 0
        self._heartbeat_ns = 0
        self._reported_ns = 0
        self._unfit_ns = 0
        """Since when pictures have found no joint state; 0 while they do."""
        self._sent_ns = 0

    def run(self) -> None:
        """Returns when the run is over; every other end is an exception, and the death of this process
        stops the arm."""
        try:
            while True:
                self._turn()
        except (_Finished, ChannelClosed):
            self._report()

    def _turn(self) -> None:
        self._read_supervisor()
        self._read_control()
        now_ns = self._clock()
        if now_ns - self._heartbeat_ns >= HEARTBEAT_NS:
            self._control.send(Heartbeat())
            self._heartbeat_ns = now_ns
        if now_ns - self._reported_ns >= REPORT_NS:
            self._report()
            self._reported_ns = now_ns
        if not self._task.text or self._fault is not None:
            self._poll.poll(WAIT_S * 1000)
            return
        try:
            self._infer_once()
        except FrameFault as fault:
            self._declare(fault)
        except NonFiniteAction as error:
            self._declare(FrameFault("non_finite", str(error)))
        except (BackendError, InstructionError) as error:
            self._declare(FrameFault("policy_error", str(error)))

    def _read_supervisor(self) -> None:
        for envelope in self._supervisor.receive_all():
            message = envelope.message
            if isinstance(message, Task):
                self._begin(message)
            elif isinstance(message, Reset):
                self._reset()
            elif isinstance(message, Quit):
                raise _Finished

    def _read_control(self) -> None:
        for envelope in self._control.receive_all():
            if isinstance(envelope.message, State):
                self._history.add(envelope.message)
                self._execution.add(envelope.message, envelope.stamp_ns)

    def _begin(self, task: Task) -> None:
        self._task = task
        self._flight.task(self._clock(), task.task_id, task.text)
        self._cameras.begin()
        self._execution.begin(task.task_id)
        self._program.begin()
        self._unfit_ns = 0
        self._sent_ns = self._clock()
        if not task.text:
            return
        if self._fault is not None:
            self._declare(FrameFault(self._fault.code, f"{self._fault} (not reset)"))
            return
        try:
            self._instruction = self._program.instruction(task.text)
        except InstructionError as error:
            self._declare(FrameFault("policy_error", str(error)))

    def _reset(self) -> None:
        self._task = Task(self._task.task_id, "")
        try:
            self._cameras.close()
            self._cameras.start()
        except CameraError as error:
            self._fault = FrameFault("camera_lost", str(error))
            self._tell("fault", f"still not ready: {error}")
            return
        self._fault = None
        for recorder in self._recorders.values():
            recorder.restart_window()
        self._tell("ready", "reset: the cameras deliver")

    def _infer_once(self) -> None:
        frames = self._cameras.next(WAIT_S, self._clock())
        if frames is None:
            return
        got_ns = self._clock()
        oldest = min(frames.values(), key=lambda frame: frame.stamp_ns)
        if self._sequential and not self._execution.carried_out(oldest.stamp_ns):
            self._unfit_ns = 0
            return
        position = self._position_at(oldest.stamp_ns)
        if position is None:
            return
        observations = self._observations(frames, position)
        if observations is None:
            return
        self._cameras.check_age(frames, self._clock())
        inference = self._program.infer(
            observations,
            self._instruction,
            self._execution.guidance(oldest.stamp_ns, self._dt_ns),
        )
        self._send(inference, frames, oldest, got_ns)

    def _observations(
        self, frames: Mapping[str, Frame], position: tuple[float, ...]
    ) -> list[Observation] | None:
        """What the policy sees, oldest first; None where a moment of the past has no joint state."""
        moments = self._cameras.moments(frames)
        positions = [self._history.at(min(f.stamp_ns for f in past.values())) for past in moments[:-1]]
        found = [known for known in positions if known is not None]
        if len(found) != len(positions):
            return None
        return [
            Observation({name: frame.image for name, frame in seen.items()}, at)
            for seen, at in zip(moments, [*found, position], strict=True)
        ]

    def _position_at(self, stamp_ns: int) -> tuple[float, ...] | None:
        """The joint state at a picture's stamp, waiting a little for it. None: take another picture."""
        give_up_ns = self._clock() + int(WAIT_S * 1e9)
        while True:
            position = self._history.at(stamp_ns)
            now_ns = self._clock()
            if position is not None:
                self._unfit_ns = 0
                return position
            # Counted from the first picture that found none: while there is none, none is looked for.
            self._unfit_ns = self._unfit_ns or now_ns
            if now_ns - self._unfit_ns > self._joint_gap_ns:
                raise FrameFault(
                    "joint_state_stale",
                    f"no joint state for the pictures of the last {self._joint_gap_ns / 1e6:.0f} ms: control "
                    "sends none, or the camera's stamps are wrong",
                )
            newest = self._history.newest_ns
            if now_ns > give_up_ns or (newest is not None and stamp_ns <= newest):
                return None
            self._control.wait(0.005)
            self._read_control()

    def _send(self, inference: Inference, frames: Mapping[str, Frame], oldest: Frame, got_ns: int) -> None:
        self._chunk_id += 1
        chunk = Chunk(
            chunk_id=self._chunk_id,
            task_id=self._task.task_id,
            observation_ns=oldest.stamp_ns,
            frame_arrival_ns=oldest.arrival_ns,
            inference_start_ns=inference.start_ns,
            inference_end_ns=inference.end_ns,
            session_run_ns=inference.session_run_ns,
            frame_period_ns=self._cameras.period_ns,
            stamp_source=_STAMPS[oldest.stamp_source],
            dt_ns=self._dt_ns,
            actions=tuple(map(tuple, inference.targets.tolist())),
        )
        self._control.send(chunk)
        sent_ns = self._clock()
        self._execution.sent(chunk, sent_ns)
        self._heartbeat_ns = sent_ns
        durations = {
            "frame_age": inference.start_ns - oldest.stamp_ns,
            "wait_frame": got_ns - self._sent_ns,
            "pickup": got_ns - max(frame.arrival_ns for frame in frames.values()),
            "preprocess": inference.prepared_ns - inference.start_ns,
            "session_run": inference.session_run_ns,
            "postprocess": inference.end_ns - inference.run_ns,
            "send": sent_ns - inference.end_ns,
            "camera_to_chunk": sent_ns - oldest.arrival_ns,
        }
        for stage, duration_ns in durations.items():
            self._recorders[stage].add(duration_ns)
        self._sent_ns = sent_ns
        # The chunk is on its way: what this costs, no command waits for.
        self._flight.inference(chunk, got_ns, inference.prepared_ns, inference.run_ns, sent_ns)
        self._flight.frames(frames, sent_ns)

    def _declare(self, fault: FrameFault) -> None:
        self._fault = fault
        at_ns = self._clock()
        try:
            # Before it is recorded: the arm is to be stopped.
            for _ in range(1000):
                if self._control.send(Fault(fault.code, str(fault))):
                    break
                # The buffer is full of chunks: control hangs or is about to read; a fault must not be lost.
                time.sleep(0.001)
        finally:
            self._flight.fault(at_ns, fault.code, str(fault))
        self._tell("fault", f"{fault.code}: {fault}")

    def _tell(self, code: str, text: str) -> None:
        self._supervisor.send(Event(self._clock(), code, text))

    def _report(self) -> None:
        try:
            problem = self._flight.take_problem()
            if problem:
                self._tell("recorder", problem)
            for recorder in self._recorders.values():
                histogram = recorder.second()
                self._supervisor.send(histogram)
                over = overrun(histogram, self._max_over)
                if over and self._task.text:
                    # Control knows the reaction; what is lost in a full buffer comes again in a second.
                    self._control.send(Fault("over_budget", over))
        except ChannelClosed:
            return
