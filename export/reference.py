"""The checkpoint itself, run as the bundle will be: torch components in the run path's own program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.bundle.schema import GUIDED, AnyProgram, Flow
from ..runtime.policy.programs.base import Array32, Runnable, Runner, Watch
from ..runtime.policy.programs.flow import golden_prefix
from ..runtime.policy.programs.registry import make_runner
from .sessions import Feed, TorchGraph
from .sources.types import Policy

KEPT_BYTES = 1 << 30
"""Of what goes into and comes out of the components; a cache alone may have hundreds of MB."""


@dataclass(frozen=True)
class Run:
    """One run of one component."""

    sample: int
    inputs: Feed
    outputs: Feed


@dataclass
class Answers:
    """What a set of graphs answers to all observations."""

    actions: NDArray[np.float32]
    """[N, steps, elements], normalised."""
    guided: NDArray[np.float32] | None
    """The same, continuing the first half of the reference's own chunk (`golden_prefix`)."""
    runs: dict[str, list[Run]] = field(default_factory=dict)
    """Graph -> its runs, as many as `KEPT_BYTES` have room for; those of the first observation always."""

    @property
    def everything(self) -> NDArray[np.float32]:
        """All chunks, guided ones after the others."""
        return self.actions if self.guided is None else np.concatenate([self.actions, self.guided])


class Keeper:
    """Keeps the runs of components while there is room. Arrays that are passed on count once."""

    def __init__(self, room: int = KEPT_BYTES) -> None:
        self.runs: dict[str, list[Run]] = {}
        self.sample = 0
        self._room = room
        self._known: dict[int, NDArray[Any]] = {}

    def __call__(self, graph: str, inputs: Feed, outputs: Feed) -> None:
        new = {id(a): a for a in (*inputs.values(), *outputs.values()) if id(a) not in self._known}
        size = sum(array.nbytes for array in new.values())
        if self.sample and size > self._room:
            return
        self._room -= size
        self._known |= new
        self.runs.setdefault(graph, []).append(Run(self.sample, dict(inputs), dict(outputs)))


def reference(policy: Policy, feeds: Sequence[Feed]) -> Answers:
    """What the checkpoint itself answers."""
    sessions = {name: TorchGraph(component) for name, component in policy.components.items()}
    keeper = Keeper()
    answers = answer(policy, sessions, feeds, None, keeper)
    answers.runs = keeper.runs
    return answers


def answer(
    policy: Policy,
    sessions: Mapping[str, Runnable],
    feeds: Sequence[Feed],
    chunks: NDArray[np.float32] | None,
    keeper: Keeper | None = None,
) -> Answers:
    """What some graphs answer, with the same noise every time. `chunks`: what guided runs continue; None:
    their own."""
    watch: Watch | None = keeper
    runner = make_runner(policy.program, policy.components, sessions, policy.action, watch)
    actions, guided = [], []
    for index, feed in enumerate(feeds):
        if keeper is not None:
            keeper.sample = index
        noise = sample_noise(policy, index)
        actions.append(runner.run(feed, noise))
        if GUIDED in policy.components:
            chunk = actions[-1] if chunks is None else chunks[index : index + 1]
            guided.append(run_guided(policy.program, runner, feed, noise, chunk))
    return Answers(np.concatenate(actions), np.concatenate(guided) if guided else None)


def run_guided(
    program: AnyProgram, runner: Runner, feed: Feed, noise: Array32 | None, chunk: Array32
) -> Array32:
    """A chunk that continues `chunk` [1, steps, elements]."""
    assert isinstance(program, Flow), "only flow programs have a guided graph"
    return runner.run(feed, noise, golden_prefix(program, chunk))


def sample_noise(policy: Policy, index: int) -> Array32 | None:
    """The noise of one observation, [draws, horizon, width]; None where the program draws none."""
    shape = policy.program.noise_shape(policy.action)
    if shape is None:
        return None
    return np.random.Generator(np.random.Philox(index)).standard_normal(shape, np.float32)
