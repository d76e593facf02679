"""Policies of several graphs: exported, compared part by part and as a whole, replayed by the run path."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.export import graphs, pipeline
from holdfast.export.errors import ExportError, ParityError, SourceError
from holdfast.export.graphs import OnnxFile
from holdfast.export.parity import make_inputs, to_feeds
from holdfast.export.pipeline import ParityFailed, Request, check_policy, export
from holdfast.export.reference import Keeper, reference, sample_noise
from holdfast.export.sources.types import Component, Policy, ReadOptions
from holdfast.runtime.backends.registry import load_sessions
from holdfast.runtime.backends.types import BackendOptions
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.golden import read_golden
from holdfast.runtime.bundle.reading import load_bundle
from holdfast.runtime.bundle.schema import Normalisation
from holdfast.runtime.policy.action_space import ActionSpace
from holdfast.runtime.policy.program import Program

from .kinds import KINDS, diffusion, flow, tokens

pytestmark = pytest.mark.export


@cache
def traced(kind: str, name: str) -> OnnxFile:
    """A graph of a policy; tracing takes seconds."""
    policy = KINDS[kind]()
    feed = reference(policy, to_feeds(policy)[:1]).runs[name][0].inputs
    return graphs.export_graph(policy.components[name], feed, Path(), name)


Give = Callable[..., Request]


@pytest.fixture
def give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Give:
    """A request for a policy of some kind; `broken`: a graph with an exporter's bug."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "weights").write_bytes(b"weights")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def prepare(
        kind: str, broken: str | None = None, policy: Policy | None = None, **changes: Any
    ) -> Request:
        class Source:
            MEANING = "policies of a test"
            OPTIONS = frozenset({"dataset"})

            def recognise(self, path: Path) -> str:
                return "the test says so"

            def read(self, path: Path, options: object) -> Policy:
                return policy or KINDS[kind]()

        def exported(component: Component, feed: object, folder: Path, name: str) -> OnnxFile:
            file = traced(kind, name)
            return damaged(file) if name == broken else file

        monkeypatch.setattr(pipeline, "find_source", lambda path: ("kinds", Source(), "the test says so"))
        monkeypatch.setattr(pipeline, "export_graph", exported)
        return Request(str(checkpoint), **{"measure_latency": False, **changes})

    return prepare


def damaged(file: OnnxFile) -> OnnxFile:
    """Its largest weight changed by a percent."""
    model = onnx.ModelProto.FromString(file.model)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    largest = max(floats, key=lambda tensor: math.prod(tensor.dims))
    changed = numpy_helper.to_array(largest) * np.float32(1.01)
    largest.CopyFrom(numpy_helper.from_array(changed, largest.name))
    return OnnxFile(model.SerializeToString())


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_several_graphs_is_the_checkpoint(give: Give, kind: str) -> None:
    """The run path, on the shipped graphs, gives torch's own actions; the self-test replays them."""
    policy = KINDS[kind]()
    said: list[str] = []
    result = export(give(kind), say=said.append)
    assert said == ["recognised as kinds because the test says so"]
    bundle = load_bundle(result.bundle)
    spec = bundle.spec
    assert set(spec.graphs) == set(policy.components) == set(spec.numerics.components)
    assert {part.graph for part in spec.parity.components} == set(policy.components)
    assert all(part.relative_l2 < 1e-5 for part in spec.parity.components)
    assert spec.evidence.kind == "synthetic"
    robot = load_robot("sim_arm")
    space = ActionSpace(spec, JointUnits(robot, find_calibration(robot)))
    program = Program(spec, load_sessions("onnxruntime", bundle, BackendOptions()), space)
    assert program.self_test(bundle) <= spec.numerics.tolerance
    truth = reference(policy, to_feeds(policy))
    instruction = program.instruction("touch the cube")
    feed = to_feeds(policy)[0]
    found = program._runner.run(feed, sample_noise(policy, 0))
    np.testing.assert_allclose(found, truth.actions[:1], atol=1e-5)
    assert program.warm_up(1).shape == (1, 2)
    assert (instruction is None) == (kind == "diffusion")


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_fp16_of_several_graphs(give: Give, kind: str) -> None:
    result = export(give(kind, precision="fp16", max_error_rad=0.5))
    spec = load_bundle(result.bundle).spec
    assert {graph.precision for graph in spec.graphs.values()} == {"fp16"}
    assert {name.split("/")[0] for name in spec.precision.kept_fp32} <= set(spec.graphs)
    assert spec.precision.bytes_per_dtype["float16"] > spec.precision.bytes_per_dtype["float32"]


@pytest.mark.parametrize("graph", ["vision", "prefill", "denoise_step", "denoise_step_guided"])
def test_a_bug_in_one_graph_is_named_and_leaves_nothing(give: Give, graph: str) -> None:
    with pytest.raises(ParityFailed) as caught:
        export(give("flow", broken=graph))
    assert f"graph {graph}: relative L2" in str(caught.value)
    assert list(Path.cwd().iterdir()) == []


