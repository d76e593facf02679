"""Starting and ending the two child processes. Spawned, never forked; each in a session of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .channel import Channel, channel_pair
from .stages import Child

COMMANDS: dict[Child, list[str]] = {
    "control": [sys.executable, "-m", "holdfast.runtime.control.process"],
    "policy": [sys.executable, "-m", "holdfast.runtime.policy.process"],
}
_LOG_TAIL = 4000


@dataclass(slots=True)
class ChildProcess:
    """One running child; what it prints goes to `log`, so that no full pipe or closed terminal stops it."""

    name: Child
    process: subprocess.Popen[bytes]
    channel: Channel
    log: Path
    open: bool = True
    """False once the child has closed its end of the channel."""

    def end(self, now: bool) -> None:
        """SIGTERM, or SIGKILL where `now`; to this process alone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if now else signal.SIGTERM)

    def log_tail(self) -> str:
        """The end of what the child printed."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def discard_empty_log(self) -> None:
        if not self.log_tail():
            self.log.unlink(missing_ok=True)


def spawn_children(
    configs: Mapping[Child, Mapping[str, Any]],
    session: int,
    log_dir: Path,
    commands: Mapping[Child, list[str]] = COMMANDS,
) -> dict[Child, ChildProcess]:
    """Starts control, then policy, connected to each other and to us.

    `configs`: the JSON document that each gets on its standard input, and there the number of this process,
    whose death they watch. Raises `OSError` when a program
    cannot be started; what was started before is ended then.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    control_ours, control_theirs = channel_pair()
    policy_ours, policy_theirs = channel_pair()
    control_peer, policy_peer = channel_pair()
    fds: dict[Child, tuple[socket.socket, socket.socket, socket.socket, str]] = {
        "control": (control_ours, control_theirs, control_peer, "--policy-fd"),
        "policy": (policy_ours, policy_theirs, policy_peer, "--control-fd"),
    }
    children: dict[Child, ChildProcess] = {}
    try:
        for name, (ours, theirs, peer, peer_option) in fds.items():
            children[name] = _spawn(
                name,
                [*commands[name], "--supervisor-fd", str(theirs.fileno()), peer_option, str(peer.fileno())],
                (theirs.fileno(), peer.fileno()),
                json.dumps({**configs[name], "parent": os.getpid()}).encode(),
                Channel(ours, session),
                log_dir / f"{name}-{os.getpid()}.log",
            )
    except OSError:
        for child in children.values():
            child.end(now=True)
            child.process.wait()
        raise
    finally:
        # A copy of a child's end that stayed open here would hide its death from the other side.
        for _, theirs, peer, _ in fds.values():
            theirs.close()
            peer.close()
    return children


def _spawn(
    name: Child, command: list[str], fds: tuple[int, int], document: bytes, channel: Channel, log: Path
) -> ChildProcess:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=fds,
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        # A child that died at once is noticed by its exit status.
        process.stdin.write(document)
    with suppress(BrokenPipeError):
        process.stdin.close()
    return ChildProcess(name, process, channel, log)
