"""The pictures of the last moments."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.types import Frame, StampSource
from holdfast.runtime.policy.past import Past, choose

from .test_cameras_in import ScriptedCamera

MS = 1_000_000
BLANK = np.zeros((2, 2, 3), np.uint8)


def frame(at_ms: float, sequence: int = 0) -> Frame:
    return Frame(BLANK, int(at_ms * MS), StampSource.HEADER, int(at_ms * MS), sequence, 0)


@given(
    stamps=st.lists(st.integers(0, 10**9), min_size=1, max_size=20, unique=True),
    wanted=st.lists(st.integers(-(10**9), 2 * 10**9), min_size=1, max_size=5),
)
def test_the_nearest_frame_is_chosen_and_the_oldest_where_none_is_so_old(
    stamps: list[int], wanted: list[int]
) -> None:
    frames = [Frame(BLANK, at, StampSource.HEADER, at, 0, 0) for at in sorted(stamps)]
    for at, found in zip(wanted, choose(frames, wanted), strict=True):
        assert abs(found.stamp_ns - at) == min(abs(stamp - at) for stamp in stamps)
        if at <= min(stamps):
            assert found is frames[0]


class Collected:
    """Two cameras whose frames are put in by hand."""

    def __init__(self) -> None:
        self.left, self.right = ScriptedCamera("left"), ScriptedCamera("right")
        self.now_ms = 0
        cameras = {"left": self.left, "right": self.right}
        self.past = Past(cameras, steps=3, dt_ns=100 * MS, clock=lambda: self.now_ms * MS)
        self.past.start()

    def put(self, sequence: int, at_ms: float) -> dict[str, Frame]:
        """A frame of each camera; waits until both are collected."""
        self.left.put(sequence, at_ms)
        self.right.put(sequence, at_ms + 10)
        deadline = time.monotonic() + 20
        while any(not k or k[-1].sequence != sequence for k in self.past._kept.values()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.002)
        assert self.left.frame is not None
        assert self.right.frame is not None
        return {"left": self.left.frame, "right": self.right.frame}


@pytest.fixture
def collected() -> Iterator[Collected]:
    made = Collected()
    yield made
    made.past.close()


def seen(moments: list[dict[str, Frame]]) -> list[list[float]]:
    return [[f.stamp_ns / MS for f in moment.values()] for moment in moments]


def test_moments_are_the_steps_apart_oldest_first(collected: Collected) -> None:
    newest = [collected.put(k, 33 * k) for k in range(10)][-1]
    assert seen(collected.past.moments(newest)) == [[99, 109], [198, 208], [297, 307]]


def test_at_the_start_the_oldest_is_repeated(collected: Collected) -> None:
    newest = collected.put(1, 1000)
    assert seen(collected.past.moments(newest)) == [[1000, 1010]] * 3
    newest = collected.put(2, 1100)
    assert seen(collected.past.moments(newest)) == [[1000, 1010], [1000, 1010], [1100, 1110]]


def test_a_task_does_not_see_what_was_before_it(collected: Collected) -> None:
    for k in range(5):
        collected.put(k, 100 * k)
    collected.past.begin()
    newest = collected.put(5, 500)
    assert seen(collected.past.moments(newest)) == [[500, 510]] * 3


def test_a_picture_that_was_on_its_way_when_the_task_began_is_not_kept(collected: Collected) -> None:
    collected.now_ms = 450
    collected.past.begin()
    collected.left.put(4, 449)
    collected.right.put(4, 440)
    # The threads look every 10 ms.
    time.sleep(0.1)
    newest = collected.put(5, 500)
    assert seen(collected.past.moments(newest)) == [[500, 510]] * 3


@pytest.mark.parametrize("stamped", [True, False])
def test_what_is_too_old_is_forgotten(
    collected: Collected, monkeypatch: pytest.MonkeyPatch, stamped: bool
) -> None:
    """Also where a camera gives all its pictures the same stamp."""
    if not stamped:
        put = ScriptedCamera.put

        def put_unstamped(camera: ScriptedCamera, sequence: int, at_ms: float) -> None:
            put(camera, sequence, at_ms)
            assert camera.frame is not None
            camera.frame = replace(camera.frame, stamp_ns=0)

        monkeypatch.setattr(ScriptedCamera, "put", put_unstamped)
    for k in range(40):
        collected.put(k, 100 * k)
    assert all(len(kept) <= 5 for kept in collected.past._kept.values())


def test_a_lost_camera_ends_its_thread_and_a_new_start_collects_again(collected: Collected) -> None:
    collected.put(1, 0)
    collected.left.lost = True
    deadline = time.monotonic() + 20
    while sum(thread.is_alive() for thread in collected.past._threads) == 2:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
    collected.past.close()
    collected.left.lost = False
    collected.past.start()
    newest = collected.put(2, 1000)
    assert seen(collected.past.moments(newest)) == [[1000, 1010]] * 3


def test_a_policy_that_sees_one_moment_has_no_threads() -> None:
    camera = ScriptedCamera("front")
    past = Past({"front": camera}, steps=1, dt_ns=0)
    past.start()
    assert past._threads == []
    assert past.moments({"front": frame(5)}) == [{"front": frame(5)}]
    past.close()
