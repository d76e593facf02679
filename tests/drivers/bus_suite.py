"""The suite that every motor bus inherits: a new bus brings a rig and gets all of these tests.

The rule behind all of them: a sample is complete and fresh, or an error; and one bad cycle costs one cycle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from holdfast.drivers.arm import Arm, open_arm
from holdfast.drivers.errors import BusError, BusTimeout, CorruptReply, Disconnected, MotorFault, PortError
from holdfast.drivers.feetech import codec
from holdfast.drivers.types import Direction

from .bus_rigs import Rig
from .frames import decode_request, encode_status

CYCLES = 20


class Denied(Exception):
    """What the guard of these tests raises."""


class BusSuite:
    """Inherit, and give a fixture `rig`."""

    @pytest.fixture
    def frames(self) -> list[bytes]:
        return []

    @pytest.fixture
    def arm(self, rig: Rig, frames: list[bytes]) -> Iterator[Arm]:
        arm = open_arm(rig.url, rig.robot, rig.calibration, frames.append)
        arm.connect()
        yield arm
        arm.close()

    @pytest.fixture
    def armed(self, arm: Arm) -> Arm:
        arm.prepare()
        arm.energise()
        return arm

    def test_connect_names_every_motor(self, arm: Arm, rig: Rig) -> None:
        assert [(info.motor_id, info.model) for info in arm.connect()] == [
            (i, "sts3215") for i in rig.robot.motor_ids
        ]

    def test_a_calibrated_arm_passes_every_check(self, arm: Arm) -> None:
        assert [row for row in arm.check() if not row.ok] == []

    def test_nothing_is_written_before_prepare(self, arm: Arm, frames: list[bytes]) -> None:
        arm.check()
        arm.read()
        allowed = {codec.Instruction.PING, codec.Instruction.READ, codec.Instruction.SYNC_READ}
        assert {decode_request(frame).instruction for frame in frames} <= allowed

    def test_goals_are_the_measured_positions_before_torque(self, arm: Arm, rig: Rig) -> None:
        arm.prepare()
        assert [s.get("goal_position") for s in rig.servos] == [s.get("present_position") for s in rig.servos]
        assert {s.get("torque_enable") for s in rig.servos} == {0}
        arm.energise()
        assert {s.get("torque_enable") for s in rig.servos} == {1}

    def test_preparing_an_arm_that_holds_does_not_drop_it(self, armed: Arm, frames: list[bytes]) -> None:
        frames.clear()
        armed.prepare()
        torque = codec.REGISTERS["torque_enable"].address
        writes = [decode_request(frame) for frame in frames]
        assert not [w for w in writes if w.instruction == 3 and w.parameters[0] == torque]

    def test_the_arm_follows_and_every_sample_is_fresh(self, armed: Arm) -> None:
        assert_follows(armed)

    def test_a_sample_is_stamped_inside_its_call(self, armed: Arm) -> None:
        before = time.monotonic_ns()
        stamp = armed.read().stamp_ns
        assert before < stamp < time.monotonic_ns()

    def test_a_late_answer_costs_its_own_cycle_only(self, armed: Arm, rig: Rig) -> None:
        """After one late answer the vendor's SDK is one or two cycles stale for ever."""
        rig.faults.late_ms, rig.faults.late_count = 160, 1
        with pytest.raises(BusTimeout):
            armed.read()
        time.sleep(0.05)
        assert_follows(armed, errors_allowed=2)

    def test_answers_late_by_a_cycle_for_good_are_never_taken(self, armed: Arm, rig: Rig) -> None:
        """Every answer comes when the next request is out: each would fit, and each is old."""
        rig.faults.late_ms, rig.faults.late_count = 140, 12
        for step in range(12):
            try:
                armed.command([0.02 * step, 0, 0, 0, 0, 50])
                state = armed.read()
            except BusError:
                continue
            assert state.position[0] == pytest.approx(0.02 * step, abs=2e-3)
        time.sleep(0.15)
        assert_follows(armed, errors_allowed=1)

    def test_a_silent_motor_is_named(self, armed: Arm, rig: Rig) -> None:
        rig.faults.silent.add(3)
        for _ in range(3):
            with pytest.raises(BusTimeout) as caught:
                armed.read()
            assert caught.value.missing == (3,)
        rig.faults.silent.clear()
        assert_follows(armed)

    def test_a_corrupt_answer_costs_its_own_cycle_only(self, armed: Arm, rig: Rig) -> None:
        def corrupt(data: bytes) -> bytes:
            return data[:30] + bytes((data[30] ^ 0x40,)) + data[31:]

        rig.mangle = [corrupt]
        with pytest.raises(CorruptReply):
            armed.read()
        assert_follows(armed)

    def test_a_duplicated_answer_is_refused(self, armed: Arm, rig: Rig) -> None:
        rig.mangle = [lambda data: data[:21] + data]
        with pytest.raises(CorruptReply):
            armed.read()
        assert_follows(armed)

    def test_a_truncated_answer_is_refused(self, armed: Arm, rig: Rig) -> None:
        rig.mangle = [lambda data: data[:50] + data[51:]]
        with pytest.raises(BusTimeout) as caught:
            armed.read()
        assert len(caught.value.missing) == 1
        assert_follows(armed)

    def test_an_answer_of_another_motor_is_refused(self, armed: Arm, rig: Rig) -> None:
        def renamed(data: bytes) -> bytes:
            first = codec.decode_status(data[:21])
            return encode_status(9, first.faults, first.parameters) + data[21:]

        rig.mangle = [renamed]
        with pytest.raises(CorruptReply, match="motor"):
            armed.read()
        assert_follows(armed)

    def test_noise_between_requests_is_thrown_away(self, armed: Arm, rig: Rig) -> None:
        rig.mangle = [lambda data: data + b"\x00\xff\xff\x01"]
        with pytest.raises(CorruptReply):
            armed.read()
        assert_follows(armed)

    def test_fault_bits_of_a_sync_read_are_reported(self, armed: Arm, rig: Rig) -> None:
        """Silent in the vendor's SDK and in LeRobot."""
        rig.faults.error_bits[4] = codec.Fault.OVERLOAD
        state = armed.read()
        assert state.faults == (0, 0, 0, 32, 0, 0)

    def test_a_motor_with_a_fault_is_not_armed(self, arm: Arm, rig: Rig) -> None:
        rig.faults.error_bits[4] = codec.Fault.OVERHEAT
        with pytest.raises(MotorFault, match="overheat") as caught:
            arm.prepare()
        assert caught.value.motor_id == 4
        assert [row.name for row in arm.check() if not row.ok] == ["wrist_flex: faults"]

    def test_release_reaches_every_motor_although_one_is_silent(self, armed: Arm, rig: Rig) -> None:
        rig.faults.silent.add(2)
        rig.faults.error_bits[5] = codec.Fault.OVERLOAD
        with pytest.raises(BusTimeout):
            armed.release()
        assert [servo.get("torque_enable") for servo in rig.servos] == [0, 1, 0, 0, 0, 0]

    def test_power_loss_names_every_motor(self, armed: Arm, rig: Rig) -> None:
        rig.faults.power_lost = True
        with pytest.raises(BusTimeout, match="power") as caught:
            armed.read()
        assert caught.value.missing == rig.robot.motor_ids

    def test_unplugged_and_plugged_in_again(self, armed: Arm, rig: Rig) -> None:
        rig.unplug_safely()
        with pytest.raises(Disconnected):
            armed.read()
        with pytest.raises(Disconnected):
            armed.command([0, 0, 0, 0, 0, 0])
        with pytest.raises(PortError):
            armed.connect()
        rig.replug_safely()
        armed.connect()
        assert_follows(armed)

    def test_a_denied_frame_never_reaches_the_wire(self, rig: Rig) -> None:
        def deny_writes(frame: bytes) -> None:
            if decode_request(frame).instruction in (
                codec.Instruction.WRITE,
                codec.Instruction.SYNC_WRITE,
            ):
                raise Denied

        arm = open_arm(rig.url, rig.robot, rig.calibration, deny_writes)
        arm.connect()
        for forbidden in (arm.prepare, arm.energise, arm.release, lambda: arm.command([0, 0, 0, 0, 0, 0])):
            with pytest.raises(Denied):
                forbidden()
        arm.read()
        arm.close()
        assert {servo.get("torque_enable") for servo in rig.servos} == {0}
        assert b"\x83" not in rig.heard

    def test_a_target_that_cannot_be_encoded_is_not_sent(self, armed: Arm, rig: Rig) -> None:
        before = bytes(rig.heard)
        for bad in (float("nan"), float("inf"), 4.0):
            with pytest.raises(ValueError, match="outside"):
                armed.command([0, bad, 0, 0, 0, 0])
        assert bytes(rig.heard) == before

    def test_gains_are_written_only_when_asked(self, arm: Arm, rig: Rig) -> None:
        rig.servos[1].put("p_gain", 32)
        assert [row.name for row in arm.check() if not row.ok] == ["shoulder_lift: gain p"]
        arm.prepare()
        assert rig.servos[1].get("p_gain") == 32
        arm.prepare(write_gains=True)
        rig.servos[1].power_up()
        assert rig.servos[1].get("p_gain") == 16
        assert {servo.get("lock") for servo in rig.servos} == {1}

    # The tap

    @pytest.fixture
    def tapped(
        self, rig: Rig, frames: list[bytes]
    ) -> Iterator[tuple[Arm, list[tuple[Direction, int, bytes]]]]:
        """An arm with a tap on its port, connected."""
        seen: list[tuple[Direction, int, bytes]] = []
        arm = open_arm(
            rig.url, rig.robot, rig.calibration, frames.append, tap=lambda *record: seen.append(record)
        )
        arm.connect()
        yield arm, seen
        arm.close()

    def test_a_tap_sees_every_byte_in_order(
        self, tapped: tuple[Arm, list[tuple[Direction, int, bytes]]], frames: list[bytes], rig: Rig
    ) -> None:
        arm, seen = tapped
        arm.prepare()
        arm.read()
        arm.command([0, 0, 0, 0, 0, 50])
        assert [data for direction, _, data in seen if direction == Direction.SENT] == frames
        stamps = [stamp for _, stamp, _ in seen]
        assert stamps == sorted(stamps)
        (direction, _, answer), (last, _, goals) = seen[-2:]
        assert (direction, len(answer)) == (Direction.RECEIVED, 6 * (codec.OVERHEAD + codec.FEEDBACK_LENGTH))
        assert last == Direction.SENT
        assert decode_request(goals).instruction == codec.Instruction.SYNC_WRITE

    def test_a_tap_sees_what_came_of_an_incomplete_answer(
        self, tapped: tuple[Arm, list[tuple[Direction, int, bytes]]], rig: Rig
    ) -> None:
        arm, seen = tapped
        rig.mangle.append(lambda data: data[:-5])
        with pytest.raises(BusTimeout):
            arm.read()
        direction, _, data = seen[-1]
        assert direction == Direction.RECEIVED
        assert len(data) == 6 * (codec.OVERHEAD + codec.FEEDBACK_LENGTH) - 5

    def test_a_tap_sees_what_is_thrown_away(
        self, tapped: tuple[Arm, list[tuple[Direction, int, bytes]]], rig: Rig
    ) -> None:
        arm, seen = tapped
        stray = encode_status(9, 0)
        rig.mangle.append(lambda data: data + stray)
        with pytest.raises(CorruptReply):
            arm.read()
        rig.mangle.append(lambda data: data)
        arm.read()
        beyond = b"".join(data for direction, _, data in seen if direction != Direction.SENT)
        assert stray in beyond


def assert_follows(arm: Arm, errors_allowed: int = 0) -> None:
    """Commands a new pose each cycle and reads it back at once: an old sample shows as a wrong pose."""
    errors: list[str] = []
    for step in range(CYCLES):
        try:
            arm.command([0.5 - 0.02 * step, 0, 0, 0, 0, 50])
            state = arm.read()
        except BusError as error:
            errors.append(str(error))
            continue
        assert state.position[0] == pytest.approx(0.5 - 0.02 * step, abs=2e-3)
    assert len(errors) <= errors_allowed, errors
