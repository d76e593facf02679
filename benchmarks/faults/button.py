"""A stop input without a kernel that has one: a FIFO stands for the device, and what its driver would answer.

`control` opens and reads the FIFO as it would a device in /dev/input; only the `ioctl` calls, which a FIFO
does not know, are answered here, in the saboteur of the control process, from a small file beside it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = b"Holdfast campaign button"
KEY = 57
"""KEY_SPACE"""
EVENT = struct.Struct("@llHHi")
"""`struct input_event` (linux/input.h): seconds, microseconds, type, code, value."""
EV_SYN, EV_KEY = 0, 1


class Button:
    """The worker's hand on it."""

    def __init__(self, path: Path) -> None:
        """Plugs it in, not pressed."""
        self._path = path
        self._fd = -1
        self.plug()

    @property
    def spec(self) -> str:
        """For vla-run --stop-input."""
        return f"evdev:{self._path}?key=KEY_SPACE"

    def press(self) -> int:
        """When (ns)."""
        at_ns = time.monotonic_ns()
        self._know(True)
        self._send(1)
        return at_ns

    def let_go(self) -> None:
        self._know(False)
        self._send(0)

    def unplug(self) -> int:
        """Its node goes, and who reads it gets the end of the file. When (ns)."""
        at_ns = time.monotonic_ns()
        self._path.unlink(missing_ok=True)
        self._driver.unlink(missing_ok=True)
        self.close()
        return at_ns

    def plug(self) -> None:
        """Makes it appear; nothing if it is there."""
        if self._fd >= 0:
            return
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        self._know(False)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def _driver(self) -> Path:
        return self._path.with_name(f"{self._path.name}.driver")

    def _know(self, down: bool) -> None:
        fresh = self._driver.with_suffix(".new")
        fresh.write_text("down" if down else "up")
        fresh.replace(self._driver)

    def _send(self, value: int) -> None:
        with suppress(BlockingIOError):
            os.write(self._fd, EVENT.pack(0, 0, EV_KEY, KEY, value) + EVENT.pack(0, 0, EV_SYN, 0, 0))


def answer_for_buttons() -> None:
    """In the control process: `ioctl` knows the buttons above; everything else goes to the kernel."""
    from ...runtime.control import evdev

    real = fcntl.ioctl

    def ioctl(fd: int, number: int, argument: Any = 0, *rest: Any) -> Any:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return real(fd, number, argument, *rest)
        path = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
        try:
            down = Path(f"{path}.driver").read_text() == "down"
        except FileNotFoundError:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
        if number == evdev.GET_NAME:
            argument[: len(NAME)] = NAME
        elif number == evdev.GET_ID:
            argument[:] = struct.pack("@HHHH", 3, 0x1234, 0xABCD, 0x0111)
        elif number == evdev.GET_KEYS_THERE or (number == evdev.GET_KEYS and down):
            argument[:] = (1 << KEY).to_bytes(evdev.KEY_BYTES, "little")
        elif number == evdev.GET_KEYS:
            argument[:] = bytes(evdev.KEY_BYTES)
        elif number != evdev.SET_MASK:
            return real(fd, number, argument, *rest)
        return 0

    fcntl.ioctl = ioctl
