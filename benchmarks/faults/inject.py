"""How each fault is brought about, and undone. `WAYS` is the table; every way says since when it is there.

A way that cannot make sure that its fault is there raises `HarnessError`: such a trial is void, and that is
known before anybody has looked at what the arm did. Where it is the product that was not there to be broken,
that is a failure of its own (`ProductError`).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...drivers.simulated.errors import SimulatorError
from .classes import Injection
from .rig import Rig
from .system import LOOK_S, HarnessError, ProductError, Run, state_of

CONFIRM_S = 2.0
MOST_S = "6"
"""No program that loads the computer lives longer, whatever becomes of the campaign."""
GRIPPER_ID = 6
DAMAGES = ("drop_byte", "corrupt", "late", "duplicate", "wrong_id")
"""Faults whose doings the simulator counts; ..."""
LEAST_DAMAGED = 3
"""... so many, or they were none."""
LEAST_CPU_S = 0.1
"""Programs that load the computer must have had so much of it together."""
CLOCK_S = 2.0
"""A stepped clock may be so far from where it was put."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that is there."""

    at_ns: int
    """Not later than the fault itself: what is measured from here is never too short."""
    detail: str
    mend: Callable[[], None] = _nothing
    confirm: Callable[[], None] = _nothing
    """Called before it is mended; raises `HarnessError` where the fault was not truly there."""
    motor: int = 0
    """The one that it concerns, if it is one."""


Way = Callable[[Rig, Run, random.Random, dict[str, Any]], Injected]


def inject(injection: Injection, rig: Rig, run: Run, dice: random.Random) -> Injected:
    """Breaks something now. Raises `HarnessError`."""
    try:
        return WAYS[injection.way](rig, run, dice, dict(injection.arguments))
    except ProcessLookupError as error:
        raise ProductError(f"{injection.way}: the process had ended before the fault") from error
    except SimulatorError as error:
        raise HarnessError(f"{injection.way}: {error}") from error


