"""`bundle.json`: everything that a robot must know about a policy, as data.

The schema is strict: unknown keys, non-finite numbers and unknown versions are refused. Every file of the
bundle is listed with its size and sha256; nothing else is read. There is no code in a bundle.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = "holdfast.bundle"
VERSION = 1
MAX_ELEMENTS = 1 << 28
"""Most elements of one graph input or output: 1 GiB of float32."""
MAX_CHUNK_VALUES = 8000
"""Most values in one chunk, so that it fits a message (runtime.messages.MAX_BYTES at 8 bytes a value)."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]
Count = Annotated[int, Field(gt=0, le=1 << 20)]
Pixels = Annotated[int, Field(gt=0, le=8192)]
Label = Annotated[str, Field(min_length=1, max_length=512)]
Positive = Annotated[float, Field(gt=0)]
DType = Literal["uint8", "int32", "int64", "float16", "float32"]
ActionSpace = Literal["joint_position", "joint_delta", "ee_pose", "ee_delta"]
Unit = Literal["rad", "deg", "m", "pm100_of_range", "0_100_of_range", "normalised_gripper"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class File(Strict):
    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)?$")]
    """Relative, at most one folder deep, no `..`."""
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Tensor(Strict):
    name: Label
    dtype: DType
    shape: Annotated[list[Count], Field(max_length=8)]
    """Static shapes, batch 1 included."""

    @model_validator(mode="after")
    def _bounded(self) -> Tensor:
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise ValueError(f"tensor {self.name} has shape {self.shape}, over {MAX_ELEMENTS} elements")
        return self


class Graph(Strict):
    file: str
    precision: Literal["fp32", "fp16", "bf16", "int8", "int4"]
    inputs: list[Tensor]
    outputs: list[Tensor]


class Single(Strict):
    """One graph: cameras, instruction and state in; one chunk out."""

    kind: Literal["single"]
    graph: str
    image_inputs: dict[str, str]
    """Camera name -> graph input."""
    state_input: str | None
    token_input: str | None
    action_output: str


class ImageSpec(Strict):
    """What happens to a picture between decoding and the graph."""

    name: Name
    height: Pixels
    width: Pixels
    channels: Literal["rgb", "bgr"]
    layout: Literal["hwc", "chw"]
    dtype: Literal["uint8", "float32"]
    resize: Literal["area", "bilinear"]
    """`area`: mean over source pixels (cv2.INTER_AREA); `bilinear`: cv2.INTER_LINEAR, no antialiasing."""
    aspect: Literal["stretch", "centre_crop"]
    scale: Positive
    """float32 pictures only: value = pixel * scale, then (value - mean) / std per channel."""
    mean: list[float]
    std: list[Positive]

    @model_validator(mode="after")
    def _channels(self) -> ImageSpec:
        wanted = (0, 3) if self.dtype == "uint8" else (3,)
        if len(self.mean) not in wanted or len(self.std) != len(self.mean):
            raise ValueError(f"camera {self.name}: mean and std need 3 values each (one per channel)")
        return self

    @property
    def shape(self) -> list[int]:
        """Of the graph's input, batch 1 included."""
        size = [self.height, self.width]
        return [1, *size, 3] if self.layout == "hwc" else [1, 3, *size]


class Normalisation(Strict):
    """x' = (x - offset) / scale element by element; un-normalising is x = x' * scale + offset."""

    source: Literal["identity", "mean_std", "min_max", "quantiles"]
    offset: list[float]
    scale: list[Positive]


class Element(Strict):
    name: Label
    unit: Unit


class StateContract(Strict):
    elements: Annotated[list[Element], Field(min_length=1, max_length=64)]
    normalisation: Normalisation

    @model_validator(mode="after")
    def _sizes(self) -> StateContract:
        n = len(self.elements)
        if len(self.normalisation.offset) != n or len(self.normalisation.scale) != n:
            raise ValueError(f"state.normalisation does not have {n} elements")
        return self


class ActionElement(Strict):
    name: Label
    unit: Unit
    relative: bool
    """True: the value is added to the observation's own joint position. False: absolute."""


class ActionContract(Strict):
    space: ActionSpace
    elements: Annotated[list[ActionElement], Field(min_length=1, max_length=64)]
    steps: Count
    dt_s: Annotated[float, Field(gt=0, le=10)]
    normalisation: list[Normalisation]
    """One entry, or one per step of the chunk."""

    @model_validator(mode="after")
    def _sizes(self) -> ActionContract:
        n = len(self.elements)
        if self.steps * n > MAX_CHUNK_VALUES:
            raise ValueError(f"a chunk of {self.steps} x {n} values is over the {MAX_CHUNK_VALUES} allowed")
        if len({element.name for element in self.elements}) != n:
            raise ValueError("two action elements share a name")
        if len(self.normalisation) not in (1, self.steps):
            raise ValueError(
                f"action.normalisation has {len(self.normalisation)} entries, not 1 or {self.steps}"
            )
        if any(len(row.offset) != n or len(row.scale) != n for row in self.normalisation):
            raise ValueError(f"action.normalisation does not have {n} elements per step")
        if self.space == "joint_position" and any(element.relative for element in self.elements):
            raise ValueError("action.space joint_position cannot have relative elements")
        if self.space == "joint_delta" and not any(element.relative for element in self.elements):
            raise ValueError("action.space joint_delta needs at least one relative element")
        return self


