"""What a person does to a running supervisor: signals and keys, both as file descriptors to poll."""

from __future__ import annotations

import os
import signal
import socket
import sys
import termios
import tty
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Turns signals into numbers that can be read; a context manager that restores what was there.

    A SIGHUP or SIGINT that was ignored at start (nohup, a background shell job) stays ignored.
    """

    def __enter__(self) -> Signals:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before = {}
        for number in _SIGNALS:
            if number in (signal.SIGHUP, signal.SIGINT) and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, _nothing)
        self._fd_before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        return self._read.fileno()

    def read(self) -> list[int]:
        """The signals that came since the last call."""
        try:
            return [number for number in self._read.recv(64) if number in _SIGNALS]
        except BlockingIOError:
            return []


def _nothing(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has the number already."""


class Keyboard:
    """Single keys of the terminal on standard input; a context manager. `active` is False without one."""

    def __enter__(self) -> Keyboard:
        self._fd = -1
        self._before: list | None = None
        if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
            fd = sys.stdin.fileno()
            if os.tcgetpgrp(fd) == os.getpgrp():
                self._fd = fd
                self._before = termios.tcgetattr(fd)
                tty.setcbreak(fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            try:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            except termios.error:
                # The terminal itself is gone (a closed window): nothing is left to restore.
                self._before = None

    @property
    def active(self) -> bool:
        return self._before is not None

    def fileno(self) -> int:
        return self._fd

    def read(self) -> str | None:
        """The keys pressed since the last call; None when the terminal is gone."""
        try:
            data = os.read(self._fd, 64)
        except OSError:
            return None
        return data.decode(errors="ignore") if data else None
