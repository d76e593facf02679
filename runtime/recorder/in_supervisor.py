"""The recorder inside the supervisor: its own ring, and the files that are written from all three.

Files are written by a thread: a disk may be slow, and the supervisor's heartbeat keeps the arm moving.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..messages import Snapshot
from .codec import encode_event, encode_snapshot
from .collect import new_path, write_out
from .folder import CONTROL_RING, RUN_FILE, SUPERVISOR_RING, RunFolder
from .isolation import Isolated, isolated
from .kinds import Kind
from .records import EventRecord
from .ring import RingWriter

RING_BYTES = 1_000_000
AFTER_STOP_NS = 1_000_000_000
"""A stop is written out so much later: the braking and the rest are in it."""
STILL_IN_RING_NS = 10_000_000_000
"""At the end of a run a stop is written once more, with all that followed, unless it is longer ago than this:
then the newer records have begun to replace what led up to it."""
_SNAPSHOT_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """How writing a file went."""

    path: Path
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.path} cannot be written: {self.error}"
        return f"{self.path}; what happened: vla-run --explain {shlex.quote(str(self.path))}"


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    due_ns: int


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
        """The newest stop, due when it happened."""
        self._failed = False

    @classmethod
    def open(cls, state: Path, recordings: Path, run: Mapping[str, Any], room: int) -> SupervisorRecorder:
        """The folder of this run with run.json and a ring; off, with its problem, where there can be none.

        `room`: bytes that the rings of all processes take. `recordings`: where files are written to.
        """
        try:
            folder = RunFolder.create(state, room + RING_BYTES)
        except OSError as error:
            return cls(problem=f"there is no place for the rings: {error}")
        try:
            (folder.path / RUN_FILE).write_text(json.dumps(run))
            writer = RingWriter.create(folder.path / SUPERVISOR_RING, RING_BYTES, b"")
        except OSError as error:
            folder.remove()
            return cls(problem=f"the rings cannot be made: {error}")
        on_disk = f"the rings are on a disk ({folder.path}), for want of memory: writing may hold up control"
        return cls(folder, recordings, writer, "" if folder.in_memory else on_disk)

    @property
    def folder(self) -> Path | None:
        """Where the children put their rings; None for nowhere."""
        return self._folder.path if self._folder is not None else None

    @isolated
    def event(self, event: EventRecord) -> None:
        assert self.writer is not None
        self.writer.write(Kind.EVENT, event.t_ns, encode_event(event))

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
            path = new_path(self._recordings, code)
            self._stop = _Job(path, now_ns)
            self._jobs.append(_Job(path, now_ns + AFTER_STOP_NS))

    def request(self, now_ns: int) -> bool:
        """A person wants a file of the last seconds, now. False where nothing is recorded."""
        if self._folder is None:
            return False
        self._jobs.append(_Job(new_path(self._recordings, "request"), now_ns))
        return True

    def turn(self, now_ns: int) -> list[Written]:
        """Begins with the file that is due; returns those that are done. Does not block."""
        if self._thread is not None and self._thread.is_alive():
            return []
        done, self._written, self._thread = self._written, [], None
        job = next((job for job in self._jobs if job.due_ns <= now_ns), None)
        if job is not None:
            self._jobs.remove(job)
            self._thread = threading.Thread(
                target=self._write, args=(job.path,), name="recording", daemon=True
            )
            self._thread.start()
        return done

    def finish(self, code: str | None, now_ns: int) -> list[Written]:
        """The end of the run, when no other process of it lives. `code`: why it ended, None for well.

        Writes what is due or, after a bad end, missing; then the rings are removed, unless a file failed:
        those are for the next start to write out. Blocks on the disk.
        """
        if self._folder is None:
            return []
        if self._thread is not None:
            self._thread.join()
        paths = [job.path for job in self._jobs]
        if code is not None and self._stop is None:
            paths.append(new_path(self._recordings, code))
        elif code is not None and self._stop is not None and now_ns - self._stop.due_ns < STILL_IN_RING_NS:
            paths.append(self._stop.path)
        for path in dict.fromkeys(paths):
            self._write(path)
        if self._failed:
            self._folder.close()
        else:
            self._folder.remove()
        self._folder = self.writer = None
        return self._written

    def _write(self, path: Path) -> None:
        assert self._folder is not None
        if not (self._folder.path / CONTROL_RING).exists():
            self._written.append(Written(path, "control has recorded nothing"))
            return
        try:
            write_out(self._folder.path, path)
        except Exception as error:  # noqa: BLE001 - said, and no reason to stop an arm
            self._failed = True
            self._written.append(Written(path, str(error)))
        else:
            self._written.append(Written(path))
