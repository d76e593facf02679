"""The flight recorder of the real processes on the simulated robot, whatever kills them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator
from holdfast.drivers.types import Direction
from holdfast.runtime.messages import Phase
from holdfast.runtime.recorder.collect import own_files
from holdfast.runtime.recorder.folder import RINGS, RUN_FILE
from holdfast.runtime.recorder.reading import read_recording
from holdfast.runtime.recorder.records import Recording

from ..rig import VlaRun, arm_options, wait_gone
from ..tiny_bundle import STEPS, write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]

MS = 1_000_000


@pytest.fixture(scope="module")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator) -> Iterator[Simulator]:
    yield simulator_process
    simulator_process.truth.clear()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that turns the base slowly, back and forth around where it is."""
    sweep = np.zeros((STEPS, 6), np.float32)
    sweep[:, 0] = np.linspace(0.0, 0.1, STEPS)
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.vla", sweep)


def running(folder: Path, bundle: Path, simulator: Simulator, *options: str) -> VlaRun:
    """A run whose task has been under way for a second."""
    run = VlaRun(folder, str(bundle), *arm_options(simulator), *options)
    try:
        run.event("running")
    except AssertionError:
        run.__exit__()
        raise
    time.sleep(1.0)
    return run


def recordings(run: VlaRun) -> list[Path]:
    return own_files(run.state / "holdfast" / "recordings")


def folders(memory: Path) -> list[Path]:
    """Of runs; the socket of an endpoint lies beside them."""
    return sorted(path for path in memory.iterdir() if path.is_dir()) if memory.is_dir() else []


def assert_has_everything(recording: Recording) -> None:
    """Of a run that had been following chunks."""
    assert recording.complete, recording.notes
    assert not recording.gaps
    assert recording.config.joint_names[-1] == "gripper"
    assert recording.run["bundle"]["name"] == "tiny"
    assert {tick.phase for tick in recording.ticks} >= {Phase.CONNECT, Phase.HOLD, Phase.RETURN, Phase.RUN}
    assert recording.states[0][0] == 0
    assert any(state.motion is not None for _, state in recording.states), "written after arming"
    assert recording.chunks
    assert {bus.direction for bus in recording.bus} >= {Direction.SENT, Direction.RECEIVED}
    assert recording.frames[-1].jpeg.startswith(b"\xff\xd8")
    assert len(recording.inferences) >= len(recording.chunks) - 1
    assert recording.tasks[0].text == "touch the red cube"
    assert {"connected", "armed", "at_start", "running"} <= {event.code for event in recording.events}
    assert recording.snapshots
    used = {tick.output.new_chunk_id for tick in recording.ticks} - {0}
    assert used <= set(recording.chunks)
    assert all(tick.output.target is not None for tick in recording.ticks if tick.output.new_chunk_id)


def test_a_protective_stop_is_recorded(tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path):
    with running(tmp_path, bundle, simulator) as run:
        (folder,) = folders(memory)
        assert sorted(path.name for path in folder.iterdir()) == sorted((RUN_FILE, *RINGS))
        simulator.truth.fault("camera_unplug", on=1)
        assert run.finish() == 4, run.output
    assert folders(memory) == []
    (path,) = recordings(run)
    assert path.name.endswith("-camera_lost.flight")
    assert run.report()["recordings"] == [str(path)]
    assert f"vla-run --explain {path}" in run.output
    recording = read_recording(path)
    assert_has_everything(recording)
    assert recording.faults[0].code == "camera_lost"
    stop = next(i for i, t in enumerate(recording.ticks) if "stop" in {n.code for n in t.output.notes})
    after = [tick.phase for tick in recording.ticks[stop:]]
    assert after[0] == Phase.STOPPING
    assert after[-1] == Phase.STOPPED, "braking and rest are in it"
    assert {"stop", "stopped", "held"} <= {event.code for event in recording.events}
    assert recording.stages[-1].stage == "finished"


def test_a_run_that_ends_well_leaves_nothing_behind(
    tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path
):
    with running(tmp_path, bundle, simulator, "--duration", "1.5") as run:
        assert len(folders(memory)) == 1
        assert run.finish() == 0, run.output
    assert folders(memory) == []
    assert recordings(run) == []
    assert run.report()["recordings"] == []


