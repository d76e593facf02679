"""One trial: an arm in motion, a fault at a random moment, and what the witness saw of it.

A trial is void only for what has nothing to do with the product: the fault could not be made sure of, or the
simulated arm itself fell behind its own clock. What the observer saw of it is written down all the same.
Where the product does not do its part (it does not come up, stops before the fault, does not go on after it),
that is a failure, and counts.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...drivers.robots.schema import Robot, load_robot
from ...drivers.simulated.errors import SimulatorError
from .bounds import Configuration, configuration
from .classes import FaultClass
from .inject import Injected, inject
from .observer import NotObserved
from .outcomes import REST_NS
from .rig import Rig
from .sweep import PERIOD_S
from .system import GO_ON_S, LOOK_S, HarnessError, ProductError, Run, StoppedEarly
from .timeline import Timeline
from .verdict import MOVING_NS, MOVING_RAD, Verdict, judge
from .watch import ASK_S, LATCHED_S, WATCH
from .witness import Witness

PHASE_S = (0.05, 0.05 + PERIOD_S)
"""How long after the arm began to move the fault comes: anywhere on the curve."""
LONG_EVERY, LONG_LATCHED_S = 10, 1.0
"""In one of so many trials the latched arm is watched so long."""
AFTERMATH_S, REVIVED_S = 0.2, 1.0
"""How long an arm whose run will not go on is watched once the fault is mended; where vla-run itself was
frozen and comes back, longer."""
RESET_S = 4.0
THEN_S = 5.0

MOST_LAG_S = 0.1
"""The simulated arm may be behind its own clock by so much."""


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
    """Also of a void one, where there is one."""
    failure: str = ""
    """What the product did not do, apart from what the verdict says; such a trial counts."""
    wire: tuple[str, ...] = ()
    """Escapes on the wire that no verdict has: before, or without, or after one. They count, void or not."""
    stop: str = ""
    category: int | None = None
    """Of the stop, by IEC 60204-1; None also where it was not told."""
    reset_refused: str = ""
    clean_s: float = 0.0
    """How long the arm had moved before the fault."""
    early_stop: bool = False
    """A protective stop before the fault, on the way to the start pose or later."""
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        return {"class": self.name, **{k: v for k, v in asdict(self).items() if k != "name"}}


class Bench:
    """A rig with its observer; runs trials one after another."""

    def __init__(self, rig: Rig, robot: str = "sim_arm") -> None:
        self.rig = rig
        self._robot: Robot = load_robot(robot)
        self._observer: Witness | None = None
        self._generation = 0
        self._judged_ns = 0
        """The wire has been judged up to here, from its first byte on."""
        self._going: tuple[Run, int] | None = None
        """The run whose arm was sent on, and how many events it had told before."""

    def close(self) -> None:
        if self._observer is not None:
            self._observer.close()
            self._observer = None

    def trial(self, row: FaultClass, number: int, seed: int) -> Trial:
        """Never raises for what happens to the system under test."""
        started, started_ns = time.monotonic(), time.monotonic_ns()
        dice = random.Random(f"{seed} {row.name} {number}")
        phase_s = dice.uniform(*PHASE_S)
        blank = Trial(row.name, number, seed, round(phase_s, 4), "", "", None)
        wire = self._unjudged()
        try:
            trial = self._trial(row, dice, blank)
        except ProductError as error:
            late = self._late(started_ns)
            early = isinstance(error, StoppedEarly) and not late
            void, failure = late and f"{error}; {late}", "" if late else str(error)
            trial = replace(blank, void=void, failure=failure, early_stop=early)
        except HarnessError as error:
            ended = self.rig.run is not None and self.rig.run.process.poll() is not None
            trial = replace(blank, **{"failure" if ended and not row.restart else "void": str(error)})
        if trial.void or trial.failure:
            self.end_run()
        if self.rig.run is None:
            # Nobody will look at what came after the verdict.
            wire += self._unjudged()
        return replace(trial, wire=wire, seconds=round(time.monotonic() - started, 3))

    def _trial(self, row: FaultClass, dice: random.Random, blank: Trial) -> Trial:
        # Each way equally often, whatever the seed.
        injection = row.how[blank.number % len(row.how)]
        run = self.rig.ready(row.system)
        observer = self._observe()
        moves_ns = self._moving(run, observer, self._running(run))
        c = self._configuration(run)
        left_s = blank.phase_s - (time.monotonic_ns() - moves_ns) / 1e9
        if left_s > 0:
            time.sleep(left_s)
        run.look()
        mark = len(run.seen)
        if any(event["code"] == "stop" for event in run.seen[self._since(run) :]):
            raise StoppedEarly(f"stopped before the fault: {_last_stop(run)}")
        first = injected = inject(injection, self.rig, run, dice)
        try:
            if row.then is not None and row.then_at:
                self._await(run, row, mark, dice)
                injected = inject(row.then, self.rig, run, dice)
            elif row.then is not None:
                time.sleep(row.last_s)
                if run.ask("status")["stop"] is not None:
                    row = replace(row, outcome="ride_through")
                else:
                    injected = inject(row.then, self.rig, run, dice)
            line = WATCH[row.outcome](run, row, c, mark, injected.at_ns)
            line = replace(line, begin_ns=self._judged_ns, motor=first.motor)
            if line.stop is not None and 0 < line.stop.at_ns < (injected if row.then_at else first).at_ns:
                raise StoppedEarly(f"stopped before the fault: {line.stop.code}")
            unsure = _unsure(injected)
        finally:
            with contextlib.suppress(HarnessError):
                injected.mend()
                first.mend()
        failure = ""
        # What was ridden through goes on, also where the run was started in its own way.
        unscathed = row.outcome == "ride_through" and line.stop is None
        goes_on = (not row.restart or unscathed) and run.process.poll() is None
        if goes_on and line.stop is not None:
            line, failure = self._go_on(run, line, blank.number)
        elif row.restart and row.outcome == "stop":
            frozen = row.name == "supervisor_stopped"
            time.sleep(REVIVED_S if frozen else AFTERMATH_S)
            line = replace(line, end_ns=time.monotonic_ns())
        verdict, void = self._judge(row, c, line, observer)
        self._judged_ns = line.judged_ns
        void = unsure or void
        if goes_on and not failure and row.outcome == "contained" and line.stop is None:
            failure = self._freshen(run)
        if verdict is not None:
            failure = failure or verdict.failure
        if not goes_on or failure:
            self.end_run()
        code, category = (line.stop.code, line.stop.category) if line.stop is not None else ("", None)
        return replace(
            blank,
            detail=first.detail if injected is first else f"{first.detail}; {injected.detail}",
            void=void,
            verdict=verdict,
            failure="" if void else failure,
            stop=code,
            category=category,
            reset_refused=failure if line.stop is not None and not line.next_ns and goes_on else "",
            clean_s=round((first.at_ns - moves_ns) / 1e9, 4),
        )

    def _await(self, run: Run, row: FaultClass, mark: int, dice: random.Random) -> None:
        """The moment of `then`."""
        either = (row.then_at, "stop")
        event = run.wait(lambda event: event["code"] in either, THEN_S, mark)
        if event is None or event["code"] == "stop":
            raise _not_so(run, mark, f"{row.then_at!r} did not come")
        time.sleep(dice.uniform(0.0, row.last_s))

    def _judge(
        self, row: FaultClass, c: Configuration, line: Timeline, observer: Witness
    ) -> tuple[Verdict | None, str]:
        """The verdict, if enough was seen for one, and why it does not count. The reason does not depend on
        the verdict."""
        try:
            observer.read_until(line.judged_ns + 1)
            verdict = judge(row, c, line, observer, self._robot.exit.stop_category)
        except NotObserved as error:
            return None, f"not observed: {error}"
        return verdict, self._late(line.fault_ns - REST_NS, line.judged_ns)

    def _late(self, since_ns: int, until_ns: int | None = None) -> str:
        """By how much the simulated arm has fallen behind its own clock; empty if by little."""
        observer = self._observer
        if observer is None:
            return ""
        observer.read()
        try:
            lag = observer.lag(max(since_ns, observer.first_true_ns), until_ns or observer.now_ns)
        except (NotObserved, ValueError):
            return ""
        if lag.worst_s <= MOST_LAG_S and lag.skipped_s <= 0:
            return ""
        what = f"{lag.worst_s * 1e3:.0f} ms late, {lag.skipped_s * 1e3:.0f} ms given up"
        return f"the simulated arm fell behind: {what}"

    def _unjudged(self) -> tuple[str, ...]:
        """Escapes since the last verdict, up to now."""
        if self._observer is None:
            return ()
        with contextlib.suppress(NotObserved):
            self._observer.read_until(time.monotonic_ns())
        since_ns, self._judged_ns = self._judged_ns + 1, self._observer.now_ns
        return tuple(f"on the wire: {escape}" for escape in self._observer.escapes(since_ns))

    # The run between two trials

    def _running(self, run: Run) -> int:
        """Waits until the task is under way; since when it is."""
        since = self._since(run)
        event = run.event("running", GO_ON_S, since)
        if event is None:
            raise _not_so(run, since, "the arm did not begin its task")
        return int(event["t_ns"])

    def _moving(self, run: Run, observer: Witness, running_ns: int) -> int:
        """Waits until the arm has been told to move; when that was seen."""
        deadline_ns = time.monotonic_ns() + round(GO_ON_S * 1e9)
        while time.monotonic_ns() < deadline_ns and run.process.poll() is None:
            observer.read()
            now_ns = observer.now_ns
            if now_ns > running_ns:
                moved = observer.moving(max(running_ns, now_ns - MOVING_NS), now_ns).commanded
                joints = zip(moved, self._robot.joints, strict=True)
                if max(way for way, joint in joints if not joint.gripper) >= MOVING_RAD:
                    return time.monotonic_ns()
            time.sleep(LOOK_S)
        raise _not_so(run, self._since(run), "the arm did not move although its task was under way")

    def _since(self, run: Run) -> int:
        return self._going[1] if self._going is not None and self._going[0] is run else 0

    def _go_on(self, run: Run, line: Timeline, number: int = 1) -> tuple[Timeline, str]:
        """Resets the stop, watches, lets the arm go on. Also why that was refused. Until it goes on, or all
        has been tried, the arm must stand."""
        try:
            line, refused = self._reset(run, line, LATCHED_S if number % LONG_EVERY else LONG_LATCHED_S)
        except HarnessError as error:
            refused = str(error)
        if refused:
            line = replace(line, end_ns=time.monotonic_ns())
        return line, refused

    def _reset(self, run: Run, line: Timeline, latched_s: float) -> tuple[Timeline, str]:
        # Latched is latched: nobody may send it on before the reset.
        if run.ask("next")["ok"]:
            line = replace(line, obeyed=(*line.obeyed, "next"))
        time.sleep(latched_s)
        deadline = time.monotonic() + RESET_S
        while True:
            answer = run.ask("reset")
            if answer["ok"]:
                break
            if time.monotonic() > deadline:
                return line, f"the reset was refused: {answer.get('error')}"
            time.sleep(ASK_S)
        reset_ns = time.monotonic_ns()
        time.sleep(latched_s)
        while True:
            run.look()
            mark, next_ns = len(run.seen), time.monotonic_ns()
            answer = run.ask("next")
            if answer["ok"]:
                break
            if time.monotonic() > deadline:
                return line, f"it was not sent on: {answer.get('error')}"
            time.sleep(ASK_S)
        self._going = (run, mark)
        return replace(line, reset_ns=reset_ns, next_ns=next_ns), ""

    def _freshen(self, run: Run) -> str:
        """Wherever the arm was led, the next trial begins anew: a stop, a reset, the start pose. Why that
        does not succeed."""
        run.look()
        mark = len(run.seen)
        try:
            run.ask("stop")
        except HarnessError as error:
            return str(error)
        if run.event("stopped", GO_ON_S, mark) is None:
            return f"it did not stop when it was asked to: {_tell(run, mark)}"
        _, refused = self._go_on(run, Timeline(0, 0, 0))
        return refused

    def end_run(self) -> None:
        self._going = None
        self.rig.end_run()

    def _observe(self) -> Witness:
        if self._observer is None or self._generation != self.rig.generation:
            self.close()
            self._observer = Witness.of_robot(self.rig.wire_log, self._robot.name)
            self._generation = self.rig.generation
            self._judged_ns = 0
        return self._observer

    def _configuration(self, run: Run) -> Configuration:
        try:
            return configuration(self._robot, self._robot.control.hz, run.seen)
        except ValueError as error:
            raise HarnessError(str(error)) from error


def _unsure(injected: Injected) -> str:
    """Why it is not sure that the fault was there."""
    try:
        injected.confirm()
    except (HarnessError, SimulatorError, ProcessLookupError) as error:
        return f"the fault was not sure: {error}"
    return ""


def _last_stop(run: Run) -> str:
    return next((str(e["text"]) for e in reversed(run.seen) if e["code"] == "stop"), "")


def _not_so(run: Run, since: int, text: str) -> ProductError:
    stopped = any(event["code"] == "stop" for event in run.seen[since:])
    return (StoppedEarly if stopped else ProductError)(f"{text}: {_tell(run, since)}")


def _tell(run: Run, since: int) -> str:
    rows = [f"{e['code']}: {e['text']}" for e in run.seen[since:] if e["code"] != "bus_error"]
    return "; ".join(rows[-4:]) or "it said nothing"


__all__ = ["Bench", "Injected", "Trial"]
