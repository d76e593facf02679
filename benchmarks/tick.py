"""CPU time of one tick of control without the bus: inbox, core, encoder and gate, telemetry, flight recorder.

The real `ControlLoop` with real channels follows chunks on the simulated arm's file; instead of the motors
stands an arm that is where it was told to be, so no port is read or written and no motor's answer decoded
(`vla-bench bus` measures those). A new chunk comes every 60 ms. Two ways of running it:

- back to back: ticks follow each other at once, on a clock that goes on by a period each time. What the code
  itself costs, with warm caches; this is what the budget is for.
- paced: at the real rate, with control's real-time set-up. Between two ticks the caches are lost to whatever
  else runs, and the same code takes a multiple.

Each is measured in a process of its own, set up as control is. Where the time goes is asked in one more run
back to back, with a clock around each part: other weather, and clocks that cost time, so its rows need not
add up to the p50. Fixed work between the ticks shows when the machine is slow; that it is as fast as before
does not show that the caches are, too. Exit codes: 0 measured, also when the budget is missed."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..drivers.arm import CheckRow, MotorInfo
from ..drivers.calibration import find_calibration
from ..drivers.feetech import codec
from ..drivers.robots.schema import Robot, load_robot
from ..drivers.types import Direction, JointState, Tap
from ..drivers.units import JointUnits
from ..runtime.arguments import number, whole_number
from ..runtime.channel import Channel, channel_pair
from ..runtime.control import realtime
from ..runtime.control.arming import Options
from ..runtime.control.clock import Grid, Wake
from ..runtime.control.config import core_config
from ..runtime.control.core import ControlCore
from ..runtime.control.gate import FeetechGate
from ..runtime.control.gate_table import feetech_table
from ..runtime.control.latch import LatchFile
from ..runtime.control.loop import ControlLoop
from ..runtime.control.strategies import DEFAULT, STRATEGIES
from ..runtime.messages import Arm, Chunk, Heartbeat, Phase, StampSource
from ..runtime.recorder.in_control import ControlRecorder
from .tick_parts import PARTS, PartTimes, Reference, p50_us

ROBOT = "sim_arm"
BUDGET_US = 60.0
"""Of the p50, back to back."""
STEPS, STEP_NS = 16, 50_000_000
CHUNK_TICKS = 6
SWING = (0.4, 0.3, -0.2, -0.2, 0.4, 40.0)
"""From the start pose up and away from the base (rad; gripper percent)."""
OBSERVED_NS = 50_000_000
"""A chunk's observation is so old when it arrives."""
WARM_UP_TICKS = 200
MEMORY = Path("/dev/shm")
AGE_NS = 400_000_000
REFERENCE_TICKS = 10
"""The fixed work is done once in so many ticks."""


@dataclass(frozen=True, slots=True)
class Result:
    """CPU time of the whole tick (us) in one way of running it."""

    paced: bool
    recorder: bool
    p50_us: float
    p99_us: float
    max_us: float
    reference_p50_us: float
    """The fixed work, between the same ticks."""
    parts_p50_us: dict[str, float]
    """`PARTS` and `REST`, by the clock; empty where they were not timed."""
    ticks: int


class StillArm:
    """`drivers.arm.Arm` without motors: at every moment where it was last told to be."""

    def __init__(self, robot: Robot, units: JointUnits, gate: FeetechGate, clock: Callable[[], int]) -> None:
        self.guard = gate
        self.tap: Tap | None = None
        self._ids, self._units, self._clock = robot.motor_ids, units, clock
        self._position = tuple(joint.start for joint in robot.joints)
        n = len(self._ids)
        self._rest: tuple[Any, ...] = ((0.0,) * n, (0.1,) * n, (7.4,) * n, (30.0,) * n, (0.1,) * n, (0,) * n)
        self._request = codec.sync_read(self._ids, codec.FEEDBACK_ADDRESS, codec.FEEDBACK_LENGTH)
        self._answer = bytes(n * (codec.OVERHEAD + codec.FEEDBACK_LENGTH))

    def connect(self) -> list[MotorInfo]:
        return []

    def check(self) -> list[CheckRow]:
        return []

    def read(self) -> JointState:
        now_ns = self._clock()
        if self.tap is not None:
            self.tap(Direction.SENT, now_ns, self._request)
            self.tap(Direction.RECEIVED, now_ns, self._answer)
        return JointState(now_ns, self._position, *self._rest)

    def torque(self) -> tuple[bool, ...]:
        return (False,) * len(self._ids)

    def prepare(self, *, write_gains: bool = False) -> JointState:
        return self.read()

    def energise(self) -> None:
        pass

    def command(self, positions: Sequence[float]) -> None:
        frame = codec.encode_goals(self._ids, self._units.to_ticks(positions))
        self.guard(frame)
        if self.tap is not None:
            self.tap(Direction.SENT, self._clock(), frame)
        self._position = tuple(positions)

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Enough(Exception):
    """All ticks have been measured."""


