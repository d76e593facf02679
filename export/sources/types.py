"""What a checkpoint family must deliver: one `Policy`, whatever the file looked like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.bundle.schema import (
    ActionContract,
    AnyProgram,
    Evidence,
    ExecutionHint,
    History,
    ImageSpec,
    Reference,
    StateContract,
    TaskContract,
    Tensor,
)


@dataclass(frozen=True)
class Moment:
    """What the policy process sees at one time."""

    images: Mapping[str, NDArray[np.uint8]]
    """Camera name -> [height, width, 3] RGB, before `prepare_image`."""
    state: NDArray[np.float64] | None = None
    """[elements], in the units of the state contract, not normalised; None for a policy without state."""


@dataclass(frozen=True)
class Observation:
    """One recorded input of the policy."""

    moments: tuple[Moment, ...]
    """As many as the history has steps, oldest first; one without a history."""
    text: str


@dataclass(frozen=True)
class Component:
    """One graph of the program as a torch module."""

    module: torch.nn.Module
    """In evaluation mode, float32; `forward(**inputs)` takes tensors by the names of `inputs` (which hold
    dots) and returns a tuple in the order of `outputs`."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Policy:
    """A checkpoint read completely: its networks and everything that a robot must know about it."""

    family: str
    robot_type: str
    components: Mapping[str, Component]
    """Graph of the program -> what computes it."""
    program: AnyProgram
    cameras: tuple[ImageSpec, ...]
    state: StateContract | None
    action: ActionContract
    task: TaskContract
    observations: tuple[Observation, ...]
    """Parity is judged on them; see `evidence` for where they come from."""
    evidence: Evidence
    notes: str
    """Where it comes from: training command, seed, data."""
    history: History | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What else goes into the bundle, by path: the tokenizer's `tokenizer.json`."""
    reference: Reference | None = None
    execution: ExecutionHint | None = None


@dataclass(frozen=True)
class ReadOptions:
    """What the user gives beside the checkpoint; what a family has no use for is refused (`OPTIONS`)."""

    observations: Path | None = None
    """Recorded observations (.npz) to judge parity by."""
    golden: Path | None = None
    """Inputs and actions dumped in the training environment."""
    dataset: Path | None = None
    """A LeRobot dataset folder: names, rate and robot type."""
    contract: Path | None = None
    """A YAML with robot type, names, units, order, rate and space."""
    tokenizer: Path | None = None
    """A `tokenizer.json`, or a folder that holds one."""
    numerics: str | None = None
    """The original implementation to follow, where they differ."""
    unnorm_key: str | None = None
    """Which of several statistics un-normalises (OpenVLA)."""
    robot_type: str | None = None
    trust_pickle: bool = False
    module: str | None = None
    """`package:Class` of an nn.Module that a state dict belongs to."""


class Source(Protocol):
    """One checkpoint family: a module of this folder with these."""

    @property
    def MEANING(self) -> str:
        """One line for `vla-export --families`: which checkpoints it reads."""
        ...

    @property
    def OPTIONS(self) -> frozenset[str]:
        """The fields of `ReadOptions` that it uses; others are refused when they are given."""
        ...

    def recognise(self, path: Path) -> str | None:
        """Why `path` is of this family ("config.json says type act"), or None; reads nothing but names,
        magic bytes and small headers, and never raises for a file that is damaged."""
        ...

    def read(self, path: Path, options: ReadOptions) -> Policy:
        """Reads it. Raises `SourceError` for whatever is missing, damaged or ambiguous."""
        ...
