"""Real-time set-up of the control process, step by step, each reported.

FIFO priority with reset-on-fork, one core, locked memory, no garbage collection, no deep CPU idle states.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CONTROL_PRIORITY = 80
_MCL_CURRENT, _MCL_FUTURE = 1, 2


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the set-up and how it went."""

    name: str
    ok: bool
    detail: str


@dataclass(slots=True)
class RealTime:
    """The result, and what must stay open for the settings to hold."""

    steps: list[Step] = field(default_factory=list)
    latency_fd: int = -1

    @property
    def failed(self) -> list[Step]:
        return [step for step in self.steps if not step.ok]


def set_up(cpu: int | None, only: tuple[str, ...] = ()) -> RealTime:
    """Tries every step (or those named); never raises. Call after all imports and allocations."""
    result = RealTime()

    def attempt(name: str, action: Callable[[], str]) -> None:
        if only and name not in only:
            return
        try:
            result.steps.append(Step(name, True, action()))
        except OSError as error:
            result.steps.append(Step(name, False, error.strerror or str(error)))

    attempt("garbage collection off", _no_garbage_collection)
    attempt("memory locked", _lock_memory)
    attempt("own core", lambda: _pin(cpu))
    attempt("SCHED_FIFO", _fifo)
    attempt("CPU idle latency", lambda: _idle_latency(result))
    attempt("performance governor", _governor)
    return result


def _no_garbage_collection() -> str:
    gc.collect()
    gc.freeze()
    gc.disable()
    return f"{gc.get_freeze_count()} objects frozen"


def _lock_memory() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)}: raise `ulimit -l` (memlock)")
    return "mlockall"


def _pin(cpu: int | None) -> str:
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise OSError(0, "only one core is available")
    chosen = available[-1] if cpu is None else cpu
    if chosen not in available:
        raise OSError(0, f"core {chosen} is not among {available}")
    os.sched_setaffinity(0, {chosen})
    return f"core {chosen}"


def _fifo() -> str:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(CONTROL_PRIORITY))
    except PermissionError as error:
        raise OSError(error.errno, "not permitted: needs root, CAP_SYS_NICE or an rtprio limit") from error
    return f"priority {CONTROL_PRIORITY}"


def _idle_latency(result: RealTime) -> str:
    # Holds only while the file stays open.
    result.latency_fd = os.open("/dev/cpu_dma_latency", os.O_WRONLY)
    os.write(result.latency_fd, (0).to_bytes(4, "little"))
    return "0 us"


def _governor() -> str:
    names = {
        path.read_text().strip()
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    if not names:
        return "no frequency scaling"
    if names != {"performance"}:
        raise OSError(0, f"is {', '.join(sorted(names))}; set `performance`")
    return "performance"
