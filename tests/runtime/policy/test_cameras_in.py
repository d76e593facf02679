"""The pictures of one observation, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.drivers.errors import CameraLost
from holdfast.drivers.types import Frame, StampSource
from holdfast.runtime.policy.cameras_in import Cameras, FrameFault, FrameLimits

MS = 1_000_000
LIMITS = FrameLimits(age_ns=200 * MS, frozen_ns=300 * MS, frozen_frames=5)


class ScriptedCamera:
    """Delivers what a test puts into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frame: Frame | None = None
        self.lost = False
        self.starts = 0

    def start(self) -> None:
        self.starts += 1

    def put(self, sequence: int, at_ms: float, digest: int | None = None) -> None:
        at = int(at_ms * MS)
        picture = np.zeros((4, 4, 3), np.uint8)
        self.frame = Frame(
            picture, at, StampSource.HEADER, at + MS, sequence, sequence if digest is None else digest
        )

    def latest(self) -> Frame | None:
        if self.lost:
            raise CameraLost("unplugged")
        return self.frame

    def wait_newer(self, sequence: int, timeout_s: float) -> Frame | None:
        frame = self.latest()
        return frame if frame is not None and frame.sequence > sequence else None

    def close(self) -> None:
        self.frame = None


def test_a_picture_is_used_once():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    camera.put(1, 0)
    frames = cameras.next(0.0, MS)
    assert frames is not None
    assert frames["front"].sequence == 1
    assert cameras.next(0.0, MS) is None


def test_all_cameras_must_have_a_newer_picture():
    left, right = ScriptedCamera("left"), ScriptedCamera("right")
    cameras = Cameras({"left": left, "right": right}, LIMITS)
    left.put(1, 0)
    assert cameras.next(0.0, MS) is None
    right.put(1, 1)
    assert cameras.next(0.0, 2 * MS) is not None


def test_a_lost_camera_is_a_fault():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    camera.lost = True
    with pytest.raises(FrameFault, match="unplugged") as caught:
        cameras.next(0.0, 0)
    assert caught.value.code == "camera_lost"


def test_a_camera_that_sends_nothing_any_more_is_a_fault_by_age():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    camera.put(1, 0)
    cameras.next(0.0, MS)
    assert cameras.next(0.0, 200 * MS) is None
    with pytest.raises(FrameFault) as caught:
        cameras.next(0.0, 201 * MS)
    assert caught.value.code == "frame_age"


def test_a_picture_too_old_for_inference_is_a_fault():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    camera.put(1, 0)
    frames = cameras.next(0.0, MS)
    assert frames is not None
    cameras.check_age(frames, 200 * MS)
    with pytest.raises(FrameFault):
        cameras.check_age(frames, 200 * MS + 1)


def repeat(
    cameras: Cameras, camera: ScriptedCamera, count: int, period_ms: float, digest: int | None
) -> None:
    for i in range(count):
        camera.put(i + 1, i * period_ms, digest)
        cameras.next(0.0, int(i * period_ms * MS))


def test_a_frozen_camera_is_a_fault():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    with pytest.raises(FrameFault) as caught:
        repeat(cameras, camera, 30, 33.3, digest=7)
    assert caught.value.code == "frozen_camera"


def test_changing_pictures_and_few_repeats_are_not():
    camera = ScriptedCamera("front")
    repeat(Cameras({"front": camera}, LIMITS), camera, 30, 33.3, digest=None)
    # Five pictures of a slow camera take long, but four repeats are not enough.
    repeat(Cameras({"front": camera}, LIMITS), camera, 5, 100.0, digest=7)


def test_a_new_task_starts_the_count_anew():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    repeat(cameras, camera, 9, 33.3, digest=7)
    cameras.begin()
    camera.put(20, 900, 7)
    assert cameras.next(0.0, 900 * MS) is not None


def test_the_period_is_measured_also_over_skipped_pictures():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    for sequence in (1, 3, 5, 7):
        camera.put(sequence, sequence * 40)
        cameras.next(0.0, 0)
    assert cameras.period_ns == pytest.approx(40 * MS)
