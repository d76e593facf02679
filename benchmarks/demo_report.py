"""What a demo run is judged by, as rows of what was measured beside what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .cyclictest import Lateness
from .demo_attempts import Outcome, tally
from .demo_run import DemoResult
from .intervals import share_text, wilson

MIN_SUCCESS = 0.8
MAX_EXTRA_MISSED = 0.005
"""Share of slots that control may miss beyond those that cyclictest missed in the same run."""
MAX_OWN_MS = 5.0
"""p50 of frame arrival to first command, less session.run and waiting for the tick."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the deadline report."""

    what: str
    measured: str
    wanted: str = ""
    ok: bool | None = None
    """None: shown for comparison only."""


def passed(result: DemoResult, attempts: int, min_success: float = MIN_SUCCESS) -> bool:
    """The demo's verdict: every attempt made and fair, enough successes, and an orderly end."""
    counts = tally(result.outcomes).get("all", {"successes": 0, "void": 0})
    complete = len(result.outcomes) == attempts and counts["void"] == 0
    return complete and result.exit_code == 0 and counts["successes"] >= min_success * attempts


def timing_rows(report: dict[str, Any], beside: Lateness | str) -> list[Row]:
    """The deadline rows from vla-run's report and cyclictest's result."""
    stages, deadlines, rates = report.get("stages", {}), report.get("deadlines", {}), report.get("rates", {})
    if not stages or not deadlines:
        return [Row("deadlines", "vla-run reported none")]
    missed = deadlines["missed_fraction"]
    by = deadlines["missed_by"]
    slots = f"{deadlines['missed']:.0f} of {deadlines['ticks']:.0f} = {missed:.2%}"
    reasons = f"{by['woke_late']} woke late, {by['tick_overran']} after a tick that ran over"
    rows = [
        Row("control rate", f"{rates['average_hz']:.2f} Hz, worst second {rates['worst_second_hz']:.0f} Hz")
    ]
    wake = stages.get("wake_late")
    if isinstance(beside, Lateness):
        allowed = beside.missed_share + MAX_EXTRA_MISSED
        rows.append(Row("missed slots", slots, f"<= {allowed:.2%}", missed <= allowed))
        rows.append(Row("  cyclictest missed", f"{beside.missed_share:.2%} (of {beside.count} wake-ups)"))
    else:
        rows.append(Row("missed slots", slots))
        rows.append(Row("  cyclictest", f"not measured: {beside}"))
    rows.append(Row("  by reason", reasons))
    if wake:
        rows.append(Row("wake-up lateness p99", f"{wake['p99_ms']:.3f} ms (p50 {wake['p50_ms']:.3f})"))
        if isinstance(beside, Lateness):
            text = f"{beside.p99_us / 1e3:.3f} ms (p50 {beside.p50_us / 1e3:.3f})"
            rows.append(Row("  cyclictest p99", text))
    if own := stages.get("camera_to_wire_own"):
        ok = own["p50_ms"] <= MAX_OWN_MS
        rows.append(
            Row("frame to wire, own share, p50", f"{own['p50_ms']:.2f} ms", f"<= {MAX_OWN_MS:g} ms", ok)
        )
    for stage, text in (
        ("camera_to_wire", "frame to wire"),
        ("session_run", "inference"),
        ("bus_read", "bus read"),
        ("bus_write", "bus write"),
        ("step", "control core"),
    ):
        if row := stages.get(stage):
            rows.append(Row(f"{text} p50 / p99", f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f} ms"))
    rows.append(Row("chunks run out / rejected", f"{deadlines['starved']} / {deadlines['rejected_chunks']}"))
    rows.append(Row("protective stops", str(len(report.get("stops", []))), "0", not report.get("stops")))
    return rows


def document(result: DemoResult, attempts: int, min_success: float = MIN_SUCCESS) -> dict[str, Any]:
    """Everything measured, for --json and runs/demo/summary.json."""
    counts = tally(result.outcomes)
    total = counts.get("all", {"successes": 0, "trials": 0})
    beside = result.cyclictest
    return {
        "passed": passed(result, attempts, min_success),
        "min_success": min_success,
        "vla_run_exit_code": result.exit_code,
        "attempts_asked": attempts,
        "success": {**total, "wilson_95": wilson(total["successes"], total["trials"])},
        "by_task": {key: row for key, row in counts.items() if key != "all"},
        "attempts": [
            {
                "seed": outcome.attempt.seed,
                "instruction": outcome.attempt.instruction,
                "success": outcome.success,
                "wrong_object": outcome.wrong_object,
                "time_s": round(outcome.time_s, 2),
                "void": outcome.void,
            }
            for outcome in result.outcomes
        ],
        "cyclictest": _lateness(beside) if isinstance(beside, Lateness) else {"missing": beside},
        "timing": [{"what": r.what, "measured": r.measured, "wanted": r.wanted, "ok": r.ok}
                   for r in timing_rows(result.report, beside)],
        "rates": result.report.get("rates", {}),
        "deadlines": result.report.get("deadlines", {}),
        "stages": result.report.get("stages", {}),
        "environment": result.report.get("environment", {}),
    }  # fmt: skip


def attempt_lines(outcomes: list[Outcome]) -> Iterator[str]:
    """Successes by task and colour, then in all with their interval."""
    counts = tally(outcomes)
    for key in sorted(key for key in counts if key != "all"):
        row = counts[key]
        wrong = f", wrong object {row['wrong_object']}" if row["wrong_object"] else ""
        yield f"{key:<14}{row['successes']:>3} of {row['trials']}{wrong}"
    if total := counts.get("all"):
        yield f"success: {share_text(total['successes'], total['trials'])}"


def timing_lines(rows: list[Row]) -> Iterator[str]:
    """The deadline report as aligned columns."""
    verdicts = {None: "", True: "ok", False: "MISSED"}
    for row in rows:
        yield f"{row.what:<32}{row.measured:<36}{row.wanted:<12}{verdicts[row.ok]}".rstrip()


def _lateness(beside: Lateness) -> dict[str, float]:
    return {
        "count": beside.count,
        "missed_share": beside.missed_share,
        "p50_us": beside.p50_us,
        "p99_us": beside.p99_us,
        "max_us": beside.max_us,
    }
