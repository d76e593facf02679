"""From a component in torch to an ONNX graph with static shapes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from numpy.typing import NDArray

from ..runtime.bundle.schema import Tensor
from .errors import ExportError
from .sessions import OnnxGraph
from .sources.types import Component

OPSET = 18
"""At most 20 for TensorRT 10.3 (JetPack 6)."""
MAX_BYTES = 1_400_000_000
"""Weights of a graph in its own file: an ONNX file (protobuf) ends at 2 GB, and the run path holds up to
1.5 GB in memory. Above it they go into a second file."""

_DTYPES: dict[int, str] = {
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.FLOAT: "float32",
}


@dataclass(frozen=True)
class OnnxFile:
    """A graph on its way into a bundle."""

    model: bytes
    data: Path | None = None
    """Its weights, where they are in a file of their own, in the folder of `path`."""
    path: Path | None = None
    """`model` as a file beside `data`."""

    def session(self) -> OnnxGraph:
        """In ONNX Runtime."""
        return OnnxGraph(self.model if self.path is None else self.path)

    @property
    def size(self) -> int:
        """Bytes, weights included."""
        return len(self.model) + (0 if self.data is None else self.data.stat().st_size)


def export_graph(component: Component, feed: Mapping[str, NDArray[Any]], folder: Path, name: str) -> OnnxFile:
    """The component as ONNX, fp32. `feed`: its inputs in one observation, the example for tracing.

    `folder`: where weights are written that are too large for one file. Raises `ExportError` when the
    exporter fails or the graph does not have the declared interface.
    """
    names = [tensor.name for tensor in component.inputs]
    example = tuple(torch.from_numpy(feed[each].copy()) for each in names)
    large = weight_bytes(component.module) > MAX_BYTES
    with quiet():
        try:
            program = torch.onnx.export(
                _Named(component.module, names),
                example,
                dynamo=True,
                input_names=names,
                output_names=[tensor.name for tensor in component.outputs],
                opset_version=OPSET,
                external_data=large,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"torch.onnx cannot export the graph {name}: {error}") from error
        program = cast(torch.onnx.ONNXProgram, program)
        path = folder / f"{name}.onnx"
        if large:
            program.save(str(path), external_data=True)
    model = onnx.load(str(path), load_external_data=False) if large else program.model_proto
    _strip(model)
    check_interface(model, component.inputs, component.outputs)
    if not large:
        return OnnxFile(model.SerializeToString())
    path.write_bytes(model.SerializeToString())
    return OnnxFile(path.read_bytes(), _data_file(model, path), path)


def weight_bytes(module: torch.nn.Module) -> int:
    """Of all parameters and buffers."""
    return sum(value.nbytes for value in (*module.parameters(), *module.buffers()))


def check_interface(model: onnx.ModelProto, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Raises `ExportError` unless the graph takes and gives exactly these names, dtypes and shapes."""
    for what, found, wanted in (
        ("inputs", model.graph.input, inputs),
        ("outputs", model.graph.output, outputs),
    ):
        got = {value.name: _describe(value) for value in found}
        expected = {tensor.name: (tensor.dtype, tensor.shape) for tensor in wanted}
        if got != expected:
            raise ExportError(f"the graph's {what} are {got}, expected {expected}; shapes must be static")


def _data_file(model: onnx.ModelProto, path: Path) -> Path:
    """The one file beside `path` that the model's tensors lie in. Raises `ExportError` for another."""
    places = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    if places != {f"{path.name}.data"}:
        raise ExportError(f"the weights of {path.name} lie in {sorted(places)}, expected {path.name}.data")
    return path.with_name(f"{path.name}.data")


def _describe(value: onnx.ValueInfoProto) -> tuple[str, list[int | str]]:
    kind = value.type.tensor_type
    shape: list[int | str] = [d.dim_value or d.dim_param or "?" for d in kind.shape.dim]
    return _DTYPES.get(kind.elem_type, str(kind.elem_type)), shape


class _Named(torch.nn.Module):
    """Calls the network with its inputs by name, so that the order of its arguments cannot matter."""

    def __init__(self, module: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.module(**dict(zip(self.names, values, strict=True))))


def _strip(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes for debugging: stack traces with paths of this machine."""
    graph = model.graph
    noted = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for item in noted:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's notes about its own internals (missing torchvision, deprecations) to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
