"""Watching an arm after a fault until its trial is over, each outcome in its own way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .bounds import BOUNDS, END_NS, Configuration
from .classes import FaultClass
from .outcomes import REST_NS
from .system import LOOK_S, HarnessError, Run
from .timeline import Stop, Timeline

LATCHED_S = 0.1
"""How long a stopped arm is watched once it stands, and again after the reset."""
RESTART_LATCHED_S = 0.4
GRACE_NS = 500_000_000
"""So much longer than its bound a stop is waited for, so that a late one is seen as late."""
ASK_S = 0.1
"""Between two requests: vla-run takes 20 in a second."""
UNFINISHED = ("", "unfinished")


def longest_ns(row: FaultClass, c: Configuration) -> int:
    """The bound with all slots that may be missed."""
    bound = BOUNDS[row.bound]
    return bound.of(c) + (c.missed_slots * c.tick_ns if bound.controls else 0)


def _watch_stop(run: Run, row: FaultClass, c: Configuration, mark: int, fault_ns: int) -> Timeline:
    bound_ns = longest_ns(row, c)
    stop, rest_ns = _stop_of(run, row, mark, fault_ns + bound_ns + GRACE_NS, c)
    settled_ns = max(rest_ns or time.monotonic_ns(), fault_ns) + REST_NS
    watched_s = RESTART_LATCHED_S if row.restart else LATCHED_S
    sleep_until(settled_ns + round(watched_s * 1e9))
    exited_ns = _exited(run, time.monotonic_ns() + END_NS) if row.exit_codes else 0
    return Timeline(
        0,
        fault_ns,
        time.monotonic_ns(),
        stop=stop,
        rest_ns=rest_ns,
        exit_code=run.process.poll(),
        exited_ns=exited_ns,
    )


def _exited(run: Run, until_ns: int) -> int:
    """When vla-run had ended; 0 if it has not by then."""
    while run.process.poll() is None:
        if time.monotonic_ns() > until_ns:
            return 0
        time.sleep(LOOK_S)
    return time.monotonic_ns()


def _stop_of(
    run: Run, row: FaultClass, mark: int, until_ns: int, c: Configuration
) -> tuple[Stop | None, int]:
    """The stop and when the arm was said to be at rest; from the events, the endpoint or the latch file,
    whichever the fault has left."""
    rest_s = (c.stopping_ns + c.easing_ns) / 1e9 + 1.0
    if row.system == "small disk":
        # No event can be written: the endpoint tells, and the wire.
        told, at_ns = None, 0
        while told is None and time.monotonic_ns() < until_ns:
            with contextlib.suppress(HarnessError):
                told = run.ask("status")["stop"]
            at_ns = time.monotonic_ns()
            time.sleep(ASK_S)
        time.sleep(rest_s / 2)
        return (Stop(str(told["code"]), at_ns), 0) if told else (None, 0)
    deaf = any(how.arguments.get("role") == "run" for how in row.how)
    while time.monotonic_ns() < until_ns + (round(rest_s * 1e9) if deaf else 0):
        event = run.event("stop", LOOK_S, mark, source="control")
        if event is not None:
            rest = run.event("stopped", rest_s, mark, source="control")
            return _stop_from(event), int(rest["t_ns"]) if rest is not None else 0
        if deaf:
            # Written once the arm is at rest; when it stopped, the wire must tell.
            code, rest_ns = run.latched()
            if code not in UNFINISHED:
                return Stop(code, 0), rest_ns
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
            sleep_until((rest_ns or time.monotonic_ns()) + REST_NS + round(LATCHED_S * 1e9))
            return Timeline(0, fault_ns, time.monotonic_ns(), stop=_stop_from(event), rest_ns=rest_ns)
        time.sleep(LOOK_S)
    return Timeline(0, fault_ns, time.monotonic_ns())


def _watch_park(run: Run, row: FaultClass, c: Configuration, mark: int, fault_ns: int) -> Timeline:
    most_ns = fault_ns + longest_ns(row, c) + c.stopping_ns + c.parking_ns + END_NS + GRACE_NS
    line = _watch_end(run, mark, fault_ns, most_ns, lambda event: event["code"] == "signal")
    released = next((e for e in run.seen[mark:] if e["code"] == "released"), None)
    return replace(line, released_ns=int(released["t_ns"]) if released is not None else 0)


def _watch_coast(run: Run, row: FaultClass, c: Configuration, mark: int, fault_ns: int) -> Timeline:
    most_ns = fault_ns + longest_ns(row, c) + END_NS + GRACE_NS

    return _watch_end(run, mark, fault_ns, most_ns, says_control_is_gone)


def says_control_is_gone(event: dict[str, Any]) -> bool:
    """Whether this is the supervisor's decision about control, and not something else that is late."""
    text = str(event["text"])
    silent = event["code"] == "late" and "the control process has been silent" in text
    return silent or (event["code"] == "ended" and text.startswith("control process"))


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


WATCH: dict[str, Callable[[Run, FaultClass, Configuration, int, int], Timeline]] = {
    "stop": _watch_stop,
    "park": _watch_park,
    "coast": _watch_coast,
    "contained": _watch_for,
    "ride_through": _watch_for,
}


def sleep_until(t_ns: int) -> None:
    time.sleep(max(0.0, (t_ns - time.monotonic_ns()) / 1e9))
