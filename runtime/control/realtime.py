"""Real-time set-up of the control process, step by step, each reported.

FIFO priority with reset-on-fork, one core, memory locked and touched beforehand, no garbage collection, no
deep CPU idle states. What only the computer's owner can change (kernel, isolated cores, interrupts) is
reported as information: such a step never fails.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CONTROL_PRIORITY = 80
KERNEL = Path("/proc/sys/kernel")
LEAST_SHARE = 0.9
"""Least share of a period that the kernel must leave to real-time tasks; its own default is 0.95."""
HEAP_BYTES = 8 << 20
"""What Python and the C library may each take beyond what they hold, without a page fault."""
STACK_LEVELS = 250
"""Nested calls through C that are made once: about 0.5 MiB of stack."""
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_BLOCK = 512
"""The largest size that Python takes from its own arenas."""
_BLOCKS_PER_ARENA = 256 * 1024 // _BLOCK
"""In the smallest arenas of any version."""


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
    spare: list[bytes] = field(default_factory=list)
    """A block in each of Python's arenas that are kept in reserve."""

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
    attempt("memory touched", lambda: _touch_memory(result))
    attempt("own core", lambda: _pin(cpu))
    attempt("SCHED_FIFO", _fifo)
    attempt("real-time share", _share)
    attempt("CPU idle latency", lambda: _idle_latency(result))
    attempt("performance governor", _governor)
    attempt("kernel (information)", _kernel)
    attempt("isolation (information)", _isolation)
    attempt("interrupts (information)", _interrupts)
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


def _touch_memory(result: RealTime) -> str:
    """Takes heap and stack once, so that no tick has to wait for the kernel to hand out a page."""
    libc = ctypes.CDLL(None)
    try:
        # Freed memory stays with the process, and large pieces come from the heap, too.
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_MMAP_MAX, 0)
    except AttributeError as error:
        raise OSError(0, "this C library has no mallopt") from error
    # One block survives in each arena, so that Python does not give the arenas back.
    blocks = [bytes(_BLOCK - b"".__sizeof__()) for _ in range(HEAP_BYTES // _BLOCK)]
    result.spare = blocks[:: _BLOCKS_PER_ARENA // 2]
    del blocks
    _touch(libc)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    _touch(libc)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return f"heap and stack; taking them again makes {faults} page faults"


def _touch(libc: ctypes.CDLL) -> None:
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    heap = libc.malloc(HEAP_BYTES)
    if not heap:
        raise OSError(0, f"no {HEAP_BYTES >> 20} MiB of memory")
    ctypes.memset(heap, 0, HEAP_BYTES)
    libc.free(heap)
    nested = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

    def deeper(levels: int) -> int:
        return through_c(levels - 1) if levels else 0

    through_c = nested(deeper)
    through_c(STACK_LEVELS)


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


def _share() -> str:
    runtime, period = (int((KERNEL / f"sched_rt_{name}_us").read_text()) for name in ("runtime", "period"))
    if runtime < 0:
        return "not limited"
    text = f"{runtime / 1e3:g} of every {period / 1e3:g} ms"
    if runtime < LEAST_SHARE * period:
        raise OSError(0, f"{text}; set kernel.sched_rt_runtime_us to {round(0.95 * period)}")
    return text


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


def _kernel() -> str:
    full = Path("/sys/kernel/realtime")
    if full.exists() and full.read_text().strip() == "1":
        return "PREEMPT_RT"
    version = os.uname().version
    model = next((word for word in version.split() if word.startswith("PREEMPT")), "no preemption model")
    return f"{model}, not PREEMPT_RT: lateness is not bounded"


def _isolation() -> str:
    folder = Path("/sys/devices/system/cpu")
    mine = os.sched_getaffinity(0)
    texts = []
    for name, words in (("isolated", "isolcpus"), ("nohz_full", "nohz_full")):
        path = folder / name
        cores = _cores(path.read_text()) if path.exists() else set()
        texts.append(f"{words}: {'yes' if mine <= cores else 'no'}")
    return f"core {_listed(mine)}: {', '.join(texts)}"


def _interrupts() -> str:
    mine = os.sched_getaffinity(0)
    allowed = [_cores(path.read_text()) for path in Path("/proc/irq").glob("*/smp_affinity_list")]
    if not allowed:
        return "cannot be seen here"
    here = sum(bool(cores & mine) for cores in allowed)
    return f"{here} of {len(allowed)} may be served by core {_listed(mine)}"


def _cores(text: str) -> set[int]:
    """`0-2,5` as the kernel writes it; nothing for no core."""
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            cores |= set(range(int(first), int(last or first) + 1))
    return cores


def _listed(cores: set[int]) -> str:
    return ", ".join(map(str, sorted(cores)))
