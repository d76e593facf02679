"""One running simulated robot for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim"), seed=1) as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator) -> Iterator[Simulator]:
    """Without faults, before and after."""
    running.truth.clear()
    yield running
    running.truth.clear()
