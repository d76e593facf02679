"""vla-run --ask: tells a run that is going on to stop, to reset, to go on. Light, so that it is quick."""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from .endpoint_path import SERVICE_FOLDER, folders, found, in_folder
from .exit_codes import AskCode, UsageError

PATIENCE_S = 15.0
"""For an answer; the run itself waits less long for its parts."""
CONNECT_S = 5.0
"""For a run whose queue is full: it hangs, or many ask."""
LOOK_S = 1.0
"""For the state of each of several runs."""
RETRY_S = 0.002
MAX_ANSWER = 1 << 16
_PEER = struct.Struct("iII")


class NoAnswer(Exception):
    """A run that listens does not answer as it should."""


class Line:
    """A connection to one run; a context manager."""

    def __init__(self, path: Path, timeout_s: float = CONNECT_S) -> None:
        """Raises `OSError` where nobody listens or may be asked, `NoAnswer` where a stranger does."""
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with in_folder(path) as (_, name):
                self._connect(name, time.monotonic() + timeout_s)
            _, uid, _ = _PEER.unpack(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if os.getuid() not in (0, uid) and uid != 0:
                raise NoAnswer(f"{path} belongs to user {uid}, who is neither you nor root")
        except (OSError, NoAnswer):
            self._sock.close()
            raise

    def _connect(self, name: str, deadline: float) -> None:
        """Waits its turn where many others want to ask."""
        self._sock.setblocking(False)
        while True:
            try:
                return self._sock.connect(name)
            except BlockingIOError:
                # The queue is full; a connection to a local socket is otherwise made at once.
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_S)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *error: object) -> None:
        self._sock.close()

    def ask(self, command: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The answer. Raises `NoAnswer`."""
        self._sock.settimeout(timeout_s)
        data = b""
        try:
            self._sock.sendall(json.dumps({"cmd": command}).encode() + b"\n")
            while not data.endswith(b"\n") and len(data) < MAX_ANSWER:
                part = self._sock.recv(MAX_ANSWER)
                if not part:
                    break
                data += part
            answer = json.loads(data)
        except (OSError, ValueError) as error:
            raise NoAnswer(
                f"the run at {self.path} does not answer ({error}); whether it was done is not known"
            ) from error
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
            raise NoAnswer(f"the run at {self.path} answers what makes no sense")
        return answer


def ask(args: argparse.Namespace) -> int:
    """Asks the one run there is, or the one that `--arm` or `--endpoint` names. Raises `UsageError` where
    several runs are there."""
    lines, problems = _connect(args)
    try:
        if len(lines) > 1:
            raise UsageError(_several(lines))
        if not lines:
            return _say(args, AskCode.NOBODY, {"ok": False, "error": _nobody(args, problems)})
        try:
            answer = lines[0].ask(args.ask)
        except NoAnswer as error:
            return _say(args, AskCode.NOBODY, {"ok": False, "error": str(error)})
        return _say(args, AskCode.DONE if answer["ok"] else AskCode.REFUSED, answer)
    finally:
        for line in lines:
            line.__exit__()


def _connect(args: argparse.Namespace) -> tuple[list[Line], list[str]]:
    """Those who listen, and why others could not be asked. A socket that nobody listens to is no problem."""
    if args.endpoint is not None:
        return _open([args.endpoint.absolute()])
    if args.arm is None:
        return _open(found())
    lines, problems = _open(found(args.arm))
    if lines:
        return lines, problems
    # An adapter that was unplugged meanwhile has another name now.
    others, problems = _open(found())
    for line in others:
        if _about(line).get("arm") == args.arm:
            lines.append(line)
        else:
            line.__exit__()
    return lines, problems


def _open(paths: list[Path]) -> tuple[list[Line], list[str]]:
    lines: list[Line] = []
    problems: list[str] = []
    for path in paths:
        try:
            lines.append(Line(path))
        except (ConnectionRefusedError, FileNotFoundError):
            continue
        except (OSError, NoAnswer) as error:
            problems.append(
                str(error) if isinstance(error, NoAnswer) else f"{path}: {error.strerror or error}"
            )
    return lines, problems


def _nobody(args: argparse.Namespace, problems: list[str]) -> str:
    if problems:
        return f"no run can be asked: {'; '.join(problems)}"
    if args.endpoint is not None:
        return f"no run listens at {args.endpoint}"
    where = ", ".join(str(folder) for folder in (*folders(), SERVICE_FOLDER))
    on = f" on {args.arm}" if args.arm is not None else ""
    return f"no run{on} listens in {where}; name its endpoint with --endpoint PATH"


def _several(lines: list[Line]) -> str:
    rows = []
    for line in lines:
        about = _about(line)
        if "arm" in about:
            what = f"{about.get('stage')}, process {about.get('pid')}, {line.path}"
            rows.append(f"  --arm {about['arm']}  ({what})")
        else:
            rows.append(f"  --endpoint {line.path}  (does not answer)")
    return "\n".join(["several runs are going on; say which with --arm URL or --endpoint PATH:", *rows])


def _about(line: Line) -> dict[str, Any]:
    """What a run says of itself; nothing where it does not answer."""
    try:
        return line.ask("status", LOOK_S)
    except NoAnswer:
        return {}


def _say(args: argparse.Namespace, code: AskCode, answer: dict[str, Any]) -> int:
    if args.json:
        print(json.dumps(answer))
    elif code is not AskCode.DONE:
        print(f"vla-run: {'refused: ' if code is AskCode.REFUSED else ''}{answer['error']}", file=sys.stderr)
    elif args.ask == "status":
        print("\n".join(_status(answer)))
    else:
        print(f"{args.ask}: {answer.get('text', '')}")
    return code


def _status(answer: dict[str, Any]) -> list[str]:
    task, stop = answer.get("task"), answer.get("stop")
    lines = [
        f"stage    {answer.get('stage')} (control: {answer.get('phase')})",
        f"stop     {stop['code']}: {stop['text']}" if stop else "stop     none",
        f"policy   {'ready' if answer.get('ready') else 'not ready'}",
        f"arm      {answer.get('arm')}, process {answer.get('pid')}",
    ]
    if task:
        lines.insert(1, f"task     {task['id']} of {answer.get('tasks')}: {task['text']} ({task['outcome']})")
    return lines
