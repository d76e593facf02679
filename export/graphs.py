"""From a torch module to an ONNX graph with static shapes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import onnx
import torch
from numpy.typing import NDArray

from ..runtime.bundle.schema import Tensor
from .errors import ExportError
from .sources.types import Policy

OPSET = 18
"""At most 20 for TensorRT 10.3 (JetPack 6)."""
MAX_BYTES = 2_000_000_000
"""An ONNX file (protobuf) ends at 2 GB; above it weights need files of their own."""

_DTYPES: dict[int, str] = {
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.FLOAT: "float32",
}


def export_graph(policy: Policy, feed: Mapping[str, NDArray[Any]]) -> bytes:
    """The policy's network as ONNX, fp32. `feed`: one observation's inputs, the example for tracing.

    Raises `ExportError` when the exporter fails or the graph does not have the declared interface.
    """
    names = [tensor.name for tensor in policy.inputs]
    example = tuple(torch.from_numpy(feed[name].copy()) for name in names)
    with quiet():
        try:
            program = torch.onnx.export(
                _Named(policy.module, names),
                example,
                dynamo=True,
                input_names=names,
                output_names=[policy.output.name],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"torch.onnx cannot export the network: {error}") from error
    model = cast(torch.onnx.ONNXProgram, program).model_proto
    _strip(model)
    size = model.ByteSize()
    if size > MAX_BYTES:
        raise ExportError(
            f"the graph has {size} bytes; above {MAX_BYTES} it needs external data, which this version does "
            "not write"
        )
    check_interface(model, list(policy.inputs), [policy.output])
    return model.SerializeToString()


def check_interface(model: onnx.ModelProto, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    """Raises `ExportError` unless the graph takes and gives exactly these names, dtypes and shapes."""
    for what, found, wanted in (
        ("inputs", model.graph.input, inputs),
        ("outputs", model.graph.output, outputs),
    ):
        got = {value.name: _describe(value) for value in found}
        expected = {tensor.name: (tensor.dtype, tensor.shape) for tensor in wanted}
        if got != expected:
            raise ExportError(f"the graph's {what} are {got}, expected {expected}; shapes must be static")


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

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.module(**dict(zip(self.names, values, strict=True)))


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
