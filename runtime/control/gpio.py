"""A GPIO line, read by the kernel's own interface (linux/gpio.h, version 2, Linux 5.10), without a library.

Its level is looked at in every tick. Edges are not waited for: an edge that is missed would be missed for
ever, a level stays.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from ...drivers.errors import ConfigError
from .input_spec import GpioSpec
from .ioctl import request

CHIP_INFO = struct.Struct("@32s32sI")
"""`struct gpiochip_info`: name, label, lines."""
LINE_INFO = struct.Struct("@32s32sIIQ160x16x")
"""`struct gpio_v2_line_info`: name, consumer, offset, attributes, flags."""
LINE_REQUEST = struct.Struct("@I252x32sQI20x240xII20xi")
"""`struct gpio_v2_line_request`: first offset, consumer, flags, attributes, lines, event buffer, fd."""
VALUES = struct.Struct("@QQ")
"""`struct gpio_v2_line_values`: bits, mask."""
GET_CHIP = request("r", 0xB4, 0x01, CHIP_INFO.size)
GET_LINE_INFO = request("rw", 0xB4, 0x05, LINE_INFO.size)
GET_LINE = request("rw", 0xB4, 0x07, LINE_REQUEST.size)
GET_VALUES = request("rw", 0xB4, 0x0E, VALUES.size)
ACTIVE_LOW, INPUT = 1 << 1, 1 << 2
BIAS = {"as-is": 0, "pull-up": 1 << 8, "pull-down": 1 << 9, "disabled": 1 << 10}
CONSUMER = b"holdfast"
SLOW_NS = 500_000
"""A line that takes longer to read sits behind a bus (an I2C expander) and would block the tick."""
_MEASURED_READS = 5


class GpioLine:
    """A requested line. `read` blocks for microseconds; it raises `OSError` once the chip is gone."""

    def __init__(self, spec: GpioSpec) -> None:
        """Requests it as an input. Raises `OSError`, and `ConfigError` for what is no line, is used by others
        or is too slow."""
        self._values = bytearray(VALUES.size)
        chip = os.open(spec.chip, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._fd, self.identity = _request(chip, spec)
        finally:
            os.close(chip)
        try:
            taken_ns = min(self._timed_read() for _ in range(_MEASURED_READS))
            if taken_ns > SLOW_NS:
                raise ConfigError(
                    f"{spec.text}: reading the line takes {taken_ns / 1e6:.1f} ms, at most "
                    f"{SLOW_NS / 1e6:g} fit into a tick; use a line of the processor itself, no expander"
                )
        except BaseException:
            self.close()
            raise
        level = "low" if spec.active_low else "high"
        bias = "" if spec.bias == "as-is" else f", {spec.bias}"
        self.description = f"{self.identity}, pressed while {level}{bias}, read in {taken_ns / 1e3:.0f} us"

    def read(self) -> bool:
        """Whether the line is active now."""
        VALUES.pack_into(self._values, 0, 0, 1)
        fcntl.ioctl(self._fd, GET_VALUES, self._values)
        return bool(self._values[0] & 1)

    def close(self) -> None:
        os.close(self._fd)

    def _timed_read(self) -> int:
        start_ns = time.monotonic_ns()
        self.read()
        return time.monotonic_ns() - start_ns


def request_of(spec: GpioSpec) -> bytes:
    """The structure that asks the kernel for the line."""
    flags = INPUT | BIAS[spec.bias] | (ACTIVE_LOW if spec.active_low else 0)
    return LINE_REQUEST.pack(spec.line, CONSUMER, flags, 0, 1, 0, -1)


def _request(chip: int, spec: GpioSpec) -> tuple[int, str]:
    """The line's descriptor, and chip and line in words."""
    about, info = bytearray(CHIP_INFO.size), bytearray(LINE_INFO.size)
    try:
        fcntl.ioctl(chip, GET_CHIP, about)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            raise ConfigError(f"{spec.chip} is no GPIO chip; see /dev/gpiochip* and gpioinfo") from error
        raise
    name, label, lines = CHIP_INFO.unpack(about)
    if spec.line >= lines:
        raise ConfigError(f"{spec.text}: {_text(name)} ({_text(label)}) has lines 0 to {lines - 1}")
    LINE_INFO.pack_into(info, 0, b"", b"", spec.line, 0, 0)
    fcntl.ioctl(chip, GET_LINE_INFO, info)
    line_name, consumer, *_ = LINE_INFO.unpack(info)
    wanted = bytearray(request_of(spec))
    try:
        fcntl.ioctl(chip, GET_LINE, wanted)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ConfigError(f"{spec.text}: the line is used by {_text(consumer) or 'another'}") from error
        if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ENXIO):
            raise ConfigError(
                f"{spec.text}: the chip refuses this line as an input with bias={spec.bias} "
                f"({error.strerror}); leave the bias out and use a resistor"
            ) from error
        raise
    called = f" {_text(line_name)!r}" if line_name.strip(b"\0") else ""
    return LINE_REQUEST.unpack(wanted)[-1], f"{_text(label) or _text(name)}, line {spec.line}{called}"


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")
