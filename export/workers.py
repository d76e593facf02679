"""Worker processes that never outlive the command that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.pool
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def worker_pool(processes: int) -> Iterator[multiprocessing.pool.Pool]:
    """A pool of spawned processes; terminated on leaving, and gone when this process is, even if killed.

    Ctrl-C reaches this process alone; call from the main thread.
    """
    # Children inherit an ignored SIGINT: else each would print a traceback of its own.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pool = multiprocessing.get_context("spawn").Pool(processes, _watch_parent)
    finally:
        signal.signal(signal.SIGINT, before)
    with pool:
        yield pool


def _watch_parent() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker watches its parent"
    parent.join()
    os._exit(1)
