"""Reading safetensors files: the header is checked completely, tensors are mapped into memory, not copied.

The format (huggingface/safetensors, README): 8 bytes little-endian size, a JSON header so long, the data.
Offsets are kept, so that a big model's weights can be written elsewhere without loading the model.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import SourceError

MAX_HEADER = 100_000_000
MAX_TENSORS = 1 << 20
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Where one tensor lies: bytes `begin` to `end` of `path`."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file. Raises `SourceError` unless the header describes every byte of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError(f"its header would have {length} bytes, the file has {size}")
            header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
        if not isinstance(header, dict) or len(header) > MAX_TENSORS:
            raise ValueError("its header is no table of tensors")
        header.pop("__metadata__", None)
        tensors = {name: _entry(path, name, entry, 8 + length) for name, entry in header.items()}
        at = 8 + length
        for stored in sorted(tensors.values(), key=lambda stored: (stored.begin, stored.end)):
            if stored.begin != at:
                raise ValueError(f"its tensors do not lie one after the other (byte {at})")
            at = stored.end
        if at != size:
            raise ValueError(f"its tensors end at byte {at}, the file has {size}")
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(
            f"{path} is no complete safetensors file ({_short(error)}); copy it again, or fetch the real "
            "file if this is a pointer of git-lfs"
        ) from error
    return tensors


def read_tensors(stored: Mapping[str, Stored]) -> dict[str, torch.Tensor]:
    """The tensors, mapped from their files: a page is read when a value of it is."""
    maps = {path: _map(path) for path in {entry.path for entry in stored.values()}}
    return {name: _tensor(maps[entry.path], entry) for name, entry in stored.items()}


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read ({_short(error)}); copy it again") from error


def _tensor(data: mmap.mmap, entry: Stored) -> torch.Tensor:
    if entry.begin == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype)
    if entry.end > len(data):
        raise SourceError(f"{entry.path} has become shorter while it was read; copy it again")
    count = math.prod(entry.shape)
    if entry.begin % entry.dtype.itemsize:
        return torch.frombuffer(bytearray(data[entry.begin : entry.end]), dtype=entry.dtype).reshape(
            entry.shape
        )
    flat = torch.frombuffer(data, dtype=entry.dtype, count=count, offset=entry.begin)
    return flat.reshape(entry.shape)


def _entry(path: Path, name: str, entry: Any, start: int) -> Stored:
    fields = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != fields:
        raise ValueError(f"{name!r} is not described by {', '.join(sorted(fields))}")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{name!r} has the dtype {entry['dtype']!r}, which is not read")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for what, values in (("shape", shape), ("offsets", offsets)):
        if not isinstance(values, list) or not all(type(v) is int and 0 <= v < 1 << 48 for v in values):
            raise ValueError(f"the {what} of {name!r} are {values!r}")
    if len(offsets) != 2 or len(shape) > 16:
        raise ValueError(f"{name!r} has shape {shape} and offsets {offsets}")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} {entry['dtype']} {shape} cannot have {end - begin} bytes")
    return Stored(path, dtype, tuple(shape), start + begin, start + end)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name of its header is there twice")
    return out


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")[:200]
