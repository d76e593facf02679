"""One inference: pictures, joint state and instruction in, absolute joint targets out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.types import Session
from ..bundle.golden import read_golden
from ..bundle.reading import LoadedBundle
from ..bundle.schema import Bundle
from .action_space import ActionSpace
from .execution import Guidance
from .preprocess import prepare_image
from .words import encode_words


class ProgramError(Exception):
    """The bundle's program cannot be run, or its self-test fails; refused before torque."""


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
        """Time inside the backend alone."""
        return self.run_ns - self.prepared_ns


class Program:
    """A bundle of kind `single` in a session. Raises `ProgramError` where bundle and program disagree."""

    def __init__(
        self,
        spec: Bundle,
        session: Session,
        space: ActionSpace,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.spec = spec
        self.space = space
        self._session = session
        self._clock = clock
        self._program = spec.program
        graph = spec.graphs[spec.program.graph]
        self._shapes = {tensor.name: (tensor.dtype, tuple(tensor.shape)) for tensor in graph.inputs}
        self._outputs = {tensor.name: tuple(tensor.shape) for tensor in graph.outputs}
        named = [*spec.program.image_inputs.values(), spec.program.state_input, spec.program.token_input]
        wanted = sorted(name for name in named if name is not None)
        if wanted != sorted(self._shapes) or spec.program.action_output not in self._outputs:
            raise ProgramError(
                f"the program feeds {wanted} and reads {spec.program.action_output!r}; graph "
                f"{graph.file} takes {sorted(self._shapes)} and gives {sorted(self._outputs)}"
            )
        if spec.program.token_input is not None and spec.task.tokenizer is None:
            raise ProgramError(
                "the program takes tokens, but the bundle has no tokenizer that this version runs"
            )

    def tokens(self, text: str) -> NDArray[np.int64] | None:
        """Token ids of an instruction; None for a policy without language. Raises `InstructionError`."""
        if self._program.token_input is None or self.spec.task.tokenizer is None:
            return None
        return encode_words(text, self.spec.task.tokenizer)

    def infer(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        position: Sequence[float],
        tokens: NDArray[np.int64] | None,
        guidance: Guidance | None = None,
    ) -> Inference:
        """One chunk. `images`: camera name -> [h, w, 3] RGB; `position`: robot units. `guidance` is for
        programs that continue the chunk under way; one of kind `single` predicts each chunk by itself.

        Raises `NonFiniteAction`, `BackendError`.
        """
        start_ns = self._clock()
        inputs: dict[str, NDArray[Any]] = {}
        for camera in self.spec.cameras:
            inputs[self._program.image_inputs[camera.name]] = prepare_image(images[camera.name], camera)
        if self._program.state_input is not None:
            dtype = self._shapes[self._program.state_input][0]
            inputs[self._program.state_input] = self.space.observe(position).astype(dtype, copy=False)
        if self._program.token_input is not None and tokens is not None:
            dtype = self._shapes[self._program.token_input][0]
            inputs[self._program.token_input] = tokens.astype(dtype, copy=False)
        prepared_ns = self._clock()
        outputs = self._session.run(inputs)
        run_ns = self._clock()
        targets = self.space.targets(outputs[self._program.action_output], position)
        return Inference(targets, start_ns, prepared_ns, run_ns, self._clock())

    def self_test(self, bundle: LoadedBundle) -> float:
        """Replays the golden samples; returns the largest difference of any output.

        Raises `ProgramError` when a difference is above the bundle's tolerance or not finite, `BundleError`
        when the samples do not fit the graph.
        """
        golden = read_golden(bundle)
        worst = 0.0
        for index in range(golden.count):
            inputs, expected = golden.sample(index)
            outputs = self._session.run(inputs)
            for name, wanted in expected.items():
                difference = np.abs(outputs[name].astype(np.float64) - wanted)
                worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else np.inf)
        if not worst <= self.spec.numerics.tolerance:
            raise ProgramError(
                f"self-test: here the graph's output differs from the exported one by {worst:.3g}, "
                f"at most {self.spec.numerics.tolerance:.3g} is allowed; export the bundle again, and check "
                "the version of the backend"
            )
        return worst

    def warm_up(self, runs: int) -> NDArray[np.int64]:
        """Whole inferences on a synthetic picture; returns [runs, 2]: whole and session time (ns)."""
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        images = {camera.name: picture for camera in self.spec.cameras}
        text = self.spec.task.default or self.spec.task.examples[0]
        position = [joint.start for joint in self.space.joints]
        tokens = self.tokens(text)
        rows = [self.infer(images, position, tokens) for _ in range(runs)]
        return np.array([[row.end_ns - row.start_ns, row.session_run_ns] for row in rows])
