"""From pictures, states and words to tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.runtime.bundle.schema import BpeTokenizer, History, ImageSpec, StateText, TaskContract
from holdfast.runtime.policy.bpe import BpeEncoder, state_text
from holdfast.runtime.policy.errors import InstructionError, ProgramError
from holdfast.runtime.policy.inputs import Inputs

from .tokenizer_file import BOS, tokenizer_json

JSON = tokenizer_json()
CAMERA = ImageSpec(
    name="front", height=4, width=4, channels="rgb", layout="hwc", dtype="uint8", resize="area",
    aspect="stretch", scale=1.0, mean=[], std=[],
)  # fmt: skip


def bpe(**changes: Any) -> BpeTokenizer:
    values: dict[str, Any] = {
        "kind": "bpe", "file": "tokenizer.json", "length": 48, "pad": 0, "pad_side": "right",
        "template": "{instruction}", "strip": False, "lower": False, "special_tokens": True,
    }  # fmt: skip
    return BpeTokenizer.model_validate(values | changes)


def task(tokenizer: Any = None) -> TaskContract:
    return TaskContract(default=None, examples=["pick it up"], tokenizer=tokenizer)


def reference(text: str, special: bool = True) -> list[int]:
    """The library itself, without any of our code."""
    from tokenizers import Tokenizer

    return Tokenizer.from_buffer(JSON).encode(text, add_special_tokens=special).ids


ODD = [
    "pick up the cube",
    "  two  spaces ",
    "a\tb",
    "ÄÖÜ ß",
    "日本語",
    "emoji 🤖",
    "{state}",
    "{instruction}",
    "x" * 30,
]


@pytest.mark.parametrize("text", ODD)
def test_ids_are_the_librarys(text: str) -> None:
    ids, mask = BpeEncoder(bpe(length=200), JSON).encode(text)
    expected = reference(text)
    assert ids.shape == mask.shape == (1, 200)
    assert ids[0, : len(expected)].tolist() == expected
    assert expected[0] == BOS
    assert mask[0].tolist() == [1] * len(expected) + [0] * (200 - len(expected))
    assert (ids[0, len(expected) :] == 0).all()


@pytest.mark.parametrize(
    ("changes", "text", "expected"),
    [
        ({"strip": True, "replace": [["_", " "], ["\n", " "]]}, " pick_up\nit ", "pick up it"),
        ({"lower": True, "template": "In: {instruction}?\nOut:"}, "Pick UP", "In: pick up?\nOut:"),
        ({"ending": "\n"}, "pick", "pick\n"),
        ({"ending": "\n"}, "pick\n", "pick\n"),
        ({"template": "a {instruction} b"}, "{state} {instruction}", "a {state} {instruction} b"),
    ],
)
def test_what_is_tokenised(changes: dict[str, Any], text: str, expected: str) -> None:
    encoder = BpeEncoder(bpe(**changes), JSON)
    assert encoder.text(text) == expected
    ids, mask = encoder.encode(text)
    assert ids[0, : mask.sum()].tolist() == reference(expected)


def test_prefix_suffix_and_padding_on_the_left() -> None:
    encoder = BpeEncoder(
        bpe(prefix=[7, 8], suffix=[9], special_tokens=False, pad=3, pad_side="left", length=30), JSON
    )
    ids, mask = encoder.encode("pick")
    expected = [7, 8, *reference("pick", special=False), 9]
    assert ids[0].tolist() == [3] * (30 - len(expected)) + expected
    assert mask[0].tolist() == [0] * (30 - len(expected)) + [1] * len(expected)


def test_an_instruction_is_never_cut_off() -> None:
    """Also not by what the file itself says about lengths."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_buffer(JSON)
    own.enable_truncation(4)
    own.enable_padding(length=64)
    encoder = BpeEncoder(bpe(length=8), own.to_str().encode())
    with pytest.raises(InstructionError, match=r"has \d+ tokens, the policy takes at most 8"):
        encoder.encode("pick up the red cube and put it into the green box over there")
    ids, mask = encoder.encode("pick")
    assert ids[0, : mask.sum()].tolist() == reference("pick")


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_instruction_is_refused(text: str) -> None:
    with pytest.raises(InstructionError, match="empty"):
        BpeEncoder(bpe(strip=True), JSON).encode(text)


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b'{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(ProgramError, match=r"tokenizer\.json is no tokenizer"):
        BpeEncoder(bpe(), data)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=6))
