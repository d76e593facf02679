"""The shape of the arm: tip, distances and reaches; and which models are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drivers.errors import ConfigError
from holdfast.drivers.robots.schema import Robot, load_robot, robot_names, robot_path
from holdfast.runtime.control.body import Body
from holdfast.runtime.control.body_model import Drive, body_config

from .shapes import FORE_M, MODEL, SHAPE, UPPER_M, body_of, expected_distances, links, shaped

MANY = settings(max_examples=200, deadline=None)
POSES = st.tuples(st.floats(-3.1, 3.1), st.floats(-3.1, 3.1), st.floats(0, 100))
BODY = body_of()


def by_name(body: Body, pose: Sequence[float]) -> dict[tuple[str, str], float]:
    return {
        (pair.first if pair.kind == "table_collision" else pair.second, pair.second
         if pair.kind == "table_collision" else pair.first): distance
        for pair, distance in zip(body.pairs, body.distances(pose), strict=True)
    }  # fmt: skip


def test_what_is_compared():
    """Neighbours are not (upper and fore; the base and upper), nor the base with the table."""
    rows = {(pair.kind, pair.first, pair.second) for pair in BODY.pairs}
    assert rows == {
        ("table_collision", "upper", "floor"),
        ("table_collision", "fore", "floor"),
        ("self_collision", "the base", "fore"),
    }


@MANY
@given(POSES)
def test_the_tip_is_where_trigonometry_has_it(pose: tuple[float, ...]):
    assert np.abs(np.array(BODY.tip(pose)) - links(pose)["fore"][1]).max() < 1e-12


@MANY
@given(POSES)
def test_distances_are_those_of_geometry(pose: tuple[float, ...]):
    found, expected = by_name(BODY, pose), expected_distances(pose)
    for names, distance in found.items():
        if expected[names] > -0.03:
            # Where axes cross, how deep is a matter of definition.
            assert distance == pytest.approx(expected[names], abs=1e-7)
        else:
            assert distance < 0


@MANY
@given(POSES, st.floats(0, 0.2))
def test_clear_and_near_say_what_the_distances_say(pose: tuple[float, ...], more_m: float):
    distances = BODY.distances(pose)
    wanted = [pair.clearance_m + more_m for pair in BODY.pairs]
    too_near = [i for i, (is_, least) in enumerate(zip(distances, wanted, strict=True)) if is_ < least]
    near = BODY.near(pose, more_m)
    assert [row.pair for row in near] == too_near
    assert [row.distance_m for row in near] == [distances[i] for i in too_near]
    assert BODY.clear(pose, (0.0,) * 3) == (not BODY.near(pose))


@settings(max_examples=60, deadline=None)
@given(st.lists(POSES, min_size=1, max_size=8), POSES)
def test_an_answer_depends_on_nothing_before_it(earlier: list[tuple[float, ...]], pose: tuple[float, ...]):
    used, fresh = BODY, body_of()
    for other in earlier:
        used.clear(other, (0.3, 0.2, 0.0))
        used.near(other, 0.5)
    assert repr(used.distances(pose)) == repr(fresh.distances(pose))
    assert repr(used.near(pose, 0.1)) == repr(fresh.near(pose, 0.1))
    assert repr(used.tip(pose)) == repr(fresh.tip(pose))


@MANY
@given(POSES, POSES)
def test_reach_bounds_what_a_motion_can_change(a: tuple[float, ...], b: tuple[float, ...]):
    away = [abs(x - y) for x, y in zip(a, b, strict=True)]
    check_change(BODY, a, b, away)


def test_the_reach_is_no_worse_than_it_must_be():
    assert BODY.reach[-1].tolist() == pytest.approx((UPPER_M + FORE_M, FORE_M, 0.0))
    rows = {
        (pair.first, pair.second): row.tolist() for pair, row in zip(BODY.pairs, BODY.reach, strict=False)
    }
    # A joint about the vertical changes no height.
    assert rows["fore", "floor"] == pytest.approx((0.0, FORE_M + 0.02, 0.0))
    assert rows["upper", "floor"] == pytest.approx((0.0, 0.0, 0.0))
    assert rows["the base", "fore"] == pytest.approx((UPPER_M + FORE_M + 0.02, FORE_M + 0.02, 0.0))


@pytest.mark.parametrize("name", [name for name in robot_names() if load_robot(name).body is not None])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_reach_of_every_robot_with_a_body(name: str, data: st.DataObject):
    body, limits = body_of_robot(name)
    a, b = ([data.draw(st.floats(*row)) for row in limits] for _ in range(2))
    b = [x + 0.2 * (y - x) for x, y in zip(a, b, strict=True)]
    away = [abs(x - y) for x, y in zip(a, b, strict=True)]
    check_change(body, a, b, away)


@cache
def body_of_robot(name: str) -> tuple[Body, list[tuple[float, float]]]:
    robot = load_robot(name)
    shape = body_config(robot)
    assert shape is not None
    limits = [joint.limits.position for joint in robot.joints]
    return Body(shape, robot.joint_names, *zip(*limits, strict=True)), limits


def check_change(body: Body, a: Sequence[float], b: Sequence[float], away: Sequence[float]) -> None:
    *of_pairs, of_tip = body.change(away)
    for before, after, most in zip(body.distances(a), body.distances(b), of_pairs, strict=True):
        if before > 0 and after > 0:
            assert abs(after - before) <= most + 1e-9
    assert math.dist(body.tip(a), body.tip(b)) <= of_tip + 1e-12


BOX = (0.04, 0.03, 0.02)
FREE = """
<mujoco><compiler angle="radian"/><worldbody><geom name="ours" {ours}/>
  <body name="x"><joint name="x" type="slide" axis="1 0 0"/>
  <body name="y"><joint name="y" type="slide" axis="0 1 0"/>
  <body name="z"><joint name="z" type="slide" axis="0 0 1"/>
  <body name="a"><joint name="a" axis="1 0 0"/><body name="b"><joint name="b" axis="0 1 0"/>
    <geom name="theirs" {theirs}/><site name="tip"/>
  </body></body></body></body></body>
