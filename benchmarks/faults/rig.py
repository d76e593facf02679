"""What a worker of the campaign keeps alive: a simulated arm, and a run of vla-run on it whose arm is moving.

A run is used for many trials, as long as it can go on; a trial that ends it, or that needs a run started in
another way, gets a new one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from ...drivers.simulated.errors import SimulatorError
from ...drivers.simulated.launch import Simulator, start_simulator
from .button import Button
from .system import START_S, HarnessError, ProductError, Run, RunOptions, small_disk

WIRE_LOG_BYTES = 48_000_000
"""A longer one is begun anew, with a new simulator: about 25 minutes."""
SMALL_DISK_MB = 24
POWER_S = 0.05
FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


@dataclass(frozen=True, slots=True)
class Variant:
    """How a run is started."""

    bus: Literal["pty", "socket"] = "socket"
    """A pty's bytes are carried by kernel threads that wait for the processor, as no motor bus does; so what
    is no matter of the serial port is done on the socket."""
    small_disk: bool = False
    fake_clock: bool = False


VARIANTS: dict[str, Variant] = {
    "usual": Variant(),
    "serial": Variant(bus="pty"),
    "small disk": Variant(small_disk=True),
    "fake clock": Variant(fake_clock=True),
}


def left_out(name: str) -> str:
    """Why a run of that variant cannot be started on this machine; empty: it can."""
    variant = VARIANTS[name]
    if variant.fake_clock and faketime_library() is None:
        return "libfaketime is not installed (Debian: package libfaketime)"
    if variant.small_disk and os.geteuid() != 0:
        return "only root can mount the small file system that is to be full"
    return ""


def faketime_library() -> Path | None:
    """libfaketime (Debian: package libfaketime), where it is installed."""
    for pattern in FAKETIME:
        for found in Path("/").glob(pattern.removeprefix("/")):
            return found
    return None


class Rig:
    """A context manager: leaving it ends all that it has started."""

    def __init__(self, folder: Path, options: RunOptions) -> None:
        self.folder = folder
        self._options = options
        self._stack = contextlib.ExitStack()
        self._disk = contextlib.ExitStack()
        """The small file system of the run, if it has one."""
        self._bus: str = ""
        self._simulator: Simulator | None = None
        self._variant = ""
        self._runs = 0
        self.run: Run | None = None
        self.wire_log = folder / "wire.log"
        self.generation = 0
        """Counts simulators: with each a new wire log begins."""
        self.clock_file = folder / "clock"
        folder.mkdir(parents=True, exist_ok=True)
        self.button = Button(folder / "button")

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_run()
        self._stack.close()
        self.button.close()

    @property
    def simulator(self) -> Simulator:
        assert self._simulator is not None, "no run has been asked for"
        return self._simulator

    def ready(self, name: str) -> Run:
        """A run of that variant whose task is under way. Raises `HarnessError` where it does not come up."""
        if self.run is not None and (name != self._variant or self._worn_out()):
            self.end_run()
        if self.run is None:
            self.run = self._start(name)
        return self.run

    def end_run(self) -> None:
        """Kills what is left of the run; mends the arm."""
        run, self.run = self.run, None
        if run is not None:
            run.end()
        self._disk.close()
        if self._simulator is not None:
            with contextlib.suppress(SimulatorError):
                self._simulator.truth.clear()
        self.button.plug()
        self.button.let_go()

    def _worn_out(self) -> bool:
        return self.wire_log.exists() and self.wire_log.stat().st_size > WIRE_LOG_BYTES

    def _start(self, name: str) -> Run:
        variant = VARIANTS[name]
        if self._simulator is None or self._bus != variant.bus or self._worn_out():
            self._start_simulator(variant)
        self._runs += 1
        self._variant = name
        options = replace(self._options, extra=(*self._options.extra, "--stop-input", self.button.spec))
        state = self.folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        if variant.small_disk:
            state = self._disk.enter_context(small_disk(self.folder / "small", SMALL_DISK_MB))
        state.mkdir(parents=True, exist_ok=True)
        if variant.fake_clock:
            library = faketime_library()
            if library is None:
                raise HarnessError("libfaketime is not installed (Debian: package libfaketime)")
            self.clock_file.write_text("+0\n")
            options = replace(
                options,
                environment=(
                    *options.environment,
                    ("LD_PRELOAD", str(library)),
                    ("FAKETIME_TIMESTAMP_FILE", str(self.clock_file)),
                    # Seconds until it looks into the file again.
                    ("FAKETIME_CACHE_DURATION", "1"),
                    # What waits on the monotonic clock is to be left alone, Python's own lock above all.
                    ("FAKETIME_FORCE_MONOTONIC_FIX", "0"),
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                    ("DONT_FAKE_MONOTONIC", "1"),
                ),
            )
        simulator = self.simulator
        _power_cycle(simulator)
        run = Run(folder, state, simulator.arm_url, simulator.camera_url, options)
        if run.event("running", START_S) is None:
            said = run.output[-1500:]
            last = [f"{e['code']}: {e['text']}" for e in run.seen[-4:]]
            run.end()
            self._disk.close()
            raise ProductError(f"vla-run did not come to its task: {last}; {said}")
        return run

    def _start_simulator(self, variant: Variant) -> None:
        self._stack.close()
        self._bus = variant.bus
        self.generation += 1
        try:
            self._simulator = self._stack.enter_context(
                start_simulator(
                    self.folder / "sim", bus=variant.bus, seed=self.generation, wire_log=self.wire_log
                )
            )
        except SimulatorError as error:
            self._simulator = None
            raise HarnessError(f"the simulated arm does not come up: {error}") from error


def _power_cycle(simulator: Simulator) -> None:
    """As a person would before the next start: an overloaded motor lets go until its power was off."""
    truth = simulator.truth
    truth.clear()
    truth.fault("power_loss")
    time.sleep(POWER_S)
    truth.fault("power_back")
    time.sleep(POWER_S)
