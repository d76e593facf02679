"""`vla-run --check`: looks at everything that a run needs, moves nothing, prints expected, actual and fix."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from ..drivers.arm import CheckRow, open_arm
from ..drivers.cameras.open import open_camera
from ..drivers.errors import DriverError
from ..drivers.robots.schema import Joint
from ..drivers.types import Camera
from ..drivers.units import JointUnits
from .bundle.contract import check_contract
from .bundle.last import state_folder
from .control.config import core_config
from .control.deadlines import START_PERCENT, START_TOLERANCE
from .control.gate import FeetechGate
from .control.latch import LatchFile
from .control.stop_inputs import StopInputs
from .control.watchdog import Watchdog, WatchdogError
from .exit_codes import ExitCode, Refused
from .policy.config import PolicyConfig
from .policy.frame_timing import FrameTiming, measure_camera, slowest
from .policy.process import LOAD_ERRORS, describe_backlog, describe_frames, load_program, measure_inference
from .recorder.begin import foresee
from .resolve import Resolved, resolve
from .run import make_setup, open_endpoint, wishes_of
from .schedulability import schedule
from .stages import Plan

PROBE_SECONDS = 30.0
_MIN_FPS = 5.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the check."""

    what: str
    expected: str
    actual: str
    ok: bool
    fix: str = ""
    register: bool = False
    """One of the many registers of a motor."""
    arithmetic: tuple[str, ...] = ()
    """How `actual` came about; shown below the table."""


def check(args: argparse.Namespace) -> int:
    """Prints the rows and the plan; FINISHED when all is well, REFUSED otherwise."""
    try:
        resolved = resolve(wishes_of(args))
    except Refused as error:
        _show(
            [Row("resolve", "bundle, task, robot and cameras that fit", "refused", False, str(error))], args
        )
        return ExitCode.REFUSED
    setup = make_setup(args, resolved)
    rows = [*_choice_rows(resolved), *_contract_rows(resolved)]
    rows += _policy_rows(PolicyConfig.model_validate(setup.configs["policy"]), resolved, setup.plan)
    rows += [*_arm_rows(args, resolved), *_limit_rows(resolved), *_tool_speed_rows(args, resolved)]
    rows += [*_input_rows(args.stop_input, args.reset_input), *_watchdog_rows(args.watchdog)]
    rows += _real_time_rows(args.rt, setup.configs["control"]["cpu"])
    rows += [_endpoint_row(args, resolved.arm, setup.plan), _recorder_row(args, resolved)]
    _show(rows, args)
    return ExitCode.FINISHED if all(row.ok for row in rows) else ExitCode.REFUSED


def _choice_rows(resolved: Resolved) -> Iterator[Row]:
    for choice in resolved.choices:
        yield Row(choice.what, choice.why, choice.value, True)
    bundle = resolved.bundle
    yield Row("bundle files", "size and sha256 as listed", f"{len(bundle.spec.files)} verified", True)


def _contract_rows(resolved: Resolved) -> Iterator[Row]:
    rows = check_contract(
        resolved.bundle.spec,
        resolved.robot,
        list(resolved.cameras),
        control_hz=resolved.control_hz,
    )
    for row in rows:
        yield Row(row.what, row.bundle, row.robot, row.ok, "" if row.ok else row.fix)


def _policy_rows(config: PolicyConfig, resolved: Resolved, plan: Plan) -> Iterator[Row]:
    """The self-test, the cameras, and with what both take: whether the policy is fast enough."""
    program = None
    try:
        program, details = load_program(config)
        yield Row(
            "self-test",
            f"at most {details['self_test_tolerance']:.3g}",
            f"{details['self_test_max_abs']:.3g} ({details['backend']})",
            True,
        )
    except LOAD_ERRORS as error:
        yield Row("policy", "loads and passes its self-test", "refused", False, str(error))
    limit_ms = plan.timing.frame_age_limit_s * 1e3
    running: list[Camera] = []
    timings: list[FrameTiming | None] = []
    try:
        for name, source in resolved.cameras.items():
            running.append(open_camera(f"{name}={source}"))
            row, timing = _camera_row(running[-1], limit_ms)
            timings.append(timing)
            yield row
        if program is not None:
            # With the cameras running, as in a run.
            details = describe_backlog(len(program.space.joints), config.control_period_ns)
            details |= describe_frames(slowest(timings))
            yield _schedule_row(plan, measure_inference(program), details)
    except LOAD_ERRORS as error:
        yield Row("inference", "runs", "refused", False, str(error))
    finally:
        for camera in running:
            camera.close()


