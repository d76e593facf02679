"""`bundle.json`: everything that a robot must know about a policy, as data.

The schema is strict: unknown keys, non-finite numbers and unknown versions are refused. Every file of the
bundle is listed with its size and sha256; nothing else is read. There is no code in a bundle. What the
parts mean stands in `tensors`, `contracts`, `programs` and `wiring`; this module is the door to all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .contracts import (
    MAX_CHUNK_VALUES,
    POSE,
    POSE_UNITS,
    ActionContract,
    ActionElement,
    ActionSpace,
    BpeTokenizer,
    ClosedVocabulary,
    Element,
    History,
    ImageSpec,
    Normalisation,
    PoseConvention,
    StateContract,
    StateText,
    TaskContract,
    Tokenizer,
    Unit,
)
from .programs import (
    GUIDED,
    NEXT,
    ActionTokens,
    Diffusion,
    Flow,
    Program,
    ReversedIds,
    Scheduler,
    Single,
    TextIntegers,
    Tokens,
)
from .tensors import MAX_ELEMENTS, Count, DType, File, Graph, Label, Name, Positive, Strict, Tensor
from .wiring import AnyProgram, Ports, check_wiring, observed

__all__ = [
    "FORMAT",
    "GUIDED",
    "MAX_CHUNK_VALUES",
    "MAX_ELEMENTS",
    "NEXT",
    "POSE",
    "POSE_UNITS",
    "VERSION",
    "ActionContract",
    "ActionElement",
    "ActionSpace",
    "ActionTokens",
    "AnyProgram",
    "BpeTokenizer",
    "Bundle",
    "ClosedVocabulary",
    "ComponentParity",
    "Count",
    "DType",
    "Diffusion",
    "Element",
    "Evidence",
    "ExecutionHint",
    "File",
    "Flow",
    "Graph",
    "History",
    "ImageSpec",
    "Label",
    "Name",
    "Normalisation",
    "Numerics",
    "ParityReport",
    "ParityRow",
    "Ports",
    "PoseConvention",
    "Positive",
    "PrecisionReport",
    "Program",
    "Provenance",
    "Reference",
    "ReversedIds",
    "Scheduler",
    "Single",
    "StateContract",
    "StateText",
    "Strict",
    "TaskContract",
    "Tensor",
    "TextIntegers",
    "Tokenizer",
    "Tokens",
    "Unit",
    "check_wiring",
    "observed",
]

FORMAT = "holdfast.bundle"
VERSION = 2


class PrecisionReport(Strict):
    requested: Literal["fp32", "fp16"]
    kept_fp32: dict[str, str]
    """graph/node -> why it stayed in fp32."""
    bytes_per_dtype: dict[str, int]
    nodes_per_dtype: dict[str, int]


class ParityRow(Strict):
    element: str
    unit: Unit
    max_abs: float
    mean_abs: float
    limit: Positive


class ComponentParity(Strict):
    """One graph against its torch component, both given the component's inputs; worst sample and output."""

    graph: str
    max_abs: float
    relative_l2: float


class ParityReport(Strict):
    samples: Count
    reference: str
    """What it was compared with, e.g. `torch 2.13.0 fp32`."""
    cosine: float
    relative_l2: float
    max_abs: float
    rows: Annotated[list[ParityRow], Field(min_length=1)]
    """Per action element, in robot units, worst sample."""
    components: list[ComponentParity] = Field(default_factory=list)

    @model_validator(mode="after")
    def _passed(self) -> ParityReport:
        if bad := [row.element for row in self.rows if row.max_abs > row.limit]:
            raise ValueError(f"the parity of {', '.join(bad)} is beyond its own limit: never to be run")
        return self


