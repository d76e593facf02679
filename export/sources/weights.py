"""Bringing a checkpoint's weights into our modules: every name and every shape must fit, and be finite."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from ..errors import SourceError

Module = TypeVar("Module", bound=torch.nn.Module)
Tensors = Mapping[str, torch.Tensor]


def renamed(tensors: Tensors, table: Sequence[tuple[str, str | None]]) -> dict[str, torch.Tensor]:
    """Names by the first regular expression of the table that matches their beginning; None drops the tensor.

    Names that nothing matches stay, and are refused as unknown later.
    """
    out: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        match, new = next(((m, new) for pattern, new in table if (m := re.match(pattern, name))), (None, ""))
        if match is None:
            out[name] = tensor
        elif new is not None:
            out[match.expand(new) + name[match.end() :]] = tensor
    return out


def below(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def split_attention(tensors: Tensors) -> dict[str, torch.Tensor]:
    """`in_proj_*` of torch's MultiheadAttention as weights and biases of query, key and value."""
    out: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if match := re.match(r"(.*\.)in_proj_(weight|bias)$", name):
            for part, value in zip("qkv", tensor.chunk(3), strict=False):
                out[f"{match[1]}{part}_proj.{match[2]}"] = value
        else:
            out[name] = tensor
    return out


def build(factory: Callable[[], Module], tensors: Tensors, path: Path) -> Module:
    """The module in evaluation mode with these weights as float32, all of them and no other.

    Nothing is allocated before every shape has been compared. Raises `SourceError`.
    """
    try:
        with torch.device("meta"):
            module = factory()
    except (TypeError, ValueError, RuntimeError, OverflowError, ArithmeticError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise SourceError(f"{path}: no network can be built from its configuration: {reason}") from error
    expected = module.state_dict()
    wrong = [
        *(f"{name} is missing" for name in sorted(set(expected) - set(tensors))),
        *(f"{name} is unknown" for name in sorted(set(tensors) - set(expected))),
        *(
            f"{name} has shape {list(tensors[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise SourceError(
            f"{path}: the weights do not fit its configuration's network ({'; '.join(wrong[:4])}{more}); it "
            "may be damaged, or made by a version of the training library that this Holdfast does not know"
        )
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in expected.items():
        weights[name] = tensors[name].to(torch.float32) if tensor.is_floating_point() else tensors[name]
        if not bool(torch.isfinite(weights[name]).all()):
            raise SourceError(f"{path}: the weight {name} is not finite: training diverged, or it is damaged")
    module.load_state_dict(weights, assign=True)
    return module.eval().requires_grad_(False)
