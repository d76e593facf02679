"""Writes what lerobot 0.4 answers while it continues a chunk (real-time chunking), for the checkpoint
`two_cameras` of `make_golden` (docs/development/oracles.md).

lerobot 0.4.4 asks for the gradient of its input only after the network has run, so that the network counts
as constant: `actions.as_is`. `actions` is what the same library answers when it asks before, which is what
the paper (arXiv 2506.07339) does.
"""

# pyright: reportMissingImports=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..oracle import batch_of, feature_names, sensitivity
from .make_golden import HERE, right_positions

# isort: split
from lerobot.configs.types import RTCAttentionSchedule
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

DELAYS, LEFT = (1, 2, 3, 0), (5, 4, 6, 3)
"""Of each sample: steps that will have been carried out; steps that are left of the chunk under way."""


class AskedBefore(RTCProcessor):
    def denoise_step(self, *args: Any, original_denoise_step_partial: Any, **rest: Any) -> torch.Tensor:
        def partial(x: torch.Tensor) -> torch.Tensor:
            return original_denoise_step_partial(x.requires_grad_(True))

        return super().denoise_step(*args, original_denoise_step_partial=partial, **rest)


def main() -> None:
    policy = SmolVLAPolicy.from_pretrained(HERE / "two_cameras").float().eval()
    before, after = make_pre_post_processors(policy.config, str(HERE / "two_cameras"))
    guidance = RTCConfig(enabled=True, prefix_attention_schedule=RTCAttentionSchedule.EXP)
    policy.config.rtc_config = guidance
    with np.load(HERE / "two_cameras.npz") as stored:
        golden = dict(stored)
    samples, horizon, elements = golden["actions"].shape
    random = np.random.default_rng(7)
    prefix = random.normal(size=(samples, horizon, elements)).astype(np.float32)
    for sample, left in enumerate(LEFT):
        prefix[sample, left:] = 0
    paper, as_is = AskedBefore(guidance), RTCProcessor(guidance)
    weights = [paper.get_prefix_weights(*pair, horizon) for pair in zip(DELAYS, LEFT, strict=True)]

    def run(processor: RTCProcessor = paper) -> np.ndarray:
        policy.model.rtc_processor = processor
        rows = []
        for sample in range(samples):
            policy.reset()
            batch = batch_of(golden, sample, feature_names(policy.config))
            actions = policy.predict_action_chunk(
                before({**batch, "task": str(golden["text"][sample])}),
                noise=torch.from_numpy(golden["noise"][sample].copy()),
                inference_delay=DELAYS[sample],
                prev_chunk_left_over=torch.from_numpy(prefix[sample, : LEFT[sample]].copy())[None],
                execution_horizon=LEFT[sample],
            )
            rows.append(after(actions.detach())[0].numpy())
        return np.stack(rows)

    with right_positions():
        actions, other = run(), run(as_is)
        moved = sensitivity(policy, run, actions)
        moved_as_is = sensitivity(policy, lambda: run(as_is), other)
    assert not np.array_equal(actions, other)
    np.savez_compressed(
        HERE / "guided.npz", prefix=prefix, delay=np.array(DELAYS), left=np.array(LEFT),
        prefix_weight=torch.stack(weights).numpy(), max_weight=np.float32(guidance.max_guidance_weight),
        actions=actions, sensitivity=moved,
        **{"actions.as_is": other, "sensitivity.as_is": moved_as_is},
    )  # fmt: skip
    unguided = golden["actions.right_positions"]
    print(
        f"guidance moves the actions by {np.abs(actions - unguided).max():.3g}, sensitivity {moved.max():.2g}"
    )
    print(f"as it is, they differ by {np.abs(actions - other).max():.3g} from that")


if __name__ == "__main__":
    main()
