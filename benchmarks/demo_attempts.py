"""The attempts of a demo run, and the referee: it sets the scene before each and asks the simulator's ground
truth how it went. It follows the event file that `vla-run --events` writes; the policy sees none of this."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

TASKS = ("touch", "pick")
COLOURS = ("red", "green", "blue")
VERDICT_PERIOD_NS = 100_000_000


class Scene(Protocol):
    """What the referee needs of `drivers.simulated.truth.TruthClient`."""

    def reset(self, seed: int, task: str | None = None, colour: str | None = None) -> str: ...

    def verdict(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One task to try: the seed places the cubes and words the instruction."""

    seed: int
    task: str
    colour: str
    instruction: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt."""

    attempt: Attempt
    success: bool
    wrong_object: bool = False
    time_s: float = 0.0
    """From the start of the task to the verdict."""
    void: str = ""
    """Why it does not count as a fair attempt; empty when it does. A void attempt is no success."""


def draw_attempts(scene: Scene, count: int, seed: int) -> list[Attempt]:
    """`count` attempts, going round all tasks and colours; the scene is left as the last one has it."""
    attempts = []
    for index in range(count):
        task = TASKS[index % len(TASKS)]
        colour = COLOURS[index // len(TASKS) % len(COLOURS)]
        instruction = scene.reset(seed + index, task, colour)
        attempts.append(Attempt(seed + index, task, colour, instruction))
    return attempts


class EventFile:
    """Reads the whole lines that were appended since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].splitlines():
            yield json.loads(line)


class Referee:
    """Call `step` often. `finish` asks vla-run to go on to the next task."""

    def __init__(
        self,
        attempts: list[Attempt],
        scene: Scene,
        finish: Callable[[], None],
        on_outcome: Callable[[int, Outcome], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.attempts = attempts
        self.outcomes: dict[int, Outcome] = {}
        """By index of the attempt."""
        self.running: int | None = None
        """Index of the attempt whose task is under way."""
        self._scene = scene
        self._finish = finish
        self._on_outcome = on_outcome
        self._clock = clock
        self._reset_ns: dict[int, int] = {}
        self._start_ns = 0
        self._asked_ns = 0

    def step(self, events: Iterator[dict[str, Any]]) -> None:
        """Deals with new events, then with the task under way. Raises what the scene raises."""
        for event in events:
            index = event["task_id"] - 1
            if event["code"] == "task_ready":
                self._set_scene(index)
            elif event["code"] == "task_start":
                self._start(index, event["t_ns"])
            elif event["code"] == "task_end" and index == self.running:
                self._judge(final=True)
                self.running = None
        now = self._clock()
        if self._open() and now - self._asked_ns >= VERDICT_PERIOD_NS:
            self._asked_ns = now
            self._judge(final=False)

    def _open(self) -> bool:
        return self.running is not None and self.running not in self.outcomes

    def _set_scene(self, index: int) -> None:
        attempt = self.attempts[index]
        self._scene.reset(attempt.seed, attempt.task, attempt.colour)
        self._reset_ns[index] = self._clock()

    def _start(self, index: int, start_ns: int) -> None:
        self.running, self._start_ns = index, start_ns
        set_ns = self._reset_ns.get(index)
        if set_ns is None or set_ns > start_ns:
            self._record(Outcome(self.attempts[index], False, void="the scene was set after the task began"))

    def _judge(self, final: bool) -> None:
        if not self._open():
            return
        assert self.running is not None
        verdict = self._scene.verdict()
        if final or verdict.success or verdict.wrong_object:
            elapsed_s = (self._clock() - self._start_ns) / 1e9
            attempt = self.attempts[self.running]
            self._record(Outcome(attempt, verdict.success, verdict.wrong_object, elapsed_s))
            if not final:
                self._finish()

    def _record(self, outcome: Outcome) -> None:
        assert self.running is not None
        self.outcomes[self.running] = outcome
        self._on_outcome(self.running, outcome)


def tally(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Counts by `task colour`, and of all under `all`: trials, successes, wrong objects, void attempts."""
    counts: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        for key in (f"{outcome.attempt.task} {outcome.attempt.colour}", "all"):
            row = counts.setdefault(key, {"trials": 0, "successes": 0, "wrong_object": 0, "void": 0})
            row["trials"] += 1
            row["successes"] += outcome.success
            row["wrong_object"] += outcome.wrong_object
            row["void"] += bool(outcome.void)
    return counts
