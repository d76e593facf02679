"""vla-run proper: resolve, announce, supervise, report."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TextIO

from .budgets import control_budgets_ms
from .bundle.last import state_folder
from .control.strategies import STRATEGIES
from .endpoint import Endpoint, EndpointError
from .endpoint_path import default_path
from .exit_codes import ExitCode, Refused, UsageError
from .live import Display
from .notify import Notifier
from .policy.config import Limits, frame_age_limit_ns
from .recorder.begin import check_folder, recordings_folder, with_recorder, write_out_the_dead
from .refusal import refusal_report
from .report import build_report, summary_lines, write_report
from .resolve import Resolved, Wishes, resolve
from .run_log import RunLog
from .schedulability import Timing, latest_first_use_s
from .stages import Plan
from .supervisor import RunSetup, supervise


def wishes_of(args: argparse.Namespace) -> Wishes:
    return Wishes(
        bundle=args.bundle,
        tasks=args.task,
        robot=args.robot,
        calibration=args.calibration,
        robot_id=args.robot_id,
        arm=args.arm,
        cameras=args.camera,
        control_hz=args.control_hz,
        strategy=args.strategy,
    )


def run(args: argparse.Namespace) -> int:
    """Returns the exit code. Raises `UsageError` and `Refused`, before anything was started."""
    _check_writable(args.report, args.events)
    check_folder(args.record)
    started_ns = time.monotonic_ns()
    try:
        resolved = resolve(wishes_of(args))
        endpoint, notes = open_endpoint(args.endpoint, resolved.arm)
    except (Refused, UsageError) as error:
        code = ExitCode.REFUSED if isinstance(error, Refused) else ExitCode.USAGE
        _report_refusal(args, code, str(error), started_ns)
        raise
    killed = write_out_the_dead(recordings_folder(args.record))
    setup = with_recorder(
        make_setup(args, resolved), args, resolved, _options(args, resolved.control_hz, resolved.strategy)
    )
    setup = replace(setup, endpoint=endpoint, notes=notes, notifier=Notifier.from_environment())
    for line in killed:
        print(line)
    for choice in resolved.choices:
        print(f"{choice.what}: {choice.value} ({choice.why})")
    for name, source in resolved.cameras.items():
        print(f"camera {name}: {source}")
    print(f"arm: {resolved.arm}, control at {resolved.control_hz:g} Hz", flush=True)
    try:
        with Display(resolved.robot) as display:
            log = supervise(setup, display)
    except OSError as error:
        print(f"vla-run: cannot start: {error}", file=sys.stderr)
        _report_refusal(args, ExitCode.INTERNAL, f"cannot start: {error}", started_ns)
        return ExitCode.INTERNAL
    return _finish(args, resolved, log)


def make_setup(args: argparse.Namespace, resolved: Resolved) -> RunSetup:
    """The plan and the configurations of both children."""
    spec = resolved.bundle.spec
    horizon_s = spec.action.steps * spec.action.dt_s
    asynchronous = STRATEGIES[resolved.strategy].asynchronous
    limits = Limits(frame_age_ns=frame_age_limit_ns(horizon_s, sequential=not asynchronous))
    session = secrets.randbits(64)
    plan = Plan(
        tasks=resolved.tasks,
        duration_s=args.duration,
        pause_s=args.pause,
        on_stop=args.on_stop or _on_stop(args),
        strategy=resolved.strategy,
        timing=Timing(
            steps=spec.action.steps,
            dt_s=spec.action.dt_s,
            control_period_s=1 / resolved.control_hz,
            frame_age_limit_s=limits.frame_age_ns / 1e9,
            cameras=len(resolved.cameras),
            ema_s=args.ema,
        ),
    )
    robot, calibration = str(resolved.robot_path.resolve()), str(resolved.calibration.path.resolve())
    control = {
        "session": session,
        "robot": robot,
        "calibration": calibration,
        "arm": resolved.arm,
        "control_hz": args.control_hz,
        "rt": args.rt,
        "dry_run": args.dry_run,
        "write_gains": args.write_gains,
        "reset_latch": args.reset,
        "state_dir": str(state_folder()),
        "chunk_steps": spec.action.steps,
        "chunk_dt_ns": round(spec.action.dt_s * 1e9),
        "strategy": resolved.strategy,
        "ema_s": args.ema,
        "cpu": _control_core(args),
        "stop_inputs": args.stop_input,
        "reset_inputs": args.reset_input,
        "watchdog": args.watchdog,
        "tool_speed_m_s": args.max_tool_speed,
        "budgets_ms": control_budgets_ms(
            resolved.robot.budgets_ms,
            spec.budgets_ms,
            1 / resolved.control_hz,
            latest_first_use_s(plan.timing) if asynchronous else None,
        ),
    }
    policy = {
        "session": session,
        "bundle": str(resolved.bundle.path.resolve()),
        "robot": robot,
        "calibration": calibration,
        "cameras": resolved.cameras,
        "tasks": resolved.tasks,
        "threads": args.threads,
        "sequential": not asynchronous,
        "control_period_ns": round(1e9 / resolved.control_hz),
        "limits": limits.model_dump(),
        "budgets_ms": spec.budgets_ms,
        "max_over_budget_fraction": resolved.robot.control.max_over_budget_fraction,
    }
    return RunSetup(
        plan=plan,
        session=session,
        configs={"control": control, "policy": policy},
        log_dir=state_folder() / "logs",
        events=args.events,
        arm=resolved.arm,
    )


def open_endpoint(asked: Path | None, arm_url: str) -> tuple[Endpoint | None, list[tuple[str, str]]]:
    """The socket at which the run can be asked, and what is to be noted. Raises `Refused` where one was asked
    for and cannot be made; a run without an endpoint of its own is otherwise no worse than before."""
    try:
        return Endpoint.open(asked or default_path(arm_url)), []
    except EndpointError as error:
        if asked is not None:
            raise Refused(str(error)) from error
        return None, [("endpoint", f"none: {error}")]


def _on_stop(args: argparse.Namespace) -> Literal["wait", "exit"]:
    """Waiting makes sense where somebody can reset."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return "wait" if terminal or args.endpoint is not None or args.reset_input else "exit"


