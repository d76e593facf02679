"""The trials of a campaign as lines of JSON, one file: written as they end, read again to go on.

The first line says what they were made with. Each line is whole or not there: what a killed campaign has left
half written is cut off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

FORMAT = "holdfast.faults/1"


class JournalError(Exception):
    """The file cannot be gone on with; the message says why and what to do."""


@dataclass(slots=True)
class Journal:
    """An open file of trials."""

    path: Path
    header: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    _file: TextIO | None = None

    @classmethod
    def open(cls, path: Path, configuration: str, seed: int, machine: Mapping[str, Any]) -> Journal:
        """Goes on with the file or begins it. Raises `JournalError` for one of another configuration, seed or
        machine, and `OSError`."""
        header = {"format": FORMAT, "configuration": configuration, "seed": seed, "machine": dict(machine)}
        journal = cls(path, header)
        if path.exists() and path.stat().st_size:
            journal._resume()
        file = path.open("a", encoding="utf-8")
        journal._file = file
        if not path.stat().st_size:
            journal._write(journal.header)
        return journal

    def _resume(self) -> None:
        header, self.rows = read(self.path)
        for key in ("configuration", "seed"):
            if header.get(key) != self.header[key]:
                raise JournalError(
                    f"{self.path} holds trials of another {key} ({header.get(key)}, now {self.header[key]}); "
                    "give another --output, or remove it"
                )
        here, there = (_still(of.get("machine", {})) for of in (self.header, header))
        if here != there:
            names = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
            raise JournalError(
                f"{self.path} holds trials of another machine ({', '.join(names)} differ); "
                "give another --output"
            )
        self.header = header
        whole = self.path.read_bytes()
        with self.path.open("r+b") as file:
            file.truncate(whole.rfind(b"\n") + 1)

    def add(self, row: dict[str, Any]) -> None:
        """Raises `OSError`."""
        row = {**row, "configuration": self.header["configuration"]}
        self.rows.append(row)
        self._write(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _still(machine: Mapping[str, Any]) -> dict[str, Any]:
    """What of a machine's description does not change from minute to minute, or with the cores that one
    campaign is given."""
    return {key: value for key, value in machine.items() if key not in ("load_average", "cpus")}


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and rows of a file; an unfinished last line is left out. Raises `JournalError`, `OSError`."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError as error:
        raise JournalError(f"{path} is no file of trials: {error}") from error
    if not rows or rows[0].get("format") != FORMAT:
        raise JournalError(f"{path} is no file of trials of this version: it does not begin with {FORMAT}")
    return rows[0], rows[1:]
