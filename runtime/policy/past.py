"""The pictures of the last moments, for policies that see more than one.

An inference takes longer than a camera's period, so they are collected by threads of their own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ...drivers.errors import CameraLost
from ...drivers.types import Camera, Frame

SLACK_NS = 200_000_000
"""Kept beyond the oldest moment: pictures come when they come."""
_WAIT_S = 0.1
_NAP_S = 0.01


class Past:
    """The last `steps` moments, `dt_ns` apart, of all cameras; with `steps` 1 it does nothing."""

    def __init__(
        self,
        cameras: Mapping[str, Camera],
        steps: int,
        dt_ns: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._cameras, self._steps, self._dt_ns, self._clock = cameras, steps, dt_ns, clock
        self._since_ns = 0
        self._kept: dict[str, deque[Frame]] = {name: deque() for name in cameras}
        self._lock = threading.Lock()
        self._halt = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begins to collect; the cameras must run."""
        self.begin()
        if self._steps == 1:
            return
        self._halt = threading.Event()
        for name, camera in self._cameras.items():
            thread = threading.Thread(
                target=self._collect, args=(name, camera, self._halt), name=f"past {name}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Ends the threads; may be called twice."""
        self._halt.set()
        while self._threads:
            self._threads.pop().join(timeout=3.0)

    def begin(self) -> None:
        """Forgets everything: a task begins, and what was before is not its past."""
        with self._lock:
            self._since_ns = self._clock()
            for kept in self._kept.values():
                kept.clear()

    def moments(self, newest: Mapping[str, Frame]) -> list[dict[str, Frame]]:
        """The frames of each moment, oldest first; the last are `newest`."""
        if self._steps == 1:
            return [dict(newest)]
        stamp_ns = min(frame.stamp_ns for frame in newest.values())
        wanted = [stamp_ns - k * self._dt_ns for k in range(self._steps - 1, 0, -1)]
        with self._lock:
            kept = {name: list(frames) for name, frames in self._kept.items()}
        chosen = {name: choose([*kept[name], frame], wanted) for name, frame in newest.items()}
        before = [{name: frames[k] for name, frames in chosen.items()} for k in range(self._steps - 1)]
        return [*before, dict(newest)]

    def _collect(self, name: str, camera: Camera, halt: threading.Event) -> None:
        sequence = -1
        while not halt.is_set():
            try:
                frame = camera.wait_newer(sequence, _WAIT_S)
            except CameraLost:
                # The loop notices by itself, and opens the cameras anew when a person asks for it.
                return
            if frame is None:
                halt.wait(_NAP_S)
                continue
            sequence = frame.sequence
            with self._lock:
                if frame.stamp_ns < self._since_ns:
                    continue
                kept = self._kept[name]
                kept.append(frame)
                span_ns = (self._steps - 1) * self._dt_ns + SLACK_NS
                # By its arrival too: a camera whose stamps stand still must not fill the memory.
                while (
                    frame.stamp_ns - kept[0].stamp_ns > span_ns
                    or frame.arrival_ns - kept[0].arrival_ns > span_ns
                ):
                    kept.popleft()


def choose(frames: Sequence[Frame], wanted_ns: Sequence[int]) -> list[Frame]:
    """For each wanted time the frame nearest to it; where none is so old yet, the oldest (as LeRobot's
    queues are filled)."""
    return [min(frames, key=lambda frame: abs(frame.stamp_ns - at)) for at in wanted_ns]
