"""What a person sees during a run: a live view on a terminal, a line a second elsewhere.

All output is written by a thread of its own: a terminal that is held up (Ctrl-S, a slow pipe) must not stop
the supervisor's heartbeat.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..drivers.robots.schema import Robot
from .histogram import percentile_ns
from .messages import Phase
from .run_log import RunLog
from .stages import Stage

_LIVE_S = 0.2
_PLAIN_S = 1.0
_BAR = 24
_KEYS = {
    Stage.RETURNING: "space protective stop · q quit",
    Stage.PAUSING: "space protective stop · q quit",
    Stage.ENDING: "space protective stop · q quit",
    Stage.QUITTING: "space protective stop · q or Ctrl-C stop here",
    Stage.RUNNING: "n end this task · space protective stop · q quit",
    Stage.STOPPED: "r reset (does not move the arm) · q quit",
    Stage.HELD: "n repeat the task (the arm moves) · space protective stop · q quit",
}


@dataclass(frozen=True, slots=True)
class _Line:
    text: str


class Display:
    """A `Screen` of the supervisor: `line` and `show` return at once. A context manager."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._console = Console(soft_wrap=True, highlight=False)
        self._live = self._console.is_terminal
        self._lines: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self._run: RunLog | None = None
        self._thread = threading.Thread(target=self._write, name="display", daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.put(None)
        # A terminal that takes nothing must not hold up the end of the run.
        self._thread.join(timeout=3.0)

    def line(self, text: str) -> None:
        self._lines.put(_Line(text))

    def show(self, run: RunLog) -> None:
        self._run = run

    def _write(self) -> None:
        try:
            if self._live:
                self._write_live()
            else:
                self._write_plain()
        except OSError:
            # The terminal or pipe is gone: the run goes on without being shown.
            return

    def _write_live(self) -> None:
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while self._print_lines(_LIVE_S):
                if self._run is not None:
                    live.update(render(self._run, self._robot), refresh=True)

    def _write_plain(self) -> None:
        while self._print_lines(_PLAIN_S):
            if self._run is not None:
                self._print(plain_line(self._run, time.monotonic() - self._started))

    def _print_lines(self, period_s: float) -> bool:
        """Prints what comes within one period; False at the end."""
        deadline = time.monotonic() + period_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                item = self._lines.get(timeout=left)
            except queue.Empty:
                return True
            if item is None:
                return False
            self._print(item.text)
        return True

    def _print(self, text: str) -> None:
        self._console.print(Text(text))
        sys.stdout.flush()


def plain_line(run: RunLog, elapsed_s: float) -> str:
    """The state of the run in one line."""
    snapshot, task = run.snapshot, run.task
    parts = [f"{elapsed_s:7.1f} s", run.stage.value]
    if task is not None:
        parts.append(f"task {task.task_id}/{len(run.tasks)} {task.text!r}")
    if snapshot is not None:
        parts.append(
            f"{snapshot.rate_now_hz:.0f} Hz (worst {snapshot.rate_worst_second_hz:.0f}), "
            f"missed {snapshot.missed}/{snapshot.ticks}, starved {snapshot.starved}, "
            f"clamped {snapshot.clamped}, chunk age {snapshot.chunk_age_ns / 1e6:.0f} ms"
        )
        over = _over_budget(run)
        if over:
            parts.append(f"over budget: {over}")
    return " | ".join(parts)


def render(run: RunLog, robot: Robot) -> Group:
    """The live view."""
    snapshot, task = run.snapshot, run.task
    head = Table.grid(padding=(0, 2))
    stopped = run.stage == Stage.STOPPED
    head.add_row("state", Text(run.stage.value, style="bold red" if stopped else "bold"))
    if task is not None:
        head.add_row("task", f"{task.task_id} of {len(run.tasks)}: {task.text}")
    if run.stops and stopped:
        head.add_row("stop", Text(run.stops[-1], style="red"))
    if snapshot is None:
        return Group(head)
    head.add_row("phase", Phase(snapshot.phase).name.lower())
    worst_at_s = max(0, snapshot.worst_second_ns - run.started_ns) / 1e9
    head.add_row(
        "rate",
        f"now {snapshot.rate_now_hz:.0f} Hz, average {snapshot.rate_average_hz:.2f}, "
        f"worst second {snapshot.rate_worst_second_hz:.0f} (at {worst_at_s:.0f} s)",
    )
    head.add_row(
        "ages",
        f"frame {snapshot.frame_age_ns / 1e6:.0f} ms, chunk {snapshot.chunk_age_ns / 1e6:.0f} ms, "
        f"joints {snapshot.joint_age_ns / 1e6:.1f} ms",
    )
    session = run.histograms.get(("policy", "session_run"))
    if session is not None and session.count:
        p50, p99 = (percentile_ns(session, f) / 1e6 for f in (0.5, 0.99))
        head.add_row("session.run", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {session.count} chunks")
    head.add_row(
        "misses",
        f"slots {snapshot.missed} of {snapshot.ticks}, rejected {snapshot.rejected_chunks}, "
        f"clamped {snapshot.clamped}, bus {snapshot.bus_errors}",
    )
    head.add_row(
        "starved",
        f"{snapshot.starved} times for {snapshot.starved_ns / 1e9:.2f} s; in the last 10 s "
        f"{snapshot.starved_recently} times for {snapshot.starved_recently_ns / 1e9:.2f} s",
    )
    head.add_row("over budget", _over_budget(run) or "nothing in the last 10 s")
    joints = Table.grid(padding=(0, 1))
    for index, joint in enumerate(robot.joints):
        if index < len(snapshot.position):
            joints.add_row(joint.name, *_joint(joint.limits.position, snapshot.position[index]))
    keys = _KEYS.get(run.stage, "q quit") + " · w write the recording"
    return Group(head, joints, Text(keys, style="dim"))


def _over_budget(run: RunLog) -> str:
    """The stages that took longer than their budget in the last 10 s."""
    return ", ".join(
        f"{stage} {found.window_over}/{found.window_count} above {found.budget_ns / 1e6:g} ms"
        for (_, stage), found in run.histograms.items()
        if found.window_over
    )


def _joint(limits: tuple[float, float], value: float) -> tuple[str, str]:
    low, high = limits
    place = round((min(max(value, low), high) - low) / (high - low) * (_BAR - 1))
    return "─" * place + "●" + "─" * (_BAR - 1 - place), f"{value:8.3f}"
