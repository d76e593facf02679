"""Small policies of every kind of program, as a family would deliver them: random weights, real contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from holdfast.export.sources.types import Component, Moment, Observation, Policy
from holdfast.runtime.bundle.schema import (
    ActionContract,
    ActionElement,
    ActionTokens,
    Diffusion,
    Element,
    Evidence,
    Flow,
    History,
    ImageSpec,
    Normalisation,
    ReversedIds,
    Scheduler,
    StateContract,
    TaskContract,
    Tensor,
    Tokens,
)

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
SIZE, WIDTH, HORIZON, STEPS, LENGTH = 12, 8, 16, 12, 6
Names = dict[str, torch.Tensor]


class Function(nn.Module):
    """`layers`, called by a function with the inputs by name."""

    def __init__(
        self, function: Callable[[Any, Names], tuple[torch.Tensor, ...]], **layers: nn.Module
    ) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleDict(layers)

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.function(self.layers, inputs)


def component(module: nn.Module, inputs: list[Tensor], outputs: list[Tensor]) -> Component:
    return Component(module.eval(), tuple(inputs), tuple(outputs))


def floats(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=list(shape))


def ints(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, dtype="int64", shape=list(shape))


def pixels(*steps: int) -> list[Tensor]:
    return [
        Tensor(name=f"image.{c}", dtype="uint8", shape=[1, *steps, SIZE, SIZE, 3]) for c in ("top", "wrist")
    ]


def see(layer: nn.Module, inputs: Names) -> torch.Tensor:
    """[1, 16] of both cameras."""
    both = torch.cat([inputs[f"image.{c}"].float().flatten(1) / 255 for c in ("top", "wrist")], 1)
    return torch.tanh(layer(both))


PIXELS = 2 * SIZE * SIZE * 3
VOCABULARY = {
    "kind": "words",
    "words": {"touch": 1, "the": 2, "cube": 3, "ball": 4},
    "length": LENGTH,
    "pad": 0,
}
BOTH = [ints("tokens", 1, LENGTH), ints("token_mask", 1, LENGTH)]
CACHE = [floats("key.0", 1, 4, WIDTH), floats("value.0", 1, 4, WIDTH)]


def words_of(inputs: Names, layer: nn.Module) -> torch.Tensor:
    """[1, 16]: the mean over the words that are there."""
    mask = inputs["token_mask"][..., None].float()
    return (layer(inputs["tokens"]) * mask).sum(1) / mask.sum(1).clamp_min(1)


def make_policy(
    components: dict[str, Component],
    program: Any,
    *,
    language: bool = True,
    state: bool = True,
    history: History | None = None,
    steps: int = STEPS,
    kind: str = "synthetic",
    samples: int = 5,
) -> Policy:
    random = np.random.default_rng(0)
    units = ["deg"] * 5 + ["0_100_of_range"]
    norm = Normalisation(source="mean_std", offset=[1.0] * 6, scale=[2.0, 3.0, 1.0, 0.5, 0.1, 40.0])

    def moment() -> Moment:
        images = {c: random.integers(0, 256, (24, 20, 3), np.uint8) for c in ("top", "wrist")}
        return Moment(images, random.normal(size=6) if state else None)

    count = 1 if history is None else history.steps
    return Policy(
        family="kinds",
        robot_type="sim_arm",
        components=components,
        program=program,
        cameras=tuple(
            ImageSpec(
                name=name,
                height=SIZE,
                width=SIZE,
                channels="rgb",
                layout="hwc",
                dtype="uint8",
                resize="area",
                aspect="stretch",
                scale=1.0,
                mean=[],
                std=[],
            )
            for name in ("top", "wrist")
        ),
        state=StateContract(
            elements=[Element(name=n, unit=u) for n, u in zip(JOINTS, units, strict=True)],  # pyright: ignore[reportArgumentType]
            normalisation=norm,
        )
        if state
        else None,
        action=ActionContract(
            space="joint_position",
            elements=[
                ActionElement(name=n, unit=u, relative=False)  # pyright: ignore[reportArgumentType]
                for n, u in zip(JOINTS, units, strict=True)
            ],
            steps=steps,
            dt_s=0.05,
            normalisation=[norm],
        ),
        task=TaskContract.model_validate(
            {
                "default": "touch the cube",
                "examples": ["touch the cube"],
                "tokenizer": VOCABULARY if language else None,
            }
        ),
        observations=tuple(
            Observation(tuple(moment() for _ in range(count)), ["touch the cube", "touch the ball"][i % 2])
            for i in range(samples)
        ),
        evidence=Evidence(kind=kind, text="random pictures and states", samples=samples),  # pyright: ignore[reportArgumentType]
        notes="",
        history=history,
    )


def flow(guided: bool = True) -> Policy:
    torch.manual_seed(0)

    def prefill(layers: Any, inputs: Names) -> tuple[torch.Tensor, ...]:
        known = torch.cat([inputs["image_embeddings"], words_of(inputs, layers["words"])], 1)
        return tuple(layers[name](known).view(1, 4, WIDTH) for name in ("key", "value"))

    def velocity(layers: Any, inputs: Names) -> torch.Tensor:
        x = inputs["x"] + layers["time"](inputs["time"][:, None])[:, None]
        x = x + layers["state"](inputs["state"])[:, None]
        return x + (x @ inputs["key.0"].transpose(1, 2)).softmax(-1) @ inputs["value.0"]

    def guide(layers: Any, inputs: Names) -> tuple[torch.Tensor]:
        pull = inputs["prefix_weight"] * (inputs["x"] - inputs["prefix"])
        return (velocity(layers, inputs) + pull,)

    shared = {"time": nn.Linear(1, WIDTH), "state": nn.Linear(6, WIDTH)}
    taken = [floats("x", 1, HORIZON, WIDTH), floats("time", 1), floats("state", 1, 6), *CACHE]
    out = [floats("velocity", 1, HORIZON, WIDTH)]
    heads = {"words": nn.Embedding(5, 16), "key": nn.Linear(32, 4 * WIDTH), "value": nn.Linear(32, 4 * WIDTH)}
    components = {
        "vision": component(
            Function(lambda layers, inputs: (see(layers["see"], inputs),), see=nn.Linear(PIXELS, 16)),
            pixels(),
            [floats("image_embeddings", 1, 16)],
        ),
        "prefill": component(Function(prefill, **heads), [floats("image_embeddings", 1, 16), *BOTH], CACHE),
        "denoise_step": component(
            Function(lambda layers, inputs: (velocity(layers, inputs),), **shared), taken, out
        ),
    }
    if guided:
        prefix = [floats("prefix", 1, HORIZON, WIDTH), floats("prefix_weight", 1, HORIZON, 1)]
        components["denoise_step_guided"] = component(Function(guide, **shared), [*taken, *prefix], out)
    return make_policy(components, Flow(kind="flow", steps=4, width=WIDTH, horizon=HORIZON))


def diffusion() -> Policy:
    torch.manual_seed(0)

    def cond(layers: Any, inputs: Names) -> tuple[torch.Tensor]:
        rows = [see(layers["see"], {k: v[:, i] for k, v in inputs.items()}) for i in range(2)]
        return (torch.cat([*rows, inputs["state"].flatten(1)], 1),)

    def step(layers: Any, inputs: Names) -> tuple[torch.Tensor]:
        known = layers["known"](inputs["condition"]) + layers["step"](inputs["step"])
        return (torch.tanh(layers["x"](inputs["x"]) + known[:, None]),)

    layers = {"known": nn.Linear(44, 6), "step": nn.Embedding(50, 6), "x": nn.Linear(6, 6)}
    components = {
        "cond": component(
            Function(cond, see=nn.Linear(PIXELS, 16)),
            [*pixels(2), floats("state", 1, 2, 6)],
            [floats("condition", 1, 44)],
        ),
        "denoise_step": component(
            Function(step, **layers),
            [floats("x", 1, HORIZON, 6), ints("step", 1), floats("condition", 1, 44)],
            [floats("prediction", 1, HORIZON, 6)],
        ),
    }
    scheduler = Scheduler(
        kind="ddpm", train_steps=50, inference_steps=10, beta_start=1e-4, beta_end=0.02,
        beta_schedule="squaredcos_cap_v2", prediction="epsilon", clip_sample=True,
    )  # fmt: skip
    program = Diffusion(kind="diffusion", scheduler=scheduler, horizon=HORIZON, first=1)
    return make_policy(components, program, language=False, history=History(steps=2, dt_s=0.05), steps=8)


def tokens() -> Policy:
    """A recurrent decoder: the cache holds what was written, position by position."""
    torch.manual_seed(0)
    cache = floats("written", 1, 20, 4)

    def prefill(layers: Any, inputs: Names) -> tuple[torch.Tensor, ...]:
        known = torch.cat([see(layers["see"], inputs), words_of(inputs, layers["words"])], 1)
        return layers["logits"](known), layers["cache"](known).view(1, 20, 4)

    def decode(layers: Any, inputs: Names) -> tuple[torch.Tensor, ...]:
        here = torch.arange(20)[None, :, None] == inputs["position"]
        written = torch.where(here, layers["token"](inputs["token"]), inputs["written"])
        return layers["logits"](written.flatten(1)) * 3, written

    vocabulary = ActionTokens(bins=16, low=-1.0, high=1.0, encoding=ReversedIds(kind="reversed_ids", last=39))
    logits = floats("logits", 1, 40)
    components = {
        "prefill": component(
            Function(
                prefill,
                see=nn.Linear(PIXELS, 16),
                words=nn.Embedding(5, 16),
                logits=nn.Linear(32, 40),
                cache=nn.Linear(32, 80),
            ),
            [*pixels(), *BOTH],
            [logits, cache],
        ),
        "decode_step": component(
            Function(decode, token=nn.Embedding(40, 4), logits=nn.Linear(80, 40)),
            [ints("token", 1, 1), ints("position", 1), cache],
            [logits, floats("next.written", 1, 20, 4)],
        ),
    }
    program = Tokens(
        kind="tokens", count=6, vocabulary=vocabulary, cache_length=20, image_positions=2, logits=40
    )
    return make_policy(components, program, state=False, steps=1)


KINDS: dict[str, Callable[[], Policy]] = {"flow": flow, "diffusion": diffusion, "tokens": tokens}
