"""What is refused before torque by the arithmetic of the start, and by the robot file's reactions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from holdfast.drivers.robots.schema import robot_path
from holdfast.drivers.simulated.launch import Simulator, start_simulator

from .rig import MOTOR_IDS, VlaRun, arm_options, torque
from .tiny_bundle import write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim"), camera_fps=15.0) as made:
        yield made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunks of 50 ms, shorter than the camera's period: they must run out."""
    folder = tmp_path_factory.mktemp("bundle") / "short.vla"
    return write_tiny_bundle(folder, np.zeros((2, 6), np.float32))


def test_a_policy_that_must_starve_is_refused_before_torque(
    tmp_path: Path, bundle: Path, simulator: Simulator
):
    options = [str(bundle), *arm_options(simulator), "--duration", "0.5", "--strategy", "newest"]
    with VlaRun(tmp_path / "run", *options) as run:
        assert run.finish() == 3, run.output
    report = run.report()
    assert "newest chunks cannot be scheduled: a chunk ends up to" in report["reason"]
    assert report["schedule"]["ok"] is False
    assert report["schedule"]["path_ms"] == 50.0
    assert report["policy"]["frame_period_ms"] == pytest.approx(1000 / 15, rel=0.2)
    assert report["schedule"]["arithmetic"] == [
        event["text"] for event in run.events() if event["code"] == "schedule"
    ]
    assert "(measured)" in report["schedule"]["arithmetic"][0]
    assert run.count("armed") == 0
    assert torque(simulator) == [0] * len(MOTOR_IDS)
    with VlaRun(tmp_path / "check", *options, "--check", "--json") as run:
        assert run.finish() == 3, run.output
    row = next(row for row in json.loads(run.output)["rows"] if row["what"] == "schedule (newest)")
    assert not row["ok"]
    assert "too short by" in row["actual"]
    assert "--strategy sequential" in row["fix"]


def test_the_same_policy_runs_sequentially_and_is_not_called_starved(
    tmp_path: Path, bundle: Path, simulator: Simulator
):
    options = [str(bundle), *arm_options(simulator), "--duration", "2", "--strategy", "sequential"]
    with VlaRun(tmp_path, *options) as run:
        assert run.finish() == 0, run.output
    report = run.report()
    assert report["schedule"]["ok"] is True
    assert report["deadlines"]["starved"] == 0
    assert report["stages"]["session_run"]["count"] >= 2


@pytest.mark.parametrize("look", [[], ["--check", "--json"]])
def test_a_robot_file_that_weakens_a_fault_is_refused_with_the_reason(
    tmp_path: Path, bundle: Path, simulator: Simulator, look: list[str]
):
    content = yaml.safe_load(robot_path("sim_arm").read_text())
    content["calibration"] = str(robot_path("sim_arm").parent / content["calibration"])
    content["reactions"] = {"joint_state_stale": "count"}
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(content))
    options = [str(bundle), *arm_options(simulator), "--duration", "0.5", "--robot", str(path), *look]
    with VlaRun(tmp_path / "run", *options) as run:
        assert run.finish() == 3, run.output
    assert "joint_state_stale" in run.output
    assert "cannot be" in run.output
