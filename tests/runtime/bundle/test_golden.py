"""Golden samples survive the round trip; anything else is refused, and nothing is unpickled."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.golden import pack_golden, read_golden, unpack_golden
from holdfast.runtime.bundle.reading import load_bundle
from holdfast.runtime.bundle.schema import Graph
from holdfast.runtime.bundle.writing import write_bundle

GRAPH = Graph.model_validate(
    {
        "file": "graphs/policy.onnx",
        "precision": "fp32",
        "inputs": [
            {"name": "image", "dtype": "uint8", "shape": [1, 96, 96, 3]},
            {"name": "state", "dtype": "float32", "shape": [1, 6]},
            {"name": "tokens", "dtype": "int64", "shape": [1, 8]},
        ],
        "outputs": [{"name": "actions", "dtype": "float32", "shape": [1, 16, 6]}],
    }
)


def samples(count: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    inputs = {t.name: np.zeros([count, *t.shape[1:]], t.dtype) for t in GRAPH.inputs}
    outputs = {t.name: np.ones([count, *t.shape[1:]], t.dtype) for t in GRAPH.outputs}
    return inputs, outputs


def test_round_trip() -> None:
    golden = unpack_golden(pack_golden(*samples()), GRAPH)
    assert golden.count == 3
    inputs, outputs = golden.sample(2)
    assert inputs["image"].shape == (1, 96, 96, 3)
    assert outputs["actions"].shape == (1, 16, 6)


def test_other_shapes_types_counts_and_names_are_refused() -> None:
    inputs, outputs = samples()
    with pytest.raises(ValueError, match="no samples of state"):
        unpack_golden(pack_golden({k: v for k, v in inputs.items() if k != "state"}, outputs), GRAPH)
    for wrong in (
        {"state": np.zeros([3, 7], np.float32)},
        {"state": np.zeros([3, 6], np.float64)},
        {"state": np.zeros([2, 6], np.float32)},
        {"more": np.zeros([3, 6], np.float32)},
    ):
        with pytest.raises(ValueError, match=r"state|samples"):
            unpack_golden(pack_golden(inputs | wrong, outputs), GRAPH)


def test_pickles_and_garbage_in_a_bundle_are_refused(
    tmp_path: Path, spec: dict[str, Any], files: Any
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, np.array([object()], dtype=object))
    for name, data in (("pickle", buffer.getvalue()), ("garbage", b"PK\x03\x04no"), ("empty", b"")):
        bundle = write_bundle(tmp_path / f"{name}.vla", spec, files | {"golden/observations.npz": data})
        with pytest.raises(BundleError, match=r"observations.npz is not valid"):
            read_golden(load_bundle(bundle))


@pytest.mark.parametrize("shape", ["(100000000000000, 6)", f"(1{'0' * 30}, 6)", "(3, 6)", "()"])
def test_a_header_that_claims_more_than_there_is_is_refused(
    tmp_path: Path, spec: dict[str, Any], files: Any, shape: str
) -> None:
    inputs, outputs = samples()
    del inputs["state"]
    buffer = io.BytesIO(pack_golden(inputs, outputs))
    raw = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("state.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw)
    bundle = write_bundle(tmp_path / "huge.vla", spec, files | {"golden/observations.npz": buffer.getvalue()})
    with pytest.raises(BundleError, match=r"observations.npz is not valid: state"):
        read_golden(load_bundle(bundle))


def test_read_from_a_bundle(tmp_path: Path, spec: dict[str, Any], files: Any) -> None:
    data = pack_golden(*samples())
    bundle = write_bundle(tmp_path / "a.vla", spec, files | {"golden/observations.npz": data})
    assert read_golden(load_bundle(bundle)).count == 3
