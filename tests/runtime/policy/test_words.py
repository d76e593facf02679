"""Instructions become tokens of a fixed width, or a reason."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.runtime.bundle.schema import ClosedVocabulary
from holdfast.runtime.policy.words import InstructionError, encode_words

WORDS = ClosedVocabulary(kind="words", words={"touch": 4, "the": 2, "red": 9, "cube": 1}, length=5, pad=0)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("touch the red cube", [4, 2, 9, 1, 0]),
        ("  Touch\tTHE\ncube ", [4, 2, 1, 0, 0]),
        ("red red red red red", [9, 9, 9, 9, 9]),
    ],
)
def test_words_become_ids_and_padding(text: str, ids: list[int]) -> None:
    tokens = encode_words(text, WORDS)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [ids]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("touch the zebra", "does not know the word 'zebra'; it knows: cube, red, the, touch"),
        ("kick the zebra", "does not know the words 'kick', 'zebra'"),
        ("touch the red cube.", "'cube.'"),
        ("the red red red red red", "has 6 words; the policy takes at most 5"),
    ],
)
def test_what_cannot_be_encoded_is_refused_and_never_cut(text: str, said: str) -> None:
    with pytest.raises(InstructionError) as caught:
        encode_words(text, WORDS)
    assert said in str(caught.value)
