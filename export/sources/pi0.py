"""pi0 and pi0.5 policies, of LeRobot (`type: pi0`, `type: pi05`) and of openpi."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationError

from ...runtime.bundle.schema import Flow, Reference, Tensor
from ..errors import SourceError
from . import openpi
from .lerobot import STATE, PolicyConfig, PolicyFolder, policy_type, read_folder
from .lerobot_policy import FRAME_OPTIONS, contradiction, read_frame
from .pi0_networks import Networks, read_networks
from .pi0_text import BUNDLED, EXAMPLES, check_vocabulary, read_tokenizer, task_of
from .types import Component, Policy, ReadOptions

ONLY_TRAINING = (
    r"paligemma_variant|action_expert_variant|dtype|n_action_steps|time_sampling_.*|rtc_config|"
    r"gradient_checkpointing|freeze_vision_encoder|train_expert_only|train_state_proj|empty_cameras|"
    r"attention_implementation|proj_width|use_cache|max_state_dim|max_action_dim"
)
"""Sizes among them are read off the weights."""
STEPS = ("pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step", "tokenizer_processor")
NUMERICS = ("lerobot-0.4", "lerobot")
"""How pictures that are not square are filled up: with -1 on a scale of 0..1, or with 0 as after 0.4."""


class Pi0Config(PolicyConfig):
    chunk_size: Annotated[int, Field(gt=0, le=4096)]
    max_state_dim: Annotated[int, Field(gt=0, le=256)]
    num_inference_steps: Annotated[int, Field(gt=0, le=1000)] = 10
    tokenizer_max_length: Annotated[int, Field(gt=0, le=4096)]
    image_resolution: tuple[int, int] = (224, 224)
    min_period: Annotated[float, Field(gt=0)] = 4e-3
    max_period: Annotated[float, Field(gt=0)] = 4.0


@dataclass(frozen=True)
class Pi0Source:
    """One of both families, in both formats."""

    family: str
    """As LeRobot's config.json has it."""
    time_weight: str
    """Of openpi's checkpoints."""

    @property
    def MEANING(self) -> str:
        return f"LeRobot policy folders of type {self.family} (format 0.4), and openpi's PyTorch folders"

    @property
    def OPTIONS(self) -> frozenset[str]:
        return FRAME_OPTIONS | {"tokenizer", "numerics"}

    def recognise(self, path: Path) -> str | None:
        """By config.json, or the names of the weights."""
        if policy_type(path) == self.family:
            return f"config.json says type {self.family}"
        if openpi.is_checkpoint(path, self.time_weight):
            return f"model.safetensors holds openpi's {self.time_weight}"
        return None

    def read(self, path: Path, options: ReadOptions) -> Policy:
        """Raises `SourceError`."""
        if policy_type(path) == self.family:
            return _policy(self.family, _lerobot(path, options), options)
        if options.numerics not in (None, "openpi"):
            raise SourceError(f"--numerics {options.numerics}: a folder of openpi has none but openpi")
        return _policy(self.family, openpi.read(path, self.family), options)


PI0, PI05 = Pi0Source("pi0", "action_time_mlp_in.weight"), Pi0Source("pi05", "time_mlp_in.weight")


def _lerobot(path: Path, options: ReadOptions) -> openpi.Checkpoint:
    """Raises `SourceError`."""
    numerics = options.numerics or NUMERICS[0]
    if numerics not in NUMERICS:
        raise SourceError(f"--numerics {numerics} is unknown for pi0; it is one of {', '.join(NUMERICS)}")
    folder = _without_empty_cameras(read_folder(path))
    config = folder.settings(Pi0Config, ONLY_TRAINING)
    folder.check_steps(*STEPS)
    folder.check_interface(state=True)
    if len(set(config.image_resolution)) != 1:
        raise SourceError(f"{path}: config.json says pictures of {config.image_resolution}, expected squares")
    return openpi.Checkpoint(
        folder, fit=numerics, tokens=config.tokenizer_max_length, horizon=config.chunk_size,
        steps=config.num_inference_steps, time_sums=False, state_text=config.max_state_dim,
        periods=(config.min_period, config.max_period), picture=config.image_resolution[0],
    )  # fmt: skip


def _policy(family: str, checkpoint: openpi.Checkpoint, options: ReadOptions) -> Policy:
    """Raises `SourceError`."""
    folder, path = checkpoint.folder, checkpoint.folder.path
    told = {
        "cameras": folder.cameras, "fit": checkpoint.fit, "tokens": checkpoint.tokens,
        "state": folder.vector(STATE).shape[0], "horizon": checkpoint.horizon,
        "min_period": checkpoint.periods[0], "max_period": checkpoint.periods[1],
    }  # fmt: skip
    networks = read_networks(path, folder.tensors, told)
    size = networks.size
    if size.picture != checkpoint.picture or size.adaptive != (family == PI05.family):
        raise SourceError(
            f"{path}: the weights are not those of {family} with pictures of {checkpoint.picture} pixels"
        )
    tokenizer = read_tokenizer(path, options)
    check_vocabulary(tokenizer, size.vocabulary)
    try:
        frame = read_frame(folder, options, checkpoint.horizon, 1, EXAMPLES)
        state = checkpoint.state_text if size.adaptive else None
        program = Flow(
            kind="flow", steps=checkpoint.steps, width=size.max_action, horizon=size.horizon,
            time_sums=checkpoint.time_sums,
        )  # fmt: skip
        return Policy(
            family=family,
            robot_type=frame.robot_type,
            components=components(networks, frame.observed),
            program=program,
            cameras=frame.cameras,
            state=frame.state,
            action=frame.action,
            task=task_of(tokenizer, size.tokens, state, openpi=checkpoint.fit == "openpi"),
            observations=frame.observations,
            evidence=frame.evidence,
            notes=frame.notes,
            files={BUNDLED: tokenizer},
            reference=Reference(name=f"{checkpoint.fit} fp32"),
        )
    except ValidationError as error:
        raise contradiction(path, error) from error


def components(networks: Networks, observed: tuple[Tensor, ...]) -> Mapping[str, Component]:
    """The graphs of the program. `observed`: pictures, and the state last."""
    size = networks.size
    pictures = tuple(tensor for tensor in observed if tensor.name.startswith("image."))
    embeddings = _tensor("image_embeddings", (1, size.embeddings, size.text.width))
    tokens, mask = (_tensor(name, (1, size.tokens), "int64") for name in ("tokens", "token_mask"))
    cache = tuple(_tensor(name, size.cache) for name in ("keys", "values"))
    chunk = 1, size.horizon, size.max_action
    velocity = (_tensor("velocity", chunk),)
    step = tuple(
        _tensor(name, shape, "int64" if dtype == torch.int64 else "float32")
        for name, (shape, dtype) in size.denoise_inputs.items()
    )
    prefix = _tensor("prefix", chunk), _tensor("prefix_weight", (1, size.horizon, 1))
    return {
        "vision": Component(networks.vision, pictures, (embeddings,)),
        "prefill": Component(networks.prefill, (embeddings, tokens, mask), cache),
        "denoise_step": Component(networks.denoise_step, step, velocity),
        "denoise_step_guided": Component(networks.denoise_step_guided, (*step, *prefix), velocity),
    }


def _tensor(name: str, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
    return Tensor.model_validate({"name": name, "dtype": dtype, "shape": list(shape)})


def _without_empty_cameras(folder: PolicyFolder) -> PolicyFolder:
    """Cameras that training filled up with nothing are masked: they change no action."""
    return replace(folder, inputs=tuple(f for f in folder.inputs if ".empty_camera_" not in f.name))
