"""What a camera is made of: a source of pictures, which the thread of `ThreadedCamera` reads."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import StampSource

POLL_S = 0.2
"""Longest that a source blocks in `read` where it can choose, so that closing is prompt."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture with its times (CLOCK_MONOTONIC ns)."""

    image: NDArray[np.uint8]
    """[height, width, 3], RGB."""
    stamp_ns: int
    stamp_source: StampSource
    arrival_ns: int
    skipped: int = 0
    """Pictures that arrived before it and were skipped because this one was newer."""


class Source(Protocol):
    """A device or stream. All three methods are called by one thread."""

    def open(self) -> None:
        """Raises `CameraOpenError`."""

    def read(self, halt: threading.Event) -> Picture | None:
        """The newest picture, or None when none came in a short while. Raises `CameraLost` when the source
        is gone. Returns early when `halt` is set."""

    def close(self) -> None:
        """Frees the device. Also called when `open` failed half-way."""


def rgb(image: NDArray) -> NDArray[np.uint8] | None:
    """OpenCV's decoded picture (BGR, or grey) as [h, w, 3] RGB; None for anything else."""
    if image.dtype != np.uint8:
        return None
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    if image.ndim == 3 and image.shape[2] == 3:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    return None


def arrival_stamp(arrival_ns: int, latency_ms: float) -> int:
    """The stamp of a picture that carries none: its arrival less the declared latency."""
    return arrival_ns - round(latency_ms * 1e6)
