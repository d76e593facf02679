"""Holdfast's demo policy: `model.pt` as vla-train writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...runtime.bundle.npz import read_npz
from ...runtime.bundle.schema import (
    ActionContract,
    ActionSpace,
    ClosedVocabulary,
    Evidence,
    ImageSpec,
    Single,
    StateContract,
    TaskContract,
    Tensor,
    Unit,
)
from ..errors import SourceError
from ..models.demo.checkpoint import ARCHITECTURE, FORMAT, OBSERVATIONS, VERSION
from ..models.demo.keypoint_vla import KeypointVLA, KeypointVLAConfig
from .torch_file import holds_text, is_torch_file, load_torch_file
from .types import Component, Moment, Observation, Policy, ReadOptions

MEANING = "Holdfast's demo policy: model.pt, as vla-train writes it"
OPTIONS = frozenset({"observations"})

MAX_PARAMETERS = 50_000_000
"""Far above the demo policy's; a larger one is an absurd configuration."""
MAX_OBSERVATION_BYTES = 1 << 30
DEFAULT_TASK = "pick up the red cube"
"""What the bundle's policy does when nobody names a task; a checkpoint without it gets its first one."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class _StateStatistics(_Strict):
    offset: list[float]
    scale: list[float]


class _ActionStatistics(_Strict):
    """One row per step of the chunk."""

    offset: list[list[float]]
    scale: list[list[float]]


class _Actions(_Strict):
    space: ActionSpace
    names: list[str]
    units: list[Unit]
    relative: list[bool]
    steps: Annotated[int, Field(gt=0)]
    dt_s: float


class Header(_Strict):
    """Everything in the file but the weights."""

    format: str
    version: int
    architecture: Literal["keypoint_vla"]
    config: dict[str, int | float]
    state_statistics: _StateStatistics
    action_statistics: _ActionStatistics
    vocabulary: dict[str, int]
    token_length: int
    tasks: list[str]
    robot_type: str
    camera: ImageSpec
    action_contract: _Actions
    training: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Everything in `model.pt`."""

    header: Header
    network: KeypointVLA
    """With the file's weights, in evaluation mode."""
    state: StateContract
    action: ActionContract
    task: TaskContract


def recognise(path: Path) -> str | None:
    """A torch file that says so; nothing of it is unpickled."""
    return f"it is a torch file of format {FORMAT}" if holds_text(path, FORMAT.encode()) else None


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads and checks `model.pt`. Raises `SourceError`."""
    if not is_torch_file(path):
        raise SourceError(
            f"{path} is not a torch file (torch.save of torch 1.6 or newer), or it is truncated: "
            "copy it again"
        )
    data = load_torch_file(path)
    header = _header(path, data)
    network = _network(path, header, data["state_dict"])
    try:
        state, action, task = _contracts(header)
    except ValidationError as error:
        raise SourceError(f"{path} contradicts itself: {_rows(error)}; train it again") from error
    return Checkpoint(header, network, state, action, task)


class Whole(torch.nn.Module):
    """The network with the bundle's names."""

    def __init__(self, network: KeypointVLA, camera: str) -> None:
        super().__init__()
        self.network, self._image = network, f"image.{camera}"

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.network(inputs[self._image], inputs["state"], inputs["tokens"]),)


def read(path: Path, options: ReadOptions) -> Policy:
    """Reads `model.pt` and its recorded observations. Raises `SourceError`."""
    checkpoint = read_checkpoint(path)
    header, action = checkpoint.header, checkpoint.action
    file = _observation_file(path, options.observations)
    try:
        inputs = (
            Tensor(name=f"image.{header.camera.name}", dtype=header.camera.dtype, shape=header.camera.shape),
            Tensor(name="state", dtype="float32", shape=[1, len(header.action_contract.names)]),
            Tensor(name="tokens", dtype="int64", shape=[1, header.token_length]),
        )
        actions = Tensor(name="actions", dtype="float32", shape=[1, action.steps, len(action.elements)])
        module = Whole(checkpoint.network, header.camera.name).eval()
        observations = _observations(file, header)
        return Policy(
            family="demo",
            robot_type=header.robot_type,
            components={"policy": Component(module, inputs, (actions,))},
            program=Single(kind="single"),
            cameras=(header.camera,),
            state=checkpoint.state,
            action=action,
            task=checkpoint.task,
            observations=observations,
            evidence=Evidence(
                kind="recorded",
                text=f"{file.name}, recorded by the simulated expert that it was trained on",
                samples=len(observations),
            ),
            notes=json.dumps(header.training, default=str)[:20_000],
        )
    except ValidationError as error:
        raise SourceError(f"{path} contradicts itself: {_rows(error)}; train it again") from error


def _header(path: Path, data: Mapping[str, Any]) -> Header:
    if data.get("format") != FORMAT:
        hint = " (it looks like a training checkpoint)" if "model_state_dict" in data else ""
        raise SourceError(
            f"{path} is a torch file, but not of a family that this version reads{hint}: its format is "
            f"{data.get('format')!r}, expected {FORMAT!r}"
        )
    if data.get("version") != VERSION:
        raise SourceError(
            f"{path} is version {data.get('version')!r} of the demo policy's format; this Holdfast reads "
            f"version {VERSION}: train it again, or use the Holdfast that wrote it"
        )
    if data.get("architecture") != ARCHITECTURE:
        raise SourceError(f"{path} has architecture {data.get('architecture')!r}, expected {ARCHITECTURE!r}")
    weights = data.get("state_dict")
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise SourceError(f"{path} has no state_dict of tensors; train it again")
    try:
        return Header.model_validate({key: value for key, value in data.items() if key != "state_dict"})
    except ValidationError as error:
        raise SourceError(f"{path} is not a complete checkpoint: {_rows(error)}; train it again") from error


