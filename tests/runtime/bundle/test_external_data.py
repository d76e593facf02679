"""Which files a model reads its weights from, wherever in it the tensor stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.runtime.bundle.external_data import external_files

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def tensor(location: str | None = None) -> TensorProto:
    made = numpy_helper.from_array(np.ones(3, np.float32), "w")
    if location is not None:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("offset", "0"), ("location", location), ("length", "12")):
            entry = made.external_data.add()
            entry.key, entry.value = key, value
    return made


def graph(*initializers: TensorProto, nodes: tuple[Any, ...] = ()) -> Any:
    return helper.make_graph(list(nodes), "g", [], [], list(initializers))


def model(of: Any) -> bytes:
    return helper.make_model(of, doc_string="location ../x").SerializeToString()


def test_a_model_of_one_file_reads_no_other() -> None:
    assert external_files(model(graph(tensor(), tensor()))) == set()
    assert external_files(b"") == set()


def test_initialisers() -> None:
    assert external_files(model(graph(tensor("a.data"), tensor(), tensor("ü"), tensor("a.data")))) == {
        "a.data",
        "ü",
    }


def test_constants_branches_and_functions() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=tensor("in.constant"))
    inner = helper.make_node("If", ["c"], ["d"], then_branch=graph(tensor("in.branch"), nodes=(constant,)),
                             else_branch=graph())  # fmt: skip
    assert external_files(model(graph(nodes=(inner,)))) == {"in.constant", "in.branch"}
    made = onnx.ModelProto.FromString(model(graph()))
    made.functions.append(helper.make_function("d", "f", [], ["c"], [constant], []))
    assert external_files(made.SerializeToString()) == {"in.constant"}


def test_sparse_initialisers() -> None:
    made = onnx.ModelProto.FromString(model(graph()))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor("in.sparse"), tensor(), [3]))
    assert external_files(made.SerializeToString()) == {"in.sparse"}


def test_a_model_that_is_nested_too_deeply_is_none() -> None:
    inside = graph(tensor("deep"))
    for _ in range(25):
        inside = graph(nodes=(helper.make_node("If", ["c"], ["d"], then_branch=inside, else_branch=graph()),))
    with pytest.raises(ValueError, match="deeply"):
        external_files(model(inside))


GOOD = model(
    graph(tensor("a.data"), nodes=(helper.make_node("Constant", [], ["c"], value=tensor("b.data")),))
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_damaged_models_are_read_or_are_a_value_error(at: int, byte: int, cut: int) -> None:
    damaged = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    for data in (damaged, damaged[:cut]):
        try:
            found = external_files(data)
        except ValueError:
            continue
        assert all(isinstance(name, str) for name in found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes(data: bytes) -> None:
    try:
        found = external_files(data)
    except ValueError:
        found = set()
    assert not found, "sixty bytes of noise name no file"
