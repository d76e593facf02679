"""The recorder inside the policy process: small pictures, inferences, instructions, faults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2

from ...drivers.types import Frame
from ..messages import Chunk
from .folder import POLICY_RING, RunFolder
from .isolation import Isolated, isolated
from .kinds import Kind
from .observed import (
    FRAMES_PER_S,
    THUMBNAIL_PX,
    FaultRecord,
    FrameRecord,
    InferenceRecord,
    TaskRecord,
    policy_ring_bytes,
)
from .redact import without_userinfo
from .ring import RingWriter

_FRAME_NS = int(1e9 / FRAMES_PER_S)
_JPEG_QUALITY = 80


class PolicyRecorder(Isolated):
    """Writes the ring of the policy process. Encoding a picture takes about a millisecond: to be called when
    the chunk is on its way."""

    def __init__(
        self, writer: RingWriter | None = None, problem: str = "", folder: RunFolder | None = None
    ) -> None:
        super().__init__(writer, problem)
        self._folder = folder
        """Its lock says that this process lives."""
        self._frame_due_ns: dict[str, int] = {}

    @classmethod
    def open(cls, path: Path, cameras: int) -> PolicyRecorder:
        """With a ring in the folder of the run; off, with its problem, where there can be none."""
        try:
            folder = RunFolder.join(path)
            writer = RingWriter.create(path / POLICY_RING, policy_ring_bytes(cameras), b"")
            return cls(writer, folder=folder)
        except Exception as error:  # noqa: BLE001 - a recorder is no reason not to start a policy
            return cls(problem=f"the policy process has no ring: {error}")

    @isolated
    def inference(self, chunk: Chunk, got_ns: int, prepared_ns: int, run_ns: int, sent_ns: int) -> None:
        """The chunk has been sent. `prepared_ns`, `run_ns`: ends of pre-processing and `session.run`."""
        assert self.writer is not None
        record = InferenceRecord(
            chunk.chunk_id, chunk.task_id, chunk.observation_ns, chunk.frame_arrival_ns, got_ns,
            chunk.inference_start_ns, prepared_ns, run_ns, chunk.inference_end_ns, chunk.session_run_ns,
            sent_ns,
        )  # fmt: skip
        self.writer.write(Kind.INFERENCE, sent_ns, record.pack())

    @isolated
    def frames(self, frames: Mapping[str, Frame], now_ns: int) -> None:
        """The pictures of an inference, `FRAMES_PER_S` at most of each camera."""
        assert self.writer is not None
        for camera, frame in frames.items():
            if now_ns < self._frame_due_ns.get(camera, 0):
                continue
            self._frame_due_ns[camera] = now_ns + _FRAME_NS
            record = FrameRecord(
                camera,
                frame.stamp_ns,
                frame.stamp_source,
                frame.arrival_ns,
                frame.sequence,
                _small_jpeg(frame),
            )
            self.writer.write(Kind.FRAME, now_ns, record.pack())

    @isolated
    def task(self, now_ns: int, task_id: int, text: str) -> None:
        assert self.writer is not None
        self.writer.write(Kind.TASK, now_ns, TaskRecord(now_ns, task_id, text).pack())

    @isolated
    def fault(self, now_ns: int, code: str, text: str) -> None:
        assert self.writer is not None
        self.writer.write(Kind.FAULT, now_ns, FaultRecord(now_ns, code, without_userinfo(text)).pack())


def _small_jpeg(frame: Frame) -> bytes:
    height, width = frame.image.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()
