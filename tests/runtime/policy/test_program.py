"""One inference, fed and read by the bundle's contract; the graph is a function that keeps its inputs."""

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
from holdfast.runtime.bundle.golden import pack_golden
from holdfast.runtime.bundle.reading import LoadedBundle, load_bundle
from holdfast.runtime.bundle.schema import Bundle
from holdfast.runtime.bundle.writing import write_bundle
from holdfast.runtime.policy.action_space import ActionSpace, NonFiniteAction
from holdfast.runtime.policy.program import Program, ProgramError
from holdfast.runtime.policy.words import InstructionError

from ..tiny_bundle import LENGTH, STEPS, golden_inputs, tiny_spec

POSITION = (0.1, -0.5, 0.6, 1.0, 0.2, 40.0)
IMAGES = {"front": np.full((48, 64, 3), 7, np.uint8)}


class Graph:
    """Answers `value`, and keeps what it was fed."""

    description = "a function"

    def __init__(self, value: float = 0.25) -> None:
        self.value = value
        self.fed: list[Mapping[str, NDArray[Any]]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.fed.append(inputs)
        return {"actions": np.full((1, STEPS, 6), self.value, np.float32)}


def write(folder: Path, golden: bytes, **changes: Any) -> LoadedBundle:
    files = {"graphs/policy.onnx": b"no graph", "golden/observations.npz": golden}
    return load_bundle(write_bundle(folder / "tiny.vla", {**tiny_spec(), **changes}, files))


def samples(value: float = 0.25) -> bytes:
    return pack_golden(golden_inputs(), {"actions": np.full((1, STEPS, 6), value, np.float32)})


def make(spec: Bundle, graph: Graph, clock: Any = None) -> Program:
    robot = load_robot("sim_arm")
    space = ActionSpace(spec, JointUnits(robot, find_calibration(robot)))
    return Program(spec, graph, space, *([clock] if clock else []))


@pytest.fixture
def bundle(tmp_path: Path) -> LoadedBundle:
    return write(tmp_path, samples())


def test_the_graph_gets_pictures_state_and_tokens_as_declared(bundle: LoadedBundle) -> None:
    graph = Graph()
    times = iter([10, 20, 50, 60])
    program = make(bundle.spec, graph, lambda: next(times))
    inference = program.infer(IMAGES, POSITION, program.tokens("touch the cube"))
    fed = graph.fed[0]
    assert {name: (str(array.dtype), array.shape) for name, array in fed.items()} == {
        "image": ("uint8", (1, 96, 96, 3)),
        "state": ("float32", (1, 6)),
        "tokens": ("int64", (1, LENGTH)),
    }
    assert (fed["image"] == 7).all()
    np.testing.assert_allclose(fed["state"][0], POSITION, atol=1e-6)
    assert fed["tokens"][0, :4].tolist() == [1, 2, 4, 0]
    assert (inference.start_ns, inference.end_ns, inference.session_run_ns) == (10, 60, 30)
    assert inference.targets.shape == (STEPS, 6)
    np.testing.assert_allclose(inference.targets[3, :5], np.array(POSITION[:5]) + 0.25, atol=1e-6)
    assert inference.targets[3, 5] == pytest.approx(0.25), "the gripper's action is absolute"


def test_a_policy_without_language_has_no_tokens(bundle: LoadedBundle) -> None:
    values = bundle.spec.model_dump()
    values["program"]["token_input"] = values["task"]["tokenizer"] = None
    del values["graphs"]["policy"]["inputs"][2]
    graph = Graph()
    program = make(Bundle.model_validate(values), graph)
    assert program.tokens("anything at all") is None
    program.infer(IMAGES, POSITION, None)
    assert set(graph.fed[0]) == {"image", "state"}


def test_an_unknown_word_and_an_output_of_nan_are_refused(bundle: LoadedBundle) -> None:
    program = make(bundle.spec, Graph(float("nan")))
    with pytest.raises(InstructionError, match="zebra"):
        program.tokens("touch the zebra")
    with pytest.raises(NonFiniteAction):
        program.infer(IMAGES, POSITION, program.tokens("touch the cube"))


@pytest.mark.parametrize("value", [0.25, 0.2505])
def test_the_self_test_passes_within_the_tolerance(bundle: LoadedBundle, value: float) -> None:
    assert make(bundle.spec, Graph(value)).self_test(bundle) == pytest.approx(value - 0.25, abs=1e-6)


@pytest.mark.parametrize("value", [0.26, float("nan"), float("inf")])
def test_the_self_test_refuses_another_output(bundle: LoadedBundle, value: float) -> None:
    with pytest.raises(ProgramError, match="self-test"):
        make(bundle.spec, Graph(value)).self_test(bundle)


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


def test_a_program_that_feeds_something_else_than_the_graph_takes_is_refused(bundle: LoadedBundle) -> None:
    """The schema refuses it, too; the program does not rely on that."""
    spec = bundle.spec.model_copy(
        update={"program": bundle.spec.program.model_copy(update={"state_input": "joints"})}
    )
    with pytest.raises(ProgramError, match="the program feeds"):
        make(spec, Graph())
