"""Vision transformers as timm has them (DINOv2 with registers, SigLIP), to one of their last blocks.

Names of the weights are timm's; LayerScale's are those that OpenVLA's own code gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend

HEADS = {
    "vit_large_patch14_reg4_dinov2": 16,
    "vit_so400m_patch14_siglip_224": 16,
    "vit_so400m_patch14_siglip_384": 16,
}
"""timm's name -> attention heads; all else can be read from the weights."""
EPSILON = 1e-6


@dataclass(frozen=True)
class VitSize:
    width: int
    heads: int
    blocks: int
    """Those that are run."""
    feedforward: int
    patch: int
    """Pixels of a patch's edge."""
    picture: int
    """Pixels of the picture's edge; every patch has a position embedding."""
    class_token: bool
    registers: int
    layer_scale: bool

    @property
    def patches(self) -> int:
        return (self.picture // self.patch) ** 2


def vit_size(name: str, weights: Mapping[str, Tensor], picture: int, unused: int) -> VitSize:
    """The size of a tower of that name with these weights, its last `unused` blocks left out.

    Raises `ValueError`.
    """
    entry = name.split(".")[0]
    if entry not in HEADS:
        raise ValueError(f"the vision tower {name!r} is not known; known are {', '.join(HEADS)}")
    try:
        width, _, patch, _ = weights["patch_embed.proj.weight"].shape
        blocks = {int(key.split(".")[1]) for key in weights if key.startswith("blocks.")}
        registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
        return VitSize(
            width=width,
            heads=HEADS[entry],
            blocks=len(blocks) - unused,
            feedforward=weights["blocks.0.mlp.fc1.weight"].shape[0],
            patch=patch,
            picture=picture,
            class_token="cls_token" in weights,
            registers=registers,
            layer_scale="blocks.0.ls1.scale_factor" in weights,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"the vision tower {name} lacks weights ({error})") from error


class SelfAttention(nn.Module):
    def __init__(self, size: VitSize) -> None:
        super().__init__()
        if size.width % size.heads:
            raise ValueError(f"{size.heads} heads do not divide a width of {size.width}")
        self.heads = size.heads
        self.qkv, self.proj = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend(q, k, v))


class Mlp(nn.Module):
    def __init__(self, size: VitSize) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size.width, size.feedforward), nn.Linear(size.feedforward, size.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A factor for each channel (Touvron et al., ICCV 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class Block(nn.Module):
    def __init__(self, size: VitSize) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(size.width, EPSILON) for _ in range(2))
        self.attn, self.mlp = SelfAttention(size), Mlp(size)
        self.ls1, self.ls2 = (LayerScale(size.width) if size.layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Vit(nn.Module):
    """Pictures [1, 3, p, p], normalised -> the last block's patches [1, patches, w], row by row."""

    def __init__(self, size: VitSize) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size.width, size.patch, size.patch)})
        self.pos_embed = nn.Parameter(torch.empty(1, size.patches, size.width))
        if size.class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, size.width))
        if size.registers:
            self.reg_token = nn.Parameter(torch.empty(1, size.registers, size.width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))
        self.extra = size.class_token + size.registers

    def forward(self, picture: Tensor) -> Tensor:
        x = self.patch_embed["proj"](picture).flatten(2).transpose(1, 2) + self.pos_embed
        extra = [getattr(self, name) for name in ("cls_token", "reg_token") if hasattr(self, name)]
        x = torch.cat([*extra, x], 1) if extra else x
        for block in self.blocks:
            x = block(x)
        return x[:, self.extra :]
