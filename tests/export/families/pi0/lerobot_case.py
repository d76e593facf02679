"""One checkpoint and golden of LeRobot's pi0 or pi0.5."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from .tiny import encode, gemma_config, liven_parts, serve_tokenizer

SAMPLES = 4
TEXTS = [
    "pick up the red cube",
    "Put the_LEFT sock into bin #3! ",
    "öffne\ndie Schublade",
    "stack 2 blocks 🤖",
]
TINY: dict[str, Any] = {
    "chunk_size": 7, "n_action_steps": 5, "max_state_dim": 12, "max_action_dim": 10,
    "image_resolution": (32, 32), "num_inference_steps": 5, "dtype": "float32",
}  # fmt: skip
DELAYS, LEFT = (1, 2, 3, 0), (5, 4, 6, 3)
"""Of each sample under guidance: steps that will have been carried out; steps left of the chunk before."""


def case(
    folder: Path, modeling: ModuleType, make: tuple[type, type, Callable[..., Any]], seed: int,
    cameras: dict[str, tuple[int, int]], state: int, action: int, options: dict[str, Any],
    guided: bool = False,
) -> None:  # fmt: skip
    """`make`: configuration, policy, and what makes its processors. `guided`: writes `guided.npz` too."""
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

    def run(exchanged: str | None = None, each: Sequence[dict[str, Any]] = ({},) * SAMPLES) -> np.ndarray:
        """`each`: what else the policy is given with each sample."""
        used, out = exchange(observations, exchanged), []
        for sample in range(SAMPLES):
            start = torch.from_numpy(noise[sample].copy())
            actions = policy.predict_action_chunk(before(batch(used, sample)), noise=start, **each[sample])
            out.append(after(actions.detach())[0].numpy())
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
    save_case(folder, save, golden)
    if guided:
        write_guided(folder.parent / "guided.npz", policy, golden, run, max_weight=8.0)


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


def write_guided(
    file: Path, policy: Any, golden: Arrays, run: Callable[..., np.ndarray], max_weight: float
) -> None:
    """What LeRobot answers while it continues a chunk (real-time chunking).

    LeRobot 0.4.4 asks for the gradient of its input only after the network has run, so that the network
    counts as constant: `actions.as_is`. `actions` is what the same code answers when it asks before, as the
    paper does (arXiv 2506.07339).
    """
    from lerobot.configs.types import RTCAttentionSchedule
    from lerobot.policies.rtc.configuration_rtc import RTCConfig
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor

    class AskedBefore(RTCProcessor):
        def denoise_step(self, *args: Any, original_denoise_step_partial: Any, **rest: Any) -> torch.Tensor:
            def partial(x: torch.Tensor) -> torch.Tensor:
                return original_denoise_step_partial(x.requires_grad_(True))

            return super().denoise_step(*args, original_denoise_step_partial=partial, **rest)

    rtc = RTCConfig(
        enabled=True, max_guidance_weight=max_weight, prefix_attention_schedule=RTCAttentionSchedule.EXP
    )
    samples, horizon, elements = golden["actions"].shape
    prefix = np.random.default_rng(3).normal(size=(samples, horizon, elements)).astype(np.float32)
    for sample, left in enumerate(LEFT):
        prefix[sample, left:] = 0
    weights = [
        RTCProcessor(rtc).get_prefix_weights(*pair, horizon) for pair in zip(DELAYS, LEFT, strict=True)
    ]
    each = [
        {
            "inference_delay": DELAYS[sample],
            "prev_chunk_left_over": torch.from_numpy(prefix[sample, : LEFT[sample]].copy())[None],
            "execution_horizon": LEFT[sample],
        }
        for sample in range(samples)
    ]
    found: Arrays = {}
    policy.config.rtc_config = rtc
    for ending, processor in (("", AskedBefore(rtc)), (".as_is", RTCProcessor(rtc))):
        policy.model.rtc_processor = processor
        actions = run(each=each)
        found |= {
            f"actions{ending}": actions,
            f"sensitivity{ending}": sensitivity(policy, lambda: run(each=each), actions),
        }
    policy.config.rtc_config = policy.model.rtc_processor = None
    np.savez_compressed(
        file, prefix=prefix, delay=np.array(DELAYS), left=np.array(LEFT),
        prefix_weight=torch.stack(weights).numpy(), max_weight=np.float32(max_weight), **found,
    )  # fmt: skip
    apart = (
        np.abs(found["actions"] - golden["actions"]).max(),
        np.abs(found["actions"] - found["actions.as_is"]).max(),
    )
    print(f"guidance moves the actions by {apart[0]:.3g}, {apart[1]:.3g} from how LeRobot is")
