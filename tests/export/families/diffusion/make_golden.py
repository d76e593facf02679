"""Writes Diffusion's checkpoints and goldens with lerobot itself (docs/development/oracles.md).

lerobot 0.4 writes `ddpm`, `ddim` and `sim_arm`; lerobot 0.3 then `ddpm_v03` with the weights of the first.
Samples have the history that `select_action` queues; the first of them is an episode's first observation,
repeated.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..oracle import (
    LEROBOT,
    Arrays,
    batch_of,
    check_influence,
    exchange,
    feature_names,
    lerobot_inputs,
    load_newer,
    narrow_resnets,
    pinned_noise,
    randomise,
    save_case,
    sensitivity,
)

# isort: split
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

HERE = Path(__file__).parent
SAMPLES = 4
DDPM: dict[str, Any] = {
    "n_obs_steps": 2, "horizon": 8, "n_action_steps": 5, "crop_shape": (33, 42), "down_dims": (8, 16),
    "diffusion_step_embed_dim": 12, "spatial_softmax_num_keypoints": 5, "num_train_timesteps": 20,
}  # fmt: skip
DDIM: dict[str, Any] = {
    "n_obs_steps": 3, "horizon": 12, "n_action_steps": 4, "resize_shape": (35, 46), "crop_ratio": 0.9,
    "use_group_norm": False, "use_separate_rgb_encoder_per_camera": True, "down_dims": (8, 12), "n_groups": 4,
    "kernel_size": 3, "diffusion_step_embed_dim": 8, "spatial_softmax_num_keypoints": 3,
    "use_film_scale_modulation": False, "noise_scheduler_type": "DDIM", "num_inference_steps": 7,
    "beta_schedule": "scaled_linear", "prediction_type": "sample", "clip_sample_range": 1.5,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "QUANTILE10"},
}  # fmt: skip

SIM_ARM: dict[str, Any] = {
    **DDIM, "n_obs_steps": 2, "horizon": 16, "n_action_steps": 12, "resize_shape": None,
    "crop_shape": (40, 60), "num_inference_steps": 4, "prediction_type": "epsilon",
    "use_film_scale_modulation": True,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
}  # fmt: skip


def case(
    name: str, widths: tuple[int, ...], seed: int, cameras: dict[str, tuple[int, int]], state: int,
    action: int, options: dict[str, Any], base: str | None = None, rest: bool = False,
) -> None:  # fmt: skip
    """`base`: the checkpoint of lerobot 0.4 that lerobot 0.3 is to write in its own format. `rest`: for the
    simulated arm, near its rest pose."""
    narrow_resnets(widths)
    history = options["n_obs_steps"]
    config, statistics, flat = lerobot_inputs(
        DiffusionConfig, cameras, state, action, options, seed, SAMPLES * history, rest
    )
    observations = {key: value.reshape(SAMPLES, history, *value.shape[1:]) for key, value in flat.items()}
    for value in observations.values():
        value[0] = value[0, -1:]
    torch.manual_seed(seed)
    if base is None:
        from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

        policy = DiffusionPolicy(config).eval()
        before, after = make_diffusion_pre_post_processors(config, statistics)
        parts = [policy, before, after]
        randomise(policy, seed)
    else:
        policy = DiffusionPolicy(config, dataset_stats=statistics).eval()
        load_newer(policy, HERE / base)
        parts = [policy]

        def before(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {key: value[None] for key, value in batch.items()}

        def after(chunk: torch.Tensor) -> torch.Tensor:
            return chunk

    steps = policy.diffusion.num_inference_steps
    draws = steps if config.noise_scheduler_type == "DDPM" else 1
    noise = (
        np.random.default_rng(seed + 2)
        .normal(size=(SAMPLES, draws, config.horizon, action))
        .astype(np.float32)
    )

    def chunk(used: Arrays, sample: int) -> np.ndarray:
        """[steps, elements]: what `select_action` puts into its queue after the whole history."""
        policy.reset()
        rows: list[torch.Tensor] = []
        first = history - 1 if sample == 0 else 0
        for step in range(first, history):
            policy._queues["action"].clear()
            with pinned_noise(noise[sample]) as taken:
                batch = before(batch_of(used, (sample, step), feature_names(config)))
                rows = [policy.select_action(batch), *policy._queues["action"]]
            assert taken[0] == draws
        return after(torch.cat(rows)).numpy()

    def run(exchanged: str | None = None) -> np.ndarray:
        used = exchange(observations, exchanged)
        return np.stack([chunk(used, sample) for sample in range(SAMPLES)])

    def save(folder: Path) -> None:
        for part in parts:
            part.save_pretrained(folder)

    actions = run()
    check_influence(actions, {name: run(name) for name in observations})
    golden = {**observations, "noise": noise, "actions": actions}
    save_case(HERE / name, save, {**golden, "sensitivity": sensitivity(policy, run, actions)})


if __name__ == "__main__":
    ddpm = (16, 16, 16, 32), 31, {"top": (36, 48), "wrist_cam": (36, 48)}, 7, 7, DDPM
    if LEROBOT.startswith("0.3"):
        case("ddpm_v03", *ddpm, base="ddpm")
    else:
        case("ddpm", *ddpm)
        case("sim_arm", (3, 4, 5, 6), 81, {"front": (48, 64)}, 6, 6, SIM_ARM, rest=True)
        case("ddim", (4, 5, 6, 8), 42, {"left": (41, 53), "right": (41, 53)}, 9, 5, DDIM)
