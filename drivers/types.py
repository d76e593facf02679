"""The values that flow from and to devices. All stamps are CLOCK_MONOTONIC nanoseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray


class StampSource(str, Enum):
    """Where a frame's stamp comes from; recorded, never invented."""

    KERNEL = "kernel"
    HEADER = "header"
    ARRIVAL = "arrival"


class Direction(IntEnum):
    """Of bytes on a motor bus, as its master sees them."""

    SENT = 0
    RECEIVED = 1
    """An answer, whole or in part."""
    DISCARDED = 2
    """Came unasked: late answers, noise."""


Tap: TypeAlias = Callable[[Direction, int, bytes], None]
"""Called with all bytes on a bus: direction, when (ns), bytes. Must neither block nor raise."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a camera."""

    image: NDArray[np.uint8]
    """[height, width, 3], RGB."""
    stamp_ns: int
    """When it was captured, as far as `stamp_source` can tell; never renewed."""
    stamp_source: StampSource
    arrival_ns: int
    """When its last byte had arrived in this process."""
    sequence: int
    """Counts the frames that arrived (gaps: frames that were skipped for newer ones)."""
    digest: int
    """A checksum of the picture's content, to notice a frozen camera."""


class Camera(Protocol):
    """A camera with its own reading thread. `latest` never blocks and never re-stamps a frame."""

    name: str

    def start(self) -> None:
        """Opens the device and waits for the first frame; raises `CameraOpenError`."""

    def latest(self) -> Frame | None:
        """The newest frame (None before the first); raises `CameraLost` when the source is gone."""

    def wait_newer(self, sequence: int, timeout_s: float) -> Frame | None:
        """Blocks until a frame newer than `sequence` is there; None after the timeout."""

    def close(self) -> None:
        """Ends the thread and frees the device; may be called twice."""


@dataclass(frozen=True, slots=True)
class JointState:
    """One complete, fresh sample of every joint, in robot joint order.

    It exists only when every motor answered in the same cycle: a partial or late answer is an error
    (`BusTimeout`), never an old value passed off as fresh.
    """

    stamp_ns: int
    """Stamp of the OLDEST reply in it."""
    position: tuple[float, ...]
    """rad; grippers in the unit that the robot file declares."""
    velocity: tuple[float, ...]
    """rad/s; grippers in that unit per second."""
    load: tuple[float, ...]
    voltage_v: tuple[float, ...]
    temperature_c: tuple[float, ...]
    current_a: tuple[float, ...]
    faults: tuple[int, ...]
