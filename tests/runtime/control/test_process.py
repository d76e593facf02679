"""The control process on the simulated servos: real processes, a real pty, real signals."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.simulated.launch import Simulator, start_simulator
from holdfast.runtime.messages import Phase, Quit, Reset, Stop

from .rig import MS, STEPS, control

pytestmark = [pytest.mark.sim, pytest.mark.e2e]
START = tuple(joint.start for joint in load_robot("sim_arm").joints)
AWAY = (0.5, -0.5, 0.6, 1.3, 0.2, 50.0)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as running:
        yield running


@pytest.fixture
def robot(simulator: Simulator) -> Iterator[Simulator]:
    yield simulator
    simulator.truth.clear()
    simulator.truth.reset(seed=0, keep_arm=False)


def test_it_connects_moves_follows_parks_and_releases(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.follow_to(AWAY, 1.5)
        assert rig.state is not None
        assert rig.state.phase == Phase.RUN
        assert rig.state.position[:5] == pytest.approx(AWAY[:5], abs=0.1)
        assert rig.state.position[5] == pytest.approx(AWAY[5], abs=3.0)
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 0
    codes = [event.code for event in rig.events]
    for code in ("guard", "rt", "connected", "armed", "at_start", "running", "parking", "released"):
        assert code in codes
    # A pty under load delivers a reply late now and then; the run must not mind.
    assert rig.snapshots[-1].bus_errors < 0.1 * rig.snapshots[-1].ticks
    assert not list(tmp_path.glob("stopped-*"))


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "servo_silent", "id": 3}, "joint_state_stale"),
        ({"kind": "power_loss"}, "joint_state_stale"),
        ({"kind": "error_bits", "id": 2, "bits": 32}, "motor_fault"),
        ({"kind": "unplug"}, "bus_lost"),
    ],
)
def test_a_fault_of_the_arm_is_a_latched_stop(
    robot: Simulator, tmp_path: Path, fault: dict, code: str
) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.follow_to(AWAY, 0.5)
        kind = fault.pop("kind")
        robot.truth.fault(kind, **fault)
        stop = rig.wait_for("stop")
        assert stop.text.startswith(code)
        rig.pump(0.3)
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 4
    assert list(tmp_path.glob("stopped-*"))


def test_one_corrupt_reply_is_counted_and_nothing_stops(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        robot.truth.fault("corrupt", every=20)
        rig.follow_to(AWAY, 1.0)
        robot.truth.clear()
        rig.pump(0.2)
        assert rig.state is not None
        assert rig.state.phase == Phase.RUN
        assert rig.snapshots[-1].bus_errors > 0
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 0


def test_a_nan_stops_latches_and_needs_reset(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.follow_to(AWAY, 0.3)
        rig.send_chunk(((float("nan"),) * 6,) * STEPS)
        assert rig.wait_for("stop").text.startswith("chunk_bad")
        rig.wait_for("stopped")
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 4
        assert "released" not in [event.code for event in rig.events]
    with control(robot, tmp_path) as rig:
        assert "--reset" in rig.wait_for("refused").text
        assert rig.exit_code() == 3
    with control(robot, tmp_path, reset_latch=True) as rig:
        rig.wait_for("connected")
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 0


def test_after_a_reset_the_arm_holds_until_it_is_armed_again(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.supervisor.send(Stop(True, "a person pressed stop"))
        rig.wait_for("stopped")
        rig.supervisor.send(Reset())
        rig.wait_for("reset")
        rig.pump(0.3)
        assert rig.state is not None
        assert rig.state.phase == Phase.HOLD
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 0
    assert not list(tmp_path.glob("stopped-*"))


def test_death_of_the_policy_stops_the_arm(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.follow_to(AWAY, 0.4)
        rig.policy.close()
        stop = None
        for _ in range(100):
            with_policy_closed = [e for e in rig.events if e.code == "stop"]
            if with_policy_closed:
                stop = with_policy_closed[0]
                break
            for envelope in rig.supervisor.receive_all():
                if hasattr(envelope.message, "code"):
                    rig.events.append(envelope.message)  # pyright: ignore[reportArgumentType]
            rig.supervisor.wait(0.05)
        assert stop is not None
        assert stop.text.startswith("policy_lost")


def test_death_of_the_supervisor_stops_the_arm_and_ends_control(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.follow_to(AWAY, 0.4)
        rig.supervisor.close()
        assert rig.process.wait(20) == 4
    before = robot.truth.verdict().qpos
    time.sleep(0.3)
    assert robot.truth.verdict().qpos == pytest.approx(before, abs=0.01)
    assert list(tmp_path.glob("stopped-*"))


def test_a_silent_supervisor_is_as_good_as_a_dead_one(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        assert rig.process.wait(20) == 4


def test_sigterm_to_control_itself_stops_and_holds(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.process.send_signal(signal.SIGTERM)
        assert rig.exit_code() == 4
        assert "held" in [event.code for event in rig.events]


def test_a_dry_run_gives_no_torque(robot: Simulator, tmp_path: Path) -> None:
    before = robot.truth.verdict().qpos
    with control(robot, tmp_path, dry_run=True) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.follow_to(AWAY, 0.6)
        rig.supervisor.send(Quit(park=True))
        assert (rig.exit_code(), [e.text for e in rig.events if e.code == "stop"]) == (0, [])
    assert robot.truth.verdict().qpos == pytest.approx(before, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arm": "serial:/dev/does-not-exist"}, "does-not-exist"),
        ({"calibration": "/nowhere/cal.json"}, "/nowhere/cal.json"),
    ],
)
def test_what_cannot_work_is_refused_before_torque(
    robot: Simulator, tmp_path: Path, changes: dict, words: str
) -> None:
    with control(robot, tmp_path, **changes) as rig:
        assert words in rig.wait_for("refused").text
        assert rig.exit_code() == 3


def test_a_second_control_process_finds_the_port_busy(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as first:
        first.to_start()
        ended = threading.Event()
        beating = threading.Thread(target=lambda: [first.pump(0.05) for _ in iter(ended.is_set, True)])
        beating.start()
        try:
            with control(robot, tmp_path / "other") as second:
                assert "busy" in second.wait_for("refused").text
                assert second.exit_code() == 3
        finally:
            ended.set()
            beating.join()
        assert first.process.poll() is None
        first.supervisor.send(Quit(park=True))
        assert first.exit_code() == 0


def test_the_age_limit_is_the_one_of_the_arm_message(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.pump(0.1)
        rig.send_chunk((START,) * STEPS, age_ns=450 * MS)
        assert rig.wait_for("stop").text.startswith("chunk_stale")


def test_kill_9_of_control_leaves_the_arm_near_and_the_next_start_refuses(
    robot: Simulator, tmp_path: Path
) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.arm(back=False, follow=True)
        rig.follow_to(AWAY, 0.4)
        rig.process.kill()
        rig.process.wait()
        assert rig.state is not None
        last = rig.state.commanded
    time.sleep(0.5)
    assert robot.truth.verdict().qpos[:5] == pytest.approx(last[:5], abs=0.35)
    with control(robot, tmp_path) as rig:
        assert "unfinished" in rig.wait_for("refused").text
        assert rig.exit_code() == 3


def test_a_state_folder_that_cannot_be_written_refuses_before_torque(
    robot: Simulator, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with control(robot, blocked / "state") as rig:
        assert "cannot be read" in rig.wait_for("refused").text
        assert rig.exit_code() == 3
    with control(robot, blocked / "state", reset_latch=True) as rig:
        rig.wait_for("connected")
        rig.arm(back=True, follow=False)
        assert "cannot be written" in rig.wait_for("refused").text
        assert rig.exit_code() == 3


def test_a_refused_start_keeps_an_older_stop_unreset(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path) as rig:
        rig.to_start()
        rig.supervisor.send(Stop(True, "test"))
        rig.wait_for("stopped")
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 4
    with control(robot, tmp_path, reset_latch=True, arm="serial:/dev/does-not-exist") as rig:
        assert rig.exit_code() == 3
    with control(robot, tmp_path) as rig:
        assert "requested" in rig.wait_for("refused").text
