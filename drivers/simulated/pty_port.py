"""The simulated serial port: a pty behind a stable path."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
import tty
from pathlib import Path

READ_BYTES = 4096
PASSAGE_TIMEOUT_S = 1.0
_STAMP = struct.Struct("<Q")


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
    def fd(self) -> int | None:
        """The simulator's end, to poll; None while unplugged."""
        return self._ends[0] if self._ends else None

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

    def measure_delay_ns(self, tries: int = 30) -> int:
        """What this machine's pty and timers cost at the least, per request and its reply (ns).

        The sum of the shortest times seen for a byte to get through the pty in either direction and for a
        sleep to end late. To be called while no host has the port open; bytes in the port are lost.
        """
        if self._ends is None:
            return 0
        near, far = self._ends
        return (
            min(_passages_ns(far, near, tries))
            + min(_passages_ns(near, far, tries))
            + min(_oversleep_ns() for _ in range(tries))
        )

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


def _passages_ns(source: int, sink: int, tries: int) -> list[int]:
    """How long a few bytes take from one end to a sleeper at the other.

    They are written by another thread: a byte written by the sleeper itself would be there before it sleeps.
    """

    def send() -> None:
        for _ in range(tries):
            time.sleep(0.0005)
            os.write(source, _STAMP.pack(time.monotonic_ns()))

    sender = threading.Thread(target=send)
    sender.start()
    taken: list[int] = []
    while len(taken) < tries and select.select([sink], [], [], PASSAGE_TIMEOUT_S)[0]:
        now_ns = time.monotonic_ns()
        data = os.read(sink, READ_BYTES)
        taken += [now_ns - sent_ns for (sent_ns,) in _STAMP.iter_unpack(data)]
    sender.join()
    return taken or [0]


def _oversleep_ns(sleep_ns: int = 200_000) -> int:
    """How much later than asked a short sleep ends."""
    start_ns = time.monotonic_ns()
    select.select([], [], [], sleep_ns * 1e-9)
    return time.monotonic_ns() - start_ns - sleep_ns
