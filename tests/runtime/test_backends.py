"""The backend registry and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from holdfast.runtime.backends.registry import load_session, load_sessions
from holdfast.runtime.backends.types import BackendError, BackendOptions
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.golden import pack_golden
from holdfast.runtime.bundle.reading import LoadedBundle, load_bundle
from holdfast.runtime.bundle.schema import Graph
from holdfast.runtime.bundle.writing import write_bundle

from .tiny_bundle import STEPS, constant_graph, golden_inputs, golden_sample, tiny_spec

pytest.importorskip("onnx")

SPEC = Graph.model_validate(tiny_spec()["graphs"]["policy"])
STAY = np.zeros((1, STEPS, 6), np.float32)


def test_a_graph_runs_and_says_on_what():
    session = load_session("onnxruntime", constant_graph(STAY + 3), SPEC, BackendOptions(threads=1))
    assert session.run(golden_inputs())["actions"] == pytest.approx(STAY + 3)
    assert "CPUExecutionProvider" in session.description


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(BackendError, match="this version has: onnxruntime"):
        load_session("tensorrt", b"", SPEC, BackendOptions())


def test_bytes_that_are_no_graph():
    with pytest.raises(BackendError, match=r"cannot load graphs/policy\.onnx"):
        load_session("onnxruntime", b"not a graph", SPEC, BackendOptions())


@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_a_graph_that_is_not_what_the_bundle_declares(key: str):
    values = tiny_spec()["graphs"]["policy"]
    values[key][0]["shape"] = [1, 7]
    with pytest.raises(BackendError, match=f"the {key} of"):
        load_session("onnxruntime", constant_graph(STAY), Graph.model_validate(values), BackendOptions())


def test_inputs_that_do_not_fit_are_the_backends_error():
    session = load_session("onnxruntime", constant_graph(STAY), SPEC, BackendOptions())
    with pytest.raises(BackendError, match="failed"):
        session.run({"image.front": np.zeros((1, 2), np.uint8)})


def with_data(folder: Path, *, declared: bool = True, location: str = "policy.data") -> LoadedBundle:
    """A bundle whose graph has its constants in a second file."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(constant_graph(STAY + 3))
    raw = b""
    for tensor in model.graph.initializer:
        if tensor.name == "value":
            raw = numpy_helper.to_array(tensor).tobytes()
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", str(len(raw)))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
    spec = tiny_spec()
    files: dict[str, bytes | Path] = {
        "graphs/policy.onnx": model.SerializeToString(),
        "golden/observations.npz": pack_golden([golden_sample(STAY + 3)]),
    }
    if declared:
        spec["graphs"]["policy"]["data"] = ["graphs/policy.data"]
        files["graphs/policy.data"] = raw
    return load_bundle(write_bundle(folder / "data.vla", spec, files))


def test_weights_of_a_second_file_are_loaded_by_path(tmp_path: Path):
    sessions = load_sessions("onnxruntime", with_data(tmp_path), BackendOptions())
    assert sessions["policy"].run(golden_inputs())["actions"] == pytest.approx(STAY + 3)


@pytest.mark.parametrize("location", ["policy.data", "../../secret", "/etc/passwd"])
def test_weights_of_a_file_that_nobody_verified_are_not_run(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
):
    """A backend that is given bytes would look in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.data").write_bytes(np.ones((1, STEPS, 6), np.float32).tobytes())
    for declared in {False, location != "policy.data"}:
        folder = tmp_path / f"{declared}"
        folder.mkdir()
        bundle = with_data(folder, declared=declared, location=location)
        with pytest.raises(BackendError, match="what was not verified is not run"):
            load_sessions("onnxruntime", bundle, BackendOptions())


def test_weights_that_are_exchanged_after_verification_are_not_run(tmp_path: Path):
    bundle = with_data(tmp_path)
    data = bundle.path / "graphs" / "policy.data"
    good = data.read_bytes()
    data.unlink()
    data.write_bytes(good)
    with pytest.raises(BundleError, match="has changed since"):
        load_sessions("onnxruntime", bundle, BackendOptions())


def test_bytes_that_are_no_graph_are_refused_before_the_backend_sees_them(tmp_path: Path):
    files = {"graphs/policy.onnx": b"not a graph", "golden/observations.npz": b"x"}
    bundle = load_bundle(write_bundle(tmp_path / "no.vla", tiny_spec(), files))
    with pytest.raises(BackendError, match=r"policy\.onnx is no ONNX graph"):
        load_sessions("onnxruntime", bundle, BackendOptions())
