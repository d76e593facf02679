"""What can go wrong, with the real processes on the simulated robot: message, exit code, and a safe arm."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator

from .rig import MOTOR_IDS, VlaRun, arm_options, assert_still, obey_permissions, torque, wait_gone
from .tiny_bundle import STEPS, write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


@pytest.fixture(scope="module")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator) -> Iterator[Simulator]:
    """One simulator for all tests; whatever a test broke is mended after it."""
    yield simulator_process
    simulator_process.truth.clear()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that turns the base slowly, back and forth around where it is."""
    sweep = np.zeros((STEPS, 6), np.float32)
    sweep[:, 0] = np.linspace(0.0, 0.1, STEPS)
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.vla", sweep)


def running(folder: Path, bundle: Path, simulator: Simulator, *options: str) -> VlaRun:
    """A run whose task has been under way for a moment."""
    run = VlaRun(folder, str(bundle), *arm_options(simulator), *options)
    try:
        run.event("running")
    except AssertionError:
        run.__exit__()
        raise
    return run


def assert_held(run: VlaRun, simulator: Simulator, reason: str) -> None:
    """A protective stop for `reason`: exit code 4, the arm holds, still; the next start needs --reset."""
    assert run.finish() == 4, run.output
    assert reason in run.event("stop", source="control")["text"]
    report = run.report()
    assert report["exit_code"] == 4
    assert any(reason in text for text in report["stops"])
    assert list((run.state / "holdfast").glob("stopped-*.json"))
    assert_still(simulator)
    assert torque(simulator) == [1] * len(MOTOR_IDS)


# Refused before torque


def refused(run: VlaRun, *texts: str, code: int = 3) -> None:
    assert run.finish() == code, run.output
    for text in texts:
        assert text in run.output
    assert "Traceback" not in run.output
    assert not any(event["code"] == "armed" for event in run.events())
    assert run.report()["exit_code"] == code
    assert run.report()["reason"] in run.output


def test_a_run_finishes_parks_and_releases(tmp_path: Path, bundle: Path, simulator: Simulator):
    with VlaRun(
        tmp_path, str(bundle), *arm_options(simulator), "--duration", "1",
        "--task", "touch the red cube", "--task", "touch the cube",
    ) as run:  # fmt: skip
        assert run.finish() == 0, run.output
    codes = [event["code"] for event in run.events()]
    for code in ("connected", "ready", "armed", "task_ready", "task_start", "task_end", "parked", "released"):
        assert code in codes
    assert [task["outcome"] for task in run.report()["tasks"]] == ["time is up"] * 2
    assert torque(simulator) == [0] * len(MOTOR_IDS)
    report = run.report()
    for stage in ("wake_late", "bus_read", "tick", "session_run", "camera_to_wire", "camera_to_wire_own"):
        assert report["stages"][stage]["count"] > 0
    assert report["deadlines"]["ticks"] > 100


def test_check_passes_and_moves_nothing(tmp_path: Path, bundle: Path, simulator: Simulator):
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator), "--check") as run:
        assert run.finish() == 0, run.output
    assert "ready to run" in run.output
    assert run.events() == []


def test_check_shows_everything_that_is_wrong_at_once(tmp_path: Path, bundle: Path, simulator: Simulator):
    simulator.truth.fault("servo_silent", id=3)
    options = ["--arm", simulator.arm_url, "--camera", "/dev/video97", "--robot", "sim_arm"]
    with VlaRun(tmp_path, str(bundle), *options, "--check", "--json") as run:
        assert run.finish() == 3, run.output
    document = json.loads(run.output)
    wrong = {row["what"]: row["fix"] for row in document["rows"] if not row["ok"]}
    assert set(wrong) == {"camera front", "arm"}
    assert "/dev/video97" in wrong["camera front"]
    assert "motor 3" in wrong["arm"]


def test_a_dry_run_never_energises(tmp_path: Path, bundle: Path, simulator: Simulator):
    before = torque(simulator)
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator), "--dry-run", "--duration", "1") as run:
        assert run.finish() == 0, run.output
    assert torque(simulator) == before


def test_no_camera_and_no_arm_are_usage_errors(tmp_path: Path, bundle: Path, simulator: Simulator):
    with VlaRun(tmp_path / "a", str(bundle), "--arm", simulator.arm_url) as run:
        refused(run, "no camera", "--camera front=SOURCE", code=2)
    with VlaRun(tmp_path / "b", str(bundle), "--camera", simulator.camera_url) as run:
        refused(run, "no arm", "--arm serial:", code=2)


def test_missing_camera(tmp_path: Path, bundle: Path, simulator: Simulator):
    camera = "/dev/video97"
    with VlaRun(tmp_path, str(bundle), "--arm", simulator.arm_url, "--camera", camera) as run:
        refused(run, camera)


