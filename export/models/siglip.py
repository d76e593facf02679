"""SigLIP's vision transformer (Zhai et al., ICCV 2023) as transformers has it, to its last hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention


@dataclass(frozen=True)
class VisionSize:
    width: int
    heads: int
    layers: int
    feedforward: int
    patch: int
    """Pixels of a patch's edge."""
    places: int
    """Patches of the edge of the square that it was trained on; each has a position embedding."""
    epsilon: float = 1e-6


class VisionMlp(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size.width, size.feedforward), nn.Linear(size.feedforward, size.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionLayer(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(size.width, size.epsilon) for _ in range(2))
        self.self_attn = Attention(size.width, size.heads)
        self.mlp = VisionMlp(size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer_norm1(x)
        x = x + self.self_attn(y, y, y)
        return x + self.mlp(self.layer_norm2(x))


class VisionEmbeddings(nn.Module):
    def __init__(self, size: VisionSize, places: Tensor | None) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.position_embedding = nn.Embedding(size.places**2, size.width)
        self.places = None if places is None else nn.Buffer(places, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embedding(pictures).flatten(2).transpose(1, 2)
        table = self.position_embedding.weight
        return patches + (table if self.places is None else table[self.places])


class VisionTower(nn.Module):
    """Pictures [B, 3, h, w] in -1..1 -> [B, patches, w], row by row.

    `places`: the position embedding of each patch, [patches]; None: its own, for pictures of the trained
    size.
    """

    def __init__(self, size: VisionSize, places: Tensor | None = None) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(size, places)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(VisionLayer(size) for _ in range(size.layers))})
        self.post_layernorm = nn.LayerNorm(size.width, size.epsilon)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.embeddings(pictures)
        for layer in self.encoder["layers"].children():
            x = layer(x)
        return self.post_layernorm(x)


def places_on_grid(rows: int, columns: int, places: int) -> Tensor:
    """[rows * columns]: for each patch of a picture, where it lies on the trained square."""
    row, column = (torch.arange(count, device="cpu") * places // count for count in (rows, columns))
    return (row[:, None] * places + column).flatten()
