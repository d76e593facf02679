"""Bundles of several graphs that hardly move the arm, made with `onnx` alone: every contract is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from holdfast.runtime.backends.registry import load_session
from holdfast.runtime.backends.types import BackendOptions
from holdfast.runtime.bundle.golden import Sample, pack_golden, thin
from holdfast.runtime.bundle.schema import GUIDED, Flow, Graph, observed
from holdfast.runtime.bundle.writing import write_bundle
from holdfast.runtime.policy.programs.flow import golden_prefix
from holdfast.runtime.policy.programs.registry import make_runner

from .bundle.programs import diffusion_spec, flow_spec, tokens_spec, validate
from .policy.tokenizer_file import tokenizer_json

BPE = {
    "kind": "bpe", "file": "tokenizer.json", "length": 24, "pad": 0, "pad_side": "right",
    "template": "{instruction}", "strip": True, "lower": True, "special_tokens": True, "ending": "\n",
}  # fmt: skip


def _mean(helper: Any, source: str, number: str) -> list[Any]:
    """The mean of an input, whatever its shape, as a scalar."""
    cast = helper.make_node("Cast", [source], [f"{number}.cast"], to=1)
    return [cast, helper.make_node("ReduceMean", [f"{number}.cast"], [number], keepdims=0)]


def _graph(graph: Graph, follows: str | None, zero: float = 0.0) -> bytes:
    """A model: every output is `zero` times the means of all inputs, plus the input `follows`, if any."""
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    nodes, sums = [], []
    for index, tensor in enumerate(graph.inputs):
        nodes += _mean(helper, tensor.name, f"mean{index}")
        sums.append(f"mean{index}")
    nodes.append(helper.make_node("Sum", sums, ["sum"]))
    nodes.append(helper.make_node("Mul", ["sum", "zero"], ["nothing"]))
    constants: dict[str, Any] = {"zero": np.float32(zero)}
    for index, tensor in enumerate(graph.outputs):
        constants[f"shape{index}"] = np.zeros(tensor.shape, np.float32)
        base = follows if follows is not None else f"shape{index}"
        nodes.append(helper.make_node("Add", [base, "nothing"], [tensor.name]))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(t.name, kinds[t.dtype], t.shape) for t in graph.inputs],
            [helper.make_tensor_value_info(t.name, kinds[t.dtype], t.shape) for t in graph.outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return model.SerializeToString()


def _prepare(kind: str) -> dict[str, Any]:
    spec = {"flow": lambda: flow_spec(guided=True), "diffusion": diffusion_spec, "tokens": tokens_spec}[
        kind
    ]()
    # Relative, and a thousandth of a radian at most: the noise of a policy that knows nothing.
    small = {"source": "mean_std", "offset": [0.0] * 5 + [50.0], "scale": [1e-3] * 5 + [1.0]}
    spec["action"]["normalisation"] = [small]
    if kind != "diffusion":
        spec["task"] = {"default": "touch the red cube", "examples": ["touch it"], "tokenizer": BPE}
        for graph in spec["graphs"].values():
            for tensor in graph["inputs"]:
                if tensor["name"] in ("tokens", "token_mask"):
                    tensor["shape"] = [1, BPE["length"]]
    else:
        spec["task"]["default"] = "anything"
    if kind == "tokens":
        spec["program"]["cache_length"] = 64
        for graph in spec["graphs"].values():
            for tensor in graph["inputs"] + graph["outputs"]:
                if tensor["name"] in ("key", "next.key"):
                    tensor["shape"] = [1, 2, 64, 3]
    spec["numerics"]["components"] = dict.fromkeys(spec["graphs"], 1e-3)
    return spec


def write_program_bundle(folder: Path, kind: str) -> Path:
    """A bundle of kind flow (guided), diffusion (with a history) or tokens."""
    values = _prepare(kind)
    more = [] if kind == "diffusion" else ["tokenizer.json"]
    spec = validate(values, *more)
    follows = {"denoise_step": "x", GUIDED: "x"}
    models = {name: _graph(graph, follows.get(name)) for name, graph in spec.graphs.items()}
    sessions = {
        name: load_session("onnxruntime", model, spec.graphs[name], BackendOptions())
        for name, model in models.items()
    }
    first: dict[str, Any] = {}
    runner = make_runner(
        spec.program,
        spec.graphs,
        sessions,
        spec.action,
        lambda name, inputs, outputs: first.setdefault(name, outputs),
    )
    tensors = observed(spec.cameras, spec.history, spec.state, spec.task)
    inputs = {name: np.ones(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    shape = spec.program.noise_shape(spec.action)
    noise = None if shape is None else np.random.default_rng(0).normal(size=shape).astype(np.float32)
    actions, guided = runner.run(inputs, noise), None
    if isinstance(spec.program, Flow):
        guided = runner.run(inputs, noise, golden_prefix(spec.program, actions))
    outputs = {graph: {n: thin(v) for n, v in made.items()} for graph, made in first.items()}
    files: dict[str, bytes | Path] = {spec.graphs[name].file: model for name, model in models.items()}
    files["golden/observations.npz"] = pack_golden([Sample(inputs, noise, actions, outputs, guided)])
    if more:
        files["tokenizer.json"] = tokenizer_json()
    return write_bundle(folder, values, files)
