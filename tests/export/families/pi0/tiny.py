"""Makes pi0 and pi0.5 of LeRobot and openpi so small that a checkpoint of them can be committed.

Only sizes differ. Runs in an oracle environment (docs/development/oracles.md).
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
TOKENIZER = HERE / "tokenizer"
VOCABULARY = 420
WIDTHS = {
    "gemma_2b": {"width": 24, "depth": 3, "mlp_dim": 40, "num_heads": 8, "num_kv_heads": 1, "head_dim": 6},
    "gemma_300m": {"width": 16, "depth": 3, "mlp_dim": 28, "num_heads": 8, "num_kv_heads": 1, "head_dim": 6},
}
VISION = {"intermediate_size": 36, "num_hidden_layers": 2}
"""16 heads, as all SigLIP So400m have them: no checkpoint says how many."""


def shrink(modeling: ModuleType, patch: int, width: int = 32) -> None:
    """`modeling`: where PaliGemma and Gemma are made; patches of `patch` pixels, SigLIP of `width`."""
    paligemma, gemma = modeling.PaliGemmaForConditionalGeneration, modeling.GemmaForCausalLM

    def make_paligemma(config: Any) -> torch.nn.Module:
        for part in (config, config.text_config):
            part.vocab_size = part._vocab_size = VOCABULARY
        for name, value in VISION.items():
            setattr(config.vision_config, name, value)
        config.vision_config.patch_size, config.vision_config.hidden_size = patch, width
        config.vision_config.projection_dim = config.text_config.hidden_size
        return paligemma(config=config)

    def make_gemma(config: Any) -> torch.nn.Module:
        config.vocab_size = VOCABULARY
        return gemma(config=config)

    modeling.PaliGemmaForConditionalGeneration, modeling.GemmaForCausalLM = make_paligemma, make_gemma


def gemma_config(variant: str) -> Any:
    return SimpleNamespace(**WIDTHS[variant])


def liven_parts(module: torch.nn.Module, seed: int) -> None:
    """Adaptive norms begin at zero, where time does not matter; Gemma's others at one, stored less one.
    Pictures get embeddings as large as words have, and what the expert looks at gets a say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("norm.dense.weight"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor.shape[1] ** -0.5)
            elif name.endswith("norm.weight") and "vision" not in name:
                tensor.copy_(0.6 * torch.rand(tensor.shape, generator=generator) - 0.3)
            elif "multi_modal_projector" in name or name.endswith(("k_proj.weight", "o_proj.weight")):
                tensor.mul_(3)


def write_tokenizer() -> None:
    """PaliGemma's kind of tokenizer (SentencePiece BPE with byte fallback), as .model and tokenizer.json."""
    import sentencepiece
    from transformers import GemmaTokenizerFast

    TOKENIZER.mkdir(exist_ok=True)
    text = [
        "pick up the red cube and put it into the left bin, stack the blocks, open the drawer",
        "Task: pick up the red cube, State: 12 34 128 255 0 96;\nAction: ",
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 20), model_writer=model, model_type="bpe", vocab_size=350,
        hard_vocab_limit=False, character_coverage=1.0, byte_fallback=True, split_digits=True,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
        allow_whitespace_only_pieces=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        user_defined_symbols=["\n", "\n\n"], num_threads=1, minloglevel=2,
    )  # fmt: skip
    (TOKENIZER / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = GemmaTokenizerFast(str(TOKENIZER / "tokenizer.model"))
    tokenizer.save_pretrained(TOKENIZER)
    (TOKENIZER / "special_tokens_map.json").unlink()
    assert len(tokenizer) <= VOCABULARY, len(tokenizer)


def serve_tokenizer() -> None:
    """Lets LeRobot find it under PaliGemma's name, which the checkpoint's processor then says."""
    from lerobot.processor import tokenizer_processor
    from transformers import AutoTokenizer

    class Local:
        @staticmethod
        def from_pretrained(name: str) -> Any:
            assert name == "google/paligemma-3b-pt-224"
            return AutoTokenizer.from_pretrained(TOKENIZER)

    tokenizer_processor.AutoTokenizer = Local


def encode(before: Any, batch: Mapping[str, Any], texts: list[str]) -> dict[str, np.ndarray]:
    """What LeRobot's steps before the policy make of instructions."""
    out = [before({**batch, "task": text}) for text in texts]
    keys = {"tokens": "observation.language.tokens", "token_mask": "observation.language.attention_mask"}
    found = {name: np.stack([row[key][0].numpy() for row in out]) for name, key in keys.items()}
    assert not found["token_mask"][:, -1].any(), "an instruction fills the whole length: it may have been cut"
    return found
