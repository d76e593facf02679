"""The camera suite over HTTP and over video files, and what is particular to each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.cameras.open import open_camera
from holdfast.drivers.errors import CameraOpenError
from holdfast.drivers.types import Camera, StampSource

from .camera_rigs import FileRig, HttpRig, VideoServer
from .camera_suite import PATIENCE_S, CameraSuite, next_frame, wait_until_lost


@pytest.fixture
def http() -> Iterator[HttpRig]:
    rig = HttpRig()
    yield rig
    rig.close()


class TestHttpMjpeg(CameraSuite):
    @pytest.fixture
    def rig(self, http: HttpRig) -> HttpRig:
        return http


class TestHttpMjpegWithoutStampsOrLengths(CameraSuite):
    """As most IP cameras send it."""

    @pytest.fixture
    def rig(self, http: HttpRig) -> HttpRig:
        http.stamp_headers = http.content_length = False
        http.stamp_source = StampSource.ARRIVAL
        return http


class TestVideoFile(CameraSuite):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> FileRig:
        return FileRig(tmp_path)


def started(address: str) -> Camera:
    camera = open_camera(address)
    camera.start()
    return camera


@pytest.mark.parametrize(
    ("age_ns", "boot_id", "source"),
    [
        (50_000_000, None, StampSource.HEADER),
        (60_000_000_000, None, StampSource.HEADER),
        (-60_000_000_000, None, StampSource.ARRIVAL),
        (50_000_000, "another-machine", StampSource.ARRIVAL),
    ],
    ids=["fresh", "a minute old", "in the future", "another machine's"],
)
def test_header_stamps_are_trusted_only_on_our_own_clock(
    http: HttpRig, age_ns: int, boot_id: str | None, source: StampSource
) -> None:
    http.age_ns = age_ns
    http.boot_id = boot_id or http.boot_id
    camera = started(http.url)
    try:
        frame = next_frame(camera)
    finally:
        camera.close()
    assert frame.stamp_source is source
    if source is StampSource.HEADER:
        assert frame.arrival_ns - frame.stamp_ns >= age_ns


def test_a_status_other_than_200_is_refused_with_the_status(http: HttpRig) -> None:
    with pytest.raises(CameraOpenError, match="404"):
        started(http.url.replace("/stream", "/nothing"))


def test_a_page_instead_of_a_stream_says_what_came(http: HttpRig) -> None:
    with pytest.raises(CameraOpenError, match="text/html"):
        started(http.wrong_format())


def test_a_stream_without_pictures_is_refused_after_the_time_out(http: HttpRig) -> None:
    http.stalls_after = 0
    camera = open_camera(http.url, open_timeout_s=0.5)
    with pytest.raises(CameraOpenError, match="no picture within"):
        camera.start()


def test_a_video_over_http_is_read_by_ffmpeg_until_it_ends(tmp_path: Path) -> None:
    server = VideoServer(Path(FileRig(tmp_path).show("moving", frames=30)))
    try:
        camera = started(f"{server.url}?latency_ms=40")
        frame = next_frame(camera)
        assert "ended" in wait_until_lost(camera)
        camera.close()
    finally:
        server.close()
    assert frame.image.shape == (48, 64, 3)
    assert frame.image[46, 4, 0] > 200, "red on the left: the channels are in RGB order"
    assert frame.image[46, 60, 2] > 200
    assert frame.stamp_source is StampSource.ARRIVAL
    assert frame.arrival_ns - frame.stamp_ns == 40_000_000


def test_an_http_video_that_ffmpeg_cannot_read_is_refused(tmp_path: Path) -> None:
    server = VideoServer(Path(FileRig(tmp_path).wrong_format()))
    try:
        with pytest.raises(CameraOpenError, match="no stream there that FFmpeg can read"):
            started(server.url)
    finally:
        server.close()


def test_the_end_of_a_video_says_how_to_repeat_it(tmp_path: Path) -> None:
    camera = started(FileRig(tmp_path).show("moving", frames=5))
    assert "loop=1" in wait_until_lost(camera)
    camera.close()


def test_a_device_that_does_not_exist_lists_what_there_is() -> None:
    with pytest.raises(CameraOpenError, match="does not exist; cameras of this machine"):
        started("/dev/video97")


def test_a_device_that_is_no_camera_is_refused() -> None:
    with pytest.raises(CameraOpenError, match="does not speak V4L2"):
        started("/dev/null")


def test_a_second_reader_of_the_same_stream_is_served(http: HttpRig) -> None:
    cameras = [started(http.url), started(http.url)]
    for camera in cameras:
        assert camera.wait_newer(2, PATIENCE_S) is not None
        camera.close()
