"""Runs that go wrong on the simulated robot: each is replayed bit for bit, and told as it was."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator
from holdfast.runtime.cli import main
from holdfast.runtime.messages import Phase
from holdfast.runtime.recorder.account import Account, account_of
from holdfast.runtime.recorder.collect import own_files
from holdfast.runtime.recorder.reading import read_recording
from holdfast.runtime.recorder.records import Recording, Tick
from holdfast.runtime.recorder.replay import replay
from holdfast.runtime.recorder.story import tell

from ..rig import PATIENCE_S, VlaRun, arm_options, wait_gone
from ..test_terminal_e2e import Terminal
from ..tiny_bundle import STEPS, write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]

MS = 1_000_000
ASIDE = frozenset({"guard", "rt", "recording", "recorder"})
"""Events that are no part of the story."""


@dataclass(frozen=True)
class Flown:
    """What a run left behind."""

    path: Path
    events: list[dict[str, Any]]
    resting: tuple[float, ...]
    """True joint positions once it was over."""


Mishap = Callable[[VlaRun, Simulator], object]


def broken(kind: str, **arguments: float) -> Mishap:
    return lambda run, simulator: simulator.truth.fault(kind, **arguments)


def killed(child: str) -> Mishap:
    return lambda run, simulator: os.kill(run.pid_of(child), signal.SIGKILL)


def supervisor_killed(run: VlaRun, simulator: Simulator) -> None:
    children = [run.pid_of("control"), run.pid_of("policy")]
    run.process.kill()
    for pid in children:
        wait_gone(pid)


def terminated(run: VlaRun, simulator: Simulator) -> None:
    """The signal ends the run; the recording is asked for while the arm parks."""
    run.process.terminate()
    run.event("parking")
    run.process.send_signal(signal.SIGUSR2)


def jammed(run: VlaRun, simulator: Simulator) -> None:
    """The base is held fast where it is; the next task begins with a return to the start pose."""
    simulator.truth.fault("jam", id=1)
    run.process.send_signal(signal.SIGUSR1)


MISHAPS: dict[str, Mishap] = {
    "camera_lost": broken("camera_unplug"),
    "frozen_camera": broken("camera_freeze"),
    "joint_state_stale": broken("servo_silent", id=3),
    "bus_lost": broken("unplug"),
    "policy_lost": killed("policy"),
    "supervisor_lost": supervisor_killed,
    "control killed": killed("control"),
    "SIGTERM": terminated,
    "jam": jammed,
}
"""What is done to a run that moves; the name is the code of the stop, where it leads to that one alone."""
RUNS = ["requested", "non_finite", *MISHAPS]
STOPS = [name for name in RUNS if name not in ("control killed", "SIGTERM")]
ATTEMPTS = 3
"""On a computer that is too busy the arm may be stopped for that, before anything was done to it."""


class Flights:
    """The runs, each flown when it is first asked for, on one simulator."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self._folder = folder
        self._simulator = simulator
        self._flown: dict[str, Flown] = {}
        self._attempts: Counter[str] = Counter()

    def __getitem__(self, name: str) -> Flown:
        while name not in self._flown:
            self._attempts[name] += 1
            assert self._attempts[name] <= ATTEMPTS, "has failed before"
            folder = self._folder / f"{name.replace(' ', '_')}-{self._attempts[name]}"
            folder.mkdir()
            try:
                self._flown[name] = _fly(name, folder, self._simulator)
            except AssertionError:
                if self._attempts[name] == ATTEMPTS:
                    raise
            finally:
                self._mend()
        return self._flown[name]

    def killed_at_once(self) -> VlaRun:
        """A run of which every process was killed before one could react to the death of another."""
        folder = self._folder / "all-killed"
        with VlaRun(folder, str(_sweeping(self._folder)), *arm_options(self._simulator)) as run:
            _in_motion(run, self._simulator)
            processes = [run.pid_of("control"), run.pid_of("policy"), run.process.pid]
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in processes:
                    os.kill(pid, number)
            run.finish()
            for pid in processes[:2]:
                wait_gone(pid)
        return run

    def _mend(self) -> None:
        """Also off and on, without which a motor that was jammed reports an overload."""
        self._simulator.truth.fault("power_loss")
        time.sleep(0.2)
        self._simulator.truth.clear()


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flights]:
    folder = tmp_path_factory.mktemp("flights")
    memory = Path("/dev/shm") / f"holdfast-test-{os.getpid()}-flights"
    memory.mkdir(mode=0o700)
    try:
        with pytest.MonkeyPatch.context() as patch, start_simulator(folder / "sim") as simulator:
            patch.setenv("XDG_RUNTIME_DIR", str(memory))
            yield Flights(folder, simulator)
    finally:
        shutil.rmtree(memory)


