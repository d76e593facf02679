"""Stop inputs, the watchdog and the parent's death, seen by the real control process on simulated servos."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator
from holdfast.runtime.messages import Phase, Quit, Reset
from holdfast.runtime.recorder.reading import read_recording
from holdfast.runtime.recorder.replay import replay

from ...processes import alive, children, wait_for, wait_gone
from .rig import ON_FAKE_DEVICES, PROCESS, Rig, control
from .wire_devices import Chip, Dog, Keys

pytestmark = [pytest.mark.sim, pytest.mark.e2e]
AWAY = (0.5, -0.5, 0.6, 1.3, 0.2, 50.0)
SPACE, ENTER = 57, 28


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as running:
        yield running


@pytest.fixture
def robot(simulator: Simulator) -> Iterator[Simulator]:
    yield simulator
    simulator.truth.clear()
    simulator.truth.reset(seed=0, keep_arm=False)


def moving(rig: Rig) -> None:
    rig.to_start()
    rig.arm(back=False, follow=True)
    rig.follow_to(AWAY, 0.5)


def stands(rig: Rig) -> None:
    """Nothing more is commanded."""
    rig.pump(0.1)
    assert rig.state is not None
    before = rig.state.commanded
    rig.pump(0.3)
    assert rig.state.commanded == before


def test_a_pressed_key_stops_the_arm_and_a_reset_key_lets_it_go_on(
    robot: Simulator, keys: Keys, tmp_path: Path
) -> None:
    inputs = {
        "stop_inputs": [f"evdev:{keys.path}?key=KEY_SPACE"],
        "reset_inputs": [f"evdev:{keys.path}?key=KEY_ENTER"],
    }
    rings = tmp_path / "rings"
    rings.mkdir()
    with control(robot, tmp_path, ON_FAKE_DEVICES, **inputs, rings=str(rings)) as rig:
        moving(rig)
        keys.tap(SPACE)
        assert rig.wait_for("stop").text.startswith("stop_input: evdev:")
        rig.wait_for("stopped")
        stands(rig)
        rig.pump(0.3)
        keys.press(ENTER)
        assert "holds" in rig.wait_for("reset").text
        keys.release(ENTER)
        stands(rig)
        assert rig.state is not None
        assert rig.state.phase == Phase.HOLD
        rig.arm(back=True, follow=False)
        assert rig.wait_for("void").text == "an order to move from before the reset"
        # What the supervisor sends once it knows of the reset.
        rig.supervisor.send(Reset())
        rig.pump(0.1)
        rig.arm(back=True, follow=False)
        rig.pump(3.0)
        assert [e.code for e in rig.events].count("at_start") == 2
        recording = read_recording(rings)
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 0
    guards = [event.text for event in rig.events if event.code == "guard"]
    assert any("ACME Button" in text and text.startswith("stop input") for text in guards)
    assert any(text.startswith("motor watchdog: none (lead caps the travel at 0.") for text in guards)
    # What the inputs said is part of what is replayed.
    assert replay(recording).identical
    assert any(tick.inbox.reset for tick in recording.ticks)
    assert any(c.code == "stop_input" for tick in recording.ticks for c in tick.inbox.conditions)


def test_a_stop_input_that_is_held_down_stays_a_stop(robot: Simulator, keys: Keys, tmp_path: Path) -> None:
    with control(robot, tmp_path, ON_FAKE_DEVICES, stop_inputs=[f"evdev:{keys.path}"]) as rig:
        moving(rig)
        keys.press(SPACE)
        rig.wait_for("stopped")
        rig.supervisor.send(Reset())
        rig.pump(0.3)
        rig.arm(back=True, follow=False)
        rig.pump(0.3)
        stands(rig)
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 4


def test_a_vanished_stop_input_stops_and_comes_back_with_a_reset(
    robot: Simulator, keys: Keys, tmp_path: Path
) -> None:
    with control(robot, tmp_path, ON_FAKE_DEVICES, stop_inputs=[f"evdev:{keys.path}"]) as rig:
        moving(rig)
        others = {int(name) for name in os.listdir(f"/proc/{rig.process.pid}/task")} - {rig.process.pid}
        # Whatever priority and core the ticks were given.
        assert {os.sched_getscheduler(thread) for thread in others} == {os.SCHED_OTHER}
        assert all(os.sched_getaffinity(thread) == os.sched_getaffinity(0) for thread in others)
        keys.unplug()
        assert rig.wait_for("stop").text.startswith("stop_input_lost")
        rig.wait_for("stopped")
        keys.plug()
        rig.pump(0.3)
        rig.supervisor.send(Reset())
        rig.wait_for("input_back")
        rig.pump(0.5)
        rig.supervisor.send(Reset())
        rig.pump(0.3)
        assert any(e.code == "reset" and "the arm holds" in e.text for e in rig.events)
        keys.press(SPACE)
        rig.pump(0.3)
        stops = [e.text.partition(":")[0] for e in rig.events if e.code == "stop"]
        assert stops == ["stop_input_lost", "stop_input"]
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 4


def test_a_cut_wire_stops(robot: Simulator, tmp_path: Path) -> None:
    chip = Chip(tmp_path / "gpiochip0")
    spec = f"gpio:{chip.path}:17?bias=pull-up"
    with control(robot, tmp_path, ON_FAKE_DEVICES, stop_inputs=[spec]) as rig:
        moving(rig)
        chip.tell(high=[17])
        assert rig.wait_for("stop").text.startswith("stop_input: gpio:")
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 4


def test_what_is_pressed_or_missing_at_the_start_is_refused_before_torque(
    robot: Simulator, keys: Keys, tmp_path: Path
) -> None:
    for spec, words in ((f"evdev:{keys.path}", "release it"), ("evdev:/dev/nothing", "plugged in")):
        keys.press(SPACE)
        with control(robot, tmp_path, ON_FAKE_DEVICES, stop_inputs=[spec]) as rig:
            assert words in rig.wait_for("refused").text
            assert rig.exit_code() == 3
    assert not list(tmp_path.glob("stopped-*"))


def test_a_press_before_arming_ends_the_run_without_torque(
    robot: Simulator, keys: Keys, tmp_path: Path
) -> None:
    with control(robot, tmp_path, ON_FAKE_DEVICES, stop_inputs=[f"evdev:{keys.path}"]) as rig:
        rig.wait_for("connected")
        keys.press(SPACE)
        assert "stop_input" in rig.wait_for("refused").text
        assert rig.exit_code() == 3
    assert not list(tmp_path.glob("stopped-*"))


# The watchdog of the computer


def test_the_watchdog_is_started_with_torque_fed_by_the_loop_and_stopped_at_the_end(
    robot: Simulator, tmp_path: Path
) -> None:
    dog = Dog(tmp_path / "watchdog")
    with control(robot, tmp_path, ON_FAKE_DEVICES, watchdog=str(dog.path)) as rig:
        rig.wait_for("connected")
        rig.pump(1.2)
        assert dog.eaten() == b"", "it has not been started"
        rig.to_start()
        rig.pump(3.0)
        fed = dog.eaten()
        assert set(fed) == {0}
        assert 1 <= len(fed) <= 12
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 0
    assert dog.eaten().endswith(b"V")
    guards = [event.text for event in rig.events if event.code == "guard"]
    assert any("acme-wdt" in text and "5 s after" in text for text in guards)


def test_control_that_is_killed_leaves_the_watchdog_running(robot: Simulator, tmp_path: Path) -> None:
    dog = Dog(tmp_path / "watchdog")
    with control(robot, tmp_path, ON_FAKE_DEVICES, watchdog=str(dog.path)) as rig:
        rig.to_start()
        rig.process.kill()
        rig.process.wait()
    assert b"V" not in dog.eaten()


def test_control_that_hangs_does_not_feed_it(robot: Simulator, tmp_path: Path) -> None:
    dog = Dog(tmp_path / "watchdog")
    with control(robot, tmp_path, ON_FAKE_DEVICES, watchdog=str(dog.path)) as rig:
        rig.to_start()
        rig.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        dog.eaten()
        time.sleep(2.5)
        assert dog.eaten() == b""


@pytest.mark.parametrize("path", ["/dev/no-watchdog", "/dev/shm"])
def test_a_watchdog_that_cannot_be_used_is_refused_before_torque(
    robot: Simulator, tmp_path: Path, path: str
) -> None:
    with control(robot, tmp_path, ON_FAKE_DEVICES, watchdog=path) as rig:
        assert "/dev/watchdog" in rig.wait_for("refused").text
        assert rig.exit_code() == 3
    assert not list(tmp_path.glob("stopped-*"))


def test_a_watchdog_that_is_another_device_is_refused_at_arming(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path, ON_FAKE_DEVICES, watchdog="/dev/null") as rig:
        rig.wait_for("connected")
        rig.arm(back=True, follow=False)
        assert "no watchdog" in rig.wait_for("refused").text
        assert rig.exit_code() == 3


def test_a_dry_run_starts_no_watchdog(robot: Simulator, tmp_path: Path) -> None:
    dog = Dog(tmp_path / "watchdog")
    with control(robot, tmp_path, ON_FAKE_DEVICES, watchdog=str(dog.path), dry_run=True) as rig:
        rig.to_start()
        rig.pump(1.5)
        rig.supervisor.send(Quit(park=True))
        assert rig.exit_code() == 0
    assert dog.eaten() == b""


# The parent's death

STAND_IN = textwrap.dedent("""
    import os, subprocess, sys, time
    fds = [int(value) for name, value in zip(sys.argv, sys.argv[1:]) if name.endswith("-fd")]
    document = sys.stdin.read().replace('"PARENT"', str(os.getpid()))
    child = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, pass_fds=fds)
    child.stdin.write(document.encode())
    child.stdin.close()
    time.sleep(600)
