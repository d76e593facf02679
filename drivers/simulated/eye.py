"""The simulated camera: renders a snapshot of the world, with sensor noise, and compresses it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .physics import mujoco
from .scene import build_model

JPEG_QUALITY = 90
NOISE_SIGMA = 2.5
"""Standard deviation of the sensor noise, in 8-bit levels."""
_BANK = 8


class Eye:
    """Renders `World.snapshot()`s; holds its own model, so it may live in another process.

    The same seed, snapshot and frame index give the same picture.
    """

    def __init__(self, size: int = 192, seed: int = 0, camera: str = "front") -> None:
        self._model = build_model()
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, size, size)
        self._camera = camera
        self._seed = seed
        rng = np.random.default_rng(seed)
        # Drawing fresh noise for every frame would cost more than the rendering; shifted fields suffice.
        self._noise = rng.normal(0.0, NOISE_SIGMA, (_BANK, size, size, 3)).round().astype(np.int16)

    def render(self, snapshot: NDArray[np.float64], frame_index: int) -> NDArray[np.uint8]:
        """The picture [size, size, 3] RGB of a snapshot."""
        mujoco.mj_setState(self._model, self._data, snapshot, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera)
        clean = self._renderer.render()
        draw = np.random.default_rng([self._seed, frame_index])
        field = self._noise[draw.integers(_BANK)]
        field = np.roll(field, tuple(draw.integers(clean.shape[0], size=2)), axis=(0, 1))
        return np.clip(clean.astype(np.int16) + field, 0, 255).astype(np.uint8)

    def jpeg(self, rgb: NDArray[np.uint8]) -> bytes:
        """The JPEG file of a picture, quality 90."""
        ok, data = cv2.imencode(
            ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        if not ok:
            raise ValueError(f"a picture of shape {rgb.shape} cannot be compressed")
        return data.tobytes()

    def close(self) -> None:
        """Frees the OpenGL context."""
        self._renderer.close()
