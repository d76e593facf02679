"""Demonstrations: the expert through the whole chain, labels, and the file."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("torch")

from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.simulated.expert import Expert
from holdfast.drivers.simulated.judge import TIMEOUT_S
from holdfast.drivers.simulated.world import World
from holdfast.export.training.demonstrations import (
    DemonstrationError,
    label,
    load_demonstrations,
    record_block,
    save_demonstrations,
)
from holdfast.export.training.stepped import SteppedArm

pytestmark = [pytest.mark.sim, pytest.mark.export]


@pytest.fixture(scope="module")
def arm() -> SteppedArm:
    return SteppedArm(World(0))


@pytest.fixture(scope="module")
def recorded():
    return record_block([0, 2])


@pytest.mark.parametrize("task", ["touch", "pick"])
def test_the_expert_succeeds_through_the_whole_chain(arm, task):
    expert = Expert(arm.world)
    for seed in range(5):
        arm.world.reset(10_000 + seed, task)
        arm.rest()
        target = arm.motion.position
        while arm.world.judge().time_s < TIMEOUT_S[task] and not arm.world.judge().success:
            wanted = tuple(expert.decide(target))
            arm.follow_line(target, wanted)
            target = wanted
        assert arm.world.judge().success, f"seed {seed}"


def test_a_label_begins_at_what_is_commanded_and_leaves_the_arm_alone(arm):
    arm.world.reset(1, "touch")
    arm.rest()
    expert, target = Expert(arm.world), arm.motion.position
    for _ in range(4):
        wanted = tuple(expert.decide(target))
        arm.follow_line(target, wanted)
        target = wanted
    before, motion = arm.world.snapshot(), arm.motion
    chunk = label(arm, expert, target)
    np.testing.assert_array_equal(arm.world.snapshot(), before)
    assert arm.motion == motion
    np.testing.assert_allclose(chunk[0], target, rtol=1e-6)
    np.testing.assert_allclose(chunk[1], expert.decide(target), atol=1e-6)
    assert np.abs(np.diff(chunk[:, :5], axis=0)).max() < 0.07


def test_recorded_moments_have_the_declared_shapes_and_lie_within_the_limits(recorded):
    demonstrations, successes = recorded
    n = len(demonstrations.image)
    assert successes == 2
    assert demonstrations.image.shape == (n, 96, 96, 3)
    assert demonstrations.state.shape == (n, 6)
    assert demonstrations.action.shape == (n, 16, 6)
    robot = load_robot("sim_arm")
    for index, joint in enumerate(robot.joints):
        low, high = joint.limits.position
        assert low <= demonstrations.action[..., index].min()
        assert demonstrations.action[..., index].max() <= high


def test_recording_is_reproducible_and_survives_the_file(recorded, tmp_path):
    demonstrations, _ = recorded
    again, _ = record_block([0, 2])
    assert again.digest() == demonstrations.digest()
    path = tmp_path / "demos.npz"
    save_demonstrations(path, demonstrations)
    assert load_demonstrations(path).digest() == demonstrations.digest()


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "demos.npz"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DemonstrationError, match="vla-train demos"):
        load_demonstrations(path)
