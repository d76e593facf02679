"""Actions as tokens: OpenVLA's numbers, RT-2's text, and what may be decoded at each place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.runtime.bundle.schema import ActionTokens
from holdfast.runtime.policy.action_tokens import ActionTokenizer

OPENVLA = {"bins": 256, "low": -1.0, "high": 1.0, "encoding": {"kind": "reversed_ids", "last": 31999}}
DIGITS = {**OPENVLA, "encoding": {
    "kind": "text_integers",
    "integers": [[int(c) for c in str(number)] for number in range(256)],
    "separator": [10],
    "end": [11],
}}  # fmt: skip
"""RT-2's "1 128 91" of a tokenizer that knows digits: ids 0-9, 10 for a space, 11 for the end."""
WORDS = {**OPENVLA, "encoding": {
    "kind": "text_integers", "integers": [[1000 + number] for number in range(256)],
}}  # fmt: skip
"""A tokenizer with a token for every number."""
PAIRS = {**OPENVLA, "encoding": {
    "kind": "text_integers",
    "integers": [[500 + number // 16, 600 + number % 16] for number in range(256)],
    "separator": [7, 8],
    "end": [],
}}  # fmt: skip
ALL = {"openvla": OPENVLA, "digits": DIGITS, "words": WORDS, "pairs": PAIRS}


def tokenizer(values: dict[str, Any]) -> ActionTokenizer:
    return ActionTokenizer(ActionTokens.model_validate(values))


def test_openvlas_ids_and_centres() -> None:
    """d = clip(32000 - token - 1, 0, 254); centre[d] of 256 edges over [-1, 1]."""
    t = tokenizer(OPENVLA)
    edges = np.linspace(-1, 1, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    for token in (31999, 31998, 31872, 31745, 31744):
        expected = centres[np.clip(32000 - token - 1, 0, 254)]
        assert t.decode([token], 1)[0] == expected
    assert t.encode(np.array([-1.0, 1.0, 0.0, -5.0, 5.0])) == [31999, 31744, 31872, 31999, 31744]


def test_rt2s_text() -> None:
    t = tokenizer(DIGITS)
    bins = [1, 128, 91, 241, 5, 101, 127]
    ids = [int(c) if c != " " else 10 for c in "1 128 91 241 5 101 127"]
    values = t.decode(ids, 7)
    assert t.bins_of(values).tolist() == bins
    assert t.encode(values) == ids


@pytest.mark.parametrize("values", ALL.values(), ids=ALL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_encoded_is_decoded_to_the_centre_of_its_bin(
    values: dict[str, Any], data: st.DataObject
) -> None:
    t = tokenizer(values)
    actions = np.array(data.draw(st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=14)))
    ids = t.encode(actions)
    decoded = t.decode(ids, len(actions))
    width = 2 / 255
    assert np.abs(decoded - np.clip(actions, -1, 1)).max() <= width / 2 + 1e-12
    # Encoding is stable: a centre is in its own bin. The upper end has no bin of its own.
    assert t.decode(t.encode(decoded), len(actions)) == pytest.approx(decoded)


@pytest.mark.parametrize("values", ALL.values(), ids=ALL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_chosen_among_the_allowed_is_an_action(
    values: dict[str, Any], data: st.DataObject
) -> None:
    """A decoder that follows `allowed` always ends, within the longest answer, with as many values."""
    t = tokenizer(values)
    count = data.draw(st.integers(1, 7))
    answer, written = t.answer(count), 0
    known = t.contract.ids()
    while not answer.done:
        allowed = answer.allowed()
        assert allowed == sorted(set(allowed))
        assert set(allowed) <= known
        answer.accept(data.draw(st.sampled_from(allowed)))
        written += 1
        assert written <= count * 3 + (count - 1) * 2 + 1
    assert answer.allowed() == []
    assert (np.abs(answer.values()) <= 1).all()
    assert len(answer.values()) == count


def test_what_is_no_action_is_refused() -> None:
    t = tokenizer(DIGITS)
    for ids, count in (([10], 1), ([2, 5, 6], 1), ([1, 10, 10], 2), ([1, 11], 2), ([1, 11, 11], 1)):
        with pytest.raises(ValueError, match="cannot stand at this place"):
            t.decode(ids, count)
    with pytest.raises(ValueError, match="has 1 values, expected 2"):
        t.decode([1, 10], 2)
    with pytest.raises(ValueError, match="not a number"):
        t.encode(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="cannot stand"):
        tokenizer(OPENVLA).decode([31743], 1)


def test_the_last_number_ends_where_it_must() -> None:
    answer = tokenizer(DIGITS).answer(1)
    answer.accept(1)
    answer.accept(2)
    assert answer.allowed() == [*range(10), 11], "12 is a number, and so are 120 to 129"
    answer.accept(11)
    assert answer.done
    longest = tokenizer(DIGITS).answer(1)
    for digit in (2, 5, 5):
        longest.accept(digit)
    assert longest.done, "nothing can follow, so no end is waited for"
