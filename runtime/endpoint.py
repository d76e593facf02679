"""The endpoint: a local socket over which a program asks a run to stop, to reset, to go on. Never blocks.

AF_UNIX, a stream of JSON lines, mode 0600; the peer's user must be ours or root (SO_PEERCRED). One request at
a time for each client; clients, lines and what is done in a turn are bounded, so that no client, however slow
or loud, holds up the supervisor. What the requests mean, is not known here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .endpoint_path import in_folder

MAX_CLIENTS = 16
BACKLOG = 64
LINE_BYTES = 1024
BURST = 4
WINDOW_NS = 100_000_000
"""A client may ask so often within this time, and `MAX_CLIENTS` may come; more have to wait."""
NO_DESCRIPTORS_NS = 1_000_000_000
STRANGERS_NS = 10_000_000_000
"""How far apart refused strangers are reported at least."""
LOCK_S = 2.0
_PEER = struct.Struct("iII")


class EndpointError(Exception):
    """The socket cannot be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """One line of one client."""

    client: int
    command: str
    pid: int
    uid: int


@dataclass(slots=True, eq=False)
class _Client:
    number: int
    sock: socket.socket
    pid: int
    uid: int
    heard_ns: int
    buffer: bytearray = field(default_factory=bytearray)
    busy: bool = False
    """Its request has not been answered yet."""
    attended: bool = True
    """It is polled."""
    window_ns: int = 0
    count: int = 0
    """Requests since `window_ns`."""