def test_the_state_as_text_is_openpis(values: list[float]) -> None:
    spec = StateText(bins=256, low=-1.0, high=1.0, length=8)
    filled = np.array([*values, *[0.0] * (8 - len(values))], np.float32)
    expected = np.digitize(filled, bins=np.linspace(-1, 1, 256 + 1)[:-1]) - 1
    assert state_text(np.array(values, np.float32), spec) == " ".join(map(str, expected))


STATE = {"bins": 256, "low": -1.0, "high": 1.0, "length": 3}
PI05 = "Task: {instruction}, State: {state};\nAction: "


def test_an_instruction_that_holds_the_state_follows_it() -> None:
    inputs = Inputs([], None, task(bpe(template=PI05, state_text=STATE, length=80)), JSON, 2)
    instruction = inputs.instruction("pick")
    assert instruction is not None
    for state in ([0.0, 0.5], [-0.25, 1.0]):
        row = np.array(state, np.float32)
        found = inputs.feed([{}], [row], instruction)
        text = f"Task: pick, State: {state_text(row, StateText.model_validate(STATE))};\nAction: "
        assert found["tokens"][0, : found["token_mask"].sum()].tolist() == reference(text)


def test_an_instruction_too_long_with_any_state_is_refused_when_it_is_given() -> None:
    inputs = Inputs([], None, task(bpe(template=PI05, state_text=STATE, length=12)), JSON, 2)
    with pytest.raises(InstructionError, match="at most 12"):
        inputs.instruction("pick up the red cube")


def test_a_closed_vocabulary_has_a_mask_too() -> None:
    words = {"kind": "words", "words": {"touch": 1, "it": 2}, "length": 4, "pad": 0}
    contract = TaskContract.model_validate({"default": None, "examples": ["touch"], "tokenizer": words})
    inputs = Inputs([CAMERA], None, contract)
    feed = inputs.feed([{"front": np.zeros((4, 4, 3), np.uint8)}], None, inputs.instruction("touch it"))
    assert feed["tokens"].tolist() == [[1, 2, 0, 0]]
    assert feed["token_mask"].tolist() == [[1, 1, 0, 0]]
    assert set(feed) == {"image.front", "tokens", "token_mask"}


def test_a_tokenizer_without_its_file_is_refused() -> None:
    with pytest.raises(ProgramError, match="is missing"):
        Inputs([], None, task(bpe()))


def moments(count: int) -> tuple[list[dict[str, Any]], list[Any]]:
    pictures = [{"front": np.full((4, 4, 3), 10 * k, np.uint8)} for k in range(count)]
    return pictures, [np.array([k, -k], np.float32) for k in range(count)]


def test_a_history_is_stacked_oldest_first() -> None:
    inputs = Inputs([CAMERA], History(steps=3, dt_s=0.1), task())
    feed = inputs.feed(*moments(3), None)
    assert feed["image.front"].shape == (1, 3, 4, 4, 3)
    assert feed["image.front"][0, :, 0, 0, 0].tolist() == [0, 10, 20]
    assert feed["state"].tolist() == [[[0, 0], [1, -1], [2, -2]]]
    assert feed["state"].dtype == np.float32


@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_number_of_moments_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"has {count} moments, expected 3"):
        Inputs([CAMERA], History(steps=3, dt_s=0.1), task()).feed(*moments(count), None)


def test_a_camera_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError, match="front"):
        Inputs([CAMERA], None, task()).feed([{}], None, None)


def test_the_tokenizer_library_is_loaded_by_those_who_use_it() -> None:
    import subprocess
    import sys

    code = (
        "import sys, holdfast.runtime.policy.inputs, holdfast.runtime.resolve, holdfast.runtime.policy.loop; "
        "print('tokenizers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