def _until(condition: Callable[[], bool], what: str, patience_s: float = CONFIRM_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise HarnessError(f"{what} within {patience_s:g} s")
        time.sleep(LOOK_S)


def _kill(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    pid = run.pid(arguments["role"])
    at_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    _until(lambda: state_of(pid) in ("", "Z"), f"process {pid} has not died")
    return Injected(at_ns, f"SIGKILL of {arguments['role']}")


def _freeze(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    role = arguments["role"]
    pid = run.pid(role)
    at_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGSTOP)
    _until(lambda: state_of(pid) == "T", f"process {pid} has not stopped")

    def mend() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return Injected(at_ns, f"SIGSTOP of {role}", mend)


def _spin(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    role, seconds = arguments["role"], arguments["seconds"]
    at_ns = run.order(role, kind="spin", seconds=seconds)
    over_ns = at_ns + round(seconds * 1e9)

    def mend() -> None:
        if role == "policy":
            time.sleep(max(0.0, (over_ns - time.monotonic_ns()) / 1e9))

    return Injected(at_ns, f"{role} computes for {seconds:g} s", mend)


def _memory(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    at_ns = run.order(arguments["role"], kind="memory", spare=arguments["spare"])
    return Injected(at_ns, f"no more memory for {arguments['role']}")


def _chunks(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    how = arguments["how"]
    at_ns = run.order("policy", kind="chunks", how=how, seed=dice.randrange(1 << 30))
    return Injected(at_ns, how, lambda: _mend_chunks(run))


def _mend_chunks(run: Run) -> None:
    if run.process.poll() is None:
        run.order("policy", kind="chunks", how="", seed=0)


def _truth(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    truth = rig.simulator.truth
    before = truth.statistics()["damaged_answers"]
    at_ns = truth.fault(**arguments)
    detail = " ".join(f"{key}={value}" for key, value in arguments.items())

    def mend() -> None:
        truth.clear()

    def confirm() -> None:
        count = truth.statistics()["damaged_answers"] - before
        if count < LEAST_DAMAGED:
            raise HarnessError(f"only {count} answers were damaged")

    counted = arguments["kind"] in DAMAGES
    motor = int(arguments.get("id", 0))
    return Injected(at_ns, detail, mend, confirm if counted else _nothing, motor)


def _motor(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    """One motor, any of them; `arm_only`: not the gripper's."""
    most = GRIPPER_ID - 1 if arguments.pop("arm_only", False) else GRIPPER_ID
    return _truth(rig, run, dice, {**arguments, "id": dice.randint(1, most)})


def _load(commands: list[list[str]], detail: str) -> Injected:
    at_ns = time.monotonic_ns()
    programs = [
        subprocess.Popen(
            ["timeout", "-s", "KILL", MOST_S, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command in commands
    ]

    def mend() -> None:
        for program in programs:
            # The session that it leads, and nothing else.
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()

    def confirm() -> None:
        ended = [program.returncode for program in programs if program.poll() is not None]
        if ended:
            raise HarnessError(f"{detail}: a program had ended with {ended[0]}")
        used_s = sum(_cpu_s(program.pid) for program in programs)
        if used_s < LEAST_CPU_S:
            raise HarnessError(f"{detail}: the programs had only {used_s:.2f} s of the processor")

    return Injected(at_ns, detail, mend, confirm)


def _cpu_s(group: int) -> float:
    """What all processes of a group have had of the processor."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _hog(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    programs = arguments["programs"]
    return _load([["sh", "-c", "while :; do :; done"]] * programs, f"{programs} programs compute")


def _swallow(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    megabytes = arguments["megabytes"]
    script = f"while True: [bytearray(b'x') * (1 << 24) for _ in range({megabytes // 16})]"
    return _load([[sys.executable, "-S", "-c", script]], f"{megabytes} MB, again and again")


def _fill_disk(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    filler = run.state / "filler"
    at_ns = time.monotonic_ns()
    written = 0
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    written += file.write(b"\0" * size)
    free = os.statvfs(run.state)
    if free.f_bavail:
        raise HarnessError(f"{run.state} is not full: {free.f_bavail} blocks are free")

    def mend() -> None:
        filler.unlink(missing_ok=True)

    return Injected(at_ns, f"{written} bytes filled the disk", mend)


def _step_clock(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    for role in ("run", "control", "policy"):
        with open(f"/proc/{run.pid(role)}/maps") as file:
            if "libfaketime" not in file.read():
                raise HarnessError(f"libfaketime is not loaded in {role}")
    seconds = arguments["seconds"]
    at_ns = time.monotonic_ns()
    _set_clock(rig, seconds)

    def confirm() -> None:
        for role in ("run", "control", "policy"):
            off = float(run.answer(role, kind="time")["text"]) - time.time()
            if abs(off - seconds) > CLOCK_S:
                raise HarnessError(f"the clock of {role} is off by {off:.0f} s, not by {seconds} s")

    return Injected(at_ns, f"the clock jumps by {seconds:+d} s", lambda: _set_clock(rig, 0), confirm)


def _set_clock(rig: Rig, seconds: int) -> None:
    """So far from the true time; libfaketime looks once a second."""
    fresh = rig.clock_file.with_suffix(".new")
    fresh.write_text(f"{seconds:+d}\n")
    fresh.replace(rig.clock_file)


def _signal(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    at_ns = time.monotonic_ns()
    run.process.send_signal(signal.Signals[arguments["name"]])
    return Injected(at_ns, arguments["name"])


def _hang_up(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    at_ns = time.monotonic_ns()
    run.close_terminal()
    return Injected(at_ns, "the terminal is closed")


def _key(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    at_ns = time.monotonic_ns()
    run.key(arguments["keys"])
    return Injected(at_ns, f"key {arguments['keys']!r}")


def _press(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    button = rig.button
    return Injected(button.press(), "pressed", button.let_go)


def _unplug_input(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    button = rig.button
    return Injected(button.unplug(), "unplugged", button.plug)


def _ask(rig: Rig, run: Run, dice: random.Random, arguments: dict[str, Any]) -> Injected:
    at_ns = time.monotonic_ns()
    answer = run.ask(arguments["command"])
    if not answer["ok"]:
        raise ProductError(f"vla-run refuses {arguments['command']!r}: {answer.get('error')}")
    return Injected(at_ns, f"asked to {arguments['command']}")


WAYS: dict[str, Way] = {
    "ask": _ask,
    "kill": _kill,
    "freeze": _freeze,
    "spin": _spin,
    "memory": _memory,
    "chunks": _chunks,
    "truth": _truth,
    "motor": _motor,
    "hog": _hog,
    "swallow": _swallow,
    "fill_disk": _fill_disk,
    "step_clock": _step_clock,
    "signal": _signal,
    "hang_up": _hang_up,
    "key": _key,
    "press": _press,
    "unplug_input": _unplug_input,
}
