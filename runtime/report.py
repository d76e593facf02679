"""The report of a run: one JSON document (keys in docs/run.md) and its printed summary."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .histogram import percentile_ns
from .messages import Histogram, Snapshot
from .recorder.redact import all_without_userinfo
from .resolve import Resolved
from .run_log import Entry, RunLog
from .schedulability import Schedule

SCHEMA = "holdfast.run_report"
SCHEMA_VERSION = 1
REPORTED_EVENTS = 1000
_PACKAGES = ("holdfast", "numpy", "onnxruntime", "opencv-python-headless", "pydantic", "ruckig")
_COUNTERS = ("ticks", "missed", "starved", "clamped", "rejected_chunks", "bus_errors", "skipped_chunks")

STAGE_MEANINGS = {
    "wake_late": "control: wake-up after its slot",
    "bus_read": "control: reading all motors",
    "step": "control: the pure core",
    "bus_write": "control: writing all goals",
    "tick": "control: a whole tick",
    "joint_age": "joint sample's age when used",
    "chunk_age": "observation's age at its first command",
    "action_age": "observation's age behind every command",
    "camera_to_wire": "frame arrival to its first command",
    "camera_to_wire_own": "... less session.run and waiting for the tick",
    "frame_age": "frame's age at start of inference",
    "wait_frame": "policy: waiting for a frame",
    "pickup": "policy: decoding and picking up a frame",
    "preprocess": "policy: pre-processing",
    "session_run": "policy: session.run",
    "postprocess": "policy: to joint targets",
    "send": "policy: sending a chunk",
    "camera_to_chunk": "frame arrival to chunk sent",
}


def build_report(log: RunLog, resolved: Resolved, options: dict[str, Any]) -> dict[str, Any]:
    """The document; durations in ms unless the key says otherwise, stamps in CLOCK_MONOTONIC ns."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "exit_code": int(log.exit_code),
        "exit_name": log.exit_code.name.lower(),
        "reason": log.reason,
        "started_ns": log.started_ns,
        "duration_s": round((log.ended_ns - log.started_ns) / 1e9, 3),
        **described(resolved),
        "options": options,
        "choices": [{"what": c.what, "value": c.value, "why": c.why} for c in resolved.choices],
        "policy": log.ready,
        "tasks": [
            {"task_id": t.task_id, "text": t.text, "ready_ns": t.ready_ns, "start_ns": t.start_ns,
             "end_ns": t.end_ns, "outcome": t.outcome}
            for t in log.tasks
        ],
        "guards": log.guards,
        "schedule": _schedule(log.schedule),
        "rates": _rates(log.snapshot, log.started_ns),
        "deadlines": _deadlines(log.snapshot),
        "stages": {
            histogram.stage: {"process": source, **_stage(histogram)}
            for (source, _), histogram in log.histograms.items()
            if histogram.count
        },
        "stops": log.stops,
        "recordings": log.recordings,
        "events": {
            "counts": log.counts,
            "first": [_event(entry) for entry in log.entries if entry.code != "guard"][:REPORTED_EVENTS],
        },
        "processes": log.children,
        "lost_messages": log.lost_messages,
        "real_time": [entry.text for entry in log.entries if entry.code == "rt"],
        "environment": environment(),
    }  # fmt: skip


