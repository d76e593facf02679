"""Writes OpenVLA's checkpoints and goldens with its own modelling code (docs/development/oracles.md).

`fused` is as the published models are; `letterbox` has the other kinds of everything: pictures padded to a
square, grouped queries, statistics in a file beside it, weights in several files. Both are stored in
bfloat16, and answer in float32.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..oracle import (
    Arrays,
    check_influence,
    exchange,
    liven,
    make_observations,
    randomise,
    save_case,
    sensitivity,
)

# isort: split
import timm
from PIL import Image
from prismatic_hf.configuration_prismatic import OpenVLAConfig
from prismatic_hf.modeling_prismatic import OpenVLAForActionPrediction
from prismatic_hf.processing_prismatic import PrismaticImageProcessor, PrismaticProcessor
from timm.models import vision_transformer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import LlamaTokenizerFast

HERE = Path(__file__).parent
SAMPLES, BINS, PADDING, SIZE = 4, 256, 64, 56
SPACE = "\u2581"
TEXTS = ["pick up the red cube", "Put the LEFT sock into bin #3!", "öffne die Schublade", "stack 2 blocks"]
TOWERS = ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]
MEANS = [[0.484375, 0.455078125, 0.40625], [0.5, 0.5, 0.5]]
STDS = [[0.228515625, 0.2236328125, 0.224609375], [0.5, 0.5, 0.5]]
STRONGER = {"embed_tokens": 4.0, "projector.fc3": 4.0, "q_proj": 3.0, "o_proj": 4.0, "down_proj": 2.0}
"""Factors of weights, so that picture, instruction and the token before change what comes next."""
EMPTY = 29871
"""What the original has for the token of a lone space."""


def narrow_towers(*sizes: tuple[int, int]) -> None:
    """Makes timm's own towers narrow (width, depth), so that a checkpoint of them can be committed."""
    for name, (width, depth) in zip(TOWERS, sizes, strict=True):
        entry = name.split(".")[0]
        original = getattr(vision_transformer, entry)

        def build(original: Any = original, width: int = width, depth: int = depth, **options: Any) -> Any:
            return original(**{**options, "embed_dim": width, "depth": depth})

        timm.models._registry._model_entrypoints[entry] = build


def write_tokenizer() -> LlamaTokenizerFast:
    """One built as Llama's: bytes, then merges, then single characters from the space on, rare ones last."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", SPACE)
    text = [
        f"{SPACE}in: what action should the robot take to pick up the red cube? out: put into left bin #3!"
    ]
    trained.train_from_iterator(text * 3, trainers.BpeTrainer(vocab_size=140, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge.split(" ")) for merge in model["merges"]]
    seen = sorted(set("".join(model["vocab"])) | {chr(code) for code in range(33, 127)} - {SPACE})
    common = [SPACE, *(c for c in seen if c != SPACE), "\n", "ö", "é", "ß"]
    rare = [chr(0x4E00 + i) for i in range(BINS)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [left + right for left, right in merges] + common + rare
    assert len(set(pieces)) == len(pieces)
    llama = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True,
            byte_fallback=True,
        )
    )  # fmt: skip
    llama.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    llama.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    llama.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    llama.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    return LlamaTokenizerFast(
        tokenizer_object=llama, legacy=False, pad_token="<PAD>", model_max_length=2048, padding_side="right"
    )


def statistics(random: np.random.Generator, mask: list[bool] | None) -> dict[str, Any]:
    low = random.uniform(-0.1, -0.02, 7)
    high = random.uniform(0.01, 0.12, 7)
    action = {"mean": (low + high) / 2, "std": (high - low) / 4, "min": low * 2, "max": high * 2}
    action |= {"q01": low, "q99": high}
    found: dict[str, Any] = {key: value.tolist() for key, value in action.items()}
    return {"action": {**found, **({} if mask is None else {"mask": mask})}, "num_transitions": 1000}


def with_empty_token(token: int) -> None:
    """The original's method holds the id of its own vocabulary."""
    code = OpenVLAForActionPrediction.predict_action.__code__
    assert EMPTY in code.co_consts
    constants = tuple(token if constant == EMPTY else constant for constant in code.co_consts)
    OpenVLAForActionPrediction.predict_action.__code__ = code.replace(co_consts=constants)


