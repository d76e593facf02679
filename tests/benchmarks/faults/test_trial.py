"""What a trial does when the product does not do its part: that is no void one. And what touches what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml

from holdfast.benchmarks.faults.classes import BY_NAME
from holdfast.benchmarks.faults.identity import configuration_hash
from holdfast.benchmarks.faults.rig import Rig
from holdfast.benchmarks.faults.sweep import CURVE, pose, write_sweep_bundle
from holdfast.benchmarks.faults.system import HarnessError, ProductError
from holdfast.benchmarks.faults.trial import Bench
from holdfast.benchmarks.faults.witness import Witness
from holdfast.drivers.calibration import load_calibration
from holdfast.drivers.robots.schema import FOLDER, load_robot
from holdfast.drivers.units import JointUnits
from tests.benchmarks.faults.test_observer import CENTRE, Story, goal, kinds, observe, torque

CALIBRATION = FOLDER / "calibrations" / "sim_arm.json"


class NoRig:
    """Its run does not come up."""

    generation = 0
    run: Any = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    def ready(self, name: str) -> Any:
        raise self._error

    def end_run(self) -> None:
        return None


def test_a_product_that_does_not_come_up_has_failed():
    bench = Bench(cast(Rig, NoRig(ProductError("vla-run did not come to its task"))))
    trial = bench.trial(BY_NAME["chunk_nan"], 0, 0)
    assert (trial.void, trial.failure) == ("", "vla-run did not come to its task")


def test_a_harness_that_does_not_come_up_has_not():
    bench = Bench(cast(Rig, NoRig(HarnessError("no simulated arm"))))
    trial = bench.trial(BY_NAME["chunk_nan"], 0, 0)
    assert (trial.void, trial.failure) == ("no simulated arm", "")


def witness(folder: Path, story: Story) -> Witness:
    (folder / "wire.log").write_bytes(story.data)
    found = Witness.of_robot(folder / "wire.log", "sim_arm")
    found.read()
    return found


def test_the_campaigns_own_policy_touches_nothing(tmp_path: Path):
    robot = load_robot("sim_arm")
    units = JointUnits(robot, load_calibration(CALIBRATION, robot))
    story = Story()
    for step in range(200):
        ticks = units.to_ticks(pose(step * 0.0349))
        story.true(1 + 5 * step, dict(zip(CENTRE, ticks, strict=True)))
    found = witness(tmp_path, story)
    assert len(CURVE) == len(found.joints)
    assert found.excesses(1_000_000, found.now_ns) == []


@pytest.mark.parametrize(("lift", "elbow"), [(1.2, 0.5), (1.6, -0.2)])
def test_an_arm_in_the_table_is_seen_and_a_limp_one_is_not_judged(tmp_path: Path, lift: float, elbow: float):
    robot = load_robot("sim_arm")
    units = JointUnits(robot, load_calibration(CALIBRATION, robot))
    ticks = dict(zip(CENTRE, units.to_ticks((0.0, lift, elbow, 0.0, 0.0, 0.0)), strict=True))
    for bits, seen in ((3, True), (0, False)):
        story = Story()
        story.rest(1, 100, ticks, bits)
        found = witness(tmp_path, story)
        touches = found.excesses(1_000_000, found.now_ns)
        assert any("table touch" in text for text in touches) == seen


def test_the_hash_knows_the_robots_body_and_not_other_robots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("onnx")
    bundle = write_sweep_bundle(tmp_path / "sweep.vla")
    before = configuration_hash(bundle)
    model = yaml.safe_load((FOLDER / "sim_arm.yaml").read_text())["body"]["model"]
    read = Path.read_bytes
    for name, changes in ((model, True), ("so101.yaml", False), ("stepped_policy.py", True)):
        tail = Path(name).name
        monkeypatch.setattr(
            Path, "read_bytes", lambda path, tail=tail: read(path) + (b"x" if path.name == tail else b"")
        )
        assert (configuration_hash(bundle) != before) == changes, name


def test_a_stretch_is_not_judged_twice(tmp_path: Path):
    story = Story()
    story.rest(1, 1500)
    found = witness(tmp_path, story)
    assert found.goal_gap_ns(10, 20) == 10
    assert found.next_goals_ns(0) is None
    assert np.array(found.let_go(2_000_000, found.now_ns).off).sum() == 0


@pytest.mark.parametrize(("away", "wrong"), [(0, False), (10, False), (-40, True), (300, True)])
def test_torque_on_with_a_goal_elsewhere_is_an_escape(tmp_path: Path, away: int, wrong: bool) -> None:
    story = Story()
    story.rest(1, 500, torque=0)
    story.host(500, goal(2, CENTRE[2] + away))
    story.host(501, torque(2, 1))
    story.rest(505, 600)
    assert ("arming", "shoulder_lift") in kinds(observe(tmp_path, story)) or not wrong
    assert bool([kind for kind, _ in kinds(observe(tmp_path, story)) if kind == "arming"]) == wrong


def test_torque_on_without_a_goal_is_an_escape(tmp_path: Path) -> None:
    story = Story()
    story.rest(1, 500, torque=0)
    story.host(501, torque(2, 1))
    assert kinds(observe(tmp_path, story)) == [("arming", "shoulder_lift")]
