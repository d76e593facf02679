"""OpenVLA checkpoints as its own `save_pretrained` writes them, base models and merged fine-tuned ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...runtime.bundle.schema import (
    NEXT,
    ActionTokens,
    BpeTokenizer,
    Normalisation,
    ReversedIds,
    TaskContract,
    Tensor,
    Tokens,
)
from ..errors import SourceError
from ..models.decoder import DecoderSize
from ..models.openvla import DecodeStep, Language, LanguageSize, Prefill, Strategy, Vision, VisionSize
from ..models.pictures import Camera
from ..models.timm_vit import vit_size
from .contract import read_robot_contract
from .lerobot import CONFIG, read_json, read_weights
from .lerobot_policy import FRAME_OPTIONS, LEAST_SCALE, contradiction, picture
from .observations import gather
from .types import Component, Policy, ReadOptions
from .weights import below, build, renamed

MEANING = "OpenVLA checkpoints (DINOv2 and SigLIP, Llama 2, action tokens), with --unnorm-key"
OPTIONS = FRAME_OPTIONS | {"tokenizer", "unnorm_key"}
PREPROCESSOR, STATISTICS, TOKENIZER = "preprocessor_config.json", "dataset_statistics.json", "tokenizer.json"
PROMPT = "In: What action should the robot take to {instruction}?\nOut:"
EMPTY = "\u2581"
"""The token of a lone space, which ends every prompt in training (29871 of Llama's)."""
LENGTH = 64
"""Tokens of a prompt; what surrounds the instruction takes 16."""
EXAMPLES = ["pick up the object", "put the object into the bowl", "open the drawer"]
UNUSED_BLOCKS = 1
"""Features are those of the second-to-last block."""
NAMES: tuple[tuple[str, str | None], ...] = (
    (r"vision_backbone\.(fused_)?featurizer\.(norm|attn_pool|fc_norm|head)\.", None),
    (r"vision_backbone\.", "vision."),
    (r"projector\.", "vision.projector."),
    (r"language_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
    (r"language_model\.model\.", "language."),
    (r"language_model\.lm_head\.weight", "lm_head"),
)
Size = Annotated[int, Field(gt=0, le=1 << 20)]
Three = tuple[float, float, float]


class Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Text(Part):
    """Defaults are those of transformers' LlamaConfig: what equals them is not in the file."""

    model_type: Literal["llama"] = "llama"
    vocab_size: Size = 32000
    hidden_size: Size = 4096
    intermediate_size: Size = 11008
    num_hidden_layers: Annotated[int, Field(gt=0, le=200)] = 32
    num_attention_heads: Size = 32
    num_key_value_heads: Size | None = None
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    rope_theta: Annotated[float, Field(gt=1)] = 10000.0
    rope_scaling: None = None
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    tie_word_embeddings: Literal[False] = False


class Config(Part):
    model_type: Literal["openvla"]
    use_fused_vision_backbone: Literal[True]
    arch_specifier: Literal["no-align+fused-gelu-mlp"]
    llm_backbone_id: Literal["llama2-7b-pure"]
    """Others were trained with other prompts."""
    timm_model_ids: tuple[str, str]
    timm_override_act_layers: tuple[None, None]
    image_sizes: tuple[Size, Size]
    n_action_bins: Annotated[int, Field(ge=3, le=4096)] = 256
    pad_to_multiple_of: Annotated[int, Field(ge=0, le=4096)] = 64
    text_config: Text
    norm_stats: dict[str, Any] | None = None
    quantization_config: None = None


class Processor(Part):
    image_resize_strategy: Strategy
    input_sizes: tuple[tuple[Literal[3], Size, Size], tuple[Literal[3], Size, Size]]
    interpolations: tuple[Literal["bicubic"], Literal["bicubic"]]
    means: tuple[Three, Three]
    stds: tuple[Three, Three]


class ActionStatistics(Part):
    q01: Annotated[list[float], Field(min_length=1, max_length=64)]
    q99: list[float]
    mask: list[bool] | None = None


Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Networks:
    vision: Vision
    prefill: Prefill
    decode_step: DecodeStep


def recognise(path: Path) -> str | None:
    """By the folder's config.json."""
    try:
        found = read_json(path / CONFIG).get("model_type")
    except SourceError:
        return None
    return "config.json says model_type openvla" if found == "openvla" else None


def _check_alone(path: Path) -> None:
    """OpenVLA-OFT has the same config and the same weights, but reads actions off heads of its own."""
    parts = (
        "action_head--*",
        "proprio_projector--*",
        "noisy_action_projector--*",
        "vision_backbone--*",
        "lora_adapter",
    )
    found = [file.name for part in parts for file in sorted(path.glob(part))]
    if found:
        raise SourceError(
            f"{path} holds {found[0]}: it is a checkpoint of OpenVLA-OFT, whose actions come from that and "
            "not from the tokens of OpenVLA; this version does not read that family"
        )


def read(path: Path, options: ReadOptions) -> Policy:
    """Raises `SourceError`."""
    config = _checked(Config, path / CONFIG)
    _check_alone(path)
    normalisation = read_statistics(path, config, options.unnorm_key)
    elements = len(normalisation.offset)
    contract = read_robot_contract(options, elements, 0)
    tokenizer, empty = read_tokenizer(path, options.tokenizer)
    side = config.image_sizes[0]
    name, height, width = contract.one_camera(("primary", side, side))
    networks = read_networks(path, config, (name, height, width), LENGTH, elements)
    size = networks.prefill.language.size
    try:
        cameras = (picture(name, height, width, aspect="stretch"),)
        task = TaskContract(
            default=None,
            examples=EXAMPLES,
            tokenizer=BpeTokenizer(
                kind="bpe", file=TOKENIZER, length=LENGTH, pad=0, pad_side="right", template=PROMPT,
                strip=False, lower=True, special_tokens=True, suffix=[empty],
            ),
        )  # fmt: skip
        observations, evidence = gather(options, cameras, None, None, EXAMPLES)
        return Policy(
            family="openvla",
            robot_type=contract.robot_type,
            components=components(networks),
            program=Tokens(
                kind="tokens",
                count=elements,
                vocabulary=ActionTokens(
                    bins=size.bins, low=-1.0, high=1.0,
                    encoding=ReversedIds(kind="reversed_ids", last=size.first + size.bins - 1),
                ),
                cache_length=size.cache_length,
                image_positions=size.patches,
                logits=size.bins,
                first_logit=size.first,
            ),
            cameras=cameras,
            state=None,
            action=contract.action_contract(1, normalisation),
            task=task,
            observations=observations,
            evidence=evidence,
            notes=f"OpenVLA checkpoint {path.name}; units, names and rate from {contract.origin}",
            files={TOKENIZER: tokenizer},
        )  # fmt: skip
    except ValidationError as error:
        raise contradiction(path, error) from error


def components(networks: Networks) -> dict[str, Component]:
    """The three graphs with what goes in and out."""
    size = networks.prefill.language.size
    camera = networks.vision.size.camera
    taken = [
        Tensor(name=f"image.{camera.name}", dtype="uint8", shape=[1, camera.height, camera.width, 3]),
        Tensor(name="tokens", dtype="int64", shape=[1, size.length]),
        Tensor(name="token_mask", dtype="int64", shape=[1, size.length]),
    ]
    embeddings = Tensor(name="image_embeddings", dtype="float32", shape=[1, size.patches, size.layer.width])
    logits = Tensor(name="logits", dtype="float32", shape=[1, size.bins])
    cache = [Tensor(name=name, dtype="float32", shape=shape) for name, shape in size.cache().items()]
    following = [tensor.model_copy(update={"name": NEXT + tensor.name}) for tensor in cache]
    loop = [
        Tensor(name="token", dtype="int64", shape=[1, 1]),
        Tensor(name="position", dtype="int64", shape=[1]),
    ]
    return {
        "vision": Component(networks.vision, (taken[0],), (embeddings,)),
        "prefill": Component(networks.prefill, (embeddings, *taken[1:]), (logits, *cache)),
        "decode_step": Component(networks.decode_step, (*loop, *cache), (logits, *following)),
    }


def read_networks(
    path: Path, config: Config, camera: tuple[str, int, int], length: int, count: int
) -> Networks:
    """The networks with the folder's weights, for a camera (name, height, width), prompts of `length` and
    actions of `count` tokens. Raises `SourceError`."""
    processor = _checked(Processor, path / PREPROCESSOR)
    weights = renamed(read_weights(path), NAMES)
    try:
        vision_size, language_size = _sizes(config, processor, weights, camera, length, count)
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error
    weights = dict(_without_unused(weights, vision_size))
    head, table = weights.pop("lm_head", None), weights.get("language.embed_tokens.weight")
    actions = slice(language_size.first, language_size.first + language_size.bins)
    for name, tensor in (("action_head", head), ("action_embeddings", table)):
        if tensor is None or tensor.shape[0] != language_size.vocabulary:
            raise SourceError(
                f"{path}: the weights of the vocabulary ({name}) are missing, or not of its size"
            )
        weights[f"language.{name}.weight"] = tensor[actions]
    for name in weights:
        if not name.startswith(("vision.", "language.")):
            raise SourceError(f"{path}: the weight {name} is of no part of an OpenVLA model")
    vision = build(lambda: Vision(vision_size), below(weights, "vision."), path)
    language = build(lambda: Language(language_size), below(weights, "language."), path)
    return Networks(vision, Prefill(language).eval(), DecodeStep(language).eval())


def _sizes(
    config: Config,
    processor: Processor,
    weights: Mapping[str, torch.Tensor],
    camera: tuple[str, int, int],
    length: int,
    count: int,
) -> tuple[VisionSize, LanguageSize]:
    text, side = config.text_config, config.image_sizes[0]
    if any(shape != (3, side, side) for shape in processor.input_sizes) or config.image_sizes[1] != side:
        raise ValueError(f"pictures of {config.image_sizes} and {processor.input_sizes} are not of one size")
    first, second = (
        vit_size(name, below(weights, prefix), side, UNUSED_BLOCKS)
        for name, prefix in zip(
            config.timm_model_ids, ("vision.featurizer.", "vision.fused_featurizer."), strict=True
        )
    )
    if text.hidden_size % text.num_attention_heads:
        raise ValueError(f"{text.num_attention_heads} heads do not divide a width of {text.hidden_size}")
    vocabulary = text.vocab_size - config.pad_to_multiple_of
    if vocabulary < config.n_action_bins:
        raise ValueError(f"{config.n_action_bins} action tokens do not fit into a vocabulary of {vocabulary}")
    vision = VisionSize(
        camera=Camera(*camera, processor.means[0], processor.stds[0]),
        fused=(processor.means[1], processor.stds[1]),
        strategy=processor.image_resize_strategy,
        # The processor keeps that of its last tower.
        fill=tuple(int(mean * 255) for mean in processor.means[-1]),
        towers=(first, second),
        width=text.hidden_size,
    )
    language = LanguageSize(
        layer=DecoderSize(
            width=text.hidden_size,
            heads=text.num_attention_heads,
            groups=text.num_key_value_heads or text.num_attention_heads,
            head_width=text.hidden_size // text.num_attention_heads,
            feedforward=text.intermediate_size,
            epsilon=text.rms_norm_eps,
        ),
        layers=text.num_hidden_layers,
        rope_base=text.rope_theta,
        vocabulary=text.vocab_size,
        patches=first.patches,
        length=length,
        count=count,
        first=vocabulary - config.n_action_bins,
        bins=config.n_action_bins,
    )
    return vision, language


def _without_unused(weights: Mapping[str, torch.Tensor], size: VisionSize) -> Mapping[str, torch.Tensor]:
    unused = tuple(
        f"vision.{tower}.blocks.{vit.blocks + i}."
        for tower, vit in zip(("featurizer", "fused_featurizer"), size.towers, strict=True)
        for i in range(UNUSED_BLOCKS)
    )
    return {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}


def read_statistics(path: Path, config: Config, key: str | None) -> Normalisation:
    """How the actions of one of the datasets are un-normalised; statistics beside the checkpoint count more
    than those in it. Raises `SourceError`."""
    beside = path / STATISTICS
    table = read_json(beside) if beside.is_file() else config.norm_stats
    origin = beside if beside.is_file() else path / CONFIG
    if not table:
        raise SourceError(f"{origin} has no statistics; put the {STATISTICS} of the training beside it")
    known = ", ".join(sorted(map(str, table))[:30])
    if key is None and len(table) > 1:
        raise SourceError(
            f"{origin} has statistics of several datasets; choose one with --unnorm-key: {known}"
        )
    chosen = next(iter(table)) if key is None else key
    if chosen not in table:
        raise SourceError(f"{origin} has no statistics {chosen!r} (--unnorm-key); it has {known}")
    entry = table[chosen].get("action") if isinstance(table[chosen], dict) else None
    found = _validated(ActionStatistics, entry, origin)
    mask = [True] * len(found.q01) if found.mask is None else found.mask
    if not len(found.q01) == len(found.q99) == len(mask) or any(
        low > high for low, high in zip(found.q01, found.q99, strict=False)
    ):
        raise SourceError(f"{origin}: q01, q99 and mask of {chosen!r} do not belong together")
    rows = list(zip(found.q01, found.q99, mask, strict=True))
    return Normalisation(
        source="quantiles",
        offset=[(low + high) / 2 if masked else 0.0 for low, high, masked in rows],
        scale=[max((high - low) / 2, LEAST_SCALE) if masked else 1.0 for low, high, masked in rows],
    )


def read_tokenizer(path: Path, given: Path | None) -> tuple[bytes, int]:
    """tokenizer.json, and the id of the token that ends prompts. Raises `SourceError`."""
    folder = path if given is None else given
    file = folder / TOKENIZER if folder.is_dir() else folder
    if not file.is_file():
        raise SourceError(
            f"{file} is missing; fetch {TOKENIZER} of openvla/openvla-7b and give its path with --tokenizer"
        )
    data = read_json(file)
    model = data.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    empty = vocabulary.get(EMPTY) if isinstance(vocabulary, dict) else None
    if type(empty) is not int:
        raise SourceError(f"{file} is no tokenizer of Llama: it has no token {EMPTY!r}; fetch OpenVLA's own")
    return json.dumps(data, ensure_ascii=False).encode(), empty


def _checked(model: type[Model], path: Path) -> Model:
    return _validated(model, read_json(path), path)


def _validated(model: type[Model], value: Any, path: Path) -> Model:
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
        text = "; ".join(rows[:4]).replace("\n", " ")
        raise SourceError(f"{path} describes what this version cannot export: {text}") from error
