"""Reading a torch.save file without trusting it: tensors and plain values only, never code."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import SourceError

_UNREADABLE = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What torch's reader lets through for files whose pickle is mangled, besides UnpicklingError."""


MAX_PICKLE_BYTES = 1 << 24
"""Far above the names and shapes of any checkpoint; its numbers are other members of the archive."""


def is_torch_file(path: Path) -> bool:
    """Whether `path` looks like a torch.save file (a zip archive since torch 1.6)."""
    try:
        return path.is_file() and zipfile.is_zipfile(path)
    except OSError:
        return False


def holds_text(path: Path, text: bytes) -> bool:
    """Whether the pickle of a torch file holds `text`, found without unpickling anything."""
    if not is_torch_file(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith("data.pkl") and info.file_size <= MAX_PICKLE_BYTES:
                    return text in archive.read(info)
    except (*_UNREADABLE, NotImplementedError):
        return False
    return False


def load_torch_file(path: Path) -> dict[str, Any]:
    """The dictionary in a torch.save file, on the CPU. Raises `SourceError`; runs no code of the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise SourceError(f"{path} is a compressed archive; torch.save writes uncompressed ones")
            # PyTorch's reader trusts the sums; a flipped bit in a weight would go unnoticed.
            if (bad := archive.testzip()) is not None:
                raise SourceError(f"{path} is damaged: {bad} has a wrong checksum; copy or train it again")
        value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path} holds Python objects, not only tensors and plain values, and is not loaded: loading it "
            f"would run code of the file ({_first_line(error)}); save a state_dict with torch.save instead"
        ) from error
    except _UNREADABLE as error:
        raise SourceError(
            f"{path} cannot be read as a torch file ({_first_line(error)}); it may be truncated: "
            "copy it again"
        ) from error
    if not isinstance(value, dict):
        raise SourceError(f"{path} holds a {type(value).__name__}, expected a dictionary with a state_dict")
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")[:200]
