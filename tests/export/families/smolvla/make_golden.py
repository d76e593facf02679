"""Writes SmolVLA's checkpoints and goldens with lerobot itself (docs/development/oracles.md).

lerobot 0.4 writes the vision-language model's folder `vlm`, `two_cameras`, `options` and `tokens.npz`;
lerobot 0.3 then `two_cameras_v03` with the same weights. transformers 4.55 to 4.57 give all patches but one a
wrong position in float32: `actions` is what they answer, `actions.right_positions` what the same library
answers with the positions of other versions (transformers 4.53.3 answers exactly that).
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
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
    liven,
    load_newer,
    randomise,
    save_case,
    sensitivity,
)

# isort: split
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from transformers.models.smolvlm import modeling_smolvlm

HERE = Path(__file__).parent
VLM = HERE / "vlm"
SAMPLES = 4
SPECIAL = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "global_image_token": "<global-img>",
}
TINY: dict[str, Any] = {
    "chunk_size": 7, "n_action_steps": 5, "max_state_dim": 12, "max_action_dim": 10,
    "tokenizer_max_length": 40, "resize_imgs_with_padding": (64, 64), "num_vlm_layers": 4, "num_steps": 5,
    "load_vlm_weights": False,
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "num_expert_layers": 2, "add_image_special_tokens": True, "self_attn_every_n_layers": 2,
    "expert_width_multiplier": 0.5, "prefix_length": 60, "pad_language_to": "max_length", "num_steps": 3,
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILE10"},
}  # fmt: skip
TEXTS = ["pick up the red cube", "Put the LEFT sock into bin #3!", "öffne die Schublade", "stack 2 blocks"]


def odd_instructions() -> list[str]:
    """A hundred instructions with odd characters, none too long for the checkpoint."""
    words = [
        *(
            "pick",
            "place",
            "the",
            "a",
            "red",
            "Ünïcode",
            "straße",
            "红色方块",
            "кубик",
            "مكعب",
            "🤖",
            "👩‍🔬",
            "café",
        ),
        *(
            "cafe\u0301",
            "№",
            "½",
            "don't",
            "e.g.",
            "3.14",
            "-7",
            "#9",
            "@home",
            "50%",
            "$5",
            "C++",
            "a/b",
            "\\n",
        ),
        *(
            '"quoted"',
            "(left)",
            "[right]",
            "{x}",
            "<end>",
            "<image>",
            "|",
            "~",
            "^",
            "_",
            "`",
            ";",
            ":",
            ",",
            "!?",
        ),
    ]
    spaces = [" ", "  ", "\t", "\u00a0", "", " \n", "\u3000", "-"]
    random = np.random.default_rng(5)
    out = ["", " ", "\n", "a\n", "A", "\u200b", "\ufeffx", "\U0001f9be", "\x07", "a\r\nb"]
    while len(out) < 100:
        chosen = random.choice(words, random.integers(1, 5))
        text = "".join(word + str(random.choice(spaces)) for word in chosen)
        if text not in out and len(text.encode()) <= 38:
            out.append(text)
    return out


def write_vlm() -> None:
    """A folder as the hub has one for SmolVLM2: configuration, byte-level tokenizer, image processor."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, SmolVLMConfig

    text = {
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 5,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 340,
        "rope_theta": 100000.0, "rms_norm_eps": 1e-5, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
        "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "model_type": "smolvlm_vision", "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 64, "patch_size": 8, "num_channels": 3,
    }  # fmt: skip
    SmolVLMConfig(
        text_config=text, vision_config=vision, scale_factor=4, image_token_id=4, pad_token_id=2
    ).save_pretrained(VLM)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *SPECIAL.values(), "<end_of_utterance>"]
    bpe.train_from_iterator(
        ["pick up the red cube and put it into the left bin, stack the blocks, open the drawer"] * 3,
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<end_of_utterance>",
        unk_token="<|endoftext|>", pad_token="<|im_end|>", model_max_length=8192,
        extra_special_tokens=SPECIAL,
    )  # fmt: skip
    tokenizer.save_pretrained(VLM)
    size = {"longest_edge": 64}
    (VLM / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "SmolVLMImageProcessor", "size": size, "max_image_size": size}, indent=1
        )
    )
    (VLM / "processor_config.json").write_text(
        json.dumps({"processor_class": "SmolVLMProcessor", "image_seq_len": 4}, indent=1)
    )