def test_wrong_camera_port(tmp_path: Path, bundle: Path, simulator: Simulator):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        camera = f"http://127.0.0.1:{unused.getsockname()[1]}/stream.mjpg"
        with VlaRun(tmp_path, str(bundle), "--arm", simulator.arm_url, "--camera", camera) as run:
            refused(run, camera)


@pytest.mark.parametrize("robot", [[], ["--robot", "sim_arm"]])
def test_wrong_serial_port(tmp_path: Path, bundle: Path, simulator: Simulator, robot: list[str]):
    options = ["--arm", "serial:/dev/ttyNOPE", "--camera", simulator.camera_url, *robot]
    with VlaRun(tmp_path, str(bundle), *options) as run:
        refused(run, "/dev/ttyNOPE")


def test_busy_serial_port(tmp_path: Path, bundle: Path, simulator: Simulator):
    fd = os.open(simulator.port_path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with VlaRun(tmp_path, str(bundle), *arm_options(simulator), "--robot", "sim_arm") as run:
            refused(run, "busy", simulator.port_path)
    finally:
        os.close(fd)


def test_no_permission_for_the_port(tmp_path: Path, bundle: Path, simulator: Simulator):
    device = os.path.realpath(simulator.port_path)
    mode = os.stat(device).st_mode
    os.chmod(device, 0)
    try:
        options = [*arm_options(simulator), "--robot", "sim_arm"]
        with VlaRun(tmp_path, str(bundle), *options, prepare=obey_permissions) as run:
            refused(run, "permission", simulator.port_path)
    finally:
        os.chmod(device, mode)


def test_no_calibration(tmp_path: Path, bundle: Path, simulator: Simulator):
    options = ["--robot", "so101", "--calibration", str(tmp_path / "nothing.json")]
    other = write_tiny_bundle(tmp_path / "so101.vla", robot_type="so101")
    with VlaRun(tmp_path, str(other), *arm_options(simulator), *options) as run:
        refused(run, "calibration", "nothing.json")


def test_one_flipped_byte_in_the_bundle(tmp_path: Path, bundle: Path, simulator: Simulator):
    broken = tmp_path / "broken.vla"
    shutil.copytree(bundle, broken)
    graph = broken / "graphs" / "policy.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with VlaRun(tmp_path, str(broken), *arm_options(simulator)) as run:
        refused(run, "policy.onnx", "sha256")


def test_the_bundle_of_another_robot(tmp_path: Path, simulator: Simulator):
    other = write_tiny_bundle(tmp_path / "other.vla", robot_type="openarm")
    with VlaRun(tmp_path, str(other), *arm_options(simulator), "--robot", "sim_arm") as run:
        refused(run, "openarm", "sim_arm")


def test_an_unknown_word_in_the_instruction(tmp_path: Path, bundle: Path, simulator: Simulator):
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator), "--task", "touch the purple cube") as run:
        refused(run, "'purple'", "touch the red cube")


def test_a_self_test_that_differs(tmp_path: Path, simulator: Simulator):
    other = write_tiny_bundle(tmp_path / "differs.vla", golden=np.ones((STEPS, 6), np.float32))
    with VlaRun(tmp_path, str(other), *arm_options(simulator)) as run:
        refused(run, "self-test")


def test_silent_motor_before_the_start(tmp_path: Path, bundle: Path, simulator: Simulator):
    simulator.truth.fault("servo_silent", id=3)
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator), "--robot", "sim_arm") as run:
        refused(run, "motor 3 did not answer")


# Stopped in motion


def test_an_output_of_nan(tmp_path: Path, simulator: Simulator):
    """NaN for one instruction only, so that neither self-test nor warm-up can see it."""
    other = write_tiny_bundle(tmp_path / "nan.vla", nan_word=4, default_task="touch the red")
    with VlaRun(tmp_path, str(other), *arm_options(simulator), "--task", "touch the cube") as run:
        assert_held(run, simulator, "non_finite")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("camera_unplug", "camera_lost"), ("camera_freeze", "frozen_camera"), ("camera_drop", "frame_age")],
)
def test_a_camera_that_fails(tmp_path: Path, bundle: Path, simulator: Simulator, fault: str, reason: str):
    with running(tmp_path, bundle, simulator) as run:
        simulator.truth.fault(fault, on=1)
        assert_held(run, simulator, reason)


def test_a_motor_that_falls_silent(tmp_path: Path, bundle: Path, simulator: Simulator):
    with running(tmp_path, bundle, simulator) as run:
        simulator.truth.fault("servo_silent", id=3)
        assert run.finish() == 4, run.output
    assert "joint_state_stale" in run.event("stop")["text"]
    simulator.truth.clear()
    assert_still(simulator)