class Stopwatch(Grid):
    """The loop's grid: measures from one call of `wait` to the next, and plays the peers in between."""

    def __init__(self, period_ns: int, ticks: int, between: Callable[[int, int], None], paced: bool) -> None:
        super().__init__(period_ns)
        self.times_ns: list[int] = []
        self.reference = Reference()
        self.parts: PartTimes | None = None
        self._period = period_ns
        self._ticks = ticks
        self._between = between
        self._paced = paced
        self._slot_ns = time.monotonic_ns()
        self._woke_ns = self._slot_ns
        self._started_ns = 0
        self._count = 0

    def clock(self) -> int:
        """CLOCK_MONOTONIC, or, back to back, a clock in which each tick begins one period after the last."""
        now_ns = time.monotonic_ns()
        return now_ns if self._paced else self._slot_ns + now_ns - self._woke_ns

    def wait(self) -> Wake:
        spent_ns = time.thread_time_ns() - self._started_ns
        if self._count > WARM_UP_TICKS:
            self.times_ns.append(spent_ns)
            if self.parts is not None:
                self.parts.end()
            if self._count % REFERENCE_TICKS == 0:
                self.reference.run()
        if self._count == WARM_UP_TICKS + self._ticks:
            raise _Enough
        self._between(self._count, self.clock())
        self._count += 1
        if self._paced:
            wake = super().wait()
        else:
            # Where the tick was interrupted for longer than a period, the next one begins when it ended.
            self._slot_ns = max(self._slot_ns + self._period, self.clock())
            self._woke_ns = time.monotonic_ns()
            wake = Wake(self._slot_ns, self._slot_ns, 1, 0, 0)
        if self.parts is not None:
            self.parts.begin()
        self._started_ns = time.thread_time_ns()
        return wake


class Peers:
    """The far ends of both channels: the supervisor's and the policy's part in a run."""

    def __init__(self, robot: Robot) -> None:
        ours, self.supervisor = _channels()
        self._supervisor = ours
        ours, self.policy = _channels()
        self._policy = ours
        self._start = [joint.start for joint in robot.joints]
        self._swing = SWING
        self._chunk_id = 0
        self._began_ns = 0

    def between(self, tick: int, now_ns: int) -> None:
        """What happens before a tick: heartbeats, every now and then a chunk, and their inboxes emptied."""
        if tick == 0:
            self._supervisor.send(Arm(1, False, True, AGE_NS, AGE_NS))
        if tick % 10 == 0:
            self._supervisor.send(Heartbeat())
        if tick > 0 and tick % CHUNK_TICKS == 0:
            self._policy.send(self._chunk(now_ns))
        elif tick % 4 == 0:
            self._policy.send(Heartbeat())
        self._supervisor.receive_all()
        self._policy.receive_all()

    def _chunk(self, now_ns: int) -> Chunk:
        self._chunk_id += 1
        self._began_ns = self._began_ns or now_ns
        seen_ns = now_ns - OBSERVED_NS
        rows = tuple(self._pose((seen_ns + i * STEP_NS) * 1e-9) for i in range(STEPS))
        stamps = (seen_ns, seen_ns, seen_ns, now_ns)
        return Chunk(self._chunk_id, 1, *stamps, 40_000_000, 33_000_000, StampSource.HEADER, STEP_NS, rows)

    def _pose(self, time_s: float) -> tuple[float, ...]:
        # From where the arm is: a chunk that begins elsewhere would be refused.
        grown = min(1.0, max(0.0, time_s - self._began_ns * 1e-9))
        return tuple(
            start + swing * grown * math.sin(2.0 * time_s + joint) ** 2
            for joint, (start, swing) in enumerate(zip(self._start, self._swing, strict=True))
        )


