"""A motor-bus cycle (sync read x6 + sync write x6) at 1 Mbaud: time, CPU, distance from the floor.

Rounds of Holdfast's driver and of the vendor's SDK (package feetech-servo-sdk) alternate on the same
simulated servos. The floor is the wire's own time, 10 bits a byte: no cycle on a real bus can be shorter. The
simulator's answers come a little early instead, to make up for the pty (docs/simulator.md).

Exit codes: 0 measured, also when a budget is missed; 2 unusable input; 3 the arm or the simulator cannot be
used."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..runtime.arguments import whole_number
from ..runtime.control import realtime

IDS = (1, 2, 3, 4, 5, 6)
BAUD = 1_000_000
BYTE_US = 10 * 1e6 / BAUD
REQUEST_BYTES = 8 + len(IDS)
GOALS_BYTES = 8 + 3 * len(IDS)
FIFO_PRIORITY = 70
WARM_UP_CYCLES = 30
RECOVERY_S = 0.05
CPU_BUDGET_US = 100.0
FLOOR_BUDGET = 1.10

SIMULATED = """\
Measured on the simulator, whose answers never come sooner than the wire could carry them; the pty that does
carry them adds its own delay. How long a cycle takes also depends on what else this machine does: a missed
budget leaves the exit code at 0."""

COLUMNS = {
    "floor us": ("floor_us", 0),
    "p50 us": ("p50_us", 0),
    "p99 us": ("p99_us", 0),
    "max us": ("max_us", 0),
    "x floor": ("over_floor", 3),
    "CPU us": ("cpu_us", 1),
}

EXIT_USAGE, EXIT_REFUSED = 2, 3

Cycle = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one driver together; times in us."""

    driver: str
    reads: str
    floor_us: float
    p50_us: float
    p99_us: float
    max_us: float
    cpu_us: float
    """User and system time of this thread in one cycle."""
    errors: int
    cycles: int

    @property
    def over_floor(self) -> float:
        """p50 over the wire's own time."""
        return self.p50_us / self.floor_us


def floor_us(reply_parameters: int) -> float:
    """The wire's own time of a cycle whose answers carry so many bytes each."""
    return BYTE_US * (REQUEST_BYTES + len(IDS) * (6 + reply_parameters) + GOALS_BYTES)


@contextmanager
def holdfast_cycle(url: str, block: bool) -> Iterator[Cycle]:
    """Our driver: positions only, or the 15-byte feedback block that control reads."""
    from ..drivers.feetech.bus import FeetechBus, allow_all
    from ..drivers.transport import open_port

    bus = FeetechBus(open_port(url, BAUD), IDS, allow_all, reply_timeout_ms=20)
    goals = [ticks for ticks, _ in bus.sync_read_positions()]
    read = bus.sync_read_block if block else bus.sync_read_positions

    def cycle() -> None:
        read()
        bus.sync_write_goals(goals)

    try:
        yield cycle
    finally:
        bus.close()


@contextmanager
def vendor_cycle(url: str) -> Iterator[Cycle]:
    """The vendor's SDK as it is meant to be used."""
    import scservo_sdk

    from ..drivers.errors import BusTimeout

    port = scservo_sdk.PortHandler(url.removeprefix("serial:"))
    port.openPort()
    port.setBaudRate(BAUD)
    packets = scservo_sdk.PacketHandler(0)
    reader = scservo_sdk.GroupSyncRead(port, packets, 56, 2)
    writer = scservo_sdk.GroupSyncWrite(port, packets, 42, 2)
    for motor_id in IDS:
        reader.addParam(motor_id)
    if reader.txRxPacket() != scservo_sdk.COMM_SUCCESS:
        # Without an answer the SDK's positions are 0: they must never become goals.
        port.closePort()
        raise BusTimeout(
            "the motors did not answer the vendor's SDK; try again, or leave it out: --no-vendor"
        )
    for motor_id in IDS:
        ticks = reader.getData(motor_id, 56, 2)
        writer.addParam(motor_id, [ticks & 0xFF, ticks >> 8])

    def cycle() -> None:
        if reader.txRxPacket() != scservo_sdk.COMM_SUCCESS:
            # The SDK does not empty its input: without this every later cycle would fail or be stale.
            time.sleep(RECOVERY_S)
            if port.ser is not None:
                port.ser.reset_input_buffer()
            raise TimeoutError("no complete answer")
        for motor_id in IDS:
            ticks = reader.getData(motor_id, 56, 2)
            writer.changeParam(motor_id, [ticks & 0xFF, ticks >> 8])
        writer.txPacket()

    try:
        yield cycle
    finally:
        port.closePort()


