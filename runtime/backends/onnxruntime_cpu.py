"""ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..bundle.schema import Graph, Tensor
from .types import BackendError, BackendOptions

_PROVIDERS = ["CPUExecutionProvider"]
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}


class OnnxRuntimeSession:
    """A graph in ONNX Runtime, on exactly the provider that was asked for."""

    def __init__(self, graph: bytes | Path, spec: Graph, options: BackendOptions) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Spinning workers would take the core from the control process between two inferences.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        try:
            model = graph if isinstance(graph, bytes) else str(graph)
            self._session = onnxruntime.InferenceSession(model, settings, providers=_PROVIDERS)
        except _errors() as error:
            raise BackendError(f"onnxruntime cannot load {spec.file}: {error}") from error
        if self._session.get_providers() != _PROVIDERS:
            raise BackendError(
                f"onnxruntime offers {self._session.get_providers()} instead of {_PROVIDERS}; "
                "nothing is run on another provider silently"
            )
        _compare("inputs", self._session.get_inputs(), spec.inputs, spec.file)
        _compare("outputs", self._session.get_outputs(), spec.outputs, spec.file)
        self._outputs = [tensor.name for tensor in spec.outputs]
        self.description = (
            f"onnxruntime {onnxruntime.__version__}, {_PROVIDERS[0]}, {options.threads} thread(s)"
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except _errors() as error:
            raise BackendError(f"onnxruntime failed: {error}") from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}


def load(graph: bytes | Path, spec: Graph, options: BackendOptions) -> OnnxRuntimeSession:
    """The backend's entry in the registry."""
    return OnnxRuntimeSession(graph, spec, options)


def _errors() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime: its own tree has no public root."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    own = tuple(getattr(state, name) for name in names if hasattr(state, name))
    return (*own, RuntimeError, ValueError)


def _compare(what: str, actual: Sequence[Any], declared: Sequence[Tensor], file: str) -> None:
    found = {node.name: (_DTYPES.get(node.type, node.type), list(node.shape)) for node in actual}
    expected = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in declared}
    if found != expected:
        raise BackendError(
            f"the {what} of {file} are {found}, the bundle declares {expected}; export the bundle again"
        )
