"""The safety chain: chunks, targets and what the arm says, each at its limit and a hair beyond it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from holdfast.runtime.control import chain
from holdfast.runtime.control.chain import Violation
from holdfast.runtime.control.executor import Execution, Path, Target
from holdfast.runtime.messages import Chunk

from .world import MS, chunk, config, joint_state

CONFIG = config()
NOW = 10_000 * MS
AGE_LIMIT = 300 * MS
HERE = (0.2, -0.3, 10.0)
ROWS = [HERE] * 8
NONE = (0, 0, 0)


def made(**changes: Any) -> Chunk:
    return replace(chunk(ROWS, chunk_id=5, observation_ns=NOW - 100 * MS), **changes)


def judged(message: Chunk, now_ns: int = NOW) -> Violation | None:
    return chain.check_chunk(message, CONFIG, now_ns, AGE_LIMIT)


# A chunk


def test_a_chunk_as_it_should_be_passes() -> None:
    assert judged(made()) is None


@pytest.mark.parametrize(
    ("rows", "got"),
    [(ROWS[:7], "7 x 3"), ([*ROWS, HERE], "9 x 3"), ([row[:2] for row in ROWS], "8 x 2"), ([], "0 x 0"),
     ([*ROWS[:7], HERE[:2]], "8 x 3")],
)  # fmt: skip
def test_a_chunk_of_another_shape_is_refused_with_both_shapes(rows: list, got: str) -> None:
    violation = judged(made(actions=tuple(rows)))
    assert violation is not None
    assert violation.code == "chunk_bad"
    assert f"is {got}, expected 8 x 3" in violation.text


def test_a_chunk_with_another_step_is_refused() -> None:
    violation = judged(made(dt_ns=50 * MS + 1))
    assert violation is not None
    assert violation.code == "chunk_bad"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("step", "joint"), [(0, 0), (3, 1), (7, 2)])
def test_one_value_that_is_not_finite_refuses_the_chunk_and_is_named(
    step: int, joint: int, value: float
) -> None:
    rows = [list(row) for row in ROWS]
    rows[step][joint] = value
    violation = judged(made(actions=tuple(map(tuple, rows))))
    assert violation is not None
    assert violation.code == "chunk_bad"
    assert f"step {step}, joint {CONFIG.joint_names[joint]}" in violation.text


@pytest.mark.parametrize(
    "stamps",
    [
        {"inference_end_ns": NOW},
        {"frame_arrival_ns": NOW - 100 * MS, "inference_end_ns": NOW - 100 * MS},
        {"session_run_ns": 0},
        {"session_run_ns": NOW},
    ],
)
def test_stamps_at_the_edge_of_what_can_be_pass(stamps: dict[str, int]) -> None:
    assert judged(made(**stamps)) is None


def test_an_observation_at_the_beginning_of_time_can_be() -> None:
    early = {"observation_ns": 0, "frame_arrival_ns": 0, "inference_end_ns": 0, "session_run_ns": 0}
    assert judged(made(**early), now_ns=1) is None


@pytest.mark.parametrize(
    "stamps",
    [
        {"inference_end_ns": NOW + 1},
        {"frame_arrival_ns": NOW - 100 * MS - 1},
        {"frame_arrival_ns": NOW, "inference_end_ns": NOW - 1},
        {"observation_ns": -1},
        {"session_run_ns": -1},
        {"session_run_ns": NOW + 1},
    ],
)
def test_stamps_that_cannot_be_refuse(stamps: dict[str, int]) -> None:
    violation = judged(made(**stamps))
    assert violation is not None
    assert violation.code == "chunk_bad"


def test_a_chunk_may_be_as_old_as_its_limit_and_no_older() -> None:
    for age, code in ((AGE_LIMIT, None), (AGE_LIMIT + 1, "chunk_stale")):
        old = NOW - age
        violation = judged(made(observation_ns=old, frame_arrival_ns=old, inference_end_ns=old))
        assert (violation.code if violation else None) == code


def execution(observation_ns: int) -> Execution:
    return Execution((Path(4, observation_ns, observation_ns, 50 * MS, tuple(ROWS)),), (observation_ns,))


@pytest.mark.parametrize(("last_id", "refused"), [(3, False), (4, False), (5, True), (6, True)])
def test_the_ids_of_chunks_rise(last_id: int, refused: bool) -> None:
    violation = chain.check_order(made(), last_id, None)
    assert (violation is not None) == refused
    assert violation is None or violation.code == "chunk_bad"


def test_an_older_observation_is_refused_with_the_difference() -> None:
    violation = chain.check_order(made(), 4, execution(NOW - 70 * MS))
    assert violation is not None
    assert violation.text == "chunk 5 rests on an observation 30 ms older than that of chunk 4"


@pytest.mark.parametrize(("later_ns", "refused"), [(-1, False), (0, False), (1, True)])
def test_observations_do_not_go_back(later_ns: int, refused: bool) -> None:
    violation = chain.check_order(made(), 4, execution(NOW - 100 * MS + later_ns))
    assert (violation is not None) == refused
    assert violation is None or violation.code == "chunk_bad"


@pytest.mark.parametrize("gripper", [False, True])
@pytest.mark.parametrize("side", [-1, 1])
def test_the_first_chunk_of_a_task_begins_near_the_arm_but_for_its_gripper(gripper: bool, side: int) -> None:
    near = config(first_step=(0.25, 0.25, 5.0))
    for distance, code in ((0.25, None), (0.250001, "chunk_far"), (math.nan, "chunk_far")):
        begins = [0.0, 0.0, 0.0]
        begins[2 if gripper else 1] = side * distance * (100 if gripper else 1)
        violation = chain.check_first(begins, (0.0, 0.0, 0.0), near)
        assert (violation.code if violation else None) == (None if gripper else code)


def test_near_is_from_where_the_arm_is_commanded_to_be() -> None:
    near = config(first_step=(0.25, 0.25, 5.0))
    assert chain.check_first((0.5, -0.7, 0.0), (0.4, -0.6, 0.0), near) is None
    violation = chain.check_first((0.1, 0.0, 0.0), (0.1, -0.3, 0.0), near)
    assert violation is not None
    assert violation.text == (
        "the first chunk begins with lift at 0.000, 0.300 from where it is commanded to be; allowed are 0.250"
    )


# Targets


def clamped(
    position: tuple[float, ...],
    velocity: tuple[float, ...] = (0.0, 0.0, 0.0),
    measured: tuple[float, ...] | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[tuple[str, str], ...]]:
    done = chain.clamp_target(Target(position, velocity), measured or position, CONFIG)
    return done.target.position, done.target.velocity, done.reasons


def test_a_target_inside_is_left_alone() -> None:
    assert clamped(HERE, (0.1, -0.2, 5.0)) == (HERE, (0.1, -0.2, 5.0), ())


@pytest.mark.parametrize("edge", [(0.99, 1.49, 99.5), (-0.99, -1.49, 0.5)])
def test_the_limits_less_their_margin_belong_to_what_is_allowed(edge: tuple[float, ...]) -> None:
    assert clamped(edge) == (edge, (0.0, 0.0, 0.0), ())


@pytest.mark.parametrize(
    ("wanted", "given", "reasons"),
    [
        ((0.991, 0.0, 50.0), (0.99, 0.0, 50.0), (("pan", "position"),)),
        ((-0.991, 0.0, 50.0), (-0.99, 0.0, 50.0), (("pan", "position"),)),
        ((0.0, 9.0, 50.0), (0.0, 1.49, 50.0), (("lift", "position"),)),
        ((0.0, -9.0, 50.0), (0.0, -1.49, 50.0), (("lift", "position"),)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.5), ()),
        ((0.0, 0.0, 100.0), (0.0, 0.0, 99.5), ()),
        ((0.0, 0.0, -0.1), (0.0, 0.0, 0.5), (("grip", "position"),)),
        ((0.0, 0.0, 100.1), (0.0, 0.0, 99.5), (("grip", "position"),)),
    ],
)
def test_a_target_outside_is_taken_to_the_limit_and_named_unless_a_gripper_only_closes(
    wanted: tuple[float, ...], given: tuple[float, ...], reasons: tuple
) -> None:
    position, velocity, got = clamped(wanted, (0.3, 0.3, 3.0), given)
    assert position == pytest.approx(given, abs=1e-12)
    assert got == reasons
    changed = [a != b for a, b in zip(wanted, given, strict=True)]
    assert [v == 0.0 for v in velocity] == changed, "who is clamped does not rush on"


@pytest.mark.parametrize("side", [-1, 1])
def test_a_target_leads_the_arm_by_no_more_than_its_lead(side: int) -> None:
    position, velocity, reasons = clamped((side * 0.25, 0.0, 50.0), (0.1, 0.1, 1.0), (0.0, 0.0, 50.0))
    assert (position[0], velocity[0], reasons) == (side * 0.25, 0.1, ())
    position, velocity, reasons = clamped((side * 0.31, 0.0, 50.0), (0.1, 0.1, 1.0), (0.0, 0.0, 50.0))
    assert position == pytest.approx((side * 0.3, 0.0, 50.0))
    assert velocity == (0.0, 0.1, 1.0)
    assert reasons == (("pan", "lead"),)


def test_exactly_the_lead_is_allowed() -> None:
    half = config(lead=(0.5, 0.5, 101.0))
    for wanted in (0.5, -0.5):
        done = chain.clamp_target(Target((wanted, 0.0, 50.0), (0.0,) * 3), (0.0, 0.0, 50.0), half)
        assert done.reasons == ()


@pytest.mark.parametrize("side", [-1, 1])
def test_an_arm_that_rests_outside_does_not_pull_its_targets_out(side: int) -> None:
    position, _, reasons = clamped((0.0, 0.0, 50.0), measured=(side * 1.4, 0.0, 50.0))
    assert position[0] == side * 0.99
    assert reasons == (("pan", "lead"),)


@pytest.mark.parametrize("side", [-1, 1])
def test_close_to_a_limit_a_target_is_no_faster_than_can_be_braked(side: int) -> None:
    at = side * 0.94
    most = math.sqrt(15.0 * 0.05)
    for wanted, given in ((most * 0.9, most * 0.9), (most * 1.5, most), (-most * 1.5, -most * 1.5)):
        _, velocity, reasons = clamped((at, 0.0, 50.0), (side * wanted, 0.0, 0.0))
        assert velocity[0] == pytest.approx(side * given)
        assert reasons == ()


@pytest.mark.parametrize("side", [-1, 1])
def test_very_close_to_a_limit_also_a_slow_target_is_bounded(side: int) -> None:
    _, velocity, _ = clamped((side * 0.989, 0.0, 50.0), (side * 0.5, 0.0, 0.0))
    assert velocity[0] == pytest.approx(side * math.sqrt(15.0 * 0.001))


def test_at_its_limit_a_target_may_only_move_away_from_it() -> None:
    for side in (-1, 1):
        assert clamped((side * 0.99, 0.0, 50.0), (side * 1.0, 0.0, 0.0))[1][0] == 0.0
        assert clamped((side * 0.99, 0.0, 50.0), (side * -1.0, 0.0, 0.0))[1][0] == side * -1.0


# What the arm says


def sample(**changes: Any) -> Any:
    return replace(joint_state(HERE, NOW), **changes)


@pytest.mark.parametrize("joint", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_a_joint_follows_its_setpoint_or_it_is_a_fault(joint: int, side: int) -> None:
    exact = config(following_error=(0.5, 0.5, 64.0))
    zero = (0.0, 0.0, 0.0)
    for share, code in ((1.0, None), (1.000001, "following_error"), (math.nan, "following_error")):
        at = tuple(side * share * (64.0 if i == 2 else 0.5) if i == joint else 0.0 for i in range(3))
        violation = chain.check_following(sample(position=at), zero, exact)
        assert (violation.code if violation else None) == code
        assert violation is None or exact.joint_names[joint] in violation.text


@pytest.mark.parametrize("joint", range(3))
@pytest.mark.parametrize(
    ("field", "good", "value", "code"),
    [
        ("faults", 0, 1, "motor_fault"),
        ("faults", 0, 32, "motor_fault"),
        ("voltage_v", 7.4, 4.5, None),
        ("voltage_v", 7.4, 14.0, None),
        ("voltage_v", 7.4, 4.49, "voltage"),
        ("voltage_v", 7.4, 14.01, "voltage"),
        ("voltage_v", 7.4, math.nan, "voltage"),
        ("temperature_c", 30.0, 65.0, None),
        ("temperature_c", 30.0, 65.1, "temperature"),
        ("temperature_c", 30.0, math.nan, "temperature"),
    ],
)
def test_every_motor_is_healthy(field: str, good: Any, value: Any, code: str | None, joint: int) -> None:
    values = tuple(value if i == joint else good for i in range(3))
    violation = chain.check_health(sample(**{field: values}), CONFIG)
    assert (violation.code if violation else None) == code
    assert violation is None or CONFIG.joint_names[joint] in violation.text


def test_since_when_a_joint_is_overloaded() -> None:
    def since(load: tuple[float, ...], before: tuple[int, ...] = NONE) -> tuple[int, ...]:
        return chain.overloaded_since(sample(load=load), before, CONFIG, NOW)

    assert since((0.9, -0.9, 0.9)) == NONE, "the limit is allowed"
    assert since((0.91, 0.0, 0.0)) == (NOW, 0, 0)
    assert since((0.91, 0.9, 0.0)) == since((0.91, -0.9, 0.0)) == (NOW, 0, 0)
    assert since((0.0, -0.91, 0.0)) == (0, NOW, 0)
    assert since((0.95, -0.95, 1.0)) == (NOW, NOW, 0), "a gripper stalls by design"
    assert since((0.95, 0.2, 0.0), (7, 7, 0)) == (7, 0, 0)
    assert since((0.1, 0.1, 0.1), (7, 7, 0)) == NONE


def test_since_when_a_joint_is_held_back_and_does_not_move() -> None:
    def since(
        clamped: tuple[tuple[str, str], ...],
        velocity: tuple[float, ...] = (0.0, 0.0, 0.0),
        before: tuple[int, ...] = NONE,
    ) -> tuple[int, ...]:
        return chain.stalled_since(sample(velocity=velocity), clamped, before, CONFIG, NOW)

    assert since(()) == NONE
    assert since((("pan", "position"),)) == NONE, "only the lead is something that holds an arm back"
    assert since((("pan", "position"), ("lift", "lead"))) == (0, NOW, 0)
    assert since((("pan", "lead"), ("lift", "lead"))) == (NOW, NOW, 0)
    assert since((("pan", "lead"),), (0.0199, 0.0, 0.0)) == (NOW, 0, 0)
    assert since((("pan", "lead"),), (-0.0199, 0.0, 0.0)) == (NOW, 0, 0)
    assert since((("pan", "lead"),), (0.02, 0.0, 0.0), (7, 0, 0)) == NONE, "it moves"
    assert since((("pan", "lead"),), (-0.5, 0.0, 0.0), (7, 0, 0)) == NONE
    assert since((("pan", "lead"),), before=(7, 7, 0)) == (7, 0, 0)
    assert since((), before=(7, 7, 0)) == NONE


def test_since_when_a_motor_draws_too_much() -> None:
    def since(
        current: tuple[float, ...], before: tuple[int, ...] = NONE, most: float | None = 1.5
    ) -> tuple[int, ...]:
        return chain.overcurrent_since(sample(current_a=current), before, config(current_a=most), NOW)

    assert since((9.0, 9.0, 9.0), most=None) == NONE, "not declared, not checked"
    assert since((1.5, -1.5, 1.5)) == NONE
    assert since((1.51, 0.0, 0.0)) == (NOW, 0, 0)
    assert since((1.51, 1.5, 0.0)) == since((1.51, -1.5, 0.0)) == (NOW, 0, 0)
    assert since((0.0, -1.51, 0.0)) == (0, NOW, 0)
    assert since((2.0, 0.0, 2.0), (7, 7, 7)) == (7, 0, 0), "a gripper has its own limit"
    assert since((0.1, 0.1, 0.1), (7, 7, 7)) == NONE


def test_since_when_a_gripper_presses_too_hard() -> None:
    gripping = config(grip=(None, None, (0.5, 200 * MS)))

    def since(load: tuple[float, ...], before: tuple[int, ...] = NONE) -> tuple[int, ...]:
        return chain.gripping_since(sample(load=load), before, gripping, NOW)

    assert since((1.0, 1.0, 0.5)) == NONE
    assert since((1.0, 1.0, 0.51)) == (0, 0, NOW)
    assert since((0.0, 0.0, -0.51), (7, 7, 7)) == (0, 0, 7)
    assert chain.gripping_since(sample(load=(1.0, 1.0, 1.0)), NONE, CONFIG, NOW) == NONE


def test_what_lasts_too_long_is_a_condition() -> None:
    most = (500 * MS, 500 * MS, 200 * MS)

    def code(*ago_ms: float | None) -> tuple[str, str] | None:
        since = [0 if ago is None else NOW - round(ago * MS) for ago in ago_ms]
        violation = chain.check_since("load", since, most, CONFIG, NOW)
        return (violation.code, violation.text.split()[0]) if violation else None

    assert code(None, None, None) is None
    assert code(500, 500, 200) is None
    assert code(None, 500.1, None) == ("load", "lift")
    assert code(500.1, None, None) == ("load", "pan")
    assert code(None, None, 200.1) == ("load", "grip")
