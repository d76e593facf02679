"""The golden samples: recorded inputs of the graph and what it answered on the exporting machine.

An .npz without pickles: one array for every input and output of the program's graph, under its name, with
the samples along the first axis: [N, ...] where the graph has [1, ...]. The policy process replays
some of them at start, so that a backend, driver or processor that computes something else is refused.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError
from .npz import Arrays, read_npz
from .reading import LoadedBundle
from .schema import Graph

MAX_BYTES = 1 << 30
"""Unpacked; more is no set of samples but an attack on the memory."""


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
    except ValueError as error:
        raise BundleError(f"bundle {bundle.path}: {name} is not valid: {error}; export it again") from error


def unpack_golden(data: bytes, graph: Graph) -> Golden:
    """Inverse of `pack_golden`. Raises `ValueError` when names, dtypes or shapes are not the graph's."""
    wanted = {tensor.name: tensor for tensor in (*graph.inputs, *graph.outputs)}

    def check(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        if name not in wanted:
            raise ValueError(f"it has samples of {name!r}, which is no input or output of the graph")
        tensor = wanted[name]
        if dtype != np.dtype(tensor.dtype) or list(shape[1:]) != tensor.shape[1:] or not shape:
            raise ValueError(
                f"{name} is {dtype} {list(shape)}, "
                f"expected {tensor.dtype} [N, {', '.join(map(str, tensor.shape[1:]))}]"
            )

    arrays = read_npz(data, MAX_BYTES, check)
    if missing := sorted(set(wanted) - set(arrays)):
        raise ValueError(f"it has no samples of {', '.join(missing)}")
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"its arrays have {sorted(counts)} samples; expected one equal number, above 0")
    return Golden(
        {tensor.name: arrays[tensor.name] for tensor in graph.inputs},
        {tensor.name: arrays[tensor.name] for tensor in graph.outputs},
    )
