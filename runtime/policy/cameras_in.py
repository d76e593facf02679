"""The pictures of one observation: the newest frame of every camera, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...drivers.errors import CameraLost
from ...drivers.types import Camera, Frame
from .blank import BLACK, spread
from .past import Past


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Rows of the deadline table that concern pictures."""

    age_ns: int
    """Oldest picture that inference may start with."""
    frozen_ns: int
    frozen_frames: int
    """The same content for longer than `frozen_ns` and over at least so many frames: a frozen camera."""
    blank_spread: float
    """Pictures whose areas differ by less, for as long: a black camera (see `blank.spread`)."""


class FrameFault(Exception):
    """The pictures cannot be acted upon; `code` is a row of the deadline table."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class _Since:
    """The first of the pictures that have something in common."""

    digest: int
    arrival_ns: int
    sequence: int


class Cameras:
    """All cameras of a policy, each with its own reading thread."""

    def __init__(
        self, cameras: Mapping[str, Camera], limits: FrameLimits, steps: int = 1, dt_ns: int = 0
    ) -> None:
        """`steps` moments, `dt_ns` apart, make one observation."""
        self._cameras = dict(cameras)
        self._limits = limits
        self._past = Past(self._cameras, steps, dt_ns)
        self._used = dict.fromkeys(self._cameras, -1)
        self._repeats: dict[str, _Since] = {}
        self._blanks: dict[str, _Since] = {}
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
        """Opens every camera; raises `CameraOpenError`. A camera that is opened again counts its pictures
        anew: what was used before says nothing about them."""
        self._used = dict.fromkeys(self._cameras, -1)
        self._last.clear()
        for camera in self._cameras.values():
            camera.start()
        self._past.start()

    def close(self) -> None:
        self._past.close()
        for camera in self._cameras.values():
            camera.close()

    def begin(self) -> None:
        """Forgets what was seen so far: the picture may have stood still between two tasks."""
        self._repeats.clear()
        self._blanks.clear()
        self._past.begin()

    def moments(self, frames: Mapping[str, Frame]) -> list[dict[str, Frame]]:
        """The frames of every moment of the observation that ends with `frames`, oldest first."""
        return self._past.moments(frames)

    def next(self, timeout_s: float, now_ns: int) -> dict[str, Frame] | None:
        """One frame per camera, each newer than those returned last; None when one is not there yet, or shows
        nothing: nobody is to act upon it.

        Raises `FrameFault` when a camera is lost, frozen, black, or its newest picture is too old.
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
            self._check_blank(name, frame)
            self._check_frozen(name, frame)
        return None if self._blanks else frames

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

    def _check_blank(self, name: str, frame: Frame) -> None:
        found = spread(frame.image)
        if found >= self._limits.blank_spread:
            self._blanks.pop(name, None)
            return
        first = self._blanks.setdefault(name, _since(frame))
        if self._lasts(first, frame):
            raise FrameFault(
                BLACK,
                f"camera {name}: a blank picture for {(frame.arrival_ns - first.arrival_ns) / 1e6:.0f} ms: "
                f"its parts differ by {found:.1f} of 255 levels, at least {self._limits.blank_spread:g} are "
                "needed; look for a cap on the lens, the light, the exposure",
            )

    def _check_frozen(self, name: str, frame: Frame) -> None:
        first = self._repeats.get(name)
        if first is None or first.digest != frame.digest:
            self._repeats[name] = _since(frame)
        elif self._lasts(first, frame):
            raise FrameFault(
                "frozen_camera",
                f"camera {name}: the same picture {frame.sequence - first.sequence + 1} times over "
                f"{(frame.arrival_ns - first.arrival_ns) / 1e6:.0f} ms; a live sensor never repeats itself: "
                "check the camera",
            )

    def _lasts(self, first: _Since, frame: Frame) -> bool:
        return (
            frame.arrival_ns - first.arrival_ns > self._limits.frozen_ns
            and frame.sequence - first.sequence >= self._limits.frozen_frames
        )

    def _measure(self, name: str, frame: Frame) -> None:
        before = self._last.get(name)
        self._last[name] = frame
        if before is not None and frame.sequence > before.sequence:
            period = (frame.arrival_ns - before.arrival_ns) // (frame.sequence - before.sequence)
            # A moving mean keeps single hiccups out.
            self._periods[name] = (7 * self._periods.get(name, period) + period) // 8


def _since(frame: Frame) -> _Since:
    return _Since(frame.digest, frame.arrival_ns, frame.sequence)
