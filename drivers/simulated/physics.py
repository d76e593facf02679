"""MuJoCo without type stubs: every module of this package takes the binding from here, as Any."""

from __future__ import annotations

import importlib
from typing import Any

mujoco: Any = importlib.import_module("mujoco")
