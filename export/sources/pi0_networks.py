"""The networks of pi0 and pi0.5 with a checkpoint's weights; most sizes are read off the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import SourceError
from ..models.decoder import DecoderSize
from ..models.guidance import Guided
from ..models.pi0 import Denoise, Pi0Size, Prefill, Vision, names, untied
from ..models.siglip import VisionSize
from .weights import below, build, renamed

VISION_HEADS = 16
"""Of SigLIP So400m: no weight tells."""
PARTS = ("vision.", "prefill.", "denoise_step.")


@dataclass(frozen=True)
class Networks:
    size: Pi0Size
    vision: Vision
    prefill: Prefill
    denoise_step: Denoise
    denoise_step_guided: Guided


def read_networks(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any], max_guidance: float = 10.0
) -> Networks:
    """`told`: fields of `Pi0Size` that the weights do not tell. Raises `SourceError`."""
    try:
        weights = renamed(untied(tensors), names(_layers(tensors)))
        for name in weights:
            if not name.startswith(PARTS):
                raise ValueError(f"the weight {name} is of no part of a pi0 policy")
        size = _size(weights, told)
    except (KeyError, ValueError, IndexError) as error:
        what = f"the weight {error.args[0]} is missing" if isinstance(error, KeyError) else error
        raise SourceError(f"{path}: {what}") from error
    vision = build(lambda: Vision(size), below(weights, "vision."), path)
    prefill = build(lambda: Prefill(size), below(weights, "prefill."), path)
    denoise = build(lambda: Denoise(size), below(weights, "denoise_step."), path)
    guided = Guided(denoise, max_guidance, size.denoise_inputs)
    return Networks(size, vision, prefill, denoise, guided.eval())


def _size(weights: Mapping[str, Tensor], told: Mapping[str, Any]) -> Pi0Size:
    def shape(name: str) -> tuple[int, ...]:
        return tuple(weights[name].shape)

    patches = shape("vision.vision_model.embeddings.patch_embedding.weight")
    places = shape("vision.vision_model.embeddings.position_embedding.weight")[0]
    if len(patches) != 4 or isqrt(places) ** 2 != places:
        raise ValueError(f"patches of {list(patches)} at {places} places do not make up squares")
    vision_layers = _count(weights, r"vision\.vision_model\.encoder\.layers\.(\d+)\.")
    vocabulary, _ = shape("prefill.embed_tokens.weight")
    layers = _count(weights, r"denoise_step\.layers\.(\d+)\.")
    if layers != _count(weights, r"prefill\.layers\.(\d+)\."):
        raise ValueError("PaliGemma and the expert have different numbers of layers")
    _, actions = shape("denoise_step.action_in_proj.weight")
    adaptive = "denoise_step.time_mlp_in.weight" in weights
    return Pi0Size(
        picture=isqrt(places) * patches[2],
        vision=VisionSize(
            width=patches[0],
            heads=VISION_HEADS,
            layers=vision_layers,
            feedforward=shape("vision.vision_model.encoder.layers.0.mlp.fc1.weight")[0],
            patch=patches[2],
            places=isqrt(places),
        ),
        vocabulary=vocabulary,
        max_state=0 if adaptive else shape("denoise_step.state_proj.weight")[1],
        max_action=actions,
        text=_decoder(weights, "prefill."),
        expert=_decoder(weights, "denoise_step."),
        layers=layers,
        adaptive=adaptive,
        **told,
    )


def _decoder(weights: Mapping[str, Tensor], part: str) -> DecoderSize:
    """Gemma's sizes; all of its variants in use have one head of keys and values."""
    attention = f"{part}layers.0.self_attn"
    head_width, width = weights[f"{attention}.k_proj.weight"].shape
    heads, rest = divmod(weights[f"{attention}.q_proj.weight"].shape[0], max(head_width, 1))
    if rest or not heads:
        raise ValueError(f"the queries of {attention} are not whole heads of {head_width}")
    return DecoderSize(
        width, heads, 1, head_width, weights[f"{part}layers.0.mlp.gate_proj.weight"].shape[0], 1e-6,
        activation="gelu_pytorch_tanh", unit_offset=True,
    )  # fmt: skip


def _layers(tensors: Mapping[str, Tensor]) -> int:
    return _count(tensors, r".*gemma_expert\.model\.layers\.(\d+)\.")


def _count(names: Mapping[str, Any], pattern: str) -> int:
    """Layers that are numbered in names. A gap, or none, is found when the weights are compared."""
    return max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=0) + 1
