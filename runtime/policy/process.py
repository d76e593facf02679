"""The policy process: `python -m holdfast.runtime.policy.process --supervisor-fd C --control-fd D`.

Its configuration (`PolicyConfig`) comes as one JSON document on standard input. It tells the supervisor
`ready` (value: measured p99 of a whole inference, ms; text: JSON details, for the supervisor to judge) or
`refused`, and exits with `ExitCode`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ...drivers.calibration import load_calibration
from ...drivers.cameras.open import open_camera
from ...drivers.errors import DriverError
from ...drivers.robots.schema import load_robot
from ...drivers.units import JointUnits
from ..backends.registry import load_sessions
from ..backends.types import BackendError, BackendOptions
from ..budgets import HEADROOM, Budgets, limits_ns, policy_budgets_ms
from ..bundle.errors import BundleError
from ..bundle.reading import load_bundle
from ..channel import Channel, ChannelClosed, capacity
from ..exit_codes import ExitCode
from ..messages import Event, Phase, State
from ..parent import orphaned, signal_at_parents_death
from ..recorder.in_policy import PolicyRecorder
from .action_space import ActionSpace, ActionSpaceError
from .cameras_in import Cameras, FrameLimits
from .config import PolicyConfig
from .errors import InstructionError, NonFiniteAction, ProgramError
from .frame_timing import FrameTiming, measure_camera, slowest
from .loop import PolicyLoop
from .observer import JointHistory
from .program import Program, read_tokenizer

WARM_UP_RUNS = 3
"""The first ones fill caches and load code: they do not count."""
MEASURED_RUNS = 30
LEAST_RUNS = 5
MEASURE_S = 30.0
"""A policy that takes seconds is measured for about that long, but at least `LEAST_RUNS` times, ..."""
MEASURE_AT_MOST_S = 90.0
"""... unless warming up and measuring have taken so long: it must fit into the time to start
(`stages.DEADLINES_S`), one inference more included. Once is measured in any case."""
LOAD_ERRORS = (
    BundleError,
    BackendError,
    ActionSpaceError,
    ProgramError,
    NonFiniteAction,
    InstructionError,
    DriverError,
)
"""What `load_program` and the cameras raise when a run must be refused."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="holdfast.runtime.policy.process", description=__doc__)
    parser.add_argument("--supervisor-fd", type=int, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    args = parser.parse_args()
    # Also in the middle of an inference that takes minutes: nobody is left who would end it.
    signal_at_parents_death(signal.SIGTERM)
    config = PolicyConfig.model_validate_json(sys.stdin.read())
    if orphaned(config.parent or os.getppid()):
        return ExitCode.FINISHED
    supervisor = Channel.from_fd(args.supervisor_fd, config.session)
    control = Channel.from_fd(args.control_fd, config.session)
    try:
        return _run(config, supervisor, control)
    except ChannelClosed:
        return ExitCode.FINISHED


def _run(config: PolicyConfig, supervisor: Channel, control: Channel) -> int:
    cameras = None
    try:
        program, details = load_program(config)
        cameras = _open_cameras(config, program)
        # With the cameras running, as it will be.
        details |= measure_inference(program)
        frames = slowest(measure_camera(camera) for camera in cameras.each.values())
        details |= describe_frames(frames)
        details |= describe_backlog(len(program.space.joints), config.control_period_ns)
    except LOAD_ERRORS as error:
        supervisor.send(Event(time.monotonic_ns(), "refused", str(error)))
        if cameras is not None:
            cameras.close()
        return ExitCode.REFUSED
    try:
        loop = PolicyLoop(
            program,
            cameras,
            control,
            supervisor,
            JointHistory(config.control_period_ns),
            config.limits.joint_gap_ns,
            config.sequential,
            budgets=_budgets(config, program, details),
            flight=PolicyRecorder.open(Path(config.rings), len(config.cameras)) if config.rings else None,
        )
        # The model's objects live as long as the process: a collection over them would delay a chunk.
        gc.collect()
        gc.freeze()
        supervisor.send(Event(time.monotonic_ns(), "ready", json.dumps(details), details["inference_p99_ms"]))
        loop.run()
    finally:
        cameras.close()
    return ExitCode.FINISHED


def load_program(config: PolicyConfig) -> tuple[Program, dict]:
    """Verified bundle -> sessions -> self-test. Returns the program and what it came to.

    Raises one of `LOAD_ERRORS`.
    """
    cv2.setNumThreads(1)
    bundle = load_bundle(Path(config.bundle))
    robot = load_robot(config.robot)
    space = ActionSpace(bundle.spec, JointUnits(robot, load_calibration(Path(config.calibration), robot)))
    sessions = load_sessions(config.backend, bundle, BackendOptions(config.threads))
    program = Program(bundle.spec, sessions, space, read_tokenizer(bundle))
    for text in config.tasks:
        program.instruction(text)
    difference = program.self_test(bundle)
    return program, {
        "backend": "; ".join(sorted({session.description for session in sessions.values()})),
        "self_test_max_abs": difference,
        "self_test_tolerance": bundle.spec.numerics.tolerance,
    }


def measure_inference(program: Program, clock: Callable[[], float] = time.monotonic) -> dict[str, float]:
    """p50 and p99 of whole inferences and of the backend alone, in ms. Raises one of `LOAD_ERRORS`."""
    start_s = clock()
    for _ in range(WARM_UP_RUNS):
        program.warm_up(1)
        if clock() - start_s > MEASURE_S:
            break
    last_s, end_s = start_s + MEASURE_AT_MOST_S, clock() + MEASURE_S
    rows = [program.warm_up(1)[0]]
    while len(rows) < MEASURED_RUNS and clock() < (last_s if len(rows) < LEAST_RUNS else end_s):
        rows.append(program.warm_up(1)[0])
    p50, p99 = np.percentile(np.array(rows) / 1e6, [50, 99], axis=0)
    return {
        "inference_p50_ms": round(float(p50[0]), 3),
        "inference_p99_ms": round(float(p99[0]), 3),
        "session_run_p50_ms": round(float(p50[1]), 3),
        "session_run_p99_ms": round(float(p99[1]), 3),
    }


def describe_frames(frames: FrameTiming | None) -> dict[str, float | None]:
    """Period and latency of the slowest camera in ms, None where they could not be measured; whether the
    period is only a lower bound."""
    period_ms, latency_ms, at_least = None, None, False
    if frames is not None:
        period_ms, latency_ms = round(frames.period_ns / 1e6, 3), round(frames.latency_ns / 1e6, 3)
        at_least = frames.at_least
    return {"frame_period_ms": period_ms, "frame_latency_ms": latency_ms, "frame_period_at_least": at_least}


def describe_backlog(joints: int, control_period_ns: int) -> dict[str, float]:
    """For how long control's states are kept while nobody reads them, in ms."""
    zeros = (0.0,) * joints
    kept = capacity(State(Phase.RUN, 0, 0, 0, 0, 0, 0, 0, zeros, zeros, zeros))
    return {"backlog_ms": round(kept * control_period_ns / 1e6, 1)}


def _budgets(config: PolicyConfig, program: Program, details: dict) -> Budgets:
    expected_ms = (details["frame_period_ms"] or 0.0) + (details["frame_latency_ms"] or 0.0)
    budgets_ms = policy_budgets_ms(
        config.budgets_ms,
        program.spec.action.dt_s,
        details["session_run_p99_ms"],
        expected_ms or config.limits.frame_age_ns / 1e6 / HEADROOM,
    )
    return Budgets(limits_ns(budgets_ms), config.max_over_budget_fraction)


def _open_cameras(config: PolicyConfig, program: Program) -> Cameras:
    limits, history = config.limits, program.spec.history
    cameras = Cameras(
        {name: open_camera(f"{name}={source}") for name, source in config.cameras.items()},
        FrameLimits(limits.frame_age_ns, limits.frozen_ns, limits.frozen_frames, limits.blank_spread),
        program.moments,
        round(history.dt_s * 1e9) if history is not None else 0,
    )
    cameras.start()
    return cameras


if __name__ == "__main__":
    sys.exit(main())
