"""The recorder inside the supervisor: its own ring, and the files that are written from all three.

Files are written by a thread: a disk may be slow, and the supervisor's heartbeat keeps the arm moving.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..messages import Snapshot
from .codec import encode_event, encode_snapshot
from .collect import intend, write_new, write_out
from .folder import CONTROL_RING, RUN_FILE, SUPERVISOR_RING, RunFolder
from .isolation import Isolated, isolated
from .kinds import REQUEST, Kind
from .records import EventRecord
from .redact import all_without_userinfo, without_userinfo
from .ring import RingWriter

RING_BYTES = 1_000_000
AFTER_STOP_NS = 1_000_000_000
"""A stop is written out so much later: the braking and the rest are in it."""
STILL_IN_RING_NS = 10_000_000_000
"""At the end of a run a stop is written once more, with all that followed, unless it is longer ago than this:
then the newer records have begun to replace what led up to it."""
BETWEEN_REQUESTS_NS = 5_000_000_000
"""A key held down is one request after another; the rings reach back much longer than this."""
_SNAPSHOT_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """How writing a file went."""

    path: Path | None
    """None where it could not be written."""
    text: str
    """For a person."""


@dataclass(slots=True, eq=False)
class _Job:
    """A file to be written."""

    code: str
    due_ns: int
    path: Path | None = None
    """Once it has been written: may be written again."""


class SupervisorRecorder(Isolated):
    """Owns the folder of the run. Without one, all of it does nothing."""

    def __init__(
        self,
        folder: RunFolder | None = None,
        recordings: Path = Path(),
        writer: RingWriter | None = None,
        problem: str = "",
    ) -> None:
        super().__init__(writer, problem)
        self._folder = folder
        self._recordings = recordings
        self._snapshot_due_ns = 0
        self._jobs: list[_Job] = []
        self._thread: threading.Thread | None = None
        self._written: list[Written] = []
        self._stop: _Job | None = None
        """The file of the newest stop."""
        self._lost: _Job | None = None
        """The newest file that could not be written, unless one was written since."""
        self._request_due_ns = 0

    @classmethod
    def open(
        cls, state: Path, recordings: Path, run: Mapping[str, Any], room: int, *, on_disk: bool = True
    ) -> SupervisorRecorder:
        """The folder of this run with run.json and a ring; off, with its problem, where there can be none.

        `room`: bytes that the rings of all processes take. `recordings`: where files are written to.
        `on_disk`: whether the rings may lie on a disk where there is no room in memory.
        """
        try:
            folder = RunFolder.create(state, room + RING_BYTES, on_disk=on_disk)
        except OSError as error:
            strict = "" if on_disk else " (--rt strict: in memory, for writing to a disk may hold up control)"
            return cls(problem=f"nothing is recorded: there is no place for the rings{strict}: {error}")
        try:
            (folder.path / RUN_FILE).write_text(json.dumps(all_without_userinfo(run)))
            writer = RingWriter.create(folder.path / SUPERVISOR_RING, RING_BYTES, b"")
        except Exception as error:  # noqa: BLE001 - a recorder is no reason not to start a run
            folder.remove()
            return cls(problem=f"nothing is recorded: the rings cannot be made: {error}")
        told = f"the rings are on a disk ({folder.path}), for want of memory: writing may hold up control"
        return cls(folder, recordings, writer, "" if folder.in_memory else told)

    @property
    def folder(self) -> Path | None:
        """Where the children put their rings; None for nowhere."""
        return self._folder.path if self._folder is not None else None

    @isolated
    def event(self, event: EventRecord) -> None:
        assert self.writer is not None
        plain = replace(event, text=without_userinfo(event.text))
        self.writer.write(Kind.EVENT, event.t_ns, encode_event(plain))

    @isolated
    def stage(self, now_ns: int, stage: str) -> None:
        assert self.writer is not None
        self.writer.write(Kind.STAGE, now_ns, stage.encode())

    @isolated
    def snapshot(self, now_ns: int, snapshot: Snapshot) -> None:
        """Once a second, however often it is called."""
        assert self.writer is not None
        if now_ns >= self._snapshot_due_ns:
            self._snapshot_due_ns = now_ns + _SNAPSHOT_NS
            self.writer.write(Kind.SNAPSHOT, now_ns, encode_snapshot(snapshot))

    def stopped(self, code: str, now_ns: int) -> None:
        """The arm is being stopped: a file is written a little later."""
        if self._folder is not None:
            self._stop = _Job(code, now_ns + AFTER_STOP_NS)
            self._jobs.append(self._stop)

    def request(self, now_ns: int) -> bool:
        """A person wants a file of the last seconds: now, or `BETWEEN_REQUESTS_NS` after the last one asked
        for. False where nothing is recorded."""
        if self._folder is None:
            return False
        if not any(job.code == REQUEST for job in self._jobs):
            due_ns = max(now_ns, self._request_due_ns)
            self._request_due_ns = due_ns + BETWEEN_REQUESTS_NS
            self._jobs.append(_Job(REQUEST, due_ns))
        return True

    def turn(self, now_ns: int) -> list[Written]:
        """Begins with the file that is due; returns those that are done. Does not block, raises nothing."""
        if self._thread is not None and self._thread.is_alive():
            return []
        done, self._written, self._thread = self._written, [], None
        job = next((job for job in self._jobs if job.due_ns <= now_ns), None)
        if job is not None:
            self._jobs.remove(job)
            try:
                thread = threading.Thread(target=self._write, args=(job,), name="recording", daemon=True)
                thread.start()
            except (RuntimeError, MemoryError) as error:
                # No more threads on this computer: tried again at the end of the run, without one.
                self._lose(job, error)
            else:
                self._thread = thread
        return done

    def finish(self, code: str | None, now_ns: int) -> list[Written]:
        """The end of the run, when no other process of it lives. `code`: why it ended, None for well.

        Writes what is due, what could not be written or, after a bad end, what is missing; then the rings are
        removed, unless a file failed: those are for the next start to write out. Blocks on the disk, raises
        nothing.
        """
        if self._folder is None:
            return []
        if self._thread is not None:
            self._thread.join()
        for job in self._last_jobs(code, now_ns):
            self._write(job)
        try:
            if self._lost is not None:
                intend(self._folder.path, self._lost.code)
                self._folder.close()
            else:
                self._folder.remove()
        except OSError as error:
            self._written.append(Written(None, f"its rings cannot be removed: {error}"))
        self._folder = self.writer = None
        return self._written

    def _last_jobs(self, code: str | None, now_ns: int) -> list[_Job]:
        jobs, stop = list(self._jobs), self._stop
        if code is not None and stop is None:
            jobs.append(_Job(code, now_ns))
        elif code is not None and stop is not None and stop not in jobs:
            since_ns = now_ns - (stop.due_ns - AFTER_STOP_NS)
            jobs += [stop] if since_ns < STILL_IN_RING_NS else []
        if self._lost is not None and self._lost not in jobs:
            jobs.append(self._lost)
        return jobs

    def _write(self, job: _Job) -> None:
        assert self._folder is not None
        folder = self._folder.path
        try:
            if not (folder / CONTROL_RING).exists():
                self._written.append(Written(None, "control has recorded nothing"))
                return
            if job.path is None:
                job.path = write_new(folder, self._recordings, job.code)
            else:
                write_out(folder, job.path, job.code)
        except Exception as error:  # noqa: BLE001 - said, and no reason to stop an arm
            self._lose(job, error)
        else:
            self._lost = None
            command = f"vla-run --explain {shlex.quote(str(job.path))}"
            self._written.append(Written(job.path, f"{job.path}; what happened: {command}"))

    def _lose(self, job: _Job, error: Exception) -> None:
        self._lost = job
        self._written.append(Written(None, f"cannot be written to {self._recordings}: {error}"))
