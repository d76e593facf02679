"""From the rings of a run to one file: when it stopped, when a person asks, or after all of it was killed.

A `.flight` file is a zip with the rings and run.json, stored and not compressed, so that a damaged one can
still be read in part.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from .folder import CODE_FILE, CONTROL_RING, FILES_FILE, RINGS, RUN_FILE, RunFolder, dead_runs
from .kinds import KILLED, REASON_FILE, REQUEST
from .reading import run_info

KEEP = 20
"""So many recordings are kept in a folder, the newest; those that a person asked for are counted apart."""
SUFFIX = ".flight"
PLOT_SUFFIX = ".png"
_OWN_NAME = re.compile(r"\d{8}T\d{6}Z-([a-z0-9_]+)(?:-(\d+))?\.flight")
_HALF_NAME = re.compile(r"\..+\.flight\.(\d+)\.[^.]+\.tmp")
RECORDINGS = "recordings"
"""The folder of recordings, in the state folder or as a key of run.json."""


def write_new(folder: Path, recordings: Path, code: str) -> Path:
    """`write_out` into a new file with the time of day (UTC) and what it is of in its name; returns its path.

    Raises `OSError`; nothing is left then.
    """
    target = _reserve(recordings, code)
    try:
        write_out(folder, target, code)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def _reserve(recordings: Path, code: str) -> Path:
    """An empty file: two arms of one computer may lose their power in the same second."""
    recordings.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{_plain(code) or 'stop'}"
    for number in count(1):
        path = recordings / f"{name}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")


def _plain(code: str) -> str:
    return re.sub("[^a-z0-9_]", "_", code.lower())[:40]


def write_out(folder: Path, target: Path, code: str = "") -> None:
    """Copies the rings, which may be written to meanwhile, and run.json into the file `target`.

    `code`: what it is written for. A reader never sees half of it. Raises `OSError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of mode 0600, for there are pictures in it; never through a link that somebody else has laid.
    fd, temporary = tempfile.mkstemp(".tmp", f".{target.name}.{os.getpid()}.", target.parent)
    try:
        with open(fd, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(zipfile.ZipInfo(REASON_FILE), _plain(code))
                for name in (RUN_FILE, *RINGS):
                    part = folder / name
                    if part.exists():
                        # A stamp of its own: zip knows no years before 1980, computers without a clock do.
                        archive.writestr(zipfile.ZipInfo(name), part.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    # The recording is there, whatever becomes of the older ones.
    with suppress(OSError):
        _forget_oldest(target.parent, {target.name, *_remembered(folder, target.name)})


def _remembered(folder: Path, name: str) -> list[str]:
    """Notes in the folder of the run that it has written a file of this name; returns all such names."""
    with open(folder / FILES_FILE, "a+", encoding="utf-8") as file:
        file.write(f"{name}\n")
        file.seek(0)
        return file.read().split()


def own_files(recordings: Path) -> list[Path]:
    """The recordings in a folder that have a name of ours, oldest first."""
    if not recordings.is_dir():
        return []
    found: list[tuple[int, int, str, Path]] = []
    for path in recordings.iterdir():
        name = _OWN_NAME.fullmatch(path.name)
        with suppress(OSError):
            # Without content it is a name that a process has reserved.
            if name and (status := path.stat()).st_size:
                found.append((status.st_mtime_ns, int(name[2] or 1), path.name, path))
    return [path for *_, path in sorted(found)]


def _forget_oldest(recordings: Path, mine: Collection[str]) -> None:
    """Deletes what is too old, each with its plot. Goes on where a file cannot be deleted.

    Never a file of this run (`mine`): a person was told of it, and with a wrong clock it may look the oldest.
    """
    files = own_files(recordings)
    asked = [path for path in files if _is_request(path)]
    others = [path for path in files if not _is_request(path)]
    for path in (*asked[:-KEEP], *others[:-KEEP]):
        if path.name not in mine:
            for old in (path, path.with_suffix(PLOT_SUFFIX)):
                with suppress(OSError):
                    old.unlink()
    for path in recordings.iterdir():
        half = _HALF_NAME.fullmatch(path.name)
        # Half of a file, of a process that was killed meanwhile.
        if half and not Path("/proc", half[1]).exists():
            with suppress(OSError):
                path.unlink()


def _is_request(path: Path) -> bool:
    name = _OWN_NAME.fullmatch(path.name)
    return name is not None and name[1] == REQUEST


def intend(folder: Path, code: str) -> None:
    """Leaves word in the folder of a run that ends what its recording is to be called that could not be
    written. Where that cannot be noted, it will be called killed."""
    with suppress(OSError):
        (folder / CODE_FILE).write_text(code, encoding="utf-8")


def _intended(folder: Path) -> str:
    try:
        return (folder / CODE_FILE).read_text(encoding="utf-8").strip() or KILLED
    except (OSError, ValueError):
        return KILLED


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of the rings of a run that was killed, or whose recording could not be written."""

    path: Path | None
    """The recording; None where there was no way to keep it."""
    text: str


def recover(state: Path, recordings: Path) -> list[Recovered]:
    """Writes out what runs have left whose processes have all died; the rings of living runs are not touched.

    A dead run's own wish where its recordings should go counts before `recordings`. What cannot be written to
    either is said in one line for all such runs. Raises nothing.
    """
    found: list[Recovered] = []
    stay: list[Path] = []
    problem = ""
    try:
        for folder in dead_runs(state):
            try:
                found += _recover(folder, recordings)
            except Exception as error:  # noqa: BLE001 - what one run left is no reason not to start another
                stay.append(folder.path)
                problem = str(error)
    except OSError as error:
        found.append(Recovered(None, f"of runs that were killed cannot be looked for: {error}"))
    if stay:
        runs = "a run that was killed" if len(stay) == 1 else f"{len(stay)} runs that were killed"
        places = ", ".join(str(path) for path in stay)
        text = f"of {runs} cannot be written: {problem}; its rings stay in {places}"
        found.append(Recovered(None, text))
    return found


def _recover(folder: RunFolder, recordings: Path) -> list[Recovered]:
    """Raises `OSError` where the recording can be written nowhere."""
    if not (folder.path / CONTROL_RING).exists():
        # It died before control began.
        folder.remove()
        return []
    wish = run_info(folder.path).get(RECORDINGS)
    places = [Path(wish)] if isinstance(wish, str) and wish.startswith("/") else []
    places += [recordings] if recordings not in places else []
    code = _intended(folder.path)
    problems = []
    for place in places:
        try:
            target = write_new(folder.path, place, code)
        except OSError as error:
            problems.append(f"to {place}: {error}")
            continue
        folder.remove()
        what = "that was killed" if code == KILLED else f"that could not write it ({code})"
        return [Recovered(target, f"of a run {what}: {target}")]
    raise OSError("; ".join(problems))
