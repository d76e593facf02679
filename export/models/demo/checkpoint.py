"""The demo policy's checkpoint `model.pt`: plain data only, loaded with `weights_only=True`."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ....runtime.bundle.schema import ImageSpec
from .keypoint_vla import KeypointVLA, KeypointVLAConfig

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

_KEYS = {
    "format", "version", "architecture", "config", "state_dict", "state_statistics", "action_statistics",
    "vocabulary", "token_length", "tasks", "robot_type", "camera", "action_contract", "training",
}  # fmt: skip


class CheckpointError(ValueError):
    """A file that is not a checkpoint of the demo policy."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads and checks a checkpoint; raises `CheckpointError` saying what is wrong with it."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of plain data ({reason}); expected the model.pt that "
            "comes with Holdfast or that vla-train wrote"
        ) from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of the demo policy (format {FORMAT!r})")
    if checkpoint.get("version") != VERSION or checkpoint.get("architecture") != ARCHITECTURE:
        raise CheckpointError(
            f"{path} is {checkpoint.get('architecture')!r} version {checkpoint.get('version')!r}; "
            f"this release reads {ARCHITECTURE!r} version {VERSION}"
        )
    if set(checkpoint) != _KEYS:
        raise CheckpointError(f"{path} has the keys {sorted(checkpoint)}, expected {sorted(_KEYS)}")
    return checkpoint


def build_model(checkpoint: dict[str, Any]) -> KeypointVLA:
    """The network with the checkpoint's weights, in evaluation mode."""
    model = KeypointVLA(KeypointVLAConfig(**checkpoint["config"]))
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


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
