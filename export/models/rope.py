"""Rotary position embedding (Su et al., 2021), with the two halves of a head rotated against each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rope(nn.Module):
    """Positions [B, T] (integers) -> cosine and sine [B, 1, T, d / 2], for `rotate`."""

    def __init__(self, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        exponents = (2.0 / head_width) * torch.arange(head_width // 2, dtype=torch.float32, device="cpu")
        self.wavelengths = nn.Buffer(base**exponents, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[:, None, :, None].to(torch.float32) / self.wavelengths
        return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Heads [B, h, T, d] at their positions."""
    cosine, sine = rotation
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
