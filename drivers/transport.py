"""A serial port or its socket twin, read by `poll` with deadlines: no spinning, no stale bytes.

pyserial opens the port (termios, custom baud rates, an exclusive lock); from then on it is a file
descriptor: pyserial's own read path costs more time than the whole bus cycle.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import termios
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import serial

from .errors import BusTimeout, ConfigError, CorruptReply, Disconnected, PortError
from .types import Direction, Tap

Clock = Callable[[], int]

BITS_PER_BYTE = 10
"""8N1: a start bit, eight bits, a stop bit."""
EARLIEST = 0.95
"""A reply may come this much sooner than the wire's nominal time: clocks of motors are 3 % off at worst."""
PACKET_BYTES = 62
"""A USB adapter hands over at most this much at once: longer answers arrive in several packets."""
FIRST_LOOK = 0.85
"""Share of the wire's time of a longer answer that is slept through before the first look at the port."""
IDLE_NS = 2_000_000
"""After an error the line must be silent this long before the next transmission."""
IDLE_LIMIT_NS = 20_000_000
"""A line that never falls silent is reported after this time."""
LATENCY_TIMER_MS = 1
_PSEUDO_TERMINALS = range(136, 144)
"""Major numbers. There the mark would outlive its owner, as long as the other end is open."""
_HANG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Port:
    """An open port. One owner, one thread. Raises `Disconnected` for ever once the device is gone."""

    def __init__(self, fd: int, name: str, baud: int, close: Callable[[], None], clock: Clock) -> None:
        self.name = name
        self.tap: Tap | None = None
        """Sees all bytes of both directions."""
        self.byte_ns = BITS_PER_BYTE * 1_000_000_000 // baud
        self.stale_bytes = 0
        """Bytes that arrived unasked and were thrown away: late replies, noise."""
        self._fd = fd
        self._close = close
        self._clock = clock
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)
        self._dirty = False
        self._lost = ""
        self._wire_free_ns = 0

    def send(self, frame: bytes) -> int:
        """Writes a frame. Returns when its first bit can have left (ns): not before the last frame's end."""
        if self._lost:
            raise Disconnected(self._lost)
        if self._dirty:
            self._await_idle()
        start_ns = max(self._clock(), self._wire_free_ns)
        self._write(frame)
        if self.tap is not None:
            self.tap(Direction.SENT, start_ns, frame)
        self._wire_free_ns = start_ns + len(frame) * self.byte_ns
        return start_ns

    def exchange(self, frame: bytes, reply_bytes: int, timeout_ns: int) -> tuple[bytes, int]:
        """Sends a frame and returns exactly `reply_bytes` of answer, with the time (ns) at which the
        frame had left the wire.

        `timeout_ns` counts from when the wire alone would have delivered the answer. Raises `PartialReply`
        (a `BusTimeout` with what came), `CorruptReply` for bytes that came too early or too many,
        `Disconnected`.
        """
        if not self._dirty:
            self._drain()
        start_ns = self.send(frame)
        sent_ns = start_ns + len(frame) * self.byte_ns
        wire_ns = reply_bytes * self.byte_ns
        deadline_ns = sent_ns + wire_ns + timeout_ns
        if reply_bytes > PACKET_BYTES:
            # One sleep costs less CPU than waking for every packet.
            time.sleep(max(0, sent_ns + int(FIRST_LOOK * wire_ns) - self._clock()) / 1e9)
        reply = bytearray()
        try:
            self._receive(reply, reply_bytes, start_ns, len(frame), deadline_ns)
        finally:
            if reply and self.tap is not None:
                self.tap(Direction.RECEIVED, self._clock(), bytes(reply))
        return bytes(reply), sent_ns

    def _receive(
        self, reply: bytearray, reply_bytes: int, start_ns: int, frame_bytes: int, deadline_ns: int
    ) -> None:
        """Fills `reply`, also where it raises."""
        while len(reply) < reply_bytes:
            if not self._wait(deadline_ns):
                self._dirty = True
                raise PartialReply(
                    f"{self.name}: {len(reply)} of {reply_bytes} bytes came in time", bytes(reply)
                )
            reply += self._read()
            taken_ns = self._clock() - start_ns
            if taken_ns < EARLIEST * (frame_bytes + len(reply)) * self.byte_ns:
                self._dirty = True
                raise CorruptReply(
                    f"{self.name}: {len(reply)} bytes came within {taken_ns / 1e3:.0f} us of the request, "
                    "sooner than the wire can carry them: late answers to an older one, thrown away"
                )
        if len(reply) > reply_bytes:
            self._dirty = True
            raise CorruptReply(
                f"{self.name}: {len(reply)} bytes came, expected {reply_bytes}: duplicated or stale answers"
            )

    def distrust(self) -> None:
        """Makes the next transmission wait for an idle line: what came back made no sense."""
        self._dirty = True

    def close(self) -> None:
        self._close()

    def _write(self, frame: bytes) -> None:
        try:
            written = os.write(self._fd, frame)
        except BlockingIOError:
            written = 0
        except OSError as error:
            raise self._gone(error) from error
        if written != len(frame):
            self._dirty = True
            raise BusTimeout(
                f"{self.name} took {written} of {len(frame)} bytes: the adapter does not send; re-plug it"
            )

    def _read(self) -> bytes:
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise self._gone("ready, but without data")
        return data

    def _drain(self) -> None:
        """Throws away what lies in the input: the answer to nothing that is asked now."""
        while self._poller.poll(0):
            self._discard()

    def _discard(self) -> None:
        data = self._read()
        self.stale_bytes += len(data)
        if data and self.tap is not None:
            self.tap(Direction.DISCARDED, self._clock(), data)

    def _await_idle(self) -> None:
        limit_ns = self._clock() + IDLE_LIMIT_NS
        while self._wait(self._clock() + IDLE_NS):
            self._discard()
            if self._clock() > limit_ns:
                raise CorruptReply(
                    f"{self.name}: bytes keep coming unasked; does another program talk on this bus?"
                )
        self._dirty = False

    def _wait(self, deadline_ns: int) -> bool:
        """Blocks until there is input (True) or the deadline has passed (False)."""
        left_ns = deadline_ns - self._clock()
        events = self._poller.poll(max(0.0, left_ns / 1e6))
        if not events:
            return False
        if events[0][1] & _HANG_UP and not events[0][1] & select.POLLIN:
            raise self._gone("hung up")
        return True

    def _gone(self, cause: OSError | str) -> Disconnected:
        # A closed socket takes one more write without complaint; a lost port stays lost.
        self._lost = f"{self.name} is gone ({cause}): unplugged? Re-plug it and start again"
        return Disconnected(self._lost)


