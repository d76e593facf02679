"""What the export runs and compares: ONNX Runtime on one thread of the CPU, and the torch components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from .sources.types import Component

Feed = Mapping[str, NDArray[Any]]


class OnnxGraph:
    """A graph that can be run. `literal`: every node as written, without fusions or removed casts."""

    def __init__(self, model: bytes | Path, *, literal: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if literal:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.outputs = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Feed) -> dict[str, NDArray[Any]]:
        values = cast(Sequence[Any], self._session.run(self.outputs, dict(inputs)))
        return {name: np.asarray(value) for name, value in zip(self.outputs, values, strict=True)}


class TorchGraph:
    """A component as it was read from the checkpoint, in torch, fp32, on the CPU."""

    def __init__(self, component: Component) -> None:
        self._module = component.module
        self._outputs = [tensor.name for tensor in component.outputs]

    def run(self, inputs: Feed) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            values = self._module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}