def _check_sizes(path: Path, header: Header, config: KeypointVLAConfig) -> None:
    """What the file says twice must be the same: a network has no names for what goes in and out."""
    actions, camera = header.action_contract, header.camera
    for what, said, network in (
        ("token_length", header.token_length, config.token_length),
        ("largest word id", max(header.vocabulary.values(), default=0), config.vocabulary),
        ("steps", actions.steps, config.steps),
        ("action names", len(actions.names), config.joints),
        ("action units", len(actions.units), config.joints),
        ("relative flags", len(actions.relative), config.joints),
        ("rows of action offsets", len(header.action_statistics.offset), config.steps),
        ("rows of action scales", len(header.action_statistics.scale), config.steps),
        ("camera size", (camera.height, camera.width), (config.image, config.image)),
    ):
        if said != network:
            raise SourceError(
                f"{path} contradicts itself: {what} is {said}, its network has {network}; train it again"
            )


def _network(path: Path, header: Header, weights: dict[str, torch.Tensor]) -> KeypointVLA:
    """The network with its weights, after comparing every shape without allocating memory for it."""
    try:
        config = KeypointVLAConfig(**header.config)  # pyright: ignore[reportArgumentType] (checked below)
        _check_sizes(path, header, config)
        with torch.device("meta"):
            expected = KeypointVLA(config).state_dict()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise SourceError(
            f"{path}: no network can be built from its config {header.config}: {error}"
        ) from error
    wrong = sorted(set(expected) ^ set(weights)) or [
        f"{name} {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if weights[name].shape != tensor.shape
    ]
    if wrong:
        raise SourceError(f"{path}: the weights do not fit the network of its config: {', '.join(wrong[:5])}")
    if sum(tensor.numel() for tensor in expected.values()) > MAX_PARAMETERS:
        raise SourceError(f"{path}: a demo policy of more than {MAX_PARAMETERS} parameters is absurd")
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise SourceError(f"{path}: the weight {name} is not finite float32; train it again")
    module = KeypointVLA(config)
    module.load_state_dict(weights)
    return module.eval()


def _contracts(header: Header) -> tuple[StateContract, ActionContract, TaskContract]:
    actions, rows = header.action_contract, header.action_statistics
    named = [{"name": n, "unit": u} for n, u in zip(actions.names, actions.units, strict=True)]
    action = {
        "space": actions.space,
        "elements": [
            {**element, "relative": relative}
            for element, relative in zip(named, actions.relative, strict=True)
        ],
        "steps": actions.steps,
        "dt_s": actions.dt_s,
        "normalisation": [
            {"source": "mean_std", "offset": offset, "scale": scale}
            for offset, scale in zip(rows.offset, rows.scale, strict=True)
        ],
    }
    state = {
        "elements": named,
        "normalisation": {"source": "mean_std", **header.state_statistics.model_dump()},
    }
    words = {"kind": "words", "words": header.vocabulary, "length": header.token_length, "pad": 0}
    default = DEFAULT_TASK if DEFAULT_TASK in header.tasks else next(iter(header.tasks), None)
    return (
        StateContract.model_validate(state),
        ActionContract.model_validate(action),
        TaskContract(
            default=default, examples=header.tasks, tokenizer=ClosedVocabulary.model_validate(words)
        ),
    )


def _observation_file(path: Path, given: Path | None) -> Path:
    """The file named by the user, else one beside the checkpoint, else the one that comes with Holdfast.

    All demo policies share robot, camera and words, so the shipped recording is real data for each of them.
    """
    if given is not None:
        return given
    beside = [path.with_name(f"{path.stem}.observations.npz"), path.with_name("observations.npz")]
    return next((file for file in beside if file.is_file()), OBSERVATIONS)


def _observations(path: Path, header: Header) -> tuple[Observation, ...]:
    try:
        with path.open("rb") as file:
            arrays = read_npz(file.read(MAX_OBSERVATION_BYTES), MAX_OBSERVATION_BYTES)
        if missing := [name for name in ("image", "state", "text") if name not in arrays]:
            raise ValueError(f"it has no {' and no '.join(missing)}")
        # Damaged bytes need not be characters.
        texts = [str(text) for text in np.atleast_1d(arrays["text"])]
    except (OSError, ValueError) as error:
        raise SourceError(
            f"the recorded observations {path} cannot be read ({error}); parity is measured on them: give "
            "a file with --observations (arrays image, state and text)"
        ) from error
    image, state, text = arrays["image"], arrays["state"], arrays["text"]
    count, size = len(texts), len(header.action_contract.names)
    kinds = image.dtype == np.uint8 and state.dtype.kind in "fiu" and text.dtype.kind == "U"
    shapes = image.ndim == 4 and image.shape[::3] == (count, 3) and state.shape == (count, size)
    if not kinds or not shapes or text.shape != (count,) or not np.isfinite(state).all():
        raise SourceError(
            f"{path} has image {image.dtype} {list(image.shape)}, state {state.dtype} {list(state.shape)}, "
            f"text {text.dtype} {list(text.shape)}; expected uint8 [N, h, w, 3], finite [N, {size}] and N "
            "strings"
        )
    return tuple(
        Observation((Moment({header.camera.name: image[i]}, state[i].astype(np.float64)),), texts[i])
        for i in range(count)
    )


def _rows(error: ValidationError) -> str:
    rows = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
    return "; ".join(rows[:5])
