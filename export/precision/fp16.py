"""fp16 as a safe mixed graph: what may overflow or needs the digits stays in fp32, and is listed with why.

A network cast to fp16 as a whole gives NaN, or silently other actions, as soon as an activation leaves the
range of fp16 (65504) or a sum needs more than 11 bits. So each node is judged by the table `RULES` on ranges
probed with recorded observations; the others are converted, casts are put between the two worlds, and the
interface of the graph keeps its types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import PrecisionError
from ..sessions import Feed
from .audit import check_constants, check_share
from .graph_view import ELEMENTWISE, FLOAT, FLOAT16, MOVES, GraphView, prepare, retype
from .ranges import probe_ranges

FP16_MAX = 65504.0
HEADROOM = 4.0
"""Recorded observations are not all observations: a value may get this much larger than what was seen."""
_ROUNDING = 2.0**-11

COMPUTES = frozenset(
    {"AveragePool", "Conv", "ConvTranspose", "Elu", "Erf", "Gelu", "Gemm", "GlobalAveragePool", "HardSigmoid",
     "HardSwish", "LeakyRelu", "MatMul", "MaxPool", "PRelu", "Relu", "Sigmoid", "Tanh"}
)  # fmt: skip
CONVERTIBLE = COMPUTES | MOVES | ELEMENTWISE
"""Everything else (soft-max, norms, exponentials, roots, sums, sines, resizes) stays in fp32."""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
SUMS = frozenset({"ReduceSum", "ReduceMean", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "CumSum"})
SOFTMAX = frozenset({"Softmax", "LogSoftmax"})


@dataclass(frozen=True)
class _Case:
    """What a rule may look at."""

    view: GraphView
    ranges: Mapping[str, float]
    raw: frozenset[str]
    kept: dict[str, str] = field(default_factory=dict)


def to_mixed_fp16(data: bytes, feeds: Sequence[Feed]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The mixed graph and the nodes left in fp32 (node -> reason).

    `feeds`: graph inputs of recorded observations. Raises `PrecisionError` when the fp32 graph is not finite
    on them, when an overflow remains, when a constant changed by more than rounding, or when most of the
    weights had to stay in fp32.
    """
    model = prepare(data)
    ranges = probe_ranges(model, feeds)
    broken = [name for name, largest in ranges.items() if not np.isfinite(largest)]
    if broken:
        raise PrecisionError(f"the fp32 graph itself is not finite at {broken[0]} on a recorded observation")
    kept = nodes_to_keep(GraphView(model), ranges)
    mixed, origin = _rewrite(model, kept)
    check_constants(model, mixed, origin)
    check_share(mixed)
    _check_overflow(mixed, feeds)
    return mixed, kept


def nodes_to_keep(view: GraphView, ranges: Mapping[str, float]) -> dict[str, str]:
    """Nodes that stay in fp32 -> why."""
    case = _Case(view, ranges, _raw_values(view))
    # Backwards: whether a node feeds only sums is known once its readers have been judged.
    for node in reversed(view.nodes):
        if not view.floats([*node.input, *node.output]):
            continue
        reason = next((found for rule in RULES if (found := rule(node, case))), None)
        if reason:
            case.kept[node.name] = reason
    _join_islands(case)
    return dict(sorted(case.kept.items()))


def _not_convertible(node: onnx.NodeProto, case: _Case) -> str | None:
    if node.op_type == "Cast":
        return "a cast of the model's own"
    return None if node.op_type in CONVERTIBLE else f"{node.op_type} is computed in fp32"


def _pre_processing(node: onnx.NodeProto, case: _Case) -> str | None:
    return "pre-processing of an integer input" if case.raw.intersection(node.output) else None


def _feeds_sums(node: onnx.NodeProto, case: _Case) -> str | None:
    """Expectations (coordinates weighted by a soft-max) lose their digits in the products already."""
    readers = case.view.readers(node)
    inner = node.op_type in MOVES | ELEMENTWISE and bool(readers)
    if inner and all(r.op_type in SUMS or case.kept.get(r.name) == _SUM_REASON for r in readers):
        return _SUM_REASON
    return None


_SUM_REASON = "its values are summed"


def _expectation(node: onnx.NodeProto, case: _Case) -> str | None:
    """A soft-max times a constant is an expectation over a grid; attention (times values) is not."""
    if node.op_type not in PRODUCTS or not any(value in case.view.constants for value in node.input):
        return None
    return "expectation under a soft-max" if _from_softmax(node, case.view) else None


def _from_softmax(node: onnx.NodeProto, view: GraphView) -> bool:
    for value in view.computed_inputs(node):
        maker = view.producer.get(value)
        while maker is not None and maker.op_type in MOVES:
            maker = view.producer.get(maker.input[0])
        if maker is not None and maker.op_type in SOFTMAX:
            return True
    return False


def _large_value(node: onnx.NodeProto, case: _Case) -> str | None:
    values = case.view.floats([*node.input, *node.output])
    largest = max((case.ranges.get(value, 0.0) for value in values), default=0.0)
    return f"reaches {largest:.3g} on a recorded observation" if largest * HEADROOM > FP16_MAX else None


