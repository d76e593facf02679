"""The policy of the campaign: it keeps all joints moving all the time, inside the limits and clear of itself.

A closed curve through the start pose, as an ONNX graph of a dozen nodes: the phase on the curve is read off
two measured joints, and the chunk goes on from there. So there is no memory, any pose is drawn back onto the
curve, and a fault at any moment hits an arm in motion. The pictures are read and taken into the graph, but
change nothing. Needs `onnx` (extra `export`), not torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.golden import Sample, pack_golden
from ...runtime.bundle.writing import write_bundle

STEPS, DT_S = 16, 0.05
PERIOD_S = 0.9
"""Of the curve."""
LAG_S = 0.06
"""About how far the arm is behind its commands; the chunk begins so much further on the curve."""
PICTURE = 96


@dataclass(frozen=True, slots=True)
class Sweep:
    """start + side * sin(phase) + far * (1 - cos(phase)), in robot units."""

    name: str
    unit: str
    start: float
    side: float
    far: float


CURVE = (
    Sweep("shoulder_pan", "rad", 0.0, 0.28, 0.0),
    Sweep("shoulder_lift", "rad", -0.75, 0.0, -0.06),
    Sweep("elbow_flex", "rad", 0.75, 0.0, -0.08),
    Sweep("wrist_flex", "rad", 1.40, 0.0, -0.10),
    Sweep("wrist_roll", "rad", 0.0, 0.0, 0.28),
    Sweep("gripper", "0_100_of_range", 0.0, 0.0, 20.0),
)
"""In joint order. The phase is read off `shoulder_pan` and `wrist_roll`."""
_PAN, _ROLL = 0, 4
_TINY = 1e-9
INPUTS = {"image.front": ("uint8", [1, PICTURE, PICTURE, 3]), "state": ("float32", [1, len(CURVE)])}


def pose(phase: float) -> tuple[float, ...]:
    """The curve at a phase (rad), in robot units."""
    return tuple(s.start + s.side * math.sin(phase) + s.far * (1 - math.cos(phase)) for s in CURVE)


def chunk_at(state: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the graph computes for a state [joints]: [STEPS, joints]."""
    sine = float(state[_PAN]) / CURVE[_PAN].side
    cosine = 1.0 - float(state[_ROLL]) / CURVE[_ROLL].far
    phase = math.atan2(sine, cosine)
    rows = [pose(phase + (LAG_S + i * DT_S) * 2 * math.pi / PERIOD_S) for i in range(STEPS)]
    return np.array(rows, np.float32)


