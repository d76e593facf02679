"""Small valid bundles of the kinds that have several graphs, as values."""

from __future__ import annotations

from typing import Any

from holdfast.runtime.bundle.schema import Bundle

from .conftest import make_spec

HORIZON, WIDTH, LENGTH = 20, 8, 12


def tensor(name: str, dtype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def graph(name: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"file": f"graphs/{name}.onnx", "precision": "fp32", "inputs": inputs, "outputs": outputs}


IMAGE = tensor("image.front", "uint8", 1, 96, 96, 3)
STATE = tensor("state", "float32", 1, 6)
TOKENS = tensor("tokens", "int64", 1, 8)
MASK = tensor("token_mask", "int64", 1, 8)
PICTURE = tensor("image_embeddings", "float32", 1, 4, 16)
CACHE = [tensor("key.0", "float32", 1, 4, 5, 3), tensor("value.0", "float32", 1, 4, 5, 3)]
X = tensor("x", "float32", 1, HORIZON, WIDTH)
TIME = tensor("time", "float32", 1)


def flow_spec(guided: bool = False) -> dict[str, Any]:
    """vision, prefill, denoise_step and, where asked for, denoise_step_guided."""
    spec = make_spec()
    spec["program"] = {"kind": "flow", "steps": 5, "width": WIDTH, "horizon": HORIZON}
    velocity = [tensor("velocity", "float32", 1, HORIZON, WIDTH)]
    step = [X, TIME, STATE, *CACHE]
    spec["graphs"] = {
        "vision": graph("vision", [IMAGE], [PICTURE]),
        "prefill": graph("prefill", [PICTURE, TOKENS, MASK], CACHE),
        "denoise_step": graph("denoise_step", step, velocity),
    }
    if guided:
        prefix = [
            tensor("prefix", "float32", 1, HORIZON, WIDTH),
            tensor("prefix_weight", "float32", 1, HORIZON, 1),
        ]
        spec["graphs"]["denoise_step_guided"] = graph("guided", [*step, *prefix], velocity)
    return spec


def diffusion_spec(**scheduler: Any) -> dict[str, Any]:
    """cond on two moments, denoise_step; ten DDIM steps."""
    spec = make_spec()
    spec["task"]["tokenizer"] = None
    spec["history"] = {"steps": 2, "dt_s": 0.1}
    spec["action"]["steps"] = 8
    spec["action"]["normalisation"] = spec["action"]["normalisation"][:1]
    spec["program"] = {
        "kind": "diffusion",
        "horizon": 16,
        "first": 1,
        "scheduler": {
            "kind": "ddim",
            "train_steps": 100,
            "inference_steps": 10,
            "beta_start": 1e-4,
            "beta_end": 0.02,
            "beta_schedule": "squaredcos_cap_v2",
            "prediction": "epsilon",
            "clip_sample": True,
            **scheduler,
        },
    }
    images, state = tensor("image.front", "uint8", 1, 2, 96, 96, 3), tensor("state", "float32", 1, 2, 6)
    condition = tensor("condition", "float32", 1, 32)
    x = tensor("x", "float32", 1, 16, 6)
    spec["graphs"] = {
        "cond": graph("cond", [images, state], [condition]),
        "denoise_step": graph(
            "denoise_step",
            [x, tensor("step", "int64", 1), condition],
            [tensor("prediction", "float32", 1, 16, 6)],
        ),
    }
    return spec


def tokens_spec() -> dict[str, Any]:
    """One action of six elements, 16 ids from 100 down, a cache of 32 positions."""
    spec = make_spec()
    spec["state"] = None
    spec["action"]["steps"] = 1
    spec["program"] = {
        "kind": "tokens",
        "count": 6,
        "cache_length": 32,
        "image_positions": 4,
        "logits": 20,
        "first_logit": 85,
        "vocabulary": {
            "bins": 16, "low": -1.0, "high": 1.0, "encoding": {"kind": "reversed_ids", "last": 100},
        },
    }  # fmt: skip
    cache = tensor("key", "float32", 1, 2, 32, 3)
    logits = tensor("logits", "float32", 1, 20)
    spec["graphs"] = {
        "vision": graph("vision", [IMAGE], [PICTURE]),
        "prefill": graph("prefill", [PICTURE, TOKENS, MASK], [logits, cache]),
        "decode_step": graph(
            "decode_step",
            [tensor("token", "int64", 1, 1), tensor("position", "int64", 1), cache],
            [logits, {**cache, "name": "next.key"}],
        ),
    }
    return spec


def make_pose(spec: dict[str, Any], space: str = "ee_delta") -> None:
    """Makes the actions those of the tool."""
    names = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    units = ["m"] * 3 + ["rad"] * 3 + ["normalised_gripper"]
    spec["action"] |= {
        "space": space,
        "elements": [
            {"name": n, "unit": u, "relative": space == "ee_delta" and n != "gripper"}
            for n, u in zip(names, units, strict=True)
        ],
        "normalisation": [{"source": "quantiles", "offset": [0.0] * 7, "scale": [1.0] * 7}],
        "pose": {"frame": "base", "rotation": "rpy"},
    }
    for graph in spec["graphs"].values():
        for made in graph["outputs"]:
            if made["name"] == "actions":
                made["shape"][-1] = 7


def validate(spec: dict[str, Any], *more: str) -> Bundle:
    """The bundle as it would be read, with empty files."""
    named = [path for graph in spec["graphs"].values() for path in (graph["file"], *graph.get("data", []))]
    listing = [
        {"path": path, "bytes": 0, "sha256": "0" * 64}
        for path in dict.fromkeys([*named, "golden/observations.npz", *more])
    ]
    return Bundle.model_validate({"format": "holdfast.bundle", "version": 2, **spec, "files": listing})
