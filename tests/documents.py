"""Tables of the documents that follow from the code."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.runtime.control.deadlines import REACTIONS


def reaction_rows() -> Iterator[str]:
    """The table of conditions in docs/safety.md, as lines of Markdown."""
    yield "| condition | meaning | reaction | a robot file may choose |"
    yield "| --- | --- | --- | --- |"
    for code, row in REACTIONS.items():
        yield f"| `{code}` | {row.meaning} | {row.kind} | {', '.join(row.choices)} |"