""")
"""Stands between a test, which plays the supervisor's messages, and the process that it starts."""
SILENT = textwrap.dedent("""
    import subprocess, sys, time
    print(subprocess.Popen([sys.executable, *sys.argv[1:]]).pid, flush=True)
    time.sleep(600)
""")
"""The same, but it leaves its own standard input to the process."""


def test_the_supervisors_death_is_noticed_where_its_channel_stays_open(
    robot: Simulator, tmp_path: Path
) -> None:
    with control(robot, tmp_path, ("-c", STAND_IN, *PROCESS), parent="PARENT") as rig:
        moving(rig)
        (pid,) = children(rig.process.pid)
        rig.process.kill()
        rig.process.wait()
        deadline = time.monotonic() + 30
        while alive(pid) and time.monotonic() < deadline:
            rig.pump(0.05)
        assert not alive(pid)
    assert "supervisor_lost" in next(iter(tmp_path.glob("stopped-*"))).read_text()
    before = robot.truth.verdict().qpos
    time.sleep(0.3)
    assert robot.truth.verdict().qpos == pytest.approx(before, abs=0.01)


def test_a_parent_that_died_before_control_began_is_noticed(robot: Simulator, tmp_path: Path) -> None:
    with control(robot, tmp_path, parent=2**22 - 1) as rig:
        assert rig.exit_code() == 3
        assert "connected" not in [event.code for event in rig.events]


def test_the_policy_process_ends_with_its_parent_whatever_it_waits_for() -> None:
    theirs, ours = os.pipe()
    module = ["-m", "holdfast.runtime.policy.process", "--supervisor-fd", "0", "--control-fd", "0"]
    stand_in = subprocess.Popen([sys.executable, "-c", SILENT, *module], stdin=theirs, stdout=subprocess.PIPE)
    try:
        assert stand_in.stdout is not None
        pid = int(stand_in.stdout.readline())
        # It waits for its configuration, which never comes, and has asked for the signal by then.
        wait_for(lambda: _rests(pid), "the policy process to wait")
        assert alive(pid)
        stand_in.kill()
        wait_gone(pid)
    finally:
        stand_in.kill()
        stand_in.wait()
        os.close(theirs)
        os.close(ours)


def _rests(pid: int) -> bool:
    """Whether a process takes no processor time."""

    def spent() -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    before = spent()
    time.sleep(1.0)
    return spent() == before != ["0", "0"]