def test_a_person_asks_for_a_recording_and_the_run_goes_on(
    tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path
):
    with running(tmp_path, bundle, simulator, "--record", str(tmp_path / "mine")) as run:
        run.process.send_signal(signal.SIGUSR2)
        run.event("recording")
        assert run.process.poll() is None
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 130, run.output
    (path,) = own_files(tmp_path / "mine")
    assert path.name.endswith("-request.flight")
    assert_has_everything(read_recording(path))
    assert folders(memory) == []


def test_nothing_is_recorded_where_nobody_wants_it(
    tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path
):
    with running(tmp_path, bundle, simulator, "--no-record") as run:
        assert folders(memory) == []
        simulator.truth.fault("camera_unplug", on=1)
        assert run.finish() == 4, run.output
    assert recordings(run) == []
    assert run.count("recording") == 0


def test_kill_9_of_the_supervisor(tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path):
    """Control stops the arm, then writes the recording itself."""
    with running(tmp_path, bundle, simulator) as run:
        children = [run.pid_of("control"), run.pid_of("policy")]
        run.process.kill()
        run.finish()
        for pid in children:
            wait_gone(pid)
    (path,) = recordings(run)
    assert path.name.endswith("-supervisor_lost.flight")
    recording = read_recording(path)
    assert_has_everything(recording)
    assert recording.ticks[-1].output.finish is not None, "to the very last tick"
    assert folders(memory) == []


def test_kill_9_of_the_control_process(tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path):
    with running(tmp_path, bundle, simulator) as run:
        killed_ns = time.monotonic_ns()
        os.kill(run.pid_of("control"), signal.SIGKILL)
        assert run.finish() == 5, run.output
    (path,) = recordings(run)
    recording = read_recording(path)
    assert_has_everything(recording)
    assert recording.ticks[-1].phase == Phase.RUN
    assert killed_ns - recording.ticks[-1].now_ns < 100 * MS
    assert folders(memory) == []


def test_kill_9_of_all_three_leaves_rings_that_the_next_start_writes_out(
    tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path
):
    with running(tmp_path / "killed", bundle, simulator) as run:
        children = [run.pid_of("control"), run.pid_of("policy")]
        # Stopped first, so that none has the time to react to the death of another.
        for pid in (*children, run.process.pid):
            os.kill(pid, signal.SIGSTOP)
        killed_ns = time.monotonic_ns()
        for pid in (*children, run.process.pid):
            os.kill(pid, signal.SIGKILL)
        run.finish()
        for pid in children:
            wait_gone(pid)
    (left,) = folders(memory)
    assert_has_everything(read_recording(left))
    assert recordings(run) == []
    options = [str(bundle), *arm_options(simulator), "--reset", "--duration", "0.3"]
    with VlaRun(tmp_path / "next", *options, state=tmp_path / "elsewhere") as following:
        assert following.finish() == 0, following.output
    assert folders(memory) == []
    (path,) = recordings(run)
    assert path.name.endswith("-killed.flight")
    assert str(path) in following.output
    recording = read_recording(path)
    assert_has_everything(recording)
    assert killed_ns - recording.ticks[-1].now_ns < 100 * MS


def test_a_run_beside_it_is_left_alone(tmp_path: Path, bundle: Path, simulator: Simulator, memory: Path):
    """A second start, refused because the port is taken, does not touch the rings of the first."""
    with running(tmp_path / "first", bundle, simulator) as run:
        (folder,) = folders(memory)
        with VlaRun(tmp_path / "second", str(bundle), *arm_options(simulator), "--robot", "sim_arm") as other:
            assert other.finish() == 3, other.output
        assert folders(memory) == [folder]
        run.process.send_signal(signal.SIGUSR2)
        run.event("recording")
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 130, run.output
    (path,) = recordings(run)
    assert_has_everything(read_recording(path))


def test_a_folder_for_recordings_that_cannot_be_made_is_refused(
    tmp_path: Path, bundle: Path, simulator: Simulator
):
    (tmp_path / "file").touch()
    options = [*arm_options(simulator), "--record", str(tmp_path / "file" / "recordings")]
    with VlaRun(tmp_path, str(bundle), *options) as run:
        assert run.finish() == 3
        assert "--record" in run.output
        assert "Traceback" not in run.output
