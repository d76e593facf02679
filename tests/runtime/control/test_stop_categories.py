"""Stops of each category, stop inputs, and what else may stop the arm by what its motors say."""

from __future__ import annotations

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.messages import Phase

from .test_core import HERE, ramp
from .world import MS, Bench, arm, chunk, config

PRESSED = Condition("stop_input", "the red button")


def moving(**changes: object) -> Bench:
    """A bench whose arm follows a chunk, in motion."""
    bench = Bench(core=ControlCore(config(**changes)))
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.4), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(15)
    motion = bench.state.motion
    assert motion is not None
    assert max(map(abs, motion.velocity)) > 0.1
    return bench


def test_category_0_lets_go_in_the_same_tick_and_never_writes_again() -> None:
    bench = moving(stop_category=0)
    output = bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    assert output.release
    assert output.setpoint is None
    assert bench.state.phase == Phase.RELEASED
    assert [bench.tick().setpoint for _ in range(50)] == [None] * 50
    assert "stopped" in bench.codes()


def test_category_1_brakes_and_lets_go_once_at_rest() -> None:
    bench = moving(stop_category=1)
    output = bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    outputs = [output]
    while not outputs[-1].release:
        outputs.append(bench.tick())
        assert len(outputs) < 100
    assert bench.state.phase == Phase.RELEASED
    assert len(outputs) > 3, "braking takes its time"
    assert sum(out.release for out in outputs) == 1
    assert [bench.tick().setpoint for _ in range(50)] == [None] * 50


@pytest.mark.parametrize(("declared", "category"), [(0, 0), (1, 1), (2, 2)])
def test_no_row_asks_for_less_than_the_robot_declares(declared: int, category: int) -> None:
    bench = moving(stop_category=declared, reactions={"camera_lost": "stop_0"})
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    assert bench.state.stop is not None
    assert bench.state.stop.category == category


def test_a_worse_fault_during_a_stop_lowers_its_category() -> None:
    """The reason on record stays the first one."""
    bench = moving(stop_category=0, reactions={"camera_lost": "stop_2", "voltage": "stop_1"})
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    assert bench.state.phase == Phase.STOPPING
    output = bench.tick(Inbox(conditions=(Condition("motor_fault", "smoke"),)))
    assert output.release
    assert bench.state.phase == Phase.RELEASED
    assert bench.stop_code() == "camera_lost"
    assert bench.state.stop is not None
    assert bench.state.stop.category == 0


def test_a_worse_fault_of_an_arm_at_rest_lets_go_of_it() -> None:
    bench = moving(stop_category=1, reactions={"camera_lost": "stop_2"})
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    bench.run(100)
    assert bench.state.phase == Phase.STOPPED
    assert bench.tick(Inbox(conditions=(Condition("motor_fault", "smoke"),))).release
    assert bench.state.phase == Phase.RELEASED


def test_a_milder_fault_during_a_stop_raises_nothing() -> None:
    bench = moving(stop_category=1, reactions={"camera_lost": "stop_2"})
    bench.tick(Inbox(conditions=(Condition("motor_fault", "smoke"),)))
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    bench.run(100)
    assert bench.state.phase == Phase.RELEASED


def test_a_quit_after_category_0_ends_the_run() -> None:
    bench = moving(stop_category=0)
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    assert bench.tick(Inbox(quit="here")).finish is not None


@pytest.mark.parametrize("code", ["stop_input", "stop_input_lost"])
def test_no_reset_while_a_stop_input_is_pressed_or_gone(code: str) -> None:
    bench = moving()
    pressed = Inbox(conditions=(Condition(code, "the red button"),))
    for _ in range(100):
        bench.tick(pressed)
    assert bench.state.phase == Phase.STOPPED
    assert bench.stop_code() == code
    bench.tick(Inbox(conditions=pressed.conditions, reset=True))
    bench.run(5)
    bench.tick(Inbox(reset=True))
    assert bench.state.latched, "released a moment ago"
    bench.run(20)
    bench.tick(Inbox(reset=True))
    assert not bench.state.latched
    assert bench.state.phase == Phase.HOLD


def test_a_stop_input_pressed_at_rest_holds_off_the_next_arming() -> None:
    bench = Bench()
    bench.tick(Inbox(conditions=(PRESSED,), arm=arm()))
    assert bench.state.latched
    bench.tick(Inbox(arm=arm()))
    assert bench.state.phase not in (Phase.RUN, Phase.RETURN)


