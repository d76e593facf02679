"""A key of an input device, read by the kernel's own interface (linux/input.h): no library in between.

Both are looked at: the events since the last look, so that a short press counts, and the state of the key
itself, so that nothing depends on every event having come (a full buffer, a program that grabbed the device).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from ...drivers.errors import ConfigError
from .input_spec import EvdevSpec
from .ioctl import request
from .key_names import KEY_COUNT

EVENT = struct.Struct("@llHHi")
"""`struct input_event`: seconds, microseconds (C `long`), type, code, value."""
EV_SYN, EV_KEY = 0, 1
SYN_DROPPED = 3
KEY_BYTES = KEY_COUNT // 8
_NAME_BYTES, _ID_BYTES = 256, 8
GET_ID = request("r", "E", 0x02, _ID_BYTES)
GET_NAME = request("r", "E", 0x06, _NAME_BYTES)
GET_KEYS = request("r", "E", 0x18, KEY_BYTES)
"""Which keys are down."""
GET_KEYS_THERE = request("r", "E", 0x20 + EV_KEY, KEY_BYTES)
"""Which keys the device has."""
SET_MASK = request("w", "E", 0x93, 16)
_MASK = struct.Struct("@IIQ")
_READ_BYTES = 64 * EVENT.size
_TYPES_BYTES = 8
"""All types of events as bits; a multiple of C `long`, or the kernel refuses it."""
_MOST_READS = 8
"""In one tick; what a flood leaves comes in the next."""


class EvdevKey:
    """An open input device. `read` never blocks; it raises `OSError` once the device is gone."""

    def __init__(self, spec: EvdevSpec, *, doubt: bool) -> None:
        """Opens it. `doubt`: what lost events count as (a press of a stop input, no press of a reset).

        Raises `OSError`, and `ConfigError` for a device without that key.
        """
        self._key = spec.key
        self._doubt = doubt
        self._keys = bytearray(KEY_BYTES)
        self._fd = os.open(spec.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.identity = self._identify(spec)
            self._only_keys()
        except BaseException:
            self.close()
            raise
        self.description = f"{self.identity.partition(' (')[0]}, {spec.key_text}"

    def read(self) -> bool:
        """Whether the key is down, or was pressed since the last call."""
        pressed = False
        for _ in range(_MOST_READS):
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                break
            if not data or len(data) % EVENT.size:
                raise OSError(errno.ENODEV, f"{len(data)} bytes where whole events were expected")
            pressed |= presses(data, self._key, self._doubt)
            if len(data) < _READ_BYTES:
                break
        return pressed or self._down()

    def close(self) -> None:
        os.close(self._fd)

    def _down(self) -> bool:
        fcntl.ioctl(self._fd, GET_KEYS, self._keys)
        return has_key(self._keys, self._key)

    def _identify(self, spec: EvdevSpec) -> str:
        name, numbers, there = bytearray(_NAME_BYTES), bytearray(_ID_BYTES), bytearray(KEY_BYTES)
        try:
            fcntl.ioctl(self._fd, GET_NAME, name)
            fcntl.ioctl(self._fd, GET_ID, numbers)
            fcntl.ioctl(self._fd, GET_KEYS_THERE, there)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                raise ConfigError(
                    f"{spec.path} is no input device; see /dev/input/by-id/ and /proc/bus/input/devices"
                ) from error
            raise
        text = bytes(name).partition(b"\0")[0].decode(errors="replace")
        if not has_key(there, spec.key):
            wanted = "keys" if spec.key is None else spec.key_text
            raise ConfigError(f"{spec.path} ({text}) has no {wanted}: another device?")
        _, vendor, product, version = struct.unpack("@HHHH", numbers)
        return f"{text!r} ({vendor:04x}:{product:04x}, version {version:04x})"

    def _only_keys(self) -> None:
        """Asks for no other events, so that the sticks of a pad cannot fill the buffer."""
        types = ctypes.create_string_buffer(bytes([1 << EV_KEY]), _TYPES_BYTES)
        mask = _MASK.pack(EV_SYN, _TYPES_BYTES, ctypes.addressof(types))
        try:
            fcntl.ioctl(self._fd, SET_MASK, mask)
        except OSError as error:
            # Kernels before 4.4 have no masks; then all events come, which is right, too.
            if error.errno != errno.EINVAL:
                raise


def presses(data: bytes, key: int | None, doubt: bool) -> bool:
    """Whether whole events hold a press of `key` (None: of any); `doubt` if the kernel had to drop some."""
    for kind, code, value in decode(data):
        if kind == EV_KEY and value and key in (None, code):
            return True
        if kind == EV_SYN and code == SYN_DROPPED and doubt:
            return True
    return False


def decode(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(type, code, value) of each event."""
    for _, _, kind, code, value in EVENT.iter_unpack(data):
        yield kind, code, value


def has_key(bits: bytes | bytearray, key: int | None) -> bool:
    """Whether a kernel's set of keys holds `key` (None: any)."""
    return any(bits) if key is None else bool(bits[key >> 3] & 1 << (key & 7))
