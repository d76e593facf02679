"""SmolVLA policies of LeRobot (`type: smolvla`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import SourceError
from ..models.decoder import DecoderSize
from ..models.guidance import Guided
from ..models.siglip import VisionSize
from ..models.smolvla import Denoise, Prefill, SmolVlaSize, Vision, names
from .lerobot import ACTION, STATE, PolicyConfig, PolicyFolder
from .smolvlm import SmolVlm
from .weights import below, build, renamed

ONLY_TRAINING = (
    r"freeze_vision_encoder|train_expert_only|train_state_proj|load_vlm_weights|n_action_steps|"
    r"pad_language_to|prefix_length|rtc_config"
)
"""`pad_language_to` and `prefix_length` add positions that nothing looks at."""
STEPS = ("smolvla_new_line_processor", "tokenizer_processor")
NUMERICS = ("right-positions", "transformers-4.57")
"""Where patches of pictures are: each at its own place, or as transformers 4.55 to 4.57 has it in float32."""
Width = Annotated[int, Field(gt=0, le=16384)]
Pixels = Annotated[int, Field(gt=0, le=8192)]


class SmolVlaConfig(PolicyConfig):
    chunk_size: Annotated[int, Field(gt=0, le=4096)]
    max_state_dim: Width
    max_action_dim: Width
    resize_imgs_with_padding: tuple[Pixels, Pixels]
    """Width and height."""
    empty_cameras: Annotated[int, Field(ge=0, le=16)] = 0
    tokenizer_max_length: Annotated[int, Field(gt=0, le=8192)]
    num_steps: Annotated[int, Field(gt=0, le=1000)]
    use_cache: Literal[True] = True
    vlm_model_name: str
    add_image_special_tokens: bool = False
    attention_mode: str
    num_expert_layers: int
    num_vlm_layers: int
    self_attn_every_n_layers: int
    expert_width_multiplier: Annotated[float, Field(gt=0, le=4)]
    min_period: Annotated[float, Field(gt=0)]
    max_period: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Networks:
    size: SmolVlaSize
    vision: Vision
    prefill: Prefill
    denoise_step: Denoise
    denoise_step_guided: Guided


def read_networks(
    folder: PolicyFolder, vlm: SmolVlm, tokenizer: bytes, numerics: str, max_guidance: float = 10.0
) -> tuple[SmolVlaConfig, Networks]:
    """Its settings, and the networks with the folder's weights. Raises `SourceError`."""
    config = folder.settings(SmolVlaConfig, ONLY_TRAINING)
    folder.check_steps(*STEPS)
    folder.check_interface(state=True)
    size = policy_size(folder, config, vlm, tokenizer, numerics)
    try:
        weights = renamed(folder.tensors, names(size))
    except ValueError as error:
        raise SourceError(f"{folder.path}: {error}") from error
    known = ("vision.", "prefill.", "denoise_step.")
    for name in weights:
        if not name.startswith(known):
            raise SourceError(f"{folder.path}: the weight {name} is of no part of a SmolVLA policy")
    vision = build(lambda: Vision(size), below(weights, known[0]), folder.path)
    prefill = build(lambda: Prefill(size), below(weights, known[1]), folder.path)
    denoise = build(lambda: Denoise(size), below(weights, known[2]), folder.path)
    return config, Networks(
        size, vision, prefill, denoise, Guided(denoise, max_guidance, size.denoise_inputs).eval()
    )


def policy_size(
    folder: PolicyFolder, config: SmolVlaConfig, vlm: SmolVlm, tokenizer: bytes, numerics: str
) -> SmolVlaSize:
    text, vision = vlm.text_config, vlm.vision_config
    layers = min(config.num_vlm_layers, text.num_hidden_layers)
    layers = layers if config.num_vlm_layers > 0 else text.num_hidden_layers
    width = int(text.hidden_size * config.expert_width_multiplier)
    sizes = {
        "heads": text.num_attention_heads,
        "groups": text.num_key_value_heads,
        "head_width": text.head_dim,
        "epsilon": text.rms_norm_eps,
    }
    """Raises `SourceError`."""
    for name, most in ((STATE, config.max_state_dim), (ACTION, config.max_action_dim)):
        if folder.vector(name).shape[0] > most:
            key = "max_state_dim" if name == STATE else "max_action_dim"
            raise SourceError(f"{folder.path}: {name} has more elements than {key} = {most}")
    pictures = [c for c in folder.cameras if not c.name.startswith("empty_camera_")]
    return SmolVlaSize(
        cameras=tuple(pictures),
        empty_cameras=config.empty_cameras,
        picture=(config.resize_imgs_with_padding[1], config.resize_imgs_with_padding[0]),
        vision=VisionSize(
            width=vision.hidden_size,
            heads=vision.num_attention_heads,
            layers=vision.num_hidden_layers,
            feedforward=vision.intermediate_size,
            patch=vision.patch_size,
            places=vision.image_size // vision.patch_size,
            epsilon=vision.layer_norm_eps,
        ),
        shuffle=vlm.scale_factor,
        vocabulary=text.vocab_size,
        tokens=config.tokenizer_max_length,
        picture_tokens=_picture_tokens(tokenizer) if config.add_image_special_tokens else None,
        state=folder.vector(STATE).shape[0],
        max_state=config.max_state_dim,
        max_action=config.max_action_dim,
        horizon=config.chunk_size,
        text=DecoderSize(text.hidden_size, feedforward=text.intermediate_size, **sizes),
        text_layers=layers,
        expert=DecoderSize(width, feedforward=expert_feedforward(width), **sizes),
        expert_layers=config.num_expert_layers if config.num_expert_layers > 0 else layers,
        cross="cross" in config.attention_mode,
        self_every=max(config.self_attn_every_n_layers, 0),
        min_period=config.min_period,
        max_period=config.max_period,
        wrong_places=numerics == NUMERICS[1],
    )


def expert_feedforward(width: int) -> int:
    """Two thirds of four times the width, in whole 256."""
    return 256 * ((int(4 * int(2 * width / 3)) + 255) // 256)


def _picture_tokens(tokenizer: bytes) -> tuple[int, int]:
    """Ids of what surrounds a picture. Raises `SourceError` where the tokenizer does not have them."""
    wanted = ("<fake_token_around_image>", "<global-img>")
    added: list[dict[str, Any]] = json.loads(tokenizer).get("added_tokens", [])
    ids = {entry["content"]: entry["id"] for entry in added if entry.get("content") in wanted}
    if len(ids) != len(wanted):
        raise SourceError(f"the tokenizer lacks the tokens around pictures, {', '.join(wanted)}")
    return ids[wanted[0]], ids[wanted[1]]
