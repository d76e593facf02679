"""The simulated serial port: a pty behind a stable path."""

from __future__ import annotations

import contextlib
import os
import tty
from pathlib import Path

READ_BYTES = 4096


class PtyPort:
    """A pty whose far end is reached through the symbolic link `link`.

    The simulator keeps the far end open itself, so that hosts may open and close it as they like.
    """

    def __init__(self, link: Path) -> None:
        self.link = link
        self.lost_bytes = 0
        """Bytes for the host that found no room, because nobody reads."""
        self._ends: tuple[int, int] | None = None
        self.plug()

    @property
    def url(self) -> str:
        return f"serial:{self.link}"

    @property
    def plugged(self) -> bool:
        return self._ends is not None

    def fds(self) -> list[int]:
        """Descriptors to poll; `read` when one is readable."""
        return [self._ends[0]] if self._ends else []

    def plug(self) -> None:
        """Makes the port appear; nothing if it is there."""
        if self._ends is not None:
            return
        near, far = os.openpty()
        tty.setraw(far)
        os.set_blocking(near, False)
        self._ends = near, far
        fresh = self.link.with_name(f".{self.link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(far))
        fresh.replace(self.link)

    def unplug(self) -> None:
        """Makes the port vanish; a host that has it open gets EIO or end of file."""
        if self._ends is None:
            return
        self.link.unlink(missing_ok=True)
        for end in self._ends:
            os.close(end)
        self._ends = None

    def read(self) -> bytes:
        """What the host has sent since the last call; empty if nothing."""
        if self._ends is None:
            return b""
        with contextlib.suppress(BlockingIOError):
            return os.read(self._ends[0], READ_BYTES)
        return b""

    def write(self, data: bytes) -> None:
        """Sends to the host, without ever waiting for it."""
        if self._ends is None:
            return
        written = 0
        with contextlib.suppress(BlockingIOError):
            written = os.write(self._ends[0], data)
        self.lost_bytes += len(data) - written
