"""The simulated camera: renders a snapshot of the world, with sensor noise, and compresses it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .physics import mujoco
from .scene import build_model

JPEG_QUALITY = 90
NOISE_SIGMA = 2.5
"""Standard deviation of the sensor noise, in 8-bit levels."""
_BANK = 8


class RenderError(RuntimeError):
    """This machine cannot render pictures."""


class Eye:
    """Renders `World.snapshot()`s; holds its own model, so it may live in another process.

    The same seed, snapshot and frame index give the same picture. Raises `RenderError` where the machine has
    no OpenGL that works without a display.
    """

    def __init__(self, size: int = 192, seed: int = 0, camera: str = "front") -> None:
        self._model = build_model()
        self._data = mujoco.MjData(self._model)
        self._scene = mujoco.MjvScene(self._model, maxgeom=200)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = self._model.camera(camera).id
        self._size = size
        self._seed = seed
        rng = np.random.default_rng(seed)
        # Drawing fresh noise for every frame would cost more than the rendering; shifted fields suffice.
        self._noise = rng.normal(0.0, NOISE_SIGMA, (_BANK, size, size, 3)).round().astype(np.int16)
        self._gl: Any = _context(size)
        self._gl.make_current()
        self._render: Any = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._render)

    def render(self, snapshot: NDArray[np.float64], frame_index: int) -> NDArray[np.uint8]:
        """The picture [size, size, 3] RGB of a snapshot."""
        return self._noisy(self._clean(snapshot).astype(np.int16), frame_index)

    def darkness(self, frame_index: int) -> NDArray[np.uint8]:
        """The picture [size, size, 3] RGB with the lens covered: sensor noise on black, mean about 1."""
        return self._noisy(np.zeros((self._size, self._size, 3), np.int16), frame_index)

    def _noisy(self, clean: NDArray[np.int16], frame_index: int) -> NDArray[np.uint8]:
        draw = np.random.default_rng([self._seed, frame_index])
        field = self._noise[draw.integers(_BANK)]
        field = np.roll(field, tuple(draw.integers(self._size, size=2)), axis=(0, 1))
        return np.clip(clean + field, 0, 255).astype(np.uint8)

    def _clean(self, snapshot: NDArray[np.float64]) -> NDArray[np.uint8]:
        mujoco.mj_setState(self._model, self._data, snapshot, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_forward(self._model, self._data)
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, everything, self._scene
        )
        frame = mujoco.MjrRect(0, 0, self._size, self._size)
        pixels = np.empty((self._size, self._size, 3), np.uint8)
        mujoco.mjr_render(frame, self._scene, self._render)
        mujoco.mjr_readPixels(pixels, None, frame, self._render)
        return pixels[::-1]

    def jpeg(self, rgb: NDArray[np.uint8]) -> bytes:
        """The JPEG file of a picture, quality 90."""
        ok, data = cv2.imencode(
            ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        if not ok:
            raise ValueError(f"a picture of shape {rgb.shape} cannot be compressed")
        return data.tobytes()

    def close(self) -> None:
        """Frees the OpenGL context; may be called twice."""
        if self._gl is not None:
            self._gl.make_current()
            self._render.free()
            self._gl.free()
            self._gl = self._render = None

    def __del__(self) -> None:
        # MuJoCo's context frees its textures in whatever OpenGL context is current: it must be this one. At
        # the interpreter's end the display is gone already, and everything with it.
        if getattr(self, "_render", None) is not None and not sys.is_finalizing():
            self.close()


def _context(size: int) -> Any:
    """An OpenGL context without a display: EGL, else OSMesa.

    Not MuJoCo's own `Renderer`: that takes its back-end from an environment variable, read when MuJoCo is
    first imported by whomever, and by default needs an X server.
    """
    reasons = []
    for name in ("egl", "osmesa"):
        try:
            return importlib.import_module(f"mujoco.{name}").GLContext(size, size)
        # PyOpenGL: an AttributeError is a missing library.
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {error}")
    raise RenderError(
        "no OpenGL without a display, so the simulated camera has no picture; install libegl1, "
        f"libegl-mesa0 and libgl1-mesa-dri, or libosmesa6 ({'; '.join(reasons)})"
    )
