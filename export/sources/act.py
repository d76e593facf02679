"""ACT policies of LeRobot (`type: act`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ...runtime.bundle.schema import ExecutionHint, Single, Tensor
from ..errors import SourceError
from ..models.act import Act, ActSize
from ..models.resnet import resnet_size
from .lerobot import ACTION, STATE, PolicyConfig, PolicyFolder, policy_type, read_folder
from .lerobot_policy import FRAME_OPTIONS, NO_LANGUAGE, contradiction, read_frame
from .types import Component, Policy, ReadOptions
from .weights import below, build, renamed, split_attention

MEANING = "LeRobot policy folders of type act (formats 0.4 and before)"
OPTIONS = FRAME_OPTIONS
NAMES: tuple[tuple[str, str | None], ...] = (
    (r"model\.vae_encoder", None),  # training only: the latent is zero afterwards
    (r"model\.", ""),
)
ONLY_TRAINING = (
    r"use_vae|n_vae_encoder_layers|dropout|kl_weight|pretrained_backbone_weights|n_action_steps|"
    r"temporal_ensemble_coeff"
)
Width = Annotated[int, Field(gt=0, le=16384)]
Layers = Annotated[int, Field(gt=0, le=64)]


class ActConfig(PolicyConfig):
    chunk_size: Annotated[int, Field(gt=0, le=4096)]
    vision_backbone: str
    replace_final_stride_with_dilation: bool | Literal[0, 1] = False
    pre_norm: bool = False
    dim_model: Width
    n_heads: Width
    dim_feedforward: Width
    feedforward_activation: Literal["relu", "gelu"] = "relu"
    n_encoder_layers: Layers
    n_decoder_layers: Layers
    latent_dim: Width


def recognise(path: Path) -> str | None:
    """By the folder's config.json."""
    return "config.json says type act" if policy_type(path) == "act" else None


def read(path: Path, options: ReadOptions) -> Policy:
    """Raises `SourceError`."""
    folder = read_folder(path)
    network = read_network(folder)
    size = network.size
    try:
        frame = read_frame(folder, options, size.steps, 1)
        actions = Tensor(name="actions", dtype="float32", shape=[1, size.steps, size.actions])
        ensembled = folder.config.get("temporal_ensemble_coeff") is not None
        return Policy(
            family="act",
            robot_type=frame.robot_type,
            components={"policy": Component(network, frame.observed, (actions,))},
            program=Single(kind="single"),
            cameras=frame.cameras,
            state=frame.state,
            action=frame.action,
            task=NO_LANGUAGE,
            observations=frame.observations,
            evidence=frame.evidence,
            notes=frame.notes,
            execution=ExecutionHint(strategy="ensemble") if ensembled else None,
        )
    except ValidationError as error:
        raise contradiction(path, error) from error


def read_network(folder: PolicyFolder) -> Act:
    """The network with the folder's weights. Raises `SourceError`."""
    config = folder.settings(ActConfig, ONLY_TRAINING)
    folder.check_steps()
    folder.check_interface(state=False)
    weights = split_attention(renamed(folder.tensors, NAMES))
    backbone = below(weights, "backbone.")
    try:
        size = ActSize(
            backbone=resnet_size(
                config.vision_backbone, backbone, bool(config.replace_final_stride_with_dilation)
            ),
            cameras=folder.cameras,
            state=folder.vector(STATE).shape[0],
            actions=folder.vector(ACTION).shape[0],
            steps=config.chunk_size,
            width=config.dim_model,
            heads=config.n_heads,
            feedforward=config.dim_feedforward,
            encoder_layers=config.n_encoder_layers,
            decoder_layers=config.n_decoder_layers,
            latent=config.latent_dim,
            pre_norm=config.pre_norm,
            activation=config.feedforward_activation,
        )
    except ValueError as error:
        raise SourceError(f"{folder.path}: {error}") from error
    return build(lambda: Act(size), weights, folder.path)
