"""What the service manager is told (sd_notify(3)): readiness, state, and that control's loop turns.

A few lines of our own: one datagram to the socket that NOTIFY_SOCKET names. Nothing here blocks or raises.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from .stages import Stage

FRESH_NS = 1_000_000_000
"""A snapshot of control, which sends ten a second, is a sign of life for this long."""
EXTEND_NS = 15_000_000_000
"""While the run starts or ends, the manager is asked for so much more time, again and again: these stages
have time limits of their own."""
_ENDING = (Stage.QUITTING, Stage.LEAVING, Stage.DONE)


@dataclass(frozen=True, slots=True)
class RunState:
    """What the manager is told about."""

    stage: Stage
    text: str
    """For a person, as in `systemctl status`."""
    armed: bool
    """The arm has torque: the run is ready."""
    heard_ns: int
    """When the newest snapshot of control came."""


class Notifier:
    """Says what has changed, and feeds the manager's watchdog as long as control's loop turns."""

    def __init__(self, address: str = "", watchdog_ns: int = 0) -> None:
        self.on = address.startswith(("/", "@"))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._feed_ns = watchdog_ns // 4
        self._sock = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self.on else None
        )
        self._told: set[str] = set()
        self._text = ""
        self._fed_ns = self._extended_ns = 0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> Notifier:
        """As sd_notify(3) and sd_watchdog_enabled(3) read it."""
        usec, of_pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = of_pid in ("", str(os.getpid() if pid is None else pid))
        return cls(environ.get("NOTIFY_SOCKET", ""), int(usec) * 1000 if usec.isdecimal() and ours else 0)

    @property
    def watchdog_ns(self) -> int:
        """The manager's limit of silence; 0 for none."""
        return 4 * self._feed_ns

    def turn(self, run: RunState, now_ns: int) -> None:
        """Called at every turn of the supervisor's loop."""
        if self._sock is None:
            return
        if run.text != self._text and self._send(f"STATUS={run.text}".replace("\n", " ")):
            self._text = run.text
        ending = run.stage in _ENDING
        if run.armed and not ending:
            self._once("READY=1")
        if ending:
            self._once("STOPPING=1")
        waiting = ending or "READY=1" not in self._told
        if waiting and now_ns - self._extended_ns >= EXTEND_NS // 3:
            self._extended_ns = now_ns
            self._send(f"EXTEND_TIMEOUT_USEC={EXTEND_NS // 1000}")
        fresh = now_ns - run.heard_ns <= FRESH_NS
        if self._feed_ns and fresh and now_ns - self._fed_ns >= self._feed_ns and self._send("WATCHDOG=1"):
            self._fed_ns = now_ns

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _once(self, text: str) -> None:
        if text not in self._told and self._send(text):
            self._told.add(text)

    def _send(self, text: str) -> bool:
        """False where the manager takes nothing now: what matters is said again at the next turn."""
        assert self._sock is not None
        try:
            self._sock.sendto(text.encode(errors="replace"), self._address)
        except OSError:
            return False
        return True
