"""MuJoCo, imported so that pictures can be rendered without a display.

MuJoCo chooses its OpenGL back-end while it is imported and its own default needs an X server, so the choice
has to be made first: every module of this package takes `mujoco` from here. An explicit MUJOCO_GL wins. The
binding has no type stubs; hence Any.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
from typing import Any

if "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "osmesa")

mujoco: Any = importlib.import_module("mujoco")
