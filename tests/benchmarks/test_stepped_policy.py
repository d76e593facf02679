"""When chunks arrive in stepped time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("torch")

from holdfast.benchmarks.stepped_policy import Schedule, SteppedPolicy
from holdfast.drivers.simulated.world import World
from holdfast.export.training.demonstrations import Sensor
from holdfast.runtime.control.executor import Execution, Path
from holdfast.runtime.control.state import CoreState
from holdfast.runtime.messages import Chunk

pytestmark = [pytest.mark.sim, pytest.mark.export]

MS = 1_000_000
STILL = CoreState(still_since_ns=MS)


class Counting:
    """A network that answers with the joints that it saw."""

    steps, dt_s = 16, 0.05

    def chunk(self, picture, position, text):
        return np.tile(np.array(position), (self.steps, 1))


@pytest.fixture(scope="module")
def world() -> World:
    return World(0)


@pytest.fixture(scope="module")
def sensor() -> Sensor:
    return Sensor()


def arrivals(
    world: World,
    sensor: Sensor,
    delay_ms: int,
    until_ms: int,
    schedule: Schedule = "back_to_back",
    state=lambda now_ms: STILL,
) -> list[tuple[int, Chunk, int]]:
    """(time of arrival in ms, chunk, stamp of its frame in ms); joint 0 stands at the time in ms."""
    rng = np.random.default_rng(0)
    source = SteppedPolicy(Counting(), sensor, "", "none", (delay_ms, delay_ms), rng, schedule)
    found = []
    for now_ms in range(10, until_ms, 10):
        position = (float(now_ms), 0, 0, 0, 0, 0)
        chunk = source.poll(world, position, now_ms * MS, state(now_ms))
        if chunk is not None:
            found.append((now_ms, chunk, source.observed_ns // MS))
    return found


def test_without_a_delay_every_frame_is_answered_at_once(world, sensor):
    found = arrivals(world, sensor, 0, 140)
    assert [(at, seen) for at, _, seen in found] == [(40, 40), (70, 70), (100, 100)]
    assert [chunk.chunk_id for _, chunk, _ in found] == [1, 2, 3]


def test_a_chunk_arrives_its_delay_after_its_frame_and_the_newest_frame_is_next(world, sensor):
    found = arrivals(world, sensor, 100, 500)
    # Frames at 40, 70, 100, 140, 170, 200, 240, ...; a chunk is taken up where the one before arrived.
    assert [(at, seen) for at, _, seen in found] == [(140, 40), (240, 140), (340, 240), (440, 340)]
    for at, chunk, seen in found:
        assert chunk.observation_ns == seen * MS
        assert chunk.inference_end_ns == at * MS
        assert chunk.actions[0][0] == seen, "the joints are those of the frame"


def test_a_frame_is_used_once(world, sensor):
    stamps = [seen for _, _, seen in arrivals(world, sensor, 20, 300)]
    assert len(stamps) == len(set(stamps))


def test_a_chunk_may_claim_that_it_is_fresh(world, sensor):
    at, chunk, seen = arrivals(world, sensor, 100, 150, "from_arrival")[0]
    assert (at, seen) == (140, 40)
    assert chunk.observation_ns == chunk.inference_end_ns == 140 * MS


def test_a_sequential_policy_looks_again_once_the_chunk_is_carried_out_and_the_arm_still(world, sensor):
    moving = replace(STILL, still_since_ns=0)
    path = Path(1, 40 * MS, 140 * MS, 50 * MS, ((0.0,) * 6,) * 4)

    def state(now_ms: int) -> CoreState:
        if now_ms <= 140:
            return STILL
        under_way = replace(moving, execution=Execution((path,), (140 * MS,)))
        assert under_way.execution is not None
        assert under_way.execution.end_ns == 290 * MS
        return replace(under_way, still_since_ns=320 * MS) if now_ms > 320 else under_way

    found = arrivals(world, sensor, 100, 500, "sequential", state)
    # The frame of 300 ms came after the chunk's end, but the arm stood still from 320 ms on.
    assert [(at, seen) for at, _, seen in found] == [(140, 40), (440, 340)]
