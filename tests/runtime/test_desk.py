"""What a run answers to those who ask: the supervisor with real processes and a real socket; the children
only speak the messages."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime import desk
from holdfast.runtime.ask import Line, NoAnswer
from holdfast.runtime.commands import COMMANDS
from holdfast.runtime.endpoint import Endpoint
from holdfast.runtime.exit_codes import ExitCode
from holdfast.runtime.run_log import RunLog
from holdfast.runtime.supervisor import supervise

from .test_supervisor import Lines, setup

Person = Callable[["Asking"], None]


class Asking(Lines):
    """A person's program: `play` runs beside the run and ends it at last."""

    def __init__(self, path: Path, play: Person) -> None:
        super().__init__()
        self.path = path
        self.answers: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self._play = play
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)
        if self.failure is not None:
            raise self.failure

    def ask(self, command: str) -> dict[str, Any]:
        with Line(self.path) as line:
            answer = line.ask(command)
        self.answers.append(answer)
        return answer

    def wait_for(self, stage: str) -> None:
        deadline = time.monotonic() + 30
        while (answer := self.ask("status"))["stage"] != stage:
            assert time.monotonic() < deadline, f"never {stage}: {answer}"
            time.sleep(0.02)

    def _run(self) -> None:
        try:
            self._play(self)
        except Exception as error:  # noqa: BLE001 - shown by `join`
            self.failure = error
        with contextlib.suppress(OSError, NoAnswer):
            self.ask("quit")


def play(folder: Path, person: Person, **options: Any) -> tuple[RunLog, Asking]:
    """A run of one endless task that waits after a stop."""
    path = folder / "arm.sock"
    made = setup(folder, **{"duration_s": None, "on_stop": "wait", **options})
    made = replace(made, endpoint=Endpoint.open(path), arm="serial:/dev/ttyARM")
    asking = Asking(path, person)
    asking.start()
    log = supervise(made, asking)
    asking.join()
    assert not path.exists()
    return log, asking


def test_status_says_all_and_changes_nothing(tmp_path: Path):
    def person(asking: Asking) -> None:
        asking.wait_for("running")

    log, asking = play(tmp_path, person, tasks=("touch", "pick"))
    status = next(answer for answer in asking.answers if answer["stage"] == "running")
    assert status == {
        "ok": True,
        "text": "",
        "stage": "running",
        "phase": "hold",
        "stop": None,
        "ready": True,
        "task": {"id": 1, "text": "touch", "outcome": "running"},
        "tasks": 2,
        "arm": "serial:/dev/ttyARM",
        "pid": os.getpid(),
    }
    assert log.exit_code == ExitCode.FINISHED
    assert log.reason.startswith(f"ended by process {os.getpid()} of user {os.getuid()}")
    assert log.counts["asked"] == 1, "only what does something is in the journal"


def test_stop_reset_next(tmp_path: Path):
    def person(asking: Asking) -> None:
        asking.wait_for("running")
        assert asking.ask("reset")["error"] == "nothing is stopped"
        stopped = asking.ask("stop")
        assert stopped["stop"] is not None, "the answer is control's, not the supervisor's hope"
        assert asking.ask("next")["error"] == "no task is under way: the arm is stopped; reset it first"
        reset = asking.ask("reset")
        assert (reset["stage"], reset["ready"], reset["stop"]) == ("held", True, None)
        going_on = asking.ask("next")
        assert (going_on["ok"], going_on["text"]) == (
            True, "the task begins again: moving to the start pose",
        )  # fmt: skip
        asking.wait_for("running")

    log, _ = play(tmp_path, person)
    assert log.exit_code == ExitCode.FINISHED
    rows = [entry.text for entry in log.entries if entry.code == "asked"]
    who = f"by process {os.getpid()} of user {os.getuid()}"
    assert rows == [f"{name}, {who}" for name in ("stop", "reset", "next", "quit")]
    assert [text.partition(": ")[0] for text in log.stops] == [f"asked for {who}"]


def test_a_reset_that_control_refuses_says_why(tmp_path: Path):
    def person(asking: Asking) -> None:
        asking.wait_for("running")
        asking.ask("stop")
        answer = asking.ask("reset")
        assert (answer["ok"], answer["error"]) == (False, "the arm is still coming to rest; try again")
        assert answer["stage"] == "stopped"

    why = "reset|refused: the arm is still coming to rest; try again"
    log, _ = play(tmp_path, person, control={"reset": why})
    assert log.exit_code == ExitCode.PROTECTIVE_STOP


def test_a_policy_that_is_not_ready_is_said_and_next_is_refused(tmp_path: Path):
    def person(asking: Asking) -> None:
        asking.wait_for("running")
        asking.ask("stop")
        answer = asking.ask("reset")
        assert (answer["ok"], answer["ready"], answer["stage"]) == (True, False, "held")
        assert answer["text"].endswith("; the policy process is not ready")
        assert "is not ready" in asking.ask("next")["error"]
        again = asking.ask("reset")
        assert again["text"] == "the stop was reset before; cameras and inputs are opened anew"

    play(tmp_path, person, policy={"reset": "fault|still not ready: front"})


