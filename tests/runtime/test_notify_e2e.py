"""vla-run under a service manager: what the manager's real socket hears of a run on the simulated robot."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.simulated.launch import start_simulator
from holdfast.runtime.notify import FRESH_NS
from holdfast.runtime.stages import CONTROL_SILENCE_S

from .rig import PATIENCE_S, VlaRun, arm_options
from .tiny_bundle import write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]

WATCHDOG_S = 2.0


class Manager:
    """Listens at NOTIFY_SOCKET, as systemd does."""

    def __init__(self) -> None:
        self.name = f"holdfast-{os.getpid()}-{time.monotonic_ns()}"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind("\0" + self.name)
        self.heard: list[str] = []

    def listen(self, seconds: float) -> list[str]:
        """What comes within this time."""
        before, end = len(self.heard), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                self.heard.append(self._sock.recv(4096).decode())
            except TimeoutError:
                break
        return self.heard[before:]

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.heard:
            assert time.monotonic() < deadline, f"{text} never came; {self.heard[-5:]}"
            self.listen(0.2)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager()
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{made.name}")
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
    yield made
    made.close()


def test_ready_watchdog_stopping(tmp_path: Path, manager: Manager):
    bundle = write_tiny_bundle(tmp_path / "tiny.vla")
    with (
        start_simulator(tmp_path / "sim") as simulator,
        VlaRun(tmp_path / "run", str(bundle), *arm_options(simulator)) as run,
    ):
        manager.wait_for("READY=1")
        assert run.count("armed") == 1
        manager.wait_for("STATUS=running the task, task 1 of 1: touch the red cube")
        fed = manager.listen(2 * WATCHDOG_S).count("WATCHDOG=1")
        assert fed >= 4, "twice within its limit, and more"
        run.process.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert run.finish() == 143, run.output
    manager.listen(0.2)
    assert manager.heard.index("READY=1") < manager.heard.index("STOPPING=1")
    assert manager.heard.count("READY=1") == manager.heard.count("STOPPING=1") == 1
    assert any(text.startswith("EXTEND_TIMEOUT_USEC=") for text in manager.heard)


def test_nothing_feeds_the_watchdog_while_control_stands_still(tmp_path: Path, manager: Manager):
    bundle = write_tiny_bundle(tmp_path / "tiny.vla")
    with (
        start_simulator(tmp_path / "sim") as simulator,
        VlaRun(tmp_path / "run", str(bundle), *arm_options(simulator)) as run,
    ):
        run.event("running")
        assert "WATCHDOG=1" in manager.listen(WATCHDOG_S)
        os.kill(run.pid_of("control"), signal.SIGSTOP)
        manager.listen(FRESH_NS / 1e9 + WATCHDOG_S / 2)
        quiet = manager.listen(CONTROL_SILENCE_S - 3.0)
        assert run.process.poll() is None, "the supervisor itself is well"
        assert "WATCHDOG=1" not in quiet
        assert run.finish() == 5, run.output
