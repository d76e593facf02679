"""Which other files an ONNX model reads its weights from, found without the package onnx.

A backend opens such files by itself, relative to the model or even to the current folder, so a bundle must
have declared (and verified) all of them. This walks the parts of the model's protobuf message that can hold
tensors (onnx.proto, IR version 11; the wire format: protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_DEPTH = 64
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Message -> field number -> the message in it, as far as tensors can be below."""


def external_files(model: bytes | memoryview) -> set[str]:
    """The locations named by the tensors of a serialised ModelProto. Raises `ValueError` for what is none."""
    return set(_locations(memoryview(model), "model", 0))


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    parts = _PARTS[kind]
    for number, value in _fields(message):
        inner = parts.get(number)
        if inner is None or value is None:
            continue
        if inner == "entry":
            entry = {key: text for key, text in _fields(value) if text is not None}
            if bytes(entry.get(1, b"")) == b"location":
                yield bytes(entry.get(2, b"")).decode("utf-8")
        else:
            yield from _locations(value, inner, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Field number and contents; None for the numbers, which hold nothing."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            _, at = _varint(message, at)
            yield number, None
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            yield number, None
        elif wire == 2:
            size, at = _varint(message, at)
            yield number, message[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire} is not used by ONNX")
    if at != end:
        raise ValueError("it is cut off")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than ten bytes")
