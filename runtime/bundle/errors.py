"""What can be wrong with a bundle. A message is one line: what happened, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import Row


class BundleError(Exception):
    """A bundle cannot be read, is damaged, or is not of this version; nothing of it may be used."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class BundleMismatch(BundleError):
    """An intact bundle that does not fit this robot, its cameras or its rate; `rows` has both sides."""

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        self.rows = tuple(rows)
        wrong = "; ".join(
            f"{row.what}: bundle has {row.bundle}, robot has {row.robot} ({row.fix})"
            for row in rows
            if not row.ok
        )
        super().__init__(f"bundle {name} does not fit this robot: {wrong}")


def one_line(text: str) -> str:
    """`text` without line breaks, control characters or lone surrogates, so that any terminal can show it."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in safe)
