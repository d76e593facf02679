"""ONNX Runtime as the measuring instrument of the export: one thread, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Feed = Mapping[str, NDArray[Any]]


class OnnxGraph:
    """A graph that can be run. `literal`: every node as written, without fusions or removed casts."""

    def __init__(self, data: bytes, *, literal: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if literal:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.outputs = [node.name for node in self._session.get_outputs()]

    def run(self, feed: Feed) -> dict[str, NDArray[Any]]:
        values = cast(Sequence[Any], self._session.run(self.outputs, dict(feed)))
        return {name: np.asarray(value) for name, value in zip(self.outputs, values, strict=True)}
