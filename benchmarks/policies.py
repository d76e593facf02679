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
from ..runtime.backends.registry import load_session
from ..runtime.backends.types import BackendOptions
from ..runtime.bundle.reading import load_bundle
from ..runtime.bundle.schema import ClosedVocabulary
from ..runtime.policy.action_space import ActionSpace
from ..runtime.policy.preprocess import prepare_image
from ..runtime.policy.program import Program
from ..runtime.policy.words import encode_words


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

        from ..export.models.demo.checkpoint import CAMERA, build_model, load_checkpoint

        torch.set_num_threads(1)
        checkpoint = load_checkpoint(path)
        contract = checkpoint["action_contract"]
        self.steps, self.dt_s = int(contract["steps"]), float(contract["dt_s"])
        self._torch, self._camera = torch, CAMERA
        self._model = build_model(checkpoint)
        self._words = ClosedVocabulary(
            kind="words", words=checkpoint["vocabulary"], length=checkpoint["token_length"], pad=0
        )
        self._relative = np.array(contract["relative"], float)
        self._state = {k: np.array(v) for k, v in checkpoint["state_statistics"].items()}
        self._action = {k: np.array(v) for k, v in checkpoint["action_statistics"].items()}

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
        robot = load_robot("sim_arm")
        space = ActionSpace(spec, JointUnits(robot, load_calibration(CALIBRATION, robot)))
        name = spec.program.graph
        graph = bundle.read(spec.graphs[name].file)
        session = load_session(backend, graph, spec.graphs[name], BackendOptions(threads))
        self.steps, self.dt_s = spec.action.steps, spec.action.dt_s
        self._camera = spec.cameras[0].name
        self._program = Program(spec, session, space)

    def chunk(self, picture: NDArray[np.uint8], position: Sequence[float], text: str) -> NDArray[np.float64]:
        tokens = self._program.tokens(text)
        return self._program.infer({self._camera: picture}, position, tokens).targets


def load_policy(path: Path) -> Policy:
    """A folder is a bundle, a file a checkpoint."""
    return BundlePolicy(path) if path.is_dir() else TorchPolicy(path)
