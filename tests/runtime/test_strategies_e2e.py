"""Strategies in the real processes: chosen, announced, carried out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator

from .rig import VlaRun, arm_options
from .tiny_bundle import STEPS, write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as made:
        yield made


def test_a_one_step_policy_runs_sequentially_and_holds_between_its_actions(
    tmp_path: Path, simulator: Simulator
):
    """Each action is relative to where the arm stands after the one before: the arm walks. Were it to look
    while the arm still moves, the steps would be shorter; were it to go on by itself, there would be more."""
    step = np.array([[0.06, 0.0, 0.0, 0.0, 0.0, 0.0]], np.float32)
    bundle = write_tiny_bundle(tmp_path / "step.vla", step)
    farthest = 0.0
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator), "--duration", "3") as run:
        run.event("running")
        while run.count("task_end") == 0 and run.process.poll() is None:
            farthest = max(farthest, simulator.truth.verdict().qpos[0])
            time.sleep(0.02)
        assert run.finish() == 0, run.output
    assert "strategy: sequential (the policy predicts one step at a time" in run.output
    report = run.report()
    chunks = report["stages"]["chunk_age"]["count"]
    assert chunks >= 4
    assert farthest == pytest.approx(0.06 * chunks, abs=0.06 + 0.01 * chunks)
    assert report["deadlines"]["starved"] == 0
    assert report["deadlines"]["rejected_chunks"] == 0
    assert any(text.startswith("chunks: sequential") for text in report["guards"])


def test_strategies_that_cannot_work_are_refused(tmp_path: Path, simulator: Simulator):
    bundle = write_tiny_bundle(tmp_path / "step.vla", np.zeros((1, 6), np.float32))
    options = [str(bundle), *arm_options(simulator), "--strategy", "fusion"]
    with VlaRun(tmp_path, *options) as run:
        assert run.finish() == 3, run.output
    assert "strategy fusion cannot execute chunks of 1 step(s); use --strategy sequential" in run.output


@pytest.mark.parametrize("name", ["crossfade", "ensemble", "average", "fusion", "sequential"])
def test_every_strategy_runs_and_is_announced(tmp_path: Path, simulator: Simulator, name: str):
    ramp = np.linspace(0.0, 0.2, STEPS, dtype=np.float32)[:, None] * np.eye(1, 6, dtype=np.float32)
    bundle = write_tiny_bundle(tmp_path / "ramp.vla", ramp, strategy=name)
    options = [str(bundle), *arm_options(simulator), "--duration", "1.5", "--ema", "0.05"]
    with VlaRun(tmp_path, *options) as run:
        assert run.finish() == 0, run.output
    assert f"strategy: {name} (the bundle's)" in run.output
    report = run.report()
    assert report["options"]["strategy"] == name
    assert any("moving average over 0.05 s" in text for text in report["guards"])
    assert report["stages"]["chunk_age"]["count"] >= 1
    assert report["stops"] == []