def run_bus_bench(
    url: str | None = None, cycles: int = 500, rounds: int = 3, *, fifo: bool = True, vendor: bool = True
) -> dict[str, Any]:
    """Measures and returns one JSON-ready document. Without `url` it starts its own simulated robot.

    With `url` goals equal to the measured positions are written: the motors must be free to hold there.
    """
    from ..drivers.simulated.launch import start_simulator

    if url is None:
        with (
            tempfile.TemporaryDirectory(prefix="holdfast-bus-") as folder,
            start_simulator(Path(folder), camera_fps=1, realtime=fifo) as simulator,
        ):
            results, scheduled = _measure(simulator.arm_url, cycles, rounds, fifo, vendor)
    else:
        results, scheduled = _measure(url, cycles, rounds, fifo, vendor)
    ours = results[0]
    return {
        "benchmark": "bus",
        "fifo": scheduled,
        "simulated": url is None,
        "results": [{**asdict(result), "over_floor": result.over_floor} for result in results],
        "budgets": {"cpu_us": CPU_BUDGET_US, "over_floor": FLOOR_BUDGET},
        "within_budgets": ours.cpu_us <= CPU_BUDGET_US and ours.over_floor <= FLOOR_BUDGET,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arm",
        metavar="URL",
        help="serial:/dev/...: a real bus (its motors are told to stay where they are)",
    )
    parser.add_argument(
        "--cycles", type=whole_number(1, 1_000_000), default=500, help="per driver and round (default 500)"
    )
    parser.add_argument(
        "--rounds", type=whole_number(1, 1000), default=3, help="alternating rounds (default 3)"
    )
    parser.add_argument("--no-rt", action="store_true", help="do not ask for real-time priority")
    parser.add_argument("--no-vendor", action="store_true", help="leave the vendor's SDK out")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")


def main(args: argparse.Namespace) -> int:
    """Prints the table."""
    from ..drivers.errors import BusError, DriverError
    from ..drivers.simulated.errors import SimulatorError

    vendor = not args.no_vendor
    if vendor and (reason := _no_vendor(args.arm)):
        print(f"vla-bench bus: {reason}; leave the vendor's SDK out: --no-vendor", file=sys.stderr)
        return EXIT_USAGE
    try:
        report = run_bus_bench(args.arm, args.cycles, args.rounds, fifo=not args.no_rt, vendor=vendor)
    except (DriverError, SimulatorError) as error:
        print(f"vla-bench bus: {error}", file=sys.stderr)
        return EXIT_REFUSED if isinstance(error, (BusError, SimulatorError)) else EXIT_USAGE
    if args.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"{'driver':<12}{'reads':<10}" + "".join(f"{name:>9}" for name in COLUMNS) + "   errors")
    for row in report["results"]:
        values = "".join(f"{row[key]:>9.{digits}f}" for key, digits in COLUMNS.values())
        print(f"{row['driver']:<12}{row['reads']:<10}{values}   {row['errors']}/{row['cycles']}")
    print(
        f"Budgets of Holdfast's position cycle: CPU <= {CPU_BUDGET_US:g} us, p50 <= {FLOOR_BUDGET:g} x "
        f"floor: {'met' if report['within_budgets'] else 'MISSED'}. "
        f"Set-up: {'SCHED_FIFO, idle latency 0, as in a run' if report['fifo'] else 'ordinary priority'}."
    )
    if report["simulated"]:
        print(SIMULATED)
    return 0


