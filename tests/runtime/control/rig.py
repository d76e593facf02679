"""The real control process on the simulated robot; supervisor and policy are played at their sockets."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot, robot_path
from holdfast.drivers.simulated.launch import Simulator
from holdfast.runtime.channel import Channel, ChannelClosed, channel_pair
from holdfast.runtime.messages import Arm, Chunk, Event, Heartbeat, Message, Snapshot, StampSource, State

MS = 1_000_000
PROCESS = ("-m", "holdfast.runtime.control.process")
ON_FAKE_DEVICES = (str(Path(__file__).with_name("wire_devices.py")),)
"""The same process, for which some FIFOs are input devices, GPIO chips and watchdogs."""
STEPS = 16
DT_NS = 50 * MS
M = TypeVar("M", bound=Message)


@dataclass
class Rig:
    """One control process and the two channels to it."""

    process: subprocess.Popen[bytes]
    supervisor: Channel
    policy: Channel
    events: list[Event] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    state: State | None = None
    chunk_id: int = 0

    def pump(self, seconds: float, *, beat: bool = True) -> None:
        """Plays both peers for a while: heartbeats out, messages in."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(ChannelClosed):
                for envelope in self.supervisor.receive_all():
                    if isinstance(envelope.message, Event):
                        self.events.append(envelope.message)
                    elif isinstance(envelope.message, Snapshot):
                        self.snapshots.append(envelope.message)
                for envelope in self.policy.receive_all():
                    if isinstance(envelope.message, State):
                        self.state = envelope.message
                if beat:
                    self.supervisor.send(Heartbeat())
                    self.policy.send(Heartbeat())
            if time.monotonic() >= end:
                return
            time.sleep(0.02)

    def wait_for(self, code: str, timeout_s: float = 30.0) -> Event:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for event in self.events:
                if event.code == code:
                    return event
            if self.process.poll() is not None:
                self.pump(0)
                found = next((e for e in self.events if e.code == code), None)
                if found is not None:
                    return found
                break
            self.pump(0.02)
        got = [(event.code, event.text) for event in self.events if event.code not in ("rt", "guard")]
        raise AssertionError(f"no event {code!r}; got {got}")

    def arm(self, *, back: bool, follow: bool) -> None:
        self.supervisor.send(Arm(1, back, follow, 400 * MS, 500 * MS))

    def to_start(self) -> None:
        self.wait_for("connected")
        self.pump(0.1)
        self.arm(back=True, follow=False)
        self.wait_for("at_start")

    def send_chunk(self, rows: tuple[tuple[float, ...], ...], age_ns: int = 30 * MS) -> None:
        self.chunk_id += 1
        now = time.monotonic_ns()
        self.policy.send(
            Chunk(self.chunk_id, 1, now - age_ns, now - age_ns, now - 5 * MS, now, MS, 33 * MS,
                  StampSource.HEADER, DT_NS, rows)
        )  # fmt: skip

    def follow_to(self, goal: tuple[float, ...], seconds: float) -> None:
        """Chunks of a straight way from the present pose to `goal`, renewed all the time."""
        self.pump(0.05)
        assert self.state is not None
        first = self.state.commanded
        count = round(seconds / 0.05)
        way = [tuple(a + (b - a) * min(1.0, i / count) for a, b in zip(first, goal, strict=True))
               for i in range(count + STEPS)]  # fmt: skip
        for i in range(count):
            self.send_chunk(tuple(way[i : i + STEPS]))
            self.pump(0.05)

    def exit_code(self, timeout_s: float = 30.0) -> int:
        end = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < end:
            self.pump(0.05)
        self.pump(0)
        if self.process.poll() is None:
            # faulthandler then prints where it hangs.
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(5)
            raise AssertionError(
                f"control did not end; events {[(e.code, e.text) for e in self.events][-8:]}"
            )
        return self.process.wait()


@contextlib.contextmanager
def control(
    simulator: Simulator, state_dir: Path, program: tuple[str, ...] = PROCESS, **changes: object
) -> Iterator[Rig]:
    """The process, started as the supervisor starts it; ended by its pid if a test left it running."""
    session = secrets.randbits(64)
    ours_s, theirs_s = channel_pair()
    ours_p, theirs_p = channel_pair()
    settings = {
        "session": session, "robot": str(robot_path("sim_arm")),
        "calibration": str(find_calibration(load_robot("sim_arm")).path), "arm": simulator.arm_url,
        "control_hz": None, "rt": "warn", "dry_run": False, "write_gains": False, "reset_latch": False,
        "state_dir": str(state_dir), "chunk_steps": STEPS, "chunk_dt_ns": DT_NS,
        "strategy": "newest", "ema_s": 0.0, "cpu": None,
    }  # fmt: skip
    command = [sys.executable, "-X", "faulthandler", *program]
    command += ["--supervisor-fd", str(theirs_s.fileno()), "--policy-fd", str(theirs_p.fileno())]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        pass_fds=(theirs_s.fileno(), theirs_p.fileno()),
        start_new_session=True,
    )
    theirs_s.close()
    theirs_p.close()
    assert process.stdin is not None
    process.stdin.write(json.dumps({**settings, **changes}).encode())
    process.stdin.close()
    rig = Rig(process, Channel(ours_s, session), Channel(ours_p, session))
    try:
        yield rig
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        rig.supervisor.close()
        rig.policy.close()
