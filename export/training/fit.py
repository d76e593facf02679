"""Trains the demo policy on demonstrations: behaviour cloning with a privileged auxiliary target."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...drivers.robots.schema import Robot
from ...drivers.simulated.scene import COLOURS
from ...drivers.simulated.tasks import TEMPLATES
from ...runtime.bundle.schema import ClosedVocabulary
from ...runtime.policy.words import encode_words
from ..models.demo.checkpoint import make_checkpoint
from ..models.demo.keypoint_vla import KeypointVLA, KeypointVLAConfig
from .demonstrations import Demonstrations
from .stepped import CHUNK_STEPS, DT_S

BATCH = 96
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-4
WARM_UP_STEPS = 200
AVERAGE = 0.995
"""Decay of the exponential moving average of the weights that is kept."""
LOSS_KNEE = 0.1
"""Where the smooth L1 loss becomes linear, in normalised units."""
TARGET_WEIGHT = 1.0
HELD_OUT = 20
"""Every so manieth episode is kept for validation."""
SMALLEST_SCALE_RAD = 0.02
TABLE_CENTRE_M = (0.16, 0.0)
TABLE_SCALE_M = (0.05, 0.08)
TOKEN_LENGTH = 6


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands."""

    fraction: float
    step: int
    loss: float
    target_loss: float


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop: after some minutes of wall time, or, reproducibly, after so many steps."""

    minutes: float | None = None
    steps: int | None = None

    def fraction(self, started_s: float, step: int) -> float:
        if self.steps is not None:
            return step / self.steps
        return (time.monotonic() - started_s) / (60 * (self.minutes or 1.0))


def vocabulary() -> dict[str, int]:
    """Every word of every instruction -> its id, from 1; 0 pads."""
    words = {word for rows in TEMPLATES.values() for row in rows for word in row.format(c="").split()}
    return {word: index for index, word in enumerate(sorted(words | set(COLOURS)), start=1)}


def tasks() -> list[str]:
    """Every instruction that the policy is trained on."""
    return [row.format(c=colour) for rows in TEMPLATES.values() for row in rows for colour in COLOURS]


def state_statistics(robot: Robot) -> dict[str, list[float]]:
    """Offset and scale that bring each joint's limits to -1..1."""
    limits = [joint.limits.position for joint in robot.joints]
    return {
        "offset": [(low + high) / 2 for low, high in limits],
        "scale": [(high - low) / 2 for low, high in limits],
    }


def action_statistics(relative_actions: NDArray[np.float32], robot: Robot) -> dict[str, list[list[float]]]:
    """Per step of the chunk: offset 0; scale: the standard deviation, for arm joints at least 0.02 rad."""
    scale = relative_actions.std(axis=0)
    for index, joint in enumerate(robot.joints):
        scale[:, index] = np.maximum(scale[:, index], 1.0 if joint.gripper else SMALLEST_SCALE_RAD)
    rows = [[float(value) for value in row] for row in scale]
    return {"offset": [[0.0] * len(robot.joints) for _ in rows], "scale": rows}