</worldbody></mujoco>"""


@cache
def two_geoms(ours: str, theirs: str) -> Body:
    names = ("x", "y", "z", "a", "b")
    shape = shaped(
        model=FREE.format(ours=ours, theirs=theirs),
        drives=tuple(Drive(name, 1.0, 0.0) for name in names),
        table=(), table_clearance_m=None,
    )  # fmt: skip
    return Body(shape, names, (-1.0,) * 5, (1.0,) * 5)


SURFACES = {
    "sphere": ('type="sphere" size="0.03"', lambda p: np.linalg.norm(p) - 0.03),
    "capsule": ('type="capsule" size="0.02 0.05"',
                lambda p: np.linalg.norm(p - (0, 0, np.clip(p[2], -0.05, 0.05))) - 0.02),
    "box": (f'type="box" size="{BOX[0]} {BOX[1]} {BOX[2]}"',
            lambda p: np.linalg.norm(np.maximum(np.abs(p) - BOX, 0)) + min(0, (np.abs(p) - BOX).max())),
    "plane": ('type="plane" size="1 1 1"', lambda p: p[2]),
}  # fmt: skip


@pytest.mark.parametrize("shape", SURFACES)
@settings(max_examples=150, deadline=None)
@given(at=st.tuples(*[st.floats(-0.2, 0.2)] * 3), turned=st.tuples(*[st.floats(-3, 3)] * 2))
def test_distances_of_a_capsule_to_every_shape_are_exact(
    shape: str, at: tuple[float, ...], turned: tuple[float, ...]
):
    """Against the distance of points on the capsule's axis, which is convex along it."""
    text, distance_to = SURFACES[shape]
    body = two_geoms(text, 'type="capsule" size="0.01 0.06"')
    a, b = turned
    # The axis of the capsule, turned about y and then x.
    axis = np.array((math.sin(b), -math.sin(a) * math.cos(b), math.cos(a) * math.cos(b)))
    low, high = -0.06, 0.06
    for _ in range(100):
        x, y = low + (high - low) / 3, high - (high - low) / 3
        if distance_to(at + x * axis) < distance_to(at + y * axis):
            high = y
        else:
            low = x
    expected = distance_to(at + low * axis) - 0.01
    (found,) = body.distances((*at, a, b))
    if expected > 1e-6:
        assert found == pytest.approx(expected, abs=1e-7)
    else:
        # Deep inside a box a capsule may count as apart, but by less than it is deep: a motion that is proven
        # clear cannot have led there.
        assert found < max(1e-5, -expected)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": "nonsense"}, "not a model that MuJoCo can read"),
    "a mesh": (
        {"model": MODEL.replace("<worldbody>", '<asset><mesh name="m" file="m.stl"/></asset><worldbody>')},
        "without meshes",
    ),
    "a cylinder": ({"model": MODEL.replace('"fore" type="capsule"', '"fore" type="cylinder"')}, "fore"),
    "two boxes": (
        {"model": MODEL.replace('"fore" type="capsule"', '"fore" type="box"')
                       .replace('"post" type="capsule"', '"post" type="box"')},
        "both boxes",
    ),
    "another name": (
        {"drives": (Drive("pam", 1.0, 0.0), SHAPE.drives[1], None)},
        r"no joint 'pam'.*pan, lift",
    ),
    "one joint twice": ({"drives": (SHAPE.drives[0], SHAPE.drives[0], None)}, "two joints"),
    "an idle joint": ({"drives": (SHAPE.drives[0], None, None)}, "no joint of the robot drives lift"),
    "a free joint": (
        {"model": MODEL.replace('<joint name="pan" axis="0 0 1"/>', '<freejoint name="pan"/>')},
        "hinges and slides",
    ),
    "no such tip": ({"tip": "nose"}, "'nose'"),
    "no such table": ({"table": ("bench",)}, r"no geom 'bench'"),
    "no such body to ignore": ({"ignore": (("fore", "leg"),)}, r"no body 'leg'"),
    "a table that moves": ({"table": ("fore",)}, "moves"),
    "a table that nothing meets": (
        {"model": MODEL.replace('type="plane"', 'type="plane" contype="0" conaffinity="0"')},
        "nothing is compared with the table floor",
    ),
    "nothing to compare": ({"ignore": (("world", "fore"),)}, "no two parts"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_shape_that_does_not_fit_is_refused(case: str):
    changes, reason = REFUSED[case]
    with pytest.raises(ConfigError, match=reason):
        body_of(shaped(**changes))


def test_no_mujoco_is_a_refusal_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "mujoco", None)
    with pytest.raises(ConfigError, match="pip install mujoco"):
        body_of()


