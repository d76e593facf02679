"""The pure core as a specification: what stops the arm, what a stop does, and how a run ends."""

from __future__ import annotations

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.messages import Phase

from .test_core import HERE, ramp
from .test_core_properties import check_limits
from .world import MS, Bench, arm, chunk, config


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"rows": ramp(0.4)[:7]}, "chunk_bad"),
        ({"rows": [row[:2] for row in ramp(0.4)]}, "chunk_bad"),
        ({"rows": []}, "chunk_bad"),
        ({"dt_ns": 20 * MS}, "chunk_bad"),
        ({"late": 301 * MS}, "chunk_stale"),
        ({"late": -50 * MS}, "chunk_bad"),
    ],
)
def test_malformed_and_stale_chunks_are_latched_stops(changed: dict, code: str) -> None:
    bench = Bench()
    bench.start()
    late = changed.pop("late", 0)
    rows = changed.pop("rows", ramp(0.4))
    message = chunk(rows, chunk_id=1, observation_ns=bench.now_ns + 10 * MS - late, **changed)
    bench.tick(Inbox(chunk=message))
    assert bench.stop_code() == code
    assert bench.state.latched


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        ({"faults": (0, 32, 0)}, "motor_fault"),
        ({"voltage_v": (7.4, 2.0, 7.4)}, "voltage"),
        ({"temperature_c": (30.0, 80.0, 30.0)}, "temperature"),
        ({"position": (0.2, 0.4, 10.0)}, "following_error"),
    ],
)
def test_what_the_motors_report_stops_the_arm(sample: dict, code: str) -> None:
    bench = Bench()
    bench.start()
    bench.tick(**sample)
    assert bench.stop_code() == code


def test_a_joint_loaded_too_long_stops_but_a_gripper_may_stall() -> None:
    bench = Bench()
    bench.start()
    for _ in range(100):
        bench.tick(load=(0.1, 0.1, 1.0))
    assert not bench.state.latched
    for _ in range(60):
        bench.tick(load=(0.1, -0.95, 0.1))
    assert bench.stop_code() == "load"


def test_a_blocked_joint_is_noticed_although_the_lead_cap_bounds_its_error() -> None:
    bench = Bench(arm_follows=False)
    bench.start()
    for i in range(1, 120):
        bench.tick(Inbox(chunk=chunk([(0.9, -0.3, 10.0)] * 8, chunk_id=i, observation_ns=bench.now_ns)))
    assert bench.stop_code() == "stalled"
    assert max(point[0] for point in bench.setpoints) <= 0.2 + 0.3 + 1e-6


def test_a_bus_without_answers_stops_after_the_declared_age() -> None:
    bench = Bench()
    bench.start()
    for _ in range(7):
        bench.tick(bus=False)
    assert not bench.state.latched
    for _ in range(3):
        bench.tick(bus=False)
    assert bench.stop_code() == "joint_state_stale"


def test_a_silent_policy_stops_in_run_only() -> None:
    bench = Bench(beats=False)
    for _ in range(60):
        bench.tick(Inbox(heard_supervisor=True))
    assert not bench.state.latched
    bench.tick(Inbox(arm=arm(), heard_supervisor=True))
    for _ in range(40):
        bench.tick(Inbox(heard_supervisor=True))
    assert bench.stop_code() == "policy_silent"


def test_a_lost_supervisor_ends_the_run_at_rest_and_holding() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(10)
    finish = bench.tick(Inbox(conditions=(Condition("supervisor_lost", "gone"),))).finish
    ticks = 0
    while finish is None and ticks < 200:
        finish = bench.tick().finish
        ticks += 1
    assert finish == "hold"
    assert bench.state.latched


def test_missed_slots_in_a_row_stop() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(slots_late=3))
    bench.tick(Inbox(slots_run=0, slots_overrun=3))
    bench.tick(Inbox(slots_run=0, slots_late=1))
    assert not bench.state.latched
    bench.tick(Inbox(slots_run=0, slots_late=1))
    assert bench.stop_code() == "missed_in_a_row"


def test_a_share_of_missed_slots_stops() -> None:
    bench = Bench()
    bench.start()
    for i in range(400):
        bench.tick(Inbox(slots_late=1 if i % 10 == 0 else 0))
    assert bench.stop_code() == "missed_fraction"


