"""Writes pi0's checkpoints and goldens with lerobot and openpi themselves (docs/development/oracles.md)."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..oracle import LEROBOT, batch_of, feature_names, lerobot_inputs
from .lerobot_case import TINY, case
from .tiny import encode, serve_tokenizer, shrink, write_tokenizer

# isort: split
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi0.processor_pi0 import make_pi0_pre_post_processors

HERE = Path(__file__).parent
MAKE = PI0Config, modeling_pi0.PI0Policy, make_pi0_pre_post_processors
OPTIONS: dict[str, Any] = {
    "num_inference_steps": 3, "empty_cameras": 1, "min_period": 1e-2, "max_period": 2.0,
    "tokenizer_max_length": 60,
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "MIN_MAX"},
}  # fmt: skip


def write_tokens() -> None:
    """What the original's steps before the policy make of a hundred odd instructions."""
    from ..smolvla.make_golden import odd_instructions

    serve_tokenizer()
    config, statistics, observations = lerobot_inputs(
        PI0Config, {"top": (36, 48)}, 7, 7, TINY, seed=1, samples=1
    )
    before, _ = make_pi0_pre_post_processors(config, statistics)
    texts = odd_instructions()
    found = encode(before, batch_of(observations, 0, feature_names(config)), texts)
    np.savez_compressed(HERE / "tokens.npz", text=np.array(texts), **found)
    print(f"tokens: up to {int(found['token_mask'].sum(1).max())} of {config.tokenizer_max_length}")


if __name__ == "__main__":
    assert LEROBOT.startswith("0.4")
    if "tokenizer" in sys.argv:
        write_tokenizer()
    write_tokens()
    shrink(modeling_pi0, patch=8)
    case(
        HERE / "two_cameras",
        modeling_pi0,
        MAKE,
        71,
        {"top": (36, 48), "wrist_cam": (53, 35)},
        9,
        7,
        {},
        guided=True,
    )
    case(HERE / "options", modeling_pi0, MAKE, 81, {"front": (41, 67)}, 5, 5, OPTIONS)
