"""SmolVLA policies of LeRobot (`type: smolvla`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from ...runtime.bundle.schema import GUIDED, BpeTokenizer, Flow, Reference, TaskContract, Tensor
from ..errors import SourceError
from ..models.decoder import DecoderSize
from ..models.guidance import Guided
from ..models.siglip import VisionSize
from ..models.smolvla import Denoise, Prefill, SmolVlaSize, Vision, names
from ..parity import to_feeds
from ..reference import answer
from ..sessions import TorchGraph
from .lerobot import ACTION, STATE, PolicyConfig, PolicyFolder, policy_type, read_folder
from .lerobot_policy import FRAME_OPTIONS, Frame, contradiction, read_frame
from .smolvlm import TOKENIZER, SmolVlm, read_smolvlm
from .types import Component, Policy, ReadOptions
from .weights import below, build, renamed

ONLY_TRAINING = (
    r"freeze_vision_encoder|train_expert_only|train_state_proj|load_vlm_weights|n_action_steps|"
    r"pad_language_to|prefix_length|rtc_config"
)
"""`pad_language_to` and `prefix_length` add positions that nothing looks at."""
STEPS = ("smolvla_new_line_processor", "tokenizer_processor")
NUMERICS = ("right-positions", "transformers-4.57")
"""Where patches of pictures are: each at its own place, or as transformers 4.55 to 4.57 has it in float32."""
MEANING = "LeRobot policy folders of type smolvla (formats 0.4 and before)"
OPTIONS = FRAME_OPTIONS | {"tokenizer", "numerics"}
COMPARED = 2
"""Observations on which the numerics are compared."""
EXAMPLES = ("pick up the red cube", "put it into the box")
MAX_GUIDANCE = 10.0
"""Where rtc_config says nothing: LeRobot's default."""
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


def recognise(path: Path) -> str | None:
    """By the folder's config.json."""
    return "config.json says type smolvla" if policy_type(path) == "smolvla" else None


def read(path: Path, options: ReadOptions) -> Policy:
    """Raises `SourceError`."""
    numerics = options.numerics or NUMERICS[0]
    if numerics not in NUMERICS:
        raise SourceError(
            f"--numerics {numerics} is not known for SmolVLA; give one of {', '.join(NUMERICS)}"
        )
    folder = _without_empty_cameras(read_folder(path))
    model = read_smolvlm(str(folder.config.get("vlm_model_name")), path, options.tokenizer)
    config, networks = read_networks(folder, model.sizes, model.tokenizer, numerics)
    size = networks.size
    try:
        frame = read_frame(folder, options, size.horizon, 1, EXAMPLES)
        task = TaskContract(default=None, examples=list(EXAMPLES), tokenizer=_tokenizer(size, model.sizes))
        policy = Policy(
            family="smolvla",
            robot_type=frame.robot_type,
            components=_components(networks, frame),
            program=Flow(
                kind="flow",
                steps=config.num_steps,
                width=size.max_action,
                horizon=size.horizon,
                time_sums=folder.before.old,
            ),
            cameras=frame.cameras,
            state=frame.state,
            action=frame.action,
            task=task,
            observations=frame.observations,
            evidence=frame.evidence,
            notes=frame.notes,
            files={TOKENIZER: model.tokenizer},
        )
    except ValidationError as error:
        raise contradiction(path, error) from error
    return replace(policy, reference=_reference(policy, networks, path, numerics))


def _reference(policy: Policy, networks: Networks, path: Path, numerics: str) -> Reference:
    """How far apart the two numerics are, on the first observations."""
    other = replace(networks.size, wrong_places=not networks.size.wrong_places)
    vision = build(lambda: Vision(other), networks.vision.state_dict(), path)
    parts = {name: part for name, part in policy.components.items() if name != GUIDED}
    parts_there = {**parts, "vision": replace(parts["vision"], module=vision)}
    feeds = to_feeds(replace(policy, observations=policy.observations[:COMPARED]))
    here, there = (
        answer(replace(policy, components=used), sessions, feeds, None).actions
        for used in (parts, parts_there)
        for sessions in [{name: TorchGraph(part) for name, part in used.items()}]
    )
    (name,) = set(NUMERICS) - {numerics}
    return Reference(name=numerics, differences={name: float(np.abs(here - there).max())})


def _components(networks: Networks, frame: Frame) -> dict[str, Component]:
    size = networks.size

    def tensor(name: str, dtype: Literal["float32", "int64"], *shape: int) -> Tensor:
        return Tensor(name=name, dtype=dtype, shape=list(shape))

    seen = len(size.cameras) * size.embeddings
    pictures = tensor("image_embeddings", "float32", 1, seen, size.text.width)
    tokens, mask = (tensor(name, "int64", 1, size.tokens) for name in ("tokens", "token_mask"))
    x, prefix, velocity = (
        tensor(name, "float32", 1, size.horizon, size.max_action) for name in ("x", "prefix", "velocity")
    )
    weight = tensor("prefix_weight", "float32", 1, size.horizon, 1)
    cache = tuple(tensor(name, "float32", *size.cache) for name in ("keys", "values"))
    loop = (x, tensor("time", "float32", 1), mask, *cache)
    return {
        "vision": Component(networks.vision, frame.observed[:-1], (pictures,)),
        "prefill": Component(networks.prefill, (pictures, tokens, mask, frame.observed[-1]), cache),
        "denoise_step": Component(networks.denoise_step, loop, (velocity,)),
        "denoise_step_guided": Component(networks.denoise_step_guided, (*loop, prefix, weight), (velocity,)),
    }


def _tokenizer(size: SmolVlaSize, model: SmolVlm) -> BpeTokenizer:
    return BpeTokenizer(
        kind="bpe", file=TOKENIZER, length=size.tokens, pad=model.pad_token_id, pad_side="right",
        template="{instruction}", strip=False, lower=False, ending="\n", special_tokens=True,
    )  # fmt: skip


def _without_empty_cameras(folder: PolicyFolder) -> PolicyFolder:
    """Without those that stand for cameras which the robot does not have."""
    inputs = tuple(f for f in folder.inputs if not f.name.startswith("observation.images.empty_camera_"))
    return replace(folder, inputs=inputs)


def read_networks(
    folder: PolicyFolder, vlm: SmolVlm, tokenizer: bytes, numerics: str
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
    guided = Guided(denoise, _max_guidance(folder), size.denoise_inputs)
    return config, Networks(size, vision, prefill, denoise, guided.eval())


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
    return SmolVlaSize(
        cameras=folder.cameras,
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
        tokens=_instruction_length(folder, config),
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


def _max_guidance(folder: PolicyFolder) -> float:
    chosen = folder.config.get("rtc_config") or {}
    value = chosen.get("max_guidance_weight", MAX_GUIDANCE) if isinstance(chosen, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise SourceError(
            f"{folder.path}: rtc_config.max_guidance_weight is {value!r}, expected a number > 0"
        )
    return float(value)


def _instruction_length(folder: PolicyFolder, config: SmolVlaConfig) -> int:
    """Tokens of an instruction: what the step before the policy says, where there is one."""
    for step in folder.steps:
        if step["registry_name"] == "tokenizer_processor":
            length, side = step.get("max_length"), step.get("padding_side", "right")
            if type(length) is not int or not 0 < length <= 4096 or side != "right":
                raise SourceError(
                    f"{folder.path}: the tokenizer's step has max_length {length!r} and pads on the "
                    f"{side!r}; expected a length, and the right"
                )
            return length
    return config.tokenizer_max_length


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
