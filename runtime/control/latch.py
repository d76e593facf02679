"""The latch file: a protective stop that nobody has reset keeps the next start from moving the arm."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LatchFile:
    """One file per arm (by its URL) in the state folder."""

    path: Path

    @classmethod
    def of(cls, state_dir: Path, arm_url: str) -> LatchFile:
        name = hashlib.sha256(arm_url.encode()).hexdigest()[:16]
        return cls(state_dir / f"stopped-{name}.json")

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
        """Written and synced before it counts, so that a crash cannot lose it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("w") as file:
            json.dump({"code": code, "text": text, "arm": arm_url}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