def _no_vendor(url: str | None) -> str | None:
    """Why the vendor's SDK cannot be measured there, or None."""
    if importlib.util.find_spec("scservo_sdk") is None:
        return "the package feetech-servo-sdk is not installed (extra `dev`)"
    if url is not None and url.startswith("socket://"):
        return f"it cannot talk to {url}, only to serial:/dev/..."
    return None


@dataclass(frozen=True, slots=True)
class _Entry:
    driver: str
    reads: str
    reply_parameters: int
    make: Callable[[str], Any]


def _entries(vendor: bool) -> list[_Entry]:
    entries = [
        _Entry("holdfast", "positions", 2, lambda url: holdfast_cycle(url, block=False)),
        _Entry("holdfast", "feedback", 15, lambda url: holdfast_cycle(url, block=True)),
    ]
    return [*entries, _Entry("scservo_sdk", "positions", 2, vendor_cycle)] if vendor else entries


def _measure(url: str, cycles: int, rounds: int, fifo: bool, vendor: bool) -> tuple[list[Result], bool]:
    entries = _entries(vendor)
    times: list[list[float]] = [[] for _ in entries]
    cpu = [0.0] * len(entries)
    errors = [0] * len(entries)
    scheduled = fifo
    with _awake() if fifo else nullcontext():
        for _ in range(rounds):
            for index, entry in enumerate(entries):
                with entry.make(url) as cycle:
                    scheduled = (_set_fifo(True) if fifo else False) and scheduled
                    try:
                        spent, failed = _round(cycle, cycles, times[index])
                    finally:
                        _set_fifo(False)
                cpu[index] += spent
                errors[index] += failed
    return [
        _result(entry, times[i], cpu[i] / (cycles * rounds), errors[i], cycles * rounds)
        for i, entry in enumerate(entries)
    ], scheduled


def _round(cycle: Cycle, cycles: int, times: list[float]) -> tuple[float, int]:
    """One driver, `cycles` times back to back; appends the good cycles' times (us); CPU (us) and errors."""
    from ..drivers.errors import BusError

    for _ in range(WARM_UP_CYCLES):
        with suppress(BusError, TimeoutError):
            cycle()
    failed = 0
    gc.collect()
    gc.disable()
    cpu_before = time.thread_time_ns()
    for _ in range(cycles):
        start = time.perf_counter_ns()
        try:
            cycle()
        except (BusError, TimeoutError):
            failed += 1
            continue
        times.append((time.perf_counter_ns() - start) / 1000)
    spent = (time.thread_time_ns() - cpu_before) / 1000
    gc.enable()
    return spent, failed


def _result(entry: _Entry, times: list[float], cpu_us: float, errors: int, cycles: int) -> Result:
    ordered = sorted(times) or [float("nan")]
    last = len(ordered) - 1
    return Result(
        entry.driver,
        entry.reads,
        floor_us(entry.reply_parameters),
        ordered[last // 2],
        ordered[int(last * 0.99)],
        ordered[last],
        cpu_us,
        errors,
        cycles,
    )


@contextmanager
def _awake() -> Iterator[None]:
    """Keeps the processors out of deep idle states, as control does in every run; where it may."""
    held = realtime.set_up(None, only=("CPU idle latency",))
    try:
        yield
    finally:
        if held.latency_fd >= 0:
            os.close(held.latency_fd)


def _set_fifo(on: bool) -> bool:
    """Puts this thread under SCHED_FIFO or back; False where it is not permitted."""
    try:
        if on:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
        else:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except PermissionError:
        return False
    return True