class ClosedVocabulary(Strict):
    """A word-level tokenizer: lower-cased, split on white space; unknown words are refused by vla-run."""

    kind: Literal["words"]
    words: Annotated[dict[str, Annotated[int, Field(ge=1, lt=1 << 31)]], Field(min_length=1)]
    length: Annotated[int, Field(gt=0, le=4096)]
    pad: Annotated[int, Field(ge=0, lt=1 << 31)]


class TaskContract(Strict):
    default: str | None
    examples: Annotated[list[str], Field(min_length=1)]
    tokenizer: ClosedVocabulary | None


class PrecisionReport(Strict):
    requested: Literal["fp32", "fp16"]
    kept_fp32: dict[str, str]
    """Node -> why it stayed in fp32."""
    bytes_per_dtype: dict[str, int]
    nodes_per_dtype: dict[str, int]


class ParityRow(Strict):
    element: str
    unit: Unit
    max_abs: float
    mean_abs: float
    limit: Positive


class ParityReport(Strict):
    samples: Count
    reference: str
    """What it was compared with, e.g. `torch 2.13.0 fp32`."""
    cosine: float
    relative_l2: float
    max_abs: float
    rows: Annotated[list[ParityRow], Field(min_length=1)]
    """Per action element, in robot units, worst sample."""

    @model_validator(mode="after")
    def _passed(self) -> ParityReport:
        if bad := [row.element for row in self.rows if row.max_abs > row.limit]:
            raise ValueError(f"the parity of {', '.join(bad)} is beyond its own limit: never to be run")
        return self


class ExecutionHint(Strict):
    """How the policy's chunks are best executed; `vla-run --strategy` overrides it."""

    strategy: Literal["sequential", "newest", "crossfade", "ensemble", "average", "fusion"]


class Numerics(Strict):
    """A golden sample that the runtime replays at start: same inputs, same output within `tolerance`."""

    golden: str
    tolerance: Positive


class Provenance(Strict):
    checkpoint: str
    checkpoint_sha256: str
    exporter: str
    created: str
    versions: dict[str, str]
    notes: str


class Bundle(Strict):
    format: Literal["holdfast.bundle"]
    version: Literal[1]
    name: Name
    family: Name
    robot_type: str
    program: Single
    graphs: dict[str, Graph]
    cameras: Annotated[list[ImageSpec], Field(min_length=1)]
    state: StateContract
    action: ActionContract
    task: TaskContract
    numerics: Numerics
    precision: PrecisionReport
    parity: ParityReport
    provenance: Provenance
    execution: ExecutionHint | None = None
    budgets_ms: dict[
        Literal["frame_age", "preprocess", "session_run", "postprocess", "camera_to_wire"],
        Annotated[float, Field(gt=0, le=60_000)],
    ] = {}
    """Stage of the policy -> what it may take; `vla-run` counts what takes longer."""
    files: Annotated[list[File], Field(max_length=256)]

    @model_validator(mode="after")
    def _references(self) -> Bundle:
        listed = [file.path for file in self.files]
        if len(set(listed)) != len(listed):
            raise ValueError("a file is listed twice")
        for what, path in [*((f"graph {k}", g.file) for k, g in self.graphs.items()),
                           ("numerics.golden", self.numerics.golden)]:  # fmt: skip
            if path not in listed:
                raise ValueError(f"{what} names {path}, which is not in `files`")
        if self.program.graph not in self.graphs:
            raise ValueError(f"program.graph {self.program.graph!r} is not one of the graphs")
        if set(self.program.image_inputs) != {camera.name for camera in self.cameras}:
            raise ValueError("program.image_inputs and cameras do not name the same cameras")
        if len({camera.name for camera in self.cameras}) != len(self.cameras):
            raise ValueError("two cameras share a name")
        self._graph_fits()
        return self

    def _graph_fits(self) -> None:
        """The graph's inputs and outputs are those that program, cameras, state, task and action imply."""
        graph, program = self.graphs[self.program.graph], self.program
        wanted: dict[str, tuple[str, list[int]]] = {
            program.image_inputs[camera.name]: (camera.dtype, camera.shape) for camera in self.cameras
        }
        if program.state_input is not None:
            wanted[program.state_input] = ("float32", [1, len(self.state.elements)])
        if (program.token_input is None) != (self.task.tokenizer is None):
            raise ValueError("program.token_input and task.tokenizer must both be there, or neither")
        if program.token_input is not None and self.task.tokenizer is not None:
            wanted[program.token_input] = ("int64", [1, self.task.tokenizer.length])
        got = {tensor.name: (tensor.dtype, tensor.shape) for tensor in graph.inputs}
        if got != wanted or len(graph.inputs) != len(got):
            raise ValueError(f"graph inputs are {got}, but the program needs {wanted}")
        action = ("float32", [1, self.action.steps, len(self.action.elements)])
        outputs = {tensor.name: (tensor.dtype, tensor.shape) for tensor in graph.outputs}
        if outputs.get(program.action_output) != action:
            raise ValueError(f"graph outputs are {outputs}, but {program.action_output} must be {action}")