def _control_core(args: argparse.Namespace) -> int | None:
    """The last core of several: interrupts and everything else gather on the first."""
    if args.cpu is not None:
        return args.cpu
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1] if args.rt != "off" and len(cores) > 1 else None


def _finish(args: argparse.Namespace, resolved: Resolved, log: RunLog) -> int:
    report = build_report(log, resolved, _options(args, resolved.control_hz, resolved.strategy))
    code = log.exit_code
    if not _write_report(args, report):
        code = code or ExitCode.INTERNAL
    try:
        _print_summary(report, sys.stderr if code in (ExitCode.REFUSED, ExitCode.INTERNAL) else sys.stdout)
    except OSError:
        # The reader or the terminal has gone (`vla-run | head`, a closed window); what the run came to is in
        # its exit code and report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _report_refusal(args: argparse.Namespace, code: ExitCode, reason: str, started_ns: int) -> None:
    _write_report(
        args, refusal_report(code, reason, _options(args, args.control_hz, args.strategy), started_ns)
    )


def _options(args: argparse.Namespace, control_hz: float | None, strategy: str | None) -> dict[str, Any]:
    """As they stand in the report."""
    return {
        "duration_s": args.duration,
        "pause_s": args.pause,
        "control_hz": control_hz,
        "strategy": strategy,
        "ema_s": args.ema,
        "rt": args.rt,
        "cpu": _control_core(args),
        "threads": args.threads,
        "dry_run": args.dry_run,
        "on_stop": args.on_stop or _on_stop(args),
        "stop_inputs": args.stop_input,
        "reset_inputs": args.reset_input,
        "watchdog": args.watchdog,
        "tool_speed_m_s": args.max_tool_speed,
    }


def _write_report(args: argparse.Namespace, report: dict[str, Any]) -> bool:
    """Where one was asked for. False, and said, when that fails."""
    try:
        if args.report is not None:
            write_report(args.report, report)
    except OSError as error:
        print(f"vla-run: the report cannot be written: {error}", file=sys.stderr)
        return False
    return True


def _print_summary(report: dict[str, Any], stream: TextIO) -> None:
    for index, line in enumerate(summary_lines(report)):
        print(f"vla-run: {line}" if index == 0 else line, file=stream)
    stream.flush()


def _check_writable(*paths: Path | None) -> None:
    """A run whose report cannot be written is noticed before it, not after. Raises `Refused`."""
    for path in paths:
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK) or path.is_dir():
            raise Refused(f"{path} cannot be written; name a file in a folder that exists and is writable")
