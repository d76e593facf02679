"""The flight recorder at the start of a run: what was killed before is written out, new rings are made."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..bundle.last import state_folder
from ..exit_codes import Refused
from ..report import described, environment
from ..resolve import Resolved
from ..supervisor import RunSetup
from .collect import RECORDINGS, recover
from .in_control import control_ring_bytes
from .in_supervisor import SupervisorRecorder
from .kinds import FORMAT
from .observed import policy_ring_bytes


def recordings_folder(asked: Path | None) -> Path:
    """Where files go: the folder asked for, else one in the state folder."""
    return asked.absolute() if asked is not None else state_folder() / RECORDINGS


def check_folder(asked: Path | None) -> None:
    """A folder that was named is there and can be written to. Raises `Refused`."""
    if asked is None:
        return
    try:
        asked.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--record {asked}: {error.strerror}; name a folder that can be made") from error
    if not os.access(asked, os.W_OK | os.X_OK):
        raise Refused(f"--record {asked} cannot be written to; name a folder that can")


def write_out_the_dead(recordings: Path) -> list[str]:
    """Lines for a person on what runs have left that were killed."""
    return [f"recording {found.text}" for found in recover(state_folder(), recordings)]


def with_recorder(
    setup: RunSetup, args: argparse.Namespace, resolved: Resolved, options: Mapping[str, Any]
) -> RunSetup:
    """The set-up of a run whose processes record; as it was where that is not wanted. Raises nothing: what is
    missing, the recorder says during the run."""
    if args.no_record:
        return setup
    recordings = recordings_folder(args.record)
    steps = resolved.bundle.spec.action.steps
    room = control_ring_bytes(len(resolved.robot.joints), resolved.control_hz, steps)
    room += policy_ring_bytes(len(resolved.cameras))
    run = {
        "schema": "holdfast.recording",
        "format": FORMAT,
        "session": f"{setup.session:016x}",
        "pid": os.getpid(),
        "started": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "started_ns": time.monotonic_ns(),
        "utc_less_monotonic_ns": time.time_ns() - time.monotonic_ns(),
        **described(resolved),
        "tasks": list(setup.plan.tasks),
        "options": dict(options),
        "policy_limits": dict(setup.configs["policy"].get("limits", {})),
        RECORDINGS: str(recordings),
        "environment": environment(),
    }
    recorder = SupervisorRecorder.open(state_folder(), recordings, run, room)
    if recorder.folder is None:
        return replace(setup, recorder=recorder)
    control = {**setup.configs["control"], "rings": str(recorder.folder), "recordings": str(recordings)}
    policy = {**setup.configs["policy"], "rings": str(recorder.folder)}
    return replace(setup, recorder=recorder, configs={"control": control, "policy": policy})