def test_a_stop_right_after_the_reset_is_no_success(tmp_path: Path):
    """The cameras take their time; meanwhile somebody else stops the arm."""

    def person(asking: Asking) -> None:
        asking.wait_for("running")
        asking.ask("stop")
        beside = threading.Thread(target=lambda: (time.sleep(0.5), asking.ask("stop")))
        beside.start()
        answer = asking.ask("reset")
        beside.join()
        assert (answer["ok"], answer["stage"]) == (False, "stopped")
        assert answer["error"].startswith("it was reset, and stopped again: ")

    play(tmp_path, person, policy={"reset": "-"})


@pytest.mark.parametrize(("silent", "expected"), [("control", "has not answered"), ("policy", "not ready")])
def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str, expected: str):
    monkeypatch.setattr(desk, "CONTROL_S", 0.3)
    monkeypatch.setattr(desk, "CAMERAS_S", 0.3)

    def person(asking: Asking) -> None:
        asking.wait_for("running")
        asking.ask("stop")
        answer = asking.ask("reset")
        assert expected in answer.get("error", "") + answer.get("text", "")
        assert answer["ok"] == (silent == "policy")
        if silent == "policy":
            assert "still opening its cameras" in asking.ask("next")["error"]

    play(tmp_path, person, **{silent: {"reset": "-"}})


def test_a_stop_before_torque_ends_the_run(tmp_path: Path):
    """Nobody who asked for a stop shall see the arm begin to move."""

    def person(asking: Asking) -> None:
        answer = asking.ask("stop")
        assert (answer["ok"], answer["text"]) == (True, "the run ends before torque is given")

    log, _ = play(tmp_path, person, policy={"late_s": 5})
    assert log.exit_code == ExitCode.REFUSED
    assert "asked for a stop before torque" in log.reason
    assert log.counts.get("arming", 0) == 0


def test_what_is_not_in_the_table_is_answered_with_the_table(tmp_path: Path):
    def person(asking: Asking) -> None:
        for name in ("dance", "STOP", "", " "):
            assert asking.ask(name)["error"] == f"no such command; there are {', '.join(COMMANDS)}"
        assert asking.ask("record")["error"] == "nothing is recorded in this run"

    play(tmp_path, person)


def test_more_commands_than_anybody_needs_are_refused_but_no_stop_and_no_end(tmp_path: Path):
    def person(asking: Asking) -> None:
        asking.wait_for("running")
        errors: list[str] = []

        def hurry() -> None:
            with Line(asking.path) as line:
                errors.extend(line.ask("task_end").get("error", "") for _ in range(30))

        asking.ask("stop")
        threads = [threading.Thread(target=hurry) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert asking.ask("stop")["ok"]
        for thread in threads:
            thread.join()
        assert f"more than {desk.MOST_A_SECOND} commands in a second" in errors

    play(tmp_path, person)


def test_who_waits_when_the_run_ends_is_told(tmp_path: Path):
    def person(asking: Asking) -> None:
        asking.wait_for("running")
        asking.ask("stop")
        beside = threading.Thread(target=lambda: (time.sleep(0.3), asking.ask("quit")))
        beside.start()
        answer = asking.ask("reset")
        beside.join()
        assert answer["ok"] is False
        assert answer["error"] in ("the control process has ended", "the run is over")

    play(tmp_path, person, control={"reset": "-"})


KINDS = ("status", "garbage", "connections", "commands")


def test_nobody_who_behaves_badly_delays_a_heartbeat_or_a_stop(tmp_path: Path):
    """Control stops the arm after a second without a heartbeat; they come ten times a second."""
    still_bad: list[bool] = []

    def person(asking: Asking) -> None:
        asking.wait_for("running")
        flood = str(Path(__file__).with_name("flood.py"))
        bad = [subprocess.Popen([sys.executable, flood, str(asking.path), kind, "60"]) for kind in KINDS]
        time.sleep(3)
        # Its turn may come late, but it comes: a person's program asks again.
        for _ in range(20):
            with contextlib.suppress(OSError, NoAnswer):
                if asking.ask("stop")["ok"]:
                    break
        still_bad.extend(process.poll() is None for process in bad)
        for process in bad:
            process.kill()
            process.wait()

    log, _ = play(tmp_path, person)
    assert still_bad == [True] * len(KINDS)
    (gap,) = [
        entry.value for entry in log.entries if (entry.source, entry.code) == ("control", "heartbeat_gap")
    ]
    assert gap < 1.0
    assert [text.partition(" by ")[0] for text in log.stops] == ["asked for"]


def test_an_endpoint_that_breaks_is_no_reason_to_stop_an_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_memory(*_: Any) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    def person(asking: Asking) -> None:
        asking.wait_for("running")
        monkeypatch.setattr(Endpoint, "_admit", no_memory)
        with pytest.raises((NoAnswer, OSError)):
            asking.ask("status")

    log, _ = play(tmp_path, person, duration_s=3.0)
    assert log.exit_code == ExitCode.FINISHED
    assert log.stops == []
    told = [entry.text for entry in log.entries if entry.code == "endpoint"]
    assert told[-1].startswith("closed, the run can no longer be asked: ")
