"""The table of checkpoint families."""

from __future__ import annotations

from pathlib import Path

from ..errors import SourceError
from ..models.demo.checkpoint import MODEL
from . import demo
from .types import Source

SOURCES: dict[str, Source] = {"demo": demo}
"""Family -> its module. A new family is one row."""

SHIPPED = {"demo": MODEL}
"""Names that stand for checkpoints which come with Holdfast."""


def locate(name: str) -> Path:
    """The path of a checkpoint given by path or by a shipped name. Raises `SourceError`.

    A file of that name wins; a folder (the runs of a demo, say) does not hide a shipped checkpoint.
    """
    path = Path(name)
    if name in SHIPPED and not path.is_file():
        return SHIPPED[name]
    if path.exists():
        return path
    raise SourceError(
        f"the checkpoint {name} does not exist; give a path, or the name of one that comes with Holdfast "
        f"({', '.join(SHIPPED)})"
    )


def find_source(path: Path) -> tuple[str, Source]:
    """The family of a checkpoint. Raises `SourceError` listing the families when none knows it."""
    for family, source in SOURCES.items():
        if source.recognise(path) is not None:
            return family, source
    raise SourceError(
        f"{path} is no checkpoint that this version reads; it reads: a torch file (.pt) of Holdfast's demo "
        "policy, as vla-train writes it"
    )
