"""Bytes <-> values: every frame survives the round trip, every damaged one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.errors import CorruptReply
from holdfast.drivers.feetech import codec
from holdfast.drivers.feetech.codec import REGISTERS

from .frames import Request, decode_request, encode_status, sync_write_rows

ids = st.integers(0, 253)
params = st.binary(max_size=60)
registers = st.sampled_from(sorted(REGISTERS))
IDS = (1, 2, 3, 4, 5, 6)


def test_the_frames_of_the_manual() -> None:
    assert codec.ping(1) == bytes.fromhex("ffff010201fb")
    assert codec.read(1, 56, 2) == bytes.fromhex("ffff0104023802be")
    assert codec.write(1, REGISTERS["id"], 1) == bytes.fromhex("ffff0104030501f1")
    assert codec.sync_read((1, 2), 56, 8) == bytes.fromhex("fffffe068238080102") + b"\x36"


@given(ids, st.integers(0, 255), params)
def test_requests_round_trip(motor_id: int, instruction: int, data: bytes) -> None:
    frame = codec.encode_request(motor_id, instruction, data)
    assert decode_request(frame) == Request(motor_id, instruction, data)


@given(ids, st.integers(0, 255), params, st.data())
def test_one_wrong_byte_is_always_noticed(
    motor_id: int, faults: int, data: bytes, draw: st.DataObject
) -> None:
    frame = bytearray(encode_status(motor_id, faults, data))
    at = draw.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(CorruptReply):
        codec.decode_status(bytes(frame))


@given(ids, st.integers(0, 255), params)
def test_answers_are_read_back(motor_id: int, faults: int, data: bytes) -> None:
    assert codec.decode_status(encode_status(motor_id, faults, data)) == codec.Status(motor_id, faults, data)


@given(st.binary(max_size=80))
def test_random_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        status = codec.decode_status(data)
    except CorruptReply:
        return
    assert encode_status(status.motor_id, status.faults, status.parameters) == data


@given(registers, st.data())
def test_values_round_trip(name: str, draw: st.DataObject) -> None:
    register = REGISTERS[name]
    bits = 8 * register.length if register.sign_bit is None else register.sign_bit
    low = 0 if register.sign_bit is None else -(1 << bits) + 1
    value = draw.draw(st.integers(low, (1 << bits) - 1))
    assert codec.decode_value(register, codec.encode_value(register, value)) == value


@pytest.mark.parametrize(
    ("name", "value", "raw"),
    [
        ("homing_offset", -1, 0x801),
        ("present_position", -5, 0x8005),
        ("present_load", -3, 0x403),
        ("goal_position", 2048, 2048),
    ],
)
def test_negative_values_are_sign_and_magnitude(name: str, value: int, raw: int) -> None:
    assert codec.encode_value(REGISTERS[name], value) == raw.to_bytes(2, "little")


@pytest.mark.parametrize(
    ("name", "value"), [("homing_offset", 2048), ("goal_position", 32768), ("id", -1), ("lock", 256)]
)
def test_a_value_that_does_not_fit_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        codec.encode_value(REGISTERS[name], value)


def test_read_only_registers_are_not_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        codec.write(1, REGISTERS["present_position"], 0)


@given(st.lists(st.integers(0, 4095), min_size=6, max_size=6))
def test_sync_writes_round_trip(ticks: list[int]) -> None:
    frame = codec.sync_write(IDS, REGISTERS["goal_position"], ticks)
    address, length, rows = sync_write_rows(decode_request(frame))
    assert (address, length) == (42, 2)
    assert rows == [(i, tick.to_bytes(2, "little")) for i, tick in zip(IDS, ticks, strict=True)]
    assert codec.encode_goals(IDS, ticks) == frame


@given(
    st.integers(0, 255),
    st.integers(-32767, 32767),
    st.integers(-32767, 32767),
    st.integers(-1000, 1000),
    st.integers(-500, 500),
)
def test_the_feedback_block(faults: int, position: int, velocity: int, load: int, current: int) -> None:
    block = bytearray(15)
    for name, value in (
        ("present_position", position),
        ("present_velocity", velocity),
        ("present_load", load),
        ("present_voltage", 74),
        ("present_temperature", 31),
        ("present_current", current),
    ):
        at = REGISTERS[name].address - codec.FEEDBACK_ADDRESS
        block[at : at + REGISTERS[name].length] = codec.encode_value(REGISTERS[name], value)
    data = encode_status(3, faults, bytes(block))
    codec.check_answers(data, (3,), 15)
    assert codec.unpack_feedback(data) == [(faults, position, velocity, load, 74, 31, current)]


@given(st.data())
def test_answers_in_the_wrong_order_or_damaged_are_refused(draw: st.DataObject) -> None:
    answers = [encode_status(i, 0, bytes((i, 8))) for i in IDS]
    codec.check_answers(b"".join(answers), IDS, 2)
    shuffled = draw.draw(st.permutations(answers))
    if shuffled != answers:
        with pytest.raises(CorruptReply):
            codec.check_answers(b"".join(shuffled), IDS, 2)
    damaged = bytearray(b"".join(answers))
    damaged[draw.draw(st.integers(0, len(damaged) - 1))] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(CorruptReply):
        codec.check_answers(bytes(damaged), IDS, 2)


@given(st.sets(st.sampled_from(IDS)), st.binary(max_size=5))
def test_who_answered_is_found_among_noise(spoke: set[int], noise: bytes) -> None:
    data = noise.join(encode_status(i, 0, b"\x01\x02") for i in IDS if i in spoke)
    assert codec.answering(noise + data, IDS, 2) == spoke


def test_fault_bits_in_words() -> None:
    assert codec.fault_names(0) == "none"
    assert codec.fault_names(32 | 4) == "overheat, overload"
    assert codec.fault_names(64 | 1) == "voltage, unknown bits 0x40"
