"""What happens to a camera's picture inside the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Camera:
    """A picture of the observation, and its normalisation per channel: (value / 255 - offset) / scale."""

    name: str
    height: int
    width: int
    offset: tuple[float, ...]
    scale: tuple[float, ...]


class Picture(nn.Module):
    """uint8 [N, h, w, 3] RGB -> float32 [N, 3, h, w], normalised."""

    def __init__(self, camera: Camera) -> None:
        super().__init__()
        factor = [1 / (255 * scale) for scale in camera.scale]
        shift = [-offset / scale for offset, scale in zip(camera.offset, camera.scale, strict=True)]
        self.factor, self.shift = (
            nn.Buffer(torch.tensor(values, device="cpu").reshape(1, 3, 1, 1), persistent=False)
            for values in (factor, shift)
        )

    def forward(self, picture: Tensor) -> Tensor:
        return picture.permute(0, 3, 1, 2).to(torch.float32) * self.factor + self.shift
