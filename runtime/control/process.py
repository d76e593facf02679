"""The control process: the only holder of the motor port.

`python -m holdfast.runtime.control.process --supervisor-fd A --policy-fd B`, with one JSON document on
standard input (`Settings`). Exit codes: 0 finished, 3 refused before torque, 4 protective stop, 5 internal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from ...drivers.arm import open_arm
from ...drivers.calibration import load_calibration
from ...drivers.errors import DriverError
from ...drivers.robots.schema import Robot, load_robot
from ...drivers.units import JointUnits
from ..budgets import Budgets, limits_ns
from ..channel import Channel, ChannelClosed
from ..messages import Event
from ..parent import orphaned, signal_at_parents_death
from ..recorder.in_control import ControlRecorder
from . import chain, realtime
from .arming import Options, Refused
from .body_checks import describe_body
from .config import CoreConfig, core_config
from .core import ControlCore
from .deadlines import START_PERCENT, START_TOLERANCE, SUPERVISOR_SILENCE_NS, WINDOW_NS
from .gate import FeetechGate
from .gate_table import feetech_table
from .latch import LatchFile
from .loop import ControlLoop
from .state import Note
from .stop_inputs import StopInputs
from .watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Settings:
    """The document on standard input; the supervisor writes it."""

    session: int
    robot: str
    calibration: str
    arm: str
    control_hz: float | None
    rt: Literal["strict", "warn", "off"]
    dry_run: bool
    write_gains: bool
    reset_latch: bool
    state_dir: str
    chunk_steps: int
    chunk_dt_ns: int
    strategy: str
    ema_s: float
    cpu: int | None
    rings: str | None = None
    """The folder of this run for the flight recorder; None: nothing is recorded."""
    recordings: str | None = None
    """Where recordings are written to; control does that only where the supervisor has died."""
    budgets_ms: dict[str, float] = field(default_factory=dict)
    """Stage -> what it may take."""
    stop_inputs: list[str] = field(default_factory=list)
    reset_inputs: list[str] = field(default_factory=list)
    """As `input_spec.parse_input` reads them."""
    watchdog: str | None = None
    """The device of the computer's own watchdog; None: none is used."""
    tool_speed_m_s: float | None = None
    """Of the tip; the smaller of this and the robot file's counts."""
    parent: int | None = None
    """The process of the supervisor; None: whoever started this one."""

    @classmethod
    def read(cls, text: str) -> Settings:
        content = json.loads(text)
        unknown = content.keys() - {row.name for row in fields(cls)}
        if unknown:
            # A guard that is asked for and not attached must not go unnoticed.
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        return cls(**{row.name: content[row.name] for row in fields(cls) if row.name in content})


def guards(loop: ControlLoop) -> list[str]:
    """What is armed, read off the live objects: one line per guard. Raises `Refused` for a missing one."""
    config, core, gate, arm = loop.core.config, loop.core, loop.gate, loop.arm
    rows = [f"{name}: checked on every setpoint" for name, _ in chain.SETPOINT_CHECKS]
    for i, name in enumerate(config.joint_names):
        rows.append(
            f"{name}: {config.low[i]:.3f} .. {config.high[i]:.3f}, {config.kinematic.velocity[i]:g}/s, "
            f"{config.kinematic.acceleration[i]:g}/s2, {config.kinematic.jerk[i]:g}/s3, lead "
            f"{config.lead[i]:g}, following error {config.following_error[i]:g}"
        )
    rows += describe_body(config, core.tools.body)
    rows.append(f"smoother: {type(core.smoother).__name__}, {config.dt_ns / 1e6:g} ms")
    average = f", moving average over {config.ema_s:g} s" if config.ema_s else ""
    rows.append(f"chunks: {config.strategy} ({core.strategy.meaning}){average}")
    rows.append(f"joint state: at most {config.joint_state_max_age_ns / 1e6:g} ms old")
    rows.append(
        f"motors: {config.voltage_v[0]} .. {config.voltage_v[1]} V, at most {config.temperature_c} C, fault "
        f"bits; load {config.load:.0%} or a stall for {config.load_ns / 1e6:g} ms"
    )
    rows.append(
        f"missed slots: {config.max_missed_in_a_row} in a row or {config.max_missed_fraction:.0%} of the "
        f"last {WINDOW_NS / 2e9:g} to {WINDOW_NS / 1e9:g} s"
    )
    chosen = ", ".join(f"{code}: {reaction}" for code, reaction in sorted(config.reactions.items()))
    rows.append(f"starving: {config.max_starved} times in {WINDOW_NS / 1e9:g} s")
    rows.append(f"reactions: the table{f', but {chosen} (robot file)' if chosen else ''}")
    rows.append(f"supervisor: silence of {SUPERVISOR_SILENCE_NS / 1e6:g} ms, end of its channel")
    rows.append(f"stop: category {config.stop_category}, latched in {loop.latch.path}")
    rows += loop.stop_inputs.guards()
    rows += _motor_rows(config)
    rows.append(f"motor watchdog: none (lead caps the travel at {_leads(config)})")
    rows.append(_watchdog_row(loop))
    if arm.guard is not gate:
        raise Refused("the gate is not attached to the motor bus")
    rows.append(f"gate: {type(gate).__name__}, phase {gate.phase.value}")
    return rows


