"""The schema's contracts: pictures, states, actions and instructions, as policy and robot must agree on."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .tensors import Count, Label, Name, Positive, Strict, TokenId

MAX_CHUNK_VALUES = 8000
"""Most values in one chunk, so that it fits a message (runtime.messages.MAX_BYTES at 8 bytes a value)."""
MAX_HISTORY_S = 1.5
"""Oldest observation of a history; the joint states of the last two seconds are kept."""

Pixels = Annotated[int, Field(gt=0, le=8192)]
ActionSpace = Literal["joint_position", "joint_delta", "ee_pose", "ee_delta"]
Unit = Literal["rad", "deg", "m", "pm100_of_range", "0_100_of_range", "normalised_gripper"]
POSE = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
"""The elements of an end-effector action, in this order."""
POSE_UNITS = ("m", "m", "m", "rad", "rad", "rad", "normalised_gripper")


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
        """Of one picture as the graph's input, batch 1 included."""
        size = [self.height, self.width]
        return [1, *size, 3] if self.layout == "hwc" else [1, 3, *size]


class History(Strict):
    """The policy sees the last `steps` observations, `dt_s` apart, oldest first; without it, the newest."""

    steps: Annotated[int, Field(ge=2, le=64)]
    dt_s: Annotated[float, Field(gt=0, le=MAX_HISTORY_S)]

    @model_validator(mode="after")
    def _kept(self) -> History:
        if (self.steps - 1) * self.dt_s > MAX_HISTORY_S:
            raise ValueError(
                f"a history of {self.steps} steps {self.dt_s:g} s apart is over the {MAX_HISTORY_S} s kept"
            )
        return self


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
    """True: the value is added to the observation's own position. False: absolute."""


class PoseConvention(Strict):
    """What the numbers of an end-effector action mean."""

    frame: Literal["base", "tool"]
    """Axes of translations and rotations: the robot's base, or the tool as it is at the observation."""
    rotation: Literal["rpy", "rotation_vector"]
    """`rpy`: roll, pitch, yaw about the fixed axes x, y, z, in this order; `rotation_vector`: axis times
    angle, in the elements called roll, pitch and yaw."""


class ActionContract(Strict):
    space: ActionSpace
    elements: Annotated[list[ActionElement], Field(min_length=1, max_length=64)]
    steps: Count
    dt_s: Annotated[float, Field(gt=0, le=10)]
    normalisation: list[Normalisation]
    """One entry, or one per step of the chunk."""
    pose: PoseConvention | None = None
    """End-effector spaces only."""

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
        relative = [element.relative for element in self.elements]
        if self.space in ("joint_position", "ee_pose") and any(relative):
            raise ValueError(f"action.space {self.space} cannot have relative elements")
        if self.space in ("joint_delta", "ee_delta") and not any(relative):
            raise ValueError(f"action.space {self.space} needs at least one relative element")
        self._check_pose()
        return self

    def _check_pose(self) -> None:
        is_pose = self.space in ("ee_pose", "ee_delta")
        if is_pose != (self.pose is not None):
            raise ValueError(f"action.space {self.space} and action.pose do not belong together")
        if is_pose:
            found = [(element.name, element.unit) for element in self.elements]
            wanted = list(zip(POSE, POSE_UNITS, strict=True))
            if found != wanted:
                raise ValueError(f"the elements of {self.space} must be {wanted}, not {found}")


class ClosedVocabulary(Strict):
    """A word-level tokenizer: lower-cased, split on white space; unknown words are refused by vla-run."""

    kind: Literal["words"]
    words: Annotated[dict[str, Annotated[int, Field(ge=1, lt=1 << 31)]], Field(min_length=1)]
    length: Annotated[int, Field(gt=0, le=4096)]
    pad: TokenId


class StateText(Strict):
    """The normalised state as text: each value the number of the bin of low..high that it lies in.

    Bin edges are `linspace(low, high, bins + 1)[:-1]`; values below give -1, above the last bin (pi0.5:
    openpi's `PaligemmaTokenizer.tokenize`).
    """

    bins: Annotated[int, Field(ge=2, le=4096)]
    low: float
    high: float
    length: Annotated[int, Field(ge=1, le=256)]
    """Values; a shorter state is filled up with zeros before it is digitised."""

    @model_validator(mode="after")
    def _range(self) -> StateText:
        if not self.low < self.high:
            raise ValueError(f"a state text from {self.low} to {self.high} has no range")
        return self


class BpeTokenizer(Strict):
    """A tokenizer of the package `tokenizers`: its `tokenizer.json`, and what stands around the instruction.

    The text is `template` with the cleaned instruction in it, plus `ending` unless it ends so already; its
    ids are `prefix`, the tokenizer's, `suffix`, then padding to `length`. Nothing is ever cut off.
    """

    kind: Literal["bpe"]
    file: str
    length: Annotated[int, Field(gt=0, le=4096)]
    pad: TokenId
    pad_side: Literal["right", "left"]
    template: Annotated[str, Field(max_length=4096)]
    """With `{instruction}` once, and `{state}` at most once."""
    strip: bool
    lower: bool
    replace: Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(max_length=8)] = (
        Field(default_factory=list)
    )
    """(what, by what) in the instruction, in this order, after stripping and before lower-casing."""
    ending: Annotated[str, Field(max_length=16)] = ""
    special_tokens: bool
    """Whether the tokenizer adds its own (as `add_special_tokens` of its encode)."""
    prefix: Annotated[list[TokenId], Field(max_length=64)] = Field(default_factory=list)
    suffix: Annotated[list[TokenId], Field(max_length=64)] = Field(default_factory=list)
    state_text: StateText | None = None

    @model_validator(mode="after")
    def _template(self) -> BpeTokenizer:
        fields = re.findall(r"\{(\w*)\}", self.template)
        wanted = ["instruction"] if self.state_text is None else ["instruction", "state"]
        if sorted(fields) != wanted:
            raise ValueError(f"the tokenizer's template must hold {wanted} once each, it holds {fields}")
        if any(not pair[0] for pair in self.replace):
            raise ValueError("the tokenizer replaces an empty text")
        return self


Tokenizer = Annotated[ClosedVocabulary | BpeTokenizer, Field(discriminator="kind")]


class TaskContract(Strict):
    default: str | None
    examples: Annotated[list[str], Field(min_length=1)]
    tokenizer: Tokenizer | None

    @property
    def uses_state(self) -> bool:
        """Whether the instruction's tokens depend on the joint state."""
        return isinstance(self.tokenizer, BpeTokenizer) and self.tokenizer.state_text is not None
