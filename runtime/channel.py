"""One end of a message channel: `runtime.messages` over a non-blocking AF_UNIX SOCK_SEQPACKET socket.

Both ends count what they send; a message that did not fit into the peer's buffer leaves a gap that the
reader counts in `lost`. Death of the peer is seen as `ChannelClosed`, after everything it sent before.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from .envelope import MAX_BYTES, Envelope, decode, encode
from .messages import Message, MessageError

_SEQUENCES = 1 << 32
_SEND_BYTES = 1 << 20
"""Asked for as buffer of each direction: at 500 Hz, control's states of several seconds of inference."""


class ChannelClosed(ConnectionError):
    """The process at the other end has closed its socket or died."""


class Channel:
    """A two-way channel of one session. Not thread-safe; never blocks except in `wait`."""

    def __init__(
        self, sock: socket.socket, session: int, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._session = session
        self._clock = clock
        self._buffer = bytearray(MAX_BYTES)
        self._view = memoryview(self._buffer)
        self._kept: list[Envelope] = []
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._sequence = 0
        self._expected = 0
        self.lost = 0
        """Messages of the peer that never arrived (its send found the buffer full)."""

    @classmethod
    def from_fd(cls, fd: int, session: int, clock: Callable[[], int] = time.monotonic_ns) -> Channel:
        """Takes over an inherited descriptor; raises `OSError` when it is not an open socket."""
        return cls(socket.socket(fileno=fd), session, clock)

    def send(self, message: Message) -> bool:
        """Sends without blocking; False when the peer's buffer is full (the message is dropped).

        Raises `ChannelClosed` when the peer is gone, `MessageError` for a message over the size limit.
        """
        sequence = self._sequence
        data = encode(message, session=self._session, sequence=sequence, stamp_ns=self._clock())
        self._sequence = (sequence + 1) % _SEQUENCES
        try:
            self._sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed("the process at the other end of the channel is gone") from error
        return True

    def receive_all(self) -> list[Envelope]:
        """Everything that has arrived, oldest first; empty when there is nothing.

        Raises `ChannelClosed` at the end of the stream, on the call after the last messages were returned.
        Raises `MessageError` at once for a malformed datagram, one of another session, or a sequence that
        goes back; the good messages around it are returned by the next call.
        """
        envelopes, self._kept = self._kept, []
        if not self._poll.poll(0):
            # In most ticks: asking first is cheaper than the exception.
            return envelopes
        while True:
            try:
                size = self._sock.recv_into(self._buffer)
            except BlockingIOError:
                return envelopes
            except ConnectionResetError:
                # Linux reports the reset ahead of what is still queued, once: go on draining.
                continue
            if size == 0:
                if envelopes:
                    return envelopes
                raise ChannelClosed("the process at the other end of the channel is gone")
            try:
                envelope = decode(bytes(self._view[:size]), session=self._session)
                self._count(envelope.sequence)
            except MessageError:
                self._kept = envelopes
                raise
            envelopes.append(envelope)

    def wait(self, timeout_s: float | None) -> bool:
        """Waits until something can be received (the end of the stream counts); False after the time-out."""
        if self._kept:
            return True
        return bool(self._poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))

    def fileno(self) -> int:
        """The descriptor, for `select` and `poll` (-1 once closed)."""
        return self._sock.fileno()

    def close(self) -> None:
        """Closes this end; may be called twice."""
        self._sock.close()

    def _count(self, sequence: int) -> None:
        gap = (sequence - self._expected) % _SEQUENCES
        if gap >= _SEQUENCES // 2:
            raise MessageError(f"sequence {sequence} after {self._expected - 1}: it must rise")
        self.lost += gap
        self._expected = (sequence + 1) % _SEQUENCES


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for `Channel`; the parent must close the end that it hands to a child."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        # The system's `net.core.wmem_max` bounds it silently.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
    return pair


def capacity(message: Message) -> int:
    """How many such messages a channel keeps here while its reader is busy; what comes then is lost."""
    left, right = channel_pair()
    with left, right:
        sender, count = Channel(left, 0), 0
        while sender.send(message):
            count += 1
    return count
