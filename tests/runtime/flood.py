"""A client that behaves badly: `flood.py PATH KIND SECONDS`. Run as a program, beside a run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(0.5)
    sock.connect(path)
    return sock


def status(path: str) -> None:
    """Asks as fast as it can, and reads nothing."""
    sock = connect(path)
    while True:
        sock.sendall(b'{"cmd": "status"}\n' * 50)


def garbage(path: str) -> None:
    sock = connect(path)
    while True:
        sock.sendall(os.urandom(4096))


def connections(path: str) -> None:
    """Comes again and again, and says nothing."""
    kept = []
    while True:
        kept.append(connect(path))
        kept = kept[-20:]


def commands(path: str) -> None:
    """Asks for what is not possible now."""
    sock = connect(path)
    while True:
        sock.sendall(b'{"cmd": "reset"}\n')
        sock.recv(4096)


def main() -> None:
    path, kind, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    # Ends whatever it hangs in.
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    misbehave = {function.__name__: function for function in (status, garbage, connections, commands)}[kind]
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            misbehave(path)


if __name__ == "__main__":
    main()
