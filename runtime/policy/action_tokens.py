"""Actions as tokens: 256 bins of a range, one id each or written as text integers. Pure.

OpenVLA's convention: 256 edges over [-1, 1] have 255 centres; a value is digitised against the edges, and the
last bin, which only the upper end of the range reaches, means the last centre. RT-2 writes the same bins as
numbers ("1 128 91 241 5 101 127").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..bundle.schema import ActionTokens, ReversedIds


class ActionTokenizer:
    """Values <-> bins <-> ids, by one contract."""

    def __init__(self, contract: ActionTokens) -> None:
        self.contract = contract
        self._edges = np.linspace(contract.low, contract.high, contract.bins)
        self._centres = (self._edges[:-1] + self._edges[1:]) / 2
        encoding = contract.encoding
        if isinstance(encoding, ReversedIds):
            self._written = [(encoding.last - number,) for number in range(contract.bins)]
            self._separator, self._end = (), ()
        else:
            self._written = [tuple(ids) for ids in encoding.integers]
            self._separator, self._end = tuple(encoding.separator), tuple(encoding.end)
        self._bins = {ids: number for number, ids in enumerate(self._written)}
        self._next: dict[tuple[int, ...], set[int]] = {}
        for ids in self._written:
            for size, token in enumerate(ids):
                self._next.setdefault(ids[:size], set()).add(token)

    def bins_of(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """The bin of each value; values outside the range count as its end. Raises `ValueError` for NaN."""
        if np.isnan(values).any():
            raise ValueError("an action that is not a number has no bin")
        inside = np.clip(values, self.contract.low, self.contract.high)
        return (np.digitize(inside, self._edges) - 1).astype(np.int64)

    def centres_of(self, bins: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each bin means."""
        return self._centres[np.clip(bins, 0, len(self._centres) - 1)]

    def encode(self, values: NDArray[np.floating]) -> list[int]:
        """The ids of a flat array of values, without the end. Raises `ValueError` for NaN."""
        out: list[int] = []
        for number in self.bins_of(values):
            out += self._separator if out else ()
            out += self._written[number]
        return out

    def decode(self, ids: Sequence[int], count: int) -> NDArray[np.float64]:
        """The `count` values that some ids mean, [count]. Raises `ValueError` for ids that are no answer."""
        answer = self.answer(count)
        for token in ids:
            if answer.done or token not in answer.allowed():
                raise ValueError(f"the id {token} cannot stand at this place of an action")
            answer.accept(token)
        return answer.values()

    def answer(self, count: int) -> Answer:
        """An answer of `count` values that is still to be written."""
        return Answer(self, count)


class Answer:
    """Ids on their way to an action: which may come next, and what they mean in the end."""

    def __init__(self, tokenizer: ActionTokenizer, count: int) -> None:
        self._tokenizer, self._count = tokenizer, count
        self._bins: list[int] = []
        self._path: tuple[int, ...] = ()
        """Ids of the number that is being written."""
        self._forced: list[int] = []
        """The rest of a separator."""

    @property
    def done(self) -> bool:
        return len(self._bins) == self._count

    def allowed(self) -> list[int]:
        """The ids that may come next, ascending; empty when done."""
        if self.done:
            return []
        if self._forced:
            return self._forced[:1]
        going_on = self._tokenizer._next.get(self._path, set())
        return sorted(going_on | set(self._after()[:1]))

    def accept(self, token: int) -> None:
        """Writes the next id; it must be one of `allowed`."""
        t = self._tokenizer
        if self._forced:
            self._forced.pop(0)
            return
        if token in t._next.get(self._path, set()):
            self._path = (*self._path, token)
            last = len(self._bins) == self._count - 1
            # A number that cannot go on is complete, unless a separator has to come.
            if self._path not in t._next and (last or not t._separator):
                self._finish(())
            return
        self._finish(self._after()[1:])

    def values(self) -> NDArray[np.float64]:
        """What was written, [count]. Raises `ValueError` before it is complete."""
        complete = self._path in self._tokenizer._bins and len(self._bins) == self._count - 1
        bins = [*self._bins, self._tokenizer._bins[self._path]] if complete else self._bins
        if len(bins) != self._count:
            raise ValueError(f"the answer has {len(bins)} values, expected {self._count}")
        return self._tokenizer.centres_of(np.array(bins, np.int64))

    def _after(self) -> tuple[int, ...]:
        """What must be written to end the number at hand, where it is one."""
        if self._path not in self._tokenizer._bins:
            return ()
        last = len(self._bins) == self._count - 1
        return self._tokenizer._end if last else self._tokenizer._separator

    def _finish(self, forced: tuple[int, ...]) -> None:
        self._bins.append(self._tokenizer._bins[self._path])
        self._path = ()
        self._forced = [] if self.done else list(forced)
