"""The demo policy's checkpoint `model.pt`, plain data only: its format, and how it is made.

`export.sources.demo` reads it, and is the only reader.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....runtime.bundle.schema import ImageSpec
from .keypoint_vla import KeypointVLA

FORMAT = "holdfast.demo_policy"
VERSION = 1
ARCHITECTURE = "keypoint_vla"
MODEL = Path(__file__).parent / "model.pt"
"""The checkpoint that comes with Holdfast."""
OBSERVATIONS = Path(__file__).parent / "observations.npz"
"""Recorded observations for parity checks: image uint8 [N, 96, 96, 3], state float32 [N, 6] (rad, gripper
percent), text [N]."""

CAMERA = ImageSpec(
    name="front",
    height=96,
    width=96,
    channels="rgb",
    layout="hwc",
    dtype="uint8",
    resize="area",
    aspect="stretch",
    scale=1.0,
    mean=[0.0, 0.0, 0.0],
    std=[1.0, 1.0, 1.0],
)
"""What happens to a picture before the network."""


def make_checkpoint(
    model: KeypointVLA,
    *,
    state_statistics: dict[str, list[float]],
    action_statistics: dict[str, list[list[float]]],
    vocabulary: dict[str, int],
    tasks: list[str],
    action_contract: dict[str, Any],
    training: dict[str, Any],
) -> dict[str, Any]:
    """The checkpoint's dictionary; `*_statistics` hold `offset` and `scale`."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "architecture": ARCHITECTURE,
        "config": asdict(model.config),
        "state_dict": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "state_statistics": state_statistics,
        "action_statistics": action_statistics,
        "vocabulary": vocabulary,
        "token_length": model.config.token_length,
        "tasks": tasks,
        "robot_type": "sim_arm",
        "camera": CAMERA.model_dump(),
        "action_contract": action_contract,
        "training": training,
    }
