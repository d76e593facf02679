"""The real-time spot check of vla-bench strategies."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("torch")

from holdfast.benchmarks.strategies import FIRST_SEED, Cell
from holdfast.benchmarks.strategies_live import Carousel, Spot, run, table
from holdfast.drivers.simulated.launch import start_simulator

pytestmark = [pytest.mark.sim, pytest.mark.export]

CELL = Cell("carousel", 200, "newest", at_start_pose=True)


def test_shares_agree_where_their_difference_may_be_chance() -> None:
    near, far = (Spot(CELL, (live, 40), (72, 100), 203.0, 0.0, 0) for live in (25, 12))
    assert near.agrees
    assert not far.agrees
    assert [line.split("|")[-3].strip() for line in table([near, far])[2:]] == ["yes", "NO"]


@pytest.mark.e2e
def test_cubes_lie_still_until_the_task_is_judged(tmp_path: Path) -> None:
    with start_simulator(tmp_path) as simulator:
        scene = Carousel(simulator.truth)
        scene.reset(FIRST_SEED, "touch", "red")
        placed = simulator.truth.verdict()
        while simulator.truth.verdict().time_s < placed.time_s + 0.2:
            pass
        assert simulator.truth.verdict().cubes["red"][:2] == pytest.approx(placed.cubes["red"][:2], abs=1e-4)
        start = scene.verdict()
        while (later := scene.verdict()).time_s < start.time_s + 0.2:
            pass
        assert later.cubes["red"][:2] != pytest.approx(start.cubes["red"][:2], abs=1e-3)


@pytest.mark.e2e
def test_an_attempt_in_real_time(demo_bundle: Path, tmp_path: Path) -> None:
    outcomes, report = run(demo_bundle, CELL, [FIRST_SEED], tmp_path / "run")
    assert [outcome.void for outcome in outcomes] == [""]
    assert outcomes[0].attempt.task == "touch"
    assert report["stages"]["chunk_age"]["p50_ms"] > 0
    assert report["exit_code"] == 0
