"""The running simulator's camera: OpenCV opens it, stamps are true, faults look like faults."""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from holdfast.drivers.simulated.launch import Simulator
from holdfast.drivers.simulated.mjpeg import CameraServer, Picture, Stage

pytestmark = pytest.mark.sim

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Part:
    headers: dict[str, str]
    jpeg: bytes


@contextlib.contextmanager
def stream(url: str) -> Iterator[Iterator[Part]]:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        assert response.headers["Content-Type"].startswith("multipart/x-mixed-replace")
        yield parts(response)


def parts(response: Any) -> Iterator[Part]:
    while line := response.readline():
        if not line.startswith(b"--"):
            continue
        headers = {}
        while (line := response.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        yield Part(headers, response.read(int(headers["content-length"])))


def test_opencv_opens_it(simulator: Simulator) -> None:
    capture = cv2.VideoCapture(simulator.camera_url)
    assert capture.isOpened()
    ok, image = capture.read()
    capture.release()
    assert ok
    assert image.shape == (192, 192, 3)
    assert 20 < float(image.mean()) < 235


def test_parts_carry_stamps_of_this_boot(simulator: Simulator) -> None:
    with stream(simulator.camera_url) as pictures:
        seen = [next(pictures) for _ in range(5)]
        now_ns = time.monotonic_ns()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert {part.headers["x-boot-id"] for part in seen} == {boot_id}
    assert all(part.headers["content-type"] == "image/jpeg" for part in seen)
    stamps = [int(part.headers["x-capture-monotonic-ns"]) for part in seen]
    assert stamps == sorted(set(stamps))
    assert 0 <= now_ns - stamps[-1] < PATIENCE_S * 1e9
    sequences = [int(part.headers["x-frame-sequence"]) for part in seen]
    assert sequences == sorted(set(sequences))


def test_a_still_scene_has_sensor_noise(simulator: Simulator) -> None:
    with stream(simulator.camera_url) as pictures:
        assert len({next(pictures).jpeg for _ in range(5)}) == 5


def test_page_and_snapshot(simulator: Simulator) -> None:
    page = simulator.camera_url.removesuffix("stream.mjpg")
    with urllib.request.urlopen(page, timeout=PATIENCE_S) as response:
        assert b"/stream.mjpg" in response.read()
    with urllib.request.urlopen(page + "snapshot.jpg", timeout=PATIENCE_S) as response:
        image = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(page + "nothing", timeout=PATIENCE_S)


def test_frozen_camera_repeats_its_picture_with_new_stamps(simulator: Simulator) -> None:
    with stream(simulator.camera_url) as pictures:
        next(pictures)
        simulator.truth.fault("camera_freeze")
        same = 0
        before = next(pictures)
        for part in pictures:
            assert part.headers["x-frame-sequence"] != before.headers["x-frame-sequence"]
            same = same + 1 if part.jpeg == before.jpeg else 0
            before = part
            if same == 5:
                break
        simulator.truth.clear()
        assert any(part.jpeg != before.jpeg for part, _ in zip(pictures, range(100), strict=False))


def test_dropping_camera_keeps_the_connection_without_pictures(simulator: Simulator) -> None:
    with stream(simulator.camera_url) as pictures:
        next(pictures)
        simulator.truth.fault("camera_drop")
        time.sleep(0.5)
        stopped_ns = time.monotonic_ns()
        time.sleep(0.5)
        simulator.truth.clear()
        for part in pictures:
            stamp_ns = int(part.headers["x-capture-monotonic-ns"])
            assert not stopped_ns <= stamp_ns < stopped_ns + 400_000_000
            if stamp_ns > stopped_ns:
                break


def test_unplugged_camera_cuts_and_refuses_until_replugged(simulator: Simulator) -> None:
    with stream(simulator.camera_url) as pictures:
        next(pictures)
        simulator.truth.fault("camera_unplug")
        with contextlib.suppress(OSError):
            assert len(list(pictures)) < 1000
    deadline = time.monotonic() + PATIENCE_S
    refused = False
    while not refused and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(simulator.camera_url, timeout=PATIENCE_S).close()
        except OSError:
            refused = True
    assert refused
    simulator.truth.clear()
    while True:
        try:
            with stream(simulator.camera_url) as pictures:
                assert next(pictures).jpeg
            return
        except OSError:
            assert time.monotonic() < deadline + PATIENCE_S


def test_a_slow_client_skips_pictures_and_delays_nobody() -> None:
    stage = Stage()
    server = CameraServer(("127.0.0.1", 0), stage)
    server.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/stream.mjpg"
    with stream(url) as slow, stream(url) as quick:
        jpeg = bytes(200_000)
        for sequence in range(1, 61):
            while not stage.wanted:
                time.sleep(0.01)
            stage.show(Picture(jpeg, sequence, sequence))
            assert int(next(quick).headers["x-frame-sequence"]) == sequence
        got = [int(next(slow).headers["x-frame-sequence"])]
        while got[-1] != 60:
            got.append(int(next(slow).headers["x-frame-sequence"]))
    server.stop()
    assert len(got) < 60
    assert got == sorted(set(got))


def picture(part: Part) -> Any:
    image = cv2.imdecode(np.frombuffer(part.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_a_covered_lens_gives_dark_pictures_that_differ(simulator: Simulator) -> None:
    with stream(simulator.camera_url) as pictures:
        assert picture(next(pictures)).mean() > 20
        at_ns = simulator.truth.fault("camera_black")
        dark = []
        while len(dark) < 5:
            part = next(pictures)
            # One state may have been on its way to the camera.
            if int(part.headers["x-capture-monotonic-ns"]) > at_ns + 50_000_000:
                dark.append(part)
        simulator.truth.clear()
        assert max(picture(part).mean() for part in dark) < 3
        assert len({part.jpeg for part in dark}) == 5
        assert any(picture(part).mean() > 20 for part, _ in zip(pictures, range(100), strict=False))