@contextmanager
def right_positions() -> Iterator[None]:
    """Every patch at its own place, as transformers has it before 4.55 and after 4.57."""

    def forward(self: Any, pixel_values: torch.Tensor, patch_attention_mask: torch.Tensor) -> torch.Tensor:
        assert bool(patch_attention_mask.all())
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return patches + self.position_embedding(torch.arange(patches.shape[1]))

    original = modeling_smolvlm.SmolVLMVisionEmbeddings.forward
    modeling_smolvlm.SmolVLMVisionEmbeddings.forward = forward
    try:
        yield
    finally:
        modeling_smolvlm.SmolVLMVisionEmbeddings.forward = original


def case(
    name: str, seed: int, cameras: dict[str, tuple[int, int]], state: int, action: int,
    options: dict[str, Any], base: str | None = None,
) -> None:  # fmt: skip
    """`base`: the checkpoint of lerobot 0.4 that lerobot 0.3 is to write in its own format."""
    chosen = {**TINY, "vlm_model_name": str(VLM.relative_to(Path.cwd())), **options}
    config, statistics, observations = lerobot_inputs(
        SmolVLAConfig, cameras, state, action, chosen, seed, SAMPLES
    )
    observations["text"] = np.array(TEXTS)
    torch.manual_seed(seed)
    if base is None:
        from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors

        policy = SmolVLAPolicy(config).float().eval()
        randomise(policy, seed)
        liven(policy)
        before, after = make_smolvla_pre_post_processors(config, statistics)
        parts = [policy, before, after]
    else:
        policy = SmolVLAPolicy(config, dataset_stats=statistics).float().eval()
        load_newer(policy, HERE / base)
        parts = [policy]

        def before(batch: dict[str, Any]) -> dict[str, Any]:
            return {key: [value] if key == "task" else value[None] for key, value in batch.items()}

        def after(chunk: torch.Tensor) -> torch.Tensor:
            return chunk

    noise = np.random.default_rng(seed + 2).normal(
        size=(SAMPLES, 1, config.chunk_size, config.max_action_dim)
    )
    noise = noise.astype(np.float32)

    def chunk(used: Arrays, sample: int) -> np.ndarray:
        policy.reset()
        start = torch.from_numpy(noise[sample].copy())  # lerobot 0.3 works in place
        batch = {**batch_of(used, sample, feature_names(config)), "task": str(used["text"][sample])}
        with torch.no_grad():
            actions = policy.predict_action_chunk(before(batch), noise=start)
        return after(actions)[0].numpy()

    def run(exchanged: str | None = None) -> np.ndarray:
        used = exchange(observations, exchanged)
        return np.stack([chunk(used, sample) for sample in range(SAMPLES)])

    def save(folder: Path) -> None:
        for part in parts:
            part.save_pretrained(folder)

    golden = {**observations, "noise": noise, "actions": run()}
    check_influence(golden["actions"], {name: run(name) for name in observations})
    golden["sensitivity"] = sensitivity(policy, run, golden["actions"])
    with right_positions():
        golden["actions.right_positions"] = run()
        golden["sensitivity.right_positions"] = sensitivity(policy, run, golden["actions.right_positions"])
    apart = np.abs(golden["actions"] - golden["actions.right_positions"]).max()
    print(f"{name}: right positions move the actions by {apart:.2g}")
    save_case(HERE / name, save, golden)


def write_tokens() -> None:
    """What the original's steps before the policy make of a hundred odd instructions."""
    from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors

    chosen = {**TINY, "vlm_model_name": str(VLM.relative_to(Path.cwd())), "pad_language_to": "max_length"}
    config, statistics, observations = lerobot_inputs(
        SmolVLAConfig, {"top": (36, 48)}, 7, 7, chosen, seed=1, samples=1
    )
    before, _ = make_smolvla_pre_post_processors(config, statistics)
    batch = batch_of(observations, 0, feature_names(config))
    texts, ids, mask = odd_instructions(), [], []
    for text in texts:
        out = before({**batch, "task": text})
        ids.append(out["observation.language.tokens"][0].numpy())
        mask.append(out["observation.language.attention_mask"][0].numpy())
    assert all(not row[-1] for row in mask), "an instruction fills the whole length: it may have been cut"
    np.savez_compressed(HERE / "tokens.npz", text=np.array(texts), tokens=np.stack(ids), mask=np.stack(mask))
    print(f"tokens: up to {int(np.stack(mask).sum(1).max())} of {config.tokenizer_max_length}")


if __name__ == "__main__":
    two_cameras = 51, {"top": (36, 48), "wrist_cam": (53, 35)}, 9, 7, {}
    if LEROBOT.startswith("0.3"):
        case("two_cameras_v03", *two_cameras, base="two_cameras")
    else:
        write_vlm()
        write_tokens()
        case("two_cameras", *two_cameras)
        case("options", 61, {"front": (41, 67)}, 5, 5, OPTIONS)
