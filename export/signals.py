"""Signals that end a command: what is under way is unwound, so that nothing it has started is left behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Besides SIGINT, which Python itself turns into `KeyboardInterrupt`."""


class EndedBySignal(SystemExit):
    """One of `ENDING` arrived; its exit code is 128 + the signal's number, as shells say it."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(self.exit_code)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Within it the first of `ENDING` raises `EndedBySignal` in the main thread; later ones are ignored.

    A signal that was ignored before (as nohup does with SIGHUP) stays ignored.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within it SIGINT and `ENDING` wait. For imports, where libraries turn a Ctrl-C into an `ImportError`.

    Threads and processes started within inherit it for good; a thread started before still takes signals.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *ENDING))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    # The unwinding itself must not be interrupted. Not SIG_IGN: children would inherit that, and never end.
    for ending in ENDING:
        if signal.getsignal(ending) is _raise:
            signal.signal(ending, _do_nothing)
    raise EndedBySignal(number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Already ending."""
