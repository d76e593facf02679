"""Where the rings of a run lie: in memory, a folder for each run, locked while a process of it lives.

In memory (tmpfs), because the kernel writes changed pages of a file on a disk back: the next write into such
a page is a page fault, and may have to wait for the disk. With `--rt strict` they lie nowhere else. The lock
is a shared `flock` on the folder itself, which the kernel takes back from a process that dies, however it
dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

RUN_FILE = "run.json"
CONTROL_RING = "control.ring"
POLICY_RING = "policy.ring"
SUPERVISOR_RING = "supervisor.ring"
RINGS = (CONTROL_RING, POLICY_RING, SUPERVISOR_RING)
CODE_FILE = "code"
"""What a recording is to be called that could not be written (`collect.intend`)."""
FILES_FILE = "files"
"""The names of the recordings that this run has written, one a line."""
_PREFIX = "run-"
_ATTEMPTS = 3
_SHARED_MEMORY = Path("/dev/shm")


class RunFolder:
    """The folder of one run, held by a lock until `close` or the end of this process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, state: Path, room: int, *, on_disk: bool = True) -> RunFolder:
        """A new folder with `room` bytes free: in memory, or else, with `on_disk`, in the state folder.

        Raises `OSError`.
        """
        problems = []
        for root in (*_in_memory(), *([_on_disk(state)] if on_disk else [])):
            try:
                _make_private(root)
                free = os.statvfs(root)
                if free.f_bavail * free.f_frsize >= room:
                    return cls._create_in(root)
                problems.append(f"{root} has less than {room / 1e6:.0f} MB free")
            except OSError as error:
                problems.append(str(error))
        raise OSError("; ".join(problems) or "neither $XDG_RUNTIME_DIR nor /dev/shm is in memory")

    @classmethod
    def _create_in(cls, root: Path) -> RunFolder:
        for _ in range(_ATTEMPTS):
            made = cls.join(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root)))
            # Another start may have taken it for that of a dead run before it was locked.
            if made.path.is_dir():
                return made
            made.close()
        raise OSError(f"folders in {root} vanish as soon as they are made")

    @classmethod
    def join(cls, path: Path) -> RunFolder:
        """Another process of the same run. Raises `OSError` where the folder is gone."""
        return cls(path, _lock(path, fcntl.LOCK_SH))

    @property
    def in_memory(self) -> bool:
        return _is_tmpfs(self.path)

    def remove(self) -> None:
        """Deletes all that is in it; processes that still write to its rings notice nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Gives the lock back. May be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def dead_runs(state: Path) -> Iterator[RunFolder]:
    """The folders that no living process holds, each locked against everybody else while it is looked at."""
    for root in (*_in_memory(), _on_disk(state)):
        if not root.is_dir() or not _is_private(root):
            continue
        for path in sorted(root.glob(_PREFIX + "*")):
            try:
                folder = RunFolder(path, _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except OSError:
                # A run that is going on, or one that somebody else is looking at.
                continue
            try:
                yield folder
            finally:
                folder.close()


def _in_memory() -> list[Path]:
    """Candidates, best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    roots = [Path(runtime) / "holdfast"] if runtime.startswith("/") else []
    roots.append(_SHARED_MEMORY / f"holdfast-{os.geteuid()}")
    return [root for root in roots if root.parent.is_dir() and _is_tmpfs(root.parent)]


def _on_disk(state: Path) -> Path:
    return state / "rings"


def _make_private(root: Path) -> None:
    if root.parent.is_dir():
        root.mkdir(mode=0o700, exist_ok=True)
    else:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(root):
        raise OSError(f"{root} is not ours alone (mode 0700): remove it, or change its mode")


def _is_private(root: Path) -> bool:
    """Whether nobody else can put anything there; /dev/shm is everybody's."""
    found = os.lstat(root)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _is_tmpfs(path: Path) -> bool:
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    # proc(5): "36 35 98:0 /root /mount options - type source options".
    fields = [(line.split()[2], line.partition(" - ")[2].split()[0]) for line in mounts]
    return any(found == number and kind in ("tmpfs", "ramfs") for found, kind in fields)


def _lock(path: Path, how: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
    except OSError:
        os.close(fd)
        raise
    return fd
