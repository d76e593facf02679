"""What the policy process measures before it says that it is ready."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.runtime.policy.config import PolicyConfig
from holdfast.runtime.policy.errors import InstructionError
from holdfast.runtime.policy.frame_timing import FrameTiming
from holdfast.runtime.policy.process import (
    LEAST_RUNS,
    MEASURE_AT_MOST_S,
    MEASURE_S,
    MEASURED_RUNS,
    WARM_UP_RUNS,
    describe_backlog,
    describe_frames,
    load_program,
    measure_inference,
)
from holdfast.runtime.stages import DEADLINES_S, Stage

from ..tiny_bundle import write_tiny_bundle


class Timed:
    """A program whose inferences take as long as they are told to, and the clock that they move."""

    def __init__(self, seconds: float, cold_s: float = 0.0) -> None:
        self.now = 0.0
        self.runs = 0
        self._seconds, self._cold_s = seconds, cold_s

    def clock(self) -> float:
        return self.now

    def warm_up(self, runs: int) -> NDArray[np.int64]:
        rows = []
        for _ in range(runs):
            seconds = self._cold_s if self.runs == 0 and self._cold_s else self._seconds
            self.runs += 1
            self.now += seconds
            rows.append([round(seconds * 1e9), round(seconds * 0.9e9)])
        return np.array(rows)


def measure(program: Timed) -> dict[str, float]:
    return measure_inference(program, program.clock)  # pyright: ignore[reportArgumentType]


def test_the_first_inferences_do_not_count():
    program = Timed(0.02, cold_s=3.0)
    found = measure(program)
    assert found["inference_p99_ms"] == pytest.approx(20.0)
    assert found["session_run_p50_ms"] == pytest.approx(18.0)
    assert program.runs == WARM_UP_RUNS + MEASURED_RUNS


def test_a_slow_policy_is_measured_for_a_while_and_not_thirty_times():
    program = Timed(2.9)
    assert measure(program)["inference_p99_ms"] == pytest.approx(2900.0)
    assert program.now < WARM_UP_RUNS * 2.9 + MEASURE_S + 2.9


def test_even_a_slow_one_is_measured_a_few_times():
    program = Timed(8.0)
    measure(program)
    assert program.runs == WARM_UP_RUNS + LEAST_RUNS


@pytest.mark.parametrize("seconds", [15.0, 22.0, 40.0, 75.0])
def test_measuring_the_slowest_fits_into_the_time_to_start(seconds: float):
    program = Timed(seconds)
    assert measure(program)["inference_p99_ms"] == pytest.approx(seconds * 1e3)
    assert program.now <= max(MEASURE_AT_MOST_S + seconds, 2 * seconds) < DEADLINES_S[Stage.STARTING] - 10


def test_pictures_that_were_not_measured_are_null():
    nothing = {"frame_period_ms": None, "frame_latency_ms": None, "frame_period_at_least": False}
    assert describe_frames(None) == nothing
    assert describe_frames(FrameTiming(33_000_000, 12_000_000)) == {
        "frame_period_ms": 33.0,
        "frame_latency_ms": 12.0,
        "frame_period_at_least": False,
    }
    assert describe_frames(FrameTiming(33_000_000, 0, at_least=True))["frame_period_at_least"] is True


def test_what_control_says_is_kept_as_long_as_the_channel_has_room():
    at_100_hz = describe_backlog(6, 10_000_000)["backlog_ms"]
    assert at_100_hz == pytest.approx(5 * describe_backlog(6, 2_000_000)["backlog_ms"])
    assert at_100_hz > 1000.0


def test_tasks_known_at_the_start_are_checked_before_anything_moves(tmp_path: Path):
    pytest.importorskip("onnx")
    robot = load_robot("sim_arm")
    values = {
        "session": 1,
        "bundle": str(write_tiny_bundle(tmp_path / "tiny.vla")),
        "robot": "sim_arm",
        "calibration": str(find_calibration(robot).path),
        "cameras": {"front": "none"},
        "control_period_ns": 10_000_000,
    }
    program, details = load_program(PolicyConfig(**values, tasks=("touch the cube",)))
    assert program.moments == 1
    assert details["self_test_max_abs"] <= details["self_test_tolerance"]
    with pytest.raises(InstructionError, match="zebra"):
        load_program(PolicyConfig(**values, tasks=("touch the cube", "touch the zebra")))
