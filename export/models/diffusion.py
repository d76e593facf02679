"""Diffusion policy (Chi et al., RSS 2023) with a convolutional U-Net, as LeRobot trains it; inference only.

Two graphs: `Condition` turns the observations into one vector, `Denoise` predicts with it at one step of the
scheduler, which is the run path's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pictures import Camera, Picture, Resize
from .resnet import BatchNorm, ResNet, ResNetSize, group_norm


@dataclass(frozen=True)
class DiffusionSize:
    backbones: tuple[ResNetSize, ...]
    """One, or one a camera."""
    cameras: tuple[Camera, ...]
    """All of the same size."""
    state: int
    actions: int
    history: int
    """Observations that condition the actions."""
    resize: tuple[int, int] | None
    crop: tuple[int, int] | None
    group_norm: bool
    keypoints: int
    down: tuple[int, ...]
    kernel: int
    groups: int
    step_width: int
    film_scale: bool

    @property
    def condition(self) -> int:
        """Elements of the condition."""
        return self.history * (self.state + len(self.cameras) * 2 * self.keypoints)


class SpatialSoftmax(nn.Module):
    """Feature maps [B, c, h, w] -> where each of k keypoints is, [B, 2 k] (Levine et al., JMLR 2016)."""

    pos_grid: Tensor

    def __init__(self, channels: int, height: int, width: int, keypoints: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, keypoints, 1)
        self.register_buffer("pos_grid", torch.empty(height * width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.nets(x).flatten(2).softmax(-1) @ self.pos_grid).flatten(1)


class RgbEncoder(nn.Module):
    """Pictures [B, 3, h, w] -> features [B, 2 k]."""

    def __init__(self, size: DiffusionSize, backbone: ResNetSize) -> None:
        super().__init__()
        before = size.cameras[0].height, size.cameras[0].width
        resized = size.resize or before
        self.resize = Resize(before, resized, antialias=True) if size.resize else nn.Identity()
        self.crop = size.crop or resized
        # Python's rounding to even, as torchvision's CenterCrop has it.
        self.top, self.left = (
            round((full - part) / 2) for full, part in zip(resized, self.crop, strict=True)
        )
        if self.top < 0 or self.left < 0:
            raise ValueError(f"pictures of {resized} cannot be cropped to {self.crop}")
        self.backbone = ResNet(backbone, group_norm if size.group_norm else BatchNorm)
        self.pool = SpatialSoftmax(backbone.outer[-1], *backbone.feature_map(*self.crop), size.keypoints)
        self.out = nn.Linear(2 * size.keypoints, 2 * size.keypoints)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.crop
        x = self.resize(x)[..., self.top : self.top + height, self.left : self.left + width]
        return F.relu(self.out(self.pool(self.backbone(x))))


class Condition(nn.Module):
    """`image.<camera>` uint8 [1, n, h, w, 3], `state` float32 [1, n, s] normalised -> condition [1, c].

    Without a history (n = 1) inputs have no axis for it.
    """

    def __init__(self, size: DiffusionSize) -> None:
        super().__init__()
        self.size = size
        self.pictures = nn.ModuleList(Picture(camera) for camera in size.cameras)
        self.rgb_encoder = nn.ModuleList(RgbEncoder(size, backbone) for backbone in size.backbones)

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        n = self.size.history
        pictures = [
            picture(inputs[f"image.{camera.name}"].reshape(n, camera.height, camera.width, 3))
            for camera, picture in zip(self.size.cameras, self.pictures, strict=True)
        ]
        if len(self.rgb_encoder) == 1:
            features = self.rgb_encoder[0](torch.cat(pictures)).reshape(len(pictures), n, -1).unbind(0)
        else:
            features = [encode(x) for encode, x in zip(self.rgb_encoder, pictures, strict=True)]
        return (torch.cat([inputs["state"].reshape(n, -1), *features], -1).reshape(1, -1),)


class ConvBlock(nn.Module):
    def __init__(self, inward: int, outward: int, kernel: int, groups: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(inward, outward, kernel, padding=kernel // 2)
        self.block = nn.Sequential(convolution, nn.GroupNorm(groups, outward), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two convolutions; the condition shifts, and may scale, what is between them (FiLM)."""

    def __init__(self, inward: int, outward: int, size: DiffusionSize) -> None:
        super().__init__()
        self.scale = size.film_scale
        width = size.step_width + size.condition
        self.conv1 = ConvBlock(inward, outward, size.kernel, size.groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(width, outward * (2 if self.scale else 1)))
        self.conv2 = ConvBlock(outward, outward, size.kernel, size.groups)
        self.residual_conv = nn.Conv1d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        out, film = self.conv1(x), self.cond_encoder(condition)[..., None]
        if self.scale:
            scale, shift = film.chunk(2, 1)
            out = scale * out + shift
        else:
            out = out + film
        return self.conv2(out) + self.residual_conv(x)


class Denoise(nn.Module):
    """`x` [1, h, a], `step` int64 [1], `condition` [1, c] -> prediction [1, h, a]."""

    def __init__(self, size: DiffusionSize) -> None:
        super().__init__()
        half = size.step_width // 2
        exponents = torch.arange(half, device="cpu") * -(math.log(10000) / (half - 1))
        self.frequencies = nn.Buffer(exponents.exp(), persistent=False)
        self.diffusion_step_encoder = nn.Sequential(
            nn.Identity(), nn.Linear(size.step_width, 4 * size.step_width), nn.Mish(),
            nn.Linear(4 * size.step_width, size.step_width),
        )  # fmt: skip
        widths = (size.actions, *size.down)
        pairs = list(pairwise(widths))
        last = size.down[-1]
        self.down_modules = nn.ModuleList(
            nn.ModuleList([
                ResidualBlock(inward, outward, size),
                ResidualBlock(outward, outward, size),
                nn.Conv1d(outward, outward, 3, 2, 1) if i < len(pairs) - 1 else nn.Identity(),
            ])
            for i, (inward, outward) in enumerate(pairs)
        )  # fmt: skip
        self.mid_modules = nn.ModuleList(ResidualBlock(last, last, size) for _ in range(2))
        self.up_modules = nn.ModuleList(
            nn.ModuleList([
                ResidualBlock(2 * outward, inward, size),
                ResidualBlock(inward, inward, size),
                nn.ConvTranspose1d(inward, inward, 4, 2, 1),
            ])
            for inward, outward in reversed(pairs[1:])
        )  # fmt: skip
        self.final_conv = nn.Sequential(
            ConvBlock(size.down[0], size.down[0], size.kernel, 8), nn.Conv1d(size.down[0], size.actions, 1)
        )

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        angles = inputs["step"][:, None] * self.frequencies[None]
        step = self.diffusion_step_encoder(torch.cat([angles.sin(), angles.cos()], -1))
        condition = torch.cat([step, inputs["condition"]], -1)
        x = inputs["x"].transpose(1, 2)
        kept: list[Tensor] = []
        for first, second, down in self.down_modules:  # pyright: ignore[reportGeneralTypeIssues]
            x = second(first(x, condition), condition)
            kept.append(x)
            x = down(x)
        for block in self.mid_modules:
            x = block(x, condition)
        for first, second, up in self.up_modules:  # pyright: ignore[reportGeneralTypeIssues]
            x = up(second(first(torch.cat([x, kept.pop()], 1), condition), condition))
        return (self.final_conv(x).transpose(1, 2),)
