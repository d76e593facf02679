"""The demo policy's network: picture, joint state and words in, one chunk of joint targets out.

A small convolutional encoder, modulated by the instruction (FiLM: Perez et al., AAAI 2018), places 32 key
points by spatial soft-max (Levine et al., JMLR 2016); a residual MLP turns key points, words and joints into
the chunk. 1.25 million parameters. All of its pre-processing after resizing is in the graph; un-normalising
the output is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_HALF_RANGE = 127.5


@dataclass(frozen=True, slots=True)
class KeypointVLAConfig:
    """Sizes. `vocabulary` counts the words without the padding id 0."""

    vocabulary: int
    token_length: int
    steps: int
    joints: int
    image: int = 96
    channels: int = 32
    keypoints: int = 32
    text: int = 64
    hidden: int = 512


class Film(nn.Module):
    """A residual convolution whose response is scaled and shifted by the instruction."""

    def __init__(self, channels: int, text: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(text, 2 * channels)
        nn.init.normal_(self.modulation.weight, std=0.1)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        scale, shift = self.modulation(text)[:, :, None, None].chunk(2, 1)
        return x + F.relu(self.convolution(x) * (1 + scale) + shift)


class Vision(nn.Module):
    """uint8 [B, s, s, 3] RGB and text [B, d] -> features [B, c, s/4, s/4]."""

    xy: Tensor
    """[1, 2, s/4, s/4]: coordinates of each cell, -1..1, right and down."""

    def __init__(self, config: KeypointVLAConfig) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 4, stride=2, padding=1)
        self.second = nn.Conv2d(16, config.channels - 2, 3, stride=2, padding=1)
        self.third = Film(config.channels, config.text)
        self.fourth = Film(config.channels, config.text)
        axis = torch.linspace(-1, 1, config.image // 4)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("xy", torch.stack([x, y])[None])

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).to(self.first.weight.dtype) / PIXEL_HALF_RANGE - 1
        x = F.relu(self.second(F.relu(self.first(x))))
        x = torch.cat([x, self.xy.expand(x.shape[0], -1, -1, -1)], 1)
        return self.fourth(self.third(x, text), text)


class Words(nn.Module):
    """Token ids [B, L] (0 pads) -> text [B, d]: embeddings, one attention layer, mean over the words."""

    def __init__(self, config: KeypointVLAConfig) -> None:
        super().__init__()
        d = config.text
        self.embedding = nn.Embedding(config.vocabulary + 1, d, padding_idx=0)
        self.place = nn.Parameter(torch.randn(config.token_length, d) * 0.02)
        self.query_key_value = nn.Linear(d, 3 * d)
        self.out = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, tokens: Tensor) -> Tensor:
        known = (tokens > 0)[:, None, :]
        x = self.embedding(tokens) + self.place
        query, key, value = self.query_key_value(x).chunk(3, -1)
        score = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        # A finite mask and a clamped count: an instruction of padding alone must not give NaN.
        x = x + score.masked_fill(~known, -1e4).softmax(-1) @ value
        weight = known.transpose(1, 2).to(x.dtype)
        mean = (x * weight).sum(1) / weight.sum(1).clamp_min(1)
        return mean + self.out(mean)


class KeypointVLA(nn.Module):
    """image uint8 [B, s, s, 3], state float [B, J], tokens int64 [B, L] -> actions float [B, H, J].

    State and actions are normalised by the checkpoint's statistics.
    """

    def __init__(self, config: KeypointVLAConfig) -> None:
        super().__init__()
        self.config = config
        k, hidden = config.keypoints, config.hidden
        self.words, self.vision = Words(config), Vision(config)
        self.heat = nn.Conv2d(config.channels, k, 1)
        self.value = nn.Conv2d(config.channels, k, 1)
        self.target = nn.Linear(3 * k, 2)
        """Training only: where the named cube lies on the table."""
        self.inward = nn.Linear(3 * k + config.text + config.joints, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden)
            )
            for _ in range(2)
        )
        self.outward = nn.Linear(hidden, config.steps * config.joints)

    def forward(self, image: Tensor, state: Tensor, tokens: Tensor) -> Tensor:
        actions, _ = self.both(image, state, tokens)
        return actions

    def both(self, image: Tensor, state: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(actions, table position of the named cube [B, 2] in training units)."""
        text = self.words(tokens)
        features = self.vision(image, text)
        attention = self.heat(features).flatten(2).softmax(-1)
        # A product and a sum, not a MatMul: integer quantisers then leave the coordinates in float.
        points = (attention[:, :, None] * self.vision.xy.flatten(2)[:, None]).sum(-1)
        values = (attention * self.value(features).flatten(2)).sum(-1)
        keypoints = torch.cat([points.flatten(1), values], 1)
        x = self.inward(torch.cat([keypoints, text, state.to(text.dtype)], 1))
        for block in self.blocks:
            x = x + block(x)
        return self.outward(x).view(-1, self.config.steps, self.config.joints), self.target(keypoints)
