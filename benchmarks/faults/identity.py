"""Which configuration a trial or a soak was made with: one hash over all that decides its outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...drivers.robots.schema import load_robot, robot_path
from ...runtime.report import environment
from .classes import CLASSES

HOUSE = Path(__file__).parents[2]
ROOMS = ("runtime", "drivers/cameras", "drivers/feetech", "drivers/simulated", "benchmarks/faults")
"""Whose code decides what a trial comes to, or a soak; ..."""
FILES = (
    "drivers/*.py",
    "drivers/robots/*.py",
    "benchmarks/demo_attempts.py",
    "benchmarks/policies.py",
    "benchmarks/stepped_policy.py",
)
"""... and these. Other robots and buses are not in it."""
HASH_CHARACTERS = 16


def configuration_hash(bundle: Path, robot: str = "sim_arm") -> str:
    """Robot file, calibration, the robot's body, policy, table of classes, the code of runtime, drivers and
    campaign, the versions of Python and of what is used with it."""
    digest = hashlib.sha256()
    file = robot_path(robot)
    calibration = load_robot(robot).calibration
    paths = [file, *([file.parent / calibration] if calibration else []), *_files(bundle), *_code()]
    body = load_robot(robot).body
    if body is not None:
        paths.append(file.parent / body.model)
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    digest.update(repr(CLASSES).encode())
    here = environment()
    digest.update(repr((here["python"], sorted(here["packages"].items()), _version("mujoco"))).encode())
    return digest.hexdigest()[:HASH_CHARACTERS]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _files(bundle: Path) -> Iterator[Path]:
    yield from sorted((bundle / "graphs").iterdir())


def _code() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((HOUSE / room).rglob("*.py"))
    for pattern in FILES:
        yield from sorted(HOUSE.glob(pattern))
