"""Reading an .npz of plain arrays that nobody vouches for: no pickle, and no allocation that a file claims.

numpy's own reader allocates what an array's header says before it sees the data, and its errors for damaged
files have many types. Here a header must be of the form that `np.save` writes (NPY format version 1.0:
numpy.lib.format), and must say exactly the number of bytes that its member of the archive holds.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Check = Callable[[str, np.dtype[Any], tuple[int, ...]], None]
"""Called with name, dtype and shape before the data is read; raises `ValueError` for what is not wanted."""

_PREFIX = struct.Struct("<8sH")
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<|][biufU]\d{1,6})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,20}, ?)*(?:\d{1,20})?)\), \} *\n"
)
_SUFFIX = ".npy"
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    # An encrypted or otherwise compressed archive, a name that is not there, an absurd offset.
    RuntimeError,
    KeyError,
    OverflowError,
)


def _accept(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Any array."""


def read_npz(data: bytes, max_bytes: int, check: Check = _accept) -> Arrays:
    """All arrays of an .npz of numbers and strings, by name. `max_bytes` bounds what they take unpacked.

    Raises `ValueError`, and nothing else, for whatever is damaged, too large or not of this form.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive, max_bytes, check)
    except _DAMAGED as error:
        raise ValueError(f"it is damaged: {error}") from error


def _read(archive: zipfile.ZipFile, max_bytes: int, check: Check) -> Arrays:
    members = archive.infolist()
    unpacked = sum(info.file_size for info in members)
    if unpacked > max_bytes:
        raise ValueError(f"it unpacks to {unpacked} bytes, over the {max_bytes} allowed")
    arrays: Arrays = {}
    for info in members:
        name = info.filename.removesuffix(_SUFFIX)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or name in arrays:
            raise ValueError(f"the member {info.filename!r} is there twice, or packed in an unusual way")
        with archive.open(info) as file:
            # Far below any limit, since every member of the archive is bounded by `max_bytes`.
            arrays[name] = _array(name, file.read(), check)
    return arrays


def _array(name: str, raw: bytes, check: Check) -> NDArray[Any]:
    magic, length = _PREFIX.unpack_from(raw)
    start = _PREFIX.size + length
    found = _HEADER.fullmatch(raw[_PREFIX.size : start])
    if magic != _MAGIC or found is None:
        raise ValueError(f"{name} is no plain array of numbers or strings, as np.save writes it")
    try:
        dtype = np.dtype(found[1].decode())
    except TypeError as error:
        raise ValueError(f"{name} has no type that numpy knows: {found[1].decode()!r}") from error
    shape = tuple(int(size) for size in found[3].replace(b" ", b"").split(b",") if size)
    check(name, dtype, shape)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != len(raw) - start or dtype.itemsize == 0:
        raise ValueError(
            f"{name} is said to be {dtype} {list(shape)}, but {len(raw) - start} bytes are there"
        )
    flat = np.frombuffer(raw, dtype, offset=start)
    # A copy, aligned and writable like any other array.
    return flat.reshape(shape, order="F" if found[2] == b"True" else "C").copy()
