"""Programs of several graphs through the real vla-run: history, open language, a cache, a guided graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator

from .rig import VlaRun, arm_options, assert_still, torque
from .several_graphs import write_program_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as made:
        yield made


@pytest.mark.parametrize("kind", ["flow", "diffusion", "tokens"])
def test_a_program_of_several_graphs_moves_the_arm(tmp_path: Path, kind: str, simulator: Simulator) -> None:
    bundle = write_program_bundle(tmp_path / "several.vla", kind)
    options = [*arm_options(simulator), "--duration", "2"]
    with VlaRun(tmp_path, str(bundle), *options) as run:
        assert run.finish() == 0, run.output
    report = run.report()
    assert report["tasks"][0]["outcome"] == "time is up"
    assert report["stages"]["session_run"]["count"] > 3, run.output
    assert run.count("fault") == 0


def test_an_instruction_too_long_is_refused_before_torque(tmp_path: Path, simulator: Simulator) -> None:
    bundle = write_program_bundle(tmp_path / "several.vla", "flow")
    text = "touch the red cube and then put every other thing that you can find on the table into the box"
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator), "--task", text) as run:
        assert run.finish() == 3, run.output
    assert "tokens, the policy takes at most 24" in run.output
    assert not any(torque(simulator))
    assert_still(simulator)