class Evidence(Strict):
    """How it is known that the checkpoint was read as its own training code reads it."""

    kind: Literal["recorded", "golden_file", "dataset", "synthetic"]
    """`recorded`: parity on recorded observations. `golden_file`: outputs dumped by the training environment.
    `dataset`: episodes replayed open-loop. `synthetic`: made-up samples, which show that the graphs equal our
    reading of the checkpoint, and no more."""
    text: Label
    samples: Count
    errors: dict[str, float] = Field(default_factory=dict)
    """Action element -> largest error found, in its unit; for `golden_file` and `dataset`."""


class ExecutionHint(Strict):
    """How the policy's chunks are best executed; `vla-run --strategy` overrides it."""

    strategy: Literal["sequential", "newest", "crossfade", "ensemble", "average", "fusion"]


class Reference(Strict):
    """Which of several original implementations was followed, where they compute different things."""

    name: Label
    differences: dict[str, float] = Field(default_factory=dict)
    """Other mode -> largest difference of a normalised action between it and this one."""


class Numerics(Strict):
    """Golden samples that the runtime replays at start: the same inputs and noise must give the same actions
    within `tolerance` (normalised), and each graph the same outputs within its share of their largest."""

    golden: str
    tolerance: Positive
    components: dict[str, Positive] = Field(default_factory=dict)
    """Graph -> largest difference of an output, as a share of the largest value of that output."""
    reference: Reference | None = None


class Provenance(Strict):
    checkpoint: str
    checkpoint_sha256: str
    exporter: str
    created: str
    versions: dict[str, str]
    notes: str


class Bundle(Strict):
    format: Literal["holdfast.bundle"]
    version: Literal[2]
    name: Name
    family: Name
    robot_type: str
    program: Program
    graphs: Annotated[dict[Name, Graph], Field(max_length=16)]
    cameras: Annotated[list[ImageSpec], Field(min_length=1)]
    history: History | None = None
    state: StateContract | None
    action: ActionContract
    task: TaskContract
    numerics: Numerics
    precision: PrecisionReport
    parity: ParityReport
    evidence: Evidence
    provenance: Provenance
    execution: ExecutionHint | None = None
    budgets_ms: dict[
        Literal["frame_age", "preprocess", "session_run", "postprocess", "camera_to_wire"],
        Annotated[float, Field(gt=0, le=60_000)],
    ] = Field(default_factory=dict)
    """Stage of the policy -> what it may take; `vla-run` counts what takes longer."""
    files: Annotated[list[File], Field(max_length=256)]

    @model_validator(mode="after")
    def _references(self) -> Bundle:
        listed = [file.path for file in self.files]
        if len(set(listed)) != len(listed):
            raise ValueError("a file is listed twice")
        for what, path in self._named_files():
            if path not in listed:
                raise ValueError(f"{what} names {path}, which is not in `files`")
        if len({camera.name for camera in self.cameras}) != len(self.cameras):
            raise ValueError("two cameras share a name")
        if not set(self.numerics.components) <= set(self.graphs):
            raise ValueError("numerics.components names a graph that is not there")
        self._check_task()
        check_wiring(
            self.program,
            self.graphs,
            observed(self.cameras, self.history, self.state, self.task),
            self.action,
            state_in_text=self.task.uses_state,
        )
        return self

    def _named_files(self) -> Iterator[tuple[str, str]]:
        for name, graph in self.graphs.items():
            for path in (graph.file, *graph.data):
                yield f"graph {name}", path
        yield "numerics.golden", self.numerics.golden
        if isinstance(self.task.tokenizer, BpeTokenizer):
            yield "task.tokenizer", self.task.tokenizer.file

    def _check_task(self) -> None:
        tokenizer = self.task.tokenizer
        if not isinstance(tokenizer, BpeTokenizer):
            return
        if tokenizer.state_text is not None:
            if self.state is None:
                raise ValueError("the tokenizer's template takes the state, but the bundle has none")
            if len(self.state.elements) > tokenizer.state_text.length:
                raise ValueError("the state has more elements than the tokenizer's state_text takes")
        if isinstance(self.program, Tokens) and tokenizer.pad_side != "right":
            raise ValueError("a program of kind tokens needs an instruction that is padded on the right")
