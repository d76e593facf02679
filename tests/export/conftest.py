"""A small untrained policy of the demo's architecture, as a checkpoint with recorded observations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.export.graphs import export_graph
from holdfast.export.models.demo.checkpoint import make_checkpoint
from holdfast.export.models.demo.keypoint_vla import KeypointVLA, KeypointVLAConfig
from holdfast.export.parity import to_feeds
from holdfast.export.sources import demo
from holdfast.export.sources.types import Policy, ReadOptions

WORDS = ["blue", "cube", "green", "red", "the", "touch"]
JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
Save = Callable[..., Path]


def make_model() -> KeypointVLA:
    torch.manual_seed(0)
    config = KeypointVLAConfig(
        vocabulary=len(WORDS), token_length=6, steps=16, joints=6, channels=8, keypoints=4, hidden=64
    )
    return KeypointVLA(config).eval()


def make_values(model: KeypointVLA | None = None) -> dict[str, Any]:
    """What `torch.save` is given."""
    return make_checkpoint(
        model or make_model(),
        state_statistics={"offset": [0.0] * 5 + [50.0], "scale": [1.9, 1.7, 1.6, 1.8, 2.7, 50.0]},
        action_statistics={
            "offset": [[0.0] * 6] * 16,
            "scale": [[0.02 + 0.01 * step] * 5 + [40.0] for step in range(16)],
        },
        vocabulary={word: i + 1 for i, word in enumerate(WORDS)},
        tasks=["touch the red cube"],
        action_contract={
            "space": "joint_delta",
            "names": JOINTS,
            "units": ["rad"] * 5 + ["0_100_of_range"],
            "relative": [True] * 5 + [False],
            "steps": 16,
            "dt_s": 0.05,
        },
        training={"seed": 0},
    )


def save_observations(path: Path, count: int = 32) -> None:
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (count, 12, 12, 3), np.uint8)
    np.savez_compressed(
        path,
        image=blocks.repeat(8, 1).repeat(8, 2),
        state=random.uniform(-1, 1, (count, 6)).astype(np.float32),
        text=np.array([f"touch the {colour} cube" for colour in random.choice(["red", "blue"], count)]),
    )


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a checkpoint (changed by keyword arguments) with observations; returns its path."""

    def write(values: dict[str, Any] | None = None, **changes: Any) -> Path:
        path = tmp_path / "model.pt"
        torch.save({**(values or make_values()), **changes}, path)
        save_observations(tmp_path / "observations.npz")
        return path

    return write


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.save(make_values(), folder / "model.pt")
    save_observations(folder / "observations.npz")
    return demo.read(folder / "model.pt", ReadOptions())


@pytest.fixture(scope="session")
def feeds(policy: Policy) -> list[dict[str, Any]]:
    """What the graph takes of each observation."""
    names = [tensor.name for tensor in policy.components["policy"].inputs]
    return [{name: feed[name] for name in names} for feed in to_feeds(policy)]


@pytest.fixture(scope="session")
def graph(policy: Policy, feeds: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The policy as an fp32 ONNX graph (seconds: traced once)."""
    folder = tmp_path_factory.mktemp("graphs")
    return export_graph(policy.components["policy"], feeds[0], folder, "policy").model
