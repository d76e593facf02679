"""A small valid bundle, as values and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime.bundle.writing import write_bundle

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
FILES = {"graphs/policy.onnx": b"not a real graph" * 20, "golden/observations.npz": b"golden" * 7}


def units() -> list[str]:
    return ["rad"] * 5 + ["0_100_of_range"]


def make_spec() -> dict[str, Any]:
    """The JSON values of a valid bundle for the simulated arm, without `files`."""
    norm = {"source": "mean_std", "offset": [0.0] * 6, "scale": [1.0] * 6}
    tensor = {
        "image.front": ("uint8", [1, 96, 96, 3]),
        "state": ("float32", [1, 6]),
        "tokens": ("int64", [1, 8]),
    }
    elements = [{"name": n, "unit": u} for n, u in zip(JOINTS, units(), strict=True)]
    return {
        "name": "tiny",
        "family": "demo",
        "robot_type": "sim_arm",
        "program": {"kind": "single"},
        "graphs": {
            "policy": {
                "file": "graphs/policy.onnx",
                "precision": "fp32",
                "inputs": [{"name": k, "dtype": d, "shape": s} for k, (d, s) in tensor.items()],
                "outputs": [{"name": "actions", "dtype": "float32", "shape": [1, 16, 6]}],
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
        "state": {"elements": elements, "normalisation": norm},
        "action": {
            "space": "joint_delta",
            "elements": [{**e, "relative": e["name"] != "gripper"} for e in elements],
            "steps": 16,
            "dt_s": 0.05,
            "normalisation": [norm],
        },
        "task": {
            "default": None,
            "examples": ["touch the red cube"],
            "tokenizer": {
                "kind": "words",
                "words": {"touch": 1, "the": 2, "red": 3, "cube": 4},
                "length": 8,
                "pad": 0,
            },
        },
        "numerics": {"golden": "golden/observations.npz", "tolerance": 1e-3},
        "precision": {"requested": "fp32", "kept_fp32": {}, "bytes_per_dtype": {}, "nodes_per_dtype": {}},
        "parity": {
            "samples": 32,
            "reference": "torch",
            "cosine": 1.0,
            "relative_l2": 0.0,
            "max_abs": 0.0,
            "rows": [{"element": "gripper", "unit": "rad", "max_abs": 0.0, "mean_abs": 0.0, "limit": 1.0}],
        },
        "evidence": {"kind": "recorded", "text": "itself", "samples": 1},
        "provenance": {
            "checkpoint": "model.pt",
            "checkpoint_sha256": "0" * 64,
            "exporter": "holdfast 0.1.0",
            "created": "2026-11-20T00:00:00Z",
            "versions": {},
            "notes": "",
        },
    }


@pytest.fixture
def spec() -> dict[str, Any]:
    return make_spec()


@pytest.fixture
def files() -> dict[str, bytes]:
    return dict(FILES)


@pytest.fixture(scope="module")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle for the tests that put back whatever they change."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny.vla", make_spec(), FILES)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny.vla", make_spec(), FILES)
