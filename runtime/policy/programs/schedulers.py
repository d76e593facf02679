"""The noise schedulers of diffusion policies, in float32, operation by operation as diffusers computes them
(`DDPMScheduler`, `DDIMScheduler`): Ho et al., arXiv 2006.11239; Song et al., arXiv 2010.02502.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...bundle.schema import Scheduler

Array32 = NDArray[np.float32]
_ONE = np.float32(1)
_LEAST_VARIANCE = np.float32(1e-20)


def betas(spec: Scheduler) -> Array32:
    """[train_steps]"""
    n = spec.train_steps
    if spec.beta_schedule == "linear":
        return _linspace(spec.beta_start, spec.beta_end, n)
    if spec.beta_schedule == "scaled_linear":
        return _linspace(math.sqrt(spec.beta_start), math.sqrt(spec.beta_end), n) ** 2
    bar = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return np.array([min(1 - bar[i + 1] / bar[i], 0.999) for i in range(n)], np.float32)


def timesteps(spec: Scheduler) -> list[int]:
    """The steps of one inference, from the noisiest on (`timestep_spacing` leading)."""
    ratio = spec.train_steps // spec.inference_steps
    return [k * ratio + spec.steps_offset for k in reversed(range(spec.inference_steps))]


class Denoiser:
    """One scheduler. `spec.draws` noises belong to an inference: the start and, in order, those of steps."""

    def __init__(self, spec: Scheduler) -> None:
        self._spec = spec
        # torch sums up products in double and rounds each.
        self._products = np.cumprod((_ONE - betas(spec)).astype(np.float64)).astype(np.float32)
        self.timesteps = timesteps(spec)

    def step(self, k: int, x: Array32, prediction: Array32, noises: Iterator[Array32]) -> Array32:
        """x after step number `k`; takes a noise from `noises` where the step adds one."""
        t = self.timesteps[k]
        at = self._products[t]
        original, epsilon = self._original(x, prediction, at)
        if self._spec.kind == "ddpm":
            before = self._before(self.timesteps[k + 1] if k + 1 < len(self.timesteps) else -1, _ONE)
            return self._ddpm(t, x, original, at, before, noises)
        last = _ONE if self._spec.set_alpha_to_one else self._products[0]
        before = self._before(t - self._spec.train_steps // self._spec.inference_steps, last)
        return self._ddim(original, epsilon, at, before, noises)

    def _original(self, x: Array32, prediction: Array32, at: np.float32) -> tuple[Array32, Array32]:
        """(the clean sample, clipped; the noise) that the policy predicts."""
        noise_share = np.sqrt(_ONE - at)
        if self._spec.prediction == "epsilon":
            original, epsilon = (x - noise_share * prediction) / np.sqrt(at), prediction
        else:
            original, epsilon = prediction, (x - np.sqrt(at) * prediction) / noise_share
        if self._spec.clip_sample:
            limit = np.float32(self._spec.clip_range)
            original = np.clip(original, -limit, limit)
        return original, epsilon

    def _ddpm(
        self,
        t: int,
        x: Array32,
        original: Array32,
        at: np.float32,
        before: np.float32,
        noises: Iterator[Array32],
    ) -> Array32:
        alpha = at / before
        beta = _ONE - alpha
        original_share = np.sqrt(before) * beta / (_ONE - at)
        x_share = np.sqrt(alpha) * (_ONE - before) / (_ONE - at)
        mean = original_share * original + x_share * x
        if t == 0:
            return mean
        variance = max((_ONE - before) / (_ONE - at) * beta, _LEAST_VARIANCE)
        return mean + np.sqrt(variance) * next(noises)

    def _ddim(
        self,
        original: Array32,
        epsilon: Array32,
        at: np.float32,
        before: np.float32,
        noises: Iterator[Array32],
    ) -> Array32:
        variance = (_ONE - before) / (_ONE - at) * (_ONE - at / before)
        deviation = np.float32(self._spec.eta) * np.sqrt(variance)
        direction = np.sqrt(_ONE - before - deviation * deviation) * epsilon
        mean = np.sqrt(before) * original + direction
        return mean + deviation * next(noises) if self._spec.eta > 0 else mean

    def _before(self, t: int, last: np.float32) -> np.float32:
        return self._products[t] if t >= 0 else last


def _linspace(start: float, end: float, n: int) -> Array32:
    """`torch.linspace` in float32: counted from both ends, each value rounded once."""
    first, last = np.float32(start), np.float32(end)
    if n == 1:
        return np.array([first])
    step, index = np.float64((last - first) / np.float32(n - 1)), np.arange(n)
    both = np.where(index < n // 2, first + step * index, last - step * (n - 1 - index))
    return both.astype(np.float32)
