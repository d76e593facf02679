"""An ONNX graph with the questions that a precision pass asks: who makes a value, who reads it, its type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ..errors import PrecisionError

FLOAT = TensorProto.FLOAT
FLOAT16 = TensorProto.FLOAT16

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze",
     "Tile", "Transpose", "Unsqueeze"}
)  # fmt: skip
"""Operations that move numbers without computing any."""

ELEMENTWISE = frozenset({"Abs", "Add", "Clip", "Div", "Max", "Min", "Mul", "Neg", "Sub", "Where"})


@dataclass(frozen=True)
class GraphView:
    """A read-only index over one model without sub-graphs or functions. Nodes are known by their names."""

    model: onnx.ModelProto

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.model.graph.node)

    @cached_property
    def producer(self) -> dict[str, onnx.NodeProto]:
        return {value: node for node in self.nodes for value in node.output if value}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        out: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for value in node.input:
                out.setdefault(value, []).append(node)
        return out

    @cached_property
    def constants(self) -> dict[str, NDArray[np.generic]]:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    @cached_property
    def types(self) -> dict[str, int]:
        """Value -> element type, for every value of the graph."""
        graph = self.model.graph
        values = [*graph.input, *graph.output, *graph.value_info]
        known = {value.name: value.type.tensor_type.elem_type for value in values}
        known |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        missing = [value for value in self.producer if value not in known]
        if missing:
            raise PrecisionError(
                f"the type of {missing[0]} cannot be inferred; the graph cannot be converted"
            )
        return known

    @cached_property
    def graph_outputs(self) -> set[str]:
        return {value.name for value in self.model.graph.output}

    def floats(self, values: Iterable[str]) -> list[str]:
        """Those of `values` that are float32."""
        return [value for value in values if value and self.types[value] == FLOAT]

    def readers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that read any output of `node`."""
        return [reader for value in node.output for reader in self.consumers.get(value, [])]

    def computed_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Inputs that are no constants."""
        return [value for value in node.input if value and value not in self.constants]


def prepare(data: bytes, *, whole: bool = True) -> onnx.ModelProto:
    """Parses a model, gives every node a unique name and infers every type anew.

    Types that came with the file are dropped: stale ones would be believed. `whole`: False for a model whose
    weights are in another file. Raises `PrecisionError` for
    control flow and local functions, which the passes do not look into.
    """
    model = onnx.ModelProto.FromString(data)
    if model.functions or any(a.HasField("g") or a.graphs for n in model.graph.node for a in n.attribute):
        raise PrecisionError("the graph has sub-graphs (If, Loop, Scan) or functions; export it without them")
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    return retype(model, whole=whole)


def retype(model: onnx.ModelProto, *, whole: bool = True) -> onnx.ModelProto:
    """The model with freshly inferred value types. Raises `PrecisionError` when it is not consistent."""
    del model.graph.value_info[:]
    try:
        typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        if whole:
            onnx.checker.check_model(typed)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise PrecisionError(f"the graph is not consistent: {error}") from error
    return typed