def test_weights_too_large_for_one_file_are_beside_it(give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    request = give("flow")
    monkeypatch.setattr(graphs, "MAX_BYTES", 20_000)

    def exported(component: Component, feed: Any, folder: Path, name: str) -> OnnxFile:
        """Really written for one graph; the others are small."""
        return (
            graphs.export_graph(component, feed, folder, name) if name == "vision" else traced("flow", name)
        )

    monkeypatch.setattr(pipeline, "export_graph", exported)
    result = export(request)
    assert [path.name for path in Path.cwd().iterdir()] == [result.bundle.name]
    bundle = load_bundle(result.bundle)
    vision = bundle.spec.graphs["vision"]
    assert vision.data == ["graphs/vision.onnx.data"]
    assert bundle.spec.graphs["denoise_step"].data == []
    assert (result.bundle / vision.data[0]).stat().st_size > 50_000
    assert (result.bundle / vision.file).stat().st_size < 20_000
    assert str(Path.home()).encode() not in (result.bundle / vision.file).read_bytes()
    sessions = load_sessions("onnxruntime", bundle, BackendOptions())
    robot = load_robot("sim_arm")
    space = ActionSpace(bundle.spec, JointUnits(robot, find_calibration(robot)))
    assert Program(bundle.spec, sessions, space).self_test(bundle) < 1e-5
    data = result.bundle / vision.data[0]
    raw = bytearray(data.read_bytes())
    raw[1000] ^= 1
    data.write_bytes(raw)
    with pytest.raises(BundleError, match="has changed since"):
        load_sessions("onnxruntime", bundle, BackendOptions())


def test_values_that_are_not_finite_in_a_part_are_an_error(give: Give) -> None:
    policy = tokens()
    weight = next(policy.components["prefill"].module.parameters())
    with torch.no_grad():
        weight[0, 0] = float("nan")
    with pytest.raises((ParityError, ValueError), match="not finite"):
        export(give("tokens", policy=policy))


def test_a_family_that_does_not_fit_its_program_is_refused_before_the_work() -> None:
    policy = diffusion()
    parts = dict(policy.components)
    step = parts["denoise_step"]
    parts["denoise_step"] = replace(step, inputs=step.inputs[:-1])
    check_policy(replace(policy, components=parts))
    parts["denoise_step"] = replace(step, outputs=())
    with pytest.raises(ExportError, match="must give prediction"):
        check_policy(replace(policy, components=parts))
    with pytest.raises(ExportError, match="cond is missing"):
        check_policy(replace(policy, components={"denoise_step": step}))


def test_graphs_that_never_run_are_refused(give: Give) -> None:
    """One value is one token: nothing is ever decoded further."""
    policy = tokens()
    one = policy.action.model_copy(
        update={
            "elements": policy.action.elements[:1],
            "normalisation": [Normalisation(source="identity", offset=[0.0], scale=[1.0])],
        }
    )
    program = policy.program.model_copy(update={"count": 1})
    changed = replace(policy, action=one, program=program)
    with pytest.raises(ExportError, match="decode_step that its program never runs"):
        export(give("tokens", policy=changed))


def test_options_that_the_family_would_ignore_are_refused(give: Give) -> None:
    options = ReadOptions(golden=Path("g.npz"), unnorm_key="bridge", dataset=Path("d"))
    with pytest.raises(SourceError, match="has no use for --golden, --unnorm-key; leave"):
        export(give("flow", options=options))


def test_fewer_golden_samples_where_replaying_them_takes_long(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "GOLDEN_S", 1e-9)
    assert len(read_golden(load_bundle(export(give("flow")).bundle))) == 1


def test_a_default_task_that_is_new_becomes_an_example_of_open_language_only(
    give: Give,
) -> None:
    spec = load_bundle(export(give("flow", task="touch the ball")).bundle).spec
    assert spec.task.default == "touch the ball"
    assert spec.task.examples == ["touch the cube"]
    assert make_inputs(flow()).instruction("touch the ball") is not None


def test_runs_are_kept_while_there_is_room_and_shared_arrays_count_once() -> None:
    keeper = Keeper(room=1000)
    cache = np.zeros(100, np.float32)
    keeper("prefill", {}, {"cache": cache})
    for _ in range(3):
        keeper("denoise_step", {"cache": cache}, {"velocity": np.zeros(10, np.float32)})
    assert len(keeper.runs["denoise_step"]) == 3
    keeper.sample = 1
    keeper("prefill", {}, {"cache": np.zeros(200, np.float32)})
    assert len(keeper.runs["prefill"]) == 1
    assert [run.sample for run in keeper.runs["denoise_step"]] == [0, 0, 0]
