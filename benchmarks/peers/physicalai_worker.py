"""Runs physicalai's own runtime loop for a while and writes down when it sent what. In its own environment:
`PYTHON physicalai_worker.py POLICY MODE SECONDS HZ OUTPUT`; nothing of Holdfast is imported here.

The robot and the camera cost nothing. The camera has a picture every 1/30 s, which is there 6 ms after its
stamp; its first pixel holds the stamp, and the graph gives that as every action, so that each action says
from which picture it comes.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from physicalai.capture.camera import Camera
from physicalai.capture.frame import Frame
from physicalai.inference import InferenceModel
from physicalai.runtime import AsyncExecution, PolicySource, RobotRuntime, SyncExecution

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
FRAME_S = 1 / 30
ARRIVAL_S = 0.006
STAMP_S = 1e-4
"""Unit of the stamps in the pictures, counted from `_Clock.start`: 24 bits last for 28 minutes."""

MODES: dict[str, Callable[[], Any]] = {
    "sync": SyncExecution,
    "async": AsyncExecution,
    "async, inference without pause": lambda: AsyncExecution(request_threshold=1.0),
}
"""Its two executions as they come, and the second such that it infers as often as it can."""


@dataclass
class Observation:
    """`physicalai.robot.interface.RobotObservation`."""

    joint_positions: np.ndarray
    timestamp: float
    sensor_data: None = None
    images: None = None

    @property
    def state(self) -> np.ndarray:
        return self.joint_positions


class NullRobot:
    """`physicalai.robot.interface.Robot`: is where it was told to be."""

    joint_names = JOINTS
    device_ids = ("null",)

    def __init__(self, start: float) -> None:
        self.sent: list[tuple[float, float]] = []
        """(when, stamp of the picture behind it), seconds."""
        self._start = start

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def is_connected(self) -> bool:
        return True

    def get_observation(self) -> Observation:
        return Observation(np.zeros(len(JOINTS), np.float32), time.monotonic())

    def send_action(self, action: np.ndarray, *, goal_time: float = 0.1) -> None:
        self.sent.append((time.monotonic(), self._start + float(action[0]) * STAMP_S))


class NullCamera(Camera):
    """30 pictures a second, with their stamps in them."""

    def __init__(self, start: float, shape: list[int]) -> None:
        super().__init__()
        self._start = start
        self._noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    @property
    def is_connected(self) -> bool:
        return True

    @property
    def device_id(self) -> str:
        return "null"

    def connect(self, timeout: float = 5.0) -> None: ...
    def _do_disconnect(self) -> None: ...
    def read(self, timeout: float | None = None) -> Frame:
        return self.read_latest()

    def read_latest(self) -> Frame:
        number = int((time.monotonic() - ARRIVAL_S - self._start) / FRAME_S)
        stamp_s = number * FRAME_S
        picture = self._noise.copy()
        units = round(stamp_s / STAMP_S)
        picture[0, 0] = (units & 0xFF, units >> 8 & 0xFF, units >> 16 & 0xFF)
        return Frame(picture, self._start + stamp_s, number)


def main() -> None:
    policy, mode, seconds, hz, output = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    # As in Holdfast's backend: one thread, which does not spin between two inferences.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = InferenceModel(policy, backend="onnx", sess_options=options)
    times: list[float] = []
    predict = model.predict_action_chunk

    def timed(observation: dict[str, Any]) -> np.ndarray:
        started = time.monotonic()
        chunk = predict(observation)
        times.append(time.monotonic() - started)
        return chunk

    model.predict_action_chunk = timed
    # Stamps must not be negative, so the camera is a little older than the run.
    start = time.monotonic() - 1
    robot = NullRobot(start)
    camera = NullCamera(start, [96, 96, 3])
    source = PolicySource(model, MODES[mode]())
    with RobotRuntime(robot, source, float(hz), cameras={"front": camera}) as runtime:
        runtime.run(duration_s=float(seconds))
    Path(output).write_text(json.dumps({"sent": robot.sent, "inference_s": times}))


if __name__ == "__main__":
    main()