def test_after_a_stop_nothing_moves_until_a_person_resets_and_arms() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(10)
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    bench.run(100)
    assert bench.state.phase == Phase.STOPPED
    rest = bench.setpoints[-1]
    bench.tick(Inbox(arm=arm(back=True, follow=False)))
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=2, observation_ns=bench.now_ns)))
    bench.run(20)
    assert bench.setpoints[-1] == rest
    bench.tick(Inbox(reset=True))
    bench.run(20)
    assert bench.setpoints[-1] == rest
    assert bench.state.phase == Phase.HOLD
    bench.tick(Inbox(arm=arm(back=True, follow=False)))
    bench.run(300)
    assert bench.setpoints[-1] == pytest.approx((0.0, 0.0, 0.5), abs=2e-3)
    assert "at_start" in bench.codes()


def test_an_arm_that_was_pushed_away_is_not_pulled_back() -> None:
    bench = Bench(arm_follows=False)
    bench.arm_at = (0.7, -0.3, 10.0)
    bench.tick()
    assert bench.stop_code() == "following_error"
    bench.tick(Inbox(reset=True))
    assert "coming to rest" in bench.notes[-1].text
    bench.run(150)
    bench.tick(Inbox(reset=True))
    assert bench.state.phase == Phase.HOLD
    assert bench.setpoints[-1][0] == pytest.approx(0.7 - 0.3 / 4, abs=1e-3)


def test_a_reset_is_refused_while_the_fault_stands() -> None:
    bench = Bench()
    bench.tick(faults=(1, 0, 0))
    bench.run(5)
    bench.tick(Inbox(reset=True), faults=(1, 0, 0))
    assert bench.state.phase == Phase.STOPPED


def test_quitting_parks_and_releases() -> None:
    bench = Bench()
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(5)
    finish = bench.tick(Inbox(quit="park")).finish
    for _ in range(500):
        if finish is not None:
            break
        # Losing the policy, or its chunks, changes nothing any more.
        finish = bench.tick(Inbox(conditions=(Condition("policy_lost", "ended"),))).finish
    assert finish == "release"
    assert bench.setpoints[-1] == pytest.approx((0.0, -0.5, 0.5), abs=2e-3)
    assert not bench.state.latched


def test_a_second_request_to_quit_stops_the_parking_and_holds() -> None:
    bench = Bench()
    bench.tick(Inbox(quit="park"))
    bench.run(5)
    finish = bench.tick(Inbox(quit="here")).finish
    for _ in range(100):
        if finish is not None:
            break
        finish = bench.tick().finish
    assert finish == "hold"
    assert bench.setpoints[-1][1] > -0.5


def test_a_fault_while_an_ending_arm_is_taken_off_what_it_presses_on_is_latched() -> None:
    """Not latched yet at rest: the next start must not go on as if nothing had been."""
    bench = Bench(core=ControlCore(config(at_exit="hold_energised")), arm_follows=False)
    bench.start()
    for i in range(1, 40):
        bench.tick(Inbox(chunk=chunk([(0.9, -0.3, 60.0)] * 8, chunk_id=i, observation_ns=bench.now_ns)))
    bench.tick(Inbox(quit="here"))
    for _ in range(200):
        if bench.state.phase != Phase.STOPPED:
            bench.tick()
    assert bench.state.phase == Phase.STOPPED
    finish = bench.tick(Inbox(conditions=(Condition("motor_fault", "x"),))).finish
    assert bench.stop_code() == "motor_fault"
    for _ in range(200):
        finish = finish or bench.tick().finish
    assert finish == "hold"
    assert bench.state.latched


def test_quitting_after_a_stop_never_moves() -> None:
    bench = Bench()
    bench.tick(Inbox(conditions=(Condition("requested", "test"),)))
    bench.run(5)
    output = bench.tick(Inbox(quit="park"))
    assert output.finish == "hold"
    assert set(bench.setpoints) == {HERE}


def test_category_1_releases_once_at_rest() -> None:
    bench = Bench(core=ControlCore(config(stop_category=1)))
    bench.start()
    bench.tick(Inbox(conditions=(Condition("requested", "test"),)))
    bench.run(3)
    assert bench.state.phase == Phase.RELEASED
    assert bench.tick().setpoint is None


def test_an_unknown_condition_is_a_stop() -> None:
    bench = Bench()
    bench.tick(Inbox(conditions=(Condition("never heard of", "x"),)))
    assert bench.state.latched


