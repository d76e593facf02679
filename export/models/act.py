"""ACT, the action chunking transformer (Zhao et al., RSS 2023), as LeRobot trains it; inference only.

The latent is zero, so the encoder of the variational objective is not needed and its weights are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention
from .pictures import Camera, Picture
from .resnet import ResNet, ResNetSize

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class ActSize:
    backbone: ResNetSize
    cameras: tuple[Camera, ...]
    state: int
    """Elements of the state; 0: none."""
    actions: int
    steps: int
    width: int
    heads: int
    feedforward: int
    encoder_layers: int
    decoder_layers: int
    latent: int
    pre_norm: bool
    activation: str


class Feedforward(nn.Module):
    """Base of both kinds of layers: the sublayers' order, with the norm before or after each (`pre_norm`)."""

    def __init__(self, size: ActSize, norms: int) -> None:
        super().__init__()
        self.pre_norm, self.activation = size.pre_norm, ACTIVATIONS[size.activation]
        self.linear1 = nn.Linear(size.width, size.feedforward)
        self.linear2 = nn.Linear(size.feedforward, size.width)
        for i in range(1, norms + 1):
            setattr(self, f"norm{i}", nn.LayerNorm(size.width))

    def sublayer(self, x: Tensor, norm: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        normal = self.get_submodule(f"norm{norm}")
        return x + function(normal(x)) if self.pre_norm else normal(x + function(x))

    def feedforward(self, x: Tensor) -> Tensor:
        return self.linear2(self.activation(self.linear1(x)))


class EncoderLayer(Feedforward):
    def __init__(self, size: ActSize) -> None:
        super().__init__(size, 2)
        self.self_attn = Attention(size.width, size.heads)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        x = self.sublayer(x, 1, lambda x: self.self_attn(x + place, x + place, x))
        return self.sublayer(x, 2, self.feedforward)


class DecoderLayer(Feedforward):
    def __init__(self, size: ActSize) -> None:
        super().__init__(size, 3)
        self.self_attn = Attention(size.width, size.heads)
        self.multihead_attn = Attention(size.width, size.heads)

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, memory_place: Tensor) -> Tensor:
        x = self.sublayer(x, 1, lambda x: self.self_attn(x + place, x + place, x))
        x = self.sublayer(x, 2, lambda x: self.multihead_attn(x + place, memory + memory_place, memory))
        return self.sublayer(x, 3, self.feedforward)


class Layers(nn.Module):
    def __init__(self, layers: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, *rest)
        return self.norm(x)


class Act(nn.Module):
    """`image.<camera>` uint8 [1, h, w, 3], `state` float32 [1, n] normalised -> actions [1, steps, n']."""

    def __init__(self, size: ActSize) -> None:
        super().__init__()
        self.size, width = size, size.width
        self.pictures = nn.ModuleList(Picture(camera) for camera in size.cameras)
        self.backbone = ResNet(size.backbone)
        self.encoder_img_feat_input_proj = nn.Conv2d(size.backbone.outer[-1], width, 1)
        self.encoder_latent_input_proj = nn.Linear(size.latent, width)
        if size.state:
            self.encoder_robot_state_input_proj = nn.Linear(size.state, width)
        self.encoder_1d_feature_pos_embed = nn.Embedding(1 + bool(size.state), width)
        encoder = [EncoderLayer(size) for _ in range(size.encoder_layers)]
        decoder = [DecoderLayer(size) for _ in range(size.decoder_layers)]
        self.encoder = Layers(list(encoder), nn.LayerNorm(width) if size.pre_norm else nn.Identity())
        self.decoder = Layers(list(decoder), nn.LayerNorm(width))
        self.decoder_pos_embed = nn.Embedding(size.steps, width)
        self.action_head = nn.Linear(width, size.actions)
        feature_map = size.backbone.feature_map
        planes = [sine_positions(*feature_map(camera.height, camera.width), width) for camera in size.cameras]
        self.picture_places = nn.Buffer(torch.cat(planes)[None], persistent=False)

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        # The latent is zero: what its projection gives is the bias.
        tokens = [self.encoder_latent_input_proj.bias[None, None]]
        if self.size.state:
            tokens.append(self.encoder_robot_state_input_proj(inputs["state"])[:, None])
        for camera, picture in zip(self.size.cameras, self.pictures, strict=True):
            features = self.backbone(picture(inputs[f"image.{camera.name}"]))
            tokens.append(self.encoder_img_feat_input_proj(features).flatten(2).transpose(1, 2))
        place = torch.cat([self.encoder_1d_feature_pos_embed.weight[None], self.picture_places], 1)
        memory = self.encoder(torch.cat(tokens, 1), place)
        queries = self.decoder_pos_embed.weight[None]
        return (self.action_head(self.decoder(torch.zeros_like(queries), queries, memory, place)),)


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """[rows * columns, width]: sine and cosine of the row in the first half, of the column in the second.

    Positions are 1-based fractions of 2 pi with the original's epsilon, in float32 as there.
    """
    half = width // 2
    frequency = 10000 ** (2 * (torch.arange(half, dtype=torch.float32, device="cpu") // 2) / half)

    def axis(count: int) -> Tensor:
        position = (
            torch.arange(1, count + 1, dtype=torch.float32, device="cpu") / (count + 1e-6) * 2 * math.pi
        )
        angle = position[:, None] / frequency
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1)

    y, x = axis(rows)[:, None].expand(-1, columns, -1), axis(columns)[None].expand(rows, -1, -1)
    return torch.cat([y, x], -1).flatten(0, 1)
