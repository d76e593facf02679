"""A bundle whose inference takes longer: the same policy, and beside it work that is really computed.

The added work is an ONNX `Loop` of matrix products in the policy's own graph, so it takes a core, its caches
and the backend's time as a larger network would; a policy that slept instead would leave the core to control.
How many products each inference makes is drawn by the graph itself (`RandomUniform` with a seed: the same
sequence in every session). The actions are those of the policy, bit for bit. Needs `onnx` (extra `export`).
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from ..runtime.bundle.errors import BundleError
from ..runtime.bundle.golden import read_golden
from ..runtime.bundle.reading import load_bundle
from ..runtime.bundle.schema import Single
from ..runtime.bundle.writing import write_bundle

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

SIDE = 192
"""Of the square matrices: 0.15 MB each, one product takes about 0.1 ms."""
PROBE = 400
"""Products by which the time of one is measured."""
PROBE_RUNS = 9
PREFIX = "padding/"


def pad_bundle(
    source: Path, target: Path, low_ms: float, high_ms: float, *, seed: int = 0, replace: bool = False
) -> Path:
    """Writes `target`: the bundle `source` with inferences of `low_ms` to `high_ms`, uniformly drawn.

    The times are CPU times of one `session.run` on one thread of this machine, as calibrated now; equal
    bounds give a constant. Raises `BundleError` for bounds that are none, where the policy alone takes longer
    than `low_ms`, and for bundles that are padded already or cannot be read or written.
    """
    import onnx

    bundle = load_bundle(source)
    spec = bundle.spec
    if not isinstance(spec.program, Single):
        raise BundleError(f"bundle {source} is of kind {spec.program.kind}; only one graph can be padded")
    path, output = spec.graphs["policy"].file, "actions"
    model = onnx.load_model_from_string(bundle.read(path))
    if any(tensor.name.startswith(PREFIX) for tensor in model.graph.initializer):
        raise BundleError(f"bundle {source} is padded already; pad the one that it was made from")
    taken = {tensor.name for tensor in spec.graphs["policy"].inputs}
    inputs = {name: array for name, array in read_golden(bundle)[0].inputs.items() if name in taken}
    fewest, most = products_for(model, output, inputs, low_ms, high_ms)
    graph = padded_graph(model, output, fewest, most, seed)
    content = spec.model_dump(mode="json", exclude={"format", "version", "files"})
    content["name"] = f"{spec.name[:57]}-padded"
    content["provenance"]["notes"] = (
        f"{spec.provenance.notes} Padded to {low_ms:g} .. {high_ms:g} ms of CPU time: {fewest} to "
        f"{most} products of {SIDE} x {SIDE} matrices in each inference."
    ).strip()
    files = {entry.path: bundle.read(entry.path) for entry in spec.files}
    return write_bundle(target, content, {**files, path: graph}, replace=replace)


def products_for(
    model: ModelProto, output: str, inputs: dict[str, Any], low_ms: float, high_ms: float
) -> tuple[int, int]:
    """How many products make an inference of `low_ms`, and of `high_ms`, of CPU time on this machine.

    Raises `BundleError` for bounds that are none, and where the model alone takes longer than `low_ms`.
    """
    if not 0 < low_ms <= high_ms:
        raise BundleError(f"inference times of {low_ms:g} to {high_ms:g} ms: expected 0 < low <= high")
    fixed_ms = _cpu_ms(model.SerializeToString(), inputs)
    if fixed_ms > low_ms:
        raise BundleError(
            f"the policy alone takes {fixed_ms:.1f} ms here, more than the {low_ms:g} ms asked for"
        )
    product_ms = (_cpu_ms(padded_graph(model, output, PROBE, PROBE, 0), inputs) - fixed_ms) / PROBE
    return round((low_ms - fixed_ms) / product_ms), round((high_ms - fixed_ms) / product_ms)


def padded_graph(model: ModelProto, output: str, fewest: int, most: int, seed: int) -> bytes:
    """`model` with `fewest` to `most` matrix products beside what it computes, uniformly drawn per run.

    The product of all is multiplied by zero and added to `output`, so that no optimiser may leave it out. The
    matrix is orthogonal: however often it is applied, the numbers stay finite.
    """
    from onnx import ModelProto, TensorProto, helper, numpy_helper

    padded = ModelProto()
    padded.CopyFrom(model)
    graph = padded.graph
    _rename(graph, output, PREFIX + "unpadded")
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((SIDE, SIDE)))
    names = ("matrix", "yes", "zero", "drawn", "floor", "count", "power", "one", "nothing")
    name = {key: PREFIX + key for key in names}
    constants = {"matrix": matrix.astype(np.float32), "yes": np.array(True), "zero": np.float32(0)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name[k]) for k, v in constants.items())
    square = [SIDE, SIDE]
    body = helper.make_graph(
        [
            helper.make_node("Identity", [PREFIX + "go"], [PREFIX + "go_on"]),
            helper.make_node("MatMul", [PREFIX + "before", name["matrix"]], [PREFIX + "after"]),
        ],
        PREFIX + "body",
        [
            helper.make_tensor_value_info(PREFIX + "index", TensorProto.INT64, []),
            helper.make_tensor_value_info(PREFIX + "go", TensorProto.BOOL, []),
            helper.make_tensor_value_info(PREFIX + "before", TensorProto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info(PREFIX + "go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info(PREFIX + "after", TensorProto.FLOAT, square),
        ],
    )
    span = {"low": float(fewest), "high": float(most + 1), "seed": float(seed), "shape": [1]}
    graph.node.extend(
        [
            helper.make_node("RandomUniform", [], [name["drawn"]], dtype=TensorProto.FLOAT, **span),
            helper.make_node("Floor", [name["drawn"]], [name["floor"]]),
            helper.make_node("Cast", [name["floor"]], [name["count"]], to=TensorProto.INT64),
            helper.make_node(
                "Loop", [name["count"], name["yes"], name["matrix"]], [name["power"]], body=body
            ),
            helper.make_node("ReduceMax", [name["power"]], [name["one"]], keepdims=0),
            helper.make_node("Mul", [name["one"], name["zero"]], [name["nothing"]]),
            helper.make_node("Add", [PREFIX + "unpadded", name["nothing"]], [output]),
        ]
    )
    return padded.SerializeToString()


def _rename(graph: GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _cpu_ms(graph: bytes, inputs: dict[str, Any]) -> float:
    """Median over some runs; CPU time, because another program on the core must not make the load smaller."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(PROBE_RUNS + 1):
        start = time.thread_time()
        session.run(None, inputs)
        times.append((time.thread_time() - start) * 1e3)
    # The first run also allocates.
    return statistics.median(times[1:])