def test_motors_that_were_silent_are_never_sent_to_where_the_arm_was() -> None:
    """A hardware stop cuts their power: the arm falls, and must not jump back when the power returns."""
    bench = Bench()
    bench.start()
    for _ in range(60):
        bench.tick(bus=False)
    assert bench.stop_code() == "joint_state_stale"
    bench.arm_at = (0.9, 1.2, 0.0)
    assert bench.tick().setpoint is None
    bench.tick(Inbox(reset=True))
    assert bench.state.phase == Phase.STOPPED
    assert "power" in bench.notes[-1].text
    assert bench.tick().setpoint is None


def pressing() -> Bench:
    """An arm held back by something, its command as far ahead as is allowed."""
    bench = Bench(arm_follows=False)
    bench.start()
    for i in range(1, 40):
        bench.tick(Inbox(chunk=chunk([(0.9, -0.3, 60.0)] * 8, chunk_id=i, observation_ns=bench.now_ns)))
    assert bench.setpoints[-1][0] > 0.2 + 0.25
    return bench


@pytest.mark.parametrize("code", ["stalled", "requested", "policy_lost"])
@pytest.mark.parametrize("ending", [False, True])
def test_no_stop_goes_on_pressing_whoever_asked_for_it(code: str, ending: bool) -> None:
    bench = pressing()
    grip = bench.setpoints[-1][2]
    stop = (Condition(code, "test"),)
    finish = bench.tick(Inbox(conditions=stop, quit="here" if ending else None)).finish
    for _ in range(200):
        finish = finish or bench.tick().finish
    assert finish == ("hold" if ending else None)
    assert bench.setpoints[-1][0] == pytest.approx(0.2 + 0.3 / 4, abs=0.01)
    assert bench.setpoints[-1][2] == pytest.approx(grip, abs=5.0), "a gripper keeps its grip"
    check_limits(bench.setpoints)


def test_motors_that_fall_silent_while_the_command_is_eased_get_nothing_more() -> None:
    bench = pressing()
    bench.tick(Inbox(conditions=(Condition("stalled", "test"),)))
    bench.run(60)
    for _ in range(60):
        bench.tick(bus=False)
    bench.arm_at = (-0.5, -1.2, 0.0)
    count = len(bench.setpoints)
    bench.run(100)
    assert len(bench.setpoints) == count
    assert bench.tick(Inbox(quit="park")).finish == "hold"


def test_a_stopped_arm_in_a_shaking_hand_still_ends_the_run() -> None:
    bench = pressing()
    finish = bench.tick(Inbox(conditions=(Condition("requested", "test"),), quit="here")).finish
    for i in range(300):
        bench.arm_at = (0.2 + 0.1 * (i % 2), -0.3, 10.0)
        finish = finish or bench.tick().finish
    assert finish == "hold"


def test_a_reset_forgets_the_missed_slots_that_led_to_the_stop() -> None:
    bench = Bench()
    for i in range(400):
        bench.tick(Inbox(slots_late=1 if i % 10 == 0 else 0))
    assert bench.stop_code() == "missed_fraction"
    bench.run(100)
    bench.tick(Inbox(reset=True))
    bench.run(50)
    assert bench.state.phase == Phase.HOLD
    assert bench.state.slots.missed == 40


def test_parking_against_an_obstacle_never_releases() -> None:
    bench = Bench(arm_follows=False)
    bench.arm_at = (0.1, -0.3, 0.0)
    bench.tick(Inbox(quit="park"))
    finish = None
    for _ in range(800):
        finish = finish or bench.tick().finish
    assert bench.stop_code() in ("not_reached", "stalled", "following_error")
    assert finish == "hold"


def test_a_pose_counts_when_the_arm_is_there_not_the_command() -> None:
    bench = Bench(arm_follows=False)
    bench.arm_at = (0.2, 0.2, 0.0)
    bench.tick(Inbox(arm=arm(back=True, follow=False)))
    bench.run(200)
    assert "at_start" not in bench.codes()


def test_what_happens_after_a_stop_is_reported_once_per_code() -> None:
    bench = Bench()
    bench.tick(Inbox(conditions=(Condition("requested", "test"),)))
    for _ in range(10):
        bench.tick(temperature_c=(80.0, 30.0, 30.0))
    assert [note.text.split(":")[0] for note in bench.notes if note.code == "also"] == ["temperature"]


def test_a_stop_by_space_while_parking_holds() -> None:
    bench = Bench()
    bench.tick(Inbox(quit="park"))
    bench.run(5)
    finish = bench.tick(Inbox(conditions=(Condition("requested", "space"),))).finish
    for _ in range(100):
        finish = finish or bench.tick().finish
    assert finish == "hold"
    assert bench.state.latched
