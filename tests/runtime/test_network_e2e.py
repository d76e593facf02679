"""Whom a run talks to, looked at from outside: the sockets of all its processes, while it runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from holdfast.drivers.simulated.launch import start_simulator

from ..processes import descendants
from .rig import VlaRun, arm_options
from .tiny_bundle import STEPS, write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


def sockets(pid: int) -> set[str]:
    """The inodes of its sockets; empty when it is gone."""
    found = set()
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(fd)
            found |= set(re.findall(r"^socket:\[(\d+)\]$", target))
    except OSError:
        pass
    return found


def network(pid: int) -> set[tuple[str, str, int]]:
    """(protocol, remote address as the kernel writes it, remote port) of its sockets of the internet."""
    own, found = sockets(pid), set()
    for protocol in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            _, _, remote, _, _, _, _, _, _, inode, *_ = line.split()
            if inode in own:
                address, port = remote.split(":")
                found.add((protocol, address, int(port, 16)))
    return found


def test_a_run_talks_to_its_camera_and_to_nobody_else(tmp_path: Path) -> None:
    """Nothing listens, nothing asks a name server or a hub: one connection of one process, to the camera."""
    bundle = write_tiny_bundle(tmp_path / "tiny.vla", np.zeros((STEPS, 6), np.float32))
    with start_simulator(tmp_path / "sim") as simulator:
        port = urlsplit(simulator.camera_url).port
        options = [*arm_options(simulator), "--duration", "1", "--task", "touch the cube"]
        seen: set[tuple[str, str, int]] = set()
        looks = 0
        with VlaRun(tmp_path, str(bundle), *options) as run:
            while run.process.poll() is None:
                for pid in (run.process.pid, *descendants(run.process.pid)):
                    seen |= network(pid)
                looks += 1
            assert run.finish() == 0, run.output
    assert looks > 20
    assert seen == {("tcp", "0100007F", port)}
