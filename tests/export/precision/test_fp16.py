"""fp16 means a safe mixed graph: nothing overflows, nothing is clamped, and the interface stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from holdfast.export.errors import PrecisionError
from holdfast.export.graphs import OnnxFile, quiet
from holdfast.export.precision.audit import check_constants
from holdfast.export.precision.fp16 import nodes_to_keep, to_mixed_fp16
from holdfast.export.precision.graph_view import GraphView, prepare
from holdfast.export.precision.ranges import probe_ranges
from holdfast.export.precision.registry import convert
from holdfast.export.sessions import OnnxGraph

pytestmark = pytest.mark.export
BIG = 4.5e4
"""A massive activation as real vision transformers have them: inside fp16, but its sums are not."""


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, Any], size: int = 8, out: int = 8) -> bytes:
    """A graph from `x` [1, size] to `y` [1, out], float32."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, out])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def weights(*shape: int, scale: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)


def xs(count: int = 4, size: int = 8) -> list[dict[str, Any]]:
    return [{"x": weights(1, size, scale=1.0) + np.float32(i)} for i in range(count)]


def kept(data: bytes, feeds: list[dict[str, Any]]) -> dict[str, str]:
    model = prepare(data)
    return nodes_to_keep(GraphView(model), probe_ranges(model, feeds))


def test_a_policy_keeps_its_interface_and_its_answers(graph: bytes, feeds: list[dict[str, Any]]) -> None:
    mixed = convert("fp16", OnnxFile(graph), feeds)
    full, half = OnnxGraph(graph), mixed.file.session()
    before, after = (onnx.ModelProto.FromString(data).graph for data in (graph, mixed.file.model))
    assert list(before.input) == list(after.input)
    assert list(before.output) == list(after.output)
    a = np.concatenate([full.run(feed)["actions"] for feed in feeds])
    b = np.concatenate([half.run(feed)["actions"] for feed in feeds])
    assert 0 < np.abs(a - b).max() < 5e-3
    share = mixed.report.bytes_per_dtype
    assert share["float16"] > 20 * share["float32"]
    reasons = set(mixed.report.kept_fp32.values())
    assert {"pre-processing of an integer input", "its values are summed"} <= reasons
    assert {"Softmax is computed in fp32", "LayerNormalization is computed in fp32"} <= reasons