def test_a_urdf_is_read_and_its_tip_may_be_a_link():
    urdf = """
    <robot name="r">
      <link name="foot"><collision><geometry><sphere radius="0.05"/></geometry></collision></link>
      <joint name="pan" type="continuous"><parent link="foot"/><child link="arm"/><axis xyz="0 0 1"/></joint>
      <link name="arm"/>
      <joint name="lift" type="continuous"><parent link="arm"/><child link="hand"/><axis xyz="0 1 0"/>
        <origin xyz="0.3 0 0"/></joint>
      <link name="hand">
        <collision><origin xyz="0.1 0 0"/><geometry><sphere radius="0.02"/></geometry></collision>
      </link>
    </robot>"""
    body = body_of(shaped(model=urdf, tip="hand", table=(), table_clearance_m=None))
    assert body.tip((math.pi / 2, 0, 0)) == pytest.approx((0.0, 0.3, 0.0))
    assert body.distances((0.0, 0.0, 0.0)) == pytest.approx((0.4 - 0.05 - 0.02,))


def test_a_coupled_joint_goes_along():
    coupled = MODEL.replace(
        "</worldbody>",
        '</worldbody><equality><joint joint1="lift" joint2="pan" polycoef="0.1 -2 0 0 0"/></equality>',
    )
    body = body_of(shaped(model=coupled, drives=(SHAPE.drives[0], None, None)))
    assert body.tip((0.3, 9.0, 9.0)) == pytest.approx(BODY.tip((0.3, 0.1 - 0.6, 0.0)))


def test_scale_and_offset():
    body = body_of(shaped(drives=(Drive("pan", -2.0, 0.1), Drive("lift", 0.5, -0.2), None)))
    assert body.tip((0.3, 0.4, 0.0)) == pytest.approx(BODY.tip((-0.5, 0.0, 0.0)))


# The robot file


def robot_with(**changes: Any) -> dict[str, Any]:
    content = yaml.safe_load(robot_path("sim_arm").read_text())
    content["body"] = {**content["body"], **changes}
    return content


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"table_clearance_m": None}, "go together"),
        ({"joints": {"knee": {}}}, "no joint knee"),
        ({"joints": {"elbow_flex": None}}, "only a gripper"),
        ({"joints": {"gripper": {"scale": 0.0}}}, "moves nothing"),
        ({"workspace": {"low": [0, 0, 0], "high": [1, 0, 1]}}, "below high"),
        ({"self_clearance_m": -0.1}, "greater than or equal"),
    ],
)
def test_a_body_of_the_robot_file_that_makes_no_sense(changes: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        Robot.model_validate(robot_with(**changes))


def test_a_model_lies_beside_its_robot_file_or_comes_with_holdfast(tmp_path: Path):
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(robot_with()))
    shipped = load_robot(str(path)).body
    assert shipped is not None
    assert 'name="wrist"' in shipped.text()
    (tmp_path / "bodies").mkdir()
    (tmp_path / "bodies" / "sim_arm.xml").write_text("mine")
    own = load_robot(str(path)).body
    assert own is not None
    assert own.text() == "mine"


def test_a_model_that_is_not_there(tmp_path: Path):
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(robot_with(model="gone.xml")))
    with pytest.raises(ConfigError, match=r"gone\.xml cannot be read"):
        body_config(load_robot(str(path)))
