"""How pi0 and pi0.5 read an instruction: PaliGemma's tokenizer, and what training libraries put around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...runtime.bundle.schema import BpeTokenizer, StateText, TaskContract
from ..errors import SourceError
from .types import ReadOptions

FILE = "tokenizer.json"
BUNDLED = "tokenizer.json"
BINS = 256
MAX_BYTES = 64 << 20
EXAMPLES = ["pick up the red cube", "put the block into the left bin", "open the drawer"]
STATE_TEMPLATE = "Task: {instruction}, State: {state};\nAction: "
REMEDY = (
    f"fetch {FILE} of google/paligemma-3b-pt-224 (huggingface.co; its licence must be accepted) and give it "
    "with --tokenizer"
)


def read_tokenizer(checkpoint: Path, options: ReadOptions) -> bytes:
    """The `tokenizer.json` that the user gives, else the checkpoint's own. Raises `SourceError`."""
    given = options.tokenizer
    places = [checkpoint / FILE, checkpoint / "tokenizer" / FILE] if given is None else [given, given / FILE]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise SourceError(f"{given or checkpoint} has no {FILE}, which instructions are read with; {REMEDY}")
    try:
        data = found.read_bytes()
        if len(data) > MAX_BYTES or "model" not in json.loads(data):
            raise ValueError("it holds no model")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise SourceError(f"{found} is no tokenizer ({reason}); {REMEDY}") from error
    return data


def check_vocabulary(tokenizer: bytes, embeddings: int) -> None:
    """Raises `SourceError` where an id has no embedding: it is another model's tokenizer."""
    said = json.loads(tokenizer)
    vocabulary = said["model"].get("vocab", {})
    ids = [
        *(vocabulary.values() if isinstance(vocabulary, dict) else ()),
        *(entry["id"] for entry in said.get("added_tokens", [])),
    ]
    if not ids or max(ids) >= embeddings or not {"<pad>", "<bos>"} <= set(vocabulary):
        raise SourceError(
            f"the tokenizer has ids up to {max(ids, default=-1)} and the checkpoint {embeddings} embeddings, "
            f"or it lacks <pad> or <bos>: it is not PaliGemma's; {REMEDY}"
        )


def task_of(tokenizer: bytes, length: int, state: int | None, openpi: bool) -> TaskContract:
    """`state`: values of the state in the instruction (pi0.5), None: it is not in there (pi0)."""
    vocabulary: dict[str, int] = json.loads(tokenizer)["model"]["vocab"]
    cleaned = {"strip": True, "replace": [["_", " "], ["\n", " "]]}
    around: dict[str, Any]
    if state is not None:
        text = StateText(bins=BINS, low=-1.0, high=1.0, length=state)
        around = {"template": STATE_TEMPLATE, "state_text": text, **cleaned}
    elif openpi:
        around = {"template": "{instruction}", "suffix": [vocabulary["\n"]], **cleaned}
    else:
        around = {"template": "{instruction}", "ending": "\n", "strip": False}
    return TaskContract(
        default=None,
        examples=EXAMPLES,
        tokenizer=BpeTokenizer(
            kind="bpe", file=BUNDLED, length=length, pad=vocabulary["<pad>"], pad_side="right", lower=False,
            special_tokens=True, **around,
        ),
    )  # fmt: skip
