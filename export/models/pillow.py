"""Pillow's bilinear resizing of uint8 pictures, to the last bit, in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_BITS = 22  # of Pillow's fixed-point weights, whose sum is 2^22
_HALF = 2 ** (_BITS // 2)


class PillowResize(nn.Module):
    """Pictures [B, 3, h, w] of whole numbers 0..255 -> the same of another size.

    Pillow rounds after either axis, and its ties are common, so the sums must be exact: weights are split
    into two halves of 11 bits, with which every sum stays below 2^24.
    """

    def __init__(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = (_weights(*sizes) for sizes in zip(before, after, strict=True))
        for name, weights in (("row", rows), ("column", columns.T)):
            if 255 * (weights % _HALF).sum(1 if name == "row" else 0).max() >= 2**24:
                raise ValueError(f"pictures of {before} are too large to become {after}")
            self.register_buffer(f"{name}_high", (weights // _HALF).float(), persistent=False)
            self.register_buffer(f"{name}_low", (weights % _HALF).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = _rounded(x @ self.get_buffer("column_high"), x @ self.get_buffer("column_low"))
        return _rounded(self.get_buffer("row_high") @ x, self.get_buffer("row_low") @ x)


def _rounded(high: Tensor, low: Tensor) -> Tensor:
    """floor((2^11 high + low) / 2^22 + 1/2)"""
    return ((high + (low / _HALF).floor() + _HALF / 2) / _HALF).floor()


def _weights(before: int, after: int) -> Tensor:
    """[after, before] int64, in units of 2^-22."""
    out = torch.zeros(after, before, dtype=torch.int64, device="cpu")
    if before == after:
        return out.fill_diagonal_(2**_BITS)
    step = before / after
    reach = max(step, 1.0)
    for i in range(after):
        centre = (i + 0.5) * step
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), before)
        shares = [max(1 - abs(j - centre + 0.5) / reach, 0.0) for j in range(first, last)]
        total = math.fsum(shares)
        units = [int(0.5 + share / total * 2**_BITS) for share in shares]
        out[i, first:last] = torch.tensor(units, device="cpu")
    return out
