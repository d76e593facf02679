"""The flight recorder at the start of a run: what was killed before is written out, new rings are made."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..bundle.last import state_folder
from ..exit_codes import Refused
from ..report import described, environment
from ..resolve import Resolved
from ..supervisor import RunSetup
from .collect import RECORDINGS, recover
from .folder import RunFolder
from .in_control import control_ring_bytes
from .in_supervisor import RING_BYTES, SupervisorRecorder
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


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the recorder of a run would come to."""

    text: str
    refusal: str = ""
    """Why the run would be refused, and what to do; empty: it would not."""


def foresee(args: argparse.Namespace, resolved: Resolved) -> Foreseen:
    """Tries where the rings and the files of a run would lie. Leaves nothing but empty folders."""
    if args.no_record:
        return Foreseen("off (--no-record)")
    try:
        check_folder(args.record)
    except Refused as error:
        return Foreseen("refused", str(error))
    room = ring_bytes(resolved) + RING_BYTES
    try:
        made = RunFolder.create(state_folder(), room, on_disk=_on_disk(args))
    except OSError as error:
        return Foreseen(f"off: there is no place for the rings: {error}")
    disk = "" if made.in_memory else ", on a disk: writing may hold up control"
    rings = f"rings of {room / 1e6:.1f} MB in {made.path.parent}{disk}"
    made.remove()
    recordings = recordings_folder(args.record)
    return Foreseen(
        f"{rings}; files in {recordings}{'' if _writable(recordings) else ', WHICH IS NOT WRITABLE'}"
    )


def _writable(folder: Path) -> bool:
    """Also where it is yet to be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _on_disk(args: argparse.Namespace) -> bool:
    """A write to a disk may have to wait for it: what is asked for strictly does not allow that in a tick."""
    return args.rt != "strict"


def ring_bytes(resolved: Resolved) -> int:
    """What the rings of both children take."""
    steps = resolved.bundle.spec.action.steps
    control = control_ring_bytes(len(resolved.robot.joints), resolved.control_hz, steps)
    return control + policy_ring_bytes(len(resolved.cameras))


def with_recorder(
    setup: RunSetup, args: argparse.Namespace, resolved: Resolved, options: Mapping[str, Any]
) -> RunSetup:
    """The set-up of a run whose processes record; as it was where that is not wanted. Raises nothing: what is
    missing, the recorder says during the run."""
    if args.no_record:
        return setup
    recordings = recordings_folder(args.record)
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
    recorder = SupervisorRecorder.open(
        state_folder(), recordings, run, ring_bytes(resolved), on_disk=_on_disk(args)
    )
    if recorder.folder is None:
        return replace(setup, recorder=recorder)
    control = {**setup.configs["control"], "rings": str(recorder.folder), "recordings": str(recordings)}
    policy = {**setup.configs["policy"], "rings": str(recorder.folder)}
    return replace(setup, recorder=recorder, configs={"control": control, "policy": policy})
