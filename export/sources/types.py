"""What a checkpoint family must deliver: one `Policy`, whatever the file looked like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.bundle.schema import ActionContract, ImageSpec, Single, StateContract, TaskContract, Tensor


@dataclass(frozen=True)
class Observation:
    """One recorded moment, as the policy process would see it."""

    images: Mapping[str, NDArray[np.uint8]]
    """Camera name -> [height, width, 3] RGB, before `prepare_image`."""
    state: NDArray[np.float64]
    """[elements], in the units of the state contract, not normalised."""
    text: str


@dataclass(frozen=True)
class Policy:
    """A checkpoint read completely: the network and everything that a robot must know about it."""

    family: str
    robot_type: str
    module: torch.nn.Module
    """In evaluation mode, float32; `forward` takes the graph's inputs by their names."""
    inputs: tuple[Tensor, ...]
    output: Tensor
    """Normalised actions, float32 [1, steps, elements]."""
    program: Single
    cameras: tuple[ImageSpec, ...]
    state: StateContract
    action: ActionContract
    task: TaskContract
    observations: tuple[Observation, ...]
    notes: str
    """Where it comes from: training command, seed, data."""


class Source(Protocol):
    """One checkpoint family: a module of this folder with these two functions."""

    def recognise(self, path: Path) -> str | None:
        """Why `path` is of this family, or None; reads nothing but names and magic bytes."""
        ...

    def read(self, path: Path, observations: Path | None) -> Policy:
        """Reads it. `observations`: recorded observations, where the user names a file of them.

        Raises `SourceError`.
        """
        ...