def _fly(name: str, folder: Path, simulator: Simulator) -> Flown:
    if name == "requested":
        return _stopped_by_hand(folder, simulator)
    if name == "non_finite":
        # For one instruction only, so that neither self-test nor warm-up can see it.
        bundle = write_tiny_bundle(folder / "nan.vla", nan_word=4, default_task="touch the red")
        options = ["--task", "touch the cube"]
    else:
        bundle = _sweeping(folder)
        options = ["--task", "touch the cube", "--task", "touch the red cube"]
    with VlaRun(folder, str(bundle), *arm_options(simulator), *options) as run:
        if name in MISHAPS:
            _in_motion(run, simulator)
            MISHAPS[name](run, simulator)
        run.finish()
    return _left_behind(run, simulator)


def _stopped_by_hand(folder: Path, simulator: Simulator) -> Flown:
    """The space bar in motion, a reset, the end."""
    terminal = Terminal()
    terminal.start_reading()
    options = [str(_sweeping(folder)), *arm_options(simulator)]
    try:
        with VlaRun(folder, *options, terminal=terminal.theirs) as run:
            _in_motion(run, simulator)
            terminal.type(" ")
            run.event("stopped")
            terminal.type("r")
            run.event("reset")
            run.event("recording")
            terminal.type("q")
            assert run.finish() == 0, run.output
    finally:
        terminal.close()
    return _left_behind(run, simulator)


def _in_motion(run: VlaRun, simulator: Simulator) -> None:
    run.event("running")
    run.wait_for(lambda: abs(simulator.truth.verdict().qpos[0]) > 0.25)
    assert run.count("stop") == 0, run.last_events()


def _sweeping(folder: Path) -> Path:
    """A policy that turns the base slowly, ever onwards from where it is."""
    sweep = np.zeros((STEPS, 6), np.float32)
    sweep[:, 0] = np.linspace(0.0, 0.4, STEPS)
    return write_tiny_bundle(folder / "tiny.vla", sweep)


def _left_behind(run: VlaRun, simulator: Simulator) -> Flown:
    time.sleep(0.2)
    (path,) = own_files(run.state / "holdfast" / "recordings") or [None]
    assert path is not None, run.last_events()
    return Flown(path, run.events(), simulator.truth.verdict().qpos)


def account(flown: Flown) -> Account:
    return account_of(read_recording(flown.path))


@pytest.mark.parametrize("name", RUNS)
def test_the_replay_is_identical_bit_for_bit(flights: Flights, name: str) -> None:
    recording = read_recording(flights[name].path)
    assert recording.complete, recording.notes
    result = replay(recording)
    assert result.difference is None
    assert len(result.steps) == len(recording.ticks) > 30
    assert result.skipped == 0
    assert result.states >= 1


