"""Writes ACT's checkpoints and goldens with lerobot itself (docs/development/oracles.md).

lerobot 0.4 writes `two_cameras`, `options` and `sim_arm`; lerobot 0.3 then `two_cameras_v03` with the
weights of the first.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..oracle import (
    LEROBOT,
    batch_of,
    check_influence,
    exchange,
    feature_names,
    lerobot_inputs,
    load_newer,
    narrow_resnets,
    randomise,
    save_case,
    sensitivity,
)

# isort: split
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy

HERE = Path(__file__).parent
SAMPLES = 5
TINY: dict[str, Any] = {
    "pretrained_backbone_weights": None, "dim_model": 16, "n_heads": 4, "dim_feedforward": 24,
    "n_encoder_layers": 2, "n_decoder_layers": 2, "n_vae_encoder_layers": 1, "latent_dim": 6,
    "chunk_size": 11, "n_action_steps": 7,
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "vision_backbone": "resnet50",
    "replace_final_stride_with_dilation": True,
    "pre_norm": True,
    "feedforward_activation": "gelu",
    "use_vae": False,
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "MIN_MAX"},
}

SIM_ARM = {"chunk_size": 24, "n_action_steps": 24}


def case(
    name: str, widths: tuple[int, ...], seed: int, cameras: dict[str, tuple[int, int]], state: int,
    action: int, options: dict[str, Any], base: str | None = None, rest: bool = False,
) -> None:  # fmt: skip
    """`base`: the checkpoint of lerobot 0.4 that lerobot 0.3 is to write in its own format. `rest`: for the
    simulated arm, near its rest pose."""
    narrow_resnets(widths)
    config, statistics, observations = lerobot_inputs(
        ACTConfig, cameras, state, action, {**TINY, **options}, seed, SAMPLES, rest
    )
    torch.manual_seed(seed)
    if base is None:
        from lerobot.policies.act.processor_act import make_act_pre_post_processors

        policy = ACTPolicy(config).eval()
        randomise(policy, seed)
        before, after = make_act_pre_post_processors(config, statistics)
        parts = [policy, before, after]

        def chunk(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return after(policy.predict_action_chunk(before(batch)))
    else:
        policy = ACTPolicy(config, dataset_stats=statistics).eval()
        load_newer(policy, HERE / base)
        parts = [policy]

        def chunk(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return policy.predict_action_chunk({key: value[None] for key, value in batch.items()})

    def run(exchanged: str | None = None) -> np.ndarray:
        used = exchange(observations, exchanged)
        return np.stack([chunk(batch_of(used, i, feature_names(config)))[0].numpy() for i in range(SAMPLES)])

    def save(folder: Path) -> None:
        for part in parts:
            part.save_pretrained(folder)

    actions = run()
    check_influence(actions, {name: run(name) for name in observations})
    save_case(
        HERE / name,
        save,
        {**observations, "actions": actions, "sensitivity": sensitivity(policy, run, actions)},
    )


if __name__ == "__main__":
    two_cameras = (4, 6, 8, 10), 11, {"top": (36, 48), "wrist_cam": (45, 70)}, 9, 7, {}
    if LEROBOT.startswith("0.3"):
        case("two_cameras_v03", *two_cameras, base="two_cameras")
    else:
        case("two_cameras", *two_cameras)
        case("sim_arm", (2, 2, 3, 3), 71, {"front": (48, 64)}, 6, 6, SIM_ARM, rest=True)
        case("options", (2, 2, 3, 3), 21, {"front": (51, 67)}, 5, 5, OPTIONS)
