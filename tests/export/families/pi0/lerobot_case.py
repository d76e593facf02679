"""One checkpoint and golden of LeRobot's pi0 or pi0.5."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ..oracle import (
    Arrays,
    batch_of,
    check_influence,
    exchange,
    feature_names,
    lerobot_inputs,
    liven,
    randomise,
    save_case,
    sensitivity,
)
from .tiny import encode, gemma_config, liven_parts, serve_tokenizer, shrink

SAMPLES = 4
TEXTS = ["pick up the red cube", "Put the_LEFT sock into bin #3! ", "öffne\ndie Schublade", "stack 2 blocks 🤖"]
TINY: dict[str, Any] = {
    "chunk_size": 7, "n_action_steps": 5, "max_state_dim": 12, "max_action_dim": 10,
    "image_resolution": (32, 32), "num_inference_steps": 5, "dtype": "float32",
}  # fmt: skip
GUIDANCE = {"inference_delay": 2, "execution_horizon": 5}
"""Of the real-time chunking golden."""


def case(
    folder: Path, modeling: ModuleType, make: tuple[type, type, Callable[..., Any]], seed: int,
    cameras: dict[str, tuple[int, int]], state: int, action: int, options: dict[str, Any],
) -> None:  # fmt: skip
    """`make`: configuration, policy, and what makes its processors."""
    config_class, policy_class, make_processors = make
    modeling.get_gemma_config = gemma_config
    serve_tokenizer()
    config, statistics, observations = lerobot_inputs(
        config_class, cameras, state, action, {**TINY, **options}, seed, SAMPLES
    )
    observations["text"] = np.array(TEXTS)
    torch.manual_seed(seed)
    policy = policy_class(config).float().eval()
    randomise(policy, seed)
    liven(policy)
    liven_parts(policy, seed)
    before, after = make_processors(config, statistics)
    names = {name: key for name, key in feature_names(config).items() if "empty_camera" not in name}
    noise = np.random.default_rng(seed + 2).normal(
        size=(SAMPLES, 1, config.chunk_size, config.max_action_dim)
    )
    noise = noise.astype(np.float32)

    def batch(used: Arrays, sample: int) -> dict[str, Any]:
        return {**batch_of(used, sample, names), "task": str(used["text"][sample])}

    def run(exchanged: str | None = None, **guidance: Any) -> np.ndarray:
        used, out = exchange(observations, exchanged), []
        for sample in range(SAMPLES):
            part = {key: value[sample] if key == "prev_chunk_left_over" else value for key, value in guidance.items()}
            with torch.no_grad():
                actions = policy.predict_action_chunk(
                    before(batch(used, sample)), noise=torch.from_numpy(noise[sample].copy()), **part
                )
            out.append(after(actions)[0].numpy())
        return np.stack(out)

    def save(target: Path) -> None:
        for part in (policy, before, after):
            part.save_pretrained(target)

    ids = [encode(before, batch(observations, sample), [TEXTS[sample]]) for sample in range(SAMPLES)]
    golden = {**observations, "noise": noise, "actions": run()}
    golden |= {name: np.concatenate([row[name] for row in ids]) for name in ids[0]}
    check_influence(golden["actions"], {name: run(name) for name in observations})
    golden["sensitivity"] = sensitivity(policy, run, golden["actions"])
    golden |= other_padding(modeling, policy, run)
    golden |= guided(policy, config, run)
    save_case(folder, save, golden)


def other_padding(modeling: ModuleType, policy: torch.nn.Module, run: Callable[[], np.ndarray]) -> Arrays:
    """LeRobot 0.4 pads pictures of 0..1 with -1, and later versions with 0 (black)."""
    original = modeling.resize_with_pad_torch

    def black(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return original(images, height, width).clamp(0, 1)

    modeling.resize_with_pad_torch = black
    try:
        actions = run()
        return {"actions.black": actions, "sensitivity.black": sensitivity(policy, run, actions)}
    finally:
        modeling.resize_with_pad_torch = original


def guided(policy: Any, config: Any, run: Callable[..., np.ndarray]) -> Arrays:
    """Real-time chunking: `prefix`, normalised actions [samples, 4, width], is left of the chunk before."""
    from lerobot.policies.rtc.configuration_rtc import RTCConfig
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor

    rtc = RTCConfig(enabled=True, max_guidance_weight=8.0)
    prefix = np.random.default_rng(3).normal(size=(SAMPLES, 4, config.output_features["action"].shape[0]))
    prefix = prefix.astype(np.float32)
    config.rtc_config, policy.model.rtc_processor = rtc, RTCProcessor(rtc)

    def run_guided() -> np.ndarray:
        return run(prev_chunk_left_over=torch.from_numpy(prefix), **GUIDANCE)

    try:
        actions = run_guided()
        moved = sensitivity(policy, run_guided, actions)
    finally:
        config.rtc_config, policy.model.rtc_processor = None, None
    weights = RTCProcessor(rtc).get_prefix_weights(GUIDANCE["inference_delay"], 4, config.chunk_size)
    return {
        "guided.prefix": prefix, "guided.weights": weights.numpy(), "guided.actions": actions,
        "guided.sensitivity": moved,
    }  # fmt: skip
