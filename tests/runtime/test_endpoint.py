"""The endpoint's socket with real clients: who may ask, what is understood, and that nobody holds it up."""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.runtime.endpoint import (
    BURST,
    LINE_BYTES,
    MAX_CLIENTS,
    WINDOW_NS,
    Endpoint,
    EndpointError,
    Request,
)
from holdfast.runtime.endpoint_path import in_folder


class Server:
    """An endpoint with a clock of its own; answers every request with its number."""

    def __init__(self, path: Path) -> None:
        self.endpoint = Endpoint.open(path)
        self.now_ns = 10 * WINDOW_NS
        self.taken: list[Request] = []

    def turn(self, *, wait: bool = False) -> list[Request]:
        self.now_ns += WINDOW_NS if wait else 1
        requests = self.endpoint.turn(self.now_ns)
        self.taken += requests
        return requests

    def answer(self, requests: list[Request]) -> None:
        for request in requests:
            self.endpoint.reply(request, {"ok": True, "cmd": request.command}, self.now_ns)

    def serve(self, turns: int = 3) -> None:
        for _ in range(turns):
            self.answer(self.turn(wait=True))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "arm.sock")
    yield made
    made.endpoint.close()


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(5)
    with in_folder(path) as (_, name):
        sock.connect(name)
    return sock


def line(command: str) -> bytes:
    return json.dumps({"cmd": command}).encode() + b"\n"


def received(sock: socket.socket) -> list[dict[str, Any]]:
    """Everything that has come so far."""
    sock.setblocking(False)
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except (BlockingIOError, ConnectionResetError):
        pass
    return [json.loads(row) for row in data.splitlines()]


def hung_up(sock: socket.socket) -> bool:
    """Whether the other end was closed."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


def test_a_request_and_its_answer(server: Server):
    with connect(server.endpoint.path) as client:
        client.sendall(line("stop"))
        (request,) = server.turn()
        assert (request.command, request.pid, request.uid) == ("stop", os.getpid(), os.getuid())
        assert received(client) == []
        server.answer([request])
        assert received(client) == [{"ok": True, "cmd": "stop"}]


def test_only_its_user_can_open_the_socket(server: Server):
    mode = server.endpoint.path.lstat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_somebody_waiting_wakes_a_poll(server: Server):
    poll = select.poll()
    poll.register(server.endpoint, select.POLLIN)
    assert poll.poll(0) == []
    with connect(server.endpoint.path) as client:
        assert poll.poll(1000)
        server.turn()
        assert poll.poll(0) == [], "a silent client wakes nobody"
        client.sendall(line("status"))
        assert poll.poll(1000)
        requests = server.turn()
        client.close()
        assert poll.poll(0) == [], "nobody is woken for one whose answer is due, also when it hangs up"
        server.answer(requests)


ASK = """
import json, os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
sock.settimeout(10)
try:
    sock.connect(sys.argv[1])
    sock.sendall(b'{"cmd": "stop"}\\n')
    print(sock.recv(4096).decode())
except OSError as error:
    print(json.dumps({"error": type(error).__name__}))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("opened", "expected"), [(False, "PermissionError"), (True, "user 65534 may not ask")]
)
def test_another_user_is_refused(opened: bool, expected: str):
    """By the mode of the file, and where somebody has changed that, by who the peer is."""
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/holdfast-XXXXXX"], text=True).strip())
    folder.chmod(0o755)
    server = Server(folder / "arm.sock")
    try:
        if opened:
            server.endpoint.path.chmod(0o666)
        command = [sys.executable, "-c", ASK, str(server.endpoint.path), "65534"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stranger:
            deadline = time.monotonic() + 30
            while stranger.poll() is None and time.monotonic() < deadline:
                server.answer(server.turn(wait=True))
                time.sleep(0.01)
            assert stranger.stdout is not None
            answer = json.loads(stranger.stdout.read())
    finally:
        server.endpoint.close()
        folder.rmdir()
    assert expected in answer["error"]
    assert server.taken == []
    told = server.endpoint.take_stranger(server.now_ns)
    assert told == (f"refused: process {stranger.pid} of user 65534" if opened else "")
    assert server.endpoint.take_stranger(server.now_ns) == ""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be asked by another user")
def test_root_may_ask_a_run_of_any_user(tmp_path: Path):
    endpoint = Endpoint.open(tmp_path / "arm.sock", uids={0, 4711})
    with connect(endpoint.path) as client:
        client.sendall(line("stop"))
        assert [request.uid for request in endpoint.turn(0)] == [0]
    endpoint.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"stop\n",
        b"\n",
        b"\xff\xfe\x00\n",
        b'{"cmd": 7}\n',
        b'{"cmd": "stop", "arm": "left"}\n',
        b'["stop"]\n',
        b"[" * (LINE_BYTES - 1) + b"\n",
        b'{"cmd": "' + b"x" * LINE_BYTES,
        b'{"cmd": "' + b"x" * LINE_BYTES + b'"}\n',
    ],
)
def test_who_does_not_speak_the_language_is_told_and_dropped(server: Server, sent: bytes):
    with connect(server.endpoint.path) as client:
        client.sendall(sent)
        server.serve()
        (answer,) = received(client)
        assert answer["ok"] is False
        assert "expected: " in answer["error"]
        assert server.taken == []
        assert hung_up(client)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=3 * LINE_BYTES))
def test_no_bytes_bring_it_down(server: Server, data: bytes):
    with connect(server.endpoint.path) as client:
        client.sendall(data)
        server.serve()
    server.serve(1)
    with connect(server.endpoint.path) as client:
        client.sendall(line("status"))
        server.serve()
        assert received(client)


