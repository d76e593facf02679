"""The recorder inside the control process: every tick, its chunk, the bytes on the bus.

Nothing here may raise or block: at its first error it switches itself off and says so. A tick costs a few
microseconds.
"""

from __future__ import annotations

from pathlib import Path

from ...drivers.types import Direction, JointState
from ..control.clock import Wake
from ..control.config import CoreConfig
from ..control.state import CoreState, Inbox, Output
from .codec import TickCodec, encode_bus, encode_config, encode_state
from .collect import intend, write_new
from .folder import CONTROL_RING, RunFolder
from .isolation import Isolated, isolated
from .kinds import SPAN_S, Kind
from .ring import RingWriter, record_bytes

STATE_NS = 5_000_000_000
"""How often the whole state is written: a replay begins at the first one in the ring."""
_CHUNKS_PER_S = 30.0
_BUS_BYTES_PER_JOINT = 45
"""Of one cycle: 21 bytes of an answer, some of the requests for it and of the goals; three records."""
_STATE_BYTES_PER_VALUE = 22
_SPARE = 1.25


def control_ring_bytes(joints: int, control_hz: float, chunk_steps: int) -> int:
    """Room for `SPAN_S` of records."""
    bus = 3 * record_bytes(1) + joints * _BUS_BYTES_PER_JOINT
    per_tick = record_bytes(TickCodec(joints).usual_bytes) + bus
    chunk = record_bytes(80 + 8 * joints * chunk_steps)
    # Some strategies keep ten chunks.
    state = record_bytes(4000 + 10 * joints * chunk_steps * _STATE_BYTES_PER_VALUE)
    per_second = control_hz * per_tick + _CHUNKS_PER_S * chunk + state / (STATE_NS / 1e9)
    return int(SPAN_S * _SPARE * per_second)


class ControlRecorder(Isolated):
    """Writes control's ring."""

    def __init__(
        self,
        writer: RingWriter | None = None,
        joints: int = 0,
        problem: str = "",
        folder: RunFolder | None = None,
    ) -> None:
        super().__init__(writer, problem)
        self._codec = TickCodec(joints)
        self._folder = folder
        self._state_due_ns = 0

    @classmethod
    def open(cls, path: Path, config: CoreConfig) -> ControlRecorder:
        """With a ring in the folder of the run; off, with its problem, where there can be none."""
        joints = len(config.joint_names)
        size = control_ring_bytes(joints, 1e9 / config.dt_ns, config.chunk_steps)
        try:
            folder = RunFolder.join(path)
            writer = RingWriter.create(path / CONTROL_RING, size, encode_config(config))
            return cls(writer, joints, folder=folder)
        except Exception as error:  # noqa: BLE001 - a recorder is no reason not to start an arm
            return cls(problem=f"control has no ring: {error}")

    @isolated
    def tick(
        self,
        wake: Wake | None,
        now_ns: int,
        joint: JointState | None,
        inbox: Inbox,
        state: CoreState,
        output: Output,
    ) -> None:
        """One call of `core.step`, with what it gave back."""
        assert self.writer is not None
        if inbox.chunk is not None:
            self.writer.write(Kind.CHUNK, now_ns, inbox.chunk.pack())
        body = self._codec.encode(now_ns, wake, joint, inbox, state.phase, output)
        self.writer.write(Kind.TICK, now_ns, body)

    @isolated
    def state(self, state: CoreState, now_ns: int) -> None:
        """The whole state, from which a replay can begin: whenever something but the core has set it."""
        assert self.writer is not None
        self._state_due_ns = now_ns + STATE_NS
        self.writer.write(Kind.STATE, now_ns, encode_state(state))

    def keyframe(self, state: CoreState, now_ns: int) -> None:
        """The whole state, if it is time for it."""
        if now_ns >= self._state_due_ns:
            self.state(state, now_ns)

    @isolated
    def bus(self, direction: Direction, stamp_ns: int, data: bytes) -> None:
        """A `drivers.types.Tap`."""
        assert self.writer is not None
        self.writer.write(Kind.BUS, stamp_ns, encode_bus(direction, data))

    def inherit(self, recordings: Path, code: str) -> str:
        """For a process whose supervisor has died: writes the file that the supervisor can no longer write,
        and removes the rings. Returns what became of it, in words; empty where nothing is recorded."""
        if self._folder is None:
            return ""
        try:
            target = write_new(self._folder.path, recordings, code)
        except Exception as error:  # noqa: BLE001 - the exit code of this process says how the arm was left
            intend(self._folder.path, code)
            return f"cannot be written to {recordings}: {error}; the next vla-run tries again"
        self._folder.remove()
        return str(target)
