"""A bundle whose policy is a constant: every inference returns the same actions. Needs `onnx` to be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.runtime.bundle.golden import Sample, pack_golden
from holdfast.runtime.bundle.writing import write_bundle

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
STEPS, DT_S, LENGTH = 16, 0.05, 8
INPUTS = {
    "image.front": ("uint8", [1, 96, 96, 3]),
    "state": ("float32", [1, 6]),
    "tokens": ("int64", [1, LENGTH]),
}
WORDS = {"touch": 1, "the": 2, "red": 3, "cube": 4}


def constant_graph(actions: NDArray[np.float32], nan_word: int | None = None) -> bytes:
    """An ONNX model with the demo policy's inputs that always returns `actions` [1, STEPS, joints].

    `nan_word`: a token from which on all actions are NaN, so that start-up checks pass and a task fails.
    """
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    constants = {
        "value": actions.astype(np.float32),
        "limit": np.float32((nan_word or 1e6) - 0.5),
        "zero": np.float32(0),
    }
    nodes = [
        helper.make_node("Cast", ["tokens"], ["words"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["words"], ["largest"], keepdims=0),
        helper.make_node("Sub", ["limit", "largest"], ["below"]),
        helper.make_node("Sqrt", ["below"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["nothing"]),
        helper.make_node("Add", ["value", "nothing"], ["actions"]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info(name, kinds[dtype], shape) for name, (dtype, shape) in INPUTS.items()],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, list(actions.shape))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def tiny_spec(
    robot_type: str = "sim_arm",
    default_task: str | None = "touch the red cube",
    steps: int = STEPS,
    strategy: str | None = None,
    evidence: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON values of the bundle, without `files`."""
    identity = {"source": "identity", "offset": [0.0] * 6, "scale": [1.0] * 6}
    units = ["rad"] * 5 + ["0_100_of_range"]
    elements = [{"name": name, "unit": unit} for name, unit in zip(JOINTS, units, strict=True)]
    return {
        "name": "tiny",
        "family": "constant",
        "robot_type": robot_type,
        "program": {"kind": "single"},
        "graphs": {
            "policy": {
                "file": "graphs/policy.onnx",
                "precision": "fp32",
                "inputs": [{"name": k, "dtype": d, "shape": s} for k, (d, s) in INPUTS.items()],
                "outputs": [{"name": "actions", "dtype": "float32", "shape": [1, steps, 6]}],
            }
        },
        "cameras": [
            {
                "name": "front",
                "height": 96,
                "width": 96,
                "channels": "rgb",
                "layout": "hwc",
                "dtype": "uint8",
                "resize": "area",
                "aspect": "stretch",
                "scale": 1.0,
                "mean": [],
                "std": [],
            }
        ],
        "state": {"elements": elements, "normalisation": identity},
        "action": {
            "space": "joint_delta",
            "elements": [{**e, "relative": e["name"] != "gripper"} for e in elements],
            "steps": steps,
            "dt_s": DT_S,
            "normalisation": [identity],
        },
        "task": {
            "default": default_task,
            "examples": ["touch the red cube"],
            "tokenizer": {"kind": "words", "words": WORDS, "length": LENGTH, "pad": 0},
        },
        "numerics": {"golden": "golden/observations.npz", "tolerance": 1e-3},
        "precision": {"requested": "fp32", "kept_fp32": {}, "bytes_per_dtype": {}, "nodes_per_dtype": {}},
        "parity": {
            "samples": 1,
            "reference": "itself",
            "cosine": 1.0,
            "relative_l2": 0.0,
            "max_abs": 0.0,
            "rows": [{"element": "gripper", "unit": "rad", "max_abs": 0.0, "mean_abs": 0.0, "limit": 1.0}],
        },
        "evidence": evidence or {"kind": "recorded", "text": "itself", "samples": 1},
        "provenance": {
            "checkpoint": "none",
            "checkpoint_sha256": "0" * 64,
            "exporter": "test",
            "created": "2026-11-20T00:00:00Z",
            "versions": {},
            "notes": "",
        },
        "execution": None if strategy is None else {"strategy": strategy},
    }


def golden_inputs() -> dict[str, NDArray[Any]]:
    return {name: np.zeros(shape, dtype) for name, (dtype, shape) in INPUTS.items()}


def golden_sample(actions: NDArray[np.float32]) -> Sample:
    """`actions`: [1, steps, 6]."""
    return Sample({**golden_inputs(), "token_mask": np.zeros((1, LENGTH), np.int64)}, None, actions)


def write_tiny_bundle(
    folder: Path,
    actions: NDArray[np.float32] | None = None,
    *,
    golden: NDArray[np.float32] | None = None,
    nan_word: int | None = None,
    **spec: Any,
) -> Path:
    """`actions`: [steps, 6]; default: STEPS times stay. `golden`: what the golden file claims; default: the
    truth."""
    value = (np.zeros((STEPS, 6), np.float32) if actions is None else actions)[None]
    files = {
        "graphs/policy.onnx": constant_graph(value, nan_word),
        "golden/observations.npz": pack_golden([golden_sample(value if golden is None else golden[None])]),
    }
    return write_bundle(folder, tiny_spec(steps=len(value[0]), **spec), files)
