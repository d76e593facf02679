"""The latch file: a protective stop that nobody has reset keeps the next start from moving the arm.

It is written before torque is given, and removed when a run ends well: whatever ends control without a word
(kill -9, a power cut) leaves it behind.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

UNFINISHED = ("unfinished", "control ended without saying why")
BY_ID = Path("/dev/serial/by-id")


@dataclass(frozen=True, slots=True)
class LatchFile:
    """One file per arm in the state folder."""

    path: Path

    @classmethod
    def of(cls, state_dir: Path, arm_url: str, by_id: Path = BY_ID) -> LatchFile:
        return cls(state_dir / f"stopped-{arm_key(arm_url, by_id)}.json")

    def reason(self) -> str | None:
        """Why the arm was stopped; None when it is not latched. An unreadable file counts as latched."""
        try:
            content = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return f"unknown ({self.path} cannot be read)"
        return f"{content.get('code')}: {content.get('text')}" if isinstance(content, dict) else "unknown"

    def set(self, code: str, text: str, arm_url: str) -> None:
        """Written and synced, the folder too, so that a crash cannot lose it. Raises `OSError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write(code, text, arm_url, sync=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def note(self, code: str, text: str, arm_url: str) -> None:
        """Another reason in a file that is there already; not synced. Raises `OSError`."""
        self._write(code, text, arm_url, sync=False)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def _write(self, code: str, text: str, arm_url: str, *, sync: bool) -> None:
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("w") as file:
            json.dump({"code": code, "text": text, "arm": arm_url}, file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(self.path)


def arm_key(arm_url: str, by_id: Path = BY_ID) -> str:
    """What names an arm in the names of files: 16 digits that follow from its `identity`."""
    return hashlib.sha256(identity(arm_url, by_id).encode()).hexdigest()[:16]


def identity(arm_url: str, by_id: Path = BY_ID) -> str:
    """A name of the arm that does not depend on how its port is spelled or numbered.

    A USB adapter is known by its entry in /dev/serial/by-id; any other port by its absolute path.
    """
    if not arm_url.startswith("serial:"):
        return arm_url
    path = arm_url.removeprefix("serial:").split("?")[0]
    real = os.path.realpath(path)
    links = sorted(by_id.iterdir()) if by_id.is_dir() else []
    for link in links:
        if os.path.realpath(link) == real:
            return f"by-id:{link.name}"
    return os.path.abspath(path)
