"""Real-time priority of the simulator's processes.

They stand for hardware, which never waits for a CPU; so they run FIFO where permitted, below the control
process (80).
"""

from __future__ import annotations

import os

BUS_PRIORITY = 60
CAMERA_PRIORITY = 50


def prefer_fifo(priority: int, *, children: bool) -> str | None:
    """Puts this thread under SCHED_FIFO; returns why not, where it is not permitted.

    `children`: whether threads and processes started later inherit it.
    """
    policy = os.SCHED_FIFO if children else os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError as error:
        return (
            f"no real-time priority ({error.strerror}): timing suffers under load; "
            f"allow it with `ulimit -r {priority}` or run as root, or pass --no-rt"
        )
    return None
