"""Rings as the three processes write them, from a bench in stepped time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from holdfast.drivers.types import Direction, Frame, JointState, StampSource
from holdfast.runtime.control.clock import Wake
from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import CoreState, Inbox, Output
from holdfast.runtime.recorder.folder import RUN_FILE, SUPERVISOR_RING
from holdfast.runtime.recorder.in_control import ControlRecorder
from holdfast.runtime.recorder.in_policy import PolicyRecorder
from holdfast.runtime.recorder.in_supervisor import SupervisorRecorder
from holdfast.runtime.recorder.records import EventRecord
from holdfast.runtime.recorder.ring import RingWriter

from ..control.world import MS, Bench, chunk, config


@dataclass(frozen=True)
class Given:
    """One call of `core.step`."""

    now_ns: int
    joint: JointState | None
    inbox: Inbox
    state: CoreState
    """After it."""
    output: Output


class RecordedCore(ControlCore):
    """Records its calls as the control loop does, and keeps them for comparison."""

    def __init__(self, settings: CoreConfig, recorder: ControlRecorder) -> None:
        super().__init__(settings)
        self.recorder = recorder
        self.given: list[Given] = []

    def step(
        self, state: CoreState, now_ns: int, joint: JointState | None, inbox: Inbox
    ) -> tuple[CoreState, Output]:
        if not self.given:
            self.recorder.state(state, now_ns)
        after, output = super().step(state, now_ns, joint, inbox)
        self.recorder.bus(Direction.SENT, now_ns - 2 * MS, b"request")
        self.recorder.bus(Direction.RECEIVED, now_ns - MS, b"answer" * 20)
        self.recorder.tick(Wake(now_ns - 1, now_ns, 1, 0, 0), now_ns, joint, inbox, after, output)
        self.recorder.keyframe(after, now_ns)
        self.given.append(Given(now_ns, joint, inbox, after, output))
        return after, output


@dataclass
class Tape:
    """The rings of one run in `folder`."""

    folder: Path
    ring_bytes: int | None = None
    """Of control's ring; None: as in a real run."""
    core: RecordedCore = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = config()
        if self.ring_bytes is None:
            recorder = ControlRecorder.open(self.folder, settings)
        else:
            recorder = small_ring(self.folder, settings, self.ring_bytes)
        assert recorder.on, recorder.take_problem()
        self.core = RecordedCore(settings, recorder)
        self.bench = Bench(self.core)

    def fly(self, ticks: int) -> Tape:
        """Follows chunks for a while, then stops."""
        self.bench.start()
        for k in range(ticks):
            rows = [(0.001 * k + 0.01 * i, 0.2, 10.0) for i in range(8)]
            new = chunk(rows, chunk_id=k + 1, observation_ns=self.bench.now_ns) if k % 10 == 0 else None
            self.bench.tick(Inbox(chunk=new))
        return self

    def beside(self) -> Tape:
        """What policy and supervisor record."""
        (self.folder / RUN_FILE).write_text(json.dumps({"pid": 42, "bundle": {"name": "tiny"}}))
        now = self.bench.now_ns
        policy = PolicyRecorder.open(self.folder, 1)
        policy.task(now, 1, "touch the cube")
        policy.inference(self.core.given[0].inbox.chunk or chunk([(0.0,) * 3], chunk_id=9, observation_ns=1),
                         now, now + 1, now + 2, now + 3)  # fmt: skip
        policy.frames({"front": frame(now)}, now)
        policy.fault(now, "camera_lost", "the camera is gone")
        supervisor = SupervisorRecorder(writer=RingWriter.create(self.folder / SUPERVISOR_RING, 100_000, b""))
        supervisor.event(EventRecord(now, "control", "stop", "camera_lost: gone", 1.5, 1))
        supervisor.stage(now, "running the task")
        return self


def small_ring(folder: Path, settings: CoreConfig, size: int) -> ControlRecorder:
    """A ring of control that comes round after a few ticks."""
    from holdfast.runtime.recorder.codec import encode_config
    from holdfast.runtime.recorder.folder import CONTROL_RING

    writer = RingWriter.create(folder / CONTROL_RING, size, encode_config(settings))
    return ControlRecorder(writer, len(settings.joint_names))


def frame(stamp_ns: int, sequence: int = 1) -> Frame:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (200, 30, 30)
    return Frame(image, stamp_ns, StampSource.HEADER, stamp_ns + 1, sequence, sequence)
