"""The workers of a campaign: processes that take one order after another and answer each with a trial."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .campaign import Order

TRIAL_S = 180.0
"""A worker that has not answered for so long is given up, with all that it has started."""
END_S = 60.0


class WorkerDied(Exception):
    """A worker has ended although nobody asked it to."""


class Workers:
    """A context manager; leaving it ends them, and they end what they have started."""

    def __init__(self, count: int, cores: Sequence[int], bundle: Path, folder: Path) -> None:
        self._logs: list[Path] = []
        self._processes: list[subprocess.Popen[str]] = []
        for index in range(count):
            log = folder / f"worker-{index}.log"
            self._logs.append(log)
            with log.open("wb") as errors:
                self._processes.append(
                    subprocess.Popen(
                        [
                            sys.executable, "-m", "holdfast.benchmarks.faults.worker",
                            "--core", str(cores[index % len(cores)]),
                            "--folder", str(folder / f"worker-{index}"), "--bundle", str(bundle),
                        ],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                        start_new_session=True,
                    )
                )  # fmt: skip

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.close()
            except BrokenPipeError:
                continue
        for process in self._processes:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def work(self, queue: deque[Order], seed: int) -> Iterator[tuple[Order, dict[str, Any]]]:
        """Answers as they come. What is put into the queue meanwhile is done, too. Raises `WorkerDied`."""
        busy: dict[int, Order] = {}
        with selectors.DefaultSelector() as selector:
            for index, process in enumerate(self._processes):
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ, index)
                self._give(index, queue, seed, busy)
            while busy:
                ready = selector.select(TRIAL_S)
                if not ready:
                    raise WorkerDied(
                        f"no trial has ended for {TRIAL_S:g} s: {sorted(busy.values(), key=str)}"
                    )
                for key, _ in ready:
                    index: int = key.data
                    line = self._read(index)
                    order = busy.pop(index)
                    yield order, json.loads(line)
                    self._give(index, queue, seed, busy)
                for index in range(len(self._processes)):
                    if index not in busy:
                        self._give(index, queue, seed, busy)

    def _give(self, index: int, queue: deque[Order], seed: int, busy: dict[int, Order]) -> None:
        if not queue:
            return
        order = queue.popleft()
        stdin = self._processes[index].stdin
        assert stdin is not None
        document = {"class": order.name, "number": order.number, "seed": order.seed(seed)}
        stdin.write(json.dumps(document) + "\n")
        stdin.flush()
        busy[index] = order

    def _read(self, index: int) -> str:
        stdout = self._processes[index].stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            log = self._logs[index].read_text(errors="replace")[-2000:]
            raise WorkerDied(f"worker {index} has ended: {log}")
        return line
