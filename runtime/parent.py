"""Noticing that the supervisor has died, also where the end of its channel does not come.

It does not come while anything else holds a copy of the supervisor's end. The kernel knows better: the number
of a process's parent changes at once when the parent dies (getppid(2)). A signal at that moment ends what
blocks; it proves nothing, since it comes also when only the THREAD ends that started the process (prctl(2),
PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def signal_at_parents_death(number: signal.Signals) -> None:
    """Asks the kernel for this signal. A parent that has died before is for `orphaned`. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), *[ctypes.c_ulong(0)] * 3) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def orphaned(parent: int) -> bool:
    """Whether the process that started this one has died."""
    return os.getppid() != parent


def ending(parent: int) -> bool:
    """Whether it has died or is about to: its main thread is gone, others may be on their way. For the moment
    in which a process that it takes with it is noticed first."""
    try:
        state = Path(f"/proc/{parent}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return orphaned(parent)
    return state in (b"Z", b"X")