def case(
    name: str, seed: int, picture: tuple[int, int], towers: list[tuple[int, int]], strategy: str,
    text_config: dict[str, Any], tokenizer: LlamaTokenizerFast, unnorm_key: str, beside: bool, shard: str,
) -> None:  # fmt: skip
    """`beside`: the statistics that count lie in dataset_statistics.json."""
    narrow_towers(*towers)
    random = np.random.default_rng(seed)
    stats = {
        "test_orig": statistics(random, [True] * 6 + [False]),
        "other_arm": statistics(random, None),
    }
    vocabulary = len(tokenizer) - 1
    config = OpenVLAConfig(
        norm_stats={"base_orig": statistics(random, None)} if beside else stats,
        vision_backbone_id="dinosiglip-vit-so-224px", llm_backbone_id="llama2-7b-pure",
        arch_specifier="no-align+fused-gelu-mlp", image_resize_strategy=strategy,
        image_sizes=[SIZE, SIZE], pad_token_id=vocabulary, pad_to_multiple_of=PADDING,
        text_config={
            "vocab_size": vocabulary + PADDING, "max_position_embeddings": 2048,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": vocabulary, **text_config,
        },
    )  # fmt: skip
    torch.manual_seed(seed)
    model = OpenVLAForActionPrediction(config)
    if beside:
        model.norm_stats = stats
    randomise(model, seed)
    liven(model)
    actions_from = vocabulary - BINS
    with torch.no_grad():
        # As training does it: no other token wins.
        for rows in (slice(0, actions_from), slice(vocabulary, None)):
            model.language_model.lm_head.weight[rows] *= 0.05
        for weight, factor in STRONGER.items():
            for key, tensor in model.state_dict().items():
                if weight in key:
                    tensor *= factor
    stored = {key: value.to(torch.bfloat16) for key, value in model.state_dict().items()}
    model.load_state_dict(stored)
    model.eval()
    processor = PrismaticProcessor(
        PrismaticImageProcessor(
            use_fused_vision_backbone=True, image_resize_strategy=strategy,
            input_sizes=[[3, SIZE, SIZE]] * 2, interpolations=["bicubic"] * 2, means=MEANS, stds=STDS,
        ),
        tokenizer,
    )  # fmt: skip
    none = torch.zeros(1), torch.ones(1)
    observations = make_observations(SAMPLES, {"primary": picture}, none, seed + 1)
    del observations["state"]
    observations["text"] = np.array(TEXTS)
    logits: list[torch.Tensor] = []
    generated: list[torch.Tensor] = []
    model.language_model.lm_head.register_forward_hook(lambda _, given, out: logits.append(out[0, -1]))
    generate = model.generate

    def record(*given: Any, **options: Any) -> torch.Tensor:
        generated.append(generate(*given, **options))
        return generated[-1]

    model.generate = record

    def predict(used: Arrays, sample: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The actions, and all that was on the way to them."""
        logits.clear()
        prompt = f"In: What action should the robot take to {str(used['text'][sample]).lower()}?\nOut:"
        inputs = processor(prompt, Image.fromarray(used["image.primary"][sample]))
        with torch.inference_mode():
            actions = model.predict_action(**inputs, unnorm_key=unnorm_key, do_sample=False)
        ids = generated[-1][0].numpy()
        pixels = inputs["pixel_values"][0].numpy()
        return actions, {
            "pixels": pixels, "ids": ids[-7:], "best": torch.stack(logits).argmax(-1).numpy(),
            "logits": torch.stack(logits).numpy()[:, actions_from:vocabulary],
        }  # fmt: skip

    def run(exchanged: str | None = None) -> np.ndarray:
        used = exchange(observations, exchanged)
        return np.stack([predict(used, sample)[0] for sample in range(SAMPLES)])[:, None]

    def run_logits() -> np.ndarray:
        return np.stack([predict(observations, sample)[1]["logits"] for sample in range(SAMPLES)])

    def save(folder: Path) -> None:
        model.save_pretrained(folder, state_dict=stored, max_shard_size=shard)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, "torch_dtype": "bfloat16"}, indent=2))
        processor.save_pretrained(folder)
        for unread in ("generation_config.json", "special_tokens_map.json", "tokenizer_config.json"):
            (folder / unread).unlink()
        if beside:
            (folder / "dataset_statistics.json").write_text(json.dumps(stats))

    actions = run()
    check_influence(actions, {key: run(key) for key in observations})
    details = [predict(observations, sample)[1] for sample in range(SAMPLES)]
    ids = np.stack([row["ids"] for row in details])
    assert all(np.array_equal(row["ids"], row["best"]) for row in details)
    assert ((ids >= actions_from) & (ids < vocabulary)).all(), "another token than an action's won"
    moved = sensitivity(model, run_logits, run_logits()).max()
    found = np.stack([row["logits"] for row in details])
    best = np.sort(found, -1)
    margin = (best[..., -1] - best[..., -2]).min()
    print(f"{name}: {len(np.unique(ids))} tokens; the best logit leads by {margin:.2g}, moved {moved:.2g}")
    assert margin > 40 * moved, "rounding could decide which token wins"
    levels = (np.stack([row["pixels"][:3] for row in details]) * np.array(STDS[0])[:, None, None]
              + np.array(MEANS[0])[:, None, None]) * 255  # fmt: skip
    assert np.abs(levels - levels.round()).max() < 1e-3
    golden = {
        **observations, "actions": actions, "ids": ids, "logits": found,
        "resized": levels.round().astype(np.uint8)[:2].transpose(0, 2, 3, 1),
        "sensitivity.logits": moved,
        # Tokens do not move; what is left is float32's rounding of what they mean, which the run path does.
        "sensitivity": np.maximum(
            sensitivity(model, run, actions), 2.0**-24 * np.abs(actions).max((0, 1)).clip(1e-2)
        ),
    }  # fmt: skip
    save_case(HERE / name, save, golden)


def write_tokens(tokenizer: LlamaTokenizerFast, empty: int) -> None:
    """What the original makes of a hundred odd instructions."""
    texts = np.load(HERE.parent / "smolvla" / "tokens.npz")["text"]
    rows = []
    for text in texts:
        prompt = f"In: What action should the robot take to {str(text).lower()}?\nOut:"
        ids = tokenizer(prompt).input_ids
        rows.append(ids if ids[-1] == empty else [*ids, empty])
    longest = max(map(len, rows))
    tokens = np.array([row + [len(tokenizer) - 1] * (longest - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    np.savez_compressed(HERE / "tokens.npz", text=texts, tokens=tokens, mask=mask)
    print(f"tokens: up to {longest}")


if __name__ == "__main__":
    llama = write_tokenizer()
    space = llama.convert_tokens_to_ids(SPACE)
    with_empty_token(space)
    print(f"{len(llama)} tokens, the empty one is {space}")
    write_tokens(llama, space)
    llm = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    case("fused", 72, (83, 61), [(32, 3), (16, 3)], "resize-naive", llm, llama, "test_orig", False, "10MB")
    grouped = {
        "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "rope_theta": 500.0, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    narrow = [(16, 4), (16, 2)]
    case("letterbox", 81, (43, 58), narrow, "letterbox", grouped, llama, "other_arm", True, "100KB")
