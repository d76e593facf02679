"""OpenVLA (Kim et al., CoRL 2024): DINOv2 and SigLIP side by side, a Llama, and actions as its rarest tokens.

Three graphs. `Vision` takes the camera's own picture and does what the processor does to it. `Prefill` reads
beginning, picture and instruction, `DecodeStep` one action token after the other; both share a cache of
static length. They compute logits of action tokens alone, since no other may be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import bias_of
from .bicubic import Bicubic
from .decoder import DecoderLayer, DecoderSize, Rotation
from .pictures import Camera, Picture
from .rope import Rope
from .timm_vit import Vit, VitSize

Strategy = Literal["resize-naive", "letterbox", "resize-crop"]


@dataclass(frozen=True)
class VisionSize:
    camera: Camera
    """The raw picture; `offset` and `scale` are of the first tower."""
    fused: tuple[tuple[float, ...], tuple[float, ...]]
    """Offset and scale of the second tower."""
    strategy: Strategy
    fill: tuple[int, ...]
    """Levels beside a picture in a letterbox."""
    towers: tuple[VitSize, VitSize]
    width: int
    """Of the language model."""


@dataclass(frozen=True)
class LanguageSize:
    layer: DecoderSize
    layers: int
    rope_base: float
    vocabulary: int
    patches: int
    length: int
    """Tokens of the instruction, padded on the right."""
    count: int
    """Tokens of an action."""
    first: int
    """The id of the first action token."""
    bins: int
    """Action tokens."""

    @property
    def cache_length(self) -> int:
        """Positions."""
        return self.patches + self.length + self.count

    def cache(self) -> dict[str, list[int]]:
        """Names and shapes of the cached keys and values."""
        shape = [1, self.layer.groups, self.cache_length, self.layer.head_width]
        return {f"{what}.{i}": shape for i in range(self.layers) for what in ("key", "value")}


class Prepare(nn.Module):
    """uint8 [1, h, w, 3] -> whole levels as float32 [1, s, s, 3], as OpenVLA's processor resizes."""

    def __init__(self, before: tuple[int, int], side: int, strategy: Strategy, fill: tuple[int, ...]) -> None:
        super().__init__()
        levels = torch.tensor(fill, dtype=torch.float32, device="cpu")
        self.fill = nn.Buffer(levels.reshape(1, 3, 1, 1), persistent=False)
        longest = max(before)
        # An odd difference leaves the picture one short of a square, as it does there.
        top, left = ((longest - edge) // 2 if strategy == "letterbox" else 0 for edge in before)
        self.padding = left, left, top, top
        height, width = before[0] + 2 * top, before[1] + 2 * left
        after = side, side
        if strategy != "resize-naive":
            shortest = min(height, width)
            after = int(side * height / shortest), int(side * width / shortest)
        same = (height, width) == after == (side, side)
        self.resize = nn.Identity() if same else Bicubic((height, width), after, (side, side))

    def forward(self, picture: Tensor) -> Tensor:
        x = picture.permute(0, 3, 1, 2).to(torch.float32)
        if any(self.padding):
            x = F.pad(x - self.fill, self.padding) + self.fill
        return self.resize(x).permute(0, 2, 3, 1)


class Projector(nn.Module):
    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inward, 4 * inward), nn.Linear(4 * inward, outward)
        self.fc3 = nn.Linear(outward, outward)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))


class Vision(nn.Module):
    """`image.<camera>` uint8 [1, h, w, 3] -> image_embeddings [1, patches, w]."""

    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.size, camera, (first, second) = size, size.camera, size.towers
        if first.picture != second.picture or first.patches != second.patches:
            raise ValueError("the two vision towers do not see the same patches")
        self.input = f"image.{camera.name}"
        before = camera.height, camera.width
        self.prepare = Prepare(before, first.picture, size.strategy, size.fill)
        offset, scale = size.fused
        self.pictures = nn.ModuleList([Picture(camera), Picture(replace(camera, offset=offset, scale=scale))])
        self.featurizer, self.fused_featurizer = Vit(first), Vit(second)
        self.projector = Projector(first.width + second.width, size.width)

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        resized = self.prepare(inputs[self.input])
        first, second = (picture(resized) for picture in self.pictures)
        features = torch.cat([self.featurizer(first), self.fused_featurizer(second)], -1)
        return (self.projector(features),)


class Language(nn.Module):
    """Weights of the language model; of `lm_head` the rows of action tokens."""

    def __init__(self, size: LanguageSize) -> None:
        super().__init__()
        width = size.layer.width
        self.size = size
        self.embed_tokens = nn.Embedding(size.vocabulary, width)
        self.layers = nn.ModuleList(DecoderLayer(size.layer) for _ in range(size.layers))
        self.norm = size.layer.norm()
        self.action_embeddings = nn.Embedding(size.bins, width)
        self.action_head = nn.Linear(width, size.bins, bias=False)
        self.rope = Rope(size.layer.head_width, size.rope_base)

    @property
    def decoder(self) -> Sequence[DecoderLayer]:
        return cast(Sequence[DecoderLayer], self.layers)

    def rotation(self, positions: Tensor) -> Rotation:
        """Of integer positions [1, T]."""
        return self.rope(positions)


class Prefill(nn.Module):
    """image_embeddings, tokens and token_mask [1, L] -> logits [1, bins] of the first action token, and the
    cache; the patches stand after the first token."""

    def __init__(self, language: Language) -> None:
        super().__init__()
        self.language, size = language, language.size
        length = size.patches + size.length
        position = torch.arange(length, device="cpu")
        self.position = nn.Buffer(position[None], persistent=False)
        self.bias = nn.Buffer(bias_of(position <= position[:, None])[None, None], persistent=False)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        model, size = self.language, self.language.size
        text = model.embed_tokens(inputs["tokens"])
        x = torch.cat([text[:, :1], inputs["image_embeddings"], text[:, 1:]], 1)
        rotation = model.rotation(self.position)
        cache: list[Tensor] = []
        for layer in model.decoder:
            seen = layer.cached(x, rotation)
            x = layer(x, rotation, seen, self.bias)
            cache += (F.pad(part, (0, 0, 0, size.count)) for part in seen)
        last = size.patches - 1 + inputs["token_mask"].sum(1)
        return model.action_head(model.norm(x.index_select(1, last)))[:, 0], *cache


class DecodeStep(nn.Module):
    """token [1, 1], its position [1] and the cache -> logits [1, bins] of the next token, and the cache."""

    def __init__(self, language: Language) -> None:
        super().__init__()
        self.language = language
        self.places = nn.Buffer(torch.arange(language.size.cache_length, device="cpu"), persistent=False)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        model, position = self.language, inputs["position"]
        x = model.action_embeddings(inputs["token"] - model.size.first)
        rotation = model.rotation(position[None])
        here = (self.places == position)[:, None]
        bias = bias_of(self.places <= position)[None, None, None]
        cache: list[Tensor] = []
        for i, layer in enumerate(model.decoder):
            key, value = (
                torch.where(here, new, inputs[f"{what}.{i}"])
                for what, new in zip(("key", "value"), layer.cached(x, rotation), strict=True)
            )
            x = layer(x, rotation, (key, value), bias)
            cache += (key, value)
        return model.action_head(model.norm(x))[:, 0], *cache