def _camera_row(camera: Camera, limit_ms: float) -> tuple[Row, FrameTiming | None]:
    """Starts a camera and looks at it; the caller closes it."""
    what = f"camera {camera.name}"
    expected = f"pictures, at least {_MIN_FPS:g} a second, at most {limit_ms:.0f} ms old"
    try:
        camera.start()
        first = camera.latest()
        timing = measure_camera(camera)
        last = camera.latest()
        age_ms = (time.monotonic_ns() - last.stamp_ns) / 1e6 if last else 0.0
    except DriverError as error:
        return Row(what, expected, "none", False, str(error)), None
    if first is None or last is None or last.sequence == first.sequence:
        return Row(what, expected, "no new picture", False, "check that the camera streams"), None
    fps = (last.sequence - first.sequence) / ((last.arrival_ns - first.arrival_ns) / 1e9)
    height, width = last.image.shape[:2]
    ok = fps >= _MIN_FPS and age_ms <= limit_ms
    actual = (
        f"{width}x{height}, {fps:.1f} a second, {age_ms:.0f} ms old, stamped by {last.stamp_source.value}"
    )
    fix = "" if ok else "more light, a smaller picture, or a better link"
    return Row(what, expected, actual, ok, fix), timing


def _schedule_row(plan: Plan, inference: Mapping[str, float], details: Mapping[str, float | None]) -> Row:
    """As the run will judge it."""
    timing = plan.timing.with_measured(inference["inference_p99_ms"] / 1e3, details)
    found = schedule(timing, plan.strategy)
    expected = "a chunk lasts until the next one is there" if found.holds_s == 0 else "any: the arm holds"
    return Row(
        f"schedule ({plan.strategy})",
        expected,
        found.verdict,
        found.ok,
        found.problem,
        arithmetic=found.lines,
    )


def _arm_rows(args: argparse.Namespace, resolved: Resolved) -> Iterator[Row]:
    yield _latch_row(LatchFile.of(state_folder(), resolved.arm).reason(), args.reset)
    units = JointUnits(resolved.robot, resolved.calibration)
    # The gate of the control process, in its first phase: reading only.
    arm = open_arm(resolved.arm, resolved.robot, resolved.calibration, FeetechGate())
    try:
        motors = arm.connect()
        yield Row(
            "motors",
            f"{len(resolved.robot.joints)}",
            ", ".join(f"{m.motor_id}: {m.model}" for m in motors),
            True,
        )
        for row in arm.check():
            yield _register_row(row, args.write_gains)
        joint = arm.read()
    except DriverError as error:
        yield Row("arm", f"answers on {resolved.arm}", "no", False, str(error))
        return
    finally:
        arm.close()
    for index, spec in enumerate(resolved.robot.joints):
        yield _resting_row(spec, units.reachable(index), joint.position[index])


def _latch_row(reason: str | None, reset: bool) -> Row:
    found = "none" if reason is None else f"{reason} (--reset is given)" if reset else reason
    return Row(
        "earlier stop", "none, or reset", found, reason is None or reset, "look at the arm, then use --reset"
    )


def _register_row(row: CheckRow, write_gains: bool) -> Row:
    """As control judges it: gains that it is about to write may still be others."""
    if write_gains and not row.ok and ": gain " in row.name:
        actual = f"{row.actual} (written while arming: --write-gains)"
        return Row(row.name, row.expected, actual, True, register=True)
    return Row(row.name, row.expected, row.actual, row.ok, row.fix, register=True)


def _resting_row(joint: Joint, reachable: tuple[float, float], value: float) -> Row:
    """As control judges it when torque is to be switched on."""
    low, high = reachable
    slack = START_PERCENT if joint.gripper else START_TOLERANCE
    return Row(
        f"{joint.name}: rests inside",
        f"{low:.3f} .. {high:.3f} {joint.unit}, give or take {slack:g}",
        f"{value:.3f}",
        low - slack <= value <= high + slack,
        "move the joint inside its limits by hand (torque is off)",
    )


def _limit_rows(resolved: Resolved) -> Iterator[Row]:
    for joint in resolved.robot.joints:
        limits = joint.limits
        yield Row(
            f"{joint.name}: limits",
            "position, velocity, acceleration, jerk",
            f"[{limits.position[0]:g}, {limits.position[1]:g}], {limits.velocity:g}/s, "
            f"{limits.acceleration:g}/s2, {limits.jerk:g}/s3",
            True,
        )


def _tool_speed_rows(args: argparse.Namespace, resolved: Resolved) -> Iterator[Row]:
    """What the limit comes to, as control will work it out."""
    robot, action = resolved.robot, resolved.bundle.spec.action
    if robot.control.tool_speed_m_s is None and args.max_tool_speed is None:
        return
    try:
        config = core_config(
            robot,
            JointUnits(robot, resolved.calibration),
            control_hz=resolved.control_hz,
            chunk_steps=action.steps,
            chunk_dt_ns=round(action.dt_s * 1e9),
            tool_speed_m_s=args.max_tool_speed,
        )
    except DriverError as error:
        yield Row("tool speed", "a robot file with a body", "none", False, str(error))
        return
    pairs = zip(config.kinematic.velocity, robot.joints, strict=True)
    share = min(velocity / joint.limits.velocity for velocity, joint in pairs)
    text = f"at most {config.tool_speed_m_s:g} m/s: joints at {share:.0%} of their velocity"
    yield Row("tool speed", "of the tip, in the worst pose", text, True)


