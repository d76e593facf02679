"""The supervisor with real processes, sockets and signals; the children only speak the messages."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime.exit_codes import ExitCode
from holdfast.runtime.recorder.in_supervisor import SupervisorRecorder
from holdfast.runtime.run_log import RunLog
from holdfast.runtime.schedulability import Timing
from holdfast.runtime.stages import Child, Plan
from holdfast.runtime.supervisor import RunSetup, supervise

TIMING = Timing(steps=17, dt_s=0.05, control_period_s=0.01, frame_age_limit_s=0.3)
SCRIPT = str(Path(__file__).with_name("scripted_child.py"))
COMMANDS: dict[Child, list[str]] = {
    "control": [sys.executable, SCRIPT, "control"],
    "policy": [sys.executable, SCRIPT, "policy"],
}


class Lines:
    """A screen that keeps the lines, and may act on one."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def show(self, run: RunLog) -> None:
        self.run = run


def setup(folder: Path, *, control: dict[str, Any] | None = None, policy: dict[str, Any] | None = None,
          **plan: Any) -> RunSetup:  # fmt: skip
    values: dict[str, Any] = {
        "tasks": ("touch",), "duration_s": 0.3, "pause_s": 0.0, "on_stop": "exit", "strategy": "newest",
        "timing": TIMING, **plan,
    }  # fmt: skip
    return RunSetup(
        plan=Plan(**values),
        session=7,
        configs={"control": {"session": 7, **(control or {})}, "policy": {"session": 7, **(policy or {})}},
        log_dir=folder / "logs",
        events=folder / "events.jsonl",
        commands=COMMANDS,
    )


def test_a_run_from_start_to_end(tmp_path: Path):
    screen = Lines()
    log = supervise(setup(tmp_path, tasks=("touch", "pick")), screen)
    assert log.exit_code == ExitCode.FINISHED
    assert [task.outcome for task in log.tasks] == ["time is up"] * 2
    assert log.children == {"control": "exit code 0", "policy": "exit code 0"}
    assert log.histograms["control", "tick"].count > 0
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    own = [row["code"] for row in rows if row["code"].startswith("task_")]
    assert own == ["task_ready", "task_start", "task_end"] * 2
    assert {row["task"] for row in rows if row["task_id"] == 2} == {"pick"}
    assert not list((tmp_path / "logs").iterdir()), "logs without content are removed"


@pytest.mark.parametrize("child", ["control", "policy"])
def test_a_refusal(tmp_path: Path, child: str):
    log = supervise(setup(tmp_path, **{child: {"refuse": "no such robot"}}), Lines())
    assert log.exit_code == ExitCode.REFUSED
    assert log.reason == "no such robot"


@pytest.mark.parametrize("child", ["control", "policy"])
def test_a_child_that_crashes_at_once_shows_what_it_printed(tmp_path: Path, child: str):
    screen = Lines()
    log = supervise(setup(tmp_path, **{child: {"die": 1}}), screen)
    assert log.exit_code == ExitCode.INTERNAL
    assert any("something terrible" in line for line in screen.lines)
    assert log.children[child] == "exit code 1"


def test_a_program_that_does_not_exist_leaves_nothing_behind(tmp_path: Path):
    broken = setup(tmp_path)
    commands: dict[Child, list[str]] = {**COMMANDS, "policy": [str(tmp_path / "missing")]}
    with pytest.raises(OSError, match="missing"):
        supervise(RunSetup(broken.plan, 7, broken.configs, broken.log_dir, None, commands), Lines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_and_handlers_are_put_back(tmp_path: Path, number: signal.Signals):
    before = signal.getsignal(number)

    class Impatient(Lines):
        def line(self, text: str) -> None:
            super().line(text)
            if "running" in text:
                os.kill(os.getpid(), number)

    log = supervise(setup(tmp_path, duration_s=None), Impatient())
    assert log.exit_code == 128 + number
    assert log.tasks[0].outcome == f"ended by {number.name}"
    assert signal.getsignal(number) == before


def test_a_hangup_that_was_ignored_at_start_stays_ignored(tmp_path: Path):
    """As under nohup."""

    class Closing(Lines):
        def line(self, text: str) -> None:
            super().line(text)
            if "running" in text:
                os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        log = supervise(setup(tmp_path), Closing())
    finally:
        signal.signal(signal.SIGHUP, before)
    assert log.exit_code == ExitCode.FINISHED


def test_a_policy_killed_while_running_is_a_protective_stop(tmp_path: Path):
    class Killer(Lines):
        def line(self, text: str) -> None:
            super().line(text)
            if text.startswith("supervisor: started: policy"):
                self.policy = int(text.split()[-1])
            if "control: running" in text:
                os.kill(self.policy, signal.SIGKILL)

    log = supervise(setup(tmp_path, duration_s=None), Killer())
    assert log.exit_code == ExitCode.PROTECTIVE_STOP
    assert log.children["policy"] == "killed by SIGKILL"
    assert "ended unexpectedly (killed by SIGKILL)" in log.stops[0]


def test_sigusr1_goes_to_the_next_task(tmp_path: Path):
    def poke() -> None:
        while screen.ended < 2:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.05)

    class Counting(Lines):
        ended = 0

        def line(self, text: str) -> None:
            super().line(text)
            self.ended += "task_end" in text

    screen = Counting()
    # The default action of SIGUSR1 would end the test run itself.
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    poker = threading.Thread(target=poke)
    poker.start()
    try:
        log = supervise(setup(tmp_path, tasks=("touch", "pick"), duration_s=None), screen)
    finally:
        screen.ended = 2
        poker.join()
        signal.signal(signal.SIGUSR1, before)
    assert log.exit_code == ExitCode.FINISHED
    assert [task.outcome for task in log.tasks] == ["ended by SIGUSR1"] * 2


def test_a_recording_asked_for_where_nothing_is_recorded_is_answered(tmp_path: Path):
    class Asking(Lines):
        def line(self, text: str) -> None:
            super().line(text)
            if "control: running" in text:
                os.kill(os.getpid(), signal.SIGUSR2)

    screen = Asking()
    log = supervise(setup(tmp_path), screen)
    assert log.exit_code == ExitCode.FINISHED
    assert "supervisor: recorder: nothing is recorded in this run" in screen.lines


def test_a_recorder_without_a_place_is_said_and_stops_nothing(tmp_path: Path):
    screen = Lines()
    without = replace(setup(tmp_path), recorder=SupervisorRecorder(problem="there is no place for the rings"))
    assert supervise(without, screen).exit_code == ExitCode.FINISHED
    assert "supervisor: recorder: there is no place for the rings" in screen.lines
