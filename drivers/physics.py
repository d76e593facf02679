"""MuJoCo, imported when something needs it: the distances of an arm to itself, and the simulator."""

from __future__ import annotations

import importlib
import os
from typing import Any

from .errors import ConfigError

_BACKEND = "MUJOCO_GL"


def load_mujoco() -> Any:
    """The binding (it has no type stubs), for computing only: whoever renders chooses an OpenGL by himself.

    Its import looks for a window system unless the environment says otherwise, so for that moment it does.
    Raises `ConfigError` where MuJoCo is missing or broken.
    """
    chosen = os.environ.get(_BACKEND)
    os.environ[_BACKEND] = "disable"
    try:
        return importlib.import_module("mujoco")
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"MuJoCo cannot be imported ({error}), which computes the distances of the robot file's body; "
            "install it (pip install mujoco), or use a robot file without body and tool_speed_m_s"
        ) from error
    finally:
        if chosen is None:
            del os.environ[_BACKEND]
        else:
            os.environ[_BACKEND] = chosen
