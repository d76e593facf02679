"""The pure parts of the cameras: addresses, multipart streams, capabilities, stamps."""

from __future__ import annotations

import errno
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.cameras.mjpeg import decode_jpeg, header_stamp
from holdfast.drivers.cameras.multipart import MultipartError, MultipartParser, Part, boundary_of
from holdfast.drivers.cameras.spec import CameraSpec, parse_camera
from holdfast.drivers.cameras.threaded import digest
from holdfast.drivers.cameras.v4l2 import captures, on_our_clock, open_message, stamp
from holdfast.drivers.errors import CameraOpenError
from holdfast.drivers.types import StampSource


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/video0", CameraSpec("", "v4l2", "/dev/video0")),
        ("front=/dev/video2", CameraSpec("front", "v4l2", "/dev/video2")),
        (
            "/dev/video0?width=1280&height=720&fps=60",
            CameraSpec("", "v4l2", "/dev/video0", width=1280, height=720, fps=60.0),
        ),
        ("http://a:80/s?q=1", CameraSpec("", "http", "http://a:80/s?q=1")),
        ("w=http://a/s?q=1&latency_ms=30", CameraSpec("w", "http", "http://a/s?q=1", latency_ms=30.0)),
        ("rtsp://u:p@cam/1", CameraSpec("", "rtsp", "rtsp://u:p@cam/1")),
        ("clip.mp4?loop=1", CameraSpec("", "file", "clip.mp4", loop=True)),
        ("top=a/b=c.mp4", CameraSpec("top", "file", "a/b=c.mp4")),
    ],
)
def test_an_address_is_read_as_documented(text: str, expected: CameraSpec) -> None:
    assert parse_camera(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "front=",
        "ftp://a/b",
        "http:///path",
        "/dev/video0?wdth=3",
        "clip.mp4?loop=yes",
        "/dev/video0?fps=nan",
        "/dev/video0?width=1e3",
        "http://a/?latency_ms=-1",
    ],
)
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(CameraOpenError):
        parse_camera(text)


@given(st.text(max_size=60))
def test_no_text_does_more_than_refuse(text: str) -> None:
    try:
        spec = parse_camera(text)
    except CameraOpenError:
        return
    assert spec.address


def multipart(bodies: list[bytes], with_length: bool) -> bytes:
    stream = b""
    for body in bodies:
        length = f"Content-Length: {len(body)}\r\n".encode() if with_length else b""
        stream += b"--cut\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + body + b"\r\n"
    return stream + b"--cut\r\n"


body_without_delimiter = st.binary(min_size=1, max_size=200).filter(
    lambda body: b"--cut" not in body and not body.endswith((b"-", b"\n", b"\r"))
)


@given(st.lists(body_without_delimiter, max_size=6), st.booleans(), st.lists(st.integers(1, 40)))
def test_parts_come_out_whole_however_the_stream_is_cut(
    bodies: list[bytes], with_length: bool, cuts: list[int]
) -> None:
    stream, parts, parser = multipart(bodies, with_length), [], MultipartParser(b"cut")
    for now, size in enumerate([*cuts, len(stream)]):
        parts += parser.feed(stream[:size], now)
        stream = stream[size:]
    assert [part.body for part in parts] == bodies


@given(st.lists(st.binary(max_size=300)))
def test_no_bytes_do_more_than_refuse(pieces: list[bytes]) -> None:
    parser = MultipartParser(b"x")
    try:
        for now, piece in enumerate(pieces):
            parser.feed(piece + b"--x\r\n", now)
    except MultipartError:
        return


def test_a_part_arrives_with_its_last_byte_not_with_the_next_boundary() -> None:
    parser = MultipartParser(b"cut")
    assert parser.feed(b"--cut\r\n\r\nabc", 100) == []
    assert parser.feed(b"def\r\n", 200) == []
    (part,) = parser.feed(b"--cut\r\n", 900)
    assert part == Part({}, b"abcdef", 200)


def test_a_picture_that_contains_the_boundary_survives_by_its_length() -> None:
    parser = MultipartParser(b"cut")
    body = b"a\r\n--cut\r\nb"
    (part,) = parser.feed(multipart([body], with_length=True), 0)
    assert part.body == body


