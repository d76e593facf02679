"""One inference, fed and read by the bundle's contract; the graphs are functions that keep their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.golden import Sample, pack_golden, thin
from holdfast.runtime.bundle.reading import LoadedBundle, load_bundle
from holdfast.runtime.bundle.schema import Bundle, Flow
from holdfast.runtime.bundle.writing import write_bundle
from holdfast.runtime.policy.action_space import ActionSpace
from holdfast.runtime.policy.errors import InstructionError, NonFiniteAction, ProgramError
from holdfast.runtime.policy.execution import Guidance
from holdfast.runtime.policy.program import Observation, Program, read_tokenizer
from holdfast.runtime.policy.programs.flow import golden_prefix, prefix_weights

from ..bundle.programs import diffusion_spec, flow_spec, validate
from ..tiny_bundle import LENGTH, STEPS, golden_sample, tiny_spec
from .tokenizer_file import tokenizer_json

POSITION = (0.1, -0.5, 0.6, 1.0, 0.2, 40.0)
IMAGES = {"front": np.full((48, 64, 3), 7, np.uint8)}
SEEN = [Observation(IMAGES, POSITION)]


class Graph:
    """Answers `value` for each of its outputs, and keeps what it was fed."""

    description = "a function"

    def __init__(self, value: float = 0.25, outputs: Mapping[str, Any] | None = None) -> None:
        self.value = value
        self.outputs = outputs or {"actions": (1, STEPS, 6)}
        self.fed: list[Mapping[str, NDArray[Any]]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.fed.append(inputs)
        return {name: np.full(shape, self.value, np.float32) for name, shape in self.outputs.items()}


def graphs_of(spec: Bundle, **values: float) -> dict[str, Graph]:
    """A function for every graph."""
    return {
        name: Graph(values.get(name, 0.0), {t.name: t.shape for t in graph.outputs})
        for name, graph in spec.graphs.items()
    }


def write(folder: Path, golden: bytes, **changes: Any) -> LoadedBundle:
    files = {"graphs/policy.onnx": b"no graph", "golden/observations.npz": golden}
    return load_bundle(write_bundle(folder / "tiny.vla", {**tiny_spec(), **changes}, files))


def samples(value: float = 0.25) -> bytes:
    return pack_golden([golden_sample(np.full((1, STEPS, 6), value, np.float32))])


def make(spec: Bundle, graphs: Any, clock: Any = None, tokenizer: bytes | None = None) -> Program:
    robot = load_robot("sim_arm")
    space = ActionSpace(spec, JointUnits(robot, find_calibration(robot)))
    sessions = {"policy": graphs} if isinstance(graphs, Graph) else graphs
    return Program(spec, sessions, space, tokenizer, *([clock] if clock else []))


@pytest.fixture
def bundle(tmp_path: Path) -> LoadedBundle:
    return write(tmp_path, samples())


def test_the_graph_gets_pictures_state_and_tokens_as_declared(bundle: LoadedBundle) -> None:
    graph = Graph()
    times = iter([10, 20, 50, 60])
    program = make(bundle.spec, graph, lambda: next(times))
    inference = program.infer(SEEN, program.instruction("touch the cube"))
    fed = graph.fed[0]
    assert {name: (str(array.dtype), array.shape) for name, array in fed.items()} == {
        "image.front": ("uint8", (1, 96, 96, 3)),
        "state": ("float32", (1, 6)),
        "tokens": ("int64", (1, LENGTH)),
    }
    assert (fed["image.front"] == 7).all()
    np.testing.assert_allclose(fed["state"][0], POSITION, atol=1e-6)
    assert fed["tokens"][0, :4].tolist() == [1, 2, 4, 0]
    assert (inference.start_ns, inference.end_ns, inference.session_run_ns) == (10, 60, 30)
    assert inference.targets.shape == (STEPS, 6)
    np.testing.assert_allclose(inference.targets[3, :5], np.array(POSITION[:5]) + 0.25, atol=1e-6)
    assert inference.targets[3, 5] == pytest.approx(0.25), "the gripper's action is absolute"


def test_a_policy_without_language_has_no_tokens(bundle: LoadedBundle) -> None:
    values = bundle.spec.model_dump()
    values["task"]["tokenizer"] = None
    del values["graphs"]["policy"]["inputs"][2]
    graph = Graph()
    program = make(Bundle.model_validate(values), graph)
    assert program.instruction("anything at all") is None
    program.infer(SEEN, None)
    assert set(graph.fed[0]) == {"image.front", "state"}


def test_a_policy_without_state_sees_pictures_alone(bundle: LoadedBundle) -> None:
    values = bundle.spec.model_dump()
    values["state"] = None
    del values["graphs"]["policy"]["inputs"][1]
    graph = Graph()
    program = make(Bundle.model_validate(values), graph)
    found = program.infer(SEEN, program.instruction("touch the cube"))
    assert set(graph.fed[0]) == {"image.front", "tokens"}
    assert found.targets[0, 0] == pytest.approx(POSITION[0] + 0.25), "actions are still relative to the arm"


def test_an_unknown_word_and_an_output_of_nan_are_refused(bundle: LoadedBundle) -> None:
    program = make(bundle.spec, Graph(float("nan")))
    with pytest.raises(InstructionError, match="zebra"):
        program.instruction("touch the zebra")
    with pytest.raises(NonFiniteAction):
        program.infer(SEEN, program.instruction("touch the cube"))


def test_a_history_of_moments_is_stacked_and_the_newest_is_acted_from() -> None:
    spec = validate(diffusion_spec())
    graphs = graphs_of(spec)
    program = make(spec, graphs)
    assert program.moments == 2
    older = Observation({"front": np.full((48, 64, 3), 3, np.uint8)}, (0.0, -0.4, 0.5, 0.9, 0.1, 30.0))
    noise = np.zeros((1, 16, 6), np.float32)
    found = program.infer([older, *SEEN], None, noise=noise)
    fed = graphs["cond"].fed[0]
    assert fed["image.front"][0, :, 0, 0, 0].tolist() == [3, 7]
    np.testing.assert_allclose(fed["state"][0], [older.position, POSITION], atol=1e-5)
    assert found.targets[0, 0] == pytest.approx(POSITION[0])
    with pytest.raises(ValueError, match="has 1 moments, expected 2"):
        program.infer(SEEN, None)


def test_the_chunk_under_way_reaches_the_policy_in_its_own_numbers() -> None:
    """The inverse of what its actions go through: relative to the arm, normalised step by step."""
    values = flow_spec(guided=True)
    values["action"]["normalisation"] = [
        {"source": "mean_std", "offset": [0.01 * step] * 6, "scale": [1.0 + step] * 6} for step in range(16)
    ]
    spec = validate(values)
    graphs = graphs_of(spec, denoise_step=0.3)
    program = make(spec, graphs)
    instruction = program.instruction("touch the cube")
    noise = np.random.default_rng(0).normal(size=(1, 20, 8)).astype(np.float32) * np.float32(0.01)
    targets = program.infer(SEEN, instruction, noise=noise).targets
    assert graphs["denoise_step_guided"].fed == []
    program.infer(SEEN, instruction, Guidance(3, targets[:10]), noise)
    fed = graphs["denoise_step_guided"].fed[0]
    said = noise[0, :, :6] - np.float32(0.3)
    # The gripper's targets end where its range ends.
    np.testing.assert_allclose(fed["prefix"][0, :10, :5], said[:10, :5], atol=1e-5)
    assert (fed["prefix"][0, 10:] == 0).all()
    assert (fed["prefix"][0, :, 6:] == 0).all()
    np.testing.assert_array_equal(fed["prefix_weight"], prefix_weights(3, 10, 20))
    for nothing in (None, Guidance(3, np.empty((0, 0)))):
        graphs["denoise_step_guided"].fed.clear()
        program.infer(SEEN, instruction, nothing, noise)
        assert graphs["denoise_step_guided"].fed == []


def test_noise_starts_anew_with_a_task_and_can_be_pinned() -> None:
    spec = validate(flow_spec())
    program = make(spec, graphs_of(spec))
    words = program.instruction("touch the cube")
    first = program.infer(SEEN, words).targets
    assert (program.infer(SEEN, words).targets != first).any()
    program.begin()
    np.testing.assert_array_equal(program.infer(SEEN, words).targets, first)
    pinned = program.infer(SEEN, words, noise=np.zeros((1, 20, 8), np.float32)).targets
    np.testing.assert_allclose(pinned[0, :5], POSITION[:5], atol=1e-6)


@pytest.mark.parametrize("value", [0.25, 0.2505])
def test_the_self_test_passes_within_the_tolerance(bundle: LoadedBundle, value: float) -> None:
    assert make(bundle.spec, Graph(value)).self_test(bundle) == pytest.approx(value - 0.25, abs=1e-6)


@pytest.mark.parametrize("value", [0.26, float("nan"), float("inf")])
def test_the_self_test_refuses_another_output(bundle: LoadedBundle, value: float) -> None:
    with pytest.raises(ProgramError, match="self-test"):
        make(bundle.spec, Graph(value)).self_test(bundle)


CONSTANTS = {"vision": 2.0, "prefill": 3.0, "denoise_step": 0.5, "denoise_step_guided": 0.25}


def flow_bundle(folder: Path) -> LoadedBundle:
    """A guided flow whose graphs answer constants, with golden samples of every graph."""
    values = flow_spec(guided=True)
    values["numerics"]["components"] = dict.fromkeys(["vision", "prefill", "denoise_step"], 1e-3)
    spec = validate(values)
    noise = np.random.default_rng(1).normal(size=(1, 20, 8)).astype(np.float32)
    inputs = {
        "image.front": np.zeros((1, 96, 96, 3), np.uint8),
        "state": np.zeros((1, 6), np.float32),
        "tokens": np.zeros((1, 8), np.int64),
        "token_mask": np.zeros((1, 8), np.int64),
    }
    # From 1 to 0 along a constant velocity.
    actions = noise[:, :16, :6] - np.float32(CONSTANTS["denoise_step"])
    guided = noise[:, :16, :6] - np.float32(CONSTANTS["denoise_step_guided"])
    outputs = {
        name: {t.name: thin(np.full(t.shape, CONSTANTS[name], np.float32)) for t in spec.graphs[name].outputs}
        for name in spec.numerics.components
    }
    files = {graph.file: b"no graph" for graph in spec.graphs.values()}
    files["golden/observations.npz"] = pack_golden([Sample(inputs, noise, actions, outputs, guided)])
    return load_bundle(write_bundle(folder / "flow.vla", values, files))


def test_the_self_test_replays_every_graph_the_noise_and_the_guidance(tmp_path: Path) -> None:
    bundle = flow_bundle(tmp_path)
    graphs = graphs_of(bundle.spec, **CONSTANTS)
    assert make(bundle.spec, graphs).self_test(bundle) == pytest.approx(0, abs=1e-6)
    fed = graphs["denoise_step_guided"].fed
    assert len(fed) == 5
    program = bundle.spec.program
    assert isinstance(program, Flow)
    left = golden_prefix(program, np.ones((1, 16, 6), np.float32))
    assert (left.values[0, :8, :6] == 1).all()
    assert (left.values[0, 8:] == 0).all()
    np.testing.assert_array_equal(fed[0]["prefix_weight"], left.weight)


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_the_self_test_names_the_graph_that_differs(tmp_path: Path, name: str) -> None:
    bundle = flow_bundle(tmp_path)
    graphs = graphs_of(bundle.spec, **{**CONSTANTS, name: CONSTANTS[name] * 1.01})
    said = "actions differ" if name == "denoise_step_guided" else f"here graph {name} gives"
    with pytest.raises(ProgramError, match=said):
        make(bundle.spec, graphs).self_test(bundle)


def test_samples_that_are_none_are_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path, b"no archive")
    with pytest.raises(BundleError, match="not valid"):
        make(bundle.spec, Graph()).self_test(bundle)


def test_warming_up_runs_whole_inferences_and_times_them(bundle: LoadedBundle) -> None:
    graph = Graph()
    now = iter(range(0, 10_000, 5))
    times = make(bundle.spec, graph, lambda: next(now)).warm_up(4)
    assert len(graph.fed) == 4
    assert times.tolist() == [[15, 5]] * 4
    assert graph.fed[0]["tokens"][0, 0] == 1, "the default task"


def test_warming_up_measures_the_guided_graph_which_takes_longer() -> None:
    spec = validate(flow_spec(guided=True))
    graphs = graphs_of(spec)
    make(spec, graphs).warm_up(1)
    assert len(graphs["denoise_step_guided"].fed) == 5
    assert graphs["denoise_step"].fed == []


BPE = {
    "kind": "bpe", "file": "tokenizer.json", "length": 8, "pad": 0, "pad_side": "right",
    "template": "{instruction}", "strip": True, "lower": False, "special_tokens": True,
}  # fmt: skip


def test_open_language_comes_with_its_tokenizer(tmp_path: Path) -> None:
    values = {**tiny_spec(), "task": {"default": None, "examples": ["touch it"], "tokenizer": BPE}}
    files = {
        "graphs/policy.onnx": b"no graph",
        "golden/observations.npz": samples(),
        "tokenizer.json": tokenizer_json(),
    }
    bundle = load_bundle(write_bundle(tmp_path / "tiny.vla", values, files))
    graph = Graph()
    program = make(bundle.spec, graph, tokenizer=read_tokenizer(bundle))
    program.infer(SEEN, program.instruction("touch it"))
    assert graph.fed[0]["tokens"][0, 0] == 1
    with pytest.raises(InstructionError, match="at most 8"):
        program.instruction("touch everything that you can find in here")
    with pytest.raises(ProgramError, match=r"tokenizer\.json of the tokenizer is missing"):
        make(bundle.spec, graph)
