"""Distances, workspace and tool speed of setpoints: what is accepted, and that braking from it is safe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.errors import ConfigError
from holdfast.drivers.robots.schema import Robot, load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control import chain
from holdfast.runtime.control.body_checks import (
    FINE_M,
    HALVINGS,
    check_body,
    check_tool_speed,
    describe_body,
)
from holdfast.runtime.control.config import CoreConfig, core_config
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.smoother import KinematicLimits, Motion
from holdfast.runtime.control.state import Inbox
from holdfast.runtime.control.tools import Tools, Violation
from holdfast.runtime.messages import Phase

from .shapes import CLEARANCE_M, FLOOR_M, POST, SHAPE, links, segment_distance, shaped, with_body
from .world import Bench, chunk

MANY = settings(max_examples=80, deadline=None)
WIDE = {
    "low": (-3.0, -3.0, 0.0),
    "high": (3.0, 3.0, 100.0),
    "kinematic": KinematicLimits((2.0, 2.0, 300.0), (15.0, 15.0, 2000.0), (300.0, 300.0, 40000.0)),
}
POSES = st.tuples(st.floats(-2.5, 2.5), st.floats(-2.5, 2.5), st.just(50.0))
TOO_NEAR = st.tuples(st.floats(-2.5, 2.5), st.floats(-0.9, -0.75), st.just(50.0))
"""The hand near the floor, or in it."""
BOX = {"low": (-0.3, -0.3, -0.15), "high": (0.6, 0.35, 0.2)}
CONFIG = with_body(**WIDE)
TOOLS = Tools.of(CONFIG)
IN_BOX = with_body(shaped(**BOX), **WIDE)
TOOLS_IN_BOX = Tools.of(IN_BOX)
assert TOOLS.body is not None


def at_rest(pose: Sequence[float]) -> Motion:
    return Motion.at_rest(pose)


def judge(before: Sequence[float], after: Sequence[float]) -> Violation | None:
    return check_body(at_rest(before), at_rest(after), CONFIG, TOOLS)


def nearest(pose: Sequence[float]) -> float:
    """How much more than its clearance the nearest pair has."""
    assert TOOLS.body is not None
    return min(TOOLS.body.distances(pose)) - CLEARANCE_M


# One step


@MANY
@given(POSES, st.tuples(st.floats(-0.03, 0.03), st.floats(-0.03, 0.03), st.just(0.0)))
def test_a_step_is_accepted_if_and_only_if_it_is_clear_or_moves_away(
    pose: tuple[float, ...], step: tuple[float, ...]
):
    """Between poses at rest the one thing that is not exact is the way between them: half a step."""
    assert TOOLS.body is not None
    after = [a + b for a, b in zip(pose, step, strict=True)]
    was, now = TOOLS.body.distances(pose), TOOLS.body.distances(after)
    spare = max(TOOLS.body.change([abs(x) for x in step]))
    violation = judge(pose, after)
    if all(d >= CLEARANCE_M + spare for d in (*was, *now)):
        assert violation is None
    if any(d < CLEARANCE_M and d < before - 1e-6 for d, before in zip(now, was, strict=True)):
        assert violation is not None


@MANY
@given(POSES)
def test_staying_is_always_accepted(pose: tuple[float, ...]):
    assert judge(pose, pose) is None


def test_what_is_too_near_may_move_away_and_not_nearer():
    """The hand points down, its end in the clearance of the floor."""
    pose = (0.0, -0.6, 0.0)
    near = replace(CONFIG, body=shaped(table_clearance_m=0.05))
    tools = Tools.of(near)
    assert tools.body is not None
    assert min(tools.body.distances(pose)) < 0.05
    up, down = (0.0, -0.59, 0.0), (0.0, -0.61, 0.0)
    assert check_body(at_rest(pose), at_rest(up), near, tools) is None
    violation = check_body(at_rest(pose), at_rest(down), near, tools)
    assert violation is not None
    assert violation.code == "table_collision"
    assert "fore and floor would be" in violation.text
    assert "the clearance is 50 mm" in violation.text


def test_the_text_says_which_parts_how_near_where_and_when():
    (x, y, _), _ = POST
    towards = math.atan2(y, x)
    # The hand lies beside the post and turns to it.
    before = (towards - 0.30, 0.0, 0.0)
    after = Motion((towards - 0.11, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    violation = check_body(at_rest(before), after, CONFIG, TOOLS)
    assert violation is not None
    assert violation.code == "self_collision"
    assert violation.text.startswith("the base and fore would be")
    assert violation.text.endswith("at the setpoint")
    # Fast enough not to be able to stop before it.
    before, after = (
        Motion((towards - 0.30 + d, 0.0, 0.0), (1.9, 0.0, 0.0), (0.0, 0.0, 0.0)) for d in (0, 0.019)
    )
    violation = check_body(before, after, CONFIG, TOOLS)
    assert violation is not None
    assert "ms into braking from the setpoint" in violation.text
    assert check_body(at_rest(before.position), at_rest(after.position), CONFIG, TOOLS) is None


def test_the_workspace():
    inside, outside = (0.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
    assert check_body(at_rest(inside), at_rest((-0.1, 0.0, 0.0)), IN_BOX, TOOLS_IN_BOX) is None
    violation = check_body(at_rest(inside), at_rest(outside), IN_BOX, TOOLS_IN_BOX)
    assert violation is not None
    assert violation.code == "workspace"
    assert "y = " in violation.text
    assert "the workspace is -300 .. 350 mm" in violation.text
    back, on = (-0.98, 0.0, 0.0), (-1.02, 0.0, 0.0)
    assert check_body(at_rest(outside), at_rest(back), IN_BOX, TOOLS_IN_BOX) is None
    assert check_body(at_rest(outside), at_rest(on), IN_BOX, TOOLS_IN_BOX) is not None


def test_without_a_body_nothing_is_checked_and_said_so():
    config = with_body()
    tools = replace(TOOLS, body=None)
    assert check_body(at_rest((0, 0, 0)), at_rest((3, 3, 3)), config, tools) is None
    assert check_tool_speed(at_rest((0, 0, 0)), at_rest((3, 3, 3)), config, tools) is None
    (row,) = describe_body(config, None)
    assert "NOT checked" in row


def test_what_is_armed_is_said():
    rows = describe_body(replace(IN_BOX, tool_speed_m_s=0.25), TOOLS_IN_BOX.body)
    assert rows == [
        "distance to itself: at least 10 mm (1 pairs), also while braking",
        "distance to floor: at least 10 mm (2 pairs), also while braking",
        "workspace: tip in x -300 .. 600, y -300 .. 350, z -150 .. 200 mm, also while braking",
        "tool speed: at most 250 mm/s",
    ]
    bare = shaped(self_clearance_m=None)
    rows = describe_body(with_body(bare), Tools.of(with_body(bare)).body)
    assert rows[0] == "distance to itself: NOT checked"
    assert rows[2:] == ["workspace: NOT checked", "tool speed: no limit of its own"]


# The way of braking


@st.composite
def motions(draw: st.DrawFn, where: st.SearchStrategy[tuple[float, ...]] = POSES) -> tuple[Motion, Motion]:
    """A setpoint with any velocity and acceleration within the limits, and the arm a tick before."""
    limits = CONFIG.kinematic
    pose = list(draw(where))
    velocity, acceleration = [], []
    for v, a in zip(limits.velocity, limits.acceleration, strict=True):
        velocity.append(v * draw(st.floats(-1, 1)))
        acceleration.append(a * draw(st.floats(-1, 1)))
    velocity[2] = acceleration[2] = 0.0
    after = Motion(tuple(pose), tuple(velocity), tuple(acceleration))
    before = replace(after, position=tuple(p - 0.01 * v for p, v in zip(pose, velocity, strict=True)))
    return before, after


def braking(after: Motion, count: int) -> list[Sequence[float]]:
    end_s = TOOLS.smoother.braking_s(after)
    return [list(TOOLS.smoother.braking_at(after, end_s * i / count)) for i in range(count + 1)]


@settings(max_examples=200, deadline=None)
@given(motions())
def test_no_pose_on_the_braking_from_an_accepted_setpoint_is_too_near(pair: tuple[Motion, Motion]):
    """By brute force, with distances that share nothing with MuJoCo. From outside the clearance the proof has
    no gap at all; only what began nearer may dip, by what the stretches between the poses looked at hide."""
    before, after = pair
    assume(nearest(before.position) >= 0)
    if check_body(before, after, IN_BOX, TOOLS_IN_BOX) is not None:
        return
    post = np.array(POST[0]), np.array(POST[1])
    low, high = (np.array(BOX[key]) for key in ("low", "high"))
    tip = links(before.position)["fore"][1]
    began_inside = bool(((tip >= low) & (tip <= high)).all())
    for pose in braking(after, 30):
        for axis in links(pose).values():
            assert min(end[2] for end in axis) - FLOOR_M - 0.02 >= CLEARANCE_M - 1e-9
        fore = links(pose)["fore"]
        assert segment_distance(*fore, *post) - 0.04 >= CLEARANCE_M - 1e-7
        if began_inside:
            assert (fore[1] >= low - 1e-9).all()
            assert (fore[1] <= high + 1e-9).all()


@settings(max_examples=100, deadline=None)
@given(motions(TOO_NEAR))
def test_what_began_too_near_dips_by_no_more_than_the_finest_stretch(pair: tuple[Motion, Motion]):
    before, after = pair
    assume(nearest(before.position) < 0)
    if check_body(before, after, CONFIG, TOOLS) is not None:
        return
    assert TOOLS.body is not None
    started = TOOLS.body.distances(before.position)
    path = braking(after, 2**HALVINGS)
    steps = [[abs(a - b) for a, b in zip(p, q, strict=True)] for p, q in pairwise([before.position, *path])]
    way = sum(max(TOOLS.body.change(step)) for step in steps)
    dip = max(FINE_M, way / 2**HALVINGS * 4)
    for pose in braking(after, 40):
        for is_, was in zip(TOOLS.body.distances(pose), started, strict=True):
            if is_ > -0.02:
                assert is_ >= min(was, CLEARANCE_M) - dip


@MANY
@given(motions())
def test_the_same_setpoint_gets_the_same_answer_bit_for_bit(pair: tuple[Motion, Motion]):
    before, after = pair
    fresh = Tools.of(CONFIG)
    check_body(at_rest((0.3, 0.4, 0.5)), at_rest((0.3, 0.5, 0.5)), CONFIG, TOOLS)
    assert repr(check_body(before, after, CONFIG, TOOLS)) == repr(check_body(before, after, CONFIG, fresh))


@MANY
@given(motions())
def test_where_a_joint_turns_while_braking_is_bounded(pair: tuple[Motion, Motion]):
    _, after = pair
    turns = {joint: (when, far) for joint, when, far in TOOLS.smoother.turning_back(after)}
    path = braking(after, 200)
    for joint in range(2):
        column = [pose[joint] for pose in path]
        beyond = max(max(column) - max(column[0], column[-1]), min(column[0], column[-1]) - min(column))
        if beyond > 1e-9:
            when, far = turns[joint]
            assert beyond <= far
            middle = (column[0] + column[-1]) / 2
            extreme = max(range(201), key=lambda i: abs(column[i] - middle))
            assert when == pytest.approx(TOOLS.smoother.braking_s(after) * extreme / 200, abs=0.01)


# The core


def drive(core: ControlCore, seed: int, ticks: int) -> Bench:
    """Random chunks, as from a policy that knows nothing; stops where the core stops."""
    bench = Bench(core=core, arm_at=core.config.start_pose)
    rng = np.random.default_rng(seed)
    bench.start()
    low, high = np.array(core.config.low), np.array(core.config.high)
    target = np.array(core.config.start_pose)
    rows: list[tuple[float, ...]] = []
    for k in range(ticks):
        if k % 10 == 0:
            goal = rng.uniform(low, high)
            rows = [tuple(target + (goal - target) * i / 40) for i in range(1, 9)]
            target = np.array(rows[-1])
            new = chunk(rows, chunk_id=k + 1, observation_ns=bench.now_ns)
            bench.tick(Inbox(chunk=new))
        else:
            bench.tick()
        if bench.state.phase != Phase.RUN:
            break
    return bench


@cache
def driven(seed: int) -> Bench:
    """Until it stops, and then for a second."""
    bench = drive(ControlCore(CONFIG), seed, 400)
    bench.run(100)
    return bench


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_the_core_commands_is_ever_too_near(seed: int):
    """Random runs end in a stop with the reason; no setpoint comes too near, those of braking included."""
    bench = driven(seed)
    post = np.array(POST[0]), np.array(POST[1])
    for pose in bench.setpoints:
        fore = links(pose)["fore"]
        assert min(fore[0][2], fore[1][2]) - FLOOR_M - 0.02 >= CLEARANCE_M - 1e-7
        assert segment_distance(*fore, *post) - 0.04 >= CLEARANCE_M - 1e-7
    if bench.state.stop is not None:
        assert bench.stop_code() in ("self_collision", "table_collision")


def test_random_runs_do_meet_the_post():
    codes = [driven(seed).state.stop for seed in range(12)]
    assert {stop.code for stop in codes if stop is not None} >= {"self_collision", "table_collision"}


# Tool speed


def sim_arm(**control: object) -> CoreConfig:
    robot = load_robot("sim_arm")
    robot = robot.model_copy(update={"control": robot.control.model_copy(update=control)})
    units = JointUnits(robot, find_calibration(robot))
    return core_config(robot, units, control_hz=None, chunk_steps=8, chunk_dt_ns=50_000_000)


SLOW = sim_arm(tool_speed_m_s=0.25)


def test_velocities_are_scaled_alike_for_the_worst_pose():
    fast = sim_arm()
    shares = [a / b for a, b in zip(SLOW.kinematic.velocity, fast.kinematic.velocity, strict=True)]
    names = dict(zip(SLOW.joint_names, shares, strict=True))
    assert names["gripper"] == names["wrist_roll"] == 1.0, "they do not move the tip"
    assert names["shoulder_pan"] == names["elbow_flex"] < 0.1
    assert sim_arm(tool_speed_m_s=50.0).kinematic == fast.kinematic


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_velocity_within_the_scaled_limits_is_too_fast(data: st.DataObject):
    """In any pose: the step that the check sees is within the limit."""
    tools = Tools.of(SLOW)
    pose = [data.draw(st.floats(a, b)) for a, b in zip(SLOW.low, SLOW.high, strict=True)]
    velocity = [v * data.draw(st.sampled_from((-1.0, 0.0, 1.0))) for v in SLOW.kinematic.velocity]
    before = Motion(tuple(pose), tuple(velocity), (0.0,) * 6)
    after = replace(before, position=tuple(p + 0.01 * v for p, v in zip(pose, velocity, strict=True)))
    assert check_tool_speed(before, after, SLOW, tools) is None


@pytest.mark.parametrize("seed", range(6))
def test_the_tip_is_never_faster_in_random_runs_and_nothing_stops_them(seed: int):
    """Free of distances, which random runs would meet."""
    assert SLOW.body is not None
    alone = replace(SLOW.body, self_clearance_m=None, table=(), table_clearance_m=None, low=None, high=None)
    core = ControlCore(replace(SLOW, body=alone))
    bench = drive(core, seed, 600)
    bench.run(50)
    body = core.tools.body
    assert body is not None
    assert bench.state.stop is None
    tips = [body.tip(pose) for pose in bench.setpoints]
    speeds = [math.dist(a, b) / 0.01 for a, b in pairwise(tips)]
    assert max(speeds) <= 0.25
    assert max(speeds) > 0.05, "it does move"


def test_a_tip_that_is_too_fast_is_refused():
    tools = Tools.of(SLOW)
    before = at_rest(SLOW.start_pose)
    turned = (0.05, *SLOW.start_pose[1:])
    violation = check_tool_speed(before, at_rest(turned), SLOW, tools)
    assert violation is not None
    assert violation.code == "tool_speed"
    stated = Motion(SLOW.start_pose, (5.0, *(0.0,) * 5), (0.0,) * 6)
    violation = check_tool_speed(before, stated, SLOW, tools)
    assert violation is not None
    assert violation.text == "the tip at 0.390 m/s, limit 0.25 m/s"


def test_a_tool_speed_without_a_body_is_refused():
    content = load_robot("sim_arm").model_dump()
    content["body"] = None
    content["control"]["tool_speed_m_s"] = 0.25
    with pytest.raises(ValueError, match="needs body"):
        Robot.model_validate(content)


def test_the_chain_has_the_checks():
    names = [name for name, _ in chain.SETPOINT_CHECKS]
    assert names[-2:] == ["tool speed", "distances and workspace"]
    assert SHAPE.model


def test_a_start_with_a_bad_shape_is_refused_by_the_core():
    with pytest.raises(ConfigError, match="not a model"):
        ControlCore(with_body(shaped(model="<mujoco>")))
