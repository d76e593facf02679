"""Makes schedulers.npz with the original, Hugging Face's diffusers (seen with 0.42.1 and torch 2.13.0).

By hand, in an environment with both: `python tests/runtime/policy/golden/make_schedulers.py`. Not run by CI.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers.schedulers import (  # pyright: ignore[reportMissingImports] (a development environment's)
    DDIMScheduler,
    DDPMScheduler,
    scheduling_ddim,
    scheduling_ddpm,
)

SHAPE = (1, 3, 2)
COMMON = {"train_steps": 100, "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": True, "clip_range": 1.0}
CASES = {
    "ddpm": {"kind": "ddpm", "inference_steps": 100, "beta_schedule": "squaredcos_cap_v2",
             "prediction": "epsilon"},
    "ddpm_few": {"kind": "ddpm", "inference_steps": 7, "beta_schedule": "linear", "prediction": "sample",
                 "clip_sample": False},
    "ddpm_offset": {"kind": "ddpm", "inference_steps": 10, "beta_schedule": "scaled_linear",
                    "prediction": "epsilon", "steps_offset": 1, "clip_range": 0.6},
    "ddim": {"kind": "ddim", "inference_steps": 10, "beta_schedule": "squaredcos_cap_v2",
             "prediction": "epsilon"},
    "ddim_sample": {"kind": "ddim", "inference_steps": 9, "beta_schedule": "linear", "prediction": "sample",
                    "set_alpha_to_one": False, "steps_offset": 1},
    "ddim_eta": {"kind": "ddim", "inference_steps": 10, "beta_schedule": "scaled_linear",
                 "prediction": "epsilon", "eta": 0.7, "clip_sample": False},
}  # fmt: skip


def original(case: dict) -> DDPMScheduler | DDIMScheduler:
    common = {
        "num_train_timesteps": case["train_steps"],
        "beta_start": case["beta_start"],
        "beta_end": case["beta_end"],
        "beta_schedule": case["beta_schedule"],
        "prediction_type": case["prediction"],
        "clip_sample": case["clip_sample"],
        "clip_sample_range": case["clip_range"],
        "steps_offset": case.get("steps_offset", 0),
    }
    if case["kind"] == "ddpm":
        return DDPMScheduler(**common)
    return DDIMScheduler(set_alpha_to_one=case.get("set_alpha_to_one", True), **common)


def run(case: dict, seed: int) -> dict[str, np.ndarray]:
    """The original's whole inference for made-up predictions, with the noise that it drew."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(SHAPE, generator=generator)]

    def draw(*_: object, **__: object) -> torch.Tensor:
        drawn.append(torch.randn(SHAPE, generator=generator))
        return drawn[-1]

    scheduling_ddpm.randn_tensor = scheduling_ddim.randn_tensor = draw
    scheduler = original(case)
    scheduler.set_timesteps(case["inference_steps"])
    x, predictions, states = drawn[0], [], []
    more = {"eta": case["eta"]} if "eta" in case else {}
    for t in scheduler.timesteps:
        predictions.append(0.8 * torch.randn(SHAPE, generator=generator) + 0.1 * x)
        x = scheduler.step(predictions[-1], t, x, **more).prev_sample
        states.append(x)
    return {
        "timesteps": scheduler.timesteps.numpy(),
        "betas": scheduler.betas.numpy(),
        "noise": torch.cat(drawn).numpy(),
        "predictions": torch.stack(predictions).numpy(),
        "states": torch.stack(states).numpy(),
    }


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for seed, (name, changes) in enumerate(CASES.items()):
        case = {**COMMON, **changes}
        arrays[f"{name}/spec"] = np.array(json.dumps(case))
        arrays |= {f"{name}/{key}": value for key, value in run(case, seed).items()}
    np.savez_compressed(Path(__file__).with_name("schedulers.npz"), **arrays)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
