"""What an independent observer says of a run's wire log."""

from __future__ import annotations

from pathlib import Path

from holdfast.benchmarks.faults.observer import Observer


def check_goals(path: Path, robot_name: str) -> int:
    """Asserts that nothing in a wire log should not be there: no goal outside its limits, no jump, no other
    write; returns how many goals were seen, each motor's counted."""
    observer = Observer.of_robot(path, robot_name)
    observer.read()
    observer.close()
    assert not observer.escapes()
    return observer.goals