def _motor_rows(config: CoreConfig) -> list[str]:
    """Current and gripper force, also where they are not checked; where a task may begin."""
    most, ms = config.current_a, config.current_ns / 1e6
    rows = ["current: NOT checked" if most is None else f"current: {most:g} A for {ms:g} ms"]
    for name, gripper, grip in zip(config.joint_names, config.gripper, config.grip, strict=True):
        if gripper:
            force = "NOT checked" if grip is None else f"load {grip[0]:.0%} for {grip[1] / 1e6:g} ms"
            rows.append(f"{name}, force: {force}")
    pairs = zip(config.joint_names, config.first_step, config.gripper, strict=True)
    steps = ", ".join(f"{name} {step:g}" for name, step, gripper in pairs if not gripper)
    rows.append(f"first chunk of a task: at most so far from the arm: {steps}")
    return rows


def _leads(config: CoreConfig) -> str:
    """How far ahead of where it is a joint is sent, at most."""
    pairs = zip(config.lead, config.gripper, strict=True)
    return ", ".join(sorted({f"{lead:g} rad" for lead, gripper in pairs if not gripper}))


def _watchdog_row(loop: ControlLoop) -> str:
    if loop.watchdog is None:
        return "watchdog: none (--watchdog)"
    when = "not in a dry run" if loop.options.dry_run else "started with the torque"
    return f"watchdog: {loop.watchdog.path}, {when}"


def _build(settings: Settings, robot: Robot, supervisor: Channel, policy: Channel) -> ControlLoop:
    """All parts, wired; nothing is opened. Raises `DriverError` for what does not fit together."""
    calibration = load_calibration(Path(settings.calibration), robot)
    units = JointUnits(robot, calibration)
    config = core_config(
        robot,
        units,
        control_hz=settings.control_hz,
        chunk_steps=settings.chunk_steps,
        chunk_dt_ns=settings.chunk_dt_ns,
        strategy=settings.strategy,
        ema_s=settings.ema_s,
        tool_speed_m_s=settings.tool_speed_m_s,
    )
    gate = FeetechGate()
    flight = ControlRecorder.open(Path(settings.rings), config) if settings.rings else ControlRecorder()
    options = Options(
        arm_url=settings.arm,
        dry_run=settings.dry_run,
        write_gains=settings.write_gains,
        start_tolerance=tuple(START_PERCENT if j.gripper else START_TOLERANCE for j in robot.joints),
        table=lambda resting: feetech_table(robot, units, resting, write_gains=settings.write_gains),
        budgets=Budgets(limits_ns(settings.budgets_ms), robot.control.max_over_budget_fraction),
        parent=settings.parent or os.getppid(),
    )
    return ControlLoop(
        ControlCore(config),
        open_arm(settings.arm, robot, calibration, gate, tap=flight.bus if flight.on else None),
        gate,
        supervisor,
        policy,
        LatchFile.of(Path(settings.state_dir), settings.arm),
        options,
        flight=flight,
        stop_inputs=StopInputs(settings.stop_inputs, settings.reset_inputs),
        watchdog=Watchdog(settings.watchdog) if settings.watchdog else None,
    )


