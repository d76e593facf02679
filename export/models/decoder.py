"""Layers of the decoders of language models (Llama, Gemma), to be run with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import GroupedAttention, attend
from .norms import RmsNorm
from .rope import rotate

Rotation = tuple[Tensor, Tensor]
"""Of `Rope`."""
KeysValues = tuple[Tensor, Tensor]
"""[B, g, T, d] each."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@dataclass(frozen=True)
class DecoderSize:
    """Of one layer."""

    width: int
    heads: int
    groups: int
    """Heads of keys and values."""
    head_width: int
    feedforward: int
    epsilon: float
    activation: str = "silu"
    unit_offset: bool = False
    """Norms' weights are stored less 1 (Gemma)."""

    def norm(self) -> RmsNorm:
        return RmsNorm(self.width, self.epsilon, self.unit_offset)


class GatedMlp(nn.Module):
    """down(activation(gate(x)) * up(x)) (Shazeer, 2020: SwiGLU, GeGLU)."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[size.activation]
        self.gate_proj = nn.Linear(size.width, size.feedforward, bias=False)
        self.up_proj = nn.Linear(size.width, size.feedforward, bias=False)
        self.down_proj = nn.Linear(size.feedforward, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Norm, attention, norm, gated feedforward; both sublayers beside a short cut.

    Without `looks` only keys and values are made (a last layer whose output nobody needs); without `seen` it
    looks at keys and values that come from elsewhere.
    """

    def __init__(self, size: DecoderSize, looks: bool = True, seen: bool = True) -> None:
        super().__init__()
        self.input_layernorm = size.norm()
        self.self_attn = GroupedAttention(
            size.width, size.heads, size.groups, size.head_width, looks=looks, seen=seen
        )
        if looks:
            self.post_attention_layernorm, self.mlp = size.norm(), GatedMlp(size)

    def cached(self, x: Tensor, rotation: Rotation) -> KeysValues:
        """Keys, rotated, and values of tokens [B, T, w]: all that later tokens need of them."""
        x = self.input_layernorm(x)
        return rotate(self.self_attn.keys(x), rotation), self.self_attn.values(x)

    def forward(self, x: Tensor, rotation: Rotation, seen: KeysValues, bias: Tensor | None = None) -> Tensor:
        """Tokens [B, T, w] that look at what is `seen`; `bias` as in `attend`."""
        query = rotate(self.self_attn.queries(self.input_layernorm(x)), rotation)
        x = x + self.self_attn.o_proj(attend(query, *seen, bias))
        return x + self.mlp(self.post_attention_layernorm(x))


def after(past: KeysValues, new: KeysValues) -> KeysValues:
    """Both, one after the other."""
    return torch.cat([past[0], new[0]], 2), torch.cat([past[1], new[1]], 2)
