"""ResNet (He et al., CVPR 2016) as torchvision has it, to its last feature map.

Widths are given, so that they can be read from a checkpoint; names of the weights are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS: dict[str, tuple[bool, tuple[int, int, int, int]]] = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnet152": (True, (3, 8, 36, 3)),
    "wide_resnet50_2": (True, (3, 4, 6, 3)),
    "wide_resnet101_2": (True, (3, 4, 23, 3)),
}
"""torchvision's name -> whether its blocks are bottlenecks, and how many each stage has."""
Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ResNetSize:
    """`inner` and `outer`: channels inside and after the blocks of each stage."""

    bottleneck: bool
    blocks: tuple[int, ...]
    stem: int
    inner: tuple[int, ...]
    outer: tuple[int, ...]
    dilate_last: bool = False
    """Stage 4 keeps the resolution and is dilated instead (bottlenecks only)."""

    def feature_map(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of a picture."""
        for _ in range(4 if self.dilate_last else 5):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width


def resnet_size(name: str, weights: Mapping[str, Tensor], dilate_last: bool = False) -> ResNetSize:
    """The size of a network of that name with these weights. Raises `ValueError`."""
    if name not in BLOCKS:
        raise ValueError(f"the backbone {name!r} is not known; known are {', '.join(BLOCKS)}")
    bottleneck, blocks = BLOCKS[name]
    if dilate_last and not bottleneck:
        raise ValueError(f"{name} has no blocks that can be dilated")
    last = "conv3" if bottleneck else "conv2"
    try:
        inner = tuple(weights[f"layer{stage}.0.conv1.weight"].shape[0] for stage in range(1, 5))
        outer = tuple(weights[f"layer{stage}.0.{last}.weight"].shape[0] for stage in range(1, 5))
        return ResNetSize(bottleneck, blocks, weights["conv1.weight"].shape[0], inner, outer, dilate_last)
    except (KeyError, IndexError) as error:
        raise ValueError(f"the backbone {name} lacks the weight {error}") from error


class BatchNorm(nn.Module):
    """Batch norm as it is at inference, frozen or not."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(torch.ones(channels)), nn.Buffer(torch.zeros(channels))
        self.running_mean, self.running_var = (
            nn.Buffer(torch.zeros(channels)),
            nn.Buffer(torch.ones(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 (with the stride) and 1x1, beside a short cut."""

    def __init__(
        self, inward: int, inner: int, outward: int, stride: int, dilation: int, bottleneck: bool, norm: Norm
    ) -> None:
        super().__init__()

        def three(i: int, o: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(i, o, 3, stride, padding=dilation, dilation=dilation, bias=False)

        if bottleneck:
            self.conv1 = nn.Conv2d(inward, inner, 1, bias=False)
            self.conv2 = three(inner, inner, stride)
            self.conv3 = nn.Conv2d(inner, outward, 1, bias=False)
            self.bn3 = norm(outward)
        else:
            self.conv1 = three(inward, inner, stride)
            self.conv2 = three(inner, outward)
            self.conv3 = None
        self.bn1, self.bn2 = norm(inner), norm(inner if bottleneck else outward)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inward, outward, 1, stride, bias=False), norm(outward))
            if stride != 1 or inward != outward
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.conv3 is not None:
            x = self.bn3(self.conv3(F.relu(x)))
        return F.relu(x + short)


class ResNet(nn.Module):
    """Pictures [B, 3, h, w] -> feature map [B, c, h/32, w/32]."""

    def __init__(self, size: ResNetSize, norm: Norm = BatchNorm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, size.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(size.stem)
        before = size.stem
        for stage, (count, inner, outer) in enumerate(zip(size.blocks, size.inner, size.outer, strict=True)):
            dilated = size.dilate_last and stage == 3
            blocks = []
            for i in range(count):
                stride = 2 if i == 0 and stage > 0 and not dilated else 1
                dilation = 2 if dilated and i > 0 else 1
                blocks.append(Block(before, inner, outer, stride, dilation, size.bottleneck, norm))
                before = outer
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels."""
    return nn.GroupNorm(channels // 16, channels)
