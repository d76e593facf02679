"""Started in place of vla-run and its two children: the real programs, and a hand that breaks them when told.

`python -m holdfast.benchmarks.faults.saboteur ROLE ORDERS ARGUMENTS` with ROLE `run`, `control` or `policy`
calls the real `main` with ARGUMENTS. Until it is told to, it does nothing but look at one flag for each
message that is sent. An order is a JSON file `ORDERS/ROLE.json`, told by the signal `ORDER`; what came of it
is appended to `ORDERS/ROLE.done`. It exists only in the campaign: nothing of it is in a run of vla-run's own.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ...runtime.channel import Channel, ChannelClosed
from ...runtime.envelope import Envelope, encode
from ...runtime.messages import Chunk, Message
from .corrupt import CORRUPTIONS

ORDER = signal.SIGRTMIN + 3
ROLES = ("run", "control", "policy")
_BLOCKS = 400_000
"""At most so many pieces of memory are taken, ..."""
_SMALLEST = 64
"""... none smaller."""


class Saboteur:
    """One process's orders. `install` once, before the real program begins."""

    def __init__(self, role: str, orders: Path) -> None:
        self._role = role
        self._order_file = orders / f"{role}.json"
        self._done_file = orders / f"{role}.done"
        self._number = 0
        self.chunks = ""
        """How chunks are spoiled; empty: not at all."""
        self.deaf = False
        self._dice = random.Random(0)
        self._told = False
        self._before: Chunk | None = None
        self._hoard: list[object] = []

    def install(self) -> None:
        signal.signal(ORDER, self._obey)
        if self._role == "policy":
            self._tap_channels()

    def _obey(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: runs in the main thread between two byte codes, wherever that is."""
        try:
            order = json.loads(self._order_file.read_text())
        except (OSError, ValueError) as error:
            self._say("unreadable", str(error))
            return
        self._number = int(order["number"])
        match order["kind"]:
            case "chunks":
                self._dice = random.Random(order["seed"])
                self._told = False
                self.chunks = order["how"]
                if not self.chunks:
                    self._say("done")
            case "deaf":
                self.deaf = bool(order["on"])
                self._say("done")
            case "ignore":
                self._ignore(order["code"])
            case "unguard":
                self._unguard(order["check"])
            case "time":
                self._say("done", repr(time.time()))
            case "spin":
                self._say("done")
                _spin(float(order["seconds"]))
            case "memory":
                self._exhaust(int(order["spare"]))
            case kind:
                self._say("unknown", kind)

    def _say(self, what: str, text: str = "") -> None:
        row = {"number": self._number, "what": what, "at_ns": time.monotonic_ns(), "text": text}
        with self._done_file.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _ignore(self, code: str) -> None:
        """A guard is taken away: the condition is only counted. For tests of the campaign itself: it must see
        that."""
        from ...runtime.control.deadlines import REACTIONS, Reaction

        REACTIONS[code] = Reaction("count", "taken away by a test of the campaign")
        self._say("done")

    def _unguard(self, name: str) -> None:
        """A check of the setpoints is taken away, as `_ignore` takes a reaction."""
        from ...runtime.control import chain

        chain.SETPOINT_CHECKS = tuple(row for row in chain.SETPOINT_CHECKS if row[0] != name)
        self._say("done")

    def _exhaust(self, spare: int) -> None:
        """No more address space than `spare` bytes beyond today's, and all of it taken, down to the smallest
        blocks: whatever is allocated from now on fails. Said when it is so, by what was made before."""
        row = {"number": self._number, "what": "done", "at_ns": time.monotonic_ns(), "text": ""}
        said = (json.dumps(row) + "\n").encode()
        fd = os.open(self._done_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + spare
        self._hoard = [None] * _BLOCKS
        at, size = 0, 1 << 24
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        while size >= _SMALLEST and at < _BLOCKS:
            try:
                self._hoard[at] = bytearray(size)
                at += 1
            except MemoryError:
                size //= 2
        if size < _SMALLEST:
            os.write(fd, said)

    def _tap_channels(self) -> None:
        """Every chunk that is sent passes `_send`; a deaf process hears nothing from control."""
        send, receive_all = Channel.send, Channel.receive_all
        control_fd = int(sys.argv[sys.argv.index("--control-fd") + 1])

        hand = self

        def tapped_send(self: Channel, message: Message) -> bool:
            if hand.chunks and isinstance(message, Chunk):
                return hand._send(self, message, send)
            if isinstance(message, Chunk):
                hand._before = message
            return send(self, message)

        def tapped_receive(self: Channel) -> list[Envelope]:
            if hand.deaf and self.fileno() == control_fd:
                return []
            return receive_all(self)

        Channel.send, Channel.receive_all = tapped_send, tapped_receive

    def _send(self, channel: Channel, chunk: Chunk, send: Any) -> bool:
        how = self.chunks
        sent_ns = time.monotonic_ns()
        if how in CORRUPTIONS:
            sent = send(channel, CORRUPTIONS[how](chunk, self._dice))
        else:
            sent = self._resend(how, channel, chunk, send)
        if not self._told:
            # Once: the moment from which on control could know.
            self._told = True
            with suppress(OSError):
                row = {"number": self._number, "what": "done", "at_ns": sent_ns, "text": how}
                with self._done_file.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return sent

    def _resend(self, how: str, channel: Channel, chunk: Chunk, send: Any) -> bool:
        """Messages that are wrong as messages. They need the channel's private parts: no other way leads to
        a wrong one."""
        sequence = channel._sequence
        if how == "replayed_chunk":
            # The chunk of a while ago in a fresh message.
            return send(channel, self._before or chunk)
        sent = send(channel, chunk)
        raw: socket.socket = channel._sock
        if how == "replayed_message":
            data = encode(chunk, session=channel._session, sequence=sequence, stamp_ns=time.monotonic_ns())
        elif how == "foreign_session":
            data = encode(
                chunk, session=channel._session ^ 1, sequence=channel._sequence, stamp_ns=time.monotonic_ns()
            )
        else:
            good = encode(
                chunk, session=channel._session, sequence=channel._sequence, stamp_ns=time.monotonic_ns()
            )
            data = good[: self._dice.randrange(1, len(good))]
        with suppress(BlockingIOError):
            try:
                raw.send(data, socket.MSG_NOSIGNAL)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise ChannelClosed("the process at the other end of the channel is gone") from error
        return sent


def _sleep(seconds: float) -> None:
    select.select([], [], [], max(0.0, seconds))


def _spin(seconds: float) -> None:
    """Keeps a core busy and does nothing else: a livelock, at normal priority. At a real-time one it would
    starve the simulated motors, which in the world have processors of their own."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    end_ns = time.monotonic_ns() + round(seconds * 1e9)
    while time.monotonic_ns() < end_ns:
        pass


def command(role: str, orders: Path) -> list[str]:
    """The command that starts a role, without the real program's arguments."""
    return [sys.executable, "-m", "holdfast.benchmarks.faults.saboteur", role, str(orders)]


def main() -> int:
    role, orders = sys.argv[1], Path(sys.argv[2])
    if role not in ROLES:
        print(f"saboteur: {role!r} is none of {', '.join(ROLES)}", file=sys.stderr)
        return 2
    sys.argv = [sys.argv[0], *sys.argv[3:]]
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        # libfaketime 0.9.10 takes an absolute sleep on the monotonic clock for one on the wall clock.
        time.sleep = _sleep
    Saboteur(role, orders).install()
    if role == "control":
        from ...runtime.control.process import main as control_main
        from .button import answer_for_buttons

        answer_for_buttons()
        return control_main()
    if role == "policy":
        from ...runtime.policy.process import main as policy_main

        return policy_main()
    from ...runtime import children
    from ...runtime.cli import main as run_main

    children.COMMANDS["control"] = command("control", orders)
    children.COMMANDS["policy"] = command("policy", orders)
    return run_main()


if __name__ == "__main__":
    sys.exit(main())
