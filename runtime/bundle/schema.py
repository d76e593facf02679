"""`bundle.json`: everything that a robot must know about a policy, as data.

The schema is strict: unknown keys, non-finite numbers and unknown versions are refused. Every file of the
bundle is listed with its size and sha256; nothing else is read. There is no code in a bundle.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = "holdfast.bundle"
VERSION = 1

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]
Count = Annotated[int, Field(gt=0)]
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
    name: str
    dtype: DType
    shape: list[Count]
    """Static shapes, batch 1 included."""


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
    height: Count
    width: Count
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


class Normalisation(Strict):
    """x' = (x - offset) / scale element by element; un-normalising is x = x' * scale + offset."""

    source: Literal["identity", "mean_std", "min_max", "quantiles"]
    offset: list[float]
    scale: list[Positive]


class Element(Strict):
    name: str
    unit: Unit


class StateContract(Strict):
    elements: list[Element]
    normalisation: Normalisation


class ActionElement(Strict):
    name: str
    unit: Unit
    relative: bool
    """True: the value is added to the observation's own joint position. False: absolute."""


class ActionContract(Strict):
    space: ActionSpace
    elements: list[ActionElement]
    steps: Count
    dt_s: Positive
    normalisation: list[Normalisation]
    """One entry, or one per step of the chunk."""

    @model_validator(mode="after")
    def _sizes(self) -> ActionContract:
        n = len(self.elements)
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
    words: dict[str, Annotated[int, Field(ge=1)]]
    length: Count
    pad: Annotated[int, Field(ge=0)]


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
    rows: list[ParityRow]
    """Per action element, in robot units, worst sample."""


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
        n = len(self.state.elements)
        if len(self.state.normalisation.offset) != n or len(self.state.normalisation.scale) != n:
            raise ValueError(f"state.normalisation does not have {n} elements")
        return self
