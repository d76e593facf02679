"""The pictures of one observation, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.drivers.errors import CameraLost
from holdfast.drivers.types import Frame, StampSource
from holdfast.runtime.policy.cameras_in import Cameras, FrameFault, FrameLimits

MS = 1_000_000
LIMITS = FrameLimits(age_ns=200 * MS, frozen_ns=300 * MS, frozen_frames=5, blank_spread=4.0)
SCENE = np.linspace(40, 200, 48, dtype=np.uint8).reshape(4, 4, 3)
BLACK = np.zeros((4, 4, 3), np.uint8)


class ScriptedCamera:
    """Delivers what a test puts into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frame: Frame | None = None
        self.lost = False
        self.starts = 0
        self.picture: NDArray[np.uint8] = SCENE

    def start(self) -> None:
        self.starts += 1

    def put(self, sequence: int, at_ms: float, digest: int | None = None) -> None:
        at = int(at_ms * MS)
        self.frame = Frame(
            self.picture, at, StampSource.HEADER, at + MS, sequence, sequence if digest is None else digest
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


def test_a_camera_that_is_opened_again_begins_at_its_first_picture():
    """Found by the fault campaign: after a reset, pictures were waited for until their numbers had caught up
    with those before it, and the arm stood still for as long as the run had lasted."""
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    cameras.start()
    camera.put(500, 0)
    assert cameras.next(0.0, MS) is not None
    cameras.close()
    cameras.start()
    camera.put(1, 40)
    frames = cameras.next(0.0, 41 * MS)
    assert frames is not None
    assert frames["front"].sequence == 1


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


def test_a_frozen_camera_is_a_fault_though_every_picture_comes_with_a_new_stamp():
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


def black(cameras: Cameras, camera: ScriptedCamera, first: int, count: int, period_ms: float = 33.3) -> None:
    """Black pictures, each with other noise; none of them is to be acted upon."""
    for i in range(first, first + count):
        camera.picture = BLACK + np.uint8(i % 3)
        camera.put(i, i * period_ms)
        assert cameras.next(0.0, int(i * period_ms * MS)) is None


def test_a_camera_that_shows_nothing_is_a_fault():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    with pytest.raises(FrameFault, match=r"camera front.*blank.*lens") as caught:
        black(cameras, camera, 1, 30)
    assert caught.value.code == "black_camera"
    assert camera.frame is not None
    assert camera.frame.sequence == 11, "0.3 s later: the tenth picture after the first"


def test_a_picture_that_is_black_to_the_last_bit_is_called_black_and_not_frozen():
    camera = ScriptedCamera("front")
    camera.picture = BLACK
    with pytest.raises(FrameFault) as caught:
        repeat(Cameras({"front": camera}, LIMITS), camera, 30, 33.3, digest=7)
    assert caught.value.code == "black_camera"


def test_a_few_black_pictures_are_left_out_and_nothing_more():
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    for start in range(0, 100, 10):
        black(cameras, camera, start, 9)
        camera.picture = SCENE
        camera.put(start + 9, (start + 9) * 33.3)
        assert cameras.next(0.0, 0) is not None
    # Long in time, but too few to be sure.
    black(cameras, camera, 101, 5, period_ms=100.0)


def look(cameras: Cameras, *each: ScriptedCamera) -> None:
    for i in range(1, 30):
        for camera in each:
            camera.put(i, i * 33.3)
        assert cameras.next(0.0, int(i * 33.3 * MS)) is None


def test_one_black_camera_of_two_is_enough():
    left, right = ScriptedCamera("left"), ScriptedCamera("right")
    cameras = Cameras({"left": left, "right": right}, LIMITS)
    right.picture = BLACK
    with pytest.raises(FrameFault, match="camera right") as caught:
        look(cameras, left, right)
    assert caught.value.code == "black_camera"


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
