"""The sequence of a run: what the supervisor does upon each thing that happens. No I/O, no clock.

`Sequence` takes events, exits of the children, signals, keys and the time, and returns `Action`s; the
supervisor carries them out. A test can therefore play any run, and any order of mishaps, without a process.
"""

from __future__ import annotations

import json
import signal

from .commands import KEYBOARD, KEYS, Outcome, refusal
from .exit_codes import ExitCode
from .messages import Event, Message, Phase, Quit, Reset, Snapshot, Stop, Task
from .schedulability import Schedule, schedule
from .stages import (
    CONTROL_SILENCE_S,
    DEADLINES_S,
    LAST_GRACE_S,
    Action,
    Child,
    End,
    Journal,
    Plan,
    Save,
    Send,
    Stage,
    TaskRecord,
    arm_message,
    describe_status,
)
from .verdict import Verdict

_SECOND = 1_000_000_000


class Sequence:
    """One run. Every method returns the actions to carry out, in order."""

    def __init__(self, plan: Plan, now_ns: int) -> None:
        self.plan = plan
        self.stage = Stage.STARTING
        self.records = [TaskRecord(i + 1, text) for i, text in enumerate(plan.tasks)]
        self.phase = Phase.CONNECT
        self.schedule: Schedule | None = None
        """Whether the policy is fast enough, once it has been measured."""
        self.policy_asked = False
        """The policy process is opening its cameras anew and has not said yet whether it is ready."""
        self.verdict = Verdict()
        """What the process exits with, and why: final once `stage` is DONE."""
        self._index = 0
        self._since_ns = now_ns
        self._connected = self._ticking = self._ready = False
        self._control_heard_ns = now_ns
        self.alive: set[Child] = {"control", "policy"}
        self._policy_well = True
        self._reset_asked = False
        self._asked_here_ns: int | None = None
        self._late = False

    @property
    def task(self) -> TaskRecord | None:
        """The task under way or next; None after the last."""
        return self.records[self._index] if self._index < len(self.records) else None

    @property
    def policy_ready(self) -> bool:
        """Whether a task could begin."""
        return self._ready and self._policy_well and "policy" in self.alive

    def on_event(self, child: Child, event: Event, now_ns: int) -> list[Action]:
        """An event of a child."""
        if child == "control":
            self._control_heard_ns = now_ns
        handler = {
            ("control", "connected"): self._on_connected,
            ("policy", "ready"): self._on_ready,
            ("control", "refused"): self._on_refused,
            ("policy", "refused"): self._on_refused,
            ("policy", "fault"): self._on_policy_fault,
            ("control", "at_start"): self._on_at_start,
            ("control", "holding"): self._on_holding,
            ("control", "stop"): self._on_stop,
            ("control", "reset"): self._on_reset,
        }.get((child, event.code))
        return handler(event, now_ns) if handler else []

    def on_snapshot(self, snapshot: Snapshot, now_ns: int) -> list[Action]:
        """Control is alive and says in which phase."""
        self._control_heard_ns = now_ns
        self.phase = snapshot.phase
        self._ticking = True
        return self._begin_if_ready(now_ns)

    def on_exit(self, child: Child, status: int, now_ns: int) -> list[Action]:
        """A child has ended; `status` as of `subprocess` (negative: the signal that killed it)."""
        self.alive.discard(child)
        self.policy_asked = self.policy_asked and child != "policy"
        handler = self._control_exit if child == "control" else self._policy_exit
        return handler(status, now_ns)

    def on_signal(self, number: int, now_ns: int) -> list[Action]:
        """SIGINT, SIGTERM and SIGHUP end the run; SIGUSR1 ends the task under way;
        SIGUSR2 asks for a recording."""
        if number == signal.SIGUSR2:
            return [Save()]
        if number == signal.SIGUSR1:
            return self._finish_task(now_ns, "ended by SIGUSR1") if self.stage == Stage.RUNNING else []
        name = signal.Signals(number).name
        verdict = self.verdict
        if verdict.signal is not None or self.stage == Stage.QUITTING:
            verdict.signal = verdict.signal or number
            text = f"{name} while ending: stopping here, no further motion"
            return [Journal("signal", text), *self._here(now_ns)]
        verdict.signal = number
        verdict.reason = verdict.reason or f"ended by {name}"
        return [Journal("signal", name), *self._quit(now_ns)]

    def on_key(self, key: str, now_ns: int) -> list[Action]:
        """A key pressed at the terminal: those of the table of commands; others do nothing."""
        return list(self.ask(KEYS[key], now_ns).actions) if key in KEYS else []

    def ask(self, name: str, now_ns: int, by: str = KEYBOARD) -> Outcome:
        """A command of the table, from the keyboard or the endpoint; `by`: who asks."""
        why_not = refusal(name, self.stage)
        if why_not:
            return Outcome(refusal=why_not)
        match name:
            case "record":
                return Outcome([Save()], "a recording is written")
            case "stop":
                return self._protective_stop(now_ns, by)
            case "reset":
                return self._ask_reset()
            case "quit":
                return self._ask_quit(now_ns, by)
            case "next" if self.stage == Stage.HELD:
                return self._go_on(now_ns)
            case "next" | "task_end":
                return Outcome(self._finish_task(now_ns, f"ended by {by}"), "the task ends")
        return Outcome()

    def _protective_stop(self, now_ns: int, by: str) -> Outcome:
        reason = "a person pressed the space bar" if by == KEYBOARD else f"asked for by {by}"
        if self.verdict.latched:
            # As far as is known here: a reset may be on its way.
            text = f"the arm is stopped already: {self.verdict.latched}"
            return Outcome([Send("control", Stop(True, reason))], text)
        if self.stage == Stage.STARTING:
            # Nobody who asked for a stop shall see the arm begin to move.
            self.verdict.refuse(f"{by} asked for a stop before torque was given")
            return Outcome(self._quit(now_ns), "the run ends before torque is given")
        return Outcome([Send("control", Stop(True, reason))], "control stops", awaits=("stop",))

    def _ask_reset(self) -> Outcome:
        if self.stage == Stage.HELD:
            # Control opens what it has lost of its inputs.
            actions = [Send("control", Reset()), *self._reopen()]
            return Outcome(actions, "the stop was reset before; cameras and inputs are opened anew")
        self._reset_asked = True
        return Outcome([Send("control", Reset()), *self._reopen()], "the stop is reset", awaits=("reset",))

    def _reopen(self) -> list[Action]:
        """The policy process opens its cameras anew, and says whether it is ready."""
        self._policy_well, self.policy_asked = False, "policy" in self.alive
        return self._to("policy", Reset())

    def _ask_quit(self, now_ns: int, by: str) -> Outcome:
        if self.stage == Stage.QUITTING:
            text = "stopping here, no further motion"
            return Outcome([Journal("signal", f"q again: {text}"), *self._here(now_ns)], text)
        self.verdict.reason = self.verdict.reason or f"ended by {by}"
        return Outcome(self._quit(now_ns, asked=True), "the run ends")

    def _go_on(self, now_ns: int) -> Outcome:
        """After a reset: the interrupted task again, from the start pose, if there is a policy to do it."""
        if "policy" not in self.alive:
            return Outcome(self._quit(now_ns), "the policy process has ended; the run ends")
        if not self._policy_well:
            why = "is not ready; remove the cause and press r again"
            if self.policy_asked:
                why = "is still opening its cameras; try again"
            text = f"the policy process {why}"
            return Outcome([Journal("fault", text)], refusal=text)
        return Outcome(self._return(now_ns), "the task begins again", awaits=("arming", "stop"))

    def on_time(self, now_ns: int) -> list[Action]:
        """Everything that time alone decides; called often."""
        if self.stage == Stage.PAUSING and self._stayed_s(now_ns) >= self.plan.pause_s:
            return self._start_task(now_ns)
        duration = self.plan.duration_s
        if self.stage == Stage.RUNNING and duration is not None and self._stayed_s(now_ns) >= duration:
            return self._finish_task(now_ns, "time is up")
        if "control" in self.alive and self._connected:
            silence_s = (now_ns - self._control_heard_ns) / _SECOND
            if silence_s > CONTROL_SILENCE_S:
                self._connected = False
                text = f"the control process has been silent for {silence_s:.1f} s and was killed"
                self.verdict.internal(text)
                return [Journal("late", text), *self._end_policy(True), End("control", now=True)]
        here_ns = self._asked_here_ns
        if here_ns is not None and "control" in self.alive and now_ns - here_ns > LAST_GRACE_S * _SECOND:
            self.verdict.internal("the control process did not stop in time and was killed")
            return [End("control", now=True)]
        limit_s = DEADLINES_S.get(self.stage)
        if self.stage == Stage.QUITTING and not self._connected:
            limit_s = LAST_GRACE_S
        if limit_s is None or self._stayed_s(now_ns) <= limit_s:
            return []
        return self._too_late(now_ns, limit_s)

    def _too_late(self, now_ns: int, limit_s: float) -> list[Action]:
        if self.stage == Stage.LEAVING:
            return [End("policy", now=True)]
        if self._late:
            return []
        self._late = True
        waited_for = "" if self.stage != Stage.STARTING else f": {self._missing()} not ready"
        self.verdict.internal(f"no answer within {limit_s:.0f} s while {self.stage.value}{waited_for}")
        actions: list[Action] = [Journal("late", self.verdict.reason), *self._end_policy(True)]
        if self.stage != Stage.QUITTING:
            actions += self._pause_policy(now_ns, "no answer in time")
            self._enter(Stage.QUITTING, now_ns)
        # What does not answer as expected shall not move any more.
        return [*actions, *self._here(now_ns)]

    def _missing(self) -> str:
        names = [("control", self._connected), ("policy", self._ready)]
        return " and ".join(name for name, there in names if not there)

    # What the children say

    def _on_connected(self, event: Event, now_ns: int) -> list[Action]:
        self._connected = True
        return self._begin_if_ready(now_ns)

    def _on_ready(self, event: Event, now_ns: int) -> list[Action]:
        self._policy_well, self.policy_asked = True, False
        if self._ready:
            return self._begin_if_ready(now_ns)
        self._ready = True
        plan, measured = self.plan, json.loads(event.text) if event.text.startswith("{") else {}
        self.schedule = schedule(plan.timing.with_measured(event.value / 1e3, measured), plan.strategy)
        shown: list[Action] = [Journal("schedule", line) for line in self.schedule.lines]
        if self.schedule.ok:
            return [*shown, *self._begin_if_ready(now_ns)]
        self.verdict.refuse(f"{plan.strategy} chunks cannot be scheduled: {self.schedule.problem}")
        return [*shown, *self._quit(now_ns)]

    def _on_policy_fault(self, event: Event, now_ns: int) -> list[Action]:
        # Control has the fault too, and stops; here it only matters for going on after a reset.
        self._policy_well = self.policy_asked = False
        return []

    def _begin_if_ready(self, now_ns: int) -> list[Action]:
        # Arming waits for a first tick, so that the time it took to connect counts as no missed slot.
        if self.stage == Stage.STARTING and self._connected and self._ticking and self._ready:
            return self._return(now_ns)
        return []

    def _on_refused(self, event: Event, now_ns: int) -> list[Action]:
        if event.text.startswith("policy_lost"):
            # A consequence: how the policy process ended decides.
            return []
        self.verdict.refuse(event.text)
        return self._quit(now_ns)

    def _on_at_start(self, event: Event, now_ns: int) -> list[Action]:
        task = self.task
        if self.stage != Stage.RETURNING or task is None:
            return []
        task.ready_ns = now_ns
        self._enter(Stage.PAUSING, now_ns)
        return [Journal("task_ready", task.text)]

    def _on_holding(self, event: Event, now_ns: int) -> list[Action]:
        if self.stage != Stage.ENDING:
            return []
        self._index += 1
        if self.task is None:
            self.verdict.reason = self.verdict.reason or "all tasks done"
            return self._quit(now_ns)
        return self._return(now_ns)

    def _on_stop(self, event: Event, now_ns: int) -> list[Action]:
        self.verdict.stop(event.text)
        self._reset_asked = False
        actions = self._pause_policy(now_ns, "protective stop")
        if self.stage in (Stage.QUITTING, Stage.LEAVING, Stage.DONE):
            return actions
        self._enter(Stage.STOPPED, now_ns)
        return [*actions, *(self._quit(now_ns) if self.plan.on_stop == "exit" else [])]

    def _on_reset(self, event: Event, now_ns: int) -> list[Action]:
        asked, self._reset_asked = self._reset_asked, False
        if self.stage != Stage.STOPPED or event.text.startswith("refused"):
            return []
        self.verdict.reset()
        self._enter(Stage.HELD, now_ns)
        # A reset line is read by control alone. It moves for no order from before we knew of that; this says
        # that we do. The cameras are opened anew all the same.
        return [] if asked else [Send("control", Reset()), *self._reopen()]

    # Steps

    def _return(self, now_ns: int) -> list[Action]:
        self._enter(Stage.RETURNING, now_ns)
        return [Send("control", arm_message(self.task, self.schedule, follow=False))]

    def _start_task(self, now_ns: int) -> list[Action]:
        task = self.task
        assert task is not None
        task.start_ns, task.outcome = now_ns, "running"
        self._enter(Stage.RUNNING, now_ns)
        return [
            Journal("task_start", task.text),
            Send("policy", Task(task.task_id, task.text)),
            Send("control", arm_message(self.task, self.schedule, follow=True)),
        ]

    def _finish_task(self, now_ns: int, outcome: str) -> list[Action]:
        actions = self._pause_policy(now_ns, outcome)
        self._enter(Stage.ENDING, now_ns)
        return [*actions, Send("control", Stop(False, f"task finished: {outcome}"))]

    def _pause_policy(self, now_ns: int, outcome: str) -> list[Action]:
        """The policy pauses; the task under way is closed with `outcome`."""
        task = self.task
        if task is None or task.outcome != "running":
            return []
        task.end_ns, task.outcome = now_ns, outcome
        return [*self._to("policy", Task(task.task_id, "")), Journal("task_end", f"{task.text}: {outcome}")]

    def _quit(self, now_ns: int, *, asked: bool = False) -> list[Action]:
        """Ends the run: control first (it stops, parks and releases), then the policy process. `asked`: by a
        person who named just that."""
        if self.stage in (Stage.QUITTING, Stage.LEAVING, Stage.DONE):
            return []
        actions = self._pause_policy(now_ns, self.verdict.reason or "ended")
        if "control" not in self.alive:
            return [*actions, *self._leave(now_ns)]
        # Who ends a run that is stopped does not mean the arm to move, whatever control makes of a reset. And
        # after a reset somebody may have their hands at it: a lost terminal, say, must not have it parked.
        held = self.stage == Stage.HELD and not asked
        self._enter(Stage.QUITTING, now_ns)
        return [*actions, Send("control", Quit(park=not (self.verdict.stopped or held)))]

    def _here(self, now_ns: int) -> list[Action]:
        """Stop and hold in place, without parking."""
        if "control" not in self.alive or self._asked_here_ns is not None:
            return []
        self._asked_here_ns = now_ns
        return [Send("control", Quit(park=False))]

    def _leave(self, now_ns: int) -> list[Action]:
        if "policy" not in self.alive:
            self._enter(Stage.DONE, now_ns)
            return []
        self._enter(Stage.LEAVING, now_ns)
        # Before it is ready it does not read its channel; it holds nothing that needs care.
        return [Send("policy", Quit())] if self._ready else self._end_policy(False)

    def _end_policy(self, now: bool) -> list[Action]:
        return [End("policy", now)] if "policy" in self.alive else []

    def _control_exit(self, status: int, now_ns: int) -> list[Action]:
        self.verdict.control_ended(status, asked=self.stage == Stage.QUITTING)
        return [*self._pause_policy(now_ns, self.verdict.reason or "ended"), *self._leave(now_ns)]

    def _policy_exit(self, status: int, now_ns: int) -> list[Action]:
        text = f"the policy process ended unexpectedly ({describe_status(status)})"
        if self.stage == Stage.LEAVING:
            self._enter(Stage.DONE, now_ns)
            return []
        if self.stage == Stage.QUITTING:
            # Often the cause of the stop that control has noticed first.
            return [Journal("fault", text)] if status not in (0, ExitCode.REFUSED) else []
        if status == ExitCode.REFUSED and self.stage == Stage.STARTING:
            self.verdict.refuse(self.verdict.reason or "the policy process refused to start")
            return self._quit(now_ns)
        if self.stage == Stage.STARTING:
            self.verdict.internal(text)
            return [Journal("fault", text), *self._quit(now_ns)]
        # Control notices by itself (end of the channel) and stops; the message only makes sure.
        self.verdict.policy_lost = True
        return [Journal("fault", text), Send("control", Stop(True, text))]

    # Small things

    def _to(self, child: Child, message: Message) -> list[Action]:
        return [Send(child, message)] if child in self.alive else []

    def _enter(self, stage: Stage, now_ns: int) -> None:
        self.stage, self._since_ns = stage, now_ns

    def _stayed_s(self, now_ns: int) -> float:
        return (now_ns - self._since_ns) / _SECOND
