"""The report of a run that was refused before it had a supervisor: the keys of any report, mostly empty."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from .exit_codes import ExitCode
from .report import SCHEMA, SCHEMA_VERSION, environment


def refusal_report(code: ExitCode, reason: str, options: dict[str, Any], started_ns: int) -> dict[str, Any]:
    """The document of `report.build_report`, as far as there is anything to say.

    `started_ns`: CLOCK_MONOTONIC when the run was asked for.
    """
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "exit_code": int(code),
        "exit_name": code.name.lower(),
        "reason": reason,
        "started_ns": started_ns,
        "duration_s": round((time.monotonic_ns() - started_ns) / 1e9, 3),
        "options": options,
        **{
            key: {}
            for key in ("bundle", "robot", "cameras", "policy", "schedule", "rates", "deadlines", "stages")
        },
        **{key: [] for key in ("choices", "tasks", "guards", "stops", "recordings", "real_time")},
        "events": {"counts": {}, "first": []},
        "processes": {},
        "lost_messages": {},
        "environment": environment(),
    }
