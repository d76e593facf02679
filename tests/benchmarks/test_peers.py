"""What is said about another runtime must be right: how its times are read, and the graph that it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from holdfast.benchmarks.peers.physicalai_loop import (
    GOALS,
    JOINTS,
    SIDE,
    STEPS,
    Unavailable,
    environment,
    result,
    stamp_model,
    table,
)
from holdfast.drivers.feetech import codec


def test_a_loop_that_keeps_its_rate() -> None:
    row = result("steady", np.arange(1000) * 0.01, [90.0, 120.0], 55.0)
    assert row.rate_hz == pytest.approx(100)
    assert (row.error_p50_ms, row.error_p99_ms) == pytest.approx((0, 0), abs=1e-6)
    assert row.late_share == 0


def test_every_tenth_period_a_millisecond_longer() -> None:
    periods = np.full(1000, 0.01)
    periods[::10] += 0.001
    row = result("late", np.cumsum(periods), [90.0, 120.0], 55.0)
    assert row.rate_hz == pytest.approx(1 / 0.0101, rel=1e-3)
    assert row.late_share == pytest.approx(0.1, abs=0.01)
    assert row.error_p99_ms == pytest.approx(1, rel=1e-6)


def test_the_table_has_a_line_for_every_loop() -> None:
    rows = [result(name, np.arange(100) * 0.01, [90.0, 120.0], 55.0) for name in ("one", "another")]
    assert [line.split()[0] for line in table(rows)[2:]] == ["one", "another"]


def test_goals_are_known_by_the_beginning_of_their_frame() -> None:
    assert codec.encode_goals((1, 2, 3, 4, 5, 6), [2048] * 6).startswith(GOALS)
    assert not codec.sync_read((1, 2, 3, 4, 5, 6), 56, 15).startswith(GOALS)


def test_every_action_is_the_stamp_in_the_picture() -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(stamp_model().SerializeToString())
    picture = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    picture[0, 0, 0] = (0x56, 0x34, 0x12)
    (action,) = session.run(["action"], {"images": picture, "state": np.zeros((1, JOINTS), np.float32)})
    assert action.shape == (1, STEPS, JOINTS)
    assert set(action.flatten()) == {0x123456}


def test_a_peer_that_cannot_be_installed_is_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be installed"):
        environment(tmp_path / "file" / "venv")
