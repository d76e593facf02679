"""An arm in motion with the real core, for the tests of what other tools do wrong."""

from __future__ import annotations

from itertools import pairwise

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import Inbox

from .runtime.control.test_core import ramp
from .runtime.control.world import Bench, chunk, config


def running(**changes: object) -> Bench:
    """An arm in motion after a chunk, with the real core."""
    bench = Bench(ControlCore(config(**changes)))
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(10)
    return bench


def comes_to_rest(bench: Bench) -> None:
    """Within its limits, in less than half a second, and it stays there."""
    before = len(bench.setpoints)
    bench.run(100)
    stopped = bench.setpoints[before + 50 :]
    assert len(set(stopped)) <= 1
    assert max(abs(b[0] - a[0]) for a, b in pairwise(bench.setpoints)) <= 2.0 * 0.01 * 1.001
