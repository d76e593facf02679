"""The report of a run and what a person sees of it."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot, robot_path
from holdfast.runtime.bundle.reading import LoadedBundle
from holdfast.runtime.bundle.schema import Bundle
from holdfast.runtime.exit_codes import ExitCode
from holdfast.runtime.histogram import Recorder
from holdfast.runtime.live import Display, plain_line, render
from holdfast.runtime.messages import Phase, Snapshot
from holdfast.runtime.refusal import refusal_report
from holdfast.runtime.report import SCHEMA_VERSION, build_report, summary_lines, write_report
from holdfast.runtime.resolve import Choice, Resolved
from holdfast.runtime.run_log import Entry, RunLog
from holdfast.runtime.schedulability import Timing, schedule
from holdfast.runtime.stages import Plan, Stage, TaskRecord

from .tiny_bundle import tiny_spec

S = 1_000_000_000
ROBOT = load_robot("sim_arm")
TIMING = Timing(steps=17, dt_s=0.05, control_period_s=0.01, frame_age_limit_s=0.3)
POSITION = (0.1, -0.5, 0.6, 1.0, 0.2, 40.0)


@pytest.fixture
def log() -> RunLog:
    task = TaskRecord(1, "touch the red cube", S, 2 * S, 12 * S, "time is up")
    run = RunLog(
        Plan(("touch the red cube",), 10.0, 0.0, "exit", "newest", TIMING),
        started_ns=S,
        ended_ns=13 * S,
        stage=Stage.RUNNING,
        tasks=[task],
        task=task,
    )
    recorder = Recorder("wake_late", 900_000)
    for duration_us in range(1, 1001):
        recorder.add(duration_us * 1000)
    run.histograms["control", "wake_late"] = recorder.message()
    run.histograms["policy", "session_run"] = Recorder("session_run").message()
    run.snapshot = Snapshot(
        Phase.RUN,
        1,
        40,
        100.0,
        99.9,
        97.0,
        1000,
        4,
        1,
        2,
        3,
        1,
        4,
        6,
        S // 30,
        S // 20,
        S // 500,
        POSITION,
        POSITION,
        8 * S,
        S // 2,
        1,
        S // 4,
    )
    run.schedule = schedule(
        TIMING.with_measured(0.02, {"frame_period_ms": 33.0, "frame_latency_ms": 10.0}), "newest"
    )
    run.entries = [
        Entry(5, "control", "rt", "SCHED_FIFO: ok", 1.0, 0),
        Entry(6, "control", "starved", "x", 0, 1),
    ]
    run.counts = {"rt": 1, "starved": 1}
    run.exit_code, run.reason = ExitCode.FINISHED, "all tasks done"
    return run


@pytest.fixture
def resolved() -> Resolved:
    entry = {"bytes": 0, "sha256": "0" * 64}
    files = [{"path": p, **entry} for p in ("graphs/policy.onnx", "golden/observations.npz")]
    spec = Bundle.model_validate({"format": "holdfast.bundle", "version": 2, "files": files, **tiny_spec()})
    return Resolved(
        bundle=LoadedBundle(Path("tiny.vla"), spec, "a" * 64),
        tasks=("touch the red cube",),
        robot=ROBOT,
        robot_path=robot_path("sim_arm"),
        calibration=find_calibration(ROBOT),
        arm="serial:/dev/null",
        cameras={"front": "http://camera"},
        control_hz=100.0,
        strategy="newest",
        choices=(Choice("robot", "sim_arm", "--robot"),),
    )


def test_the_document_has_stages_deadlines_and_the_environment(
    log: RunLog, resolved: Resolved, tmp_path: Path
):
    path = tmp_path / "report.json"
    write_report(path, build_report(log, resolved, {"rt": "warn"}))
    report = json.loads(path.read_text())
    assert report["schema_version"] == SCHEMA_VERSION
    assert (report["exit_code"], report["exit_name"]) == (0, "finished")
    assert report["duration_s"] == 12.0
    assert report["bundle"]["sha256"] == "a" * 64
    row = report["stages"]["wake_late"]
    assert row["process"] == "control"
    assert row["count"] == 1000
    assert row["p50_ms"] == pytest.approx(0.5, rel=0.05)
    assert row["p99_ms"] == pytest.approx(0.99, rel=0.05)
    assert row["max_ms"] == 1.0
    assert (row["budget_ms"], row["over"], row["over_last_10_s"]) == (0.9, 100, 100)
    assert "session_run" not in report["stages"], "a stage without a sample has no percentiles"
    assert report["deadlines"]["missed_fraction"] == 0.005
    assert report["deadlines"]["missed_by"] == {"woke_late": 4, "tick_overran": 1}
    assert report["deadlines"]["starved_ms"] == 500.0
    assert report["deadlines"]["starved_last_10_s"] == {"times": 1, "ms": 250.0}
    assert report["rates"]["worst_second_hz"] == 97.0
    assert report["rates"]["worst_second_at_s"] == 7.0
    assert report["schedule"]["ok"]
    assert report["schedule"]["path_ms"] == pytest.approx(800.0)
    assert len(report["schedule"]["arithmetic"]) == 4
    assert report["real_time"] == ["SCHED_FIFO: ok"]
    assert report["events"]["counts"]["starved"] == 1
    assert report["environment"]["packages"]["onnxruntime"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_run_that_was_refused_still_has_a_report(resolved: Resolved):
    log = RunLog(Plan(("touch",), None, 0.0, "exit", "newest", TIMING), 0)
    log.exit_code, log.reason = ExitCode.REFUSED, "no camera"
    report = build_report(log, resolved, {})
    assert [report[key] for key in ("rates", "deadlines", "stages", "schedule")] == [{}, {}, {}, {}]
    assert next(summary_lines(report)) == "refused (exit code 3): no camera"


def test_a_run_refused_before_its_processes_has_the_same_keys(log: RunLog, resolved: Resolved):
    report = refusal_report(ExitCode.REFUSED, "no bundle", {"rt": "warn"}, time.monotonic_ns())
    whole = build_report(log, resolved, {})
    assert set(report) == set(whole)
    assert {key: type(value) for key, value in report.items()} == {k: type(v) for k, v in whole.items()}
    assert next(summary_lines(report)) == "refused (exit code 3): no bundle"


def test_the_summary_says_what_happened(log: RunLog, resolved: Resolved):
    log.stops = ["frozen_camera: front"]
    text = "\n".join(summary_lines(build_report(log, resolved, {})))
    for part in (
        "finished (exit code 0)",
        "time is up (10.0 s)",
        "p99.9",
        "5 missed (0.500%: 4 woke late, 1 after a tick",
        "97 Hz in the worst second (at 7 s)",
        "2 times run out (for 0.50 s)",
        "0.900    100",
        "protective stop: frozen_camera",
    ):
        assert part in text


def test_the_views_show_state_rate_ages_and_joints(log: RunLog):
    line = plain_line(log, 3.0)
    for part in (
        "running the task",
        "task 1/1",
        "100 Hz (worst 97)",
        "missed 5/1000",
        "chunk age 50 ms",
        "over budget: wake_late 100/1000 above 0.9 ms",
    ):
        assert part in line
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(log, ROBOT))
    text = console.export_text()
    for part in (
        "touch the red cube",
        "worst second 97 (at 7 s)",
        "2 times for 0.50 s; in the last 10 s 1 times for 0.25 s",
        "wake_late 100/1000 above 0.9 ms",
        "frame 33 ms",
        "shoulder_pan",
        "space protective stop",
    ):
        assert part in text


def test_a_display_prints_lines_and_never_blocks(log: RunLog, capsys: pytest.CaptureFixture[str]):
    with Display(ROBOT) as display:
        display.show(log)
        display.line("control: connected")
        before = time.monotonic()
        for _ in range(1000):
            display.line("x")
        assert time.monotonic() - before < 5.0
    assert "control: connected" in capsys.readouterr().out


def test_a_report_has_no_passwords_of_cameras(tmp_path: Path):
    """People attach reports to questions."""
    path = tmp_path / "report.json"
    write_report(path, {"cameras": {"front": "rtsp://bob:secret@10.0.0.5/live"}, "reason": "x"})
    assert json.loads(path.read_text())["cameras"] == {"front": "rtsp://10.0.0.5/live"}
