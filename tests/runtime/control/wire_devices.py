"""Input devices, GPIO chips and watchdogs without a kernel that has them: fakes at the wire.

Each is a FIFO, so that open, read, write and the end of the file are real; what `ioctl` would tell stands in
a file beside it. As a program it runs the control process on them:
`python wire_devices.py --supervisor-fd A --policy-fd B`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast.runtime.control import evdev, gpio, process, watchdog

real_ioctl = fcntl.ioctl


class Device:
    """A FIFO at `path`, with what its driver knows."""

    def __init__(self, path: Path, **knows: Any) -> None:
        self.path = path
        self._knows = knows
        self.plug()

    def plug(self) -> None:
        self.path.unlink(missing_ok=True)
        os.mkfifo(self.path)
        self.answer()

    def plug_dumb(self) -> None:
        """Its node is there, but whoever opens it, and is willing to wait, waits until `answer`."""
        os.mkfifo(self.path)

    def answer(self) -> None:
        self.tell()
        self.fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def tell(self, **changes: Any) -> None:
        self._knows.update(changes)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._knows))
        temporary.replace(f"{self.path}.driver")

    def unplug(self) -> None:
        """Its node goes, who has it open reads the end of the file, and the driver knows no more."""
        self.path.unlink()
        Path(f"{self.path}.driver").unlink()
        os.close(self.fd)


class Keys(Device):
    """An input device with keys."""

    def __init__(self, path: Path, keys: tuple[int, ...] = (28, 57), name: str = "ACME Button") -> None:
        self.down: set[int] = set()
        super().__init__(path, name=name, keys=list(keys), down=[])

    def send(self, *events: tuple[int, int, int]) -> None:
        rows = [*events, (evdev.EV_SYN, 0, 0)]
        os.write(self.fd, b"".join(evdev.EVENT.pack(1, 2, *event) for event in rows))

    def press(self, key: int) -> None:
        self.down.add(key)
        self.tell(down=sorted(self.down))
        self.send((evdev.EV_KEY, key, 1))

    def release(self, key: int) -> None:
        self.down.discard(key)
        self.tell(down=sorted(self.down))
        self.send((evdev.EV_KEY, key, 0))

    def tap(self, key: int) -> None:
        """Down and up between two looks."""
        self.send((evdev.EV_KEY, key, 1), (evdev.EV_KEY, key, 0))


class Chip(Device):
    """A GPIO chip; `high` are its lines that carry a voltage."""

    def __init__(self, path: Path, high: tuple[int, ...] = ()) -> None:
        super().__init__(path, label="acme-gpio", lines=32, high=list(high), used={})


class Dog(Device):
    """A watchdog; what it was fed can be read."""

    def __init__(self, path: Path, timeout_s: int = 60, shortest_s: int = 1) -> None:
        super().__init__(path, name="acme-wdt", timeout=timeout_s, shortest=shortest_s, options=0x8180)

    def eaten(self) -> bytes:
        with suppress(BlockingIOError):
            return os.read(self.fd, 4096)
        return b""


def ioctl(fd: int, number: int, argument: Any = 0) -> int:
    """Answers for the devices above; everything else goes to the kernel."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return real_ioctl(fd, number, argument)
    path = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
    driver = Path(f"{path}.driver")
    try:
        knows = json.loads(driver.read_text())
    except FileNotFoundError:
        if number in ANSWERS and number != evdev.GET_NAME:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
        return real_ioctl(fd, number, argument)
    answer = ANSWERS.get(number)
    if answer is None:
        return real_ioctl(fd, number, argument)
    return answer(fd, driver, knows, argument)


def _bits(keys: list[int]) -> bytes:
    value = sum(1 << key for key in keys)
    return value.to_bytes(evdev.KEY_BYTES, "little")


def _name(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    argument[: len(knows["name"])] = knows["name"].encode()
    return len(knows["name"])


def _id(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    argument[:] = (3).to_bytes(2, "little") + b"\x34\x12\xcd\xab" + b"\x11\x01"
    return 0


def _chip(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    gpio.CHIP_INFO.pack_into(argument, 0, b"gpiochip0", knows["label"].encode(), knows["lines"])
    return 0


def _line_info(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    offset = gpio.LINE_INFO.unpack(argument)[2]
    gpio.LINE_INFO.pack_into(
        argument, 0, f"PIN{offset}".encode(), knows["used"].get(str(offset), "").encode(), offset, 0, 0
    )
    return 0


def _line(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    offset, _, flags, _, count, _, _ = gpio.LINE_REQUEST.unpack(argument)
    assert count == 1
    assert flags & gpio.INPUT
    if str(offset) in knows["used"]:
        raise OSError(errno.EBUSY, "busy")
    if flags & gpio.BIAS["pull-down"] and knows.get("no_bias"):
        raise OSError(errno.EINVAL, "invalid")
    line = os.open(os.readlink(f"/proc/self/fd/{fd}"), os.O_RDWR)
    LINES[line] = (offset, bool(flags & gpio.ACTIVE_LOW))
    argument[-4:] = line.to_bytes(4, "little")
    return 0


def _values(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    offset, active_low = LINES[fd]
    assert gpio.VALUES.unpack(argument) == (0, 1)
    gpio.VALUES.pack_into(argument, 0, int((offset in knows["high"]) != active_low), 1)
    return 0


def _support(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    watchdog.SUPPORT.pack_into(argument, 0, knows["options"], 0, knows["name"].encode())
    return 0


def _set_timeout(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    asked = int.from_bytes(argument, "little")
    if asked < knows["shortest"]:
        raise OSError(errno.EINVAL, "invalid")
    driver.write_text(json.dumps({**knows, "timeout": asked}))
    return 0


def _get_timeout(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    argument[:] = knows["timeout"].to_bytes(4, "little")
    return 0


def _keys(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    argument[:] = _bits(knows["down"])
    return 0


def _keys_there(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
    argument[:] = _bits(knows["keys"])
    return 0


LINES: dict[int, tuple[int, bool]] = {}
ANSWERS = {
    evdev.GET_NAME: _name,
    evdev.GET_ID: _id,
    evdev.GET_KEYS: _keys,
    evdev.GET_KEYS_THERE: _keys_there,
    evdev.SET_MASK: lambda *_: 0,
    gpio.GET_CHIP: _chip,
    gpio.GET_LINE_INFO: _line_info,
    gpio.GET_LINE: _line,
    gpio.GET_VALUES: _values,
    watchdog.GET_SUPPORT: _support,
    watchdog.SET_TIMEOUT: _set_timeout,
    watchdog.GET_TIMEOUT: _get_timeout,
}


if __name__ == "__main__":
    fcntl.ioctl = ioctl  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(process.main())
