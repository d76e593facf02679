"""The bus benchmark measures what it says; how fast this machine is, no test asserts."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.benchmarks.bus import floor_us, run_bus_bench
from holdfast.drivers.feetech import codec
from tests.drivers.bus_rigs import rig_on_pty
from tests.drivers.frames import encode_status


def test_the_floor_is_ten_bits_a_byte() -> None:
    ids = (1, 2, 3, 4, 5, 6)
    sent = len(codec.sync_read(ids, 56, 2)) + len(codec.encode_goals(ids, [0] * 6))
    answered = 6 * len(encode_status(1, 0, b"\0\0"))
    assert floor_us(2) == 10 * (sent + answered) == 880
    assert floor_us(15) == 1660


def test_both_drivers_are_measured_without_moving_anything(tmp_path: Path) -> None:
    pytest.importorskip("scservo_sdk")
    rig = rig_on_pty(tmp_path)
    before = [servo.actual for servo in rig.servos]
    report = run_bus_bench(rig.url, cycles=10, rounds=1, fifo=False)
    rig.close()
    assert [(row["driver"], row["reads"]) for row in report["results"]] == [
        ("holdfast", "positions"),
        ("holdfast", "feedback"),
        ("scservo_sdk", "positions"),
    ]
    assert all(row["p50_us"] >= row["floor_us"] and row["cpu_us"] > 0 for row in report["results"])
    assert [servo.actual for servo in rig.servos] == before
    assert [s.get("goal_position") for s in rig.servos] == [s.get("present_position") for s in rig.servos]
