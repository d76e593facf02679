"""Programs of kind `flow`: Euler steps along the velocities that the policy predicts."""

from __future__ import annotations

import math

import numpy as np

from ...bundle.schema import GUIDED, ActionContract, Flow
from .base import Array32, Feed, Graphs, Noise, Prefix, first_elements, require_finite


class FlowRunner:
    """The state is float32 and belongs to the runner, whatever precision the graphs have inside."""

    def __init__(self, program: Flow, graphs: Graphs, action: ActionContract) -> None:
        self._program, self._graphs, self._action = program, graphs, action
        self._noise = Noise(program.seed, (1, program.horizon, program.width))
        self._times = times(program)
        self._dt = np.float32((program.time_to - program.time_from) / program.steps)

    def begin(self) -> None:
        self._noise.begin()

    def run(self, feed: Feed, noise: Array32 | None = None, prefix: Prefix | None = None) -> Array32:
        values = self._graphs.run_first(("vision", "prefill"), feed)
        step = "denoise_step"
        if prefix is not None and GUIDED in self._graphs:
            step = GUIDED
            values |= {"prefix": prefix.values, "prefix_weight": prefix.weight}
        x = self._noise.take(noise)
        for time in self._times:
            loop = {"x": x, "time": np.array([time], np.float32)}
            velocity = np.asarray(self._graphs.run(step, values | loop)["velocity"], np.float32)
            require_finite(velocity, "the velocity")
            x = (x + self._dt * velocity).astype(np.float32, copy=False)
        return first_elements(x, self._action)


def times(program: Flow) -> Array32:
    """The time of every step, as the original's loop has it: summed in float32, or computed for each."""
    span = program.time_to - program.time_from
    if not program.time_sums:
        exact = [program.time_from + k * (span / program.steps) for k in range(program.steps)]
        return np.array(exact, np.float32)
    dt = np.float32(span / program.steps)
    out = [np.float32(program.time_from)]
    for _ in range(program.steps - 1):
        out.append(np.float32(out[-1] + dt))
    return np.array(out, np.float32)


def prefix_weights(delay: int, left: int, horizon: int) -> Array32:
    """[1, horizon, 1]: how much each action must continue the chunk under way.

    1 for the first `delay`, which will have been carried out; then falling exponentially to 0 at `left`,
    where that chunk ends (arXiv 2506.07339, equation 5).
    """
    end = min(left, horizon)
    start = min(delay, end)
    index = np.arange(horizon)
    share = np.clip((start - 1 - index) / (end - start + 1) + 1, 0, 1)
    weight = np.where(index < end, share * np.expm1(share) / (math.e - 1), 0.0)
    return weight.astype(np.float32)[None, :, None]


def make_prefix(program: Flow, left: Array32, delay: int) -> Prefix:
    """From what is left of a chunk, [k, elements] normalised, k at most the horizon."""
    values = np.zeros((1, program.horizon, program.width), np.float32)
    values[0, : len(left), : left.shape[1]] = left
    return Prefix(values, prefix_weights(delay, len(left), program.horizon))


def golden_prefix(program: Flow, actions: Array32) -> Prefix:
    """What the golden samples of a guided graph continue: the second half of their own chunk
    [1, steps, elements], with an eighth of it under way."""
    half = actions[0, actions.shape[1] // 2 :]
    return make_prefix(program, half, max(1, actions.shape[1] // 8))
