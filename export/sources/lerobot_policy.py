"""From a LeRobot folder and what the user says of the robot to the contracts of a `Policy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from ...runtime.bundle.schema import (
    ActionContract,
    Evidence,
    History,
    ImageSpec,
    Normalisation,
    StateContract,
    TaskContract,
    Tensor,
)
from ..errors import SourceError
from .contract import read_robot_contract
from .lerobot import ACTION, STATE, PolicyFolder
from .lerobot_statistics import Affine
from .observations import gather
from .types import Observation, ReadOptions

SOURCE_NAMES = {
    "IDENTITY": "identity", "MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "quantiles",
    "QUANTILE10": "quantiles",
}  # fmt: skip
FRAME_OPTIONS = frozenset({"contract", "dataset", "observations", "robot_type"})
"""What `read_frame` uses of `ReadOptions`."""
LEAST_SCALE = 1e-12
"""In the place of a spread of 0: an element that never moved in training stays at its mean."""


NO_LANGUAGE = TaskContract(
    default="do what it was trained for", examples=["do what it was trained for"], tokenizer=None
)
"""Of a policy that takes no instruction."""


@dataclass(frozen=True)
class Frame:
    """What surrounds the networks of a policy."""

    robot_type: str
    cameras: tuple[ImageSpec, ...]
    history: History | None
    state: StateContract | None
    action: ActionContract
    observations: tuple[Observation, ...]
    evidence: Evidence
    notes: str

    @property
    def observed(self) -> tuple[Tensor, ...]:
        """Pictures and state as inputs of a graph."""
        steps = [] if self.history is None else [self.history.steps]
        tensors = [
            Tensor(name=f"image.{c.name}", dtype="uint8", shape=[1, *steps, c.height, c.width, 3])
            for c in self.cameras
        ]
        if self.state is not None:
            tensors.append(Tensor(name="state", dtype="float32", shape=[1, *steps, len(self.state.elements)]))
        return tuple(tensors)


def read_frame(
    folder: PolicyFolder,
    options: ReadOptions,
    steps: int,
    history: int,
    texts: Sequence[str] = NO_LANGUAGE.examples,
) -> Frame:
    """`steps` of a chunk, `history` observations that the policy sees, `texts` that it can be told.

    Raises `SourceError`, and `ValidationError` (pydantic) where the files contradict each other.
    """
    state, action = folder.vector(STATE), folder.vector(ACTION)
    contract = read_robot_contract(options, action.shape[0], state.shape[0])
    into = folder.before.affine(state) if state.shape[0] else None
    cameras = tuple(picture(camera.name, camera.height, camera.width) for camera in folder.cameras)
    stated = contract.state_contract(None if into is None else _normalisation(into))
    past = None if history == 1 else History(steps=history, dt_s=contract.dt_s)
    observations, evidence = gather(options, cameras, past, stated, texts)
    return Frame(
        robot_type=contract.robot_type,
        cameras=cameras,
        history=past,
        state=stated,
        action=contract.action_contract(
            steps, _normalisation(folder.after.affine(action, inverse=True), output=True)
        ),
        observations=observations,
        evidence=evidence,
        notes=f"LeRobot policy folder {folder.path.name}; units, names and rate from {contract.origin}",
    )


def contradiction(path: Path, error: ValidationError) -> SourceError:
    """What is to be raised where checkpoint and contract do not fit together."""
    rows = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
    text = "; ".join(rows[:5]).replace("\n", " ")
    return SourceError(f"{path} and what was given with it do not fit together: {text}")


def _normalisation(affine: Affine, output: bool = False) -> Normalisation:
    scale = np.maximum(affine.scale, LEAST_SCALE) if output else affine.scale
    return Normalisation.model_validate(
        {"source": SOURCE_NAMES[affine.mode], "offset": affine.offset.tolist(), "scale": scale.tolist()}
    )


def picture(
    name: str, height: int, width: int, aspect: Literal["stretch", "centre_crop"] = "centre_crop"
) -> ImageSpec:
    """A picture of the size that the policy was trained on; what else happens to it is in the graph."""
    try:
        return ImageSpec(
            name=name, height=height, width=width, channels="rgb", layout="hwc", dtype="uint8", resize="area",
            aspect=aspect, scale=1.0, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0],
        )  # fmt: skip
    except ValueError as error:
        raise SourceError(
            f"the camera {name!r} cannot be called so: use letters, digits, - . and _"
        ) from error
