"""The simulated serial server: a TCP port on this machine, as ser2net and Ethernet adapters offer one."""

from __future__ import annotations

import contextlib
import select
import socket

READ_BYTES = 4096
HOST = "127.0.0.1"


class SocketPort:
    """A listening socket with one client at a time; others are hung up on at once.

    Nothing but this machine reaches it. The number, chosen by the kernel, stays the same when the port is
    unplugged and plugged in again.
    """

    def __init__(self) -> None:
        self.lost_bytes = 0
        """Bytes for the host that found no room, because nobody reads."""
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._number = 0
        self.plug()

    @property
    def url(self) -> str:
        return f"socket://{HOST}:{self._number}"

    @property
    def plugged(self) -> bool:
        return self._listener is not None

    def fds(self) -> list[int]:
        """Descriptors to poll; `read` when one is readable."""
        return [end.fileno() for end in (self._client, self._listener) if end is not None]

    def plug(self) -> None:
        """Makes the port appear; nothing if it is there."""
        if self._listener is None:
            self._listener = socket.create_server((HOST, self._number))
            self._listener.setblocking(False)
            self._number = self._listener.getsockname()[1]

    def unplug(self) -> None:
        """Makes the port vanish; a host that is connected gets end of file, a new one is refused."""
        self._hang_up()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def read(self) -> bytes:
        """What the host has sent since the last call; empty if nothing. Takes a new client, too."""
        data = b""
        if self._client is not None:
            try:
                data = self._client.recv(READ_BYTES)
                if not data:
                    self._hang_up()
            except BlockingIOError:
                pass
            except OSError:
                self._hang_up()
        self._accept()
        return data

    def write(self, data: bytes) -> None:
        """Sends to the host, without ever waiting for it."""
        if self._client is None:
            return
        sent = 0
        # A host that has gone is noticed by the next `read`.
        with contextlib.suppress(OSError):
            sent = self._client.send(data)
        self.lost_bytes += len(data) - sent

    def _accept(self) -> None:
        while self._listener is not None and select.select([self._listener], [], [], 0)[0]:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return  # It went away while it waited.
            if self._client is not None:
                client.close()
                continue
            client.setblocking(False)
            # Answers of a few bytes must not wait for each other in the kernel.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._client = client

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