class Massive(torch.nn.Module):
    """Two linear layers whose biases inject a massive activation into one channel each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(12))
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(32) for _ in range(12))
        for index in (1, 2):
            bias = self.layers[index].bias
            assert isinstance(bias, torch.nn.Parameter)
            bias.data[3] = BIG

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x))
        return self.norms[0](x)


def test_massive_activations_survive_where_a_cast_gives_nan() -> None:
    module = Massive().eval()
    x = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    with quiet():
        program = torch.onnx.export(
            module, (x,), dynamo=True, input_names=["x"], output_names=["y"], opset_version=18, verbose=False
        )
    assert program is not None
    feeds = [{"x": x.numpy()}, {"x": (x * 2).numpy()}]
    with torch.inference_mode():
        expected = module(x).numpy()
        naive = Massive().half()(x.half()).float().numpy()
    mixed, reasons = to_mixed_fp16(program.model_proto.SerializeToString(), feeds)
    found = OnnxGraph(mixed.SerializeToString()).run(feeds[0])["y"]
    assert not np.isfinite(naive).all()
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
    assert any(reason.startswith(("reaches 4.5", "reaches 9")) for reason in reasons.values())
    biases = [numpy_helper.to_array(tensor) for tensor in mixed.graph.initializer]
    assert max(float(np.abs(bias).max()) for bias in biases) == BIG


def test_large_sums_inside_a_product_are_kept() -> None:
    data = model_of([node("MatMul", "x w", "y")], {"w": np.full([8, 8], 1e3, np.float32)})
    assert "partial sums" in kept(data, [{"x": np.array([[9, -9] * 4], np.float32)}])["y"]


def test_an_expectation_over_a_constant_grid_is_kept_but_attention_is_not() -> None:
    nodes = [node("Softmax", "x", "p"), node("MatMul", "p grid", "y")]
    assert "expectation" in kept(model_of(nodes, {"grid": weights(8, 8)}), xs())["y"]
    nodes = [
        node("Softmax", "x", "p"),
        node("MatMul", "x w", "v"),
        node("Reshape", "v shape", "v2"),
        node("MatMul", "p v2", "y"),
    ]
    data = model_of(nodes, {"w": weights(8, 64), "shape": np.array([8, 8])})
    assert set(kept(data, xs())) == {"p"}


@pytest.mark.parametrize(("value", "said"), [(1e5, "beyond the range"), (1e-9, "too small")])
def test_constants_that_fp16_cannot_hold(value: float, said: str) -> None:
    data = model_of([node("Add", "x c", "a"), node("MatMul", "a w", "y")], {
        "c": np.array([value], np.float32), "w": weights(8, 8, scale=1e-6) + weights(8, 8, scale=1e-3)
    })  # fmt: skip
    assert said in kept(data, xs())["a"]


def test_an_output_that_is_also_read_inside_keeps_its_name() -> None:
    nodes = [node("MatMul", "x w", "y"), node("Relu", "y", "z")]
    data = model_of(nodes, {"w": weights(8, 8)})
    mixed, _ = to_mixed_fp16(data, xs())
    assert [output.name for output in mixed.graph.output] == ["y"]
    assert mixed.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_constant_read_in_both_precisions() -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Softmax", "a", "b"),
        node("Add", "b c", "d"),
        node("ReduceSum", "d", "s", keepdims=1),
        node("Add", "a c", "e"),
        node("Mul", "e s", "y"),
    ]
    mixed, _ = to_mixed_fp16(model_of(nodes, {"w": weights(8, 8), "c": weights(8)}), xs())
    found = OnnxGraph(mixed.SerializeToString()).run(xs()[0])["y"]
    full = OnnxGraph(model_of(nodes, {"w": weights(8, 8), "c": weights(8)})).run(xs()[0])["y"]
    assert np.allclose(found, full, atol=5e-2)


def test_fp16_in_name_only_is_refused() -> None:
    nodes = [node("Exp", "x", "a"), node("Mul", "a w", "b"), node("ReduceSum", "b", "s", keepdims=1),
             node("Add", "s c", "y")]  # fmt: skip
    with pytest.raises(PrecisionError, match="in name only"):
        to_mixed_fp16(model_of(nodes, {"w": weights(64, 8), "c": weights(8)}), xs())


def test_overflow_that_remains_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.export.precision import fp16

    data = model_of([node("MatMul", "x w", "y")], {"w": np.full([8, 8], 3e4, np.float32)})
    monkeypatch.setattr(fp16, "RULES", ())
    with pytest.raises(PrecisionError, match="overflows in fp16"):
        to_mixed_fp16(data, [{"x": np.full([1, 8], 3, np.float32)}])


def test_a_graph_that_is_not_finite_itself_is_refused() -> None:
    data = model_of([node("Log", "x", "y")], {})
    with pytest.raises(PrecisionError, match="itself is not finite"):
        to_mixed_fp16(data, [{"x": np.full([1, 8], -1, np.float32)}])


def test_clamped_constants_are_found() -> None:
    before = onnx.ModelProto.FromString(
        model_of([node("Add", "x c", "y")], {"c": np.full(8, BIG, np.float32)})
    )
    after = onnx.ModelProto()
    after.CopyFrom(before)
    after.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(8, 1e4, np.float16), "c"))
    with pytest.raises(PrecisionError, match="changed by more than rounding"):
        check_constants(before, after, {})
    after.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(8, BIG, np.float16), "c"))
    check_constants(before, after, {})
    after.graph.initializer[0].name = "d"
    with pytest.raises(PrecisionError, match="no counterpart"):
        check_constants(before, after, {})


def test_sub_graphs_are_refused() -> None:
    inner = helper.make_graph([node("Relu", "x", "z")], "i", [], [helper.make_empty_tensor_value_info("z")])
    branch = helper.make_node("If", ["c"], ["y"], name="if", then_branch=inner, else_branch=inner)
    with pytest.raises(PrecisionError, match="sub-graphs"):
        prepare(model_of([branch], {"c": np.array(True)}))


def test_a_conversion_that_clamps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.export.precision import fp16

    rewrite = fp16._rewrite

    def clamping(model: onnx.ModelProto, kept: Any) -> tuple[onnx.ModelProto, dict[str, str]]:
        mixed, origin = rewrite(model, kept)
        for tensor in mixed.graph.initializer:
            clamped = numpy_helper.to_array(tensor).clip(-0.05, 0.05)
            tensor.CopyFrom(numpy_helper.from_array(clamped, tensor.name))
        return mixed, origin

    monkeypatch.setattr(fp16, "_rewrite", clamping)
    with pytest.raises(PrecisionError, match="changed by more than rounding"):
        to_mixed_fp16(model_of([node("MatMul", "x w", "y")], {"w": weights(8, 8)}), xs())