class Endpoint:
    """A listening socket and its clients. `fileno` is for `poll`; `turn` is called at every wake-up."""

    def __init__(self, path: Path, listener: socket.socket, uids: Collection[int] | None = None) -> None:
        self.path = path
        self._listener = listener
        self._file: tuple[int, int] | None = _identity(path)
        self._uids = frozenset({0, os.getuid()} if uids is None else uids)
        self._clients: dict[int, _Client] = {}
        self._numbers = 0
        self._poll = select.epoll()
        self._listening = False
        self._accept_from_ns = 0
        self._accept_window_ns = 0
        self._accepted = 0
        self._strangers = ""
        self._strangers_due_ns = 0
        self._listen(True)

    @classmethod
    def open(cls, path: Path, uids: Collection[int] | None = None) -> Endpoint:
        """Makes the socket. One whose process has died is replaced, one that is listened to never.

        Raises `EndpointError`.
        """
        path = path.absolute()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with in_folder(path) as (folder, name):
                _lock(folder, path)
                _clear(path, name)
                listener.bind(name)
                # Nobody can connect before `listen`.
                os.chmod(name, 0o600)
                listener.listen(BACKLOG)
            return cls(path, listener, uids)
        except OSError as error:
            listener.close()
            raise EndpointError(
                f"the endpoint {path} cannot be made: {error.strerror or error}; choose another place with "
                "--endpoint PATH"
            ) from error
        except EndpointError:
            listener.close()
            raise

    def fileno(self) -> int:
        return self._poll.fileno()

    def turn(self, now_ns: int) -> list[Request]:
        """What was asked since the last turn; each is to be answered with `reply`."""
        self._wake(now_ns)
        requests = [request for client in self._waiting(now_ns) for request in self._next(client, now_ns)]
        for fd, _ in self._poll.poll(0, MAX_CLIENTS + 1):
            if fd == self._listener.fileno():
                requests += self._accept(now_ns)
        for fd, _ in self._poll.poll(0, MAX_CLIENTS + 1):
            client = self._by_fd(fd)
            if client is not None:
                requests += self._read(client, now_ns)
        return requests

    def reply(self, request: Request, document: dict[str, Any], now_ns: int) -> None:
        """Answers a request; a client that has gone, or does not read, is dropped."""
        client = self._clients.get(request.client)
        if client is None:
            return
        client.busy = False
        if self._send(client, document):
            self._attend(client, self._may_ask(client, now_ns))

    def take_stranger(self, now_ns: int) -> str:
        """Who was refused lately, for the journal; empty for nobody."""
        if not self._strangers or now_ns < self._strangers_due_ns:
            return ""
        self._strangers_due_ns = now_ns + STRANGERS_NS
        text, self._strangers = self._strangers, ""
        return text

    def close(self) -> None:
        """Nobody is answered any more; the socket's file goes, if it is still ours."""
        with contextlib.suppress(OSError):
            # Before the listener is closed: as long as it is open, no other file can have its number.
            if self._file is not None and _identity(self.path) == self._file:
                self.path.unlink()
        self._file = None
        for client in list(self._clients.values()):
            self._drop(client)
        self._listener.close()
        self._poll.close()

    def _accept(self, now_ns: int) -> list[Request]:
        """Admits those who have come; also what they have asked already, before others push them out."""
        if now_ns - self._accept_window_ns >= WINDOW_NS:
            self._accept_window_ns, self._accepted = now_ns, 0
        requests: list[Request] = []
        while self._accepted < MAX_CLIENTS:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return requests
            except OSError:
                # No descriptors are left: looking again at once would only turn in circles.
                self._pause(now_ns + NO_DESCRIPTORS_NS)
                return requests
            self._accepted += 1
            client = self._admit(sock, now_ns)
            if client is not None:
                requests += self._read(client, now_ns)
        self._pause(self._accept_window_ns + WINDOW_NS)
        return requests

    def _pause(self, until_ns: int) -> None:
        self._accept_from_ns = until_ns
        self._listen(False)

    def _listen(self, wanted: bool) -> None:
        if wanted != self._listening:
            self._listening = wanted
            if wanted:
                self._poll.register(self._listener, select.EPOLLIN)
            else:
                self._poll.unregister(self._listener)

    def _admit(self, sock: socket.socket, now_ns: int) -> _Client | None:
        sock.setblocking(False)
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        self._numbers += 1
        client = _Client(self._numbers, sock, pid, uid, now_ns)
        if uid not in self._uids:
            self._strangers = f"refused: process {pid} of user {uid}"
            self._send(client, {"ok": False, "error": f"user {uid} may not ask: this run is of another user"})
            sock.close()
            return None
        if len(self._clients) >= MAX_CLIENTS:
            # The one that has been quiet for longest makes room: a stop must get through.
            self._drop(min(self._clients.values(), key=lambda c: (c.busy, c.heard_ns)))
        self._clients[client.number] = client
        self._poll.register(sock, select.EPOLLIN)
        return client

    def _read(self, client: _Client, now_ns: int) -> list[Request]:
        try:
            data = client.sock.recv(LINE_BYTES + 1 - len(client.buffer))
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return []
        client.buffer += data
        return self._next(client, now_ns)

    def _next(self, client: _Client, now_ns: int) -> list[Request]:
        """The client's next line as a request; none where it is not complete or makes no sense."""
        line, newline, rest = client.buffer.partition(b"\n")
        if not newline:
            if len(line) > LINE_BYTES:
                self._refuse(client, f"a line is longer than {LINE_BYTES} bytes")
            return []
        client.buffer = rest
        if now_ns - client.window_ns >= WINDOW_NS:
            client.window_ns, client.count = now_ns, 0
        client.count += 1
        client.heard_ns = now_ns
        try:
            command = _command(bytes(line))
        except ValueError as error:
            self._refuse(client, str(error))
            return []
        client.busy = True
        self._attend(client, False)
        return [Request(client.number, command, client.pid, client.uid)]

    def _refuse(self, client: _Client, why: str) -> None:
        """Who does not speak the language is told so, once."""
        expected = '{"cmd": "status"} and a newline'
        if self._send(client, {"ok": False, "error": f"{why}; expected: {expected}"}):
            self._drop(client)

    def _send(self, client: _Client, document: dict[str, Any]) -> bool:
        """False where the client takes nothing, and was dropped."""
        data = json.dumps(document).encode() + b"\n"
        try:
            if client.sock.send(data, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT) == len(data):
                return True
        except OSError:
            pass
        self._drop(client)
        return False

    def _wake(self, now_ns: int) -> None:
        """Those whose pause is over are heard again."""
        if now_ns >= self._accept_from_ns:
            self._listen(True)
        for client in self._clients.values():
            if not client.busy and self._may_ask(client, now_ns):
                self._attend(client, True)

    def _waiting(self, now_ns: int) -> list[_Client]:
        """Those who have sent their next line already."""
        return [
            client
            for client in list(self._clients.values())
            if not client.busy and b"\n" in client.buffer and self._may_ask(client, now_ns)
        ]

    @staticmethod
    def _may_ask(client: _Client, now_ns: int) -> bool:
        return client.count < BURST or now_ns - client.window_ns >= WINDOW_NS

    def _attend(self, client: _Client, wanted: bool) -> None:
        """Who is not attended to is not polled either: a hang-up could not be turned off otherwise."""
        if wanted == client.attended:
            return
        client.attended = wanted
        if wanted:
            self._poll.register(client.sock, select.EPOLLIN)
        else:
            self._poll.unregister(client.sock)

    def _by_fd(self, fd: int) -> _Client | None:
        return next((client for client in self._clients.values() if client.sock.fileno() == fd), None)

    def _drop(self, client: _Client) -> None:
        # Closing takes the descriptor out of the poll, too.
        client.sock.close()
        self._clients.pop(client.number, None)


def _command(line: bytes) -> str:
    """The command of one line. Raises `ValueError`."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("this is no JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get("cmd"), str) or len(document) != 1:
        raise ValueError("this is no object with the one key cmd")
    return document["cmd"]


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _lock(folder: int, path: Path) -> None:
    """Two that start at once must not take each other's socket for that of a dead run. Held until the folder
    is closed."""
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EndpointError(f"another process holds a lock on {path.parent}") from None
            time.sleep(0.02)
        else:
            return


def _clear(path: Path, name: str) -> None:
    """Removes the socket of a process that has died. Raises `EndpointError` for anything else."""
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise EndpointError(f"{path} is there and is no socket; choose another place with --endpoint PATH")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            os.unlink(name)
            return
        except BlockingIOError:
            pass
    raise EndpointError(f"{path} belongs to a run that is going on; this run has no endpoint of its own")
