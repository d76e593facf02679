"""The folder in which one simulated robot lives: port, sockets, logs, and a lock against a second one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .errors import SimulatorError


def default_folder() -> Path:
    """The folder of this user's simulator."""
    return Path(f"/tmp/holdfast-sim-{os.getuid()}")


class FolderLock:
    """Makes the folder and holds it. The lock file keeps the pid of its holder."""

    def __init__(self, folder: Path) -> None:
        """Raises `SimulatorError` if the folder cannot be used or another simulator has it."""
        path = folder / "lock"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.getuid():
                raise SimulatorError(f"{folder} belongs to another user; choose a folder with --dir")
            self._file = path.open("a+")
        except OSError as error:
            raise SimulatorError(
                f"the folder {folder} cannot be used ({error.strerror}); choose one with --dir"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise SimulatorError(
                f"a simulator already runs in {folder} (pid {holder}); end it, or choose another --dir"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.close()
