"""One trial: an arm in motion, a fault at a random moment, and what the observer saw of it.

A trial is void only for what has nothing to do with its outcome, and that is decided before anybody has
looked at it: the system did not come up, it had stopped before the fault, the fault could not be made sure
of, or the simulated arm itself fell behind its own clock.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...drivers.robots.schema import Robot, load_robot
from .bounds import BOUNDS, END_NS, Configuration, configuration
from .classes import FaultClass
from .inject import Injected, inject
from .observer import NotObserved, Observer
from .rig import Rig
from .sweep import PERIOD_S
from .system import GO_ON_S, LOOK_S, HarnessError, Run
from .verdict import REST_NS, Stop, Timeline, Verdict, judge

PHASE_S = (0.05, 0.05 + PERIOD_S)
"""How long after the task began the fault comes: anywhere on the curve."""
LATCHED_S = 0.1
"""How long a stopped arm is watched once it stands, and again after the reset."""
RESTART_LATCHED_S = 0.4
GRACE_NS = 500_000_000
"""So much longer than its bound a stop is waited for, so that a late one is seen as late."""
RESET_S = 4.0
ASK_S = 0.1
"""Between two requests: vla-run takes 20 in a second."""

MOST_LAG_S = 0.1
"""The simulated arm may be behind its own clock by so much."""
UNFINISHED = ("", "unfinished")


@dataclass(frozen=True, slots=True)
class Trial:
    """What is written down of one."""

    name: str
    number: int
    seed: int
    phase_s: float
    detail: str
    void: str
    """Why it does not count; empty where it does."""
    verdict: Verdict | None
    stop: str = ""
    category: int = 0
    """Of the stop, by IEC 60204-1; 0 also where there was none."""
    reset_refused: str = ""
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        return {"class": self.name, **{k: v for k, v in asdict(self).items() if k != "name"}}


class Bench:
    """A rig with its observer; runs trials one after another."""

    def __init__(self, rig: Rig, robot: str = "sim_arm") -> None:
        self.rig = rig
        self._robot: Robot = load_robot(robot)
        self._observer: Observer | None = None
        self._generation = 0
        self._judged_ns = 0
        """The wire has been judged up to here."""
        self._going: tuple[Run, int] | None = None
        """The run whose arm was sent on, and how many events it had told before."""

    def close(self) -> None:
        if self._observer is not None:
            self._observer.close()
            self._observer = None

    def trial(self, row: FaultClass, number: int, seed: int) -> Trial:
        """Never raises for what happens to the system under test."""
        started = time.monotonic()
        dice = random.Random(f"{seed} {row.name} {number}")
        phase_s = dice.uniform(*PHASE_S)
        blank = Trial(row.name, number, seed, round(phase_s, 4), "", "", None)
        try:
            trial = self._trial(row, dice, blank)
        except HarnessError as error:
            self.end_run()
            trial = replace(blank, void=str(error))
        return replace(trial, seconds=round(time.monotonic() - started, 3))

    def _trial(self, row: FaultClass, dice: random.Random, blank: Trial) -> Trial:
        injection = dice.choice(row.how)
        run = self.rig.ready(row.system)
        observer = self._observe()
        running_ns = self._running(run)
        c = self._configuration(run)
        left_s = blank.phase_s - (time.monotonic_ns() - running_ns) / 1e9
        if left_s > 0:
            time.sleep(left_s)
        run.look()
        mark = len(run.seen)
        if any(event["code"] == "stop" for event in run.seen[self._since(run) :]):
            raise HarnessError(f"stopped before the fault: {_last_stop(run)}")
        first = injected = inject(injection, self.rig, run, dice)
        try:
            if row.then is not None:
                time.sleep(row.last_s)
                if run.ask("status")["stop"] is not None:
                    row = replace(row, outcome="ride_through")
                else:
                    injected = inject(row.then, self.rig, run, dice)
            line = _WATCH[row.outcome](run, row, c, mark, injected.at_ns)
            line = replace(line, begin_ns=self._judged_ns or running_ns)
            if line.stop is not None and 0 < line.stop.at_ns < first.at_ns:
                raise HarnessError(f"stopped before the fault: {line.stop.code}")
        finally:
            with contextlib.suppress(HarnessError):
                injected.mend()
                first.mend()
        refused = ""
        # What was ridden through goes on, also where the run was started in its own way.
        unscathed = row.outcome == "ride_through" and line.stop is None
        goes_on = (not row.restart or unscathed) and run.process.poll() is None
        if goes_on and line.stop is not None:
            line, refused = self._go_on(run, line)
        verdict, void = self._judge(row, c, line, observer)
        self._judged_ns = line.next_ns or line.watched_ns
        if goes_on and row.outcome == "contained" and line.stop is None:
            goes_on = self._freshen(run)
        if not goes_on or refused:
            self.end_run()
        code, category = (line.stop.code, line.stop.category) if line.stop is not None else ("", 0)
        return replace(
            blank,
            detail=first.detail,
            void=void,
            verdict=verdict,
            stop=code,
            category=category,
            reset_refused=refused,
        )

    def _judge(
        self, row: FaultClass, c: Configuration, line: Timeline, observer: Observer
    ) -> tuple[Verdict | None, str]:
        end_ns = line.next_ns or line.watched_ns
        try:
            observer.read_until(end_ns + 1)
            lag = observer.lag(line.fault_ns - REST_NS, end_ns)
            if lag.worst_s > MOST_LAG_S or lag.skipped_s > 0:
                what = f"{lag.worst_s * 1e3:.0f} ms late, {lag.skipped_s * 1e3:.0f} ms given up"
                return None, f"the simulated arm fell behind: {what}"
            return judge(row, c, line, observer, self._robot.exit.stop_category), ""
        except NotObserved as error:
            return None, f"not observed: {error}"

    # The run between two trials

    def _running(self, run: Run) -> int:
        """Waits until the task is under way; since when it is."""
        since = self._since(run)
        event = run.event("running", GO_ON_S, since)
        if event is None:
            raise HarnessError(f"the arm did not begin its task: {_tell(run, since)}")
        return int(event["t_ns"])

    def _since(self, run: Run) -> int:
        return self._going[1] if self._going is not None and self._going[0] is run else 0

    def _go_on(self, run: Run, line: Timeline) -> tuple[Timeline, str]:
        """Resets the stop, watches, lets the arm go on. Also why that was refused."""
        try:
            return self._reset(run, line)
        except HarnessError as error:
            return line, str(error)

    def _reset(self, run: Run, line: Timeline) -> tuple[Timeline, str]:
        deadline = time.monotonic() + RESET_S
        while True:
            answer = run.ask("reset")
            if answer["ok"]:
                break
            if time.monotonic() > deadline:
                return line, str(answer.get("error"))
            time.sleep(ASK_S)
        reset_ns = time.monotonic_ns()
        time.sleep(LATCHED_S)
        while True:
            run.look()
            mark, next_ns = len(run.seen), time.monotonic_ns()
            answer = run.ask("next")
            if answer["ok"]:
                break
            if time.monotonic() > deadline:
                return line, str(answer.get("error"))
            time.sleep(ASK_S)
        self._going = (run, mark)
        return replace(line, reset_ns=reset_ns, next_ns=next_ns), ""

    def _freshen(self, run: Run) -> bool:
        """Wherever the arm was led, the next trial begins anew: a stop, a reset, the start pose. False where
        that does not succeed."""
        run.look()
        mark = len(run.seen)
        try:
            run.ask("stop")
        except HarnessError:
            return False
        if run.event("stopped", GO_ON_S, mark) is None:
            return False
        _, refused = self._go_on(run, Timeline(0, 0, 0))
        return not refused

    def end_run(self) -> None:
        self._going = None
        self._judged_ns = 0
        self.rig.end_run()

    def _observe(self) -> Observer:
        if self._observer is None or self._generation != self.rig.generation:
            self.close()
            self._observer = Observer.of_robot(self.rig.wire_log, self._robot.name)
            self._generation = self.rig.generation
            self._judged_ns = 0
        return self._observer

    def _configuration(self, run: Run) -> Configuration:
        try:
            return configuration(self._robot, self._robot.control.hz, run.seen)
        except ValueError as error:
            raise HarnessError(str(error)) from error


# Watching, by what is expected


def _watch_stop(run: Run, row: FaultClass, c: Configuration, mark: int, fault_ns: int) -> Timeline:
    bound_ns = BOUNDS[row.bound].of(c)
    stop, rest_ns = _stop_of(run, row, mark, fault_ns + bound_ns + GRACE_NS, c)
    settled_ns = max(rest_ns or time.monotonic_ns(), fault_ns) + REST_NS
    watched_s = RESTART_LATCHED_S if row.restart else LATCHED_S
    _sleep_until(settled_ns + round(watched_s * 1e9))
    return Timeline(0, fault_ns, time.monotonic_ns(), stop=stop, rest_ns=rest_ns)


def _stop_of(
    run: Run, row: FaultClass, mark: int, until_ns: int, c: Configuration
) -> tuple[Stop | None, int]:
    """The stop and when the arm was said to be at rest; from the events, the endpoint or the latch file,
    whichever the fault has left."""
    rest_s = (c.stopping_ns + c.easing_ns) / 1e9 + 1.0
    if row.system == "small disk":
        told = None
        with contextlib.suppress(HarnessError):
            told = run.ask("status")["stop"]
        at_ns = time.monotonic_ns()
        time.sleep(rest_s / 2)
        return (Stop(str(told["code"]), at_ns), 0) if told else (None, 0)
    deaf = any(how.arguments.get("role") == "run" for how in row.how)
    while time.monotonic_ns() < until_ns + (round(rest_s * 1e9) if deaf else 0):
        event = run.event("stop", LOOK_S, mark, source="control")
        if event is not None:
            rest = run.event("stopped", rest_s, mark, source="control")
            return _stop_from(event), int(rest["t_ns"]) if rest is not None else 0
        if deaf and run.latched() not in UNFINISHED:
            return Stop(run.latched(), 0), time.monotonic_ns()
        if run.process.poll() is not None:
            time.sleep(LOOK_S)
    return None, 0


def _stop_from(event: dict[str, Any]) -> Stop:
    return Stop(str(event["text"]).partition(":")[0], int(event["t_ns"]), int(event["value"]))


def _watch_for(run: Run, row: FaultClass, c: Configuration, mark: int, fault_ns: int) -> Timeline:
    """For as long as the fault lasts, or until the arm has stopped."""
    until_ns = fault_ns + round(row.last_s * 1e9)
    while time.monotonic_ns() < until_ns:
        event = run.event("stop", LOOK_S, mark, source="control")
        if event is not None:
            rest = run.event("stopped", (c.stopping_ns + c.easing_ns) / 1e9 + 1.0, mark, source="control")
            rest_ns = int(rest["t_ns"]) if rest is not None else 0
            _sleep_until((rest_ns or time.monotonic_ns()) + REST_NS + round(LATCHED_S * 1e9))
            return Timeline(0, fault_ns, time.monotonic_ns(), stop=_stop_from(event), rest_ns=rest_ns)
        time.sleep(LOOK_S)
    return Timeline(0, fault_ns, time.monotonic_ns())


def _watch_park(run: Run, row: FaultClass, c: Configuration, mark: int, fault_ns: int) -> Timeline:
    most_ns = fault_ns + BOUNDS[row.bound].of(c) + c.stopping_ns + c.parking_ns + END_NS + GRACE_NS
    line = _watch_end(run, mark, fault_ns, most_ns, lambda event: event["code"] == "signal")
    released = next((e for e in run.seen[mark:] if e["code"] == "released"), None)
    return replace(line, released_ns=int(released["t_ns"]) if released is not None else 0)


def _watch_coast(run: Run, row: FaultClass, c: Configuration, mark: int, fault_ns: int) -> Timeline:
    most_ns = fault_ns + BOUNDS[row.bound].of(c) + END_NS + GRACE_NS

    def noticed(event: dict[str, Any]) -> bool:
        return event["code"] == "late" or (
            event["code"] == "ended" and str(event["text"]).startswith("control")
        )

    return _watch_end(run, mark, fault_ns, most_ns, noticed)


def _watch_end(
    run: Run, mark: int, fault_ns: int, most_ns: int, noticed: Callable[[dict[str, Any]], bool]
) -> Timeline:
    """Until vla-run has ended."""
    while run.process.poll() is None and time.monotonic_ns() < most_ns:
        run.look()
        if any(event["code"] == "stop" for event in run.seen[mark:]) and _waits(run):
            # It waits for a person: end it as one would.
            run.key("q")
        time.sleep(LOOK_S)
    exited_ns = time.monotonic_ns() if run.process.poll() is not None else 0
    time.sleep(LATCHED_S)
    run.look()
    fresh = run.seen[mark:]
    stop = next((e for e in fresh if e["code"] == "stop" and e["source"] == "control"), None)
    rest = next((e for e in fresh if e["code"] == "stopped"), None)
    told = next((e for e in fresh if noticed(e)), None)
    return Timeline(
        0,
        fault_ns,
        time.monotonic_ns(),
        stop=_stop_from(stop) if stop is not None else None,
        rest_ns=int(rest["t_ns"]) if rest is not None else 0,
        noticed_ns=int(told["t_ns"]) if told is not None else 0,
        exit_code=run.process.poll(),
        exited_ns=exited_ns,
    )


def _waits(run: Run) -> bool:
    return any(event["code"] == "stopped" for event in run.seen[-10:])


_WATCH: dict[str, Callable[[Run, FaultClass, Configuration, int, int], Timeline]] = {
    "stop": _watch_stop,
    "park": _watch_park,
    "coast": _watch_coast,
    "contained": _watch_for,
    "ride_through": _watch_for,
}


def _sleep_until(t_ns: int) -> None:
    time.sleep(max(0.0, (t_ns - time.monotonic_ns()) / 1e9))


def _last_stop(run: Run) -> str:
    return next((str(e["text"]) for e in reversed(run.seen) if e["code"] == "stop"), "")


def _tell(run: Run, since: int) -> str:
    rows = [f"{e['code']}: {e['text']}" for e in run.seen[since:] if e["code"] != "bus_error"]
    return "; ".join(rows[-4:]) or "it said nothing"


__all__ = ["Bench", "Injected", "Trial"]
