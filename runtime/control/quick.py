"""`dataclasses.replace` at a tenth of its cost; several times in a tick, that was a quarter of it."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def replace(value: T, **changes: Any) -> T:
    """A copy of a frozen dataclass without slots, with other values in some fields. Raises `TypeError` for a
    field that it does not have; `__post_init__` is not called."""
    fields = value.__dict__
    if not changes.keys() <= fields.keys():
        raise TypeError(f"{type(value).__name__} has no {', '.join(changes.keys() - fields.keys())}")
    changed = object.__new__(type(value))
    changed.__dict__.update(fields, **changes)
    return changed
