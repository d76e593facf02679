"""Request numbers of Linux `ioctl` (asm-generic/ioctl.h: x86, ARM, RISC-V). Pure."""

from __future__ import annotations

from typing import Literal

_DIRECTION = {"w": 1, "r": 2, "rw": 3}


def request(direction: Literal["r", "w", "rw"], kind: str | int, number: int, size: int) -> int:
    """`_IOR`, `_IOW`, `_IOWR` of a structure of `size` bytes."""
    letter = ord(kind) if isinstance(kind, str) else kind
    return _DIRECTION[direction] << 30 | size << 16 | letter << 8 | number