@pytest.mark.parametrize("length", ["-1", "1e9", "99999999999", "abc"])
def test_an_absurd_length_is_refused(length: str) -> None:
    with pytest.raises(MultipartError):
        MultipartParser(b"c").feed(f"--c\r\nContent-Length: {length}\r\n\r\n".encode(), 0)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/x-mixed-replace; boundary=frame", b"frame"),
        ('Multipart/X-Mixed-Replace;boundary="--my frame"', b"my frame"),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type", ["", "image/jpeg", "multipart/x-mixed-replace", "text/html; boundary=a"]
)
def test_other_content_types_are_refused(content_type: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(content_type)


@pytest.mark.parametrize("raw", ["", "-5", "1.5", "9" * 30, "٣"])
def test_a_malformed_header_stamp_is_not_trusted(raw: str) -> None:
    part = Part({"x-boot-id": "b", "x-capture-monotonic-ns": raw}, b"", arrival_ns=100)
    assert header_stamp(part, "b") is None


def test_no_boot_id_of_our_own_trusts_nothing() -> None:
    part = Part({"x-boot-id": "", "x-capture-monotonic-ns": "5"}, b"", arrival_ns=100)
    assert header_stamp(part, "") is None


@given(st.binary(max_size=200))
def test_bytes_that_are_no_picture_decode_to_none(data: bytes) -> None:
    assert decode_jpeg(data) is None


def test_the_digest_sees_one_changed_value() -> None:
    picture = np.zeros((192, 192, 3), np.uint8)
    other = picture.copy()
    other[100, 7, 1] = 1
    assert digest(picture) != digest(other)


@pytest.mark.parametrize(
    ("capabilities", "device", "expected"),
    [(0x84A00001, 0x04200001, True), (0x84A00001, 0x04A00000, False), (0x04000001, 0, True), (0, 1, False)],
    ids=["capture node", "metadata node", "old driver", "not a capture device"],
)
def test_only_capture_nodes_are_cameras(capabilities: int, device: int, expected: bool) -> None:
    """Numbers as a UVC camera answers (videodev2.h)."""
    answer = struct.pack("=16s32s32sIII12x", b"uvcvideo", b"cam", b"usb", 0x60100, capabilities, device)
    assert captures(answer) is expected


def test_without_permission_the_group_to_join_is_named() -> None:
    refusal = PermissionError(errno.EACCES, "Permission denied")
    message = open_message("/dev/video0", refusal, os.stat("/").st_gid)
    assert "usermod -aG root" in message


def test_a_busy_device_says_how_to_find_the_other_program() -> None:
    assert "fuser" in open_message("/dev/video0", OSError(errno.EBUSY, "busy"), 0)


S = 1_000_000_000


@pytest.mark.parametrize(
    ("kernel_ns", "ours"),
    [
        (100 * S, True),
        (98 * S, True),
        (98 * S - 1, False),
        (100 * S + 1, False),
        (0, False),
        (1_700_000_000 * S, False),
    ],
    ids=["now", "2 s ago", "longer ago", "in the future", "none", "wall time"],
)
def test_a_kernel_stamp_shortly_before_the_arrival_is_of_our_clock(kernel_ns: int, ours: bool) -> None:
    assert on_our_clock(kernel_ns, 100 * S) == ours


@pytest.mark.parametrize(
    ("kernel_ns", "kernel_clock", "expected"),
    [
        (99 * S, True, (99 * S, StampSource.KERNEL)),
        (50 * S, True, (50 * S, StampSource.KERNEL)),
        (101 * S, True, (100 * S, StampSource.KERNEL)),
        (0, True, (100 * S - 30_000_000, StampSource.ARRIVAL)),
        (99 * S, False, (100 * S - 30_000_000, StampSource.ARRIVAL)),
    ],
    ids=["fresh", "a stalled device's old picture", "ahead", "none", "another clock"],
)
def test_the_stamp_of_a_v4l2_picture(
    kernel_ns: int, kernel_clock: bool, expected: tuple[int, StampSource]
) -> None:
    assert stamp(kernel_ns, 100 * S, kernel_clock, 30.0) == expected
