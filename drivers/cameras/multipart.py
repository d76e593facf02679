"""The pure part of an MJPEG stream: bytes of multipart/x-mixed-replace in, complete parts out (RFC 2046)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

MAX_HEADER_BYTES = 16_384
MAX_BODY_BYTES = 64 * 1024 * 1024


class MultipartError(ValueError):
    """Bytes that are no multipart stream, or larger than any picture."""


@dataclass(frozen=True, slots=True)
class Part:
    """One complete part. Header names are in lower case."""

    headers: dict[str, str]
    body: bytes
    arrival_ns: int
    """When the last byte of the body arrived (not when the next boundary showed that it was the last)."""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type declares. Raises `MultipartError` when it is no multipart type."""
    kind, *parameters = content_type.split(";")
    if not kind.strip().lower().startswith("multipart/"):
        raise MultipartError(f"expected multipart/x-mixed-replace, got {content_type or 'no Content-Type'!r}")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "boundary":
            # Many cameras declare the boundary with the dashes of the delimiter already on it.
            token = value.strip().strip('"').lstrip("-")
            if token:
                return token.encode("latin-1")
    raise MultipartError(f"a multipart stream without a boundary: {content_type!r}")


class MultipartParser:
    """Feeds on bytes as they arrive, in pieces of any size."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"--" + boundary
        self._data = bytearray()
        self._headers: dict[str, str] | None = None
        self._length: int | None = None
        self._scanned = 0
        self._start = 0
        """Stream offset of `_data[0]`."""
        self._ends: list[int] = []
        """Stream offsets at which received pieces ended, and when each arrived."""
        self._times: list[int] = []

    def feed(self, data: bytes, arrival_ns: int) -> list[Part]:
        """The parts that these bytes complete, oldest first. Raises `MultipartError`."""
        self._data += data
        self._ends.append(self._start + len(self._data))
        self._times.append(arrival_ns)
        parts = []
        while True:
            if self._headers is None and not self._take_headers():
                return parts
            part = self._take_body()
            if part is None:
                return parts
            parts.append(part)

    def _take_headers(self) -> bool:
        at = self._data.find(self._delimiter)
        if at < 0:
            if len(self._data) > MAX_HEADER_BYTES:
                raise MultipartError(f"no boundary in {len(self._data)} bytes")
            return False
        self._drop(at)
        line = self._data.find(b"\n")
        if line < 0:
            return False
        end = _end_of_headers(self._data, line + 1)
        if end is None:
            if len(self._data) > MAX_HEADER_BYTES:
                raise MultipartError(f"the headers of a part are over {MAX_HEADER_BYTES} bytes")
            return False
        self._headers = _parse_headers(bytes(self._data[line + 1 : end]))
        self._length = _content_length(self._headers)
        self._drop(end)
        self._scanned = 0
        return True

    def _take_body(self) -> Part | None:
        if self._length is not None:
            if len(self._data) < self._length:
                return None
            return self._finish(self._length, self._length)
        at = self._data.find(self._delimiter, self._scanned)
        if at < 0:
            if len(self._data) > MAX_BODY_BYTES:
                raise MultipartError(f"a part is over {MAX_BODY_BYTES} bytes")
            self._scanned = max(0, len(self._data) - len(self._delimiter))
            return None
        end = at
        while end > 0 and self._data[end - 1] == ord("-"):
            end -= 1
        for ending in (b"\r\n", b"\n"):
            if self._data[:end].endswith(ending):
                end -= len(ending)
                break
        return self._finish(end, at)

    def _finish(self, body_end: int, drop: int) -> Part:
        headers, self._headers, self._length = self._headers or {}, None, None
        index = bisect_left(self._ends, self._start + body_end)
        part = Part(headers, bytes(self._data[:body_end]), self._times[min(index, len(self._times) - 1)])
        self._drop(drop)
        return part

    def _drop(self, count: int) -> None:
        del self._data[:count]
        self._start += count
        done = bisect_left(self._ends, self._start)
        # The piece that ends exactly here may still hold the last byte of an empty body: keep it.
        del self._ends[:done], self._times[:done]


def _end_of_headers(data: bytearray, start: int) -> int | None:
    """Offset after the blank line that ends the headers which begin at `start`."""
    position = start
    while True:
        line = data.find(b"\n", position)
        if line < 0:
            return None
        if data[position:line].strip() == b"":
            return line + 1
        position = line + 1


def _parse_headers(raw: bytes) -> dict[str, str]:
    headers = {}
    for line in raw.decode("latin-1").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            headers[key.strip().lower()] = value.strip()
    return headers


def _content_length(headers: dict[str, str]) -> int | None:
    raw = headers.get("content-length")
    if raw is None:
        return None
    if not raw.isascii() or not raw.isdigit() or len(raw) > 12:
        raise MultipartError(f"a part with Content-Length {raw!r}")
    length = int(raw)
    if length > MAX_BODY_BYTES:
        raise MultipartError(f"a part of {length} bytes, over {MAX_BODY_BYTES}")
    return length
