"""What the command line leaves open: bundle, task, robot, calibration and cameras. Refuses what is ambiguous.

Nothing here moves anything; the probe of an unknown bus only reads. Every choice is a `Choice`, so that
vla-run can print what it took and why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from ..drivers.calibration import Calibration, find_calibration
from ..drivers.cameras.spec import CameraSpec, parse_camera
from ..drivers.errors import DriverError
from ..drivers.robots.schema import Robot, load_robot, robot_names, robot_path
from .bundle.contract import check_contract, match_cameras, require_contract
from .bundle.errors import BundleError
from .bundle.last import last_bundle
from .bundle.reading import LoadedBundle, load_bundle
from .bundle.schema import Bundle, ClosedVocabulary
from .control.deadlines import check_reactions
from .control.strategies import DEFAULT, allowed
from .exit_codes import Refused, UsageError

PROBES = 3
"""How often a bus whose motors fit no robot is asked."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that was decided, and why."""

    what: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says about the things that are resolved here."""

    bundle: str | None
    tasks: Sequence[str]
    robot: str | None
    calibration: str | None
    robot_id: str | None
    arm: str | None
    cameras: Sequence[str]
    control_hz: float | None
    strategy: str | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Everything chosen; it all fits together, as far as can be told without opening a device."""

    bundle: LoadedBundle
    tasks: tuple[str, ...]
    robot: Robot
    robot_path: Path
    calibration: Calibration
    arm: str
    cameras: dict[str, str]
    """The bundle's camera name -> source, without a name."""
    control_hz: float
    strategy: str
    """How chunks are executed: a key of `control.strategies.STRATEGIES`."""
    choices: tuple[Choice, ...]


def resolve(wishes: Wishes, environ: Mapping[str, str] = os.environ) -> Resolved:
    """Decides everything. Raises `UsageError` for what is missing on the command line, `Refused` for what
    does not fit or cannot be decided."""
    choices: list[Choice] = []
    if wishes.arm is None:
        raise UsageError(
            f"no arm: say where the motors are, e.g. --arm serial:/dev/ttyUSB0{_found_ports()}; without "
            "hardware, start vla-sim and use the address that it prints"
        )
    try:
        bundle_path = _bundle_path(wishes.bundle, choices)
        bundle = load_bundle(bundle_path)
        tasks = choose_tasks(bundle.spec, wishes.tasks, choices)
        strategy = choose_strategy(bundle.spec, wishes.strategy, choices)
        if bundle.spec.evidence.kind == "synthetic":
            choices.append(Choice("evidence", "synthetic samples only", bundle.spec.evidence.text))
        path = _robot_path(wishes, bundle.spec, choices)
        robot = load_robot(str(path))
        check_reactions(robot.reactions)
        specs = [parse_camera(text) for text in wishes.cameras]
        if not specs:
            names = ", ".join(f"--camera {camera.name}=SOURCE" for camera in bundle.spec.cameras)
            raise UsageError(f"no camera: the bundle needs {names}{_found_cameras()}")
        hz = wishes.control_hz or robot.control.hz
        require_contract(
            bundle.spec,
            check_contract(bundle.spec, robot, [spec.name or None for spec in specs], control_hz=hz),
        )
        calibration = find_calibration(
            robot, wishes.calibration, wishes.robot_id, environ, robot_folder=path.parent
        )
    except (BundleError, DriverError) as error:
        raise Refused(str(error)) from error
    choices.append(Choice("calibration", str(calibration.path), _calibration_reason(wishes, robot)))
    return Resolved(
        bundle=bundle,
        tasks=tasks,
        robot=robot,
        robot_path=path,
        calibration=calibration,
        arm=wishes.arm,
        cameras=match_sources(bundle.spec, specs, wishes.cameras),
        control_hz=hz,
        strategy=strategy,
        choices=tuple(choices),
    )


def choose_tasks(spec: Bundle, wanted: Sequence[str], choices: list[Choice]) -> tuple[str, ...]:
    """The tasks to run; each is checked against the bundle's vocabulary where it is closed (others by the
    policy process, before it is ready). Raises `Refused`."""
    from .policy.errors import InstructionError
    from .policy.words import encode_words

    examples = "; ".join(repr(text) for text in spec.task.examples[:6])
    if wanted:
        tasks, why = tuple(wanted), "--task"
    elif spec.task.default is not None:
        tasks, why = (spec.task.default,), "the bundle's default task"
    else:
        raise Refused(
            f"no task: bundle {spec.name} has no default. Give one with --task, for example {examples}"
        )
    if isinstance(spec.task.tokenizer, ClosedVocabulary):
        for text in tasks:
            try:
                encode_words(text, spec.task.tokenizer)
            except InstructionError as error:
                raise Refused(f"task {text!r}: {error}. Examples of this bundle: {examples}") from error
    choices.append(Choice("task", "; ".join(tasks), why))
    return tasks


