"""What happens to a camera's picture inside the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


class Resize(nn.Module):
    """Bilinear, as two matrices: the same sums, and every runtime has them. `antialias`: as Pillow does."""

    def __init__(self, before: tuple[int, int], after: tuple[int, int], *, antialias: bool) -> None:
        super().__init__()
        self.rows, self.columns = (
            nn.Buffer(_resize_matrix(*sizes, antialias), persistent=False)
            for sizes in zip(before, after, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns.T


def _resize_matrix(before: int, after: int, antialias: bool) -> Tensor:
    """[after, before]"""
    eye = torch.eye(before, device="cpu")[None, None]
    return F.interpolate(eye, (after, before), mode="bilinear", antialias=antialias)[0, 0]


class ResizeWithPad(nn.Module):
    """Pictures [B, 3, h, w] as large as fits into `after` (height, width); zeros on the left and above."""

    def __init__(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        super().__init__()
        ratio = max(size / wanted for size, wanted in zip(before, after, strict=True))
        height, width = (int(size / ratio) for size in before)
        if min(height, width) < 1:
            raise ValueError(f"pictures of {before} are too narrow for {after}")
        same = (height, width) == before
        self.resize = nn.Identity() if same else Resize(before, (height, width), antialias=False)
        self.padding = after[1] - width, 0, after[0] - height, 0

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.resize(x), self.padding)
