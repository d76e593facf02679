"""The shape of the simulated arm, as control has it, against the scene that the simulator computes with."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.physics import load_mujoco
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.simulated import scene
from holdfast.drivers.simulated.world import World
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control.body import Body
from holdfast.runtime.control.config import core_config

pytestmark = pytest.mark.sim
mujoco = load_mujoco()
SEEDS = range(200)
IN_BOXES = 1e-9


@pytest.fixture(scope="module")
def body() -> Body:
    robot = load_robot("sim_arm")
    units = JointUnits(robot, find_calibration(robot))
    config = core_config(robot, units, control_hz=None, chunk_steps=8, chunk_dt_ns=50_000_000)
    assert config.body is not None
    return Body(config.body, config.joint_names, config.low, config.high)


LIMITS = [joint.limits.position for joint in load_robot("sim_arm").joints]


def random_pose(seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(rng.uniform(low, high)) for low, high in LIMITS]


@cache
def the_world() -> World:
    return World(0)


def placed(pose: list[float]) -> World:
    """The one world, with its arm there."""
    world = the_world()
    joints = np.array(pose)
    joints[-1] *= scene.JAW_OPENING_M / 100
    world.place_arm(joints)
    return world


def test_the_tip_is_where_the_scene_has_it(body: Body):
    for seed in SEEDS:
        pose = random_pose(seed)
        world = placed(pose)
        assert np.abs(np.array(body.tip(pose)) - world.sight().tip).max() < 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_every_part_of_the_scene_is_inside_the_shape(body: Body, seed: int):
    """Points all over the scene's geoms of the arm: each inside a geom of the same body."""
    pose = random_pose(seed)
    world = placed(pose)
    body.tip(pose)
    shape, data = body._model, body._data
    table = {shape.geom(name).id for name in body.config.table}
    names = {world.model.body(index).name: index for index in range(world.model.nbody)}
    for index in range(shape.nbody):
        theirs = shape.body(index).name
        scene_body = names["base" if index == 0 else theirs]
        ours = [g for g in range(shape.ngeom) if shape.geom_bodyid[g] == index and g not in table]
        for geom in np.flatnonzero(world.model.geom_bodyid == scene_body):
            for point in surface(world.model, world.data, int(geom)):
                inside = min(outside(shape, data, g, point) for g in ours)
                assert inside < IN_BOXES, (theirs, world.model.geom(geom).name)


def surface(model: Any, data: Any, geom: int, count: int = 200) -> np.ndarray:
    """Points [n, 3] of a geom, the outermost ones among them."""
    rng = np.random.default_rng(geom)
    size, kind = model.geom_size[geom], model.geom_type[geom]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        local = np.sign(rng.normal(size=(count, 3))) * size
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        angle = rng.uniform(0, 2 * np.pi, count)
        end = np.sign(rng.normal(size=count)) * size[1]
        local = np.column_stack((size[0] * np.cos(angle), size[0] * np.sin(angle), end))
    else:
        assert kind == mujoco.mjtGeom.mjGEOM_CAPSULE
        ball = rng.normal(size=(count, 3))
        ball *= size[0] / np.linalg.norm(ball, axis=1)[:, None]
        local = ball + np.column_stack((np.zeros((count, 2)), np.sign(ball[:, 2]) * size[1]))
    return data.geom_xpos[geom] + local @ data.geom_xmat[geom].reshape(3, 3).T


def outside(model: Any, data: Any, geom: int, point: np.ndarray) -> float:
    """How far a point lies outside a capsule or box; negative inside."""
    local = data.geom_xmat[geom].reshape(3, 3).T @ (point - data.geom_xpos[geom])
    size = model.geom_size[geom]
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
        return float((np.abs(local) - size).max())
    local[2] -= np.clip(local[2], -size[1], size[1])
    return float(np.linalg.norm(local) - size[0])


def test_jaws_are_open_and_closed_as_in_the_scene(body: Body):
    for percent in (0.0, 100.0):
        pose = [*random_pose(3)[:5], percent]
        world = placed(pose)
        body.tip(pose)
        for side in ("jaw_l", "jaw_r"):
            ours = body._data.xpos[body._model.body(side).id]
            assert np.abs(ours - world.data.body(side).xpos).max() < 1e-6
