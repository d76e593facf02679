"""Policies as functions, for closed-loop evaluation: a checkpoint in torch, or a bundle in the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..drivers.calibration import load_calibration
from ..drivers.robots.schema import load_robot
from ..drivers.simulated.world import CALIBRATION
from ..drivers.units import JointUnits
from ..export.errors import SourceError
from ..runtime.backends.registry import load_sessions
from ..runtime.backends.types import BackendError, BackendOptions
from ..runtime.bundle.errors import BundleError
from ..runtime.bundle.reading import load_bundle
from ..runtime.bundle.schema import ClosedVocabulary
from ..runtime.policy.action_space import ActionSpace, ActionSpaceError
from ..runtime.policy.errors import ProgramError
from ..runtime.policy.preprocess import prepare_image
from ..runtime.policy.program import Observation, Program, read_tokenizer
from ..runtime.policy.words import encode_words

ROBOT = "sim_arm"


class PolicyError(Exception):
    """What was given is no policy that can be run here; the message says why."""


class Policy(Protocol):
    """Picture, joints and instruction in, one chunk out."""

    steps: int
    dt_s: float

    def chunk(self, picture: NDArray[np.uint8], position: Sequence[float], text: str) -> NDArray[np.float64]:
        """`picture` [h, w, 3] RGB; `position` [6] in robot units. Returns [steps, 6] absolute targets."""
        ...


class TorchPolicy:
    """The demo policy's checkpoint, run by torch on one thread."""

    def __init__(self, path: Path) -> None:
        import torch

        from ..export.sources.demo import read_checkpoint

        torch.set_num_threads(1)
        checkpoint = read_checkpoint(path)
        header, self._model = checkpoint.header, checkpoint.network
        if header.robot_type != ROBOT:
            raise PolicyError(f"{path} is for the robot {header.robot_type}, the simulated arm is {ROBOT}")
        actions = header.action_contract
        self.steps, self.dt_s = actions.steps, actions.dt_s
        self._torch, self._camera = torch, header.camera
        self._words = ClosedVocabulary(
            kind="words", words=header.vocabulary, length=header.token_length, pad=0
        )
        self._relative = np.array(actions.relative, float)
        self._state = {k: np.array(v) for k, v in header.state_statistics.model_dump().items()}
        self._action = {k: np.array(v) for k, v in header.action_statistics.model_dump().items()}

    def chunk(self, picture: NDArray[np.uint8], position: Sequence[float], text: str) -> NDArray[np.float64]:
        torch = self._torch
        state = (np.array(position) - self._state["offset"]) / self._state["scale"]
        with torch.inference_mode():
            out = self._model(
                torch.from_numpy(prepare_image(picture, self._camera)),
                torch.from_numpy(state.astype(np.float32)[None]),
                torch.from_numpy(encode_words(text, self._words)),
            )[0]
        raw = out.numpy().astype(np.float64) * self._action["scale"] + self._action["offset"]
        return raw + self._relative * np.array(position)


class BundlePolicy:
    """A bundle, run by the runtime's own program and backend."""

    def __init__(self, path: Path, backend: str = "onnxruntime", threads: int = 1) -> None:
        bundle = load_bundle(path)
        spec = bundle.spec
        robot = load_robot(ROBOT)
        space = ActionSpace(spec, JointUnits(robot, load_calibration(CALIBRATION, robot)))
        sessions = load_sessions(backend, bundle, BackendOptions(threads))
        self.steps, self.dt_s = spec.action.steps, spec.action.dt_s
        self._camera = spec.cameras[0].name
        self._program = Program(spec, sessions, space, read_tokenizer(bundle))

    def chunk(self, picture: NDArray[np.uint8], position: Sequence[float], text: str) -> NDArray[np.float64]:
        instruction = self._program.instruction(text)
        seen = [Observation({self._camera: picture}, position)] * self._program.moments
        return self._program.infer(seen, instruction).targets


def load_policy(path: Path) -> Policy:
    """A folder is a bundle, a file a checkpoint. Raises `PolicyError`."""
    try:
        return BundlePolicy(path) if path.is_dir() else TorchPolicy(path)
    except (SourceError, BundleError, BackendError, ActionSpaceError, ProgramError) as error:
        raise PolicyError(str(error)) from error
