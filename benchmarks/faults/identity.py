"""Which configuration a trial or a soak was made with: one hash over all that decides its outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ...drivers.robots.schema import load_robot, robot_path
from .classes import CLASSES

HOUSE = Path(__file__).parents[2]
ROOMS = ("runtime", "drivers", "benchmarks/faults")
"""Whose code decides what a trial comes to."""
HASH_CHARACTERS = 16


def configuration_hash(bundle: Path, robot: str = "sim_arm") -> str:
    """Robot file, calibration, policy, table of classes, and the code of runtime, drivers and campaign."""
    digest = hashlib.sha256()
    file = robot_path(robot)
    calibration = load_robot(robot).calibration
    paths = [file, *([file.parent / calibration] if calibration else []), *_files(bundle), *_code()]
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    digest.update(repr(CLASSES).encode())
    return digest.hexdigest()[:HASH_CHARACTERS]


def _files(bundle: Path) -> Iterator[Path]:
    yield from sorted((bundle / "graphs").iterdir())


def _code() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((HOUSE / room).rglob("*.py"))