def fit(
    demonstrations: Demonstrations,
    robot: Robot,
    *,
    seed: int,
    budget: Budget,
    threads: int,
    command: str,
    progress: Callable[[Progress], None],
) -> dict[str, Any]:
    """Trains a network from scratch and returns its checkpoint."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    relative = np.array([0.0 if joint.gripper else 1.0 for joint in robot.joints], np.float32)
    wanted = (demonstrations.action - demonstrations.state[:, None] * relative).astype(np.float32)
    held_out = torch.as_tensor(demonstrations.episode % HELD_OUT == HELD_OUT - 1)
    words = vocabulary()
    statistics = state_statistics(robot), action_statistics(wanted[~held_out.numpy()], robot)
    data = _tensors(demonstrations, wanted, words, statistics)
    model = KeypointVLA(KeypointVLAConfig(len(words), TOKEN_LENGTH, CHUNK_STEPS, len(robot.joints)))
    steps = _optimise(model, data, torch.where(~held_out)[0], budget, progress)
    error = validate(model, data, torch.where(held_out)[0], torch.tensor(statistics[1]["scale"]))
    contract = {
        "space": "joint_delta",
        "names": list(robot.joint_names),
        "units": [joint.unit for joint in robot.joints],
        "relative": [not joint.gripper for joint in robot.joints],
        "steps": CHUNK_STEPS,
        "dt_s": DT_S,
    }
    training = {
        "command": command,
        "seed": seed,
        "steps": steps,
        "batch": BATCH,
        "data_sha256": demonstrations.digest(),
        "episodes": len(np.unique(demonstrations.episode)),
        "frames": len(demonstrations.image),
        "held_out_error": error,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": str(torch.__version__),
    }
    return make_checkpoint(
        model,
        state_statistics=statistics[0],
        action_statistics=statistics[1],
        vocabulary=words,
        tasks=tasks(),
        action_contract=contract,
        training=training,
    )


@dataclass(frozen=True, slots=True)
class _Data:
    image: Tensor
    state: Tensor
    tokens: Tensor
    action: Tensor
    target: Tensor


def _tensors(
    demonstrations: Demonstrations,
    wanted: NDArray[np.float32],
    words: dict[str, int],
    statistics: tuple[dict[str, list[float]], dict[str, list[list[float]]]],
) -> _Data:
    closed = ClosedVocabulary(kind="words", words=words, length=TOKEN_LENGTH, pad=0)
    texts, index = np.unique(demonstrations.text, return_inverse=True)
    tokens = np.concatenate([encode_words(str(text), closed) for text in texts])[index]
    of_state, of_action = statistics
    offset, scale, of_chunk, centre, size = (
        np.asarray(values, np.float32)
        for values in (
            of_state["offset"],
            of_state["scale"],
            of_action["scale"],
            TABLE_CENTRE_M,
            TABLE_SCALE_M,
        )
    )
    return _Data(
        torch.as_tensor(demonstrations.image),
        torch.as_tensor((demonstrations.state - offset) / scale),
        torch.as_tensor(tokens),
        torch.as_tensor(wanted / of_chunk),
        torch.as_tensor((demonstrations.cube - centre) / size),
    )


def _optimise(
    model: KeypointVLA, data: _Data, rows: Tensor, budget: Budget, progress: Callable[[Progress], None]
) -> int:
    """Leaves the averaged weights in `model`; returns the number of steps."""
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    started_s, step = time.monotonic(), 0
    shown, shown_target = 0.0, 0.0
    while (fraction := budget.fraction(started_s, step)) < 1:
        for batch in rows[torch.randperm(len(rows))].split(BATCH):
            fraction = budget.fraction(started_s, step)
            if fraction >= 1:
                break
            rate = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS)
            for group in optimiser.param_groups:
                group["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * fraction))
            actions, target = model.both(data.image[batch], data.state[batch], data.tokens[batch])
            loss = F.smooth_l1_loss(actions, data.action[batch], beta=LOSS_KNEE)
            target_loss = F.smooth_l1_loss(target, data.target[batch], beta=LOSS_KNEE)
            optimiser.zero_grad(set_to_none=True)
            (loss + TARGET_WEIGHT * target_loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            step += 1
            _average(average, model, min(AVERAGE, step / (step + 20)))
            shown = 0.98 * shown + 0.02 * loss.item()
            shown_target = 0.98 * shown_target + 0.02 * target_loss.item()
            if step % 25 == 0:
                progress(Progress(fraction, step, shown, shown_target))
    model.load_state_dict(average)
    model.eval()
    return step


def _average(average: dict[str, Tensor], model: KeypointVLA, decay: float) -> None:
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)


def validate(model: KeypointVLA, data: _Data, rows: Tensor, scale: Tensor) -> list[float]:
    """Mean absolute error per joint over held-out chunks (rad; gripper percent)."""
    if len(rows) == 0:
        return []
    errors = []
    with torch.inference_mode():
        for batch in rows.split(256):
            out = model(data.image[batch], data.state[batch], data.tokens[batch])
            errors.append(((out - data.action[batch]).abs() * scale).mean(1))
    return [float(value) for value in torch.cat(errors).mean(0)]
