"""The golden samples: inputs of the policy, the noise it was given, and what every graph and the whole
answered on the exporting machine.

An .npz without pickles, the samples along the first axis of every array: `in/<tensor>` of the observation,
`noise` where the program draws any, `actions` (normalised), `guided` of programs that can continue a chunk,
and `out/<graph>/<tensor>` of each graph's first run, thinned to at most `MOST_VALUES` values a sample. The
policy process replays them at start, so that a backend, driver or processor that computes something else is
refused, and the graph that differs is named.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError
from .npz import Arrays, read_npz
from .reading import LoadedBundle
from .schema import GUIDED, Bundle, Tensor, observed

MAX_BYTES = 1 << 30
"""Unpacked; more is no set of samples but an attack on the memory."""
MOST_VALUES = 4096
"""Of one output of one graph in one sample: a cache has millions."""


@dataclass(frozen=True)
class Sample:
    """One replay, with the batch axis of 1 that the graphs take."""

    inputs: Arrays
    noise: NDArray[np.float32] | None
    """[draws, horizon, width]"""
    actions: NDArray[np.float32]
    """[1, steps, elements]"""
    outputs: dict[str, Arrays] = field(default_factory=dict)
    """Graph -> output -> its thinned values, flat."""
    guided: NDArray[np.float32] | None = None
    """Like `actions`, continuing them as `golden_prefix` says; for programs with a guided graph."""


def thin(values: NDArray[Any]) -> NDArray[Any]:
    """At most `MOST_VALUES` of an output, evenly spread over it, flat. Pure: the same ones everywhere."""
    flat = values.reshape(-1)
    return flat[:: max(1, math.ceil(flat.size / MOST_VALUES))]


def pack_golden(samples: Sequence[Sample]) -> bytes:
    """The .npz of some samples of one policy."""
    arrays: dict[str, NDArray[Any]] = {"actions": np.concatenate([s.actions for s in samples])}
    if samples[0].noise is not None:
        arrays["noise"] = np.stack([s.noise for s in samples if s.noise is not None])
    if samples[0].guided is not None:
        arrays["guided"] = np.concatenate([s.guided for s in samples if s.guided is not None])
    for name in samples[0].inputs:
        arrays[f"in/{name}"] = np.concatenate([s.inputs[name] for s in samples])
    for graph, outputs in samples[0].outputs.items():
        for name in outputs:
            arrays[f"out/{graph}/{name}"] = np.stack([s.outputs[graph][name] for s in samples])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType] (names as keys)
    return buffer.getvalue()


def read_golden(bundle: LoadedBundle) -> list[Sample]:
    """The golden samples of a verified bundle. Raises `BundleError` when they do not fit it."""
    name = bundle.spec.numerics.golden
    try:
        return unpack_golden(bundle.read(name), bundle.spec)
    except ValueError as error:
        raise BundleError(f"bundle {bundle.path}: {name} is not valid: {error}; export it again") from error


def unpack_golden(data: bytes, spec: Bundle) -> list[Sample]:
    """Inverse of `pack_golden`. Raises `ValueError` when names, dtypes or shapes are not the bundle's."""
    wanted = _wanted(spec)

    def check(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        if name not in wanted:
            raise ValueError(f"it has samples of {name!r}, which the program has not")
        kind, size = wanted[name]
        if dtype != kind or not shape or shape[1:] != size:
            raise ValueError(
                f"{name} is {dtype} {list(shape)}, expected {kind} [N, {', '.join(map(str, size))}]"
            )

    arrays = read_npz(data, MAX_BYTES, check)
    if missing := sorted(set(wanted) - set(arrays)):
        raise ValueError(f"it has no samples of {', '.join(missing)}")
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"its arrays have {sorted(counts)} samples; expected one equal number, above 0")
    return [_sample(arrays, spec, index) for index in range(counts.pop())]


def _wanted(spec: Bundle) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Name in the file -> dtype and shape of one sample."""
    observation = observed(spec.cameras, spec.history, spec.state, spec.task)
    out = {f"in/{name}": (np.dtype(t.dtype), tuple(t.shape[1:])) for name, t in observation.items()}
    out["actions"] = (np.dtype(np.float32), (spec.action.steps, len(spec.action.elements)))
    if GUIDED in spec.graphs:
        out["guided"] = out["actions"]
    if (shape := spec.program.noise_shape(spec.action)) is not None:
        out["noise"] = (np.dtype(np.float32), shape)
    for graph, name, tensor in _outputs(spec):
        out[f"out/{graph}/{name}"] = (np.dtype(tensor.dtype), (_thinned(tensor),))
    return out


def _outputs(spec: Bundle) -> list[tuple[str, str, Tensor]]:
    """Graph, name and tensor of the outputs that are compared."""
    return [
        (graph, tensor.name, tensor)
        for graph in spec.numerics.components
        for tensor in spec.graphs[graph].outputs
    ]


def _thinned(tensor: Tensor) -> int:
    size = math.prod(tensor.shape)
    return math.ceil(size / max(1, math.ceil(size / MOST_VALUES)))


def _sample(arrays: Mapping[str, NDArray[Any]], spec: Bundle, index: int) -> Sample:
    at = slice(index, index + 1)
    outputs: dict[str, Arrays] = {}
    for graph, name, _ in _outputs(spec):
        outputs.setdefault(graph, {})[name] = arrays[f"out/{graph}/{name}"][index]
    return Sample(
        {name.removeprefix("in/"): array[at] for name, array in arrays.items() if name.startswith("in/")},
        arrays["noise"][index] if "noise" in arrays else None,
        arrays["actions"][at],
        outputs,
        arrays["guided"][at] if "guided" in arrays else None,
    )
