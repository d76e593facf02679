"""What the bus process tells the camera process: one datagram per frame."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faults import Faults

FREEZE, DROP, UNPLUG, BLACK, REPEAT = 1, 2, 4, 8, 16
MAX_BYTES = 65536
_HEAD = struct.Struct("<QQB7x")


@dataclass(frozen=True, slots=True)
class Shot:
    """A state of the world to be photographed."""

    stamp_ns: int
    """CLOCK_MONOTONIC time of the state."""
    sequence: int
    faults: int
    """Sum of `FREEZE`, `DROP`, `UNPLUG`, `BLACK`, `REPEAT`."""
    state: NDArray[np.float64]


def camera_faults(faults: Faults) -> int:
    """The camera's part of the faults, as bits."""
    return (
        FREEZE * faults.camera_freeze
        | DROP * faults.camera_drop
        | UNPLUG * faults.camera_unplug
        | BLACK * faults.camera_black
        | REPEAT * faults.camera_repeat
    )


def pack(shot: Shot) -> bytes:
    return _HEAD.pack(shot.stamp_ns, shot.sequence, shot.faults) + shot.state.tobytes()


def unpack(data: bytes) -> Shot:
    stamp_ns, sequence, faults = _HEAD.unpack_from(data)
    return Shot(stamp_ns, sequence, faults, np.frombuffer(data, np.float64, offset=_HEAD.size))
