"""Export, simulator and run together, as `make demo` runs them: real processes, port, protocol and camera."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.benchmarks.demo_report import document
from holdfast.benchmarks.demo_run import DemoOptions, log_tail, run_demo

from .wire_witness import check_goals

ATTEMPTS = 4
"""Two touches and two picks, of two colours."""
ENOUGH = 2
"""Successes. If each attempt succeeds nine times in ten, fewer come about by chance once in 270 runs;
blind or deaf to the instruction, the policy has none. How often it succeeds is for the demo to say."""


@pytest.mark.sim
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_the_shipped_policy_does_what_it_is_told_within_every_limit(
    demo_bundle: Path, tmp_path: Path
) -> None:
    options = DemoOptions(tmp_path, ATTEMPTS, port=0, record=True)
    said: list[str] = []
    result = run_demo(demo_bundle, options, said.append, lambda index, outcome: None)

    assert result.exit_code == 0, log_tail(tmp_path, 30)
    assert len(result.outcomes) == ATTEMPTS
    assert not [outcome.void for outcome in result.outcomes if outcome.void]
    assert sum(outcome.success for outcome in result.outcomes) >= ENOUGH, result.outcomes

    assert check_goals(tmp_path / "wire.log", "sim_arm") > 6 * 100, (
        "the arm was commanded for more than a second"
    )

    report = result.report
    assert report["schema"] == "holdfast.run_report"
    assert report["exit_code"] == 0
    assert report["stops"] == []
    assert [task["text"] for task in report["tasks"]] == [o.attempt.instruction for o in result.outcomes]
    assert report["deadlines"]["ticks"] > 100
    for stage in ("wake_late", "bus_read", "bus_write", "step", "session_run", "camera_to_wire_own"):
        row = report["stages"][stage]
        assert 0 <= row["min_ms"] <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    json.dumps(document(result, ATTEMPTS))
