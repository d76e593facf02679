"""From checkpoint to bundle: all of it, or nothing and a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from holdfast.export import pipeline
from holdfast.export.errors import ExportError, ParityError, PrecisionError, SourceError
from holdfast.export.graphs import OnnxFile
from holdfast.export.pipeline import STAGES, ParityFailed, Request, export
from holdfast.export.sessions import OnnxGraph
from holdfast.export.sources.registry import locate
from holdfast.export.sources.types import ReadOptions
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.golden import read_golden
from holdfast.runtime.bundle.reading import load_bundle

pytestmark = pytest.mark.export
Save = Callable[..., Path]
Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def checkpoint(
    save: Save, graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Change | None], str]:
    """A checkpoint in an otherwise empty folder. The (slow) tracing is replaced by the traced graph, changed
    where the test says so: an exporter's bug."""
    (tmp_path / "work").mkdir()
    path = save()
    monkeypatch.chdir(tmp_path / "work")

    def prepare(change: Change | None = None) -> str:
        model = onnx.ModelProto.FromString(graph)
        if change:
            change(model)
        monkeypatch.setattr(pipeline, "export_graph", lambda *_: OnnxFile(model.SerializeToString()))
        return str(path)

    return prepare


def request(checkpoint: str, **changes: Any) -> Request:
    return Request(checkpoint, **{"measure_latency": False, **changes})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_comes_out_and_replays_its_golden_samples(checkpoint: Any, precision: Any) -> None:
    stages: list[str] = []
    result = export(request(checkpoint(), precision=precision, task="touch the blue cube"), stages.append)
    assert stages == list(STAGES)
    loaded = load_bundle(result.bundle)
    spec = loaded.spec
    assert result.bundle == Path("model.vla")
    assert spec.task.default == "touch the blue cube"
    assert spec.graphs["policy"].precision == spec.precision.requested == precision
    assert spec.parity.samples == 32
    assert spec.evidence.kind == "recorded"
    assert [part.graph for part in spec.parity.components] == ["policy"]
    data = loaded.graph("policy")
    assert isinstance(data, bytes)
    session = OnnxGraph(data)
    names = [tensor.name for tensor in spec.graphs["policy"].inputs]
    samples = read_golden(loaded)
    assert 7 <= len(samples) <= 8
    for sample in samples:
        found = session.run({name: sample.inputs[name] for name in names})["actions"]
        assert np.abs(found - sample.actions).max() <= spec.numerics.tolerance
        assert (sample.outputs["policy"]["actions"] == sample.actions.reshape(-1)).all()
    assert str(Path.home()).encode() not in data
    assert b"keypoint_vla.py" not in data


def scale_weight(name: str, factor: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name.endswith(name):
                tensor.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name)
                )
                return
        raise AssertionError(f"no constant {name}")

    return change


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "picture"
    for node in model.graph.node:
        node.input[:] = ["picture" if value == "image.front" else value for value in node.input]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (scale_weight("outward.weight", 1.01), ParityFailed, "shoulder_pan: error"),
        (scale_weight("outward.weight", float("nan")), ParityError, "not finite"),
        (rename_input, ExportError, "inputs are"),
    ],
)
def test_a_graph_that_is_not_the_checkpoint_leaves_nothing(
    checkpoint: Any, change: Change, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        export(request(checkpoint(change)))
    assert list(Path.cwd().iterdir()) == []


def test_unsafe_fp16_leaves_nothing(checkpoint: Any) -> None:
    with pytest.raises(PrecisionError, match="not finite"):
        export(request(checkpoint(scale_weight("outward.weight", float("inf"))), precision="fp16"))
    assert list(Path.cwd().iterdir()) == []


def test_an_existing_bundle_needs_force_and_survives_a_failure(checkpoint: Any) -> None:
    first = load_bundle(export(request(checkpoint())).bundle)
    with pytest.raises(BundleError, match="--force"):
        export(request(checkpoint()))
    with pytest.raises(ParityFailed):
        export(request(checkpoint(scale_weight("outward.weight", 1.01)), replace=True))
    assert load_bundle(first.path).sha256 == first.sha256
    export(request(checkpoint(), replace=True, task="touch the blue cube"))
    assert load_bundle(first.path).sha256 != first.sha256
    assert [path.name for path in Path.cwd().iterdir()] == ["model.vla"]


def test_names_and_folders(checkpoint: Any) -> None:
    assert export(request(checkpoint(), name="kitchen")).bundle == Path("kitchen.vla")
    result = export(request(checkpoint(), output=Path("other place")))
    assert (result.bundle, result.name) == (Path("other place"), "other-place")
    assert pipeline._target(Request("demo"), locate("demo")) == (Path("demo.vla"), "demo")
    for changes, said in (
        ({"name": "../up"}, "no name for a bundle"),
        ({"task": "touch the zebra"}, "'zebra'"),
        ({"options": ReadOptions(observations=Path("absent.npz"))}, "cannot be read"),
    ):
        with pytest.raises(SourceError, match=said):
            export(request(checkpoint(), **changes))
