"""One inference: pictures, joint states and instruction in, absolute joint targets out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.types import Session
from ..bundle.golden import read_golden, thin
from ..bundle.reading import LoadedBundle
from ..bundle.schema import GUIDED, BpeTokenizer, Bundle, Flow
from .action_space import ActionSpace
from .errors import ProgramError
from .execution import Guidance
from .inputs import Inputs, Instruction, Pictures
from .programs.base import Array32, Feed, Prefix
from .programs.flow import golden_prefix, make_prefix
from .programs.registry import make_runner


@dataclass(frozen=True, slots=True)
class Observation:
    """One moment as the policy sees it."""

    images: Pictures
    position: Sequence[float]
    """Robot units, robot order."""


@dataclass(frozen=True, slots=True)
class Inference:
    """The targets of one chunk and when each stage ended (ns)."""

    targets: NDArray[np.float64]
    """[steps, joints], absolute, in robot units."""
    start_ns: int
    prepared_ns: int
    run_ns: int
    end_ns: int

    @property
    def session_run_ns(self) -> int:
        """Time inside the program's graphs and loops."""
        return self.run_ns - self.prepared_ns


class Program:
    """A bundle in sessions. Raises `ProgramError` where its tokenizer cannot be used."""

    def __init__(
        self,
        spec: Bundle,
        sessions: Mapping[str, Session],
        space: ActionSpace,
        tokenizer_json: bytes | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.spec = spec
        self.space = space
        self._clock = clock
        state_size = 0 if spec.state is None else len(spec.state.elements)
        self._inputs = Inputs(spec.cameras, spec.history, spec.task, tokenizer_json, state_size)
        self._first_runs: dict[str, Feed] | None = None
        self._runner = make_runner(spec.program, spec.graphs, sessions, spec.action, self._watch)
        self._guided = GUIDED in spec.graphs

    @property
    def moments(self) -> int:
        """Observations that one inference takes."""
        return self._inputs.steps

    def instruction(self, text: str) -> Instruction | None:
        """A checked instruction; None for a policy without language. Raises `InstructionError`."""
        return self._inputs.instruction(text)

    def begin(self) -> None:
        """A task begins: the noise of programs that draw any starts anew."""
        self._runner.begin()

    def infer(
        self,
        observations: Sequence[Observation],
        instruction: Instruction | None,
        guidance: Guidance | None = None,
        noise: Array32 | None = None,
    ) -> Inference:
        """One chunk of `moments` observations, oldest first. `guidance` is for programs that continue the
        chunk under way; the others predict each chunk by itself. `noise` pins what the program draws.

        Raises `NonFiniteAction`, `InstructionError`, `BackendError`.
        """
        start_ns = self._clock()
        position = observations[-1].position
        states = [self.space.observe(o.position) for o in observations] if self.space.has_state else None
        feed = self._inputs.feed([o.images for o in observations], states, instruction)
        prefix = self._prefix(guidance, position)
        prepared_ns = self._clock()
        output = self._runner.run(feed, noise, prefix)
        run_ns = self._clock()
        targets = self.space.targets(output, position)
        return Inference(targets, start_ns, prepared_ns, run_ns, self._clock())

    def self_test(self, bundle: LoadedBundle) -> float:
        """Replays the golden samples; returns the largest difference of any normalised action.

        Raises `ProgramError` when a difference is above the bundle's tolerance or not finite, naming the
        first graph that differs; `BundleError` when the samples do not fit the bundle.
        """
        worst = 0.0
        for sample in read_golden(bundle):
            self._first_runs = {}
            try:
                found = self._runner.run(sample.inputs, sample.noise)
                worst = max(worst, _largest(found, sample.actions))
                if sample.guided is not None and isinstance(self.spec.program, Flow):
                    prefix = golden_prefix(self.spec.program, sample.actions)
                    found = self._runner.run(sample.inputs, sample.noise, prefix)
                    worst = max(worst, _largest(found, sample.guided))
                for graph, limit in self.spec.numerics.components.items():
                    self._compare(graph, self._first_runs.get(graph, {}), sample.outputs[graph], limit)
            finally:
                self._first_runs = None
        if not worst <= self.spec.numerics.tolerance:
            raise ProgramError(
                f"self-test: here the policy's actions differ from the exported ones by {worst:.3g}, "
                f"at most {self.spec.numerics.tolerance:.3g} is allowed; export the bundle again, and check "
                "the version of the backend"
            )
        return worst

    def warm_up(self, runs: int) -> NDArray[np.int64]:
        """Whole inferences on a synthetic picture, continuing a chunk where the policy can, which takes
        longer; returns [runs, 2]: whole and session time (ns)."""
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        images = {camera.name: picture for camera in self.spec.cameras}
        instruction = self.instruction(self.spec.task.default or self.spec.task.examples[0])
        position = [joint.start for joint in self.space.joints]
        seen = [Observation(images, position)] * self.moments
        under_way = Guidance(1, np.tile(position, (self.spec.action.steps, 1)))
        rows = [self.infer(seen, instruction, under_way) for _ in range(runs)]
        return np.array([[row.end_ns - row.start_ns, row.session_run_ns] for row in rows])

    def _prefix(self, guidance: Guidance | None, position: Sequence[float]) -> Prefix | None:
        """The chunk under way in the policy's own numbers; None where there is none, or nobody to use it."""
        program = self.spec.program
        if not self._guided or guidance is None or not len(guidance.prefix):
            return None
        assert isinstance(program, Flow)
        left = guidance.prefix[: self.spec.action.steps]
        return make_prefix(program, self.space.normalised(left, position), guidance.delay)

    def _watch(self, graph: str, inputs: Feed, outputs: Feed) -> None:
        if self._first_runs is not None:
            self._first_runs.setdefault(graph, outputs)

    def _compare(self, graph: str, found: Feed, expected: Mapping[str, NDArray[Any]], limit: float) -> None:
        for name, wanted in expected.items():
            size = float(np.abs(wanted.astype(np.float64)).max(initial=0.0))
            difference = _largest(thin(found[name]), wanted) if name in found else np.inf
            if not difference <= limit * max(size, 1e-6):
                raise ProgramError(
                    f"self-test: here graph {graph} gives {name} with a difference of {difference:.3g} at a "
                    f"size of {size:.3g}; at most {limit:.3g} of that is allowed; export the bundle again, "
                    "and check the version of the backend"
                )


def read_tokenizer(bundle: LoadedBundle) -> bytes | None:
    """The `tokenizer.json` of a verified bundle, where it has one. Raises `BundleError`."""
    tokenizer = bundle.spec.task.tokenizer
    return bundle.read(tokenizer.file) if isinstance(tokenizer, BpeTokenizer) else None


def _largest(found: NDArray[Any], expected: NDArray[Any]) -> float:
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max(initial=0.0)) if np.isfinite(difference).all() else np.inf
