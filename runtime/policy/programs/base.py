"""What all programs share: running graphs by tensor name, and the noise that they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle.schema import ActionContract, Ports
from ..errors import NonFiniteAction

Feed = Mapping[str, NDArray[Any]]
Array32 = NDArray[np.float32]
Watch = Callable[[str, Feed, Feed], None]
"""Told of every run of a graph: its name, inputs and outputs."""


class Runnable(Protocol):
    """A graph that can be run: a session of a backend, or the module that it was exported from."""

    def run(self, inputs: Feed) -> Feed: ...


@dataclass(frozen=True, slots=True)
class Prefix:
    """What is left of the chunk under way, for programs that continue it."""

    values: Array32
    """[1, horizon, width], normalised; 0 where nothing is left."""
    weight: Array32
    """[1, horizon, 1]"""


class Runner(Protocol):
    """One kind of program: normalised observation in, normalised actions out."""

    def begin(self) -> None:
        """A task begins: the noise starts anew, so that runs can be repeated."""
        ...

    def run(self, feed: Feed, noise: Array32 | None = None, prefix: Prefix | None = None) -> Array32:
        """One chunk, [1, steps, elements]. `noise` [draws, horizon, width] replaces the program's own.

        Raises `NonFiniteAction`, and what the graphs raise.
        """
        ...


class Graphs:
    """The graphs of one program; each takes what it needs from the values known so far."""

    def __init__(
        self, ports: Mapping[str, Ports], sessions: Mapping[str, Runnable], watch: Watch | None = None
    ) -> None:
        self._sessions = dict(sessions)
        self._inputs = {name: [t.name for t in graph.inputs] for name, graph in ports.items()}
        self._watch = watch

    def __contains__(self, name: str) -> bool:
        return name in self._sessions

    def run(self, name: str, values: Feed) -> Feed:
        """The outputs of a graph by name."""
        inputs = {key: values[key] for key in self._inputs[name]}
        outputs = self._sessions[name].run(inputs)
        if self._watch is not None:
            self._watch(name, inputs, outputs)
        return outputs

    def run_first(self, names: tuple[str, ...], feed: Feed) -> dict[str, NDArray[Any]]:
        """Runs those of `names` that are there, in order; returns the feed with all they gave."""
        values = dict(feed)
        for name in names:
            if name in self:
                values |= self.run(name, values)
        return values


class Noise:
    """Standard normal numbers of one program: Philox, so that they are the same on every machine."""

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        self._seed, self._shape = seed, shape
        self.begin()

    def begin(self) -> None:
        self._generator = np.random.Generator(np.random.Philox(self._seed))

    def take(self, given: Array32 | None) -> Array32:
        """The noise of one inference, [draws, horizon, width]; `given` where it is pinned."""
        if given is None:
            return self._generator.standard_normal(self._shape, np.float32)
        if given.shape != self._shape or given.dtype != np.float32:
            raise ValueError(
                f"the noise is {given.dtype} {list(given.shape)}, expected float32 {list(self._shape)}"
            )
        return given


def require_finite(values: NDArray[Any], what: str) -> None:
    """Raises `NonFiniteAction`; a clip or an argmax further on would hide it."""
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise NonFiniteAction(f"{bad} of the {values.size} values of {what} are not finite")


def first_elements(x: Array32, action: ActionContract, first: int = 0) -> Array32:
    """The chunk within a state [1, horizon, width]."""
    return x[:, first : first + action.steps, : len(action.elements)]
