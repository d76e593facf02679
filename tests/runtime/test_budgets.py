"""Budgets of the stages: where they come from, how overruns are counted, and when they are too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from holdfast.drivers.robots.schema import Control, Robot, load_robot
from holdfast.runtime.budgets import (
    LEAST_OVERRUNS,
    control_budgets_ms,
    limits_ns,
    overrun,
    policy_budgets_ms,
)
from holdfast.runtime.bundle.schema import Bundle
from holdfast.runtime.histogram import WINDOW_S, Recorder
from holdfast.runtime.messages import Histogram

MS = 1_000_000


def recorder(budget_ms: int = 8) -> Recorder:
    return Recorder("tick", budget_ms * MS)


def test_control_has_a_budget_for_every_stage_of_its_tick_at_any_rate():
    for hz in (50, 100, 500):
        derived = control_budgets_ms({}, {}, 1 / hz, None)
        assert set(derived) == {"wake_late", "bus_read", "step", "bus_write", "tick", "joint_age"}
        assert derived["bus_read"] + derived["step"] + derived["bus_write"] <= derived["tick"] == 800 / hz


def test_the_robot_file_decides_about_control_and_the_bundle_about_the_way_to_the_wire():
    declared = {"camera_to_wire": 120.0, "session_run": 50.0}
    found = control_budgets_ms({"tick": 5.0}, declared, 0.01, 0.75)
    assert (found["tick"], found["camera_to_wire"]) == (5.0, 120.0)
    assert "session_run" not in found, "that is the policy's"


def test_a_chunk_is_to_be_used_as_early_as_any_schedule_that_is_ok_does_unless_the_arm_waits_for_it():
    assert control_budgets_ms({}, {}, 0.01, 0.585)["camera_to_wire"] == 585.0
    assert "camera_to_wire" not in control_budgets_ms({}, {}, 0.01, None)


def test_the_policys_budgets_follow_from_what_was_measured_unless_the_bundle_has_them():
    found = policy_budgets_ms({"session_run": 30.0, "camera_to_wire": 100.0}, 0.05, 20.0, 45.0)
    assert found == {"preprocess": 12.5, "postprocess": 12.5, "session_run": 30.0, "frame_age": 67.5}
    assert policy_budgets_ms({}, 0.05, 20.0, 45.0)["session_run"] == 30.0
    assert policy_budgets_ms({}, 0.05, 0.1, 45.0)["session_run"] == 12.5, "a hiccup is no overrun"
    assert limits_ns({"tick": 0.5}) == {"tick": 500_000}


def test_the_robot_files_that_come_with_it_leave_room_for_a_bus_cycle():
    for name in ("so100", "so101", "sim_arm"):
        robot = load_robot(name)
        found = control_budgets_ms(robot.budgets_ms, {}, 1 / robot.control.hz, None)
        assert found["bus_read"] > 1.7, "the answers of six motors take 1.66 ms on the wire"
        assert 0 < robot.control.max_over_budget_fraction < 1


def test_what_takes_longer_than_the_budget_is_counted():
    found = recorder()
    for ms in (7, 8, 9, 100):
        found.add(ms * MS)
    message = found.message()
    assert (message.budget_ns, message.over) == (8 * MS, 2)
    assert (message.window_count, message.window_over) == (4, 2)


def test_a_stage_without_a_budget_never_overruns():
    found = Recorder("tick")
    found.add(10**10)
    assert found.message().over == 0


def test_the_window_forgets_what_is_ten_seconds_old():
    found = recorder()
    found.add(20 * MS)
    for second in range(WINDOW_S + 2):
        message = found.second()
        assert message.over == 1
        assert message.window_over == (1 if second < WINDOW_S else 0), second
        found.add(MS)
    found.restart_window()
    assert (found.message().window_count, found.message().count) == (0, WINDOW_S + 3)


@given(st.lists(st.lists(st.integers(1, 20), max_size=8), max_size=30))
def test_the_window_agrees_with_a_plain_list(seconds: list[list[int]]):
    found = recorder()
    for index, durations in enumerate(seconds):
        for ms in durations:
            found.add(ms * MS)
        message = found.second()
        recent = [ms for row in seconds[max(0, index - WINDOW_S + 1) : index + 1] for ms in row]
        assert message.window_count == len(recent)
        assert message.window_over == sum(ms > 8 for ms in recent)


def histogram(count: int, over: int) -> Histogram:
    return Histogram("tick", count, 0, 0, 0, (), 8 * MS, over, count, over)


FEW = LEAST_OVERRUNS - 1


@pytest.mark.parametrize(
    ("count", "over", "too_often"),
    [(1000, 50, False), (1000, 51, True), (10, FEW, False), (10, FEW + 1, True), (0, 0, False)],
)
def test_too_often_is_a_share_of_the_window_and_more_than_a_hiccup(count: int, over: int, too_often: bool):
    text = overrun(histogram(count, over), 0.05)
    assert bool(text) == too_often


def test_an_overrun_says_how_often_and_what_was_allowed():
    assert overrun(histogram(1000, 80), 0.05) == (
        "tick: 80 of 1000 in the last 10 s took longer than the budget of 8 ms; 5% are tolerated"
    )


def test_the_share_is_the_robot_files():
    assert Control.model_fields["max_over_budget_fraction"].default == 0.05


UNREASONABLE = [0, -1, 60_001, 1e300, float("inf"), float("nan")]


@pytest.mark.parametrize("value", UNREASONABLE)
@pytest.mark.parametrize(("file", "stage"), [(Robot, "tick"), (Bundle, "session_run")])
def test_neither_file_can_declare_a_budget_that_no_stage_can_have(
    file: type[BaseModel], stage: str, value: float
):
    declared = TypeAdapter(file.model_fields["budgets_ms"].rebuild_annotation())
    assert declared.validate_python({stage: 60_000}) == {stage: 60_000}
    with pytest.raises(ValidationError):
        declared.validate_python({stage: value})