def sweep_graph() -> bytes:
    """The ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    ahead = (LAG_S + DT_S * np.arange(STEPS)) * 2 * math.pi / PERIOD_S
    constants = {
        "pan": np.array([_PAN]),
        "roll": np.array([_ROLL]),
        "side": np.float32(CURVE[_PAN].side),
        "far": np.float32(CURVE[_ROLL].far),
        "one": np.float32(1),
        "two": np.float32(2),
        "zero": np.float32(0),
        "tiny": np.float32(_TINY),
        "ahead": ahead.astype(np.float32)[:, None],
        "starts": np.array([s.start for s in CURVE], np.float32),
        "sides": np.array([s.side for s in CURVE], np.float32),
        "fars": np.array([s.far for s in CURVE], np.float32),
        "batch": np.array([0]),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["state", "pan"], ["pan_now"], axis=1),
        node("Gather", ["state", "roll"], ["roll_now"], axis=1),
        node("Div", ["pan_now", "side"], ["sine"]),
        node("Div", ["roll_now", "far"], ["roll_share"]),
        node("Sub", ["one", "roll_share"], ["cosine"]),
        # atan2 by half angles, each branch where its denominator is large.
        node("Mul", ["sine", "sine"], ["sine_2"]),
        node("Mul", ["cosine", "cosine"], ["cosine_2"]),
        node("Add", ["sine_2", "cosine_2"], ["square"]),
        node("Add", ["square", "tiny"], ["square_"]),
        node("Sqrt", ["square_"], ["radius"]),
        node("Add", ["radius", "cosine"], ["near_below"]),
        node("Div", ["sine", "near_below"], ["near"]),
        node("Sub", ["radius", "cosine"], ["far_above"]),
        node("Div", ["far_above", "sine"], ["away"]),
        node("GreaterOrEqual", ["cosine", "zero"], ["in_front"]),
        node("Where", ["in_front", "near", "away"], ["tangent"]),
        node("Atan", ["tangent"], ["half"]),
        node("Mul", ["half", "two"], ["phase"]),
        node("Add", ["phase", "ahead"], ["phases"]),
        node("Sin", ["phases"], ["sines"]),
        node("Cos", ["phases"], ["cosines"]),
        node("Sub", ["one", "cosines"], ["versines"]),
        node("Mul", ["sines", "sides"], ["by_side"]),
        node("Mul", ["versines", "fars"], ["by_far"]),
        node("Add", ["by_side", "by_far"], ["way"]),
        node("Add", ["way", "starts"], ["path"]),
        # The picture is read and changes nothing.
        node("Cast", ["image.front"], ["pixels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["pixels"], ["brightness"], keepdims=0),
        node("Mul", ["brightness", "zero"], ["nothing"]),
        node("Add", ["path", "nothing"], ["rows"]),
        node("Unsqueeze", ["rows", "batch"], ["actions"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sweep",
        [helper.make_tensor_value_info(name, kinds[dtype], shape) for name, (dtype, shape) in INPUTS.items()],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, STEPS, len(CURVE)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def write_sweep_bundle(folder: Path, robot_type: str = "sim_arm") -> Path:
    """Writes the bundle; returns its folder. Raises `BundleError`."""
    state = np.array([pose(1.0)], np.float32)
    inputs: dict[str, NDArray[Any]] = {
        "image.front": np.zeros(INPUTS["image.front"][1], np.uint8),
        "state": state,
    }
    files = {
        "graphs/policy.onnx": sweep_graph(),
        "golden/observations.npz": pack_golden([Sample(inputs, None, chunk_at(state[0])[None])]),
    }
    return write_bundle(folder, _spec(robot_type), files, replace=True)


def _spec(robot_type: str) -> dict[str, Any]:
    """The JSON values of the bundle, without `files`."""
    n = len(CURVE)
    identity = {"source": "identity", "offset": [0.0] * n, "scale": [1.0] * n}
    elements = [{"name": s.name, "unit": s.unit} for s in CURVE]
    picture = {
        "name": "front", "height": PICTURE, "width": PICTURE, "channels": "rgb", "layout": "hwc",
        "dtype": "uint8", "resize": "area", "aspect": "stretch", "scale": 1.0, "mean": [], "std": [],
    }  # fmt: skip
    row = {"element": "gripper", "unit": "rad", "max_abs": 0.0, "mean_abs": 0.0, "limit": 1.0}
    return {
        "name": "sweep",
        "family": "sweep",
        "robot_type": robot_type,
        "program": {"kind": "single"},
        "graphs": {
            "policy": {
                "file": "graphs/policy.onnx",
                "precision": "fp32",
                "inputs": [{"name": k, "dtype": d, "shape": s} for k, (d, s) in INPUTS.items()],
                "outputs": [{"name": "actions", "dtype": "float32", "shape": [1, STEPS, n]}],
            }
        },
        "cameras": [picture],
        "state": {"elements": elements, "normalisation": identity},
        "action": {
            "space": "joint_position",
            "elements": [{**e, "relative": False} for e in elements],
            "steps": STEPS,
            "dt_s": DT_S,
            "normalisation": [identity],
        },
        "task": {"default": "sweep", "examples": ["sweep"], "tokenizer": None},
        "numerics": {"golden": "golden/observations.npz", "tolerance": 1e-3},
        "precision": {"requested": "fp32", "kept_fp32": {}, "bytes_per_dtype": {}, "nodes_per_dtype": {}},
        "parity": {
            "samples": 1,
            "reference": "itself",
            "cosine": 1.0,
            "relative_l2": 0.0,
            "max_abs": 0.0,
            "rows": [row],
        },
        "evidence": {"kind": "recorded", "text": "itself", "samples": 1},
        "provenance": {
            "checkpoint": "none",
            "checkpoint_sha256": "0" * 64,
            "exporter": "vla-bench faults",
            "created": "2026-11-20T00:00:00Z",
            "versions": {},
            "notes": "a closed curve; made for the fault campaign",
        },
        "execution": None,
    }