def test_replay_as_a_command(flights: Flights, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", str(flights["camera_lost"].path)]) == 0
    assert "the same decisions, bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize("name", STOPS)
def test_the_story_is_what_the_event_file_says(flights: Flights, name: str) -> None:
    flown = flights[name]
    told = account(flown)
    stop = told.stop
    assert stop is not None
    if name != "jam":
        assert stop.code == name
    if name != "supervisor_lost":
        said = next(e for e in flown.events if e["code"] == "stop" and e["source"] == "control")
        assert said["text"] == f"{stop.code}: {stop.text}"
        assert 0 <= said["t_ns"] - stop.at_ns < 50 * MS
    # Nothing that the event file has is missing, and nothing is told that did not happen.
    last_ns = told.last.now_ns
    entries = {(entry.source, entry.code): entry for entry in told.entries}
    for event in flown.events:
        if event["code"] not in ASIDE and event["t_ns"] <= last_ns:
            assert (event["source"], event["code"]) in entries, event
    codes = {event["code"] for event in flown.events}
    ours = {"missed", "quit", "at_rest", "finish", "task", "stopped", "also", "clamped", "fault"}
    assert {code for _, code in entries} <= codes | ours | {"stop"}


@pytest.mark.parametrize("name", ["camera_lost", "frozen_camera", "policy_lost"])
def test_the_arm_is_said_to_be_where_it_is(flights: Flights, name: str) -> None:
    flown = flights[name]
    braking = account(flown).braking
    assert braking is not None
    assert braking.command_rest_s is not None
    assert braking.command_rest_s < 0.3
    for row, true in zip(braking.joints[:-1], flown.resting[:-1], strict=True):
        assert row.last == pytest.approx(true, abs=0.03)
        assert row.to_limit is not None
        assert row.to_limit > 0


def test_the_motor_that_fell_silent_is_named(flights: Flights) -> None:
    bus = account(flights["joint_state_stale"]).evidence.bus
    unanswered = {joint: count for joint, count, _ in bus.silent}
    assert max(unanswered, key=lambda joint: unanswered[joint]) == "elbow_flex"
    assert unanswered["elbow_flex"] >= bus.failed_in_a_row > 3


def test_of_an_arm_whose_port_is_gone_only_the_command_is_told(flights: Flights) -> None:
    told = account(flights["bus_lost"])
    assert told.braking is not None
    assert told.braking.last_sent_s is None
    text = "\n".join(line for section in tell(told) for line in section.lines)
    assert "None of it was sent to the motors after the stop." in text
    assert "the port to the motors was lost" in text
    assert "whether the motors hold is not known" in text
    assert "with torque on" not in text.replace("then hold with torque on (category 2)", "")


def test_control_that_was_killed_is_told_without_a_stop(flights: Flights) -> None:
    told = account(flights["control killed"])
    assert told.stops == ()
    assert told.control_died == "control process: killed by SIGKILL"
    text = "\n".join(line for section in tell(told) for line in section.lines)
    assert "Control ended without a stop" in text


def test_a_signal_is_told_as_the_end_that_it_was(flights: Flights) -> None:
    told = account(flights["SIGTERM"])
    assert told.stops == ()
    assert told.quit_ns is not None
    codes = [entry.code for entry in told.entries]
    assert codes.index("signal") < codes.index("quit") < codes.index("parking")


def test_a_reset_by_a_person_is_told(flights: Flights) -> None:
    stop = account(flights["requested"]).stop
    assert stop is not None
    assert stop.text == "a person pressed the space bar"
    assert stop.reset_ns is not None


def test_explain_as_a_command_draws_and_tells(flights: Flights, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["--explain", str(flights["frozen_camera"].path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["stops"][0]["code"] == "frozen_camera"
    assert Path(document["plot"]).read_bytes().startswith(b"\x89PNG")


def test_a_run_whose_processes_were_all_killed_is_found_told_and_replayed(
    flights: Flights, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rings end in whatever was being written."""
    run = flights.killed_at_once()
    monkeypatch.setenv("XDG_STATE_HOME", str(run.state))
    deadline = time.monotonic() + PATIENCE_S
    while main(["--explain", "--json"]) != 0:
        # The last threads of a killed process may hold its lock for a moment after it.
        assert time.monotonic() < deadline, "the rings were not found"
        capsys.readouterr()
        time.sleep(0.1)
    (path,) = own_files(run.state / "holdfast" / "recordings")
    assert path.name.endswith("-killed.flight")
    said = capsys.readouterr()
    assert str(path) in said.err
    document = json.loads(said.out)
    assert document["stops"] == []
    assert document["recording"]["reason"] == "killed"
    story = "\n".join(line for section in document["story"] for line in section["lines"])
    assert "Control ended without a stop (it was killed, as were all other processes of the run)." in story
    assert "its motors go to the last goal and hold" in story
    assert "left to go" in story
    assert "The next start needs --reset." in story
    assert document["last_phase"] == "run"
    assert document["replay"]["identical"] is True
    # The same once more, from the file that it was written to.
    assert main(["--replay", str(path)]) == 0


@pytest.mark.parametrize("kept", [0.2, 0.45])
def test_a_file_that_was_cut_off_is_replayed_as_far_as_it_goes(
    flights: Flights, tmp_path: Path, kept: float
) -> None:
    data = flights["camera_lost"].path.read_bytes()
    cut = tmp_path / "cut.flight"
    cut.write_bytes(data[: int(kept * len(data))])
    recording = read_recording(cut)
    assert not recording.complete
    result = replay(recording)
    assert result.difference is None
    assert result.steps


def in_motion(recording: Recording) -> tuple[int, Tick]:
    """A tick in the middle of following chunks, with a measurement."""
    ticks = [(i, t) for i, t in enumerate(recording.ticks) if t.phase == Phase.RUN and t.joint is not None]
    return ticks[len(ticks) // 2]


def test_one_bit_of_one_setpoint_is_found_at_its_tick(flights: Flights) -> None:
    recording = read_recording(flights["camera_lost"].path)
    index, tick = in_motion(recording)
    assert tick.output.setpoint is not None
    first, *others = tick.output.setpoint
    output = replace(tick.output, setpoint=(math.nextafter(first, math.inf), *others))
    ticks = (*recording.ticks[:index], replace(tick, output=output), *recording.ticks[index + 1 :])
    difference = replay(replace(recording, ticks=ticks)).difference
    assert difference is not None
    assert (difference.index, difference.what) == (index, "setpoint[0]")


def test_one_measured_position_is_found_at_its_tick(flights: Flights) -> None:
    """In motion, where the arm is bounds where it is sent: a joint elsewhere would have been clamped."""
    recording = read_recording(flights["camera_lost"].path)
    index, tick = in_motion(recording)
    assert tick.joint is not None
    elsewhere = replace(tick.joint, position=(tick.joint.position[0] - 1.0, *tick.joint.position[1:]))
    ticks = (*recording.ticks[:index], replace(tick, joint=elsewhere), *recording.ticks[index + 1 :])
    difference = replay(replace(recording, ticks=ticks)).difference
    assert difference is not None
    assert difference.index == index
