"""One simulated arm and one vla-run on it at a time, as the campaign drives them from outside.

The run is the real one (started through `saboteur`, which does nothing until it is told), with a terminal of
its own whose other end is here: keys are typed into it, and closing it is one of the faults. It is watched
through its event file. Only processes that were started here are ever signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.ask import Line, NoAnswer
from ..demo_attempts import EventFile
from . import saboteur

LOOK_S = 0.005
START_S = 60.0
"""Longest wait for a run to come up."""
END_S = 30.0
GO_ON_S = 10.0
"""Longest wait for an arm that was sent on to be back at its task."""
Event = dict[str, Any]


class HarnessError(Exception):
    """The harness could not do its part; says nothing about the product."""


class ProductError(HarnessError):
    """The product did not do what it must before or after a fault: no void, a failure."""


class StoppedEarly(ProductError):
    """A protective stop before there was any fault: a false one."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is started with, the same for every trial of a campaign."""

    bundle: Path
    robot: str
    extra: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


class Run:
    """One vla-run process and what it says."""

    def __init__(self, folder: Path, state: Path, arm: str, camera: str, options: RunOptions) -> None:
        """Starts it; returns at once. `state`: its XDG_STATE_HOME."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state = state
        self.orders = folder / "orders"
        self.orders.mkdir(exist_ok=True)
        self.events_path = state / "events.jsonl"
        self.report_path = folder / "report.json"
        self.endpoint = folder / "endpoint.sock"
        self.events_path.unlink(missing_ok=True)
        self.report_path.unlink(missing_ok=True)
        self.seen: list[Event] = []
        self._events = EventFile(self.events_path)
        self._orders = 0
        self._output = folder / "output.txt"
        self._line: Line | None = None
        self._terminal, theirs = pty.openpty()
        command = [
            *saboteur.command("run", self.orders), str(options.bundle),
            "--arm", arm, "--camera", camera, "--robot", options.robot, "--reset", "--on-stop", "wait",
            "--events", str(self.events_path), "--report", str(self.report_path),
            "--endpoint", str(self.endpoint), *options.extra,
        ]  # fmt: skip
        environment = {
            **os.environ,
            "XDG_STATE_HOME": str(state),
            "TERM": "xterm",
            **dict(options.environment),
        }
        try:
            with self._output.open("wb") as output:
                self.process = subprocess.Popen(
                    command,
                    stdin=theirs,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=_take_terminal,
                )
        finally:
            os.close(theirs)
        self.started_ns = time.monotonic_ns()

    # What it says

    def look(self) -> list[Event]:
        """The events since the last look, oldest first."""
        fresh = list(self._events.new())
        self.seen += fresh
        return fresh

    def wait(
        self,
        wanted: Callable[[Event], bool],
        timeout_s: float,
        since: int = 0,
    ) -> Event | None:
        """The first event from number `since` on that is `wanted`; None after the time-out, or when the run
        has ended without it."""
        deadline = time.monotonic() + timeout_s
        at = since
        while True:
            ended = self.process.poll() is not None
            self.look()
            for event in self.seen[at:]:
                if wanted(event):
                    return event
            at = len(self.seen)
            if ended or time.monotonic() > deadline:
                return None
            time.sleep(LOOK_S)

    def event(self, code: str, timeout_s: float, since: int = 0, source: str | None = None) -> Event | None:
        return self.wait(
            lambda event: event["code"] == code and source in (None, event["source"]), timeout_s, since
        )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def report(self) -> dict[str, Any]:
        try:
            return json.loads(self.report_path.read_text())
        except (OSError, ValueError):
            return {}

    def pid(self, role: str) -> int:
        """Of `run`, `control` or `policy`. Raises `HarnessError` before it has been started."""
        if role == "run":
            return self.process.pid
        for event in self.seen:
            if event["code"] == "started" and event["text"].startswith(role):
                return int(event["value"])
        raise HarnessError(f"no {role} process was started")

    def latched(self) -> tuple[str, int]:
        """The code in the latch file, empty without one, and when it was written (ns, monotonic)."""
        for path in sorted((self.state / "holdfast").glob("stopped-*.json")):
            with contextlib.suppress(OSError, ValueError):
                code = str(json.loads(path.read_text()).get("code", "unknown"))
                return code, path.stat().st_mtime_ns - time.time_ns() + time.monotonic_ns()
        return "", 0

    # What is done to it

    def ask(self, command: str, timeout_s: float = 5.0) -> Event:
        """Through the endpoint; its answer. Raises `ProductError` where there is none."""
        try:
            if self._line is None:
                self._line = Line(self.endpoint, timeout_s)
            return self._line.ask(command, timeout_s)
        except (OSError, NoAnswer) as error:
            self._hang_up()
            raise ProductError(f"the endpoint does not answer {command!r}: {error}") from error

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.__exit__()
            self._line = None

    def key(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def close_terminal(self) -> None:
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def send(self, role: str, number: int) -> None:
        """A signal to one of the run's own processes."""
        os.kill(self.pid(role), number)

    def order(self, role: str, timeout_s: float = 2.0, **order: Any) -> int:
        """Tells a saboteur; returns when it was done (ns). Raises `HarnessError` if it does not say so."""
        return int(self.answer(role, timeout_s, **order)["at_ns"])

    def answer(self, role: str, timeout_s: float = 2.0, **order: Any) -> dict[str, Any]:
        """As `order`; all that it says."""
        self._orders += 1
        number = self._orders
        (self.orders / f"{role}.json").write_text(json.dumps({**order, "number": number}))
        self.send(role, saboteur.ORDER)
        done = self.orders / f"{role}.done"
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            rows = _rows(done)
            row = next((row for row in rows if row["number"] == number), None)
            if row is not None:
                if row["what"] != "done":
                    raise HarnessError(f"the saboteur in {role} says {row['what']}: {row['text']}")
                return row
            time.sleep(LOOK_S)
        raise HarnessError(f"the saboteur in {role} did not obey {order} within {timeout_s:g} s")

    def end(self) -> None:
        """Whatever is left of it is killed; the report is not waited for."""
        pids = [self.process.pid]
        self._hang_up()
        self.look()
        for role in ("control", "policy"):
            with contextlib.suppress(HarnessError):
                pids.append(self.pid(role))
        for pid in pids:
            if is_ours(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.close_terminal()
        deadline = time.monotonic() + END_S
        while any(is_ours(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(LOOK_S)


def is_ours(pid: int) -> bool:
    """Whether a pid is (still) a process of a campaign's run: never signal a number that was reused."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and b"holdfast.benchmarks.faults.saboteur" in words


def state_of(pid: int) -> str:
    """The letter of /proc/PID/stat (R, S, D, T, Z); empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _take_terminal() -> None:
    """In the child: standard input becomes the terminal that controls it, as in a shell; and what a
    background job has ignored, it hears again."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own of so many megabytes, for runs that are to find it full.

    Raises `HarnessError` where it cannot be mounted (who is not root).
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "holdfast-faults", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HarnessError(f"no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def pin(core: int) -> None:
    """This process, and whatever it starts from now on, runs on one core."""
    os.sched_setaffinity(0, {core})


def python() -> str:
    return sys.executable
