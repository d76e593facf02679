"""The table of checkpoint families."""

from __future__ import annotations

from pathlib import Path

from ..errors import SourceError
from ..models.demo.checkpoint import MODEL
from . import act, demo, diffusion, openvla, pi0, smolvla
from .torch_file import holds_text, is_torch_file
from .types import Source

SOURCES: dict[str, Source] = {
    "demo": demo,
    "act": act,
    "diffusion": diffusion,
    "openvla": openvla,
    "pi0": pi0.PI0,
    "pi05": pi0.PI05,
    "smolvla": smolvla,
}
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


def find_source(path: Path) -> tuple[str, Source, str]:
    """The family of a checkpoint, its reader, and why it is of that family. Raises `SourceError` with what is
    read when none knows it."""
    for family, source in SOURCES.items():
        if (reason := source.recognise(path)) is not None:
            return family, source, reason
    known = "; ".join(f"{family}: {source.MEANING}" for family, source in SOURCES.items())
    raise SourceError(
        f"{path} is no checkpoint that this version reads: {_what_it_is(path)}. It reads {known}"
    )


def families() -> dict[str, str]:
    """Name -> which checkpoints it reads."""
    return {family: source.MEANING for family, source in SOURCES.items()}


def _what_it_is(path: Path) -> str:
    if path.is_dir():
        return "a folder without the files of any known family"
    if is_torch_file(path):
        training = " (it looks like a training checkpoint)" if holds_text(path, b"model_state_dict") else ""
        return f"a torch file, but not of a family known here{training}"
    if path.suffix in (".pt", ".pth"):
        return "not a torch file (torch.save of torch 1.6 or newer), or truncated: copy it again"
    return "a file of no known family"