def _large_sum(node: onnx.NodeProto, case: _Case) -> str | None:
    """Partial sums inside a product: bounded by the largest input times the weights' absolute sums."""
    if node.op_type not in PRODUCTS:
        return None
    constants = case.view.constants
    inputs = max((case.ranges.get(value, 0.0) for value in node.input), default=0.0)
    weights = [constants[value] for value in node.input if value in constants and constants[value].ndim > 1]
    bound = max((inputs * _absolute_sum(node, weight) for weight in weights), default=0.0)
    return f"its partial sums may reach {bound:.3g}" if bound > FP16_MAX else None


def _absolute_sum(node: onnx.NodeProto, weight: np.ndarray) -> float:
    """Largest sum of |weight| over the inputs of one output."""
    if node.op_type == "Conv":
        axes = tuple(range(1, weight.ndim))
    elif node.op_type == "ConvTranspose":
        axes = (0, *range(2, weight.ndim))
    else:
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        axes = (weight.ndim - 1,) if transposed else (weight.ndim - 2,)
    return float(np.abs(weight.astype(np.float64)).sum(axes).max(initial=0.0))


def _constant_beyond(node: onnx.NodeProto, case: _Case) -> str | None:
    for value in case.view.floats(node.input):
        wide = case.view.constants.get(value)
        if wide is None:
            continue
        wide = wide.astype(np.float64)
        if not (np.abs(wide) <= FP16_MAX).all():
            return f"the constant {value} is beyond the range of fp16"
        change = np.linalg.norm(wide.astype(np.float16).astype(np.float64) - wide)
        if change > _ROUNDING * np.linalg.norm(wide):
            return f"the constant {value} is too small for fp16"
    return None


RULES: tuple[Callable[[onnx.NodeProto, _Case], str | None], ...] = (
    _not_convertible,
    _pre_processing,
    _expectation,
    _feeds_sums,
    _constant_beyond,
    _large_value,
    _large_sum,
)


def _raw_values(view: GraphView) -> frozenset[str]:
    """Float values made of integers and constants alone, before any weight has been applied to them."""
    raw: set[str] = set()
    for node in view.nodes:
        computed = view.computed_inputs(node)
        whole = node.op_type in ELEMENTWISE | (MOVES - {"Gather"}) | {"Cast"}
        if whole and computed and all(v in raw or view.types[v] not in (FLOAT, FLOAT16) for v in computed):
            raw.update(view.floats(node.output))
    return frozenset(raw)


def _join_islands(case: _Case) -> None:
    """Keeps nodes that only move numbers from fp32 to fp32: converting them would buy two casts."""
    view, changed = case.view, True
    while changed:
        changed = False
        for node in view.nodes:
            if (
                node.name in case.kept
                or node.op_type not in MOVES | ELEMENTWISE
                or not view.floats(node.output)
            ):
                continue
            makers = [view.producer.get(value) for value in view.floats(view.computed_inputs(node))]
            around = [*(m for m in makers if m is not None), *view.readers(node)]
            if all(other.name in case.kept for other in around):
                case.kept[node.name] = "lies between nodes in fp32"
                changed = True


def _rewrite(model: onnx.ModelProto, kept: Mapping[str, str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph with all other nodes in fp16, and where each new constant came from."""
    view = GraphView(model)
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)
    graph = mixed.graph
    del graph.node[:]
    taken = set(view.types)
    is_half: set[str] = set()
    made: dict[tuple[str, int], str] = {}
    origin: dict[str, str] = {}

    def in_type(value: str, wanted: int) -> str:
        """The name under which `value` is to be had in `wanted`, made by a cast or a new constant."""
        if (value in is_half) == (wanted == FLOAT16):
            return value
        if (value, wanted) not in made:
            name = _fresh(f"{value}.{'fp16' if wanted == FLOAT16 else 'fp32'}", taken)
            made[value, wanted] = name
            if value in view.constants:
                half = view.constants[value].astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(half, name))
                origin[name] = value
            else:
                graph.node.append(
                    onnx.helper.make_node("Cast", [value], [name], name=f"cast.{name}", to=wanted)
                )
        return made[value, wanted]

    for node in view.nodes:
        wanted = FLOAT if node.name in kept else FLOAT16
        floats = set(view.floats(node.input))
        # First the casts that it needs (appended to the graph by `in_type`), then the node itself.
        inputs = [in_type(value, wanted) if value in floats else value for value in node.input]
        new = graph.node.add()
        new.CopyFrom(node)
        new.input[:] = inputs
        if wanted == FLOAT16:
            is_half.update(view.floats(node.output))
    _restore_outputs(graph, view, is_half, taken)
    used = {value for node in graph.node for value in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return retype(mixed), origin


def _restore_outputs(graph: onnx.GraphProto, view: GraphView, is_half: set[str], taken: set[str]) -> None:
    """Graph outputs keep their names and float32: what was made in fp16 is renamed and cast back."""
    for output in view.graph_outputs & is_half:
        inner = _fresh(f"{output}.fp16", taken)
        for node in graph.node:
            for values in (node.input, node.output):
                for index, value in enumerate(values):
                    if value == output:
                        values[index] = inner
        graph.node.append(onnx.helper.make_node("Cast", [inner], [output], name=f"cast.{output}", to=FLOAT))


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _check_overflow(mixed: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
    view = GraphView(mixed)
    for name, largest in probe_ranges(mixed, feeds).items():
        if not np.isfinite(largest) or (view.types[name] == FLOAT16 and largest >= FP16_MAX):
            raise PrecisionError(
                f"{name} overflows in fp16 on a recorded observation, although its range in fp32 fits; "
                "export with --fp32"
            )
