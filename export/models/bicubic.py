"""Pillow's bicubic resizing of 8-bit pictures, to the bit, as matrices that every runtime multiplies exactly.

Pillow (libImaging/Resample.c) rounds its weights to multiples of 2**-22, sums whole numbers, and rounds to
whole levels after the horizontal and after the vertical pass. That order is Pillow 10's; 13 begins with the
vertical pass where heights shrink more than widths, which changes levels. Here each weight is split into two
halves of 11 bits: all sums stay below 2**24, so float32 holds them exactly, in any order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BITS = 11
"""Of each half of a weight."""
ONE = 1 << 2 * BITS
EXACT = 1 << 24
"""Whole numbers up to here are exact in float32."""


class Bicubic(nn.Module):
    """Whole levels 0..255 as float32 [B, 3, h, w] -> resized to `after`, cut to `crop` in the middle.

    `before`, `after` and `crop` are (height, width).
    """

    def __init__(self, before: tuple[int, int], after: tuple[int, int], crop: tuple[int, int]) -> None:
        super().__init__()
        halves: list[Tensor] = []
        for source, target, kept in zip(before, after, crop, strict=True):
            if kept > target:
                raise ValueError(f"pictures of {before} resized to {after} cannot be cut to {crop}")
            # Python's rounding to even, as torchvision's center_crop has it.
            first = round((target - kept) / 2)
            halves += _halves(_weights(source, target)[first : first + kept])
        self.rows_high, self.rows_low, self.columns_high, self.columns_low = (
            nn.Buffer(half, persistent=False) for half in halves
        )

    def forward(self, x: Tensor) -> Tensor:
        x = _round(x @ self.columns_high.T, x @ self.columns_low.T)
        return _round(self.rows_high @ x, self.rows_low @ x)


def _round(high: Tensor, low: Tensor) -> Tensor:
    """floor(sum / 2**22 + 1/2), where the sum is high * 2**11 + low; all steps are exact."""
    half = 2.0 ** (BITS - 1)
    return ((high + (low * 2.0**-BITS).floor() + half) * 2.0**-BITS).floor().clamp(0.0, 255.0)


def _halves(weights: list[list[int]]) -> tuple[Tensor, Tensor]:
    """weight = high * 2**11 + low, as float32."""
    whole = torch.tensor(weights, dtype=torch.int64, device="cpu")
    low = (whole + (1 << BITS - 1)) % (1 << BITS) - (1 << BITS - 1)
    high = (whole - low) >> BITS
    if max(int(half.abs().sum(-1).max()) for half in (high, low)) * 255 + (1 << BITS) >= EXACT:
        raise ValueError("pictures are too large to be resized exactly; give smaller ones")
    return high.to(torch.float32), low.to(torch.float32)


def _weights(before: int, after: int) -> list[list[int]]:
    """[after, before]: Pillow's weights in units of 2**-22."""
    scale = before / after
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    out = []
    for i in range(after):
        centre = (i + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), before)
        taps = [_cubic((x - centre + 0.5) / stretch) for x in range(first, last)]
        total = sum(taps)
        whole = [int(math.copysign(0.5, tap) + tap / total * ONE) for tap in taps]
        out.append([0] * first + whole + [0] * (before - last))
    return out


def _cubic(x: float) -> float:
    """Keys' kernel with a = -0.5."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0