class PartialReply(BusTimeout):
    """The answer stayed incomplete; `partial` has what came."""

    def __init__(self, message: str, partial: bytes) -> None:
        super().__init__(message)
        self.partial = partial


def open_port(url: str, baud: int, clock: Clock = time.monotonic_ns) -> Port:
    """Opens `serial:/dev/ttyUSB0` (or any path or link to a tty) or `socket://host:port`.

    Raises `ConfigError` for another URL, `PortError` where the port is missing, busy, forbidden or no tty.
    """
    if url.startswith("serial:"):
        return _open_serial(url.removeprefix("serial:"), baud, clock)
    if url.startswith("socket://"):
        return _open_socket(url, baud, clock)
    hint = f"; did you mean serial:{url}?" if url.startswith("/") else ""
    raise ConfigError(f"unknown arm {url!r}: expected serial:/dev/... or socket://host:port{hint}")


def latency_timer_ms(url: str, sysfs: Path = Path("/sys/class/tty")) -> int | None:
    """The latency timer of an FTDI adapter in ms; None for ports that have none (ttyACM, pty, sockets).

    At the default of 16 ms an adapter holds short replies back and limits the bus to 60 Hz.
    """
    if not url.startswith("serial:"):
        return None
    name = os.path.basename(os.path.realpath(url.removeprefix("serial:")))
    try:
        return int((sysfs / name / "device" / "latency_timer").read_text())
    except (OSError, ValueError):
        return None


def _open_serial(path: str, baud: int, clock: Clock) -> Port:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise PortError(f"port {path} does not exist; is the arm plugged in? Present: {_ports()}") from error
    except OSError as error:
        raise PortError(f"port {path} cannot be reached: {error.strerror}") from error
    if not stat.S_ISCHR(mode):
        raise PortError(f"{path} is not a serial port; present: {_ports()}")
    try:
        port = serial.Serial(path, baud, timeout=0, exclusive=True)
    except (serial.SerialException, termios.error, OSError, ValueError) as error:
        raise PortError(_why(path, error)) from error
    fd = port.fileno()
    if not os.isatty(fd):
        port.close()
        raise PortError(f"{path} is not a serial port; present: {_ports()}")
    if os.major(os.fstat(fd).st_rdev) not in _PSEUDO_TERMINALS:
        # pyserial's lock keeps out only those who ask for it; this keeps out everybody but root.
        fcntl.ioctl(fd, termios.TIOCEXCL)
    return Port(fd, path, baud, port.close, clock)


def _open_socket(url: str, baud: int, clock: Clock) -> Port:
    try:
        parts = urlsplit(url)
        address = (parts.hostname, parts.port)
    except ValueError as error:
        raise ConfigError(f"malformed arm {url!r}: {error}") from error
    if address[0] is None or address[1] is None:
        raise ConfigError(f"malformed arm {url!r}: expected socket://host:port")
    try:
        link = socket.create_connection((address[0], address[1]), timeout=3)
    except OSError as error:
        raise PortError(f"cannot connect to {url}: {error}; is the serial server running there?") from error
    # Requests of a few bytes must not wait for each other in the kernel.
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    return Port(link.fileno(), url, baud, link.close, clock)


def _why(path: str, error: Exception) -> str:
    # pyserial words a termios.error (which is no OSError) anew and leaves the number behind.
    cause = error.__context__
    number = getattr(error, "errno", None)
    if number is None and isinstance(cause, termios.error):
        number = cause.args[0]
    if number in (errno.EACCES, errno.EPERM):
        return f"no permission to open {path}; join its group (often: sudo usermod -aG dialout $USER)"
    if number in (errno.EBUSY, errno.EAGAIN):
        return f"port {path} is busy: another program holds it; close that one first"
    if number in (errno.ENOTTY, errno.EINVAL):
        return f"{path} is not a serial port, or refuses its baud rate: {error}"
    return f"port {path} cannot be opened: {error}"


def _ports() -> str:
    found = sorted(str(p) for pattern in ("ttyUSB*", "ttyACM*") for p in Path("/dev").glob(pattern))
    return ", ".join(found) or "no /dev/ttyUSB* or /dev/ttyACM*"
