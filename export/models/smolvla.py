"""SmolVLA (Shukor et al., arXiv 2506.01844) as LeRobot trains it; inference only.

SmolVLM2 reads pictures, instruction and state; a narrower decoder, the expert, turns noise into actions and
looks at what the language model's layers have cached. Names of the weights are LeRobot's, without what is the
same in all of them (`names`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import GroupedAttention, bias_of
from .decoder import DecoderLayer, DecoderSize, KeysValues, after
from .pictures import Camera, Picture, ResizeWithPad
from .rope import Rope
from .siglip import VisionSize, VisionTower, places_on_grid
from .sinusoid import Sinusoid


@dataclass(frozen=True)
class SmolVlaSize:
    cameras: tuple[Camera, ...]
    empty_cameras: int
    """Cameras that the policy was trained without: of them only the special tokens are seen."""
    picture: tuple[int, int]
    """Height and width that pictures are brought to."""
    vision: VisionSize
    shuffle: int
    """Patches along an edge that become one embedding."""
    vocabulary: int
    tokens: int
    """Of an instruction, padded on the right."""
    picture_tokens: tuple[int, int] | None
    """Ids around a picture: before it both, after it the first. None: no tokens around it."""
    state: int
    max_state: int
    max_action: int
    horizon: int
    text: DecoderSize
    text_layers: int
    expert: DecoderSize
    expert_layers: int
    cross: bool
    """Layers of the expert look at the language model's keys and values alone, other than ..."""
    self_every: int
    """... each so-manieth, which looks at its own tokens too; 0: none."""
    min_period: float
    max_period: float
    wrong_places: bool
    """Patches but the first at the positions of transformers 4.55 to 4.57 in float32."""

    @property
    def pairs(self) -> tuple[tuple[int, bool], ...]:
        """For each layer of the expert: the text layer that it looks at, and whether at itself too."""
        if self.expert_layers < 1 or self.text_layers % self.expert_layers:
            raise ValueError(f"{self.expert_layers} layers of the expert for {self.text_layers} of the text")
        layers = range(0, self.text_layers, self.text_layers // self.expert_layers)
        return tuple(
            (layer, not self.cross or (self.self_every > 0 and layer % self.self_every == 0))
            for layer in layers
        )

    @property
    def embeddings(self) -> int:
        """Embeddings of one picture."""
        return math.prod(edge // self.vision.patch // self.shuffle for edge in self.picture)

    @property
    def before_tokens(self) -> int:
        """Positions before the instruction."""
        around = 3 * (len(self.cameras) + self.empty_cameras) if self.picture_tokens else 0
        return len(self.cameras) * self.embeddings + around

    @property
    def cache(self) -> tuple[int, int, int, int, int]:
        """Shape of the cached keys, and of the values."""
        positions = self.before_tokens + self.tokens + 1
        return 1, len(self.pairs), self.text.groups, positions, self.text.head_width

    @property
    def denoise_inputs(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each input of `Denoise`."""
        floats = {
            "x": (1, self.horizon, self.max_action),
            "time": (1,),
            "keys": self.cache,
            "values": self.cache,
        }
        out = {name: (shape, torch.float32) for name, shape in floats.items()}
        return {**out, "token_mask": ((1, self.tokens), torch.int64)}


class Vision(nn.Module):
    """`image.<camera>` uint8 [1, h, w, 3] -> image_embeddings [1, cameras * n, w]."""

    def __init__(self, size: SmolVlaSize) -> None:
        super().__init__()
        self.size = size
        rows, columns = (edge // size.vision.patch for edge in size.picture)
        if rows * size.vision.patch != size.picture[0] or rows != columns or rows % size.shuffle:
            raise ValueError(f"pictures of {size.picture} are not squares of whole patches to be merged")
        self.pictures = nn.ModuleList(
            nn.Sequential(Picture(camera), ResizeWithPad((camera.height, camera.width), size.picture))
            for camera in size.cameras
        )
        places = drifted_places(rows, size.vision.places) if size.wrong_places else None
        if places is None and rows != size.vision.places:
            places = places_on_grid(rows, columns, size.vision.places)
        self.vision_model = VisionTower(size.vision, places)
        merged = size.vision.width * size.shuffle**2
        self.connector = nn.ModuleDict({"proj": nn.Linear(merged, size.text.width, bias=False)})
        self.grid = rows

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        pictures = [
            prepare(inputs[f"image.{camera.name}"])
            for camera, prepare in zip(self.size.cameras, self.pictures, strict=True)
        ]
        x = self.vision_model(torch.cat(pictures) * 2 - 1)
        # Squares of patches become one embedding, row by row.
        edge, small = self.size.shuffle, self.grid // self.size.shuffle
        x = x.reshape(len(pictures), small, edge, small, -1).transpose(2, 3)
        x = self.connector["proj"](x.reshape(1, len(pictures) * small * small, -1))
        return (x * math.sqrt(self.size.text.width),)


class Prefill(nn.Module):
    """image_embeddings, `tokens` and `token_mask` int64 [1, L], `state` float32 [1, n] -> `keys`, `values`.

    [1, layers of the expert, g, positions, d] each. Where the expert only looks at the language model they
    have gone through the expert's own projections, which are the same in every step.
    """

    def __init__(self, size: SmolVlaSize) -> None:
        super().__init__()
        self.size, text = size, size.text
        last = size.pairs[-1][0]
        self.embed_tokens = nn.Embedding(size.vocabulary, text.width)
        self.layers = nn.ModuleList(DecoderLayer(text, looks=index < last) for index in range(last + 1))
        self.state_proj = nn.Linear(size.max_state, text.width)
        self.expert = nn.ModuleDict({
            str(index): GroupedAttention(
                text.groups * text.head_width, text.heads, text.groups, text.head_width, looks=False
            )
            for index, (_, itself) in enumerate(size.pairs)
            if not itself
        })  # fmt: skip
        self.rope = Rope(text.head_width)
        positions = size.cache[3]
        visible = torch.ones(positions, positions, dtype=torch.bool, device="cpu")
        visible[:-1, -1] = False  # only the state, which comes last, sees the state
        self.visible = nn.Buffer(visible, persistent=False)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        seen = F.pad(F.pad(inputs["token_mask"], (self.size.before_tokens, 0), value=1), (0, 1), value=1)
        rotation = self.rope(seen.cumsum(1) - 1)
        bias = bias_of((seen != 0)[:, None, None] & self.visible)
        x = self._embed(inputs)
        kept: list[KeysValues] = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            keys_values = layer.cached(x, rotation)
            kept.append(keys_values)
            if index < len(self.layers) - 1:
                x = layer(x, rotation, keys_values, bias)
        used = [self._projected(index, kept[layer]) for index, (layer, _) in enumerate(self.size.pairs)]
        keys, values = zip(*used, strict=True)
        return torch.stack(keys, 1), torch.stack(values, 1)

    def _embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pictures = inputs["image_embeddings"]
        if ids := self.size.picture_tokens:
            table = self.embed_tokens.weight
            start, end = torch.stack([table[i] for i in ids])[None], table[None, ids[0], None]
            parts = [part for x in pictures.split(self.size.embeddings, 1) for part in (start, x, end)]
            pictures = torch.cat([*parts, *[start, end] * self.size.empty_cameras], 1)
        text = self.embed_tokens(inputs["tokens"]) * math.sqrt(self.size.text.width)
        state = F.pad(inputs["state"], (0, self.size.max_state - self.size.state))
        return torch.cat([pictures, text, self.state_proj(state)[:, None]], 1)

    def _projected(self, index: int, cached: KeysValues) -> KeysValues:
        """What the expert's layer looks at."""
        if str(index) not in self.expert:
            return cached
        project = self.expert[str(index)]
        assert isinstance(project, GroupedAttention)
        keys, values = (x.transpose(1, 2).flatten(2) for x in cached)
        return project.keys(keys), project.values(values)


class Denoise(nn.Module):
    """`x` float32 [1, h, a], `time` [1], `token_mask`, `keys`, `values` -> velocity [1, h, a]."""

    def __init__(self, size: SmolVlaSize) -> None:
        super().__init__()
        self.size, width = size, size.expert.width
        self.action_in_proj, self.action_out_proj = (
            nn.Linear(size.max_action, width), nn.Linear(width, size.max_action),
        )  # fmt: skip
        self.action_time_mlp_in, self.action_time_mlp_out = (
            nn.Linear(2 * width, width),
            nn.Linear(width, width),
        )
        self.layers = nn.ModuleList(DecoderLayer(size.expert, seen=itself) for _, itself in size.pairs)
        self.norm = size.expert.norm()
        self.time = Sinusoid(width, size.min_period, size.max_period)
        self.rope = Rope(size.text.head_width)
        steps = torch.arange(size.horizon, device="cpu")
        self.steps = nn.Buffer(steps[None], persistent=False)
        self.causal = nn.Buffer(steps[None] <= steps[:, None], persistent=False)

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        mask = inputs["token_mask"]
        before = self.size.before_tokens + 1
        rotation = self.rope(mask.sum(1, keepdim=True) + before + self.steps)
        cross_rotation = self.rope(self.steps)
        seen = F.pad(F.pad(mask, (before - 1, 0), value=1), (0, 1), value=1)
        cross_bias = bias_of((seen != 0)[:, None, None])
        own = bias_of(self.causal)[None, None]
        bias = torch.cat([cross_bias.expand(-1, -1, self.size.horizon, -1), own], -1)
        x = self._embed(inputs["x"], inputs["time"])
        past = zip(inputs["keys"].unbind(1), inputs["values"].unbind(1), strict=True)
        for layer, (_, itself), cached in zip(self.layers, self.size.pairs, past, strict=True):
            assert isinstance(layer, DecoderLayer)
            if itself:
                x = layer(x, rotation, after(cached, layer.cached(x, rotation)), bias)
            else:
                x = layer(x, cross_rotation, cached, cross_bias)
        return (self.action_out_proj(self.norm(x)),)

    def _embed(self, x: Tensor, time: Tensor) -> Tensor:
        actions = self.action_in_proj(x)
        times = self.time(time)[:, None].expand_as(actions)
        return self.action_time_mlp_out(F.silu(self.action_time_mlp_in(torch.cat([actions, times], -1))))


def names(size: SmolVlaSize) -> tuple[tuple[str, str | None], ...]:
    """Beginnings of LeRobot's names (expressions) -> `vision.`, `prefill.`, `denoise_step.` and names here.

    None: has no influence on actions, such as the language model's output, and layers after the last that is
    looked at.
    """
    last = size.pairs[-1][0]
    unused = "|".join(str(layer) for layer in range(last + 1, size.text_layers))
    cross = "|".join(str(index) for index, (_, itself) in enumerate(size.pairs) if not itself)
    vlm, expert = r"model\.vlm_with_expert\.vlm\.", r"model\.vlm_with_expert\.lm_expert\."
    text = rf"{vlm}model\.text_model\."
    return (
        (rf"{vlm}lm_head\.", None),
        (rf"{text}norm\.", None),
        (rf"{text}layers\.({unused})\.", None),
        (rf"{text}layers\.{last}\.(self_attn\.[qo]_proj|post_attention_layernorm|mlp)\.", None),
        (text, "prefill."),
        (rf"{expert}layers\.({cross})\.self_attn\.([kv]_proj)\.", r"prefill.expert.\1.\2."),
        (expert, "denoise_step."),
        (rf"{vlm}model\.vision_model\.", "vision.vision_model."),
        (rf"{vlm}model\.connector\.modality_projection\.", "vision.connector."),
        (r"model\.state_proj\.", "prefill.state_proj."),
        (r"model\.", "denoise_step."),
    )


def drifted_places(count: int, places: int) -> Tensor:
    """[count^2]: where transformers 4.55 to 4.57 places patches in float32: all but the first one too early,
    since a fraction just below a boundary falls below it."""
    boundaries = torch.arange(1 / places, 1.0, 1 / places, device="cpu")
    fractions = torch.arange(count, dtype=torch.float32, device="cpu") / count * (1 - 1e-6)
    along = torch.bucketize(fractions, boundaries, right=True)
    return (along[:, None] * places + along).flatten()
