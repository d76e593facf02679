"""pi0 (Black et al., arXiv 2410.24164) and pi0.5 (arXiv 2504.16054); inference only.

PaliGemma reads pictures and instruction; a narrower Gemma, the expert, turns noise into actions and looks at
what each of PaliGemma's layers has cached. pi0 gives the expert the state as a token, and the time beside the
actions; pi0.5 has the state in the instruction, and the time scales the expert's norms. Names of the weights
are those of openpi and LeRobot, without what is the same in all of them (`names`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import GroupedAttention, attend, bias_of
from .decoder import DecoderLayer, DecoderSize, GatedMlp, KeysValues, Rotation, after
from .pictures import Camera, Picture, Resize
from .pillow import PillowResize
from .rope import Rope, rotate
from .siglip import VisionSize, VisionTower
from .sinusoid import Sinusoid

Fit = Literal["lerobot-0.4", "lerobot", "openpi"]
"""How pictures become squares: LeRobot 0.4 fills up with -1 on a scale of 0..1, later versions with 0
(black); openpi resizes with Pillow, antialiased and rounded to whole numbers, and fills up with black."""


@dataclass(frozen=True)
class Pi0Size:
    cameras: tuple[Camera, ...]
    """Those that the policy was trained with; others would be masked, and change nothing."""
    picture: int
    """Edge of the square that pictures are brought to."""
    fit: Fit
    vision: VisionSize
    vocabulary: int
    tokens: int
    """Of an instruction, padded on the right."""
    state: int
    max_state: int
    max_action: int
    horizon: int
    text: DecoderSize
    expert: DecoderSize
    layers: int
    """Of both."""
    adaptive: bool
    """pi0.5."""
    min_period: float = 4e-3
    max_period: float = 4.0

    @property
    def embeddings(self) -> int:
        """Of all pictures."""
        return len(self.cameras) * self.vision.places**2

    @property
    def cache(self) -> tuple[int, int, int, int, int]:
        """Shape of the cached keys, and of the values."""
        return 1, self.layers, self.text.groups, self.embeddings + self.tokens, self.text.head_width

    @property
    def denoise_inputs(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each input of `Denoise`."""
        floats: dict[str, tuple[int, ...]] = {"x": (1, self.horizon, self.max_action), "time": (1,)}
        if not self.adaptive:
            floats["state"] = (1, self.state)
        floats |= {"keys": self.cache, "values": self.cache}
        out = {name: (shape, torch.float32) for name, shape in floats.items()}
        return {**out, "token_mask": ((1, self.tokens), torch.int64)}


class Square(nn.Module):
    """A camera's uint8 [1, h, w, 3] -> float32 [1, 3, edge, edge], in -1..1 where the picture is."""

    def __init__(self, camera: Camera, edge: int, fit: Fit) -> None:
        super().__init__()
        before = camera.height, camera.width
        ratio = max(before) / edge
        height, width = (int(size / ratio) for size in before)
        if min(height, width) < 1:
            raise ValueError(f"pictures of {before} are too narrow for {edge} x {edge}")
        top, left = (edge - height) // 2, (edge - width) // 2
        self.edges = left, edge - width - left, top, edge - height - top
        self.fill = -1.0 if fit == "lerobot-0.4" else 0.0
        self.picture = Picture(camera)
        self.before = self.after = nn.Identity()
        if before != (edge, edge) and fit == "openpi":
            self.before = PillowResize(before, (height, width))
        elif before != (edge, edge):
            self.after = Resize(before, (height, width), antialias=False)

    def forward(self, picture: Tensor) -> Tensor:
        x = picture.to(torch.float32).permute(0, 3, 1, 2)
        x = self.after(self.picture(self.before(x).permute(0, 2, 3, 1)))
        return F.pad(x, self.edges, value=self.fill) * 2 - 1


