"""The real vla-run as a process, on the real simulator, watched through its event file."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.drivers.feetech.bus import FeetechBus, allow_all
from holdfast.drivers.simulated.launch import Simulator
from holdfast.drivers.transport import open_port

PATIENCE_S = 30.0
"""Longest wait for anything; the machine may be busy."""
MOTOR_IDS = (1, 2, 3, 4, 5, 6)


class VlaRun:
    """One run. Its output goes to files, so that no pipe is left open by a child that outlives it."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        state: Path | None = None,
        terminal: int | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """`terminal`: the descriptor of a terminal that becomes its input and output. `prepare`: called in
        the child before it becomes vla-run."""
        folder.mkdir(parents=True, exist_ok=True)
        self.events_path = folder / "events.jsonl"
        self.report_path = folder / "report.json"
        self.state = state or folder / "state"
        self._output_path = folder / "output.txt"
        command = [sys.executable, "-m", "holdfast.runtime.cli", *arguments]
        command += ["--events", str(self.events_path), "--report", str(self.report_path)]
        with self._output_path.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=output if terminal is None else terminal,
                stderr=output,
                cwd=folder,
                env={**os.environ, "XDG_STATE_HOME": str(self.state), "TERM": "xterm"},
                start_new_session=True,
                preexec_fn=prepare if terminal is None else _take_terminal,
            )

    def __enter__(self) -> VlaRun:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def output(self) -> str:
        return self._output_path.read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        try:
            lines = self.events_path.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def event(self, code: str, timeout_s: float = PATIENCE_S, source: str | None = None) -> dict[str, Any]:
        """The first event with this code, waiting for it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for event in self.events():
                if event["code"] == code and source in (None, event["source"]):
                    return event
            if ended:
                break
            time.sleep(0.05)
        raise AssertionError(f"no event {code!r} came: {self.last_events()}; output:\n{self.output}")

    def count(self, code: str) -> int:
        return sum(event["code"] == code for event in self.events())

    def last_events(self) -> list[str]:
        """For a message: the newest ones, less the noise of a busy machine."""
        shown = [f"{e['code']}: {e['text']}" for e in self.events() if e["code"] != "bus_error"]
        return shown[-6:]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"vla-run has ended; output:\n{self.output}"
            assert time.monotonic() < deadline, f"waited in vain; events: {self.last_events()}"
            time.sleep(0.05)

    def pid_of(self, child: str) -> int:
        """Process id of `control` or `policy`."""
        return next(
            int(e["value"]) for e in self.events() if e["code"] == "started" and e["text"].startswith(child)
        )

    def finish(self, timeout_s: float = PATIENCE_S) -> int:
        """Waits for the end; the exit code."""
        return self.process.wait(timeout_s)

    def report(self) -> dict[str, Any]:
        return json.loads(self.report_path.read_text())


def _take_terminal() -> None:
    """In the child: standard input becomes the terminal that controls it, as in a shell."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def obey_permissions() -> None:
    """In the child: root, too, may then open only what the mode allows (drops CAP_DAC_OVERRIDE)."""
    dac_override, dac_read_search = 1, 2
    _drop(dac_override, dac_read_search)


def no_real_time_priority() -> None:
    """In the child: nobody, root included, may then ask for one (no CAP_SYS_NICE, no rtprio limit)."""
    sys_nice = 23
    _drop(sys_nice)
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))


def _drop(*capabilities: int) -> None:
    """From the bounding set, so that exec does not give them back (capabilities(7))."""
    prctl_drop_bounding = 24
    libc = ctypes.CDLL(None)
    for capability in capabilities:
        libc.prctl(prctl_drop_bounding, capability, 0, 0, 0)


def arm_options(simulator: Simulator) -> list[str]:
    return ["--arm", simulator.arm_url, "--camera", simulator.camera_url]


def torque(simulator: Simulator) -> list[int]:
    """The torque registers, read over the bus as any other program would."""
    port = open_port(simulator.arm_url, 1_000_000, time.monotonic_ns)
    try:
        bus = FeetechBus(port, MOTOR_IDS, allow_all, 50.0)
        return [bus.read_register(motor_id, "torque_enable", allow_faults=True) for motor_id in MOTOR_IDS]
    finally:
        port.close()


def assert_still(simulator: Simulator, tolerance_rad: float = 0.005) -> None:
    """The arm does not move (true joint positions, half a second apart; the last one is the jaw)."""
    before = simulator.truth.verdict().qpos
    time.sleep(0.5)
    after = simulator.truth.verdict().qpos
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) < tolerance_rad


def wait_gone(pid: int, timeout_s: float = PATIENCE_S) -> None:
    """Until a process that is not our child has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")
