"""From the rings of a run to one file: when it stopped, when a person asks, or after all of it was killed.

A `.flight` file is a zip with the rings and run.json, stored and not compressed, so that a damaged one can
still be read in part.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from .folder import CONTROL_RING, RINGS, RUN_FILE, RunFolder, dead_runs
from .reading import run_info

KEEP = 20
"""So many recordings are kept in a folder, the newest."""
SUFFIX = ".flight"
_OWN_NAME = re.compile(r"\d{8}T\d{6}Z-[a-z0-9_-]+\.flight")
RECORDINGS = "recordings"
"""The folder of recordings, in the state folder or as a key of run.json."""


def write_new(folder: Path, recordings: Path, code: str) -> Path:
    """`write_out` into a new file with the time of day (UTC) and what it is of in its name; returns its path.

    Raises `OSError`; nothing is left then.
    """
    target = _reserve(recordings, code)
    try:
        write_out(folder, target)
    except OSError:
        target.unlink(missing_ok=True)
        raise
    return target


def _reserve(recordings: Path, code: str) -> Path:
    """An empty file: two arms of one computer may lose their power in the same second."""
    recordings.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{re.sub('[^a-z0-9_]', '_', code.lower()) or 'stop'}"
    for number in count(1):
        path = recordings / f"{name}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")


def write_out(folder: Path, target: Path) -> None:
    """Copies the rings, which may be written to meanwhile, and run.json into the file `target`.

    A reader never sees half of it. Raises `OSError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # There are pictures in it: for its owner alone.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name in (RUN_FILE, *RINGS):
                    part = folder / name
                    if part.exists():
                        # A stamp of its own: zip knows no years before 1980, computers without a clock do.
                        archive.writestr(zipfile.ZipInfo(name), part.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _forget_oldest(target.parent)


def own_files(recordings: Path) -> list[Path]:
    """The recordings in a folder that have a name of ours, oldest first."""
    if not recordings.is_dir():
        return []
    return sorted(path for path in recordings.iterdir() if _OWN_NAME.fullmatch(path.name))


def _forget_oldest(recordings: Path) -> None:
    for path in own_files(recordings)[:-KEEP]:
        path.unlink(missing_ok=True)
    for path in recordings.glob(f".*{SUFFIX}.*.tmp"):
        # Half of a file, of a process that was killed meanwhile.
        if not Path("/proc", path.name.split(".")[-2]).exists():
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of the rings of a run that was killed."""

    path: Path | None
    """The recording; None where there was nothing to keep, or no way to keep it."""
    text: str


def recover(state: Path, recordings: Path) -> list[Recovered]:
    """Writes out what runs have left whose processes have all died; the rings of living runs are not touched.

    A dead run's own wish where its recordings should go counts before `recordings`.
    """
    return [found for folder in dead_runs(state) if (found := _recover(folder, recordings)) is not None]


def _recover(folder: RunFolder, recordings: Path) -> Recovered | None:
    if not (folder.path / CONTROL_RING).exists():
        # It died before control began.
        folder.remove()
        return None
    wish = run_info(folder.path).get(RECORDINGS)
    place = Path(wish) if isinstance(wish, str) and wish.startswith("/") else recordings
    try:
        target = write_new(folder.path, place, "killed")
    except OSError as error:
        stay = f"its rings stay in {folder.path}"
        return Recovered(None, f"of a run that was killed cannot be written to {place}: {error}; {stay}")
    folder.remove()
    return Recovered(target, f"of a run that was killed: {target}")
