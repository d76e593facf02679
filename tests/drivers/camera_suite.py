"""The suite that every kind of camera inherits: a new kind brings a `Rig` and gets all of these tests.

A rig is the far end: a real server, a real file, later a real device. It is told how to behave before the
camera is opened (`show`) and may be told to fail while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.drivers.cameras.open import open_camera
from holdfast.drivers.cameras.spec import parse_camera
from holdfast.drivers.errors import CameraLost, CameraOpenError
from holdfast.drivers.types import Camera, Frame, StampSource

SIZE = (64, 48)
"""Width and height of the test pictures."""
PATIENCE_S = 20.0


def moving_picture(index: int) -> NDArray[np.uint8]:
    """[48, 64, 3] RGB: red on the left, blue on the right, and a white bar that moves with `index`."""
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    picture[:, :32, 0] = 255
    picture[:, 32:, 2] = 255
    start = (index * 4) % 40
    picture[start : start + 8] = 255
    return picture


def black_picture(_index: int) -> NDArray[np.uint8]:
    return np.zeros((SIZE[1], SIZE[0], 3), np.uint8)


def frozen_picture(_index: int) -> NDArray[np.uint8]:
    return moving_picture(0)


PICTURES = {"moving": moving_picture, "black": black_picture, "frozen": frozen_picture}


class Rig(Protocol):
    """The far end of a camera."""

    stamp_source: StampSource

    def show(self, pictures: str, *, fps: float = 30.0, frames: int | None = None) -> str:
        """Delivers `PICTURES[pictures]`; after `frames` pictures it goes away. Returns the address."""
        ...

    def stall(self) -> str:
        """Delivers one picture and then nothing for a long time, while staying there. Returns the address."""
        ...

    def wrong_format(self) -> str:
        """The address of something that is there and is no video."""
        ...

    def missing(self) -> str:
        """The address of something that is not there."""
        ...


def next_frame(camera: Camera, after: int = 0) -> Frame:
    frame = camera.wait_newer(after, PATIENCE_S)
    assert frame is not None
    return frame


def wait_until_lost(camera: Camera) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            camera.latest()
        except CameraLost as error:
            return str(error)
        time.sleep(0.01)
    raise AssertionError("the camera went away and was never reported as lost")


class CameraSuite:
    """Inherit, and give a fixture `rig`."""

    @pytest.fixture
    def opened(self) -> Iterator[list[Camera]]:
        cameras: list[Camera] = []
        yield cameras
        for camera in cameras:
            camera.close()

    def start(self, opened: list[Camera], address: str, **timeouts: float) -> Camera:
        camera = open_camera(f"front={address}", **timeouts)
        opened.append(camera)
        camera.start()
        return camera

    def test_delivers_upright_rgb_frames_with_honest_stamps(self, rig: Rig, opened: list[Camera]) -> None:
        before = time.monotonic_ns()
        camera = self.start(opened, rig.show("moving"))
        first = next_frame(camera)
        later = next_frame(camera, first.sequence)
        assert camera.name == "front"
        assert first.image.shape == (SIZE[1], SIZE[0], 3)
        assert first.image.dtype == np.uint8
        assert first.image[-1, 2, 0] > 200, "left is red"
        assert first.image[-1, -2, 2] > 200, "right is blue"
        assert first.image[-1, 2, 2] < 60
        assert first.stamp_source is rig.stamp_source
        assert before - 5_000_000_000 < first.stamp_ns <= first.arrival_ns <= time.monotonic_ns()
        assert later.sequence > first.sequence
        assert later.stamp_ns > first.stamp_ns
        assert later.digest != first.digest

    def test_a_slow_reader_gets_the_newest_frame_not_a_queue(self, rig: Rig, opened: list[Camera]) -> None:
        camera = self.start(opened, rig.show("moving", fps=50))
        first = next_frame(camera)
        next_frame(camera, first.sequence + 15)
        newest = camera.latest()
        assert newest is not None
        assert newest.sequence >= first.sequence + 15

    def test_a_late_frame_shows_its_age(self, rig: Rig, opened: list[Camera]) -> None:
        camera = self.start(opened, rig.show("moving", fps=2))
        frame = next_frame(camera)
        assert camera.wait_newer(frame.sequence, 0.02) is None
        again = camera.latest()
        assert again is not None
        if again.sequence == frame.sequence:
            assert again.stamp_ns == frame.stamp_ns, "a frame is never stamped again"

    def test_a_stalled_camera_keeps_its_old_stamp_and_is_not_lost(
        self, rig: Rig, opened: list[Camera]
    ) -> None:
        camera = self.start(opened, rig.stall())
        frame = next_frame(camera)
        assert camera.wait_newer(frame.sequence, 0.6) is None
        again = camera.latest()
        assert again == frame or (again is not None and again.stamp_ns == frame.stamp_ns)
        assert time.monotonic_ns() - frame.stamp_ns > 500_000_000

    @pytest.mark.parametrize("pictures", ["frozen", "black"])
    def test_repeated_content_shows_in_the_digest(
        self, rig: Rig, opened: list[Camera], pictures: str
    ) -> None:
        camera = self.start(opened, rig.show(pictures))
        frame = next_frame(camera)
        digests = {frame.digest}
        for _ in range(5):
            frame = next_frame(camera, frame.sequence)
            digests.add(frame.digest)
        assert len(digests) == 1

    def test_an_unplugged_camera_is_lost_and_says_so(self, rig: Rig, opened: list[Camera]) -> None:
        address = rig.show("moving", frames=8)
        camera = self.start(opened, address)
        message = wait_until_lost(camera)
        assert parse_camera(address).address in message
        with pytest.raises(CameraLost):
            camera.wait_newer(0, 0.1)

    def test_it_can_be_closed_twice_and_started_again(self, rig: Rig, opened: list[Camera]) -> None:
        camera = self.start(opened, rig.show("moving"))
        next_frame(camera)
        camera.close()
        camera.close()
        with pytest.raises(CameraLost, match="closed"):
            camera.latest()
        camera.start()
        assert next_frame(camera).sequence >= 1

    def test_a_wrong_format_is_refused(self, rig: Rig, opened: list[Camera]) -> None:
        with pytest.raises(CameraOpenError):
            self.start(opened, rig.wrong_format())

    def test_a_missing_camera_is_refused_by_name(self, rig: Rig, opened: list[Camera]) -> None:
        address = rig.missing()
        with pytest.raises(CameraOpenError) as refusal:
            self.start(opened, address)
        assert parse_camera(address).address in str(refusal.value)

    def test_a_declared_latency_moves_arrival_stamps_only(self, rig: Rig, opened: list[Camera]) -> None:
        spec = replace(parse_camera(rig.show("moving")), latency_ms=40.0)
        camera = open_camera(spec)
        opened.append(camera)
        camera.start()
        frame = next_frame(camera)
        if frame.stamp_source is StampSource.ARRIVAL:
            assert frame.arrival_ns - frame.stamp_ns == 40_000_000
        else:
            assert frame.stamp_ns <= frame.arrival_ns