def _connect(settings: Settings, loop: ControlLoop) -> realtime.RealTime | None:
    """Opens the port and compares the arm with its files; reads only. Raises `Refused`, `DriverError`."""
    # First the port, which belongs to one process: the latch of a run that is still going on says nothing.
    motors = loop.arm.connect()
    reason = loop.latch.reason()
    if reason is not None and not settings.reset_latch:
        raise Refused(
            f"the last run ended in a protective stop ({reason}) that nobody has reset; look at the arm, "
            "then start again with --reset"
        )
    bad = [row for row in loop.arm.check() if not row.ok]
    if settings.write_gains:
        bad = [row for row in bad if ": gain " not in row.name]
    if bad:
        rows = "; ".join(f"{r.name}: expected {r.expected}, found {r.actual}. {r.fix}" for r in bad)
        raise Refused(f"the arm does not match its robot file and calibration: {rows}")
    loop.stop_inputs.open()
    if loop.watchdog is not None:
        loop.watchdog.check()
    result = _set_up_real_time(settings, loop)
    for text in guards(loop):
        loop.telemetry.report(Note("guard", text))
    found = ", ".join(f"{m.motor_id}: {m.model} (firmware {m.firmware})" for m in motors)
    loop.telemetry.report(Note("connected", f"{settings.arm}, motors {found}"))
    return result


def _set_up_real_time(settings: Settings, loop: ControlLoop) -> realtime.RealTime | None:
    if settings.rt == "off":
        loop.telemetry.report(Note("rt", "real-time set-up: off"))
        if settings.cpu is None:
            return None
        result = realtime.set_up(settings.cpu, only=("own core",))
    else:
        result = realtime.set_up(settings.cpu)
    for step in result.steps:
        loop.telemetry.report(
            Note("rt", f"{step.name}: {'ok' if step.ok else 'FAILED'}, {step.detail}", float(step.ok))
        )
    if settings.rt == "strict" and result.failed:
        names = "; ".join(f"{step.name} ({step.detail})" for step in result.failed)
        raise Refused(f"--rt strict, but the real-time set-up is incomplete: {names}")
    return result


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supervisor-fd", type=int, required=True)
    parser.add_argument("--policy-fd", type=int, required=True)
    options = parser.parse_args(argv)
    # Its handler does nothing: the next tick sees that the parent is gone.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal_at_parents_death(signal.SIGUSR1)
    settings = Settings.read(sys.stdin.read())
    # A run is ended by the supervisor; Ctrl-C at the terminal reaches only that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor = Channel.from_fd(options.supervisor_fd, settings.session)
    policy = Channel.from_fd(options.policy_fd, settings.session)
    return run(settings, supervisor, policy)


def run(settings: Settings, supervisor: Channel, policy: Channel) -> int:
    """From connecting to the exit code."""
    parent = settings.parent or os.getppid()
    if orphaned(parent):
        return 3
    try:
        loop = _build(settings, load_robot(settings.robot), supervisor, policy)
    except DriverError as error:
        _refuse(supervisor, str(error))
        return 3
    signal.signal(signal.SIGTERM, lambda *_: loop.terminate())
    try:
        realtime_set_up = _connect(settings, loop)
        loop.run()
    except (Refused, DriverError) as error:
        _refuse(supervisor, str(error))
        if loop.watchdog is not None:
            with contextlib.suppress(OSError):
                loop.watchdog.close(orderly=True)
        return 4 if loop.torque.doubtful else 3
    finally:
        loop.arm.close()
        loop.stop_inputs.close()
        if settings.recordings and loop.flight.on and orphaned(parent):
            # The supervisor has died: nobody else is left to keep the recording.
            code = loop.state.stop.code if loop.state.stop else "supervisor_lost"
            print(f"recording: {loop.flight.inherit(Path(settings.recordings), code)}", file=sys.stderr)
    del realtime_set_up  # It keeps a file open whose setting holds only while it is.
    if loop.telemetry.refused:
        return 3
    if loop.crashed:
        return 5
    return 4 if loop.state.latched or loop.release_failed else 0


def _refuse(supervisor: Channel, text: str) -> None:
    with contextlib.suppress(ChannelClosed):
        supervisor.send(Event(time.monotonic_ns(), "refused", text))


if __name__ == "__main__":
    sys.exit(main())
