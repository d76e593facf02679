"""Where the endpoints of runs lie. Light: whoever asks a run to stop must not wait for imports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .bundle.last import state_folder
from .control.latch import arm_key

SERVICE_FOLDER = Path("/run/holdfast")
"""Of the systemd unit (`RuntimeDirectory=holdfast`)."""
SUFFIX = ".sock"


def folders(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where endpoints may lie; a run puts its own into the first."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # The specification: a relative path is invalid and must be ignored.
    own = [Path(runtime) / "holdfast"] if runtime.startswith("/") and Path(runtime).is_dir() else []
    return [*own, state_folder() / "endpoints"]


def default_path(arm_url: str) -> Path:
    """The endpoint of the run on this arm, where no other is asked for."""
    return folders()[0] / file_name(arm_url)


def file_name(arm_url: str) -> str:
    """One per arm, however its port is spelled."""
    return arm_key(arm_url) + SUFFIX


def found(arm_url: str | None = None) -> list[Path]:
    """The sockets in all folders, also those of runs that were killed; of one arm, where it is named."""
    pattern = f"*{SUFFIX}" if arm_url is None else file_name(arm_url)
    return sorted({path for folder in (*folders(), SERVICE_FOLDER) for path in _listed(folder, pattern)})


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


@contextmanager
def in_folder(path: Path) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder, and a name of the socket in it that is short enough for any address
    (unix(7): 108 bytes). Raises `OSError`."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder, f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
