"""The supervisor: starts the children, carries out the `Sequence`, shows and records what happens.

It never holds the motor port and moves nothing itself. When it dies, both children notice the end of their
channels and bring the arm to its safe state.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from .channel import ChannelClosed
from .children import COMMANDS, ChildProcess, spawn_children
from .desk import Desk
from .endpoint import Endpoint
from .exit_codes import ExitCode
from .inputs import Keyboard, Signals
from .messages import Event, Heartbeat, Histogram, MessageError, Snapshot
from .notify import Notifier, RunState
from .recorder.in_supervisor import SupervisorRecorder, Written
from .recorder.records import EventRecord
from .recorder.redact import all_without_userinfo
from .run_log import Entry, RunLog, Screen, shown
from .sequence import Sequence
from .stages import Action, Child, End, Journal, Plan, Save, Send, Stage, describe_status

HEARTBEAT_NS = 100_000_000
_TURN_S = 0.05
_MAX_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class RunSetup:
    """All that `supervise` needs."""

    plan: Plan
    session: int
    configs: Mapping[Child, Mapping[str, Any]]
    log_dir: Path
    events: Path | None = None
    commands: Mapping[Child, list[str]] = field(default_factory=lambda: COMMANDS)
    recorder: SupervisorRecorder = field(default_factory=SupervisorRecorder)
    endpoint: Endpoint | None = None
    """Where other programs may ask; `supervise` closes it."""
    arm: str = ""
    notes: Items[tuple[str, str]] = ()
    """Events from before the start: code and text."""
    notifier: Notifier = field(default_factory=Notifier)


def supervise(setup: RunSetup, screen: Screen, clock: Callable[[], int] = time.monotonic_ns) -> RunLog:
    """Runs to the end, whatever happens, and returns the log with the exit code. Blocks.

    Raises `OSError` when a child cannot be started or the event file cannot be written.
    """
    log = RunLog(setup.plan, clock())
    events = setup.events.open("a", encoding="utf-8") if setup.events else None
    try:
        with Signals() as signals, Keyboard() as keyboard:
            children = spawn_children(setup.configs, setup.session, setup.log_dir, setup.commands)
            supervisor = _Supervisor(setup, log, screen, children, signals, keyboard, events, clock)
            try:
                supervisor.run()
            finally:
                supervisor.clean_up()
                supervisor.finish_recording()
    finally:
        setup.recorder.finish(None, clock())
        log.ended_ns = clock()
        if setup.endpoint is not None:
            setup.endpoint.close()
        if events is not None:
            with suppress(OSError):
                events.close()
    return log


class _Supervisor:
    def __init__(
        self,
        setup: RunSetup,
        log: RunLog,
        screen: Screen,
        children: dict[Child, ChildProcess],
        signals: Signals,
        keyboard: Keyboard,
        events: TextIO | None,
        clock: Callable[[], int],
    ) -> None:
        self._log = log
        self._screen = screen
        self._children = children
        self._signals = signals
        self._keyboard = keyboard
        self._events = events
        self._clock = clock
        self._recorder = setup.recorder
        self._sequence = Sequence(setup.plan, clock())
        self._ended: set[Child] = set()
        self._heartbeat_ns = 0
        self._notifier = setup.notifier
        self._armed = False
        self._heard_ns = 0
        """When control was last heard of, by a snapshot."""
        self._poll = select.poll()
        self._poll.register(signals, select.POLLIN)
        if keyboard.active:
            self._poll.register(keyboard, select.POLLIN)
        for child in children.values():
            self._poll.register(child.channel, select.POLLIN)
        self._endpoint = setup.endpoint
        self._desk = self._open_desk(setup)
        log.tasks = self._sequence.records
        for code, text in setup.notes:
            self._note("supervisor", code, text)

    def _open_desk(self, setup: RunSetup) -> Desk | None:
        endpoint = setup.endpoint
        if endpoint is None:
            return None
        self._poll.register(endpoint, select.POLLIN)
        self._note("supervisor", "endpoint", str(endpoint.path))
        about = {"arm": setup.arm, "pid": os.getpid()}
        recording = setup.recorder.folder is not None
        return Desk(
            endpoint,
            self._sequence,
            about,
            self._do,
            lambda code, text: self._note("supervisor", code, text),
            recording,
        )

    def run(self) -> None:
        for child in self._children.values():
            pid = child.process.pid
            self._note("supervisor", "started", f"{child.name} process {pid}", float(pid))
        while self._sequence.stage != Stage.DONE:
            ready = {fd for fd, _ in self._poll.poll(_TURN_S * 1000)}
            self._read_person(ready)
            for child in self._in_order():
                self._read_child(child)
            self._read_exits()
            self._serve()
            self._do(self._sequence.on_time(self._clock()))
            self._beat()
            self._record()
            self._tell_manager()
            self._log.stage = self._sequence.stage
            self._log.task = self._sequence.task
            self._screen.show(self._log)
        self._log.exit_code = self._sequence.verdict.exit_code
        self._log.reason = self._sequence.verdict.reason
        self._log.stops = self._sequence.verdict.stops
        self._log.schedule = self._sequence.schedule

    def clean_up(self) -> None:
        """Nothing is left running; logs without content are removed."""
        if self._desk is not None:
            self._desk.close(self._clock())
        self._notifier.close()
        for child in self._children.values():
            child.channel.close()
            if child.name not in self._ended:
                # Only after an error of our own: the closed channel makes control stop the arm first.
                _wait_or_kill(child)
            self._log.lost_messages[child.name] = child.channel.lost
            child.discard_empty_log()

    def finish_recording(self) -> None:
        """When no child lives any more: what is still to be written is written, then the rings go."""
        code: str | None = None
        if self._log.exit_code in (ExitCode.PROTECTIVE_STOP, ExitCode.INTERNAL):
            code = self._log.exit_code.name.lower()
        self._tell_written(self._recorder.finish(code, self._clock()))

    def _in_order(self) -> list[ChildProcess]:
        """Policy first: where it gave up, its own reason comes before control's remark that it is gone."""
        return [self._children["policy"], self._children["control"]]

    def _read_person(self, ready: set[int]) -> None:
        if self._signals.fileno() in ready:
            for number in self._signals.read():
                self._do(self._sequence.on_signal(number, self._clock()))
        if self._keyboard.active and self._keyboard.fileno() in ready:
            keys = self._keyboard.read()
            if keys is None:
                self._poll.unregister(self._keyboard)
            for key in keys or "":
                self._do(self._sequence.on_key(key, self._clock()))

    def _read_child(self, child: ChildProcess) -> None:
        if not child.open:
            return
        try:
            envelopes = child.channel.receive_all()
        except ChannelClosed:
            child.open = False
            self._poll.unregister(child.channel)
            return
        except MessageError as error:
            self._note("supervisor", "protocol", f"{child.name}: {error}")
            return
        for envelope in envelopes:
            message = envelope.message
            if isinstance(message, Snapshot):
                self._log.snapshot = message
                self._heard_ns = self._clock()
                self._recorder.snapshot(self._clock(), message)
                self._do(self._sequence.on_snapshot(message, self._clock()))
            elif isinstance(message, Histogram):
                self._log.histograms[child.name, message.stage] = message
            elif isinstance(message, Event):
                self._take_event(child.name, message)

    def _take_event(self, source: Child, event: Event) -> None:
        if event.code == "guard":
            self._log.guards.append(event.text)
        if (source, event.code) == ("policy", "ready") and event.text.startswith("{"):
            self._log.ready = json.loads(event.text)
        self._note(source, event.code, event.text, event.value, event.at_ns)
        if (source, event.code) == ("control", "stop"):
            self._recorder.stopped(event.text.partition(":")[0], self._clock())
        self._do(self._sequence.on_event(source, event, self._clock()))
        self._armed = self._armed or (source, event.code) == ("control", "armed")
        if self._desk is not None:
            self._desk.on_event(source, event)

    def _read_exits(self) -> None:
        for child in self._in_order():
            name = child.name
            status = None if name in self._ended else child.process.poll()
            if status is None:
                continue
            for _ in range(2):
                # What it said last (and the end of its channel) counts before the fact that it ended.
                self._read_child(child)
            self._ended.add(name)
            self._log.children[name] = describe_status(status)
            self._note("supervisor", "ended", f"{name} process: {describe_status(status)}", float(status))
            if status not in (ExitCode.FINISHED, ExitCode.REFUSED, ExitCode.PROTECTIVE_STOP):
                tail = child.log_tail()
                if tail:
                    self._screen.line(f"{name}: {tail}")
            self._do(self._sequence.on_exit(name, status, self._clock()))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Journal):
                self._note("supervisor", action.code, action.text)
            elif isinstance(action, End):
                self._children[action.child].end(action.now)
            elif isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Save) and not self._recorder.request(self._clock()):
                self._note("supervisor", "recorder", "nothing is recorded in this run")

    def _send(self, action: Send) -> None:
        child = self._children[action.child]
        if not child.open:
            return
        try:
            sent = child.channel.send(action.message)
        except ChannelClosed:
            # Its exit is noticed, and acted upon, by its exit status.
            return
        if not sent:
            kind = type(action.message).__name__
            self._note("supervisor", "late", f"{child.name} does not read: a {kind} was lost")

    def _beat(self) -> None:
        now_ns = self._clock()
        if now_ns - self._heartbeat_ns < HEARTBEAT_NS:
            return
        self._heartbeat_ns = now_ns
        control = self._children["control"]
        if control.open and "control" not in self._ended:
            try:
                control.channel.send(Heartbeat())
            except ChannelClosed:
                return

    def _serve(self) -> None:
        """Whoever asks. An endpoint that breaks is no reason to stop an arm."""
        if self._desk is None or self._endpoint is None:
            return
        try:
            self._desk.turn(self._clock())
        except OSError as error:
            self._note("supervisor", "endpoint", f"closed, the run can no longer be asked: {error}")
            self._poll.unregister(self._endpoint)
            self._desk.close(self._clock())
            self._desk = None

    def _tell_manager(self) -> None:
        if self._notifier.on:
            sequence, task = self._sequence, self._sequence.task
            of = f", task {task.task_id} of {len(sequence.records)}: {task.text}" if task else ""
            stop = f": {sequence.verdict.latched}" if sequence.verdict.latched else ""
            text = f"{sequence.stage.value}{stop}{of}"
            self._notifier.turn(RunState(sequence.stage, text, self._armed, self._heard_ns), self._clock())

    def _record(self) -> None:
        """Changes of the stage, and the files that are due or done."""
        if self._sequence.stage != self._log.stage:
            self._recorder.stage(self._clock(), self._sequence.stage.value)
        problem = self._recorder.take_problem()
        if problem:
            self._note("supervisor", "recorder", problem)
        self._tell_written(self._recorder.turn(self._clock()))

    def _tell_written(self, files: list[Written]) -> None:
        for written in files:
            if written.path is not None and str(written.path) not in self._log.recordings:
                self._log.recordings.append(str(written.path))
            self._note("supervisor", "recording", written.text)

    def _note(self, source: str, code: str, text: str, value: float = 0.0, t_ns: int = 0) -> None:
        log, task = self._log, self._sequence.task
        entry = Entry(t_ns or self._clock(), source, code, text, value, task.task_id if task else 0)
        log.counts[code] = log.counts.get(code, 0) + 1
        if len(log.entries) < _MAX_EVENTS:
            log.entries.append(entry)
        self._recorder.event(EventRecord(*astuple(entry)))
        if self._events is not None:
            self._write_event(self._events, entry, task.text if task else "")
        self._screen.line(shown(entry))

    def _write_event(self, events: TextIO, entry: Entry, task: str) -> None:
        row = {
            "t_ns": entry.t_ns,
            "source": entry.source,
            "code": entry.code,
            "text": entry.text,
            "value": entry.value,
            "task_id": entry.task_id,
            "task": task,
        }
        try:
            events.write(json.dumps(all_without_userinfo(row)) + "\n")
            events.flush()
        except OSError as error:
            # A full disk is no reason to stop an arm.
            self._events = None
            self._screen.line(f"supervisor: the event file cannot be written any more: {error}")


def _wait_or_kill(child: ChildProcess, grace_s: float = 10.0) -> None:
    deadline = time.monotonic() + grace_s
    while child.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.end(now=True)
    child.process.wait()