def test_a_first_chunk_far_from_the_arm_is_another_robot_or_other_units() -> None:
    bench = Bench(core=ControlCore(config(first_step=(0.3, 0.3, 101.0))))
    bench.start()
    rows = [(value * 57.3, lift, grip) for value, lift, grip in [HERE] * 8]
    bench.tick(Inbox(chunk=chunk(rows, chunk_id=1, observation_ns=bench.now_ns)))
    assert bench.stop_code() == "chunk_far"
    assert len(set(bench.setpoints)) == 1, "nothing of it was carried out"


def test_only_the_first_chunk_of_a_task_must_begin_at_the_arm() -> None:
    bench = Bench(core=ControlCore(config(first_step=(0.3, 0.3, 101.0))))
    bench.start()
    bench.tick(Inbox(chunk=chunk([HERE] * 8, chunk_id=1, observation_ns=bench.now_ns)))
    far = [(HERE[0] + 0.4, *HERE[1:])] * 8
    bench.tick(Inbox(chunk=chunk(far, chunk_id=2, observation_ns=bench.now_ns)))
    assert not bench.state.latched
    bench.tick(Inbox(stop=Condition("requested", "the task is done")))
    bench.run(100)
    bench.start()
    now = (bench.arm_at[0] + 0.4, *bench.arm_at[1:])
    bench.tick(Inbox(chunk=chunk([now] * 8, chunk_id=3, observation_ns=bench.now_ns)))
    assert bench.stop_code() == "chunk_far"


def test_a_gripper_may_begin_anywhere() -> None:
    bench = Bench(core=ControlCore(config(first_step=(0.3, 0.3, 10.0))))
    bench.start()
    rows = [(*HERE[:2], 100.0)] * 8
    bench.tick(Inbox(chunk=chunk(rows, chunk_id=1, observation_ns=bench.now_ns)))
    assert not bench.state.latched


def test_too_much_current_for_too_long() -> None:
    bench = Bench(core=ControlCore(config(current_a=1.0)))
    bench.start()
    for _ in range(40):
        bench.tick(current_a=(0.1, -1.5, 5.0))
    assert not bench.state.latched, "not yet, and a gripper has its own limit"
    bench.tick(current_a=(0.1, 0.2, 0.1))
    for _ in range(40):
        bench.tick(current_a=(0.1, -1.5, 5.0))
    assert not bench.state.latched, "it began anew"
    for _ in range(20):
        bench.tick(current_a=(0.1, -1.5, 5.0))
    assert bench.stop_code() == "current"


def test_without_a_limit_no_current_is_too_much() -> None:
    bench = Bench()
    bench.start()
    for _ in range(100):
        bench.tick(current_a=(9.0, 9.0, 9.0))
    assert not bench.state.latched


def test_a_gripper_that_presses_too_hard_for_too_long() -> None:
    bench = Bench(core=ControlCore(config(grip=(None, None, (0.6, 300 * MS)))))
    bench.start()
    for _ in range(100):
        bench.tick(load=(0.1, 0.1, 0.5))
    assert not bench.state.latched
    for _ in range(40):
        bench.tick(load=(0.1, 0.1, -0.8))
    assert bench.stop_code() == "gripper_force"


def test_a_quit_that_comes_with_a_reset_parks_nothing() -> None:
    bench = moving()
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    bench.run(100)
    before = bench.arm_at
    bench.tick(Inbox(reset=True, quit="park"))
    bench.run(100)
    assert bench.arm_at == before


def test_after_a_reset_input_only_an_order_given_in_its_knowledge_moves_the_arm() -> None:
    """An order that was sent before the supervisor knew of stop and reset may come after both."""
    bench = moving()
    bench.tick(Inbox(conditions=(PRESSED,)))
    bench.run(100)
    bench.tick(Inbox(reset=True, reset_line=True))
    assert bench.state.phase == Phase.HOLD
    before = bench.arm_at
    bench.tick(Inbox(arm=arm(back=True, follow=False)))
    bench.run(50)
    assert bench.arm_at == before
    assert "void" in bench.codes()
    bench.tick(Inbox(reset=True))
    bench.tick(Inbox(arm=arm(back=True, follow=False)))
    bench.run(50)
    assert bench.arm_at != before


def test_an_end_asked_for_before_a_reset_input_was_known_parks_nothing() -> None:
    bench = moving()
    bench.tick(Inbox(conditions=(PRESSED,)))
    bench.run(100)
    bench.tick(Inbox(reset=True, reset_line=True))
    before = bench.arm_at
    bench.tick(Inbox(quit="park"))
    bench.run(100)
    assert bench.arm_at == before
    assert "parking" not in bench.codes()