def described(resolved: Resolved) -> dict[str, Any]:
    """What runs, on what."""
    bundle = resolved.bundle
    return {
        "bundle": {
            "name": bundle.spec.name,
            "path": str(bundle.path.resolve()),
            "sha256": bundle.sha256,
            "precision": bundle.spec.precision.requested,
        },
        "robot": {"name": resolved.robot.name, "file": str(resolved.robot_path), "arm": resolved.arm,
                  "calibration": str(resolved.calibration.path)},
        "cameras": dict(resolved.cameras),
    }  # fmt: skip


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the document, without passwords of cameras, so that a reader never sees half of it. Raises
    `OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(all_without_userinfo(report), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def summary_lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a person, as plain lines."""
    yield f"{report['exit_name']} (exit code {report['exit_code']}): {report['reason']}"
    for task in report["tasks"]:
        seconds = (task["end_ns"] - task["start_ns"]) / 1e9 if task["end_ns"] else 0.0
        yield f"task {task['task_id']} {task['text']!r}: {task['outcome']} ({seconds:.1f} s)"
    if report["stages"]:
        yield (f"{'stage':<46}{'n':>9}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>9}  ms{'budget':>9}{'over':>7}")
        order = list(STAGE_MEANINGS)
        known = sorted(report["stages"], key=lambda s: order.index(s) if s in order else len(order))
        for name in known:
            row = report["stages"][name]
            budget = f"{row['budget_ms']:>13.3f}{row['over']:>7}" if row["budget_ms"] else ""
            yield (
                f"{STAGE_MEANINGS.get(name, name):<46}{row['count']:>9}{row['p50_ms']:>9.3f}"
                f"{row['p99_ms']:>9.3f}{row['p999_ms']:>9.3f}{row['max_ms']:>9.3f}{budget}"
            )
    rates, deadlines = report["rates"], report["deadlines"]
    if deadlines:
        by = deadlines["missed_by"]
        yield (
            f"control: {deadlines['ticks']} slots, {deadlines['missed']} missed "
            f"({deadlines['missed_fraction']:.3%}: {by['woke_late']} woke late, {by['tick_overran']} after a "
            f"tick that ran over); {rates['average_hz']:.2f} Hz on average, "
            f"{rates['worst_second_hz']:.0f} Hz in the worst second (at {rates['worst_second_at_s']:.0f} s)"
        )
        yield (
            f"chunks: {deadlines['starved']} times run out (for {deadlines['starved_ms'] / 1e3:.2f} s), "
            f"{deadlines['rejected_chunks']} rejected, "
            f"{deadlines['skipped_chunks']} superseded; {deadlines['clamped']} ticks clamped; "
            f"{deadlines['bus_errors']} bus errors"
        )
    for text in report["stops"]:
        yield f"protective stop: {text}"
    for path in report["recordings"]:
        yield f"recording: {path} (what happened: vla-run --explain {shlex.quote(path)})"


def _schedule(schedule: Schedule | None) -> dict[str, Any]:
    if schedule is None:
        return {}
    return {
        "strategy": schedule.strategy,
        "ok": schedule.ok,
        "path_ms": schedule.path_s * 1e3,
        "first_use_ms": schedule.first_use_s * 1e3,
        "oldest_ms": schedule.oldest_s * 1e3,
        "holds_ms": schedule.holds_s * 1e3,
        "chunk_age_limit_ms": schedule.chunk_age_limit_s * 1e3,
        "silence_limit_ms": schedule.silence_limit_s * 1e3,
        "arithmetic": list(schedule.lines),
        "problem": schedule.problem,
    }


def _rates(snapshot: Snapshot | None, started_ns: int) -> dict[str, float]:
    if snapshot is None:
        return {}
    return {
        "now_hz": snapshot.rate_now_hz,
        "average_hz": snapshot.rate_average_hz,
        "worst_second_hz": snapshot.rate_worst_second_hz,
        "worst_second_at_s": round(max(0, snapshot.worst_second_ns - started_ns) / 1e9, 1),
    }


def _deadlines(snapshot: Snapshot | None) -> dict[str, Any]:
    if snapshot is None:
        return {}
    counters = {name: getattr(snapshot, name) for name in _COUNTERS}
    fraction = snapshot.missed / snapshot.ticks if snapshot.ticks else 0.0
    reasons = {"woke_late": snapshot.missed_late, "tick_overran": snapshot.missed_overrun}
    starved = {
        "starved_ms": snapshot.starved_ns / 1e6,
        "starved_last_10_s": {"times": snapshot.starved_recently, "ms": snapshot.starved_recently_ns / 1e6},
    }
    return {**counters, **starved, "missed_fraction": fraction, "missed_by": reasons}


def _stage(histogram: Histogram) -> dict[str, float | None]:
    return {
        "count": histogram.count,
        "mean_ms": histogram.sum_ns / histogram.count / 1e6,
        "min_ms": histogram.min_ns / 1e6,
        "p50_ms": percentile_ns(histogram, 0.5) / 1e6,
        "p99_ms": percentile_ns(histogram, 0.99) / 1e6,
        "p999_ms": percentile_ns(histogram, 0.999) / 1e6,
        "max_ms": histogram.max_ns / 1e6,
        "budget_ms": histogram.budget_ns / 1e6 or None,
        "over": histogram.over,
        "over_last_10_s": histogram.window_over,
    }


def _event(entry: Entry) -> dict[str, Any]:
    return {
        "t_ns": entry.t_ns,
        "source": entry.source,
        "code": entry.code,
        "text": entry.text,
        "value": entry.value,
        "task_id": entry.task_id,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor()
