"""A camera with its own reading thread: the newest frame wins, and no frame is ever stamped again."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CameraError, CameraLost, CameraOpenError
from ..types import Frame
from .source import Picture, Source

DIGEST_BYTES = 262_144
"""A digest reads every n-th row so that it touches about this much of a large picture (0.1 ms)."""


class ThreadedCamera:
    """Reads `Source` in a thread of its own (see `drivers.types.Camera` for the contract).

    After `close` it may be started again, with a fresh source: that is how a camera which was plugged in
    again comes back, when a person asks for it.
    """

    def __init__(
        self, name: str, label: str, make_source: Callable[[], Source], open_timeout_s: float = 10.0
    ) -> None:
        self.name = name
        self.label = label
        self._make_source = make_source
        self._open_timeout_s = open_timeout_s
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._error: CameraError | None = None
        self._thread: threading.Thread | None = None
        self._halt = threading.Event()

    def start(self) -> None:
        """Opens the source and waits for the first frame. Raises `CameraOpenError`."""
        if self._thread is not None:
            raise CameraOpenError(f"camera {self.label} is started already; close it first")
        self._frame, self._error, self._halt = None, None, threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._halt,), name=f"camera {self.name}", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + self._open_timeout_s
        with self._changed:
            while self._frame is None and self._error is None:
                if not self._changed.wait(deadline - time.monotonic()):
                    break
            frame, error = self._frame, self._error
        if frame is not None:
            return
        self.close()
        if error is not None:
            raise CameraOpenError(str(error)) from error
        raise CameraOpenError(
            f"camera {self.label} opened but delivered no picture within {self._open_timeout_s:g} s; "
            "check that it streams (another viewer shows a picture) and that nothing else uses it"
        )

    def latest(self) -> Frame | None:
        """The newest frame; never blocks. Raises `CameraLost`."""
        with self._changed:
            return self._current()

    def wait_newer(self, sequence: int, timeout_s: float) -> Frame | None:
        """Blocks until a frame newer than `sequence` is there; None after the timeout.

        Raises `CameraLost`.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                frame = self._current()
                if frame is not None and frame.sequence > sequence:
                    return frame
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def close(self) -> None:
        """Ends the thread and frees the device; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._halt.set()
        thread.join(timeout=3.0)
        with self._changed:
            self._frame = None
            self._changed.notify_all()

    def _current(self) -> Frame | None:
        if self._error is not None:
            raise CameraLost(str(self._error)) from self._error
        if self._thread is None:
            raise CameraLost(f"camera {self.label} is closed")
        return self._frame

    def _run(self, halt: threading.Event) -> None:
        source = self._make_source()
        try:
            source.open()
            self._read(source, halt)
        except CameraError as error:
            self._fail(error, halt)
        except (OSError, cv2.error) as error:
            self._fail(CameraLost(f"camera {self.label}: {error}"), halt)
        finally:
            # A reader that ends in any other way is a bug; its camera must still not look alive.
            self._fail(CameraLost(f"camera {self.label}: its reader ended unexpectedly"), halt)
            source.close()

    def _read(self, source: Source, halt: threading.Event) -> None:
        sequence, shape = 0, None
        while not halt.is_set():
            picture = source.read(halt)
            if picture is None:
                continue
            if shape not in (None, picture.image.shape):
                raise CameraLost(
                    f"camera {self.label} changed its picture from {shape} to {picture.image.shape}; "
                    "a policy sees one size in a run: fix the camera's size and start again"
                )
            sequence, shape = sequence + 1 + picture.skipped, picture.image.shape
            self._publish(picture, sequence, halt)

    def _publish(self, picture: Picture, sequence: int, halt: threading.Event) -> None:
        frame = Frame(
            picture.image,
            picture.stamp_ns,
            picture.stamp_source,
            picture.arrival_ns,
            sequence,
            digest(picture.image),
        )
        with self._changed:
            if halt is self._halt:
                self._frame = frame
                self._changed.notify_all()

    def _fail(self, error: CameraError, halt: threading.Event) -> None:
        with self._changed:
            if halt is self._halt and not halt.is_set():
                self._error = self._error or error
                self._changed.notify_all()


def digest(image: NDArray[np.uint8]) -> int:
    """CRC-32 of the picture's content; of every n-th row where it is large."""
    step = max(1, image.nbytes // DIGEST_BYTES)
    return zlib.crc32(np.ascontiguousarray(image[::step]).data)
