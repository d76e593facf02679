"""The computer's own watchdog (/dev/watchdog): resets the computer when control's loop hangs.

By choice (`--watchdog`). It is opened at arming, because opening starts it, fed by the tick itself, and
stopped by the "magic" last byte only where control ended in good order (Linux watchdog API,
Documentation/watchdog/watchdog-api.rst).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from ...drivers.errors import DriverError
from .ioctl import request

_INT = struct.Struct("@i")
SUPPORT = struct.Struct("@II32s")
"""`struct watchdog_info`: options, firmware version, identity."""
GET_SUPPORT = request("r", "W", 0, SUPPORT.size)
SET_TIMEOUT = request("rw", "W", 6, _INT.size)
GET_TIMEOUT = request("r", "W", 7, _INT.size)
MAGIC_CLOSE = 0x0100
WANTED_S = 5
"""Asked of the driver, which may have only others."""
FEED_NS = 1_000_000_000
LEAST_S = 3
"""Fed once a second, a shorter one could fire while all is well."""


class WatchdogError(DriverError):
    """The watchdog cannot be used: refused before torque."""


class Watchdog:
    """One watchdog; closed until `open`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._fed_ns = 0

    def check(self) -> None:
        """Whether it could be opened, without starting it. Raises `WatchdogError`."""
        try:
            mode = os.stat(self.path).st_mode
        except OSError as error:
            raise WatchdogError(f"watchdog {self.path}: {error.strerror}; see /dev/watchdog*") from error
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            raise WatchdogError(f"{self.path} is no watchdog; see /dev/watchdog*")
        if not os.access(self.path, os.W_OK):
            raise WatchdogError(
                f"no permission to open the watchdog {self.path}; give it a group by a udev rule, or use root"
            )

    def open(self, now_ns: int) -> str:
        """Starts it; returns name and time-out in words. Raises `WatchdogError`."""
        self.check()
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            hint = (
                " (systemd's RuntimeWatchdogSec= or another program?)" if error.errno == errno.EBUSY else ""
            )
            raise WatchdogError(
                f"the watchdog {self.path} cannot be opened: {error.strerror}{hint}"
            ) from error
        try:
            text = self._set_up()
        except BaseException:
            self.close(orderly=True)
            raise
        self._fed_ns = now_ns
        return text

    def feed(self, now_ns: int) -> None:
        """At every good tick; writes once a second. Raises `OSError`."""
        if self._fd >= 0 and now_ns - self._fed_ns >= FEED_NS:
            self._fed_ns = now_ns
            os.write(self._fd, b"\0")

    def close(self, *, orderly: bool) -> None:
        """Stops it where control ends in good order; else it goes on and resets the computer."""
        if self._fd < 0:
            return
        try:
            if orderly:
                os.write(self._fd, b"V")
        finally:
            os.close(self._fd)
            self._fd = -1

    def _set_up(self) -> str:
        support, seconds = bytearray(SUPPORT.size), bytearray(_INT.pack(WANTED_S))
        try:
            fcntl.ioctl(self._fd, GET_SUPPORT, support)
        except OSError as error:
            raise WatchdogError(f"{self.path} is no watchdog ({error.strerror})") from error
        options, _, name = SUPPORT.unpack(support)
        try:
            fcntl.ioctl(self._fd, SET_TIMEOUT, seconds)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
                raise WatchdogError(f"{self.path} takes no time-out: {error.strerror}") from error
        try:
            fcntl.ioctl(self._fd, GET_TIMEOUT, seconds)
        except OSError as error:
            raise WatchdogError(f"{self.path} does not tell its time-out: {error.strerror}") from error
        (timeout_s,) = _INT.unpack(seconds)
        if timeout_s < LEAST_S:
            raise WatchdogError(f"{self.path} fires after {timeout_s} s; {LEAST_S} are needed")
        called = name.partition(b"\0")[0].decode(errors="replace")
        text = f"{self.path} ({called}), resets the computer {timeout_s} s after control's last tick"
        if not options & MAGIC_CLOSE or _never_stops(self.path):
            return f"{text}; it CANNOT be stopped, so also after control's end"
        return f"{text}; stopped only by an orderly end"


def _never_stops(path: str, sysfs: Path = Path("/sys/class/watchdog")) -> bool:
    """Whether the driver is set to `nowayout`."""
    name = "watchdog0" if os.path.basename(path) == "watchdog" else os.path.basename(path)
    try:
        return (sysfs / name / "nowayout").read_text().strip() == "1"
    except OSError:
        return False
