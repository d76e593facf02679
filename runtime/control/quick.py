"""`dataclasses.replace` at a tenth of its cost; several times in a tick, that was a quarter of it."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def replace(value: T, **changes: Any) -> T:
    """A copy of a frozen dataclass without slots, with other values in some fields. Raises `TypeError` for a
    field that it does not have; `__post_init__` is not called."""
    fields = value.__dict__
    changed = object.__new__(type(value))
    made = changed.__dict__
    made.update(fields)
    made.update(changes)
    if len(made) != len(fields):
        raise TypeError(f"{type(value).__name__} has no {', '.join(changes.keys() - fields.keys())}")
    return changed