class Vision(nn.Module):
    """`image.<camera>` uint8 [1, h, w, 3] -> image_embeddings [1, cameras * n, w]."""

    def __init__(self, size: Pi0Size) -> None:
        super().__init__()
        if size.vision.places * size.vision.patch != size.picture:
            raise ValueError(
                f"{size.vision.places} patches of {size.vision.patch} pixels do not make up {size.picture}"
            )
        self.size = size
        self.squares = nn.ModuleList(Square(camera, size.picture, size.fit) for camera in size.cameras)
        self.vision_model = VisionTower(size.vision)
        self.linear = nn.Linear(size.vision.width, size.text.width)

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        pictures = [
            square(inputs[f"image.{camera.name}"])
            for camera, square in zip(self.size.cameras, self.squares, strict=True)
        ]
        return (self.linear(self.vision_model(torch.cat(pictures))).flatten(0, 1)[None],)


class Prefill(nn.Module):
    """image_embeddings, `tokens`, `token_mask` int64 [1, L] -> `keys`, `values` [1, layers, g, positions, d].

    Pictures and instruction all look at each other.
    """

    def __init__(self, size: Pi0Size) -> None:
        super().__init__()
        self.size = size
        self.embed_tokens = nn.Embedding(size.vocabulary, size.text.width)
        self.layers = nn.ModuleList(
            DecoderLayer(size.text, looks=index < size.layers - 1) for index in range(size.layers)
        )
        self.rope = Rope(size.text.head_width)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        seen = F.pad(inputs["token_mask"], (self.size.embeddings, 0), value=1)
        rotation, bias = self.rope(seen.cumsum(1) - 1), bias_of((seen != 0)[:, None, None])
        text = self.embed_tokens(inputs["tokens"]) * math.sqrt(self.size.text.width)
        x = torch.cat([inputs["image_embeddings"], text], 1)
        kept: list[KeysValues] = []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            kept.append(layer.cached(x, rotation))
            if len(kept) < self.size.layers:
                x = layer(x, rotation, kept[-1], bias)
        keys, values = zip(*kept, strict=True)
        return torch.stack(keys, 1), torch.stack(values, 1)


class AdaptiveNorm(nn.Module):
    """RMS norm whose scale and shift come from a condition [B, w], and a gate for what is made of it."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.dense = nn.Linear(size.width, 3 * size.width)
        self.epsilon = size.epsilon

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift, gate = self.dense(condition)[:, None].chunk(3, -1)
        return x / (x.pow(2).mean(-1, keepdim=True) + self.epsilon).sqrt() * (1 + scale) + shift, gate


class AdaptiveLayer(nn.Module):
    """A decoder's layer with adaptive norms; its tokens look at each other and at those before (`past`)."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = AdaptiveNorm(size), AdaptiveNorm(size)
        self.self_attn = GroupedAttention(size.width, size.heads, size.groups, size.head_width)
        self.mlp = GatedMlp(size)

    def forward(
        self, x: Tensor, rotation: Rotation, past: KeysValues, bias: Tensor, condition: Tensor
    ) -> Tensor:
        y, gate = self.input_layernorm(x, condition)
        own = rotate(self.self_attn.keys(y), rotation), self.self_attn.values(y)
        query = rotate(self.self_attn.queries(y), rotation)
        x = x + gate * self.self_attn.o_proj(attend(query, *after(past, own), bias))
        y, gate = self.post_attention_layernorm(x, condition)
        return x + gate * self.mlp(y)


