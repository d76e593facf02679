"""The bus as the protocol's description has it, byte for byte. Frames are built by hand here."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drivers.simulated.faults import Faults
from holdfast.drivers.simulated.servos import Servo
from holdfast.drivers.simulated.wire import Reply, ServoBus

IDS = (1, 2, 3, 4, 5, 6)
BYTE_NS = 10_000
BROADCAST = 0xFE


def request(servo_id: int, instruction: int, *params: int) -> bytes:
    body = bytes([servo_id, len(params) + 2, instruction, *params])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def make_bus(faults: Faults | None = None) -> ServoBus:
    return ServoBus([Servo(i) for i in IDS], faults)


def joined(replies: list[Reply]) -> bytes:
    return b"".join(reply.data for reply in replies)


def split(data: bytes) -> list[tuple[int, int, bytes]]:
    """(id, error, params) of each status packet; fails on anything else."""
    out = []
    while data:
        assert data[:2] == b"\xff\xff"
        end = data[3] + 4
        assert len(data) >= end
        assert ~sum(data[2 : end - 1]) & 0xFF == data[end - 1]
        out.append((data[2], data[4], data[5 : end - 1]))
        data = data[end:]
    return out


def ask(bus: ServoBus, servo_id: int, instruction: int, *params: int, now_ns: int = 0):
    return split(joined(bus.feed(request(servo_id, instruction, *params), now_ns)))


def test_ping_on_the_wire_is_the_packet_of_the_manual() -> None:
    replies = make_bus().feed(bytes.fromhex("ffff010201fb"), 0)
    assert joined(replies) == bytes.fromhex("ffff010200fc")
    assert replies[0].due_ns == 12 * BYTE_NS


def test_model_number() -> None:
    assert ask(make_bus(), 3, 2, 3, 2) == [(3, 0, (777).to_bytes(2, "little"))]


def test_missing_id_and_bad_checksum_are_met_with_silence() -> None:
    bus = make_bus()
    assert bus.feed(request(9, 1), 0) == []
    assert bus.feed(bytes.fromhex("ffff010201fa"), 0) == []
    assert bus.bad_checksums == 1
    assert len(ask(bus, 1, 1)) == 1


def test_broadcast_ping_is_answered_by_all_in_order() -> None:
    assert [row[0] for row in ask(make_bus(), BROADCAST, 1)] == list(IDS)


def test_broadcast_write_is_obeyed_and_not_answered() -> None:
    bus = make_bus()
    assert ask(bus, BROADCAST, 3, 40, 1) == []
    assert all(servo.get("torque_enable") == 1 for servo in bus.servos)


def test_sync_read_takes_its_time_on_the_wire() -> None:
    bus = make_bus()
    replies = bus.feed(request(BROADCAST, 0x82, 56, 2, *IDS), 1_000_000)
    assert [row[0] for row in split(joined(replies))] == list(IDS)
    assert replies[-1].due_ns == 1_000_000 + (14 + 6 * 8) * BYTE_NS
    bus.feed(request(BROADCAST, 0x83, 42, 2, *[v for i in IDS for v in (i, 0, 8)]), replies[-1].due_ns)
    again = bus.feed(request(1, 1), replies[-1].due_ns)
    assert again[0].due_ns == 1_000_000 + (88 + 12) * BYTE_NS


def test_long_answers_come_in_adapter_packets() -> None:
    replies = make_bus().feed(request(BROADCAST, 0x82, 56, 15, *IDS), 0)
    assert [len(reply.data) for reply in replies] == [42, 42, 42]
    assert [reply.due_ns for reply in replies] == [(14 + n * 42) * BYTE_NS for n in (1, 2, 3)]


def test_a_silent_motor_leaves_a_gap_in_a_sync_read() -> None:
    bus = make_bus(Faults(silent={3}))
    replies = bus.feed(request(BROADCAST, 0x82, 56, 2, *IDS), 0)
    assert [row[0] for row in split(joined(replies))] == [1, 2, 4, 5, 6]
    assert replies[-1].due_ns == (14 + 6 * 8) * BYTE_NS


def test_sync_write_moves_the_goals_of_those_named() -> None:
    bus = make_bus()
    assert ask(bus, BROADCAST, 0x83, 42, 2, 1, 0xE8, 3, 4, 0xD0, 7) == []
    assert [servo.get("goal_position") for servo in bus.servos] == [1000, 2048, 2048, 2000, 2048, 2048]


def test_reg_write_and_broadcast_action() -> None:
    bus = make_bus()
    assert ask(bus, 2, 4, 42, 0xE8, 3) == [(2, 0, b"")]
    assert bus.servos[1].get("goal_position") == 2048
    assert ask(bus, BROADCAST, 5) == []
    assert bus.servos[1].get("goal_position") == 1000


def test_return_delay_counts_in_units_of_two_microseconds() -> None:
    bus = make_bus()
    ask(bus, 1, 3, 7, 250)
    start = 10_000_000
    assert bus.feed(request(1, 1), start)[0].due_ns == start + 12 * BYTE_NS + 500_000


def test_response_level_0_answers_reads_and_pings_only() -> None:
    bus = make_bus()
    ask(bus, 1, 3, 8, 0)
    assert ask(bus, 1, 3, 41, 50) == []
    assert len(ask(bus, 1, 1)) == 1
    assert len(ask(bus, 1, 2, 41, 1)) == 1


def test_a_motor_set_to_another_baud_rate_is_deaf() -> None:
    bus = make_bus()
    ask(bus, 1, 3, 6, 4)
    assert ask(bus, 1, 1) == []


def test_an_unfinished_frame_is_forgotten_after_a_silence() -> None:
    bus = make_bus()
    bus.feed(request(1, 1)[:4], 0)
    assert len(split(joined(bus.feed(request(2, 1), 1_000_000_000)))) == 1


def test_error_bits_come_with_every_reply_of_that_motor() -> None:
    bus = make_bus(Faults(error_bits={2: 0x24}))
    assert [row[1] for row in ask(bus, BROADCAST, 0x82, 56, 2, *IDS)] == [0, 0x24, 0, 0, 0, 0]
    assert ask(bus, 2, 1)[0][1] == 0x24
    assert ask(bus, 2, 3, 41, 10)[0][1] == 0x24


def test_corrupt_and_drop_byte_hit_every_nth_answer() -> None:
    good = [joined(make_bus().feed(request(1, 2, 3, 2), 0))] * 6
    faults = Faults(corrupt_every=3)
    bus = make_bus(faults)
    seen = [joined(bus.feed(request(1, 2, 3, 2), n * 10**9)) for n in range(6)]
    assert [a == b for a, b in zip(seen, good, strict=True)] == [True, True, False] * 2
    assert all(len(a) == len(b) for a, b in zip(seen, good, strict=True))
    faults.clear()
    faults.drop_byte_every = 2
    seen = [joined(bus.feed(request(1, 2, 3, 2), n * 10**9)) for n in range(10, 14)]
    assert sorted(len(good[0]) - len(a) for a in seen) == [0, 0, 1, 1]


def test_a_late_adapter_hands_over_late_and_in_order() -> None:
    bus = make_bus(Faults(late_ms=80.0, late_count=1))
    late = bus.feed(request(1, 1), 0)
    assert late[0].due_ns == 12 * BYTE_NS + 80_000_000
    behind = bus.feed(request(2, 1), 10_000_000)
    assert behind[0].due_ns == late[0].due_ns
    after = bus.feed(request(3, 1), 200_000_000)
    assert after[0].due_ns == 200_000_000 + 12 * BYTE_NS


def test_without_power_nobody_answers() -> None:
    faults = Faults(power_lost=True)
    bus = make_bus(faults)
    assert ask(bus, 1, 1) == []
    faults.clear()
    assert len(ask(bus, 1, 1)) == 1


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_random_bytes_never_crash_it_nor_make_it_talk_nonsense(chunks: list[bytes]) -> None:
    bus = make_bus()
    last_ns = 0
    for count, chunk in enumerate(chunks):
        now_ns = count * 100_000
        for reply in bus.feed(chunk, now_ns):
            split(reply.data)
            assert reply.due_ns >= max(now_ns, last_ns)
            last_ns = reply.due_ns


any_id = st.integers(0, 0xFD)
byte = st.integers(0, 255)
length = st.integers(1, 60)


@st.composite
def valid_requests(draw) -> tuple[bytes, list[tuple[int, int]]]:
    """A valid request and what must answer it: (id, number of parameters) in order."""
    servo_id = draw(any_id)
    there = servo_id in IDS
    # Registers 5..8 would change who answers, and when; those have tests of their own.
    address = draw(st.integers(9, 255))
    data = draw(st.lists(byte, min_size=1, max_size=20))
    kind = draw(
        st.sampled_from(["ping", "read", "write", "reg_write", "sync_read", "sync_write", "broadcast"])
    )
    if kind == "ping":
        return request(servo_id, 1), [(servo_id, 0)] * there
    if kind == "read":
        count = draw(length)
        return request(servo_id, 2, address, count), [(servo_id, count)] * there
    if kind == "write":
        return request(servo_id, 3, address, *data), [(servo_id, 0)] * there
    if kind == "reg_write":
        return request(servo_id, 4, address, *data), [(servo_id, 0)] * there
    if kind == "sync_read":
        count, ids = draw(length), draw(st.lists(any_id, min_size=1, max_size=12))
        return request(BROADCAST, 0x82, address, count, *ids), [(i, count) for i in ids if i in IDS]
    if kind == "sync_write":
        rows = [v for i in draw(st.lists(any_id, max_size=6)) for v in (i, *data)]
        return request(BROADCAST, 0x83, address, len(data), *rows), []
    return request(BROADCAST, 3, address, *data), []


@settings(max_examples=200)
@given(st.lists(valid_requests(), min_size=1, max_size=8), st.data())
def test_every_valid_request_gets_exactly_its_answer(requests, data) -> None:
    bus = make_bus()
    now_ns = 0
    for frame, expected in requests:
        cut = data.draw(st.integers(0, len(frame)))
        replies = bus.feed(frame[:cut], now_ns) + bus.feed(frame[cut:], now_ns)
        rows = split(joined(replies))
        assert [(row[0], len(row[2])) for row in rows] == expected
        wire_bytes = len(frame) + len(joined(replies))
        if replies:
            assert replies[-1].due_ns >= now_ns + wire_bytes * BYTE_NS
        now_ns += 10_000_000


def test_a_doubled_reply_takes_twice_its_time() -> None:
    bus = make_bus(Faults(duplicate_every=2))
    assert len(ask(bus, 1, 1)) == 1
    replies = bus.feed(request(BROADCAST, 0x82, 56, 2, *IDS), 10**9)
    rows = split(joined(replies))
    assert len(rows) == 7
    ids = [row[0] for row in rows]
    assert sorted(set(ids)) == list(IDS)
    assert [a for a, b in itertools.pairwise(ids) if a == b], "one behind the other"
    assert replies[-1].due_ns == 10**9 + (14 + 7 * 8) * BYTE_NS


def test_a_reply_with_another_id_is_else_in_order() -> None:
    bus = make_bus(Faults(wrong_id_every=3))
    seen = [ask(bus, 4, 2, 3, 2, now_ns=n * 10**9) for n in range(6)]
    right, wrong = (4, 0, (777).to_bytes(2, "little")), (5, 0, (777).to_bytes(2, "little"))
    assert seen == [[right], [right], [wrong]] * 2
    assert ask(make_bus(Faults(wrong_id_every=1)), 6, 1) == [(1, 0, b"")]


def test_ailments_are_in_the_reply_to_the_very_next_request() -> None:
    bus = make_bus()
    bus.faults.volts[2], bus.faults.celsius[2], bus.faults.error_bits[2] = 3.0, 99.0, 8
    assert ask(bus, 2, 2, 62, 4) == [(2, 13, bytes([30, 99, 0, 13]))]
    assert ask(bus, 1, 2, 62, 4) == [(1, 0, bytes([74, 30, 0, 0]))]
    bus.faults.clear()
    assert ask(bus, 2, 2, 62, 4) == [(2, 0, bytes([74, 30, 0, 0]))]
