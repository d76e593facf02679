"""One run of the whole chain: simulated robot, cyclictest, `vla-run` with many tasks, and the referee."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cyclictest import PERIOD_US, PRIORITY, Cyclictest, Lateness, control_cpu, find
from .demo_attempts import EventFile, Outcome, Referee, draw_attempts
from .demo_pictures import Album

CAMERA_PORT = 8090
PAUSE_S = 1.0
TURN_S = 0.02
SLACK_S = 20.0
"""Per task, for the way back to the start pose."""
START_S = 240.0
WRITTEN = ("events.jsonl", "report.json", "summary.json", "vla-run.log", "wire.log", "strip.jpg")
"""What a run leaves in its folder; an earlier run's is removed first."""


class DemoError(Exception):
    """The run could not be made; the message says which part failed and where its log is."""

    exit_code = 1


class DemoUsageError(DemoError):
    """What was asked for cannot be used."""

    exit_code = 2


class DemoRefused(DemoError):
    """The simulated robot cannot be started here."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class DemoOptions:
    folder: Path
    """Where bundle, logs and reports go."""
    attempts: int
    seed: int = 1000
    duration_s: float = 10.0
    port: int = CAMERA_PORT
    record: bool = False
    """Keep every byte on the motor bus (wire.log)."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    outcomes: list[Outcome]
    exit_code: int
    """Of vla-run."""
    report: dict[str, Any] = field(repr=False)
    """What vla-run wrote; empty when it wrote none."""
    cyclictest: Lateness | str
    """Its result, or why there is none."""
    strip: Path | None = None


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """The folder, made and ours alone until the end.

    Raises `DemoUsageError` where it cannot be written, and while another run writes there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise DemoUsageError(
            f"the folder {folder} cannot be written ({error.strerror}); give another --output"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoUsageError(
                f"another run writes to {folder}; wait for it, or give another --output"
            ) from error
        yield folder


def given_bundle(path: Path) -> Path:
    """The exported bundle that the user named. Raises `DemoUsageError`; vla-run checks what is in it."""
    if not (path / "bundle.json").is_file():
        raise DemoUsageError(
            f"{path} is no bundle (it has no bundle.json); export one: vla-export --fp16 demo"
        )
    return path


def export_demo(folder: Path, quiet: bool) -> Path:
    """Runs `vla-export --fp16 demo` into the folder; returns the bundle. Raises `DemoError`."""
    bundle = folder / "demo.vla"
    command = [
        sys.executable,
        "-m",
        "holdfast.export.cli",
        "--fp16",
        "demo",
        "--output",
        str(bundle),
        "--force",
    ]
    print(f"$ vla-export --fp16 demo --output {bundle}", file=sys.stderr, flush=True)
    output = subprocess.DEVNULL if quiet else None
    status = subprocess.run(command, check=False, stdout=output, env=_environment(folder)).returncode
    if status != 0:
        raise DemoError(f"vla-export ended with exit code {status}; its message stands above")
    return bundle


def run_demo(
    bundle: Path,
    options: DemoOptions,
    say: Callable[[str], None],
    on_outcome: Callable[[int, Outcome], None],
) -> DemoResult:
    """Runs all attempts. Raises `DemoError`; whatever else ends it, vla-run ends in its own orderly way."""
    from ..drivers.simulated.errors import SimulatorError
    from ..drivers.simulated.launch import start_simulator

    options.folder.mkdir(parents=True, exist_ok=True)
    paths = {name: options.folder / name for name in WRITTEN}
    for path in paths.values():
        path.unlink(missing_ok=True)
    most_s = START_S + (options.duration_s + PAUSE_S + SLACK_S) * options.attempts
    try:
        with (
            tempfile.TemporaryDirectory(prefix="holdfast-demo-") as sim_folder,
            start_simulator(
                Path(sim_folder),
                port=_free(options.port),
                seed=options.seed,
                wire_log=paths["wire.log"] if options.record else None,
            ) as simulator,
            cyclictest_beside(options.folder / "cyclictest.json", most_s) as latency,
        ):
            say(f"watch it in a browser: {simulator.camera_url.rsplit('/', 1)[0]}/")
            attempts = draw_attempts(simulator.truth, options.attempts, options.seed)
            command = vla_run_command(bundle, options, simulator.arm_url, simulator.camera_url)
            command += [word for attempt in attempts for word in ("--task", attempt.instruction)]
            album = Album(simulator.camera_url)
            with vla_run(command, paths["vla-run.log"], options.folder) as process:
                referee = Referee(
                    attempts, simulator.truth, lambda: process.send_signal(signal.SIGUSR1), on_outcome
                )
                follow(process, referee, EventFile(paths["events.jsonl"]), most_s, album)
            measured = latency.finish() if latency else "cyclictest (package rt-tests) is not installed"
    except SimulatorError as error:
        raise DemoRefused(str(error)) from error
    report = json.loads(paths["report.json"].read_text()) if paths["report.json"].exists() else {}
    outcomes = [referee.outcomes[index] for index in sorted(referee.outcomes)]
    strip = paths["strip.jpg"] if album.write(paths["strip.jpg"]) else None
    return DemoResult(outcomes, process.returncode, report, measured, strip)


def vla_run_command(bundle: Path, options: DemoOptions, arm_url: str, camera_url: str) -> list[str]:
    """The command without its tasks."""
    return [
        sys.executable, "-m", "holdfast.runtime.cli", str(bundle),
        "--camera", camera_url, "--arm", arm_url, "--robot", "sim_arm",
        "--duration", str(options.duration_s), "--pause", str(PAUSE_S), "--on-stop", "exit",
        "--events", str(options.folder / "events.jsonl"), "--report", str(options.folder / "report.json"),
    ]  # fmt: skip


def log_tail(folder: Path, lines: int = 12) -> str:
    """The end of what vla-run said."""
    path = folder / "vla-run.log"
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def follow(
    process: subprocess.Popen[bytes],
    referee: Referee,
    events: EventFile,
    most_s: float,
    album: Album | None = None,
) -> None:
    """Lets the referee see every event until vla-run has ended. Raises `DemoError` after `most_s`."""
    deadline = time.monotonic() + most_s
    while process.poll() is None:
        referee.step(events.new())
        if album is not None:
            album.step(referee.running)
        if time.monotonic() > deadline:
            raise DemoError("vla-run did not come to its end in time; see vla-run.log")
        time.sleep(TURN_S)
    referee.step(events.new())


def _environment(folder: Path) -> dict[str, str]:
    """The run has a state folder of its own: the person's note of the last bundle, and the latch of their own
    arm's stops, are none of its business."""
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state")}


@contextlib.contextmanager
def vla_run(command: list[str], log: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process; on leaving it is asked to end, as a person would, and waited for."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(folder),
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def cyclictest_beside(
    output: Path, most_s: float, priority: int = PRIORITY, period_us: int = PERIOD_US
) -> Iterator[Cyclictest | None]:
    """A running cyclictest on control's core; None where it is not installed."""
    latency = Cyclictest(output, control_cpu(), most_s, priority, period_us) if find() else None
    try:
        yield latency
    finally:
        if latency is not None:
            latency.finish()


def _free(port: int) -> int:
    """The port, or 0 (any) where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
