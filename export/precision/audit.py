"""The audit: is the graph really in the precision that its name claims, with the weights it had?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..errors import PrecisionError
from .graph_view import FLOAT16, GraphView

_HALF_ULP = 2.0**-11
"""Rounding to fp16 changes a normal number by at most this share (IEEE 754 binary16, 11 bits)."""
_HALF_SUBNORMAL = 2.0**-25
"""... and a subnormal one by at most half of the smallest step, 2^-24."""


def bytes_per_dtype(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of constants (weights) by element type, e.g. {"float16": 2500000, "int64": 96}."""
    count: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        # Not read: the weights may be in a file of their own.
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count[str(dtype)] += math.prod(tensor.dims) * dtype.itemsize
    return dict(sorted(count.items()))


def nodes_per_dtype(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by the element type of their first output; casts are counted apart."""
    view = GraphView(model)
    count: Counter[str] = Counter()
    for node in view.nodes:
        name = TensorProto.DataType.Name(view.types[node.output[0]]).lower()
        count["cast" if node.op_type == "Cast" else name] += 1
    return dict(sorted(count.items()))


def check_constants(before: onnx.ModelProto, after: onnx.ModelProto, origin: Mapping[str, str]) -> None:
    """Raises `PrecisionError` when a constant changed by more than rounding to its new type.

    `origin`: name of a converted constant -> name of the one that it was made from. A converter that clamps
    large weights still shows a fine cosine; here it fails.
    """
    old = {tensor.name: numpy_helper.to_array(tensor) for tensor in before.graph.initializer}
    for tensor in after.graph.initializer:
        source = old.get(origin.get(tensor.name, tensor.name))
        new = numpy_helper.to_array(tensor)
        if source is None or source.shape != new.shape:
            raise PrecisionError(f"the constant {tensor.name} has no counterpart in the fp32 graph")
        if tensor.data_type != FLOAT16:
            same = source.dtype == new.dtype and source.tobytes() == new.tobytes()
        else:
            wide = source.astype(np.float64)
            allowed = np.maximum(np.abs(wide) * _HALF_ULP, _HALF_SUBNORMAL)
            same = bool((np.abs(new.astype(np.float64) - wide) <= allowed).all())
        if not same:
            raise PrecisionError(f"the constant {tensor.name} changed by more than rounding to {new.dtype}")


def check_share(model: onnx.ModelProto) -> None:
    """Raises `PrecisionError` when most bytes of an "fp16" graph's weights are still float32."""
    found = bytes_per_dtype(model)
    half, full = found.get("float16", 0), found.get("float32", 0)
    if full > half:
        raise PrecisionError(
            f"only {half} bytes of weights could be made float16 and {full} stayed float32: this would be an "
            "fp16 bundle in name only; export with --fp32"
        )