def measure(
    ticks: int, *, paced: bool, recorder: bool, strategy: str, control_hz: float, parts: bool = False
) -> Result:
    """Runs the loop for so many ticks. Sets this process up as control's: give it one of its own."""
    robot = load_robot(ROBOT)
    units = JointUnits(robot, find_calibration(robot))
    config = core_config(
        robot, units, control_hz=control_hz, chunk_steps=STEPS, chunk_dt_ns=STEP_NS, strategy=strategy
    )
    gate, peers = FeetechGate(), Peers(robot)
    realtime.set_up(None)
    watch = Stopwatch(config.dt_ns, ticks, peers.between, paced)
    arm = StillArm(robot, units, gate, watch.clock)
    with tempfile.TemporaryDirectory(
        prefix="holdfast-tick-", dir=MEMORY if MEMORY.is_dir() else None
    ) as folder:
        path = Path(folder)
        flight = ControlRecorder.open(path, config) if recorder else ControlRecorder()
        slack = tuple(0.05 for _ in robot.joints)
        loop = ControlLoop(
            ControlCore(config),
            arm,
            gate,
            peers.supervisor,
            peers.policy,
            LatchFile(path / "latch.json"),
            Options("none", False, False, slack, lambda resting: feetech_table(robot, units, resting)),
            watch.clock,
            flight,
        )
        loop._grid = watch
        if parts:
            watch.parts = PartTimes()
            for part, methods in PARTS.items():
                for owner, method in methods:
                    watch.parts.around(getattr(loop, owner), method, part)
        arm.tap = flight.bus if recorder else None
        with suppress(_Enough):
            loop.run()
    if loop.state.phase != Phase.RUN or (recorder and not flight.on):
        raise RuntimeError(f"the loop did not run as it should have: {loop.state.phase}, {loop.state.stop}")
    ordered = [time_ns / 1e3 for time_ns in sorted(watch.times_ns)]
    p50, p99, largest = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99, 1.0))
    return Result(
        paced,
        recorder,
        p50,
        p99,
        largest,
        p50_us(watch.reference.times_ns),
        watch.parts.p50_us() if watch.parts is not None else {},
        len(ordered),
    )


def _channels() -> tuple[Channel, Channel]:
    ours, theirs = channel_pair()
    return Channel(ours, 1), Channel(theirs, 1)


def run(ticks: int, *, strategy: str, control_hz: float) -> list[Result]:
    """Every way of running it, with and without the recorder; last, its parts."""
    context = multiprocessing.get_context("spawn")
    ways = [(paced, recorder, False) for paced in (False, True) for recorder in (False, True)]
    results = []
    for paced, recorder, parts in (*ways, (False, True, True)):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            job = pool.submit(
                measure,
                ticks,
                paced=paced,
                recorder=recorder,
                strategy=strategy,
                control_hz=control_hz,
                parts=parts,
            )
            results.append(job.result())
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ticks",
        type=whole_number(100, 1_000_000),
        default=2000,
        help="in each way of running (default 2000)",
    )
    parser.add_argument("--control-hz", type=number(10, 1000, unit="Hz"), default=100.0, help="default 100")
    parser.add_argument("--strategy", choices=STRATEGIES, default=DEFAULT, help=f"default {DEFAULT}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(args: argparse.Namespace) -> int:
    results = run(args.ticks, strategy=args.strategy, control_hz=args.control_hz)
    whole = next(row for row in results if row.recorder and not row.paced and not row.parts_p50_us)
    kept = whole.p50_us <= BUDGET_US
    if args.json:
        rows = [asdict(row) for row in results]
        document = {"benchmark": "tick", "budget_us": BUDGET_US, "within_budget": kept, "results": rows}
        print(json.dumps(document, indent=2))
        return 0
    *ways, timed = results
    print(f"{'CPU us of a tick':<34}{'p50':>8}{'p99':>8}{'max':>8}{'fixed work':>12}")
    for row in ways:
        name = f"{'paced' if row.paced else 'back to back'}, {'with' if row.recorder else 'without'} recorder"
        values = "".join(f"{value:>8.0f}" for value in (row.p50_us, row.p99_us, row.max_us))
        print(f"{name:<34}{values}{row.reference_p50_us:>12.0f}")
    print(f"{'its parts, in a back-to-back run':<58}{timed.reference_p50_us:>12.0f}")
    for part, part_us in timed.parts_p50_us.items():
        print(f"  {part:<32}{part_us:>8.0f}")
    print(f"Budget back to back, with recorder: p50 <= {BUDGET_US:g} us: {'met' if kept else 'MISSED'}.")
    return 0
