"""Tiny checkpoints move the simulated arm: the motion means nothing, every contract is real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from holdfast.drivers.simulated.launch import Simulator, start_simulator
from holdfast.export.pipeline import Request, export
from holdfast.export.sources.types import ReadOptions

from ...runtime.rig import VlaRun, arm_options

pytestmark = [pytest.mark.export, pytest.mark.e2e, pytest.mark.sim]
FAMILIES = Path(__file__).parent
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
CONTRACT = {
    "robot_type": "sim_arm",
    "rate_hz": 15,
    "space": "joint_position",
    "action": [
        *({"name": joint, "unit": "rad"} for joint in JOINTS),
        {"name": "gripper", "unit": "0_100_of_range"},
    ],
}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as made:
        yield made


@pytest.mark.parametrize("family", ["act", "diffusion"])
def test_a_checkpoint_becomes_motion(
    family: str, tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    contract = tmp_path / "contract.yaml"
    contract.write_text(yaml.safe_dump(CONTRACT))
    options = ReadOptions(contract=contract)
    checkpoint = str(FAMILIES / family / "sim_arm")
    result = export(Request(checkpoint, options=options, measure_latency=False, max_error_rad=0.01))
    bundle = (tmp_path / result.bundle).resolve()
    with VlaRun(tmp_path / "run", str(bundle), *arm_options(simulator), "--duration", "2") as run:
        assert run.finish(60) == 0, run.output
    report = run.report()
    assert report["stops"] == []
    assert report["deadlines"]["rejected_chunks"] == 0
    assert report["stages"]["chunk_age"]["count"] >= 2
