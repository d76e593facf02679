"""What a service manager hears, at a real datagram socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from holdfast.runtime.notify import EXTEND_NS, FRESH_NS, Notifier, RunState
from holdfast.runtime.stages import Stage

S = 1_000_000_000
UNIT = Path(__file__).parents[2] / "packaging" / "holdfast.service"


class Manager:
    """The socket that NOTIFY_SOCKET names."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.setblocking(False)

    def heard(self) -> list[str]:
        """All that came since the last call, less the requests for time."""
        return [text for text in self.all() if not text.startswith("EXTEND_TIMEOUT_USEC=")]

    def all(self) -> list[str]:
        found: list[str] = []
        while True:
            try:
                found.append(self.sock.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.sock.close()


def notifier(manager: Manager, watchdog_ns: int = 0) -> Notifier:
    return Notifier(manager.sock.getsockname(), watchdog_ns)


def state(stage: Stage, *, armed: bool = True, heard_ns: int = 0, text: str = "") -> RunState:
    return RunState(stage, text or stage.value, armed, heard_ns)


def test_a_run_is_ready_once_the_arm_has_torque_and_says_when_it_ends(manager: Manager):
    ours = notifier(manager)
    ours.turn(state(Stage.STARTING, armed=False), S)
    ours.turn(state(Stage.RETURNING, armed=False), 2 * S)
    assert manager.heard() == ["STATUS=starting", "STATUS=moving to the start pose"]
    for second in (3, 4):
        ours.turn(state(Stage.RETURNING), second * S)
    assert manager.heard() == ["READY=1"]
    ours.turn(state(Stage.STOPPED, text="protective stop: load: elbow"), 5 * S)
    assert manager.heard() == ["STATUS=protective stop: load: elbow"]
    for stage in (Stage.QUITTING, Stage.LEAVING, Stage.DONE):
        ours.turn(state(stage), 6 * S)
    assert manager.heard()[:2] == ["STATUS=parking and releasing", "STOPPING=1"]
    ours.close()


def test_a_run_that_never_had_torque_is_never_ready(manager: Manager):
    ours = notifier(manager)
    ours.turn(state(Stage.STARTING, armed=False), S)
    ours.turn(state(Stage.QUITTING, armed=False), 2 * S)
    assert "READY=1" not in manager.heard()


def test_the_watchdog_is_fed_while_control_is_heard_of(manager: Manager):
    ours = notifier(manager, watchdog_ns=2 * S)
    fed_at: list[int] = []
    for now_ns in range(S, 8 * S, S // 20):
        # Control's loop stands still from the fourth second on.
        ours.turn(state(Stage.RUNNING, heard_ns=min(now_ns, 4 * S)), now_ns)
        fed_at += [now_ns] * manager.heard().count("WATCHDOG=1")
    assert fed_at[0] == S
    assert all(b - a <= S for a, b in pairwise(fed_at)), "well within its limit"
    assert fed_at[-1] <= 4 * S + FRESH_NS


def test_time_is_asked_for_while_the_run_starts_and_ends(manager: Manager):
    ours = notifier(manager)
    asked: dict[Stage, int] = {}
    for stage, armed in ((Stage.STARTING, False), (Stage.RUNNING, True), (Stage.QUITTING, True)):
        for second in range(60):
            now_ns = (100 * (len(asked) + 1) + second) * S
            ours.turn(state(stage, armed=armed), now_ns)
        rows = [text for text in manager.all() if text.startswith("EXTEND")]
        assert set(rows) <= {f"EXTEND_TIMEOUT_USEC={EXTEND_NS // 1000}"}
        asked[stage] = len(rows)
    assert asked[Stage.STARTING] >= 60 * S // EXTEND_NS * 2
    assert asked[Stage.RUNNING] <= 1
    assert asked[Stage.QUITTING] >= 60 * S // EXTEND_NS * 2


def test_a_manager_that_takes_nothing_is_told_again(manager: Manager):
    """Its queue is full: nothing blocks, and what matters is not lost."""
    ours = notifier(manager)
    turns = 0
    for turns in range(2000):
        ours.turn(state(Stage.STARTING, armed=False, text=f"turn {turns}"), S)
    ours.turn(state(Stage.RUNNING, text="now"), 2 * S)
    assert "READY=1" not in manager.heard(), f"{turns + 1} texts fill any queue"
    ours.turn(state(Stage.RUNNING, text="now"), 3 * S)
    assert manager.heard() == ["STATUS=now", "READY=1"]


def test_an_abstract_address():
    name = f"holdfast-test-{os.getpid()}"
    manager = Manager("\0" + name)
    ours = Notifier.from_environment({"NOTIFY_SOCKET": f"@{name}"})
    ours.turn(state(Stage.RUNNING), S)
    assert manager.heard() == ["STATUS=running the task", "READY=1"]
    manager.sock.close()


@pytest.mark.parametrize(
    ("environ", "on", "watchdog_ns"),
    [
        ({}, False, 0),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, False, 0),
        ({"NOTIFY_SOCKET": "/run/nobody"}, True, 0),
        ({"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "4000000"}, True, 4 * S),
        ({"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "42"}, True, 4 * S),
        ({"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "43"}, True, 0),
        ({"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "soon"}, True, 0),
    ],
)
def test_the_environment_decides(environ: dict[str, str], on: bool, watchdog_ns: int):
    ours = Notifier.from_environment(environ, pid=42)
    assert (ours.on, ours.watchdog_ns) == (on, watchdog_ns)
    # Nobody is there: nothing happens.
    ours.turn(state(Stage.RUNNING), S)
    ours.close()
    ours.turn(state(Stage.RUNNING), 2 * S)


def test_a_line_break_ends_no_message(manager: Manager):
    ours = notifier(manager)
    ours.turn(state(Stage.STARTING, armed=False, text="task\nREADY=1"), S)
    assert manager.heard() == ["STATUS=task READY=1"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_well_formed(tmp_path: Path):
    text = UNIT.read_text().replace("/opt/holdfast/bin/vla-run", sys.executable)
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_in_the_unit_restarts_or_kills_control():
    """The arm must not move by itself, and control must be left to stop it."""
    settings = dict(
        row.split("=", 1) for row in UNIT.read_text().splitlines() if row[:1].isupper() and "=" in row
    )
    assert settings["Restart"] == "no"
    assert settings["KillMode"] == "process"
    assert settings["Type"] == "notify"
    assert "WantedBy" not in settings
    assert "RestrictRealtime" not in settings
