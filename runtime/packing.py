"""What the bodies of messages are made of besides fixed structs: texts and rows of doubles."""

from __future__ import annotations

import struct


class MessageError(ValueError):
    """Bytes that are not a message of this version and session."""


def pack_text(value: str) -> bytes:
    """A text of at most 4096 bytes, after its length."""
    raw = value.encode()[:4096]
    return struct.pack("<H", len(raw)) + raw


def read_text(body: bytes, offset: int, *, whole: bool = True) -> str:
    """The text at `offset`; `whole`: it must end the body. Raises `MessageError`."""
    (n,) = struct.unpack_from("<H", body, offset)
    end = offset + 2 + n
    if len(body) < end or (whole and len(body) != end):
        raise MessageError(f"a text of {n} bytes does not fit a body of {len(body)}")
    return body[offset + 2 : end].decode(errors="replace")


def floats(body: bytes, offset: int, count: int) -> tuple[float, ...]:
    """The last `count` doubles of a body. Raises `MessageError` for another size."""
    exact(body, offset + 8 * count)
    return struct.unpack_from(f"<{count}d", body, offset)


def exact(body: bytes, size: int) -> None:
    """Raises `MessageError` for a body of another size."""
    if len(body) != size:
        raise MessageError(f"a body of {len(body)} bytes, expected {size}")
