"""vla-run --ask, against endpoints that answer with what they are told to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime import endpoint_path
from holdfast.runtime.cli import main
from holdfast.runtime.endpoint import Endpoint
from holdfast.runtime.endpoint_path import default_path

LEFT, RIGHT = "serial:/dev/ttyLEFT", "serial:/dev/ttyRIGHT"


class Run:
    """Answers every command; keeps what was asked."""

    def __init__(self, arm: str, path: Path | None = None, **answer: Any) -> None:
        self.endpoint = Endpoint.open(path or default_path(arm))
        self.asked: list[str] = []
        self._answer = {
            "ok": True, "text": "done", "stage": "running", "phase": "run", "stop": None, "ready": True,
            "task": {"id": 1, "text": "touch", "outcome": "running"}, "tasks": 1, "arm": arm, "pid": 42,
            **answer,
        }  # fmt: skip
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.endpoint.close()

    def _serve(self) -> None:
        now_ns = 0
        while not self._over.wait(0.002):
            now_ns += 200_000_000
            for request in self.endpoint.turn(now_ns):
                self.asked.append(request.command)
                ok = request.command == "status" or self._answer["ok"]
                self.endpoint.reply(request, {**self._answer, "ok": ok}, now_ns)


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_the_one_run_there_is_is_asked(capsys: pytest.CaptureFixture[str]):
    with Run(LEFT) as run:
        assert main(["--ask", "stop"]) == 0
    assert run.asked == ["stop"]
    assert capsys.readouterr().out == "stop: done\n"


def test_a_refusal_is_said_and_is_no_success(capsys: pytest.CaptureFixture[str]):
    with Run(LEFT, ok=False, error="nothing is stopped"):
        assert main(["--ask", "reset"]) == 1
        assert capsys.readouterr().err == "vla-run: refused: nothing is stopped\n"
        assert main(["--ask", "reset", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"] == "nothing is stopped"


def test_status_for_a_person(capsys: pytest.CaptureFixture[str]):
    with Run(LEFT, stop={"code": "load", "text": "elbow"}, stage="stopped"):
        assert main(["--ask", "status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "stage    stopped (control: run)",
        "task     1 of 1: touch (running)",
        "stop     load: elbow",
        "policy   ready",
        f"arm      {LEFT}, process 42",
    ]


def test_of_several_runs_one_has_to_be_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with Run(LEFT) as left, Run(RIGHT) as right:
        assert main(["--ask", "stop"]) == 2
        listed = capsys.readouterr().err
        assert f"--arm {LEFT}  (running, process 42, " in listed
        assert f"--arm {RIGHT}" in listed
        assert "stop" not in left.asked + right.asked
        assert main(["--ask", "stop", "--arm", RIGHT]) == 0
        assert main(["--ask", "quit", "--endpoint", str(left.endpoint.path)]) == 0
        assert (left.asked[-1], right.asked[-1]) == ("quit", "stop")
        assert main(["--ask", "stop", "--arm", "serial:/dev/ttyNONE"]) == 3
        assert "no run on serial:/dev/ttyNONE" in capsys.readouterr().err


def test_an_arm_whose_adapter_was_unplugged_is_found_by_what_the_run_says(tmp_path: Path):
    """The name of its socket came from /dev/serial/by-id, where it is no more."""
    with Run(LEFT), Run(RIGHT, tmp_path / "holdfast" / "0123456789abcdef.sock") as run:
        assert main(["--ask", "stop", "--arm", RIGHT]) == 0
        assert "stop" in run.asked


def test_the_run_of_the_service_is_found_without_being_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoint_path, "SERVICE_FOLDER", tmp_path / "service")
    with Run(LEFT, tmp_path / "service" / "arm.sock") as run:
        assert main(["--ask", "reset"]) == 0
        assert run.asked == ["reset"]


def test_nobody_listens(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["--ask", "stop"]) == 3
    assert f"no run listens in {tmp_path}/holdfast" in capsys.readouterr().err
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert main(["--ask", "stop", "--endpoint", str(tmp_path / "dead.sock")]) == 3
    assert main(["--ask", "stop", "--endpoint", str(tmp_path / "missing" / "x.sock"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize("answer", [b"", b"hello\n", b'{"fine": true}\n', b"[]\n"])
def test_a_run_that_does_not_answer_as_it_should(
    answer: bytes, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """It is never said that something was done."""
    path = tmp_path / "odd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as odd:
        odd.bind(str(path))
        odd.listen()

        def serve() -> None:
            sock, _ = odd.accept()
            with sock:
                sock.recv(100)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert main(["--ask", "stop", "--endpoint", str(path)]) == 3
        thread.join()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "answer" in shown.err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_stranger_who_pretends_to_be_a_run_is_not_believed(tmp_path: Path):
    """Asked by an ordinary user, a socket of another ordinary user says nothing of an arm."""
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/holdfast-XXXXXX"], text=True).strip())
    folder.chmod(0o777)
    path = folder / "arm.sock"
    script = f"""
import os, socket, sys
os.setgroups([]); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
os.umask(0); sock.bind({str(path)!r}); sock.listen(); print("up", flush=True); sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        asker = f"""
import os
from holdfast.runtime.ask import Line, NoAnswer
from pathlib import Path
os.setgroups([]); os.setuid(65533)
try:
    Line(Path({str(path)!r}))
except NoAnswer as error:
    print(error)
"""
        shown = subprocess.run(
            [sys.executable, "-c", asker], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        stranger.communicate("")
    path.unlink()
    folder.rmdir()
    assert "belongs to user 65534, who is neither you nor root" in shown


@pytest.mark.parametrize(
    "options",
    [
        ["--ask", "dance"],
        ["--ask", "stop", "policy.vla"],
        ["--ask", "stop", "--check"],
        ["--ask", "stop", "--explain"],
        ["--json"],
        ["--stop-input", "gpio:17"],
        ["--reset-input", "evdev:/dev/input/event7?key=KEY_NONE_SUCH"],
        ["--max-tool-speed", "0"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(options: list[str], capsys: pytest.CaptureFixture[str]):
    try:
        code = main(options)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert capsys.readouterr().err


def test_it_is_quick():
    """Whoever wants to stop an arm does not wait for libraries."""
    script = "import sys; from holdfast.runtime import ask, cli; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {"numpy", "ruckig", "pydantic", "rich", "onnxruntime", "cv2", "yaml", "serial", "asyncio"}
    assert not heavy & {name.split(".")[0] for name in done.stdout.split()}
