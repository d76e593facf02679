"""The tokenizer of closed vocabularies: lower-cased words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.schema import ClosedVocabulary
from .errors import InstructionError


def encode_words(text: str, vocabulary: ClosedVocabulary) -> NDArray[np.int64]:
    """Token ids [1, length], padded. Raises `InstructionError` naming unknown words or a text too long.

    A fixed width never truncates: an instruction that does not fit is an error, not half an instruction.
    """
    words = text.lower().split()
    if not words:
        raise InstructionError("the instruction is empty")
    unknown = [word for word in words if word not in vocabulary.words]
    if unknown:
        raise InstructionError(
            f"the policy does not know the word{'s' if len(unknown) > 1 else ''} "
            f"{', '.join(map(repr, unknown))}; it knows: {', '.join(sorted(vocabulary.words))}"
        )
    if len(words) > vocabulary.length:
        raise InstructionError(
            f"the instruction has {len(words)} words; the policy takes at most {vocabulary.length}"
        )
    ids = [vocabulary.words[word] for word in words]
    ids += [vocabulary.pad] * (vocabulary.length - len(ids))
    return np.array([ids], np.int64)
