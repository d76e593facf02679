"""Signals unwind a command once, and wait while it imports."""

from __future__ import annotations

import signal

import pytest

from holdfast.export.signals import EndedBySignal, held, unwinding


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_unwinds_once_with_the_shells_exit_code(number: signal.Signals) -> None:
    unwound = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            unwound.append(number)

    before = signal.getsignal(number)
    with pytest.raises(EndedBySignal) as ended, unwinding():
        work()
    assert unwound == [number]
    assert ended.value.code == 128 + number
    assert ended.value.name == number.name
    assert signal.getsignal(number) is before


def test_an_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with unwinding():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_wait_while_held() -> None:
    reached = []

    def work() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["the end"]
