"""From what is seen and said to the tensors that graphs take: the one path of run time and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.schema import BpeTokenizer, ClosedVocabulary, History, ImageSpec, TaskContract
from ..bundle.wiring import IMAGE, MASK, STATE, TOKENS
from .bpe import BpeEncoder
from .errors import ProgramError
from .preprocess import prepare_image
from .words import encode_words

Pictures = Mapping[str, NDArray[np.uint8]]
"""Camera name -> [height, width, 3] RGB."""
StateRow = NDArray[np.float32]
"""[elements], normalised."""
Encode = Callable[[StateRow | None], Mapping[str, NDArray[np.int64]]]


class Instruction:
    """An instruction that has been checked; its tokens may still depend on the state."""

    def __init__(self, encode: Encode, uses_state: bool) -> None:
        self._encode = encode
        self._fixed = None if uses_state else encode(None)

    def tokens(self, state: StateRow | None) -> Mapping[str, NDArray[np.int64]]:
        """`tokens` and `token_mask`. Raises `InstructionError` where the state makes it too long."""
        return self._encode(state) if self._fixed is None else self._fixed


class Inputs:
    """The observation of one policy. Raises `ProgramError` for a tokenizer that cannot be used."""

    def __init__(
        self,
        cameras: Sequence[ImageSpec],
        history: History | None,
        task: TaskContract,
        tokenizer_json: bytes | None = None,
        state_size: int = 0,
    ) -> None:
        self._cameras = tuple(cameras)
        self._task = task
        self.steps = 1 if history is None else history.steps
        """Moments of one observation."""
        self._stacked = history is not None
        self._state_size = state_size
        self._bpe = None
        if isinstance(task.tokenizer, BpeTokenizer):
            if tokenizer_json is None:
                raise ProgramError(f"the file {task.tokenizer.file} of the tokenizer is missing")
            self._bpe = BpeEncoder(task.tokenizer, tokenizer_json)

    def instruction(self, text: str) -> Instruction | None:
        """A checked instruction; None for a policy without language. Raises `InstructionError`."""
        tokenizer = self._task.tokenizer
        if tokenizer is None:
            return None
        if isinstance(tokenizer, ClosedVocabulary):
            words = tokenizer
            return Instruction(lambda _: _masked(encode_words(text, words), words.pad), False)
        bpe = self._bpe
        assert bpe is not None, "made in __init__"
        checked = Instruction(
            lambda state: dict(zip((TOKENS, MASK), bpe.encode(text, state), strict=True)),
            self._task.uses_state,
        )
        # An arbitrary state shows whether it fits at all, before anything moves.
        checked.tokens(np.zeros(self._state_size, np.float32))
        return checked

    def feed(
        self,
        pictures: Sequence[Pictures],
        states: Sequence[StateRow] | None,
        instruction: Instruction | None,
    ) -> dict[str, NDArray[Any]]:
        """The tensors of one observation: `steps` moments, oldest first.

        Raises `ValueError` for what is no picture, `KeyError` for a camera that is not there.
        """
        feed: dict[str, NDArray[Any]] = {}
        for camera in self._cameras:
            rows = [prepare_image(moment[camera.name], camera) for moment in pictures]
            feed[IMAGE + camera.name] = self._stack(rows)
        if states is not None:
            feed[STATE] = self._stack([row[None] for row in states])
        if instruction is not None:
            feed |= instruction.tokens(None if states is None else states[-1])
        return feed

    def _stack(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Rows [1, ...] of each moment, as one tensor with a batch axis of 1."""
        if len(rows) != self.steps:
            raise ValueError(f"the observation has {len(rows)} moments, expected {self.steps}")
        return np.concatenate(rows)[None] if self._stacked else rows[0]


def _masked(ids: NDArray[np.int64], pad: int) -> dict[str, NDArray[np.int64]]:
    return {TOKENS: ids, MASK: (ids != pad).astype(np.int64)}