def choose_strategy(spec: Bundle, wanted: str | None, choices: list[Choice]) -> str:
    """How chunks are executed; what cannot work with the bundle's chunks is refused. Raises `Refused`."""
    fitting = allowed(spec.action.steps)
    if wanted is not None:
        chosen, why = wanted, "--strategy"
    elif spec.execution is not None:
        chosen, why = spec.execution.strategy, "the bundle's"
    elif DEFAULT in fitting:
        chosen, why = DEFAULT, "the default"
    else:
        chosen, why = fitting[0], "the policy predicts one step at a time; the arm holds while it computes"
    if chosen not in fitting:
        raise Refused(
            f"strategy {chosen} cannot execute chunks of {spec.action.steps} step(s); use --strategy "
            f"{' or '.join(fitting)}"
        )
    choices.append(Choice("strategy", chosen, why))
    return chosen


def match_sources(spec: Bundle, specs: Sequence[CameraSpec], texts: Sequence[str]) -> dict[str, str]:
    """The bundle's camera names -> the sources as typed, less their names. Raises `Refused`."""
    matched = match_cameras(spec, [camera.name or None for camera in specs])
    if matched is None:
        wanted = " ".join(f"--camera {camera.name}=SOURCE" for camera in spec.cameras)
        raise Refused(f"the cameras given do not fit the bundle's; expected {wanted}")
    return {name: _without_name(texts[index], specs[index]) for name, index in matched.items()}


def _without_name(text: str, spec: CameraSpec) -> str:
    text = text.strip()
    return text.removeprefix(f"{spec.name}=") if spec.name else text


def _bundle_path(given: str | None, choices: list[Choice]) -> Path:
    if given is not None:
        choices.append(Choice("bundle", given, "given"))
        return Path(given)
    here = sorted(glob("*.vla"))
    if len(here) == 1:
        choices.append(Choice("bundle", here[0], "the only bundle in this folder"))
        return Path(here[0])
    if here:
        raise Refused(f"several bundles in this folder, name one: {', '.join(here)}")
    last = last_bundle()
    if last is None:
        raise Refused(
            "no bundle: none was named, this folder has no *.vla, and the last one exported here is gone or "
            "there was none; make one with vla-export"
        )
    choices.append(Choice("bundle", str(last), "the last one exported on this computer"))
    return last


def _robot_path(wishes: Wishes, spec: Bundle, choices: list[Choice]) -> Path:
    if wishes.robot is not None:
        choices.append(Choice("robot", wishes.robot, "--robot"))
        return robot_path(wishes.robot)
    from ..drivers.probe import fitting_robots, probe

    assert wishes.arm is not None
    found = probe(wishes.arm)
    for _ in range(PROBES - 1):
        if fitting_robots(found):
            break
        # One lost answer must not pass for a missing motor.
        found = sorted({*found, *probe(wishes.arm)}, key=lambda motor: motor.motor_id)
    motors = ", ".join(f"{motor.motor_id}: {motor.model}" for motor in found) or "none"
    fitting = fitting_robots(found)
    if not fitting:
        raise Refused(
            f"no known robot has the motors found on {wishes.arm} ({motors}); check power and cabling, or "
            f"choose one with --robot: {', '.join(robot_names())}, or the path of a .yaml file"
        )
    chosen = [name for name in fitting if spec.robot_type in load_robot(name).robot_types]
    if len(chosen) != 1:
        raise Refused(
            f"the motors found on {wishes.arm} fit {', '.join(fitting)}; the bundle is for "
            f"{spec.robot_type}: choose with --robot"
        )
    why = "the only one with the motors found" if len(fitting) == 1 else (
        f"motors as found; of {', '.join(fitting)} the bundle's type"
    )  # fmt: skip
    choices.append(Choice("robot", chosen[0], why))
    return robot_path(chosen[0])


def _calibration_reason(wishes: Wishes, robot: Robot) -> str:
    if wishes.calibration is not None:
        return "--calibration"
    if robot.calibration is not None:
        return "comes with the robot file"
    return "the only one in LeRobot's folder that fits" + (" --robot-id" if wishes.robot_id else "")


def _found_ports() -> str:
    ports = sorted([*glob("/dev/serial/by-id/*"), *glob("/dev/ttyUSB*"), *glob("/dev/ttyACM*")])
    return f" (found: {', '.join(ports)})" if ports else ""


def _found_cameras() -> str:
    cameras = sorted(glob("/dev/video*"))
    return f" (found: {', '.join(cameras)})" if cameras else ""
