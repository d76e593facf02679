"""Worker processes that never outlive the command that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from .signals import held

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Iterator[Result]]:
    """The results of `function` for all `items`, in their order, computed in spawned processes.

    The processes are killed on leaving, and end by themselves when this one is gone. Signals that reach the
    whole process group (Ctrl-C, a terminal that closes) are this process's business alone.
    """
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        # The workers inherit that, and for good.
        with held():
            futures = [executor.submit(function, item) for item in items]
        yield (future.result() for future in futures)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child not in others:
                child.kill()


def _end_with_parent() -> None:
    threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker watches its parent"
    parent.join()
    os._exit(1)
