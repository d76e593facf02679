"""The backend registry and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.runtime.backends.registry import load_session
from holdfast.runtime.backends.types import BackendError, BackendOptions
from holdfast.runtime.bundle.schema import Graph

from .tiny_bundle import STEPS, constant_graph, golden_inputs, tiny_spec

pytest.importorskip("onnx")

SPEC = Graph.model_validate(tiny_spec()["graphs"]["policy"])
STAY = np.zeros((1, STEPS, 6), np.float32)


def test_a_graph_runs_and_says_on_what():
    session = load_session("onnxruntime", constant_graph(STAY + 3), SPEC, BackendOptions(threads=1))
    assert session.run(golden_inputs())["actions"] == pytest.approx(STAY + 3)
    assert "CPUExecutionProvider" in session.description


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(BackendError, match="this version has: onnxruntime"):
        load_session("tensorrt", b"", SPEC, BackendOptions())


def test_bytes_that_are_no_graph():
    with pytest.raises(BackendError, match=r"cannot load graphs/policy\.onnx"):
        load_session("onnxruntime", b"not a graph", SPEC, BackendOptions())


@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_a_graph_that_is_not_what_the_bundle_declares(key: str):
    values = tiny_spec()["graphs"]["policy"]
    values[key][0]["shape"] = [1, 7]
    with pytest.raises(BackendError, match=f"the {key} of"):
        load_session("onnxruntime", constant_graph(STAY), Graph.model_validate(values), BackendOptions())


def test_inputs_that_do_not_fit_are_the_backends_error():
    session = load_session("onnxruntime", constant_graph(STAY), SPEC, BackendOptions())
    with pytest.raises(BackendError, match="failed"):
        session.run({"image.front": np.zeros((1, 2), np.uint8)})
