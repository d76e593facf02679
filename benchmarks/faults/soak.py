"""The clean soak: the campaign's policy and nothing broken. Every protective stop is a false one.

In stepped time it drives control's core alone: no process, bus, clock or camera takes part, so it says
nothing of theirs. In real time it is the whole system. Either way the arm must have moved all the while.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...drivers.calibration import load_calibration
from ...drivers.robots.schema import load_robot
from ...drivers.simulated.world import CALIBRATION, World
from ...drivers.types import JointState
from ...drivers.units import JointUnits
from ...export.training.demonstrations import Sensor
from ...runtime.control.config import core_config
from ...runtime.control.core import ControlCore
from ...runtime.control.state import CoreState, Inbox
from ...runtime.messages import Arm
from ..intervals import upper_rate
from ..policies import BundlePolicy
from ..stepped_policy import TASK_ID, SteppedPolicy
from .goals import TICKS_PER_RAD
from .rig import Rig
from .system import GO_ON_S, HarnessError, RunOptions
from .witness import Witness

LIMIT_NS = 500_000_000
DELAY_MS = (30, 80)
"""Age of a picture when its chunk arrives, in stepped time: drawn evenly."""
LOOK_S = 0.2
STRETCH_S = 2.0
STRETCH_NS = round(STRETCH_S * 1e9)
MOVED_RAD = 0.2
"""In each stretch of the soak some joint must have moved so far, or nothing was tried."""


def soak(
    bundle: Path, seconds: float, virtual: bool, seed: int, folder: Path, configuration: str
) -> dict[str, Any]:
    """The document. Raises `HarnessError` where the system does not come up."""
    started = time.monotonic()
    stops, still = stepped(bundle, seconds, seed) if virtual else live(bundle, seconds, folder)
    hours = seconds / 3600
    if still:
        raise HarnessError(f"the arm stood still in {still} of the soak's stretches of {STRETCH_S:g} s")
    return {
        "hours": hours,
        "false_stops": len(stops),
        "false_stops_per_hour": len(stops) / hours,
        "upper_95_per_hour": upper_rate(len(stops), hours),
        "time": "virtual" if virtual else "real",
        "scope": "core only" if virtual else "whole system",
        "reasons": sorted(stops),
        "took_s": round(time.monotonic() - started, 1),
        "seed": seed,
        "configuration": configuration,
    }


def live(bundle: Path, seconds: float, folder: Path) -> tuple[list[str], int]:
    """In real time, with real processes: the stops, and in how many stretches the arm stood still."""
    stops: list[str] = []
    still = 0
    with Rig(folder / "soak", RunOptions(bundle, "sim_arm")) as rig:
        run = rig.ready("usual")
        end = time.monotonic() + seconds
        mark = len(run.seen)
        witness = Witness.of_robot(rig.wire_log, "sim_arm")
        stretch_ns = time.monotonic_ns() + 2 * STRETCH_NS
        while (left := end - time.monotonic()) > 0:
            event = run.event("stop", min(LOOK_S, left), mark, source="control")
            mark = len(run.seen)
            witness.read()
            if event is None and witness.now_ns >= stretch_ns:
                moved = witness.moving(witness.now_ns - STRETCH_NS, witness.now_ns).true
                still += max(moved) < MOVED_RAD
                stretch_ns = witness.now_ns + STRETCH_NS
            if run.process.poll() is not None:
                raise HarnessError(f"vla-run has ended: {run.output[-500:]}")
            if event is None:
                time.sleep(min(LOOK_S, max(0.0, left)))
                continue
            stops.append(str(event["text"]))
            deadline = time.monotonic() + GO_ON_S
            for command in ("reset", "next"):
                while not run.ask(command)["ok"]:
                    if time.monotonic() > deadline:
                        raise HarnessError(f"the stop {event['text']} cannot be reset")
                    time.sleep(LOOK_S)
            run.look()
            mark = len(run.seen)
            stretch_ns = time.monotonic_ns() + 2 * STRETCH_NS
        witness.close()
    return stops, still


class _NoPicture:
    """The sweep looks at no picture; rendering it would take most of the time."""

    def picture_of(self, snapshot: NDArray[np.float64]) -> NDArray[np.uint8]:
        return np.zeros((96, 96, 3), np.uint8)


def stepped(bundle: Path, seconds: float, seed: int) -> tuple[list[str], int]:
    """In stepped time, through the shipped configuration's own core: the stops, and in how many stretches the
    arm stood still."""
    policy = BundlePolicy(bundle)
    robot = load_robot("sim_arm")
    units = JointUnits(robot, load_calibration(CALIBRATION, robot))
    config = core_config(
        robot, units, control_hz=None, chunk_steps=policy.steps, chunk_dt_ns=round(policy.dt_s * 1e9)
    )
    core, world = ControlCore(config), World(seed)
    world.place_arm(np.array([joint.start for joint in robot.joints[:-1]] + [0.0]))
    for index, joint in enumerate(robot.joints):
        world.set_torque_limit(index, joint.motor.torque_limit)
    for index, ticks in enumerate(world.present_ticks()):
        world.set_goal(index, ticks)
        world.set_torque(index, True)
    source = SteppedPolicy(
        policy, cast(Sensor, _NoPicture()), "sweep", "none", DELAY_MS, np.random.default_rng([seed, 7])
    )
    steps = round(config.dt_ns * 1e-9 / World.STEP_S)
    now_ns = config.dt_ns
    state = core.energised(CoreState(), _joint(world, units, now_ns), now_ns)
    arm: Arm | None = Arm(TASK_ID, False, True, LIMIT_NS, LIMIT_NS)
    pending = tuple(world.present_ticks())
    stops: list[str] = []
    still, way, last = 0, 0.0, world.present_ticks()
    stretch = round(STRETCH_NS / config.dt_ns)
    for tick in range(1, round(seconds * 1e9 / config.dt_ns) + 1):
        joint = _joint(world, units, now_ns)
        chunk = source.poll(world, joint.position, now_ns, state)
        inbox = Inbox(chunk=chunk, arm=arm, heard_policy=True, heard_supervisor=True)
        arm = None
        state, output = core.step(state, now_ns, joint, inbox)
        if state.latched:
            assert state.stop is not None
            stops.append(f"{state.stop.code}: {state.stop.text}")
            state = core.energised(CoreState(last_chunk_id=state.last_chunk_id), joint, now_ns)
            arm = Arm(TASK_ID, False, True, LIMIT_NS, LIMIT_NS)
        for index, ticks in enumerate(pending):
            world.set_goal(index, ticks)
        if output.setpoint is not None:
            pending = tuple(units.to_ticks(output.setpoint))
        for _ in range(steps):
            world.step(judged=False)
        now_ns += config.dt_ns
        here = world.present_ticks()
        way, last = way + max(abs(a - b) for a, b in zip(here, last, strict=True)), here
        if tick % stretch == 0:
            still, way = still + (way < MOVED_RAD * TICKS_PER_RAD), 0.0
    return stops, still


def _joint(world: World, units: JointUnits, now_ns: int) -> JointState:
    return JointState(
        stamp_ns=now_ns,
        position=units.to_positions(world.present_ticks()),
        velocity=units.to_velocities(world.present_velocity_ticks()),
        load=tuple(world.load()),
        voltage_v=(12.0,) * 6,
        temperature_c=(30.0,) * 6,
        current_a=(0.0,) * 6,
        faults=(0,) * 6,
    )
