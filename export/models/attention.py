"""Multi-head attention, split so that every matrix of a graph is one tensor of the checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -1e4
"""Added to scores that must not count: its exponential is 0 in every precision, and it fits into float16."""


class Attention(nn.Module):
    """Queries [B, T, d] look at keys and values [B, S, d]; no mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (
            split_heads(part, self.heads)
            for part in (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, h * d] -> [B, h, T, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Queries [B, h, T, d] look at keys and values [B, g, S, d] -> [B, T, h * d].

    g divides h: h / g query heads, one after the other, share keys and values (grouped queries). `bias`
    [B or 1, 1, T or 1, S] is added to the scores; see `bias_of`.
    """
    groups, shared = key.shape[1], query.shape[1] // key.shape[1]
    steps, width = query.shape[2:]
    query = (query * width**-0.5).unflatten(1, (groups, shared)).flatten(2, 3)
    scores = query @ key.transpose(2, 3)
    if bias is not None:
        scores = (scores.unflatten(2, (shared, steps)) + bias[:, :, None]).flatten(2, 3)
    mixed = scores.softmax(-1) @ value
    return mixed.unflatten(2, (shared, steps)).permute(0, 3, 1, 2, 4).flatten(2)


def bias_of(allowed: Tensor) -> Tensor:
    """Where attention may look (bool), as what `attend` adds to the scores."""
    return torch.where(allowed, 0.0, MASKED)


class GroupedAttention(nn.Module):
    """Projections of attention with grouped queries (Ainslie et al., EMNLP 2023), without biases.

    Without `looks` it has no queries and no output, without `seen` no keys and values: a graph then holds no
    weights that it has no use for.
    """

    def __init__(
        self, width: int, heads: int, groups: int, head_width: int, looks: bool = True, seen: bool = True
    ) -> None:
        super().__init__()
        if heads % groups or head_width % 2:
            raise ValueError(f"{groups} groups of {heads} heads of {head_width} are impossible")
        self.heads, self.groups = heads, groups
        if looks:
            self.q_proj = nn.Linear(width, heads * head_width, bias=False)
            self.o_proj = nn.Linear(heads * head_width, width, bias=False)
        if seen:
            self.k_proj = nn.Linear(width, groups * head_width, bias=False)
            self.v_proj = nn.Linear(width, groups * head_width, bias=False)

    def queries(self, x: Tensor) -> Tensor:
        return split_heads(self.q_proj(x), self.heads)

    def keys(self, x: Tensor) -> Tensor:
        return split_heads(self.k_proj(x), self.groups)

    def values(self, x: Tensor) -> Tensor:
        return split_heads(self.v_proj(x), self.groups)
