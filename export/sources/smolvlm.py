"""The vision-language model that a SmolVLA policy was built on: sizes that its weights do not tell.

A policy's config.json only names that model (`vlm_model_name`); its own config.json has the sizes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import SourceError
from .lerobot import CONFIG, read_json

TOKENIZER = "tokenizer.json"
HUB = Path(os.environ.get("HF_HUB_CACHE") or Path.home() / ".cache" / "huggingface" / "hub")
Width = Annotated[int, Field(gt=0, le=1 << 20)]


class Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Text(Part):
    model_type: Literal["llama"] = "llama"
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Width
    num_attention_heads: Width
    num_key_value_heads: Width
    head_dim: Width
    vocab_size: Width
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False


class Picture(Part):
    """Defaults are those of transformers' SmolVLMVisionConfig."""

    hidden_size: Width = 1152
    intermediate_size: Width = 3072
    num_hidden_layers: Width = 12
    num_attention_heads: Width = 16
    image_size: Width = 224
    patch_size: Width = 32
    num_channels: Literal[3] = 3
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"


class SmolVlm(Part):
    model_type: Literal["smolvlm"]
    pad_token_id: Annotated[int, Field(ge=0, lt=1 << 31)] = 2
    """Its text is masked: which id does not matter."""
    scale_factor: Annotated[int, Field(gt=0, le=64)] = 2
    text_config: Text
    vision_config: Picture


SMOLVLM2_500M = SmolVlm(
    model_type="smolvlm",
    scale_factor=4,
    text_config=Text(
        hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15,
        num_key_value_heads=5, head_dim=64, vocab_size=49280, rms_norm_eps=1e-5,
    ),
    vision_config=Picture(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        image_size=512, patch_size=16,
    ),
)  # fmt: skip
KNOWN = {"HuggingFaceTB/SmolVLM2-500M-Video-Instruct": SMOLVLM2_500M}
"""Models whose configuration need not be at hand."""


@dataclass(frozen=True)
class Model:
    sizes: SmolVlm
    tokenizer: bytes
    """tokenizer.json"""


def read_smolvlm(name: str, policy: Path, given: Path | None) -> Model:
    """The model `name` that a policy folder was built on.

    Looked for in what the user gave (a folder, or its tokenizer.json), the policy's folder, a folder of that
    name, and the local cache of the hub. Raises `SourceError`.
    """
    if given is not None:
        places = [given if given.is_dir() else given.parent]
    else:
        cached = HUB / f"models--{name.replace('/', '--')}" / "snapshots"
        places = [policy / "tokenizer", policy, Path(name), *sorted(cached.glob("*"))]
    sizes = KNOWN.get(name) or _sizes(places)
    files = [given] if given is not None and given.is_file() else [place / TOKENIZER for place in places]
    file = next((file for file in files if file.is_file()), None)
    missing = [what for what, found in ((CONFIG, sizes), (TOKENIZER, file)) if found is None]
    if sizes is None or file is None:
        raise SourceError(
            f"the policy was built on the model {name!r}, and {' and '.join(missing)} of it cannot be found "
            f"(its weights are not needed); fetch https://huggingface.co/{name}/resolve/main/{missing[0]} "
            f"{'and the other ' if missing[1:] else ''}into a folder and give that with --tokenizer"
        )
    return Model(sizes, _read_tokenizer(file))


def _sizes(places: Sequence[Path]) -> SmolVlm | None:
    """By the first config.json that describes such a model."""
    for place in places:
        if (place / CONFIG).is_file():
            config = read_json(place / CONFIG)
            if config.get("model_type") == "smolvlm":
                return _checked(place / CONFIG, config)
    return None


def _read_tokenizer(file: Path) -> bytes:
    read_json(file)
    return file.read_bytes()


def _checked(path: Path, config: dict[str, Any]) -> SmolVlm:
    try:
        return SmolVlm.model_validate(config)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        text = "; ".join(rows[:4]).replace("\n", " ")
        raise SourceError(f"{path} describes a model that this version does not know: {text}") from error
