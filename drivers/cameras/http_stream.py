"""The HTTP side of a camera: one GET whose body never ends, read without blocking for longer than asked.

Written on sockets because the reader must tell "nothing yet" from "closed", and must empty the socket to get
to the newest frame: `http.client` has a buffer of its own that cannot be asked. The request is HTTP/1.0, so
that no server may use chunked encoding.
"""

from __future__ import annotations

import base64
import http.client
import io
import select
import socket
import ssl
import time
from email.message import Message
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import CameraOpenError

READ_BYTES = 262_144
MAX_HEAD_BYTES = 65_536


class HttpStream:
    """An open response: `headers`, then `read` until it returns b''."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        """Connects and reads the head of the response. Raises `CameraOpenError`."""
        self._url = url
        parts = urlsplit(url)
        self._socket = _connect(parts, url, timeout_s)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        try:
            self._socket.sendall(_request(parts))
            self._socket.setblocking(False)
            self.headers, self._rest = self._read_head(time.monotonic() + timeout_s)
        except OSError as error:
            self.close()
            raise CameraOpenError(f"camera {url}: {error} while asking for the stream") from error
        except CameraOpenError:
            self.close()
            raise

    def read(self, timeout_s: float) -> bytes | None:
        """What has arrived; None when nothing came within the time; b'' when the far end has closed."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        data = self._receive()
        if data is None and self._poll.poll(timeout_s * 1000):
            data = self._receive()
        return data

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes | None:
        try:
            return self._socket.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except ConnectionError:
            return b""

    def _read_head(self, deadline_s: float) -> tuple[Message, bytes]:
        data, self._rest = b"", b""
        while b"\r\n\r\n" not in data:
            more = self.read(max(0.0, deadline_s - time.monotonic()))
            if more == b"" or len(data) > MAX_HEAD_BYTES:
                raise CameraOpenError(f"camera {self._url}: the server does not answer in HTTP")
            if more is None:
                raise CameraOpenError(f"camera {self._url}: the server accepted the connection but is silent")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        status_line, _, fields = head.partition(b"\r\n")
        words = status_line.decode("latin-1").split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/"):
            raise CameraOpenError(
                f"camera {self._url}: the server does not answer in HTTP: {status_line[:60]!r}"
            )
        if words[1] != "200":
            hint = {"401": ": give http://USER:PASSWORD@HOST/...", "404": ": check the path"}.get(
                words[1], ""
            )
            raise CameraOpenError(f"camera {self._url}: expected status 200, got {' '.join(words[1:])}{hint}")
        headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        if headers.get("Transfer-Encoding", "identity").lower() != "identity":
            raise CameraOpenError(f"camera {self._url}: the server sends chunked encoding to HTTP/1.0")
        return headers, rest


def _connect(parts: SplitResult, url: str, timeout_s: float) -> socket.socket:
    secure = parts.scheme.lower() == "https"
    host = parts.hostname or ""
    try:
        port = parts.port or (443 if secure else 80)
        sock = socket.create_connection((host, port), timeout=timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ssl.create_default_context().wrap_socket(sock, server_hostname=host) if secure else sock
    except ConnectionRefusedError as error:
        raise CameraOpenError(f"camera {url}: nothing listens there; start the camera's server") from error
    except socket.gaierror as error:
        raise CameraOpenError(f"camera {url}: the host name {host!r} is unknown") from error
    except (OSError, ValueError) as error:
        raise CameraOpenError(f"camera {url}: cannot connect: {error}") from error


def _request(parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname or ""
    lines = [
        f"GET {target} HTTP/1.0",
        f"Host: {host}{f':{parts.port}' if parts.port else ''}",
        "User-Agent: holdfast",
        "Accept: multipart/x-mixed-replace, */*",
    ]
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append("Authorization: Basic " + base64.b64encode(login.encode()).decode())
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")
