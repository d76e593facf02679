"""The carousel: cubes that go round the arm, whatever the arm does."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("mujoco")

from holdfast.drivers.simulated import scene
from holdfast.drivers.simulated.errors import SimulatorError
from holdfast.drivers.simulated.launch import Simulator
from holdfast.drivers.simulated.tasks import BEARING_RAD
from holdfast.drivers.simulated.world import CAROUSEL_RAD_S, World

pytestmark = pytest.mark.sim


def run(world: World, seconds: float) -> None:
    for _ in range(round(seconds / World.STEP_S)):
        world.step()


def places(world: World) -> dict[str, tuple[float, float]]:
    """Colour -> (distance from the base axis in m, bearing in rad)."""
    cubes = world.sight().cubes
    return {c: (math.hypot(*p[:2]), math.atan2(p[1], p[0])) for c, p in cubes.items()}


@pytest.mark.parametrize("seed", range(4))
def test_cubes_keep_their_distance_and_go_round_at_the_rate(seed: int) -> None:
    world = World(seed)
    before = places(world)
    world.turn_carousel(0.15)
    run(world, 2.0)
    turned = set()
    for colour, (distance, bearing) in places(world).items():
        assert distance == pytest.approx(before[colour][0], abs=5e-4)
        turned.add(round(bearing - before[colour][1], 3))
    assert turned in ({0.3}, {-0.3})
    heights = [cube[2] for cube in world.sight().cubes.values()]
    assert heights == pytest.approx([scene.CUBE_HALF_M] * 3, abs=5e-4), "they stand on the table"


@pytest.mark.parametrize("seed", range(8))
def test_the_named_cube_stays_in_its_sector_for_the_time_of_a_touch(seed: int) -> None:
    world = World()
    episode = world.reset(seed, "touch")
    world.turn_carousel()
    start = places(world)[episode.colour][1]
    run(world, 0.5)
    turned = places(world)[episode.colour][1] - start
    assert math.copysign(1.0, turned) == -math.copysign(1.0, start), "towards the middle first"
    run(world, 4.5)
    assert BEARING_RAD[0] <= places(world)[episode.colour][1] <= BEARING_RAD[1]


def test_a_reset_stops_it_and_a_rate_of_zero_too() -> None:
    world = World()
    world.turn_carousel()
    world.reset(1)
    still = places(world)
    run(world, 0.5)
    assert places(world) == {c: pytest.approx(place, abs=1e-4) for c, place in still.items()}
    world.turn_carousel()
    world.turn_carousel(0.0)
    run(world, 0.5)
    assert places(world) == {c: pytest.approx(place, abs=1e-4) for c, place in still.items()}


def test_a_lifted_cube_is_let_go() -> None:
    world = World()
    world.turn_carousel()
    address = world.model.joint("red").qposadr[0]
    world.data.qpos[address + 2] = 0.1
    before = places(world)["red"]
    run(world, 0.05)
    assert places(world)["red"] == pytest.approx(before, abs=1e-4)


def test_the_same_seed_gives_the_same_ride() -> None:
    one, other = World(3), World(3)
    for world in (one, other):
        world.turn_carousel()
        run(world, 1.0)
    np.testing.assert_array_equal(one.snapshot(), other.snapshot())


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
def test_a_rate_must_make_sense(rate: float) -> None:
    with pytest.raises(ValueError, match="0 rad/s or more"):
        World().turn_carousel(rate)


def test_the_running_simulator_has_it_too(simulator: Simulator) -> None:
    truth = simulator.truth
    truth.reset(5, "touch", "red")
    truth.turn_carousel(CAROUSEL_RAD_S)
    first = truth.verdict()
    while (second := truth.verdict()).time_s < first.time_s + 0.5:
        pass
    for colour, (x, y, _) in first.cubes.items():
        turned = math.atan2(second.cubes[colour][1], second.cubes[colour][0]) - math.atan2(y, x)
        assert abs(turned) == pytest.approx(CAROUSEL_RAD_S * (second.time_s - first.time_s), abs=2e-3)
    with pytest.raises(SimulatorError, match="0 rad/s or more"):
        truth.turn_carousel(-1.0)
    truth.reset(5, "touch", "red")
