"""The time of a flow as sines and cosines, exact to float32 without float64 in the graph."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Sinusoid(nn.Module):
    """Time float32 [B] in 0..1 -> [B, width]: sin, then cos, of 2 pi time / period, periods being geometric.

    The originals compute in float64: with a period of 0.004 a product in float32 would be wrong by 1e-4 rad.
    Here time and frequency are split so that the product of their leading parts is exact and only its
    fraction of a turn is kept; the rest is small.
    """

    def __init__(self, width: int, min_period: float, max_period: float) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"a time embedding of {width} elements cannot be halved")
        share = torch.linspace(0, 1, width // 2, dtype=torch.float64, device="cpu")
        turns = 1 / (min_period * (max_period / min_period) ** share)
        unit = torch.exp2(turns.log2().floor() - 10)
        leading = (turns / unit).floor() * unit  # 11 bits, and the leading part of time has 13
        self.turns, self.leading, self.rest = (
            nn.Buffer(value.to(torch.float32), persistent=False)
            for value in (turns, leading, turns - leading)
        )

    def forward(self, time: Tensor) -> Tensor:
        time = time[:, None]
        coarse = (time * 4096).round() / 4096
        whole = coarse * self.leading
        turn = (whole - whole.round()) + (coarse * self.rest + (time - coarse) * self.turns)
        angle = turn * (2 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], -1)
