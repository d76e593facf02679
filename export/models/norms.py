"""Norms of language models."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RmsNorm(nn.Module):
    """x / rms(x) * weight, over the last axis (Zhang & Sennrich, NeurIPS 2019).

    `unit_offset`: the weight is stored less 1, as Gemma has it. Written as a division: ONNX Runtime fuses
    that form into one operator.
    """

    def __init__(self, width: int, epsilon: float, unit_offset: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon, self.unit_offset = epsilon, unit_offset

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + 1.0 if self.unit_offset else self.weight
        return x / (x.pow(2).mean(-1, keepdim=True) + self.epsilon).sqrt() * weight
