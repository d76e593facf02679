"""vla-run at a terminal: the live view, and a person who resets a stop and goes on."""

from __future__ import annotations

import os
import pty
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator

from .rig import VlaRun, arm_options, assert_still
from .tiny_bundle import write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


class Terminal:
    """The person's side of a terminal: types, and reads all that is shown."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.shown = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start_reading(self) -> None:
        self._thread.start()

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def close(self) -> None:
        os.close(self.theirs)
        self._thread.join(5)
        os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                return
            if not data:
                return
            self.shown += data


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    with start_simulator(tmp_path / "sim") as made:
        yield made


def test_a_person_resets_a_stop_and_goes_on(tmp_path: Path, simulator: Simulator, terminal: Terminal):
    terminal.start_reading()
    bundle = write_tiny_bundle(tmp_path / "tiny.vla")
    options = [str(bundle), *arm_options(simulator)]
    with VlaRun(tmp_path / "run", *options, terminal=terminal.theirs) as run:
        run.event("running")
        simulator.truth.fault("camera_unplug")
        assert "camera_lost" in run.event("stop")["text"]
        run.event("stopped")

        # A reset while the camera is still gone: the arm holds and "n" does not move it.
        terminal.type("r")
        run.wait_for(lambda: run.count("reset") == 1 and run.count("fault") == 2)
        terminal.type("n")
        run.wait_for(lambda: run.count("fault") == 3)
        assert_still(simulator)

        simulator.truth.clear()
        while run.count("ready") < 2:
            # The server needs a moment to listen again; a person presses the key again, too.
            faults = run.count("fault")
            terminal.type("r")
            run.wait_for(lambda before=faults: run.count("ready") == 2 or run.count("fault") > before)
        assert_still(simulator)
        terminal.type("n")
        run.wait_for(lambda: run.count("running") == 2)
        terminal.type("q")
        assert run.finish() == 0, run.output
    assert b"state" in terminal.shown
    assert b"shoulder_pan" in terminal.shown
    assert run.count("released") == 1


def test_control_c_parks_releases_and_gives_the_terminal_back(
    tmp_path: Path, simulator: Simulator, terminal: Terminal
):
    """The terminal sends the signal to the whole foreground group, as under a shell."""
    terminal.start_reading()
    before = termios.tcgetattr(terminal.theirs)
    options = [str(write_tiny_bundle(tmp_path / "tiny.vla")), *arm_options(simulator)]
    with VlaRun(tmp_path / "run", *options, terminal=terminal.theirs) as run:
        run.event("running")
        terminal.type("\x03")
        assert run.finish() == 130, run.output
    codes = [event["code"] for event in run.events()]
    assert codes.index("signal") < codes.index("parked") < codes.index("released")
    assert run.count("signal") == 1
    assert run.count("stop") == 0
    assert termios.tcgetattr(terminal.theirs) == before


def test_a_terminal_that_takes_nothing_does_not_stop_the_arm(
    tmp_path: Path, simulator: Simulator, terminal: Terminal
):
    """Ctrl-S: the buffer of a terminal is full at once, while the run goes on."""
    bundle = write_tiny_bundle(tmp_path / "tiny.vla")
    options = [str(bundle), *arm_options(simulator), "--duration", "3"]
    with VlaRun(tmp_path / "run", *options, terminal=terminal.theirs) as run:
        run.wait_for(lambda: run.count("released") == 1)
        assert run.count("stop") == 0
        terminal.start_reading()
        assert run.finish() == 0, run.output
