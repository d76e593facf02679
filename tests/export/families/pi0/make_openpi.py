"""Writes pi0's and pi0.5's checkpoints as openpi's PyTorch code does, and its answers, from pictures, state
and text to actions through openpi's own transforms (docs/development/oracles.md).
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..oracle import (
    Arrays,
    check_influence,
    exchange,
    liven,
    make_observations,
    make_statistics,
    randomise,
    sensitivity,
)
from .lerobot_case import SAMPLES, TEXTS
from .tiny import TOKENIZER, gemma_config, liven_parts, shrink

# isort: split
import openpi.models.gemma
import safetensors.torch
from openpi import transforms
from openpi.models import tokenizer
from openpi.models.pi0_config import Pi0Config
from openpi.models_pytorch import gemma_pytorch, pi0_pytorch
from openpi.policies.policy import Policy
from openpi.shared import normalize

FAMILIES = Path(__file__).parents[1]
CAMERAS = {"base_0_rgb": (36, 48), "left_wrist_0_rgb": (53, 35)}
EMPTY = "right_wrist_0_rgb"
STATE, ACTION, WIDTH, HORIZON, STEPS = 9, 7, 12, 6, 4
ASSET = "tiny_arm"


class Inputs(transforms.DataTransformFn):
    """As a user of openpi writes it for a robot with two cameras."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        pictures = {name: data[f"image.{name}"] for name in CAMERAS}
        return {
            "state": data["state"],
            "prompt": str(data["text"]),
            "image": {**pictures, EMPTY: np.zeros_like(pictures["base_0_rgb"])},
            "image_mask": {**dict.fromkeys(CAMERAS, np.True_), EMPTY: np.False_},
        }


class Outputs(transforms.DataTransformFn):
    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"actions": np.asarray(data["actions"][:, :ACTION])}


def case(folder: Path, seed: int, pi05: bool) -> None:
    config = Pi0Config(
        dtype="float32", action_dim=WIDTH, action_horizon=HORIZON, pi05=pi05, pytorch_compile_mode=None
    )  # fmt: skip
    statistics = make_statistics({"state": STATE, "actions": ACTION}, seed)
    norms = {
        name: normalize.NormStats(
            **{key: values[key].double().numpy() for key in ("mean", "std", "q01", "q99")}
        )
        for name, values in statistics.items()
    }
    spread = statistics["state"]["mean"], statistics["state"]["std"]
    observations = make_observations(SAMPLES, CAMERAS, spread, seed + 1)
    observations["text"] = np.array(TEXTS)
    torch.manual_seed(seed)
    model = pi0_pytorch.PI0Pytorch(config).float().eval()
    randomise(model, seed)
    liven(model)
    liven_parts(model, seed)
    seen: list[dict[str, Any]] = []

    class Notes(transforms.DataTransformFn):
        def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
            seen.append(data)
            return data

    policy = Policy(
        model,
        transforms=[
            Inputs(),
            transforms.Normalize(norms, use_quantiles=pi05),
            transforms.ResizeImages(224, 224),
            transforms.TokenizePrompt(
                tokenizer.PaligemmaTokenizer(config.max_token_len), discrete_state_input=pi05
            ),
            transforms.PadStatesAndActions(WIDTH),
            Notes(),
        ],
        output_transforms=[transforms.Unnormalize(norms, use_quantiles=pi05), Outputs()],
        sample_kwargs={"num_steps": STEPS},
        is_pytorch=True,
    )
    noise = np.random.default_rng(seed + 2).normal(size=(SAMPLES, 1, HORIZON, WIDTH)).astype(np.float32)

    def run(exchanged: str | None = None) -> np.ndarray:
        used, out = exchange(observations, exchanged), []
        for sample in range(SAMPLES):
            given = {name: values[sample] for name, values in used.items()}
            out.append(policy.infer(given, noise=noise[sample].copy())["actions"])
        return np.stack(out).astype(np.float32)

    golden: Arrays = {**observations, "noise": noise, "actions": run()}
    golden["tokens"] = np.stack([data["tokenized_prompt"] for data in seen[:SAMPLES]]).astype(np.int64)
    golden["token_mask"] = np.stack([data["tokenized_prompt_mask"] for data in seen[:SAMPLES]])
    golden["state.normalised"] = np.stack([data["state"] for data in seen[:SAMPLES]]).astype(np.float32)
    check_influence(golden["actions"], {name: run(name) for name in observations})
    golden["sensitivity"] = sensitivity(model, run, golden["actions"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    safetensors.torch.save_model(model, str(folder / "model.safetensors"))
    normalize.save(folder / "assets" / ASSET, norms)
    said: dict[str, Any] = {
        "action_dim": WIDTH, "action_horizon": HORIZON, "paligemma_variant": config.paligemma_variant,
        "action_expert_variant": config.action_expert_variant, "precision": "float32",
    }  # fmt: skip
    # So far as openpi's converter from JAX writes it; what follows no file of openpi says.
    said |= {"cameras": CAMERAS, "num_steps": STEPS, "adapt_to_pi": False}
    if pi05:
        said["discrete_state_input"] = True
    (folder / "config.json").write_text(json.dumps(said, indent=2))
    np.savez_compressed(folder.with_suffix(".npz"), **golden)
    moved, size = golden["sensitivity"], (folder / "model.safetensors").stat().st_size
    assert math.isfinite(moved.max())
    print(f"{folder.name}: {size // 1000} kB, actions up to {np.abs(golden['actions']).max():.3g}")
    print(f"  sensitivity {moved.min():.2g}..{moved.max():.2g}")


if __name__ == "__main__":
    openpi.models.gemma.get_config = gemma_config
    tokenizer.download.maybe_download = lambda *_, **__: TOKENIZER / "tokenizer.model"
    shrink(gemma_pytorch, patch=28, width=16)
    case(FAMILIES / "pi0" / "openpi", 111, pi05=False)
    case(FAMILIES / "pi05" / "openpi", 121, pi05=True)
