"""The golden samples: recorded inputs of the graph and what it answered on the exporting machine.

An .npz without pickles: one array for every input and output of the program's graph, under its name, with
the samples along the first axis: [N, ...] where the graph has [1, ...]. The policy process replays
some of them at start, so that a backend, driver or processor that computes something else is refused.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError
from .reading import LoadedBundle
from .schema import Graph, Tensor

MAX_BYTES = 1 << 30
"""Unpacked; more is no set of samples but an attack on the memory."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Golden:
    """Samples along the first axis of every array."""

    inputs: Arrays
    outputs: Arrays

    @property
    def count(self) -> int:
        return len(next(iter(self.outputs.values())))

    def sample(self, index: int) -> tuple[Arrays, Arrays]:
        """Inputs and expected outputs of one sample, with the batch axis of 1 that the graph takes."""
        at = slice(index, index + 1)
        return (
            {name: array[at] for name, array in self.inputs.items()},
            {name: array[at] for name, array in self.outputs.items()},
        )


def pack_golden(inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """The .npz of samples stacked along the first axis."""
    buffer = io.BytesIO()
    named = {**inputs, **outputs}
    np.savez_compressed(buffer, **named)  # pyright: ignore[reportArgumentType] (names as keys)
    return buffer.getvalue()


def read_golden(bundle: LoadedBundle) -> Golden:
    """The golden samples of a verified bundle. Raises `BundleError` when they do not fit its graph."""
    spec = bundle.spec
    name = spec.numerics.golden
    try:
        return unpack_golden(bundle.read(name), spec.graphs[spec.program.graph])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"bundle {bundle.path}: {name} is not valid: {error}; export it again") from error


def unpack_golden(data: bytes, graph: Graph) -> Golden:
    """Inverse of `pack_golden`. Raises `ValueError` when names, dtypes or shapes are not the graph's."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > MAX_BYTES:
        raise ValueError(f"it unpacks to {unpacked} bytes, over the {MAX_BYTES} allowed")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays: Arrays = {name: file[name] for name in file.files}
    golden = Golden(_pick(arrays, graph.inputs), _pick(arrays, graph.outputs))
    counts = {len(array) for array in (*golden.inputs.values(), *golden.outputs.values())}
    if len(counts) != 1 or 0 in counts or len(arrays) != len(graph.inputs) + len(graph.outputs):
        raise ValueError(
            f"it has arrays {sorted(arrays)} with {sorted(counts)} samples; expected one equal set"
        )
    return golden


def _pick(arrays: Arrays, tensors: Sequence[Tensor]) -> Arrays:
    out: Arrays = {}
    for tensor in tensors:
        array = arrays[tensor.name]
        if array.dtype != np.dtype(tensor.dtype) or list(array.shape[1:]) != tensor.shape[1:]:
            raise ValueError(
                f"{tensor.name} is {array.dtype} {list(array.shape)}, "
                f"expected {tensor.dtype} [N, {', '.join(map(str, tensor.shape[1:]))}]"
            )
        out[tensor.name] = array
    return out