def test_a_request_in_pieces_and_several_in_one(server: Server):
    with connect(server.endpoint.path) as client:
        for byte in line("stop"):
            client.sendall(bytes([byte]))
            server.answer(server.turn())
        client.sendall(line("status") + line("reset") + line("next"))
        server.serve(4)
        assert [answer["cmd"] for answer in received(client)] == ["stop", "status", "reset", "next"]


def test_one_request_at_a_time(server: Server):
    """What a client asks after a reset must not be carried out before the answer to that is known."""
    with connect(server.endpoint.path) as client:
        client.sendall(line("reset") + line("next"))
        first = server.turn(wait=True)
        assert [request.command for request in first] == ["reset"]
        assert server.turn(wait=True) == []
        server.answer(first)
        assert [request.command for request in server.turn(wait=True)] == ["next"]


def test_a_stop_is_taken_from_one_who_does_not_wait_for_the_answer(server: Server):
    with connect(server.endpoint.path) as client:
        client.sendall(line("stop"))
    server.serve()
    assert [request.command for request in server.taken] == ["stop"]


def test_a_flood_is_taken_in_small_portions(server: Server):
    """Other clients are served meanwhile."""
    with connect(server.endpoint.path) as loud, connect(server.endpoint.path) as quiet:
        loud.setblocking(False)
        flood = line("status") * 2000
        sent = loud.send(flood)
        quiet.sendall(line("stop"))
        before = len(server.taken)
        for _ in range(50):
            server.answer(server.turn())
        commands = [request.command for request in server.taken[before:]]
        assert commands.count("status") <= BURST
        assert commands.count("stop") == 1
        for _ in range(3):
            server.answer(server.turn(wait=True))
        assert sent > 0


def test_a_client_that_never_reads_is_dropped(server: Server):
    with connect(server.endpoint.path) as deaf:
        deaf.setblocking(False)
        dropped = False
        for _ in range(20000):
            try:
                deaf.send(line("status"))
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                dropped = True
                break
            for request in server.turn(wait=True):
                server.endpoint.reply(request, {"ok": True, "pad": "x" * 4000}, server.now_ns)
        assert dropped


def test_silent_clients_make_room_for_one_who_asks(server: Server):
    silent = [connect(server.endpoint.path) for _ in range(MAX_CLIENTS)]
    try:
        server.serve(MAX_CLIENTS)
        with connect(server.endpoint.path) as client:
            client.sendall(line("stop"))
            server.serve()
            assert received(client) == [{"ok": True, "cmd": "stop"}]
    finally:
        for sock in silent:
            sock.close()


def test_a_flood_of_connections_does_not_lock_others_out(server: Server):
    socks: list[socket.socket] = []
    try:
        for _ in range(60):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            socks.append(sock)
            if sock.connect_ex(str(server.endpoint.path)) != 0:
                # The kernel's queue is full: a client that waits gets its turn.
                server.serve(1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            while client.connect_ex(str(server.endpoint.path)) != 0:
                server.serve(1)
            client.sendall(line("stop"))
            server.serve(10)
            assert received(client) == [{"ok": True, "cmd": "stop"}]
    finally:
        for sock in socks:
            sock.close()


def test_the_socket_of_a_dead_run_is_replaced(tmp_path: Path):
    path = tmp_path / "arm.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    server = Server(path)
    with connect(path) as client:
        client.sendall(line("stop"))
        server.serve()
        assert received(client)
    server.endpoint.close()
    assert not path.exists()


def test_the_socket_of_a_living_run_is_left_alone(server: Server):
    with pytest.raises(EndpointError, match="belongs to a run that is going on"):
        Endpoint.open(server.endpoint.path)
    with connect(server.endpoint.path) as client:
        client.sendall(line("stop"))
        server.serve()
        assert received(client)


def test_a_living_run_that_does_not_accept_is_left_alone_too(tmp_path: Path):
    """Its queue is full: it hangs, or is very busy."""
    path = tmp_path / "arm.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = connect(path)
        with pytest.raises(EndpointError, match="belongs to a run that is going on"):
            Endpoint.open(path)
        waiting.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("do not lose me")
    with pytest.raises(EndpointError, match="is no socket"):
        Endpoint.open(path)
    assert path.read_text() == "do not lose me"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EndpointError, match="--endpoint PATH"):
        Endpoint.open(tmp_path / "file" / "arm.sock")


def test_a_path_longer_than_an_address_may_be(tmp_path: Path):
    folder = tmp_path / ("long" * 40)
    server = Server(folder / "arm.sock")
    with connect(folder / "arm.sock") as client:
        client.sendall(line("stop"))
        server.serve()
        assert received(client)
    server.endpoint.close()


def test_two_runs_side_by_side(tmp_path: Path):
    left, right = Server(tmp_path / "left.sock"), Server(tmp_path / "right.sock")
    with connect(left.endpoint.path) as client:
        client.sendall(line("stop"))
        left.serve()
        right.serve()
    assert (len(left.taken), len(right.taken)) == (1, 0)
    left.endpoint.close()
    assert right.endpoint.path.exists()
    right.endpoint.close()


def test_at_the_end_a_socket_that_is_not_ours_any_more_stays(server: Server):
    path = server.endpoint.path
    path.unlink()
    other = Endpoint.open(path)
    server.endpoint.close()
    server.endpoint.close()
    assert path.exists()
    other.close()
    assert not path.exists()
