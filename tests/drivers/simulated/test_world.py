"""The simulated table-top: motors in ticks, limpness, jams, branching, pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("mujoco")

from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.simulated import scene
from holdfast.drivers.simulated.world import CALIBRATION, START, Eye, World

pytestmark = pytest.mark.sim


def energise(world: World) -> None:
    for index, ticks in enumerate(world.present_ticks()):
        world.set_goal(index, ticks)
        world.set_torque(index, True)


def run(world: World, seconds: float) -> None:
    for _ in range(round(seconds / World.STEP_S)):
        world.step()


def test_the_scene_has_the_joints_of_the_robot_file_and_reaches_its_limits():
    robot = load_robot("sim_arm")
    calibration = json.loads(CALIBRATION.read_text())
    assert robot.joint_names == scene.JOINTS
    for joint, start in zip(robot.joints, START, strict=True):
        low, high = scene.RANGES[joint.name]
        span = calibration[joint.name]["range_max"] - calibration[joint.name]["range_min"]
        if joint.gripper:
            assert (low, high) == (0.0, scene.JAW_OPENING_M)
        else:
            assert low < joint.limits.position[0] < joint.limits.position[1] < high
            assert span * 2 * np.pi / 4096 >= max(map(abs, joint.limits.position)) * 2
        assert joint.start == start
        assert calibration[joint.name]["id"] == joint.motor.id


def test_a_limp_arm_stays_where_it_is_because_gravity_is_compensated():
    world = World(3)
    before = world.present_ticks()
    run(world, 1.0)
    assert world.goal_ticks == [None] * 6
    assert np.abs(np.subtract(world.present_ticks(), before)).max() <= 2


def test_an_energised_motor_goes_to_its_goal_and_the_others_hold():
    world = World(0)
    energise(world)
    before = world.present_ticks()
    world.set_goal(0, before[0] + 300)
    world.step()
    assert world.present_ticks()[0] < before[0] + 30, "a motor takes time"
    run(world, 1.0)
    after = world.present_ticks()
    assert abs(after[0] - before[0] - 300) <= 2
    assert np.abs(np.subtract(after, before)[1:]).max() <= 3
    assert world.goal_ticks[0] == before[0] + 300


def test_a_jammed_joint_does_not_follow_and_its_motor_reports_full_load():
    world = World(0)
    energise(world)
    before = world.present_ticks()[0]
    world.set_jam(0, True)
    world.set_goal(0, before + 400)
    run(world, 0.5)
    assert abs(world.present_ticks()[0] - before) < 10
    assert world.load()[0] == pytest.approx(1.0, abs=0.01)
    world.set_jam(0, False)
    run(world, 1.0)
    assert abs(world.present_ticks()[0] - before - 400) <= 2


def test_a_reset_is_drawn_from_its_seed_and_can_leave_the_arm_alone():
    one, other = World(0), World(9)
    assert one.reset(5) == other.reset(5)
    assert one.present_ticks() == other.present_ticks()
    moved = one.present_ticks()
    one.reset(6, "pick", "blue", keep_arm=True)
    assert one.present_ticks() == moved
    assert one.episode.task == "pick"
    assert "blue" in one.episode.instruction
    with pytest.raises(ValueError, match="colours: red, green, blue"):
        one.reset(1, "touch", "purple")


def test_a_restored_branch_goes_the_same_way_again():
    world = World(2)
    energise(world)
    world.set_goal(1, world.present_ticks()[1] + 200)
    run(world, 0.1)
    saved = world.save()
    run(world, 0.3)
    first = world.snapshot()
    world.restore(saved)
    run(world, 0.3)
    np.testing.assert_allclose(world.snapshot(), first, atol=1e-9)


def test_pictures_depend_on_seed_and_frame_only_and_show_every_cube():
    world, eye, twin = World(4), Eye(seed=1), Eye(seed=1)
    picture = eye.render(world.snapshot(), 7)
    assert picture.shape == (192, 192, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, twin.render(world.snapshot(), 7))
    assert (picture != eye.render(world.snapshot(), 8)).mean() > 0.5, "sensor noise is new in every frame"
    channels = picture.astype(int)
    for index in range(3):
        others = [c for c in range(3) if c != index]
        assert (channels[..., index] - channels[..., others].max(-1) > 60).sum() > 30
    assert eye.jpeg(picture)[:2] == b"\xff\xd8"
