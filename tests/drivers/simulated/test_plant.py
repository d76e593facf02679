"""Servos and physics together, stepped without waiting."""

from __future__ import annotations

import json

import pytest

from holdfast.drivers.robots.schema import FOLDER, load_robot
from holdfast.drivers.simulated.faults import KINDS, FaultRequestError, Faults, apply_fault

pytest.importorskip("mujoco")
from holdfast.drivers.simulated.plant import Plant, calibrated_servos
from holdfast.drivers.simulated.wire_log import DRIVEN, TORQUE_ON
from holdfast.drivers.simulated.world import World

pytestmark = pytest.mark.sim

IDS = frozenset(range(1, 7))


def make_plant() -> Plant:
    robot = load_robot("sim_arm")
    calibration = json.loads((FOLDER / str(robot.calibration)).read_text())
    servos, offsets = calibrated_servos(robot.joint_names, calibration)
    return Plant(World(3), servos, offsets, Faults())


def go(plant: Plant, index: int, by: int, steps: int = 300) -> int:
    """Sends a motor `by` ticks on with torque, as a host does; returns how far it came."""
    servo = plant.servos[index]
    start = servo.get("present_position")
    servo.write(42, (start + by).to_bytes(2, "little"))
    servo.write(40, b"\1")
    for _ in range(steps):
        plant.step()
    return servo.get("present_position") - start


@pytest.mark.parametrize("index", range(5))
def test_every_joint_follows_its_motor(index: int) -> None:
    plant = make_plant()
    assert go(plant, index, 100) == pytest.approx(100, abs=4)
    assert plant.servos[index].get("present_velocity") == pytest.approx(0, abs=3)


def test_present_positions_start_where_the_world_is() -> None:
    plant = make_plant()
    assert [servo.get("present_position") for servo in plant.servos] == plant.world.present_ticks()
    assert [servo.get("goal_position") for servo in plant.servos] == plant.world.present_ticks()


def test_a_rezeroed_servo_moves_by_its_own_count() -> None:
    plant = make_plant()
    before = plant.world.present_ticks()[0]
    plant.servos[0].write(40, b"\x80")
    assert plant.servos[0].get("present_position") == 2048
    assert go(plant, 0, 100) == pytest.approx(100, abs=4)
    assert plant.world.present_ticks()[0] - before == pytest.approx(100, abs=4)


def test_power_loss_is_limp_and_comes_back_limp() -> None:
    plant = make_plant()
    go(plant, 0, 50)
    plant.faults.power_lost = True
    plant.step()
    assert plant.world.goal_ticks == [None] * 6
    plant.faults.clear()
    plant.step()
    assert plant.servos[0].get("torque_enable") == 0
    assert plant.world.goal_ticks == [None] * 6


def test_jam_and_free() -> None:
    plant = make_plant()
    plant.faults.jammed.add(1)
    assert abs(go(plant, 0, 200, steps=100)) <= 4
    assert plant.servos[0].get("present_load") > 800
    plant.faults.clear()
    for _ in range(300):
        plant.step()
    goal, present = (plant.servos[0].get(name) for name in ("goal_position", "present_position"))
    assert present == pytest.approx(goal, abs=4)


def test_settled_goals_keep_a_placed_arm_where_it_was_put() -> None:
    plant = make_plant()
    go(plant, 0, 100)
    plant.world.reset(9)
    plant.settle_goals()
    placed = plant.world.present_ticks()
    for _ in range(200):
        plant.step()
    assert plant.world.present_ticks()[0] == pytest.approx(placed[0], abs=4)


def test_every_kind_of_fault_can_be_asked_for_and_cleared() -> None:
    faults = Faults()
    for kind, arguments in KINDS.items():
        apply_fault(faults, kind, dict.fromkeys(arguments, 1), IDS)
        if kind not in ("clear", "power_back", "replug"):
            assert faults != Faults(), kind
        faults.clear()
        assert faults == Faults()


def test_a_fault_must_make_sense() -> None:
    for kind, arguments in (("corrupt", {"every": float("nan")}), ("jam", {"id": "one"}), (None, {})):
        with pytest.raises(FaultRequestError):
            apply_fault(Faults(), kind, arguments, IDS)


def test_a_power_cycle_between_two_steps_is_one() -> None:
    plant = make_plant()
    go(plant, 0, 50)
    plant.faults.power_lost = True
    plant.follow_faults()
    plant.faults.clear()
    plant.follow_faults()
    plant.step()
    assert plant.servos[0].get("torque_enable") == 0
    assert plant.torque == [0] * 6


def test_the_truth_is_by_the_calibration_whatever_a_servo_says() -> None:
    plant = make_plant()
    plant.servos[0].write(40, b"\x80")
    plant.faults.stuck.add(2)
    before = plant.servos[1].get("present_position")
    assert go(plant, 1, 100) == 0
    assert plant.ticks == plant.world.present_ticks()
    assert plant.ticks[1] == pytest.approx(before + 100, abs=4)
    assert plant.torque == [0, TORQUE_ON | DRIVEN, 0, 0, 0, 0]
    plant.faults.overloaded.add(2)
    plant.step()
    assert plant.torque == [0, TORQUE_ON, 0, 0, 0, 0]
