"""The tokenizer of open language: a checkpoint's `tokenizer.json`, run by the package `tokenizers`."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from ..bundle.schema import BpeTokenizer, StateText
from .errors import InstructionError, ProgramError


class BpeEncoder:
    """Raises `ProgramError` where the package is missing or the file is no tokenizer."""

    def __init__(self, spec: BpeTokenizer, tokenizer_json: bytes) -> None:
        self._spec = spec
        self._parts = re.split(r"(\{instruction\}|\{state\})", spec.template)
        try:
            # Here, not above: the supervisor and control have no use for it.
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ProgramError(
                f"the bundle needs the package tokenizers, which is missing: {error}"
            ) from error
        try:
            self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
        except Exception as error:
            raise ProgramError(f"{spec.file} is no tokenizer: {error}; export the bundle again") from error
        # The file's own settings would cut off what does not fit.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def text(self, instruction: str, state: NDArray[np.float32] | None = None) -> str:
        """What is tokenised. `state`: normalised, for a template that holds it. Raises `InstructionError`."""
        spec = self._spec
        clean = instruction.strip() if spec.strip else instruction
        for what, by in spec.replace:
            clean = clean.replace(what, by)
        clean = clean.lower() if spec.lower else clean
        if not clean.strip():
            raise InstructionError("the instruction is empty")
        fields = {"{instruction}": clean}
        if spec.state_text is not None:
            if state is None:
                raise ValueError("the tokenizer's template needs the state")
            fields["{state}"] = state_text(state, spec.state_text)
        text = "".join(fields.get(part, part) for part in self._parts)
        return text if text.endswith(spec.ending) else text + spec.ending

    def encode(
        self, instruction: str, state: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and mask, [1, length] each. Raises `InstructionError` for a text that is empty or too long."""
        spec = self._spec
        text = self.text(instruction, state)
        found = self._tokenizer.encode(text, add_special_tokens=spec.special_tokens).ids
        ids = [*spec.prefix, *found, *spec.suffix]
        if len(ids) > spec.length:
            raise InstructionError(
                f"the instruction has {len(ids)} tokens, the policy takes at most {spec.length}; "
                "use fewer words"
            )
        padding = spec.length - len(ids)
        pads, ones, zeros = [spec.pad] * padding, [1] * len(ids), [0] * padding
        right = spec.pad_side == "right"
        row, mask = (ids + pads, ones + zeros) if right else (pads + ids, zeros + ones)
        return np.array([row], np.int64), np.array([mask], np.int64)


def state_text(state: NDArray[np.float32], spec: StateText) -> str:
    """The bins of a normalised state, "12 34 128": openpi's `np.digitize` against all but the last edge."""
    filled = np.zeros(spec.length, np.float32)
    filled[: len(state)] = state
    edges = np.linspace(spec.low, spec.high, spec.bins + 1)[:-1]
    return " ".join(str(number) for number in np.digitize(filled, edges) - 1)
