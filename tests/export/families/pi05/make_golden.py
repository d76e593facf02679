"""Writes pi0.5's checkpoints and goldens with lerobot itself (docs/development/oracles.md)."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..oracle import LEROBOT, batch_of, feature_names, lerobot_inputs
from ..pi0.lerobot_case import TINY, case
from ..pi0.tiny import encode, serve_tokenizer, shrink

# isort: split
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.policies.pi05.processor_pi05 import make_pi05_pre_post_processors

HERE = Path(__file__).parent
MAKE = PI05Config, modeling_pi05.PI05Policy, make_pi05_pre_post_processors
OPTIONS: dict[str, Any] = {
    "num_inference_steps": 3, "empty_cameras": 1, "max_state_dim": 8, "tokenizer_max_length": 150,
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
}  # fmt: skip


def write_tokens() -> None:
    """What the original's steps before the policy make of a hundred odd instructions, each with a state that
    also lies outside of what the statistics know."""
    from ..smolvla.make_golden import odd_instructions

    serve_tokenizer()
    config, statistics, observations = lerobot_inputs(
        PI05Config, {"top": (36, 48)}, 7, 7, TINY, seed=1, samples=1
    )
    before, _ = make_pi05_pre_post_processors(config, statistics)
    batch = batch_of(observations, 0, feature_names(config))
    low, high = (statistics["observation.state"][name].numpy() for name in ("q01", "q99"))
    texts, found = odd_instructions(), []
    shares = np.random.default_rng(7).uniform(-0.2, 1.2, (len(texts), 7))
    states = (low + shares * (high - low)).astype(np.float32)
    for text, state in zip(texts, states, strict=True):
        found.append(encode(before, {**batch, "observation.state": torch.from_numpy(state)}, [text]))
    rows = {name: np.concatenate([row[name] for row in found]) for name in found[0]}
    np.savez_compressed(HERE / "tokens.npz", text=np.array(texts), state=states, q01=low, q99=high, **rows)
    print(f"tokens: up to {int(rows['token_mask'].sum(1).max())} of {config.tokenizer_max_length}")


if __name__ == "__main__":
    assert LEROBOT.startswith("0.4")
    write_tokens()
    shrink(modeling_pi05, patch=8)
    case(
        HERE / "two_cameras",
        modeling_pi05,
        MAKE,
        91,
        {"top": (36, 48), "wrist_cam": (53, 35)},
        9,
        7,
        {},
        guided=True,
    )
    case(HERE / "options", modeling_pi05, MAKE, 101, {"front": (41, 67)}, 5, 5, OPTIONS)
