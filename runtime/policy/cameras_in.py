"""The pictures of one observation: the newest frame of every camera, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...drivers.errors import CameraLost
from ...drivers.types import Camera, Frame


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Rows of the deadline table that concern pictures."""

    age_ns: int
    """Oldest picture that inference may start with."""
    frozen_ns: int
    frozen_frames: int
    """The same content for longer than `frozen_ns` and over at least so many frames: a frozen camera."""


class FrameFault(Exception):
    """The pictures cannot be acted upon; `code` is a row of the deadline table."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class _Repeat:
    """Since when one camera has shown the same content."""

    digest: int
    arrival_ns: int
    sequence: int


class Cameras:
    """All cameras of a policy, each with its own reading thread."""

    def __init__(self, cameras: Mapping[str, Camera], limits: FrameLimits) -> None:
        self._cameras = dict(cameras)
        self._limits = limits
        self._used = dict.fromkeys(self._cameras, -1)
        self._repeats: dict[str, _Repeat] = {}
        self._last: dict[str, Frame] = {}
        self._periods: dict[str, int] = {}

    @property
    def each(self) -> Mapping[str, Camera]:
        """The cameras by name."""
        return self._cameras

    @property
    def period_ns(self) -> int:
        """Measured period of the slowest camera; 0 before two frames."""
        return max(self._periods.values(), default=0)

    def start(self) -> None:
        """Opens every camera; raises `CameraOpenError`."""
        for camera in self._cameras.values():
            camera.start()

    def close(self) -> None:
        for camera in self._cameras.values():
            camera.close()

    def begin(self) -> None:
        """Forgets what was seen so far: the picture may have stood still between two tasks."""
        self._repeats.clear()

    def next(self, timeout_s: float, now_ns: int) -> dict[str, Frame] | None:
        """One frame per camera, each newer than those returned last; None when one is not there yet.

        Raises `FrameFault` when a camera is lost, frozen, or its newest picture is too old.
        """
        frames: dict[str, Frame] = {}
        for name, camera in self._cameras.items():
            try:
                frame = camera.wait_newer(self._used[name], timeout_s)
                if frame is None:
                    self._check_silent(name, camera, now_ns)
                    return None
            except CameraLost as error:
                raise FrameFault("camera_lost", f"camera {name}: {error}") from error
            frames[name] = frame
        for name, frame in frames.items():
            self._used[name] = frame.sequence
            self._measure(name, frame)
            self._check_frozen(name, frame)
        return frames

    def check_age(self, frames: Mapping[str, Frame], now_ns: int) -> None:
        """Raises `FrameFault` when inference would start on a picture that is too old."""
        for name, frame in frames.items():
            self._check_age(name, now_ns - frame.stamp_ns)

    def _check_silent(self, name: str, camera: Camera, now_ns: int) -> None:
        newest = camera.latest()
        if newest is not None and newest.sequence == self._used[name]:
            self._check_age(name, now_ns - newest.stamp_ns)

    def _check_age(self, name: str, age_ns: int) -> None:
        if age_ns > self._limits.age_ns:
            raise FrameFault(
                "frame_age",
                f"camera {name}: the newest picture is {age_ns / 1e6:.0f} ms old, "
                f"at most {self._limits.age_ns / 1e6:.0f} ms are allowed; check the camera and its link",
            )

    def _check_frozen(self, name: str, frame: Frame) -> None:
        repeat = self._repeats.get(name)
        if repeat is None or repeat.digest != frame.digest:
            self._repeats[name] = _Repeat(frame.digest, frame.arrival_ns, frame.sequence)
            return
        same_ns = frame.arrival_ns - repeat.arrival_ns
        if (
            same_ns > self._limits.frozen_ns
            and frame.sequence - repeat.sequence >= self._limits.frozen_frames
        ):
            raise FrameFault(
                "frozen_camera",
                f"camera {name}: the same picture {frame.sequence - repeat.sequence + 1} times over "
                f"{same_ns / 1e6:.0f} ms; a live sensor never repeats itself: check the camera",
            )

    def _measure(self, name: str, frame: Frame) -> None:
        before = self._last.get(name)
        self._last[name] = frame
        if before is not None and frame.sequence > before.sequence:
            period = (frame.arrival_ns - before.arrival_ns) // (frame.sequence - before.sequence)
            # A moving mean keeps single hiccups out.
            self._periods[name] = (7 * self._periods.get(name, period) + period) // 8
