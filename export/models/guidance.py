"""Inference-time guidance of real-time chunking (Black et al., arXiv 2506.07339, equations 2 to 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

Spec = tuple[tuple[int, ...], torch.dtype]


class Guided(nn.Module):
    """A denoising step whose velocity also pulls the chunk towards the one under way.

    Inputs of `step`, and `prefix` [1, h, d], `prefix_weight` [1, h, 1] -> velocity. Time runs from 1 (noise)
    to 0 (actions), the other way round than in the paper. The difference between prefix and predicted actions
    is carried back through the network: a vector-Jacobian product. It is traced here, when it is first run,
    because torch.export cannot trace one; so run it once before it is exported. `inputs`: shape and dtype of
    every input of `step`.
    """

    def __init__(self, step: nn.Module, max_weight: float, inputs: Mapping[str, Spec]) -> None:
        super().__init__()
        self.step, self.max_weight = step, max_weight
        horizon = inputs["x"][0]
        prefix: dict[str, Spec] = {
            "prefix": (horizon, torch.float32),
            "prefix_weight": ((*horizon[:2], 1), torch.float32),
        }
        self._inputs = {**inputs, **prefix}
        self.traced: nn.Module | None = None

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        if self.traced is None:
            self.traced = self._trace()
        return (self.traced(self._state(), inputs),)

    def _trace(self) -> nn.Module:
        with FakeTensorMode():
            fakes = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in self._inputs.items()}
            state = {name: torch.empty(each.shape, dtype=each.dtype) for name, each in self._state().items()}

            def velocity(state: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
                return guide(self.step, state, inputs, self.max_weight)

            # The derivatives of activations are composed of what every runtime has.
            return make_fx(velocity, cast(Any, torch.export.default_decompositions()))(state, fakes)

    def _state(self) -> dict[str, Tensor]:
        return {**dict(self.step.named_parameters()), **dict(self.step.named_buffers())}


def guide(
    step: nn.Module, state: Mapping[str, Tensor], inputs: Mapping[str, Tensor], max_weight: float
) -> Tensor:
    """The guided velocity of `step` with the weights of `state`."""
    rest = {name: value for name, value in inputs.items() if name not in ("x", "prefix", "prefix_weight")}
    x, time = inputs["x"], inputs["time"][:, None, None]

    def predict(x: Tensor) -> tuple[Tensor, Tensor]:
        (velocity,) = functional_call(step, dict(state), kwargs={"x": x, **rest})
        return x - time * velocity, velocity

    actions, pull_back, velocity = torch.func.vjp(predict, x, has_aux=True)  # pyright: ignore
    (pull,) = pull_back((inputs["prefix"] - actions) * inputs["prefix_weight"])
    return velocity - guidance_weight(time, max_weight) * pull


def guidance_weight(time: Tensor, max_weight: float) -> Tensor:
    """min(max, (1 - tau) / (tau r^2)) with tau = 1 - time and r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2)."""
    tau = 1 - time
    return ((tau * tau + time * time) / (tau * time)).clamp(max=max_weight)
