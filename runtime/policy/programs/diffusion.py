"""Programs of kind `diffusion`: noise is taken away step by step, by a scheduler."""

from __future__ import annotations

import numpy as np

from ...bundle.schema import ActionContract, Diffusion
from .base import Array32, Feed, Graphs, Noise, Prefix, first_elements, require_finite
from .schedulers import Denoiser


class DiffusionRunner:
    def __init__(self, program: Diffusion, graphs: Graphs, action: ActionContract) -> None:
        self._program, self._graphs, self._action = program, graphs, action
        self._denoiser = Denoiser(program.scheduler)
        self._noise = Noise(program.seed, (program.scheduler.draws, program.horizon, len(action.elements)))

    def begin(self) -> None:
        self._noise.begin()

    def run(self, feed: Feed, noise: Array32 | None = None, prefix: Prefix | None = None) -> Array32:
        values = self._graphs.run_first(("cond",), feed)
        noises = iter(self._noise.take(noise)[:, None])
        x = next(noises)
        for k, t in enumerate(self._denoiser.timesteps):
            step = np.array([t], np.int64)
            prediction = self._graphs.run("denoise_step", {**values, "x": x, "step": step})["prediction"]
            require_finite(prediction, "the prediction")
            x = self._denoiser.step(k, x, np.asarray(prediction, np.float32), noises)
        return first_elements(x, self._action, self._program.first)
