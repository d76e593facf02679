"""Programs of kind `tokens`: greedy decoding with a static cache, among the ids that an action can have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...bundle.schema import NEXT, ActionContract, Tokens
from ..action_tokens import ActionTokenizer
from .base import Array32, Feed, Graphs, Prefix, require_finite


class TokensRunner:
    def __init__(self, program: Tokens, graphs: Graphs, action: ActionContract) -> None:
        self._program, self._graphs = program, graphs
        self._shape = (1, action.steps, len(action.elements))
        self._tokenizer = ActionTokenizer(program.vocabulary)

    def begin(self) -> None:
        """Nothing is kept between chunks."""

    def run(self, feed: Feed, noise: Array32 | None = None, prefix: Prefix | None = None) -> Array32:
        values = self._graphs.run_first(("vision", "prefill"), feed)
        position = self._program.image_positions + int(
            feed["token_mask"].sum() if "token_mask" in feed else 0
        )
        answer = self._tokenizer.answer(self._program.count)
        logits = values["logits"]
        while True:
            token = self._choose(logits, answer.allowed())
            answer.accept(token)
            if answer.done:
                return answer.values().astype(np.float32).reshape(self._shape)
            loop = {"token": np.array([[token]], np.int64), "position": np.array([position], np.int64)}
            outputs = self._graphs.run("decode_step", {**values, **loop})
            values |= {n.removeprefix(NEXT): a for n, a in outputs.items() if n.startswith(NEXT)}
            logits = outputs["logits"]
            position += 1

    def _choose(self, logits: NDArray[np.floating], allowed: list[int]) -> int:
        candidates = logits[0, np.asarray(allowed) - self._program.first_logit]
        require_finite(candidates, "the logits of action tokens")
        return allowed[int(candidates.argmax())]