class Denoise(nn.Module):
    """`x` float32 [1, h, a], `time` [1], `token_mask`, `keys`, `values`, and of pi0 the normalised `state`
    [1, n] -> velocity [1, h, a].

    Actions look at each other and at all before them; the state does not look at actions.
    """

    def __init__(self, size: Pi0Size) -> None:
        super().__init__()
        self.size, width = size, size.expert.width
        self.action_in_proj = nn.Linear(size.max_action, width)
        self.action_out_proj = nn.Linear(width, size.max_action)
        if size.adaptive:
            self.time_mlp_in, self.time_mlp_out = nn.Linear(width, width), nn.Linear(width, width)
            self.norm: nn.Module = AdaptiveNorm(size.expert)
        else:
            self.state_proj = nn.Linear(size.max_state, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)
            self.norm = size.expert.norm()
        layer = AdaptiveLayer if size.adaptive else DecoderLayer
        self.layers = nn.ModuleList(layer(size.expert) for _ in range(size.layers))
        self.time = Sinusoid(width, size.min_period, size.max_period)
        self.rope = Rope(size.text.head_width)
        own = torch.arange(size.horizon + (not size.adaptive), device="cpu")
        self.places = nn.Buffer(own[None], persistent=False)
        visible = (own[None] == 0) | (own[:, None] > 0) if not size.adaptive else own[None] >= 0
        self.own_bias = nn.Buffer(bias_of(visible).expand(len(own), -1).clone(), persistent=False)

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        mask = inputs["token_mask"]
        rotation = self.rope(mask.sum(1, keepdim=True) + self.size.embeddings + self.places)
        seen = F.pad(mask, (self.size.embeddings, 0), value=1) != 0
        own = self.own_bias[None, None]
        bias = torch.cat([bias_of(seen)[:, None, None].expand(-1, -1, own.shape[2], -1), own], -1)
        past = zip(inputs["keys"].unbind(1), inputs["values"].unbind(1), strict=True)
        actions, times = self.action_in_proj(inputs["x"]), self.time(inputs["time"])
        if self.size.adaptive:
            return self._adaptive(actions, times, rotation, list(past), bias)
        x = self._embed(inputs["state"], actions, times)
        for layer, cached in zip(self.layers, past, strict=True):
            assert isinstance(layer, DecoderLayer)
            x = layer(x, rotation, after(cached, layer.cached(x, rotation)), bias)
        return (self.action_out_proj(self.norm(x[:, 1:])),)

    def _adaptive(
        self, x: Tensor, times: Tensor, rotation: Rotation, past: list[KeysValues], bias: Tensor
    ) -> tuple[Tensor]:
        condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(times))))
        for layer, cached in zip(self.layers, past, strict=True):
            x = layer(x, rotation, cached, bias, condition)
        return (self.action_out_proj(self.norm(x, condition)[0]),)

    def _embed(self, state: Tensor, actions: Tensor, times: Tensor) -> Tensor:
        together = torch.cat([actions, times[:, None].expand_as(actions)], -1)
        actions = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(together)))
        state = self.state_proj(F.pad(state, (0, self.size.max_state - self.size.state)))
        return torch.cat([state[:, None], actions], 1)


def names(layers: int) -> tuple[tuple[str, str | None], ...]:
    """Beginnings of the checkpoint's names (expressions) -> `vision.`, `prefill.`, `denoise_step.` and names
    here: LeRobot's (`model.` before all), with those of transformers before 4.52, and openpi's.

    None: has no influence on actions, as PaliGemma's last layer but for its keys and values.
    """
    both = r"(?:model\.)?paligemma_with_expert\."
    paligemma, expert = rf"{both}paligemma\.(?:model\.)?", rf"{both}gemma_expert\."
    text = rf"{paligemma}language_model\.(?:model\.)?"
    last = rf"{text}layers\.{layers - 1}\."
    return (
        (rf"{paligemma}vision_tower\.vision_model\.", "vision.vision_model."),
        (rf"{paligemma}multi_modal_projector\.", "vision."),
        (rf"{text}norm\.", None),
        (rf"{last}(self_attn\.[qo]_proj|post_attention_layernorm|mlp)\.", None),
        (rf"{paligemma}(?:language_model\.)?lm_head\.", "prefill.embed_tokens."),  # tied
        (text, "prefill."),
        (rf"{expert}(lm_head|model\.embed_tokens)\.", None),
        (rf"{expert}model\.", "denoise_step."),
        (r"(?:model\.)?((?:action|state|time)_)", r"denoise_step.\1"),
    )


def untied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without PaliGemma's `lm_head` where its `embed_tokens` is there too: they are one matrix.

    Raises `ValueError` where they differ.
    """
    out = dict(tensors)
    heads = [name for name in tensors if name.endswith("lm_head.weight") and "gemma_expert" not in name]
    embeddings = [
        name for name in tensors if name.endswith("embed_tokens.weight") and "gemma_expert" not in name
    ]
    for head in heads if embeddings else []:
        if not torch.equal(tensors[head], tensors[embeddings[0]]):
            raise ValueError(
                f"{head} and {embeddings[0]} differ, but pi0 reads words by the one matrix of both"
            )
        del out[head]
    return out
