"""Whether a policy's chunks can follow each other without a gap: the arithmetic, before any torque. Pure.

One inference after another, each on the newest picture. The path of a chunk runs from its observation (the
stamp of its oldest picture) for `path`; it is followed until the next chunk is there. At worst

1. inference starts on a picture that is about to be replaced: `frame` = its way here + one period old;
2. it takes `inference` (the p99 that was measured), and handing over half a control period;
3. the next inference starts at once (with a single camera its picture came meanwhile; of several, whose
   pictures come at different times, one may take a whole period after 1.) and takes as long again.

So no observation that is followed is ever older than `frame + 2 (inference + hand-over)`, and if that is at
most `path`, no tick finds a chunk that has run out. The wait for a tick does not count: a chunk only runs out
if a tick falls between its end and the arrival of the next. It does count for a chunk's first use.

It is an upper bound. An inference that is shorter than a frame's period waits for the next picture and so
catches up: then only the first chunk of a run can be that old, and the path of that one begins when it comes.

Control's messages pile up while the policy computes. What does not fit is lost, the newest first; the next
picture then lies in the gap, and one taken after it is waited for: `frame` and a tick more between two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .control.smoother import LOOKAHEAD_S
from .control.strategies import STRATEGIES

DECLARED_FRAME_PERIOD_S = 1 / 30
"""Taken where the cameras did not deliver long enough to be measured."""
HAND_OVER = 0.5
"""What surrounds an inference, in control periods: taking the picture, fitting the joints, sending."""
MIN_CHUNK_AGE_S = 0.4
MIN_SILENCE_S = 0.5
"""Floors of the limits that follow from the measured times: a fast policy on a busy computer still has
hiccups, and the arm moves slowly compared with them."""
SETTLE_S = 0.3
"""About how long the smoothed command takes to stand still at a path's end: sequential policies wait for it.
A chunk of one step that asks for a long way takes longer."""
EMA_SETTLE = 6
"""The same with a moving average of the targets, in its time constants: it approaches the last action as
exp(-t/ema)."""
SILENCE_MARGIN_S = 0.2
"""What the policy's loop may take besides inferences; it sends a heartbeat every 40 ms."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What is known at start. Times in seconds."""

    steps: int
    dt_s: float
    """Between two actions of a chunk."""
    control_period_s: float
    frame_age_limit_s: float
    """Oldest picture that inference may start with."""
    inference_s: float = 0.0
    """p99 of a whole inference, measured."""
    frame_period_s: float = DECLARED_FRAME_PERIOD_S
    """Of the slowest camera."""
    frame_latency_s: float = 0.0
    """From a picture's stamp until it can be used, likewise."""
    cameras: int = 1
    measured: bool = False
    """Whether the two of the pictures were measured, not declared."""
    at_least: bool = False
    """Measured, but too few pictures came: the period is a lower bound."""
    backlog_s: float = math.inf
    """For how long control's messages are kept while the policy process does not read them."""
    ema_s: float = 0.0
    """Time constant of the moving average of the targets; 0: none."""

    def with_measured(self, inference_s: float, details: Mapping[str, Any]) -> Timing:
        """The same with what the policy process measured (`details` of its `ready`); what it could not
        measure of the pictures stands as declared."""
        timing = replace(self, inference_s=inference_s)
        if details.get("backlog_ms") is not None:
            timing = replace(timing, backlog_s=details["backlog_ms"] / 1e3)
        period_ms, latency_ms = details.get("frame_period_ms"), details.get("frame_latency_ms")
        if period_ms is None or latency_ms is None:
            return timing
        return replace(
            timing,
            frame_period_s=period_ms / 1e3,
            frame_latency_s=latency_ms / 1e3,
            measured=True,
            at_least=bool(details.get("frame_period_at_least")),
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """The verdict with its numbers (seconds) and its arithmetic."""

    strategy: str
    ok: bool
    path_s: float
    """How long a chunk is followed at most: from its first action to its last."""
    frame_s: float
    """Oldest picture when inference starts."""
    first_use_s: float
    """Age of the observation at a chunk's first use, at worst."""
    oldest_s: float
    """Age of the observation behind any command, at worst; for a sequential strategy, without its path."""
    holds_s: float
    """Sequential only: how long the arm holds between two chunks."""
    chunk_age_limit_s: float
    """Oldest observation that an arriving chunk may rest on."""
    silence_limit_s: float
    """Longest time without a word of the policy process."""
    verdict: str
    """In a few words, with the number that decides."""
    lines: tuple[str, ...]
    """The arithmetic, for a person."""
    problem: str = ""
    """Why not, and what to do; empty where it is ok."""

    @property
    def spare_s(self) -> float:
        """What a chunk lasts beyond the worst arrival of the next; negative where it must starve."""
        return self.path_s - self.oldest_s


def schedule(timing: Timing, strategy: str) -> Schedule:
    """Judges `strategy` (a key of `control.strategies.STRATEGIES`) for these times.

    A sequential one does not starve, whatever the inference takes: the arm holds while the policy computes.
    """
    asynchronous = STRATEGIES[strategy].asynchronous
    path_s = max(1, timing.steps - 1) * timing.dt_s
    frame_s = timing.frame_latency_s + timing.frame_period_s
    hand_over_s = HAND_OVER * timing.control_period_s
    busy_s = timing.inference_s + hand_over_s
    first_use_s = frame_s + busy_s + timing.control_period_s
    lost_s = frame_s + timing.control_period_s if busy_s > timing.backlog_s else 0.0
    between_s = lost_s + (busy_s if timing.cameras == 1 else max(busy_s, timing.frame_period_s))
    oldest_s = frame_s + between_s + busy_s if asynchronous else first_use_s
    age_limit_s = (
        timing.frame_age_limit_s + 2 * timing.inference_s + (1 + HAND_OVER) * timing.control_period_s
    )
    age_limit_s = max(MIN_CHUNK_AGE_S, age_limit_s)
    holds_s = 0.0
    if asynchronous:
        verdict = _verdict(path_s - oldest_s)
        follows = _path_line(timing, frame_s, between_s, busy_s, lost_s, verdict)
    else:
        settle_s = max(SETTLE_S, EMA_SETTLE * timing.ema_s)
        holds_s = settle_s + first_use_s
        verdict = f"moves {_s(path_s)}, then holds about {_s(holds_s)}"
        follows = (
            f"sequential: moves {_s(path_s)}, then holds about {_s(settle_s)} to settle + at most "
            f"{_s(first_use_s)} = {_s(holds_s)} ({path_s / (path_s + holds_s):.0%} of the time in motion)"
        )
    silence_limit_s = max(MIN_SILENCE_S, SILENCE_MARGIN_S + 2 * timing.inference_s)
    lines = (
        _frame_line(timing, frame_s),
        _first_use_line(timing, frame_s, first_use_s),
        follows,
        f"limits: a chunk at most {_ms(age_limit_s)} old on arrival, the policy silent for at most "
        f"{_ms(silence_limit_s)}, a picture at most {_ms(timing.frame_age_limit_s)} old",
    )
    problem = _problem(timing, frame_s, oldest_s - path_s if asynchronous else 0.0)
    return Schedule(
        strategy=strategy,
        ok=not problem,
        path_s=path_s,
        frame_s=frame_s,
        first_use_s=first_use_s,
        oldest_s=oldest_s,
        holds_s=holds_s,
        chunk_age_limit_s=age_limit_s,
        silence_limit_s=silence_limit_s,
        verdict=verdict,
        lines=lines,
        problem=problem,
    )


def latest_first_use_s(timing: Timing) -> float:
    """Age of the observation at a chunk's first use in the slowest asynchronous schedule that is ok; known
    before anything is measured. There `frame` is at most the limit of a picture's age, and the two
    inferences share what the path leaves."""
    path_s = max(1, timing.steps - 1) * timing.dt_s
    return (path_s + timing.frame_age_limit_s) / 2 + timing.control_period_s


def _verdict(spare_s: float) -> str:
    if spare_s < 0:
        return f"too short by {_ms(-spare_s)}"
    if spare_s < LOOKAHEAD_S:
        return (
            f"ok, {_ms(spare_s)} to spare, less than the {_ms(LOOKAHEAD_S)} that the smoother looks ahead: "
            "the arm slows down before each new chunk"
        )
    return f"ok, {_ms(spare_s)} to spare"


def _problem(timing: Timing, frame_s: float, short_s: float) -> str:
    if short_s > 0:
        return (
            f"a chunk ends up to {_ms(short_s)} before the next one is there, so the arm must starve: use a "
            "faster computer or precision, a policy with longer chunks, or --strategy sequential, with which "
            "the arm holds while the policy computes"
        )
    if frame_s > timing.frame_age_limit_s:
        at_least = "at least" if timing.at_least else "up to"
        return (
            f"pictures are {at_least} {_ms(frame_s)} old when inference starts, allowed are "
            f"{_ms(timing.frame_age_limit_s)}, so the run must stop: use a camera with a higher rate or a "
            "faster link"
        )
    return ""


def _frame_line(timing: Timing, frame_s: float) -> str:
    source = "measured" if timing.measured else "declared: the cameras were not measured"
    if timing.at_least:
        source = "at least: too few pictures came to measure it"
    several = f", the slowest of {timing.cameras} cameras" if timing.cameras > 1 else ""
    return (
        f"frame: {_ms(timing.frame_latency_s)} on its way + {_ms(timing.frame_period_s)} period ({source}"
        f"{several}) = at most {_ms(frame_s)} old when inference starts"
    )


def _first_use_line(timing: Timing, frame_s: float, first_use_s: float) -> str:
    send_s = (1 + HAND_OVER) * timing.control_period_s
    return (
        f"frame {_ms(frame_s)} + inference p99 {_ms(timing.inference_s)} + send and tick {_ms(send_s)} = "
        f"{_ms(first_use_s)} old at a chunk's first use"
    )


def _path_line(
    timing: Timing, frame_s: float, between_s: float, busy_s: float, lost_s: float, verdict: str
) -> str:
    steps = max(1, timing.steps - 1)
    lost = f" (of it {_ms(lost_s)} for a picture whose joint state is lost meanwhile)" if lost_s else ""
    return (
        f"frame {_ms(frame_s)} + this inference {_ms(between_s)}{lost} + the next {_ms(busy_s)}, each with "
        f"its hand-over = {_ms(frame_s + between_s + busy_s)} until the next chunk is there; a chunk lasts "
        f"{steps} x {_ms(timing.dt_s)} = {_ms(steps * timing.dt_s)}: {verdict}"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"