def _endpoint_row(args: argparse.Namespace, arm: str, plan: Plan) -> Row:
    """Made and removed again."""
    what, expected = "endpoint", "a socket at which the run can be asked"
    try:
        endpoint, notes = open_endpoint(args.endpoint, arm)
    except Refused as error:
        return Row(what, expected, "none", False, str(error))
    text = notes[0][1] if endpoint is None else str(endpoint.path)
    if endpoint is not None:
        endpoint.close()
    return Row(what, expected, f"{text}; after a protective stop: {plan.on_stop}", True)


def _input_rows(stops: list[str], resets: list[str]) -> Iterator[Row]:
    """Opened as control will open them, and looked at once."""
    for spec in [*stops, *resets]:
        what, is_stop = f"{'stop' if spec in stops else 'reset'} input", spec in stops
        expected = "opens, not pressed" if is_stop else "opens"
        try:
            inputs = StopInputs(*(([spec], []) if is_stop else ([], [spec])))
            try:
                inputs.open()
                yield Row(what, expected, inputs.guards()[-1].partition(": ")[2], True)
            finally:
                inputs.close()
        except DriverError as error:
            yield Row(what, expected, spec, False, str(error))
    try:
        StopInputs(stops, resets)
    except DriverError as error:
        yield Row("stop and reset inputs", "fit together", "refused", False, str(error))


def _watchdog_rows(path: str | None) -> Iterator[Row]:
    """Opening it would start it."""
    if path is None:
        return
    try:
        Watchdog(path).check()
        yield Row("watchdog", "a device that may be opened", path, True)
    except WatchdogError as error:
        yield Row("watchdog", "a device that may be opened", path, False, str(error))


def _real_time_rows(rt: str, cpu: int | None) -> list[Row]:
    """What control's own set-up would come to, tried in a process of its own: it cannot be undone."""
    if rt == "off":
        return []
    command = [sys.executable, "-m", "holdfast.runtime.real_time_probe", *([] if cpu is None else [str(cpu)])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=True)
        steps = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return [Row("real time", "a probe that tries the set-up", "failed", rt == "warn", str(error))]
    failed = [f"{step['name']}: {step['detail']}" for step in steps if not step["ok"]]
    return [
        Row(
            "real time",
            f"{len(steps)} steps of the set-up" + (", all of them (--rt strict)" if rt == "strict" else ""),
            "; ".join(["failed: " + failed[0], *failed[1:]]) if failed else "all succeed",
            not failed or rt == "warn",
            "as each step says (docs/troubleshooting.md), or use --rt warn",
        )
    ]


def _recorder_row(args: argparse.Namespace, resolved: Resolved) -> Row:
    """As the run judges it: without a place for its rings it goes on and says so."""
    found = foresee(args, resolved)
    return Row("flight recorder", "rings in memory, files", found.text, not found.refusal, found.refusal)


def _show(rows: list[Row], args: argparse.Namespace) -> None:
    if args.json:
        print(
            json.dumps({"ok": all(row.ok for row in rows), "rows": [asdict(row) for row in rows]}, indent=2)
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "what", "expected", "actual", "fix", show_lines=False)
    for row in _folded(rows):
        mark = "[green]ok[/]" if row.ok else "[bold red]no[/]"
        fix = "" if row.ok else row.fix
        table.add_row(mark, *(_plain(text) for text in (row.what, row.expected, row.actual, fix)))
    console = Console()
    console.print(table)
    for row in rows:
        for line in row.arithmetic:
            # At full length: a terminal wraps it, a file or pipe keeps it.
            console.print(f"{row.what}: {line}", soft_wrap=True, markup=False, highlight=False)
    wrong = sum(not row.ok for row in rows)
    console.print(
        "ready to run" if not wrong else f"{wrong} row{'s' if wrong > 1 else ''} to fix before a run"
    )


def _folded(rows: list[Row]) -> Iterator[Row]:
    """For a person: the registers of a motor that are all as they should be take one line (JSON has all)."""
    good = Counter(row.what.partition(": ")[0] for row in rows if row.ok and row.register)
    for row in rows:
        if not (row.ok and row.register):
            yield row
            continue
        joint = row.what.partition(": ")[0]
        if joint in good:
            yield Row(f"{joint}: registers", "as the files say", f"{good.pop(joint)} compared", True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