def test_a_port_that_is_unplugged(tmp_path: Path, bundle: Path, simulator: Simulator):
    with running(tmp_path, bundle, simulator) as run:
        simulator.truth.fault("unplug")
        assert run.finish() == 4, run.output
    assert run.report()["stops"]
    simulator.truth.fault("replug")
    assert_still(simulator)


def test_kill_9_of_the_policy_process(tmp_path: Path, bundle: Path, simulator: Simulator):
    with running(tmp_path, bundle, simulator) as run:
        os.kill(run.pid_of("policy"), signal.SIGKILL)
        assert_held(run, simulator, "policy_lost")
    assert "killed by SIGKILL" in run.output


def test_a_policy_process_that_hangs(tmp_path: Path, bundle: Path, simulator: Simulator):
    with running(tmp_path, bundle, simulator) as run:
        os.kill(run.pid_of("policy"), signal.SIGSTOP)
        assert_held(run, simulator, "policy_silent")


def test_kill_9_of_the_supervisor(tmp_path: Path, bundle: Path, simulator: Simulator):
    with running(tmp_path, bundle, simulator) as run:
        children = [run.pid_of("control"), run.pid_of("policy")]
        run.process.kill()
        run.finish()
        for pid in children:
            wait_gone(pid)
    assert_still(simulator)
    assert torque(simulator) == [1] * len(MOTOR_IDS)
    latch = next((run.state / "holdfast").glob("stopped-*.json"))
    assert "supervisor_lost" in latch.read_text()


def test_kill_9_of_the_control_process(tmp_path: Path, bundle: Path, simulator: Simulator):
    with running(tmp_path, bundle, simulator) as run:
        os.kill(run.pid_of("control"), signal.SIGKILL)
        assert run.finish() == 5, run.output
    assert "the motors keep their last goal" in run.output
    assert_still(simulator)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_parks_and_releases(
    tmp_path: Path, bundle: Path, simulator: Simulator, number: int, code: int
):
    with running(tmp_path, bundle, simulator) as run:
        run.process.send_signal(number)
        assert run.finish() == code, run.output
    codes = [event["code"] for event in run.events()]
    assert codes.index("signal") < codes.index("parked") < codes.index("released")
    assert not run.report()["stops"]
    assert torque(simulator) == [0] * len(MOTOR_IDS)


def test_a_signal_before_the_start(tmp_path: Path, bundle: Path, simulator: Simulator):
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator)) as run:
        run.event("started")
        run.process.terminate()
        assert run.finish() == 143, run.output


def test_a_second_interrupt_stops_in_place(tmp_path: Path, bundle: Path, simulator: Simulator):
    """The first parks; the second does not wait for that."""
    with running(tmp_path, bundle, simulator) as run:
        run.wait_for(lambda: abs(simulator.truth.verdict().qpos[0]) > 0.4)
        run.process.send_signal(signal.SIGINT)
        run.event("signal")
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 130, run.output
    assert run.count("signal") == 2
    assert run.count("parked") == 0
    assert run.count("released") == 0
    assert_still(simulator)
    assert torque(simulator) == [1] * len(MOTOR_IDS)
    assert abs(simulator.truth.verdict().qpos[0]) > 0.2, "the park pose is at 0"


def test_sigusr1_ends_the_task_and_the_next_follows(tmp_path: Path, bundle: Path, simulator: Simulator):
    tasks = ["--task", "touch the red cube", "--task", "touch the cube", "--duration", "60"]
    with running(tmp_path, bundle, simulator, *tasks) as run:
        run.process.send_signal(signal.SIGUSR1)
        run.event("task_end")
        run.wait_for(lambda: run.count("running") == 2)
        run.process.send_signal(signal.SIGUSR1)
        assert run.finish() == 0, run.output
    assert [task["outcome"] for task in run.report()["tasks"]] == ["ended by SIGUSR1"] * 2


def test_after_a_stop_the_next_start_needs_a_reset(tmp_path: Path, bundle: Path, simulator: Simulator):
    with running(tmp_path / "first", bundle, simulator) as run:
        os.kill(run.pid_of("policy"), signal.SIGKILL)
        assert run.finish() == 4, run.output
    options = [str(bundle), *arm_options(simulator), "--duration", "0.5"]
    with VlaRun(tmp_path / "second", *options, state=run.state) as second:
        refused(second, "--reset")
    with VlaRun(tmp_path / "check", *options, "--check", state=run.state) as look:
        assert look.finish() == 3, look.output
    with VlaRun(tmp_path / "check-reset", *options, "--check", "--reset", state=run.state) as look:
        assert look.finish() == 0, look.output
    with VlaRun(tmp_path / "third", *options, "--reset", state=run.state) as third:
        assert third.finish() == 0, third.output
