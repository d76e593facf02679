"""A small byte-level BPE tokenizer as its `tokenizer.json`, made here with the library."""

from __future__ import annotations

from functools import cache

BOS = 1
TEXT = [
    "pick up the red cube and put it into the green box", "Task: State: Action: In: Out:",
    "what action should the robot take to touch the blue ball?", "0 1 2 12 34 128 255 -1",
]  # fmt: skip


@cache
def tokenizer_json() -> bytes:
    """Ids 0 (padding), 1 (begin, added as a special token), 2 (end), then bytes and merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    return tokenizer.to_str().encode()
